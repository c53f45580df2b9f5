//! What the node does with its time: one request after the other, each on the newest image, each with exactly one result.
//!
//! Requests from services and actions come first; between them the standing instruction is answered on every new image.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use r2r::Clock;
use r2r::std_msgs::msg::Header;
use tokio::sync::{mpsc, oneshot, watch};

use super::depth::{ColorDepth, DepthRegistrar};
use super::diagnostics::{Monitor, clock_problem, missing_input};
use super::inputs::{InputStats, Inputs, PairedMessages, Role};
use super::lifecycle::State;
use super::outcome::{MAX_INSTRUCTION_BYTES, Outcome, TargetFate, TargetFrame, shortened};
use super::publish::ResultPublisher;
use super::tracking::{Around, Tracking};
use super::transforms::TransformListener;
use super::{GraphSnapshot, now_ns};
use crate::config::Config;
use crate::dialogue::Dialogue;
use crate::image::RgbdFrame;
use crate::instruction::Vocabulary;
use crate::lift::{FrameContext, SupportPlane};
use crate::model::worker::{ModelWorker, WorkerError};
use crate::model::{KeyedImage, ModelError, VisionLanguageModel};
use crate::pipeline;
use crate::request::GroundingRequest;
use crate::result::{GroundingResult, Status};
use crate::viewpoint::ViewAxes;

/// How long a color image may wait for its depth image and for the intrinsics.
const DEPTH_GRACE: Duration = Duration::from_millis(150);
/// How long a camera that has just started may take until its depth and intrinsics arrive too: its topics are discovered one by
/// one.
const STARTUP_GRACE: Duration = Duration::from_secs(1);
/// How long a request without a timeout of its own waits for the model.
const MODEL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request without a timeout of its own waits for an image.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the standing instruction is told that no image comes.
const STALE_PERIOD: Duration = Duration::from_secs(1);

/// How sure a plane is that TF tells: the errors of a usual calibration of camera and robot.
const PLANE_FRAME_SIGMA_M: f64 = 0.005;
const PLANE_FRAME_SIGMA_RAD: f64 = 0.01;
/// A plane that was seen longer ago is not relied on.
const MAX_PLANE_AGE_NS: i64 = 60_000_000_000;

/// The model, when there is one.
pub type ModelSlot = Arc<Mutex<Option<Arc<ModelWorker>>>>;

/// A request for one result.
pub struct GroundRequest {
    /// Comes back with the result.
    pub id: String,
    /// As received.
    pub instruction: String,
    /// For the image and for the model; zero = the node's own limits.
    pub timeout: Duration,
    /// Only an image newer than this one will do; 0 = the newest there is.
    pub after_sequence: u64,
    /// Dropping the receiver cancels the request.
    pub reply: oneshot::Sender<(Arc<Outcome>, u64)>,
}

/// A request for words about the newest image.
pub struct DescribeRequest {
    /// Empty = a caption.
    pub question: String,
    /// Dropping the receiver cancels the request.
    pub reply: oneshot::Sender<Description>,
}

/// The words, or one sentence why there are none.
pub struct Description {
    /// Stamp and frame of the image looked at.
    pub header: Header,
    /// Who looked.
    pub model: String,
    /// The caption or answer.
    pub text: Result<String, String>,
}

/// A request.
pub enum Request {
    /// From `~/ground` and `~/find`.
    Ground(GroundRequest),
    /// From `~/describe`.
    Describe(DescribeRequest),
}

/// Everything a request needs.
pub struct Engine {
    /// The camera.
    pub inputs: Inputs,
    /// TF.
    pub transforms: TransformListener,
    /// Depth of the color camera.
    pub depth: DepthRegistrar,
    /// The objects of the standing instruction, between the model's answers.
    pub tracking: Tracking,
    /// What things stand on, as last seen.
    pub remembered_plane: Mutex<Option<RememberedPlane>>,
    /// Parameters.
    pub config: watch::Receiver<Arc<Config>>,
    /// Of the node.
    pub state: watch::Receiver<State>,
    /// Who publishes what.
    pub graph: watch::Receiver<GraphSnapshot>,
    /// The model.
    pub model: ModelSlot,
    /// Where results go. Publishers are `Send` but not `Sync`.
    pub publisher: Arc<Mutex<ResultPublisher>>,
    /// Health.
    pub monitor: Monitor,
    /// ROS time.
    pub clock: Arc<Mutex<Clock>>,
    /// On the instruction topic.
    pub topic_conversation: Conversation,
    /// With services and actions.
    pub request_conversation: Conversation,
}

