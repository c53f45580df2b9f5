//! One instruction about one frame, from words to poses: ground, resolve, lift, caption.
//!
//! Synchronous and without a clock: an observer is told as each stage ends, so whoever holds a clock can time them.

mod bounds;
mod candidates;
mod enrich;
mod gate;
mod message;
mod nearest;
mod parts;
mod refusal;
mod second_look;
mod steps;
mod taught;
mod warnings;

#[cfg(test)]
mod tests;

pub use self::message::with_positions;
pub use self::refusal::Refusal;

use self::candidates::Lifter;
use crate::image::RgbdFrame;
use crate::instruction::Vocabulary;
use crate::lift::{FrameContext, UpSource};
use crate::model::{KeyedImage, Model};
use crate::options::PipelineOptions;
use crate::request::GroundingRequest;
use crate::result::{GroundingResult, Stage, Status, StepResult};

/// The name of the score part that says how well a candidate stands where the words say, [0, 1].
pub const RELATION_FIT: &str = "relation_fit";

/// What `request` refers to in `frame`, of which `context` is known. Always a result, whatever happens; `observer` is called as
/// each stage ends (stages that are not reached are not reported).
pub fn run(
    model: &mut dyn Model,
    frame: &RgbdFrame,
    context: &FrameContext,
    request: &GroundingRequest,
    options: &PipelineOptions,
    observer: &mut dyn FnMut(Stage),
) -> GroundingResult {
    observer(Stage::Parse);
    let mut result = unanswered(model, frame, &request.text);
    let message = fill(&mut result, model, frame, context, request, options, observer);
    (result.status, result.message) = match message {
        Ok(message) => (Status::Found, message),
        Err(refusal) => (refusal.status(), refusal.to_string()),
    };
    result
}

/// [`run`] for words that stand for themselves, about a frame of which nothing but its pixels is known.
pub fn run_text(
    model: &mut dyn Model,
    frame: &RgbdFrame,
    text: &str,
    vocabulary: &Vocabulary,
    options: &PipelineOptions,
    observer: &mut dyn FnMut(Stage),
) -> GroundingResult {
    match GroundingRequest::parse(text, vocabulary) {
        Ok(request) => run(model, frame, &FrameContext::default(), &request, options, observer),
        Err(error) => GroundingResult {
            status: Status::BadInstruction,
            message: message::bad_instruction(&error, text),
            ..unanswered(model, frame, text)
        },
    }
}

fn unanswered(model: &dyn Model, frame: &RgbdFrame, text: &str) -> GroundingResult {
    GroundingResult {
        stamp_ns: frame.stamp_ns,
        frame_id: frame.frame_id.clone(),
        model: model.info().label(),
        ..GroundingResult::refused(text, Status::Error, String::new())
    }
}

/// Fills in what is found, stage by stage and step by step. Returns the message.
fn fill(
    result: &mut GroundingResult,
    model: &mut dyn Model,
    frame: &RgbdFrame,
    context: &FrameContext,
    request: &GroundingRequest,
    options: &PipelineOptions,
    observer: &mut dyn FnMut(Stage),
) -> Result<String, Refusal> {
    let instruction = &request.instruction;
    result.action = instruction.action.name().to_owned();
    result.destination_relation = instruction.destination.as_ref().map(|it| it.relation);
    let queries = instruction.queries();
    if queries.is_empty() {
        return Ok(format!("{:?} names no object: nothing to look for", result.action));
    }
    if frame.image.width() == 0 || frame.image.height() == 0 {
        return Err(Refusal::EmptyImage);
    }

    let image = KeyedImage::whole(frame.key, &frame.image);
    let phrases: Vec<&str> = queries.iter().map(String::as_str).collect();
    let detections = second_look::ground(model, image, &phrases, options)?;
    observer(Stage::Ground);

    let lifter = Lifter::new(frame, context, options);
    result.planes = lifter.planes().to_vec();
    if let Some(geometry) = lifter.geometry() {
        result.up_in_camera = Some(geometry.up()).filter(|_| geometry.up_source() != UpSource::Unknown);
        result.warnings.extend(warnings::of_geometry(geometry, &frame.frame_id));
    }
    result.candidates = candidates::from_detections(detections, &lifter, options);
    result.candidates.extend(candidates::surfaces(instruction, &result.candidates, &lifter, options));
    parts::add(&mut result.candidates, instruction, &lifter, options);
    if options.check_colors && !model.info().is_told {
        candidates::check_colors(&mut result.candidates, instruction, &frame.image);
    }
    observer(Stage::Locate);

    let excluded = bounds::excluded(&result.candidates, context, &options.bounds);
    let mut answers = Vec::new();
    for (step_idx, step) in instruction.steps().enumerate() {
        answers.push(steps::resolve(
            step_idx,
            step,
            &mut result.candidates,
            (&request.previous, &excluded),
            &lifter,
            options,
        ));
    }
    observer(Stage::Resolve);
    for (answer, step) in answers.iter_mut().zip(instruction.steps()) {
        if let Some(why) = taught::untaught_noun(answer, step, model.known_nouns()) {
            answer.message += &format!("; {why}");
        }
        if let Some(nearest) =
            nearest::of_kind(answer, &mut result.candidates, step, model, image, &lifter, options)?
        {
            answer.message += &format!("; {nearest}");
        }
        steps::locate(answer, &lifter, options);
        gate::of_step(answer, options);
    }
    gate::of_candidates(&mut result.candidates, options);
    observer(Stage::Lift);
    if options.caption_targets {
        // A model without captions is no fault of the request.
        if let Some(captioner) = model.captioner() {
            for answer in answers.iter_mut().filter(|it| it.ambiguity.is_none()) {
                enrich::caption(answer, captioner, image)?;
            }
        }
        observer(Stage::Caption);
    }
    let refusal = take_steps(result, answers);
    match refusal {
        Some(refusal) => Err(refusal),
        None => Ok(message::all_found(&result.steps)),
    }
}

/// The first step's objects are the result's; the worst step's status and doubt are the whole's.
fn take_steps(result: &mut GroundingResult, steps: Vec<StepResult>) -> Option<Refusal> {
    if let Some(first) = steps.first() {
        result.targets.clone_from(&first.targets);
        result.destination.clone_from(&first.destination);
        result.place.clone_from(&first.place);
    }
    let worst = StepResult::worst(&steps).filter(|(_, it)| it.status != Status::Found);
    let refusal = worst.map(|(step_idx, step)| {
        result.ambiguity.clone_from(&step.ambiguity);
        let message = message::of_step(step_idx, step);
        match step.status {
            Status::Ambiguous => Refusal::Ambiguous(message),
            Status::NoDepth => Refusal::NoDepth(message),
            _ => Refusal::NotFound(message),
        }
    });
    result.steps = steps;
    refusal
}
