//! One request on one frame to one outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::calls::{DescribeRefusal, Description};
use super::context::ContextSource;
use super::depth::DepthRefusal;
use super::frames::wait_for_frame;
use super::input_health::unpaired_depth;
use super::inputs::CameraFrame;
use super::outcome::{MAX_INSTRUCTION_BYTES, Outcome, TargetFate};
use super::ports::Ports;
use super::refusal::Refusal;
use super::state::State;
use crate::config::Config;
use crate::image::RgbdFrame;
use crate::lift::FrameContext;
use crate::model::worker::AskError;
use crate::model::{KeyedImage, Model};
use crate::pipeline;
use crate::request::GroundingRequest;
use crate::result::{GroundingResult, Status};

/// Answers requests by the model.
pub struct Answerer {
    ports: Ports,
    context: ContextSource,
}

/// An outcome, and the frame that was looked at, if one was.
pub type Answer = (Outcome, Option<Arc<RgbdFrame>>);

impl Answerer {
    /// By the model behind `ports`.
    pub fn new(ports: Ports) -> Self {
        let context = ContextSource::new(ports.transforms.clone());
        Self { ports, context }
    }

    /// Whether requests are answered now.
    pub fn check_active(&self) -> Result<(), Refusal> {
        match *self.ports.state.borrow() {
            State::Active => Ok(()),
            State::Configuring => Err(Refusal::Loading),
            other => Err(Refusal::Inactive(other)),
        }
    }

    /// One instruction on one image, as far as it gets.
    pub async fn ground(
        &self,
        id: &str,
        request: &GroundingRequest,
        seen: &CameraFrame,
        timeout: Duration,
    ) -> Answer {
        let started = Instant::now();
        let config = Arc::clone(&self.ports.config.borrow());
        self.ports.monitor.look_at(seen.sequence());
        let mut latency = Latency::default();
        latency.add("wait", seen.arrived().elapsed());
        let refused = |refusal: Refusal| {
            let (status, message) = (refusal.status(), refusal.to_string());
            Outcome::without_image(id, &request.text, status, message).at(seen.header())
        };
        let (frame, depth_refusals) = match self.convert(seen, &config).await {
            Ok(converted) => converted,
            Err(refusal) => return (refused(refusal), None),
        };
        let unpaired = self.unpaired_depth(seen, &config);
        self.ports.monitor.set_depth_offset(seen.images.depth_offset_ns(), unpaired.clone());
        latency.add("convert", started.elapsed());
        let found = match self.context.of_frame(&frame, request, &config).await {
            Ok(context) => self.run_pipeline(&frame, context, request, &config, timeout).await,
            Err(refusal) => Err(refusal),
        };
        let (mut result, stages) = match found {
            Ok(found) => found,
            Err(refusal) => return (refused(refusal), Some(frame)),
        };
        latency.0.extend(stages.0);
        self.context.remember_plane(&result, &config).await;
        if result.status == Status::NoDepth {
            // The refused message is the reason, not that there was none.
            let mut reasons: Vec<String> = depth_refusals.iter().map(ToString::to_string).collect();
            reasons.extend(unpaired);
            reasons.dedup();
            if !reasons.is_empty() {
                result.message = reasons.join("; ");
            }
        }

        let transform_started = Instant::now();
        let target_from_camera = self.context.target_frame(&mut result, &config).await;
        if let Some(target) = &target_from_camera {
            pipeline::with_positions(&mut result, &target.frame_id, Some(&target.target_from_camera));
        }
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

    /// A caption of the newest image, or the answer to a question about it.
    pub async fn describe(&self, question: String) -> Result<Description, DescribeRefusal> {
        if question.len() > MAX_INSTRUCTION_BYTES {
            return Err(Refusal::QuestionTooLong { bytes: question.len() }.into());
        }
        self.check_active()?;
        let seen = wait_for_frame(&self.ports, 0, self.ports.limits.image_timeout).await?;
        let image = seen.images.color.message.rgb().map_err(Refusal::Image)?;
        self.ports.monitor.look_at(seen.sequence());
        let header = seen.header().clone();
        let key = seen.sequence();
        let job = move |model: &mut dyn Model| {
            let image = KeyedImage::whole(key, &image);
            let text = if question.trim().is_empty() {
                model.caption(image, None)
            } else {
                model.answer(image, &question)
            };
            (text, model.info().label())
        };
        let (text, model) =
            self.ask_model(job, self.ports.limits.model_timeout).await.map_err(Refusal::Ask)?;
        match text {
            Ok(text) => Ok(Description { header, model, text }),
            Err(error) => Err(DescribeRefusal { header, model, refusal: error.into() }),
        }
    }

    /// The messages as a frame, and what of its depth could not be used.
    async fn convert(
        &self,
        seen: &CameraFrame,
        config: &Config,
    ) -> Result<(Arc<RgbdFrame>, Vec<DepthRefusal>), Refusal> {
        let image = seen.images.color.message.rgb()?;
        let found = self.ports.depth.of_frame(seen, image.dimensions(), config).await;
        self.ports.monitor.set_registered_from(found.registered_from.as_ref());
        let frame = Arc::new(RgbdFrame {
            key: seen.sequence(),
            image,
            depth: found.depth,
            camera: found.camera,
            frame_id: seen.header().frame_id.clone(),
            stamp_ns: seen.header().stamp_ns,
        });
        Ok((frame, found.refusals))
    }

    /// Why there is no depth to an image although depth comes.
    fn unpaired_depth(&self, seen: &CameraFrame, config: &Config) -> Option<String> {
        if seen.images.depth.is_some() || !config.pipeline.use_depth {
            return None;
        }
        let offset_ns = self.ports.inputs.nearest_depth_offset_ns()?;
        (config.stamp_tolerance.as_nanos() < u128::from(offset_ns.unsigned_abs()))
            .then(|| unpaired_depth(offset_ns, config.stamp_tolerance))
    }

    async fn run_pipeline(
        &self,
        frame: &Arc<RgbdFrame>,
        context: FrameContext,
        request: &GroundingRequest,
        config: &Arc<Config>,
        timeout: Duration,
    ) -> Result<(GroundingResult, Latency), Refusal> {
        let (frame, request, config) = (Arc::clone(frame), request.clone(), Arc::clone(config));
        let job = move |model: &mut dyn Model| {
            let mut stages = Latency::default();
            let mut stage_started = Instant::now();
            let mut observer = |stage: crate::result::Stage| {
                stages.add(stage.name(), stage_started.elapsed());
                stage_started = Instant::now();
            };
            let result = pipeline::run(model, &frame, &context, &request, &config.pipeline, &mut observer);
            (result, stages)
        };
        Ok(self.ask_model(job, timeout).await?)
    }

    async fn ask_model<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Model) -> R + Send + 'static,
        timeout: Duration,
    ) -> Result<R, AskError> {
        let model = self.ports.model.lock().clone().ok_or(AskError::NotLoaded)?;
        model.ask(job, timeout).await
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
