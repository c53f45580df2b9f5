//! The objects of the standing instruction followed at the rate of the camera, beside the model's own.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::followed::{DepthFrame, FollowedObjects};
use super::inputs::CameraFrame;
use super::ports::Ports;
use super::state::State;
use crate::config::Config;

/// What is followed. Clones share it.
#[derive(Clone, Default)]
pub struct Tracking {
    followed: Arc<Mutex<FollowedObjects>>,
}

impl Tracking {
    /// Follows for as long as images may come.
    pub async fn run(self, ports: Ports) {
        let mut updates = ports.inputs.updates();
        let mut last_sequence = 0;
        while updates.changed().await.is_ok() {
            updates.mark_unchanged();
            let config = Arc::clone(&ports.config.borrow());
            if !config.track || *ports.state.borrow() != State::Active || !self.lock().is_wanted() {
                continue;
            }
            let newest = ports.inputs.newest_with_depth(config.stamp_tolerance);
            if let Some(seen) = newest.filter(|it| it.sequence() != last_sequence) {
                last_sequence = seen.sequence();
                self.follow(&seen, &config, &ports).await;
                // Where following takes longer than a frame, the next one is there already: the requests come between.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Other words hold from now on, under this id; `None`: none do.
    pub fn begin(&self, instruction: Option<(String, String)>) {
        self.lock().begin(instruction);
    }

    /// The model is about to look at a frame.
    pub fn look_at(&self, stamp_ns: i64) {
        self.lock().look_at(stamp_ns);
    }

    /// No pose is published meanwhile: what is published under this lock comes before or after all of a frame's poses.
    pub fn lock(&self) -> MutexGuard<'_, FollowedObjects> {
        self.followed.lock()
    }

    async fn follow(&self, seen: &CameraFrame, config: &Config, ports: &Ports) {
        let header = seen.header();
        let Some(color_size) = seen.images.color.message.size() else { return };
        let found = ports.depth.of_frame(seen, color_size, config).await;
        let (Some(depth), Some(camera)) = (found.depth, found.camera) else { return };
        if (depth.width(), depth.height()) != camera.size() {
            return;
        }
        let reference = config.target_frame.as_deref().unwrap_or(&header.frame_id);
        let located = ports
            .transforms
            .target_from_source(reference, &header.frame_id, header.stamp_ns, config.transform_timeout)
            .await;
        // Without it there is no pose to publish; the result says why.
        let Ok(reference_from_camera) = located else { return };
        let frame = DepthFrame { stamp_ns: header.stamp_ns, reference_from_camera, depth, camera };
        let mut followed = self.lock();
        let (lost, pose) = followed.follow(frame, &header.frame_id, reference, config);
        let mut results = ports.results.lock();
        if let Some(outcome) = lost {
            results.publish(&outcome, None);
            ports.monitor.count(&outcome, Duration::ZERO);
        }
        if let Some(target_from_object) = pose {
            results.publish_target_pose(header.stamp_ns, reference, &target_from_object);
            ports.monitor.count_tracked();
        }
    }
}
