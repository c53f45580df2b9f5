//! What the engine needs of the world around it.

use std::sync::Arc;
use std::time::Duration;

use nalgebra::Isometry3;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::StampClock;
use super::depth::DepthRegistrar;
use super::input_health::GraphSnapshot;
use super::inputs::CameraInputs;
use super::monitor::Monitor;
use super::outcome::Outcome;
use super::state::State;
use super::transforms::Transforms;
use crate::config::Config;
use crate::image::RgbdFrame;
use crate::model::worker::ModelHandle;

/// Where results go.
pub trait ResultSink: Send {
    /// Publishes an outcome; `frame` is what it is drawn on for those who watch.
    fn publish(&mut self, outcome: &Outcome, frame: Option<&RgbdFrame>);

    /// Publishes where a tracked target is at a stamp.
    fn publish_target_pose(&mut self, stamp_ns: i64, frame_id: &str, target_from_object: &Isometry3<f64>);

    /// Removes the markers of an outcome that no longer holds.
    fn clear_markers(&mut self);
}

/// The model, when there is one.
pub type ModelSlot = Arc<Mutex<Option<ModelHandle>>>;

/// Everything a request needs. Clones share it.
#[derive(Clone)]
pub struct Ports {
    /// The newest messages of the camera's topics.
    pub inputs: CameraInputs,
    /// What TF has said, and lookups at a stamp.
    pub transforms: Transforms,
    /// Brings depth to the color camera's pixels.
    pub depth: DepthRegistrar,
    /// The checked parameters; a change arrives as a new value.
    pub config: watch::Receiver<Arc<Config>>,
    /// The lifecycle's state.
    pub state: watch::Receiver<State>,
    /// Who publishes on the input topics.
    pub graph: watch::Receiver<GraphSnapshot>,
    /// The model's thread, `None` while no model is loaded.
    pub model: ModelSlot,
    /// The topics that results are published on.
    pub results: Arc<Mutex<dyn ResultSink>>,
    /// Counters for the node's health.
    pub monitor: Monitor,
    /// The clock that stamps are of.
    pub now_ns: StampClock,
    /// How long to wait for what.
    pub limits: Limits,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A color image may wait so long for its depth image and for the intrinsics.
    pub depth_grace: Duration,
    /// A camera that has just started may take so long until its depth and intrinsics arrive too: its topics are discovered one
    /// by one.
    pub startup_grace: Duration,
    /// A request without a timeout of its own waits so long for the model.
    pub model_timeout: Duration,
    /// A request without a timeout of its own waits so long for an image.
    pub image_timeout: Duration,
    /// The standing instruction's listeners hear so often that no image comes.
    pub stale_period: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_grace: Duration::from_millis(150),
            startup_grace: Duration::from_secs(1),
            model_timeout: Duration::from_secs(60),
            image_timeout: Duration::from_secs(2),
            stale_period: Duration::from_secs(1),
        }
    }
}

impl Ports {
    /// Publishes an outcome and counts it.
    pub fn publish(&self, outcome: &Outcome, frame: Option<&RgbdFrame>) {
        let started = std::time::Instant::now();
        self.results.lock().publish(outcome, frame);
        self.monitor.count(outcome, started.elapsed());
    }
}
