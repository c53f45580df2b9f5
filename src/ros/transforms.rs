//! `/tf` and `/tf_static` into the [`TransformTree`], and lookups that wait a bounded time for a transform on its way.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use nalgebra::{Isometry3, Quaternion, Translation3, UnitQuaternion};
use r2r::QosProfile;
use r2r::tf2_msgs::msg::TFMessage;
use tokio::sync::watch;

use super::diagnostics::Monitor;
use super::nanos_from_time;
use crate::transform::{StampedTransform, TransformError, TransformStamp, TransformTree};

/// Listens to TF for as long as the node lives.
#[derive(Clone)]
pub struct TransformListener {
    tree: Arc<RwLock<TransformTree>>,
    news: watch::Receiver<u64>,
}

impl TransformListener {
    /// Subscribes; keeps `max_age` of history.
    pub fn subscribe(node: &mut r2r::Node, max_age: Duration, monitor: &Monitor) -> r2r::Result<Self> {
        let tree = Arc::new(RwLock::new(TransformTree::new(max_age)));
        let (ring, news) = watch::channel(0);
        let ring = Arc::new(ring);
        let moving = node.subscribe::<TFMessage>("/tf", QosProfile::default().keep_last(100))?;
        let latched = QosProfile::default().keep_last(100).transient_local();
        let fixed = node.subscribe::<TFMessage>("/tf_static", latched)?;
        tokio::spawn(store_all(moving, Kind::Moving, Arc::clone(&tree), Arc::clone(&ring), monitor.clone()));
        tokio::spawn(store_all(fixed, Kind::Static, Arc::clone(&tree), ring, monitor.clone()));
        Ok(Self { tree, news })
    }

    /// The transform at a time; waits up to `timeout` for it to become known.
    pub async fn target_from_source(
        &self,
        target: &str,
        source: &str,
        stamp_ns: i64,
        timeout: Duration,
    ) -> Result<Isometry3<f64>, TransformError> {
        let mut news = self.news.clone();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            news.mark_unchanged();
            let found = {
                let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
                tree.target_from_source(target, source, stamp_ns)
            };
            let Err(error) = found else { return found };
            let changed = tokio::time::timeout_at(deadline, news.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(error);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Moving,
    Static,
}

async fn store_all(
    mut messages: impl Stream<Item = TFMessage> + Unpin,
    kind: Kind,
    tree: Arc<RwLock<TransformTree>>,
    ring: Arc<watch::Sender<u64>>,
    monitor: Monitor,
) {
    while let Some(message) = messages.next().await {
        for transform in message.transforms {
            let (translation, rotation) = (&transform.transform.translation, &transform.transform.rotation);
            let edge = StampedTransform {
                parent: transform.header.frame_id,
                child: transform.child_frame_id,
                parent_from_child: Isometry3::from_parts(
                    Translation3::new(translation.x, translation.y, translation.z),
                    // The tree checks the norm.
                    UnitQuaternion::new_unchecked(Quaternion::new(
                        rotation.w, rotation.x, rotation.y, rotation.z,
                    )),
                ),
                stamp: match kind {
                    Kind::Moving => TransformStamp::At(nanos_from_time(&transform.header.stamp)),
                    Kind::Static => TransformStamp::Static,
                },
            };
            let taken = tree.write().unwrap_or_else(PoisonError::into_inner).insert(&edge);
            if let Err(error) = taken {
                monitor.transform_refused(error.to_string());
            }
        }
        ring.send_modify(|n| *n += 1);
    }
}
