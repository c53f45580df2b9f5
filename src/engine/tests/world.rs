//! A camera, TF, a clock, a model and listeners that tests hold in their hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use nalgebra::Isometry3;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{mpsc, oneshot, watch};

use crate::camera::PinholeCamera;
use crate::config::{Config, RawConfig};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::engine::calls::{Call, DescribeCall, DescribeRefusal, Description, GroundCall};
use crate::engine::camera::{ColorMessage, ConvertError, DepthMessage, FrameHeader, IntrinsicsMessage, Role};
use crate::engine::clock::StampClock;
use crate::engine::conversation::Conversation;
use crate::engine::depth::DepthRegistrar;
use crate::engine::input_health::GraphSnapshot;
use crate::engine::inputs::{CameraFeed, CameraMessage, Rectified, camera_inputs};
use crate::engine::monitor::Monitor;
use crate::engine::outcome::Outcome;
use crate::engine::ports::{Limits, ModelSlot, Ports, ResultSink};
use crate::engine::scheduler::Scheduler;
use crate::engine::state::State;
use crate::engine::tracking::Tracking;
use crate::engine::transforms::{TransformFeed, transforms};
use crate::image::{DepthImage, DepthUnit, RgbImage, RgbdFrame};
use crate::model::worker::ModelWorker;
use crate::model::{Captioner, Grounder, KeyedImage, Model, ModelError, ModelInfo};
use crate::result::Status;

/// Longer than any test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);
/// Something that should have happened long ago.
const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: (u32, u32) = (64, 48);

/// Nothing happens but what the test does.
pub(crate) const STILL: Limits = Limits {
    depth_grace: LONG,
    startup_grace: Duration::ZERO,
    model_timeout: LONG,
    image_timeout: LONG,
    stale_period: LONG,
};

/// 2D only: a frame is its color image.
pub(crate) fn flat() -> RawConfig {
    RawConfig { use_depth: false, caption_targets: false, ..RawConfig::default() }
}

/// With depth. What arrived in the last hour is still coming, however slow the machine is.
pub(crate) fn deep() -> RawConfig {
    RawConfig { use_depth: true, max_frame_age_secs: 3600.0, ..flat() }
}

pub(crate) struct World {
    pub(crate) feed: CameraFeed,
    pub(crate) tf: TransformFeed,
    pub(crate) state: watch::Sender<State>,
    pub(crate) clock_ns: Arc<AtomicI64>,
    pub(crate) model: Arc<ModelControl>,
    pub(crate) monitor: Monitor,
    pub(crate) ports: Ports,
    calls: mpsc::Sender<Call>,
    instructions: mpsc::Sender<String>,
    published: mpsc::Receiver<Published>,
    // Whatever is watched stays so.
    _graph: watch::Sender<GraphSnapshot>,
    _config: watch::Sender<Arc<Config>>,
    _worker: ModelWorker,
}

/// What came out.
pub(crate) struct Published {
    pub(crate) outcome: Outcome,
    /// Whether the frame had depth; `None` without a frame.
    pub(crate) had_depth: Option<bool>,
}

/// The test's hand on the model.
#[derive(Default)]
pub(crate) struct ModelControl {
    is_held: Mutex<bool>,
    released: Condvar,
    begun: AtomicUsize,
}

struct FakeModel {
    info: ModelInfo,
    control: Arc<ModelControl>,
}

struct Recorder(mpsc::Sender<Published>);

#[derive(Debug)]
pub(crate) struct FakeImage {
    /// How often it was converted.
    pub(crate) n_converted: AtomicUsize,
}

