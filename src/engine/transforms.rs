//! What TF has said, and lookups that wait a bounded time for a transform on its way.

use std::sync::Arc;
use std::time::Duration;

use nalgebra::Isometry3;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::clock::StampClock;
use super::monitor::Monitor;
use crate::transform::{StampedTransform, TransformError, TransformTree};

/// The transforms known so far. Clones share them.
#[derive(Clone)]
pub struct Transforms {
    known: Arc<RwLock<Known>>,
    updates: watch::Receiver<u64>,
    now_ns: StampClock,
}

/// Where transforms go in.
#[derive(Clone)]
pub struct TransformFeed {
    known: Arc<RwLock<Known>>,
    updates: Arc<watch::Sender<u64>>,
    monitor: Monitor,
    now_ns: StampClock,
}

struct Known {
    tree: TransformTree,
    /// The clock when it was last looked at; 0: it told nothing yet.
    clock_ns: i64,
}

/// No transforms yet; `max_age` of history will be kept. What was said before the clock stepped back is forgotten.
pub fn transforms(max_age: Duration, monitor: Monitor, now_ns: StampClock) -> (TransformFeed, Transforms) {
    let known = Arc::new(RwLock::new(Known { tree: TransformTree::new(max_age), clock_ns: 0 }));
    let (updates, received) = watch::channel(0);
    let feed = TransformFeed {
        known: Arc::clone(&known),
        updates: Arc::new(updates),
        monitor,
        now_ns: Arc::clone(&now_ns),
    };
    (feed, Transforms { known, updates: received, now_ns })
}

impl TransformFeed {
    /// Takes in what one message says; what makes no sense is left out and counted.
    pub fn put(&self, transforms: impl IntoIterator<Item = StampedTransform>) {
        for edge in transforms {
            let taken = self.known.write().at(&self.now_ns).insert(&edge);
            if let Err(error) = taken {
                self.monitor.transform_refused(error.to_string());
            }
        }
        self.updates.send_modify(|n| *n += 1);
    }
}

impl Known {
    /// The tree now. The clock is read here, under the lock: readings in another order would look like a step back.
    fn at(&mut self, now_ns: &StampClock) -> &mut TransformTree {
        let now_ns = now_ns();
        if now_ns < self.clock_ns {
            self.tree.forget_moving();
        }
        self.clock_ns = now_ns;
        &mut self.tree
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
            let found = self.known.write().at(&self.now_ns).target_from_source(target, source, stamp_ns);
            let Err(error) = found else { return found };
            let changed = tokio::time::timeout_at(deadline, updates.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(error);
            }
        }
    }
}