/// A support plane that depth has shown, in a frame where furniture stands still.
pub struct RememberedPlane {
    frame_id: String,
    plane: SupportPlane,
    stamp_ns: i64,
}

/// What was said on one way in, and when: a service's "the left one" does not answer a question of the topic's.
pub struct Conversation {
    dialogue: Mutex<Dialogue>,
    vocabulary: Arc<Vocabulary>,
    started: Instant,
}

/// The instruction that is answered on every new image.
struct Standing {
    id: String,
    text: String,
    /// What it means; `None` when it is not understood, or too long.
    asked: Option<GroundingRequest>,
    last_sequence: u64,
    last_started: Option<Instant>,
    /// Answered once and for all (it cannot be understood, or the node was inactive).
    is_settled: bool,
    n_answers: u64,
}

/// Why there is no frame: the status and one sentence.
type Refusal = (Status, String);

impl Engine {
    /// Serves until both channels are closed.
    pub async fn run(self, mut requests: mpsc::Receiver<Request>, mut instructions: mpsc::Receiver<String>) {
        let mut standing: Option<Standing> = None;
        let mut n_instructions: u64 = 0;
        let mut state = self.state.clone();
        loop {
            tokio::select! {
                biased;
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if *state.borrow_and_update() != State::Active {
                        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).clear_markers();
                        self.tracking.begin(standing.as_ref().map(|it| (it.id.clone(), it.text.clone())));
                    }
                }
                request = requests.recv() => match request {
                    Some(Request::Ground(request)) => self.serve_ground(request).await,
                    Some(Request::Describe(request)) => self.serve_describe(request).await,
                    None => return,
                },
                text = instructions.recv() => {
                    let Some(text) = text else { return };
                    n_instructions += 1;
                    self.replace_standing(&mut standing, text, n_instructions);
                }
                next = self.next_standing_frame(standing.as_ref()), if standing.is_some() => {
                    if let Some(standing) = &mut standing {
                        self.answer_standing(standing, next).await;
                    }
                }
            }
        }
    }

    fn replace_standing(&self, standing: &mut Option<Standing>, text: String, number: u64) {
        if let Some(old) = standing.as_ref().filter(|it| it.n_answers == 0) {
            let message = "a newer instruction came before this one was looked at".to_owned();
            let outcome = Outcome::refused(&old.id, &old.text, Status::Blocked, message);
            self.publish(&outcome, None);
        }
        let id = format!("instruction-{number}");
        let newest = self.inputs.newest(Duration::ZERO).1.map_or(0, |it| it.sequence);
        self.monitor.skip_to(newest.saturating_sub(1));
        if text.trim().is_empty() {
            self.topic_conversation.forget();
            self.tracking.begin(None);
            tracing::info!("empty instruction: stopped");
            *standing = None;
            let message = "the instruction is empty: stopped looking; say what to look for, such as \"pick up the red cup\"";
            self.publish(&Outcome::refused(&id, &text, Status::BadInstruction, message.to_owned()), None);
            return;
        }
        let understood = self.topic_conversation.understand(&id, &text);
        let refusal = understood.as_ref().err().cloned().or_else(|| self.check_active().err());
        let asked = understood.ok();
        let mut new = Standing {
            id,
            text,
            asked,
            last_sequence: 0,
            last_started: None,
            is_settled: false,
            n_answers: 0,
        };
        tracing::info!("{}: {:?}", new.id, shortened(&new.text));
        self.tracking.begin(new.asked.is_some().then(|| (new.id.clone(), new.text.clone())));
        // While a model is loading, the instruction waits for it.
        let waits =
            matches!(refusal, Some((Status::Blocked, _))) && *self.state.borrow() == State::Configuring;
        if let Some((status, message)) = refusal.filter(|_| !waits) {
            new.n_answers = 1;
            new.is_settled = status == Status::BadInstruction;
            self.publish(&Outcome::refused(&new.id, &new.text, status, message), None);
        }
        *standing = Some(new);
    }

    /// Waits for the next image the standing instruction is to be answered on, or for it to be time to say that none comes.
    /// Loses nothing when dropped.
    async fn next_standing_frame(&self, standing: Option<&Standing>) -> Result<PairedMessages, Refusal> {
        let Some(standing) = standing.filter(|it| !it.is_settled) else {
            return std::future::pending().await;
        };
        let mut state = self.state.clone();
        // The sender lives as long as the node.
        if state.wait_for(|it| *it == State::Active).await.is_err() {
            return std::future::pending().await;
        }
        let min_period = self.config.borrow().min_period;
        if let Some(started) = standing.last_started {
            tokio::time::sleep_until((started + min_period).into()).await;
        }
        self.wait_for_frame(standing.last_sequence, STALE_PERIOD).await
    }

    async fn answer_standing(&self, standing: &mut Standing, frame: Result<PairedMessages, Refusal>) {
        standing.last_started = Some(Instant::now());
        standing.n_answers += 1;
        match frame {
            Ok(paired) => {
                standing.last_sequence = paired.sequence;
                // What is not understood is settled, and no image is waited for.
                let Some(asked) = &standing.asked else { return };
                self.tracking.look_at(paired.stamp_ns());
                let (mut outcome, frame) = self.ground(&standing.id, asked, &paired, MODEL_TIMEOUT).await;
                self.topic_conversation.heard(&standing.id, asked, &outcome.result);
                let config = Arc::clone(&self.config.borrow());
                let mut tracked = self.tracking.lock();
                let around = if config.track {
                    tracked.heard(&mut outcome, frame.as_deref(), &config)
                } else {
                    Around::default()
                };
                for outcome in around.before.iter().chain([&outcome]).chain(&around.after) {
                    let frame = frame.as_deref().filter(|_| outcome.result.status != Status::Stale);
                    self.publish(outcome, frame);
                }
            }
            Err((status, message)) => {
                self.publish(&Outcome::refused(&standing.id, &standing.text, status, message), None);
            }
        }
    }

    async fn serve_ground(&self, request: GroundRequest) {
        let GroundRequest { id, instruction, timeout, after_sequence, mut reply } = request;
        let answer = async {
            let understood = self.request_conversation.understand(&id, &instruction);
            let asked = match understood.and_then(|asked| self.check_active().map(|()| asked)) {
                Ok(asked) => asked,
                Err((status, message)) => {
                    return (Outcome::refused(&id, &instruction, status, message), None, 0);
                }
            };
            let started = Instant::now();
            let image_timeout = if timeout.is_zero() { IMAGE_TIMEOUT } else { timeout };
            match self.wait_for_frame(after_sequence, image_timeout).await {
                Ok(paired) => {
                    let model_timeout = if timeout.is_zero() {
                        MODEL_TIMEOUT
                    } else {
                        timeout.saturating_sub(started.elapsed())
                    };
                    let (outcome, frame) = self.ground(&id, &asked, &paired, model_timeout).await;
                    self.request_conversation.heard(&id, &asked, &outcome.result);
                    (outcome, frame, paired.sequence)
                }
                Err((status, message)) => {
                    (Outcome::refused(&id, &instruction, status, message), None, after_sequence)
                }
            }
        };
        let answered = tokio::select! {
            answered = answer => Some(answered),
            () = reply.closed() => None,
        };
        if let Some((outcome, frame, sequence)) = answered {
            let outcome = Arc::new(outcome);
            self.publish(&outcome, frame.as_deref());
            // The asker may have gone meanwhile; the result is published either way.
            reply.send((outcome, sequence)).ok();
        } else {
            let message = "the request was canceled before there was an answer".to_owned();
            self.publish(&Outcome::refused(&id, &instruction, Status::Blocked, message), None);
        }
    }

    async fn serve_describe(&self, request: DescribeRequest) {
        let DescribeRequest { question, reply } = request;
        let described = self.describe(question).await;
        reply.send(described).ok();
    }

    async fn describe(&self, question: String) -> Description {
        let failed =
            |text: String| Description { header: Header::default(), model: String::new(), text: Err(text) };
        if question.len() > MAX_INSTRUCTION_BYTES {
            return failed(format!(
                "expected a question of at most {MAX_INSTRUCTION_BYTES} bytes, got {}",
                question.len()
            ));
        }
        if let Err((_, message)) = self.check_active() {
            return failed(message);
        }
        let paired = match self.wait_for_frame(0, IMAGE_TIMEOUT).await {
            Ok(paired) => paired,
            Err((_, message)) => return failed(message),
        };
        let image = match paired.color() {
            Ok(image) => image,
            Err(error) => return failed(error.to_string()),
        };
        self.monitor.look_at(paired.sequence);
        let header = paired.header().clone();
        let key = paired.sequence;
        let job = move |model: &mut dyn VisionLanguageModel| {
            let image = KeyedImage { key, image: &image };
            let text = if question.trim().is_empty() {
                model.caption(image, None)
            } else {
                model.answer(image, &question)
            };
            (text, model.info().label())
        };
        match self.call_model(job, MODEL_TIMEOUT).await {
            Ok((text, model)) => {
                Description { header, model, text: text.map_err(|error: ModelError| error.to_string()) }
            }
            Err(message) => failed(message),
        }
    }

    /// One instruction on one image, as far as it gets.
    async fn ground(
        &self,
        id: &str,
        asked: &GroundingRequest,
        paired: &PairedMessages,
        timeout: Duration,
    ) -> (Outcome, Option<Arc<RgbdFrame>>) {
        let text = asked.text.as_str();
        let started = Instant::now();
        let config = Arc::clone(&self.config.borrow());
        self.monitor.look_at(paired.sequence);
        let mut latency = Latency::default();
        latency.add("wait", paired.arrived.elapsed());
        let with_header = |mut outcome: Outcome| {
            outcome.result.stamp_ns = paired.stamp_ns();
            outcome.result.frame_id.clone_from(&paired.header().frame_id);
            outcome
        };
        let image = match paired.color() {
            Ok(image) => image,
            Err(error) => {
                return (with_header(Outcome::refused(id, text, Status::Error, error.to_string())), None);
            }
        };
        let ColorDepth { depth, camera, registered_from, refusals } =
            self.depth.of_pair(paired, image.dimensions(), &config).await;
        let frame = Arc::new(RgbdFrame {
            key: paired.sequence,
            image,
            depth,
            camera,
            frame_id: paired.header().frame_id.clone(),
            stamp_ns: paired.stamp_ns(),
        });
        latency.add("convert", started.elapsed());
        self.monitor.set_depth_offset(paired.depth_offset_ns);
        self.monitor.set_registered_from(registered_from.as_ref());
        let context = match self.context_of(&frame, asked, &config).await {
            Ok(context) => context,
            Err((status, message)) => {
                return (with_header(Outcome::refused(id, text, status, message)), Some(frame));
            }
        };

        let job = {
            let (frame, asked, config) = (Arc::clone(&frame), asked.clone(), Arc::clone(&config));
            move |model: &mut dyn VisionLanguageModel| {
                let mut stages = Latency::default();
                let mut stage_started = Instant::now();
                let result = pipeline::run(model, &frame, &context, &asked, &config.pipeline, &mut |stage| {
                    stages.add(stage.name(), stage_started.elapsed());
                    stage_started = Instant::now();
                });
                (result, stages)
            }
        };
        let (mut result, stages) = match self.call_model(job, timeout).await {
            Ok(answer) => answer,
            Err(message) => {
                return (with_header(Outcome::refused(id, text, Status::Error, message)), Some(frame));
            }
        };
        latency.0.extend(stages.0);
        self.remember_plane(&result, &config).await;
        if result.status == Status::NoDepth && !refusals.is_empty() {
            // The refused message is the reason, not that there was none.
            result.message = refusals.join("; ");
        }

        let transform_started = Instant::now();
        let target_from_camera = self.locate_target_frame(&mut result, &config).await;
        latency.add("transform", transform_started.elapsed());
        latency.add("total", started.elapsed());
        let outcome = Outcome {
            instruction_id: id.to_owned(),
            result,
            target_from_camera,
            image_size: frame.image.dimensions(),
            latency_ms: latency.0,
            fate: TargetFate::Unknown,
        };
        (outcome, Some(frame))
    }

    /// What TF knows at the frame's stamp. Sides are not guessed: without the transform of the viewpoint an instruction that
    /// names one is refused.
    async fn context_of(
        &self,
        frame: &RgbdFrame,
        asked: &GroundingRequest,
        config: &Config,
    ) -> Result<FrameContext, Refusal> {
        let mut context = self.known_planes(config, frame).await;
        let Some(viewpoint) = config.viewpoint_frame.as_ref().filter(|it| **it != frame.frame_id) else {
            return Ok(context);
        };
        let camera_from_viewpoint = self
            .transforms
            .target_from_source(&frame.frame_id, viewpoint, frame.stamp_ns, config.transform_timeout)
            .await;
        match camera_from_viewpoint {
            Ok(it) => context.view = Some(ViewAxes::of_frame(viewpoint, &it.rotation)),
            Err(error) if asked.instruction.depends_on_viewpoint() => {
                let message = format!("left, right, front and back are those of {viewpoint:?}: {error}");
                return Err((Status::NoTransform, message));
            }
            Err(_) => {}
        }
        Ok(context)
    }

    /// What TF knows of up and of the support plane at the frame's stamp.
    async fn known_planes(&self, config: &Config, frame: &RgbdFrame) -> FrameContext {
        let look_up = async |target: &Option<String>| {
            let target = target.as_ref()?;
            let camera = &frame.frame_id;
            let found =
                self.transforms.target_from_source(target, camera, frame.stamp_ns, config.transform_timeout);
            // Without it the frame is looked at as if the parameter were empty, and that is told.
            found.await.map_err(|error| tracing::warn!("{error}")).ok()
        };
        let mut context = FrameContext::default();
        if config.plane_frame.is_none() {
            context.known_plane = self.recall_plane(config, frame).await;
        }
        if let Some(plane_from_camera) = look_up(&config.plane_frame).await {
            let plane = SupportPlane {
                normal: plane_from_camera.inverse() * nalgebra::Vector3::z_axis(),
                camera_height_m: plane_from_camera.translation.z,
                residual_m: 0.0,
                height_sigma_m: PLANE_FRAME_SIGMA_M,
                tilt_sigma: PLANE_FRAME_SIGMA_RAD,
            };
            context.known_plane = Some(plane).filter(|it| 0.0 < it.camera_height_m);
            context.up_in_camera = Some(plane.normal);
        }
        if let Some(gravity_from_camera) = look_up(&config.gravity_frame).await {
            context.up_in_camera = Some(gravity_from_camera.inverse() * nalgebra::Vector3::z_axis());
        }
        context
    }

    /// Keeps the plane that most is seen of, where it stands still.
    async fn remember_plane(&self, result: &GroundingResult, config: &Config) {
        let (Some(plane), Some(frame_id)) = (result.planes.first(), &config.plane_memory_frame) else {
            return;
        };
        let located = self
            .transforms
            .target_from_source(frame_id, &result.frame_id, result.stamp_ns, config.transform_timeout)
            .await;
        match located {
            Ok(memory_from_camera) => {
                let plane = plane.seen_from(&memory_from_camera);
                let remembered =
                    RememberedPlane { frame_id: frame_id.clone(), plane, stamp_ns: result.stamp_ns };
                *self.remembered_plane.lock().unwrap_or_else(PoisonError::into_inner) = Some(remembered);
            }
            Err(error) => tracing::warn!("the support plane is not remembered: {error}"),
        }
    }

    /// The plane seen in the last minute, from where the camera is now; less sure than it was.
    async fn recall_plane(&self, config: &Config, frame: &RgbdFrame) -> Option<SupportPlane> {
        let memory_frame = config.plane_memory_frame.as_ref().filter(|_| frame.depth.is_none())?;
        let plane = {
            let remembered = self.remembered_plane.lock().unwrap_or_else(PoisonError::into_inner);
            let it = remembered.as_ref().filter(|it| it.frame_id == *memory_frame)?;
            (0..=MAX_PLANE_AGE_NS).contains(&(frame.stamp_ns - it.stamp_ns)).then_some(it.plane)?
        };
        let camera_from_memory = self
            .transforms
            .target_from_source(&frame.frame_id, memory_frame, frame.stamp_ns, config.transform_timeout)
            .await
            .map_err(|error| tracing::warn!("the remembered support plane is not used: {error}"))
            .ok()?;
        let plane = plane.seen_from(&camera_from_memory);
        Some(SupportPlane {
            height_sigma_m: plane.height_sigma_m.hypot(PLANE_FRAME_SIGMA_M),
            tilt_sigma: plane.tilt_sigma.hypot(PLANE_FRAME_SIGMA_RAD),
            ..plane
        })
        .filter(|it| 0.0 < it.camera_height_m)
    }

    /// Where to tell poses; makes the status `NO_TRANSFORM` when a found object cannot be told there.
    async fn locate_target_frame(
        &self,
        result: &mut GroundingResult,
        config: &Config,
    ) -> Option<TargetFrame> {
        let is_lifted = result.candidates.iter().chain(&result.targets).any(|it| it.lifted.is_some());
        if !is_lifted {
            return None;
        }
        let camera = result.frame_id.clone();
        let Some(target) = config.target_frame.clone().filter(|it| *it != camera) else {
            let target_from_camera = nalgebra::Isometry3::identity();
            return Some(TargetFrame { frame_id: camera, target_from_camera });
        };
        let transform = self
            .transforms
            .target_from_source(&target, &camera, result.stamp_ns, config.transform_timeout)
            .await;
        match transform {
            Ok(target_from_camera) => Some(TargetFrame { frame_id: target, target_from_camera }),
            Err(error) => {
                if result.status == Status::Found {
                    result.status = Status::NoTransform;
                    result.message = error.to_string();
                }
                None
            }
        }
    }

    /// Runs a job on the model's thread, or says why not.
    async fn call_model<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn VisionLanguageModel) -> R + Send + 'static,
        timeout: Duration,
    ) -> Result<R, String> {
        let deadline = tokio::time::Instant::now() + timeout;
        let worker = self.model.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let worker = worker.ok_or_else(|| WorkerError::Gone.to_string())?;
        // A request that was canceled may still be running; the queue of one behind it is ours alone.
        while worker.is_busy() {
            if tokio::time::Instant::now() >= deadline {
                return Err(WorkerError::Busy.to_string());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let answer = worker.submit(job).map_err(|error| error.to_string())?;
        drop(worker);
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("the model was unloaded while it was asked".to_owned()),
            Err(_) => Err(format!(
                "the model gave no answer within {:.1} s: allow more time, or use a smaller model",
                timeout.as_secs_f64()
            )),
        }
    }

    fn check_active(&self) -> Result<(), Refusal> {
        let state = *self.state.borrow();
        let message = match state {
            State::Active => return Ok(()),
            State::Configuring => "the model is still being loaded: ask again in a moment".to_owned(),
            other => format!("the node is {}: activate it (ros2 lifecycle set NODE activate)", other.label()),
        };
        Err((Status::Blocked, message))
    }

    /// The newest image after `after_sequence` that is fresh, with its depth image and intrinsics if they come in time.
    async fn wait_for_frame(
        &self,
        after_sequence: u64,
        timeout: Duration,
    ) -> Result<PairedMessages, Refusal> {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut news = self.inputs.news();
        // When the first usable image came: images that keep coming do not put off the moment to do without depth.
        let mut first_arrived = None;
        loop {
            news.mark_unchanged();
            let config = Arc::clone(&self.config.borrow());
            let (with_depth, newest) = self.inputs.newest(config.stamp_tolerance);
            let usable = |it: &PairedMessages| {
                it.sequence > after_sequence && self.stamp_problem(it, config.max_frame_age).is_none()
            };
            let with_depth = with_depth.filter(usable);
            if let Some(paired) =
                with_depth.as_ref().filter(|it| it.camera_info.is_some() && !it.lacks_depth_camera)
            {
                return Ok(paired.clone());
            }
            let mut wake = deadline;
            if let Some(paired) = with_depth.or_else(|| newest.filter(usable)) {
                let first_arrived = *first_arrived.get_or_insert(paired.arrived);
                let depth_due = self.depth_due(first_arrived, &config);
                if depth_due <= Instant::now() {
                    return Ok(paired);
                }
                wake = wake.min(depth_due.into());
            }
            match tokio::time::timeout_at(wake, news.changed()).await {
                // The sender lives as long as the subscriptions do.
                Ok(Err(_)) => return Err((Status::Blocked, "the node is shutting down".to_owned())),
                Err(_) if tokio::time::Instant::now() >= deadline => return Err(self.stale(&config)),
                Ok(Ok(())) | Err(_) => {}
            }
        }
    }

    /// Until when to wait for the depth and the intrinsics of an image that arrived at `image_arrived`.
    fn depth_due(&self, image_arrived: Instant, config: &Config) -> Instant {
        if !config.pipeline.use_depth {
            return image_arrived;
        }
        let stats = self.inputs.stats();
        let stats_of = |role| stats.iter().find(|it| it.role == role);
        let is_coming = |depth: &InputStats| {
            depth.last_arrival.is_some_and(|at| at.elapsed() <= config.max_frame_age)
                || self.graph.borrow().get(&depth.topic).is_some_and(|it| !it.nodes.is_empty())
        };
        let grace = if stats_of(Role::Depth).is_some_and(is_coming) { DEPTH_GRACE } else { Duration::ZERO };
        let camera_started = stats_of(Role::Image).and_then(|it| it.stream_start);
        let startup_end = camera_started.map_or(image_arrived, |at| at + STARTUP_GRACE);
        startup_end.max(image_arrived + grace)
    }

    /// Why there is no image, in words.
    fn stale(&self, config: &Config) -> Refusal {
        let graph = self.graph.borrow();
        let stats = self.inputs.stats();
        let missing = stats
            .iter()
            .find(|it| it.role == Role::Image)
            .and_then(|it| missing_input(it, &graph, config.max_frame_age));
        let stamp_problem = || {
            self.inputs.newest(Duration::ZERO).1.and_then(|it| self.stamp_problem(&it, config.max_frame_age))
        };
        let message = missing.or_else(stamp_problem).unwrap_or_else(|| {
            "no newer image came in time: is the camera slower than the request's timeout?".to_owned()
        });
        (Status::Stale, message)
    }

    /// Why an image's stamp makes it useless: too old, or from a clock that is not ours.
    fn stamp_problem(&self, paired: &PairedMessages, max_age: Duration) -> Option<String> {
        let age_secs = (now_ns(&self.clock) - paired.stamp_ns()) as f64 * 1e-9;
        let max_age_secs = max_age.as_secs_f64();
        if (-max_age_secs..=max_age_secs).contains(&age_secs) {
            return None;
        }
        let stats = self.inputs.stats();
        let topic = stats.iter().find(|it| it.role == Role::Image).map_or("image", |it| it.topic.as_str());
        Some(clock_problem(topic, age_secs))
    }

    fn publish(&self, outcome: &Outcome, frame: Option<&RgbdFrame>) {
        let started = Instant::now();
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).publish(outcome, frame);
        self.monitor.count(outcome, started.elapsed());
    }
}