impl World {
    /// An active node with a camera that has sent nothing yet.
    pub(crate) async fn new(raw: RawConfig, limits: Limits) -> Self {
        let config = Config::try_from(raw).unwrap();
        let dialogue_window = config.dialogue_window;
        let monitor = Monitor::default();
        let (feed, inputs) = camera_inputs(Rectified::default());
        feed.add_topic(Role::Image, "/camera/image".to_owned(), "sensor_msgs/msg/Image");
        if config.pipeline.use_depth {
            feed.add_topic(Role::Depth, "/camera/depth".to_owned(), "sensor_msgs/msg/Image");
            feed.add_topic(Role::CameraInfo, "/camera/camera_info".to_owned(), "sensor_msgs/msg/CameraInfo");
        }
        let clock_ns = Arc::new(AtomicI64::new(1_000_000_000_000));
        let clock = Arc::clone(&clock_ns);
        let now_ns: StampClock = Arc::new(move || clock.load(Ordering::Relaxed));
        let (tf, known) = transforms(Duration::from_secs(10), monitor.clone(), Arc::clone(&now_ns));
        let (config_sender, config) = watch::channel(Arc::new(config));
        let (graph_sender, graph) = watch::channel(GraphSnapshot::new());
        let (state, watched_state) = watch::channel(State::Active);
        let (recorder, published) = mpsc::channel(1000);
        let model = Arc::<ModelControl>::default();
        let control = Arc::clone(&model);
        let (worker, loaded) = ModelWorker::spawn(move || Ok(Box::new(FakeModel::new(control)))).unwrap();
        loaded.await.unwrap().unwrap();
        let slot = ModelSlot::default();
        *slot.lock() = Some(worker.handle());
        let ports = Ports {
            inputs,
            depth: DepthRegistrar::new(known.clone()),
            transforms: known,
            config,
            state: watched_state,
            graph,
            model: slot,
            results: Arc::new(Mutex::new(Recorder(recorder))),
            monitor: monitor.clone(),
            now_ns,
            limits,
        };
        let conversation = || Conversation::new(dialogue_window);
        let tracking = Tracking::default();
        tokio::spawn(tracking.clone().run(ports.clone()));
        let (calls, waiting_calls) = mpsc::channel(16);
        let (instructions, waiting_instructions) = mpsc::channel(16);
        let scheduler = Scheduler::new(ports.clone(), tracking, conversation(), conversation());
        tokio::spawn(scheduler.run(waiting_calls, waiting_instructions));
        Self {
            feed,
            tf,
            state,
            clock_ns,
            model,
            monitor,
            ports,
            calls,
            instructions,
            published,
            _graph: graph_sender,
            _config: config_sender,
            _worker: worker,
        }
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.clock_ns.load(Ordering::Relaxed)
    }

    /// A tenth of a second later, by the clock of stamps. Returns its time.
    pub(crate) fn tick(&self) -> i64 {
        self.clock_ns.fetch_add(100_000_000, Ordering::Relaxed) + 100_000_000
    }

    pub(crate) fn color(&self, stamp_ns: i64) {
        self.feed.put(header(stamp_ns), CameraMessage::Color(FakeImage::new()));
    }

    pub(crate) fn depth(&self, stamp_ns: i64) {
        self.feed.put(header(stamp_ns), CameraMessage::Depth(FakeImage::new()));
    }

    pub(crate) fn camera_info(&self) {
        self.feed.put(header(0), CameraMessage::CameraInfo(FakeImage::new()));
    }

    pub(crate) async fn say(&self, text: &str) {
        self.instructions.send(text.to_owned()).await.unwrap();
        settle().await;
    }

    /// A service's request. Dropping what is returned cancels it.
    pub(crate) async fn call(
        &self,
        id: &str,
        instruction: &str,
        timeout: Duration,
    ) -> oneshot::Receiver<(Arc<Outcome>, u64)> {
        let (reply, answer) = oneshot::channel();
        let (id, instruction) = (id.to_owned(), instruction.to_owned());
        let call = GroundCall { id, instruction, timeout, after_sequence: 0, reply };
        self.calls.send(Call::Ground(call)).await.unwrap();
        settle().await;
        answer
    }

    pub(crate) async fn describe(&self, question: &str) -> Result<Description, DescribeRefusal> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Describe(DescribeCall { question: question.to_owned(), reply })).await.unwrap();
        tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap()
    }

    /// The next thing that is published.
    pub(crate) async fn next(&mut self) -> Published {
        tokio::time::timeout(PATIENCE, self.published.recv()).await.expect("nothing is published").unwrap()
    }

    /// The next thing that is published has this id and status. Returns its message.
    #[track_caller]
    pub(crate) fn expect(&mut self, id: &str, status: Status) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let Published { outcome, .. } = self.next().await;
            let found = (outcome.instruction_id.as_str(), outcome.result.status);
            assert_eq!(found, (id, status), "{:?}, expected at {caller}", outcome.result.message);
            outcome.result.message
        }
    }

    /// Nothing has been published that was not looked at.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        if let Ok(Published { outcome, .. }) = self.published.try_recv() {
            panic!("{}: {:?}", outcome.instruction_id, outcome.result.message);
        }
    }
}

