//! What TF has said, and lookups that wait a bounded time for a transform on its way.

use std::sync::Arc;
use std::time::Duration;

use nalgebra::Isometry3;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::monitor::Monitor;
use crate::transform::{StampedTransform, TransformError, TransformTree};

/// The transforms known so far. Clones share them.
#[derive(Clone)]
pub struct Transforms {
    tree: Arc<RwLock<TransformTree>>,
    updates: watch::Receiver<u64>,
}

/// Where transforms go in.
#[derive(Clone)]
pub struct TransformFeed {
    tree: Arc<RwLock<TransformTree>>,
    updates: Arc<watch::Sender<u64>>,
    monitor: Monitor,
}

/// No transforms yet; `max_age` of history will be kept.
pub fn transforms(max_age: Duration, monitor: Monitor) -> (TransformFeed, Transforms) {
    let tree = Arc::new(RwLock::new(TransformTree::new(max_age)));
    let (updates, received) = watch::channel(0);
    let feed = TransformFeed { tree: Arc::clone(&tree), updates: Arc::new(updates), monitor };
    (feed, Transforms { tree, updates: received })
}

impl TransformFeed {
    /// Takes in what one message says; what makes no sense is left out and counted.
    pub fn put(&self, transforms: impl IntoIterator<Item = StampedTransform>) {
        for edge in transforms {
            let taken = self.tree.write().insert(&edge);
            if let Err(error) = taken {
                self.monitor.transform_refused(error.to_string());
            }
        }
        self.updates.send_modify(|n| *n += 1);
    }
}

impl Transforms {
    /// The transform at a time; waits up to `timeout` for it to become known.
    pub async fn target_from_source(
        &self,
        target: &str,
        source: &str,
        stamp_ns: i64,
        timeout: Duration,
    ) -> Result<Isometry3<f64>, TransformError> {
        let mut updates = self.updates.clone();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            updates.mark_unchanged();
            let found = self.tree.read().target_from_source(target, source, stamp_ns);
            let Err(error) = found else { return found };
            let changed = tokio::time::timeout_at(deadline, updates.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(error);
            }
        }
    }
}