impl Conversation {
    /// With nothing said yet.
    pub fn new(window: Duration, vocabulary: Arc<Vocabulary>) -> Self {
        let window_ns = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX);
        Self { dialogue: Mutex::new(Dialogue::new(window_ns)), vocabulary, started: Instant::now() }
    }

    fn understand(&self, id: &str, text: &str) -> Result<GroundingRequest, Refusal> {
        if text.len() > MAX_INSTRUCTION_BYTES {
            let message = format!(
                "expected an instruction of at most {MAX_INSTRUCTION_BYTES} bytes, got {}: say it shorter",
                text.len()
            );
            return Err((Status::BadInstruction, message));
        }
        self.lock()
            .understand(id, text, self.now_ns(), &self.vocabulary)
            .map_err(|error| (Status::BadInstruction, error.to_string()))
    }

    fn heard(&self, id: &str, asked: &GroundingRequest, result: &GroundingResult) {
        self.lock().record(id, asked, result, self.now_ns());
    }

    fn forget(&self) {
        self.lock().forget();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Dialogue> {
        self.dialogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }
}

/// Milliseconds by stage, in order.
#[derive(Default)]
struct Latency(Vec<(String, f64)>);

impl Latency {
    fn add(&mut self, stage: &str, time: Duration) {
        self.0.push((stage.to_owned(), time.as_secs_f64() * 1e3));
    }
}