/// Lets everything that can go on do so.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn header(stamp_ns: i64) -> FrameHeader {
    FrameHeader { stamp_ns, frame_id: "camera_optical_frame".to_owned() }
}

impl ModelControl {
    /// From now on no job is finished.
    pub(crate) fn hold(&self) {
        *self.is_held.lock() = true;
    }

    pub(crate) fn release(&self) {
        *self.is_held.lock() = false;
        self.released.notify_all();
    }

    /// Waits until so many jobs have been begun.
    pub(crate) async fn begun(&self, n: usize) {
        let enough = async {
            while self.begun.load(Ordering::SeqCst) < n {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("the model is not asked");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The model's thread is joined.
        self.model.release();
    }
}

impl FakeModel {
    fn new(control: Arc<ModelControl>) -> Self {
        let info = ModelInfo {
            name: "fake".to_owned(),
            model_type: "fake".to_owned(),
            device: "cpu".to_owned(),
            synthetic: false,
            input_side: None,
            is_told: false,
        };
        Self { info, control }
    }
}

impl Model for FakeModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(self)
    }

    fn captioner(&mut self) -> Option<&mut dyn Captioner> {
        Some(self)
    }
}

impl Grounder for FakeModel {
    /// One mug left of the middle; of everything else nothing.
    fn ground(&mut self, _: KeyedImage<'_>, phrases: &[&str]) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        self.control.begun.fetch_add(1, Ordering::SeqCst);
        let mut is_held = self.control.is_held.lock();
        while *is_held {
            self.control.released.wait(&mut is_held);
        }
        assert!(!phrases.contains(&"bomb"), "boom");
        let bbox = BoundingBox2d { x0: 10.0, y0: 10.0, x1: 30.0, y1: 40.0 };
        let of = |phrase: &&str| match *phrase {
            "mug" => vec![Detection2d::new("mug", bbox, 0.9)],
            _ => Vec::new(),
        };
        Ok(phrases.iter().map(of).collect())
    }
}

impl Captioner for FakeModel {
    fn caption(&mut self, _: KeyedImage<'_>, _: Option<BoundingBox2d>) -> Result<String, ModelError> {
        Ok("a mug".to_owned())
    }
}

impl FakeImage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { n_converted: AtomicUsize::new(0) })
    }
}

impl ColorMessage for FakeImage {
    fn size(&self) -> Option<(u32, u32)> {
        Some(SIZE)
    }

    fn rgb(&self) -> Result<RgbImage, ConvertError> {
        self.n_converted.fetch_add(1, Ordering::SeqCst);
        Ok(RgbImage::new(SIZE.0, SIZE.1))
    }
}

impl DepthMessage for FakeImage {
    fn depth(&self, _: DepthUnit) -> Result<DepthImage, ConvertError> {
        self.n_converted.fetch_add(1, Ordering::SeqCst);
        Ok(DepthImage::from_meters(SIZE.0, SIZE.1, vec![0.8; (SIZE.0 * SIZE.1) as usize])?)
    }
}

impl IntrinsicsMessage for FakeImage {
    fn camera(&self, (width, height): (u32, u32), _: bool) -> Result<PinholeCamera, ConvertError> {
        let k = [60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0];
        Ok(PinholeCamera::from_k(width, height, &k)?)
    }
}

impl ResultSink for Recorder {
    fn publish(&mut self, outcome: &Outcome, frame: Option<&RgbdFrame>) {
        let published = Published { outcome: outcome.clone(), had_depth: frame.map(|it| it.depth.is_some()) };
        // The test may be over.
        self.0.try_send(published).ok();
    }

    fn publish_target_pose(&mut self, _: i64, _: &str, _: &Isometry3<f64>) {}

    fn clear_markers(&mut self) {}
}
