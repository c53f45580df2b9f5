//! One instruction about one frame, from words to poses: ground, resolve, lift, caption.
//!
//! Synchronous and without a clock: an observer is told as each stage ends, so whoever holds a clock can time them.

mod candidates;
mod enrich;
mod message;
mod nearest;
mod parts;
mod refusal;

#[cfg(test)]
mod tests;

pub use self::refusal::Refusal;

use self::candidates::Lifter;
use crate::candidate::Candidate;
use crate::image::RgbdFrame;
use crate::instruction::Vocabulary;
use crate::lift::FrameContext;
use crate::model::{KeyedImage, VisionLanguageModel};
use crate::options::PipelineOptions;
use crate::request::GroundingRequest;
use crate::resolve::{self, InstructionResolution, Resolution, ResolveOptions};
use crate::result::{Ambiguity, GroundedObject, GroundingResult, ReferenceRole, Stage, Status};
use crate::viewpoint::ViewAxes;

/// The name of the score part that says how well a candidate stands where the words say, [0, 1].
pub const RELATION_FIT: &str = "relation_fit";

/// What `request` refers to in `frame`, of which `context` is known. Always a result, whatever happens; `observer` is called as
/// each stage ends (stages that are not reached are not reported).
pub fn run(
    model: &mut dyn VisionLanguageModel,
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
    model: &mut dyn VisionLanguageModel,
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

fn unanswered(model: &dyn VisionLanguageModel, frame: &RgbdFrame, text: &str) -> GroundingResult {
    GroundingResult {
        stamp_ns: frame.stamp_ns,
        frame_id: frame.frame_id.clone(),
        model: model.info().label(),
        ..GroundingResult::refused(text, Status::Error, String::new())
    }
}

/// Fills in what is found, stage by stage, up to the first that fails. Returns the message.
fn fill(
    result: &mut GroundingResult,
    model: &mut dyn VisionLanguageModel,
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

    let image = KeyedImage { key: frame.key, image: &frame.image };
    let phrases: Vec<&str> = queries.iter().map(String::as_str).collect();
    let detections = model.ground(image, &phrases)?;
    observer(Stage::Ground);

    let lifter = Lifter::new(frame, context, options);
    result.planes = lifter.planes().to_vec();
    result.candidates = candidates::from_detections(detections, &lifter, options);
    parts::add(&mut result.candidates, instruction, &lifter, options);
    observer(Stage::Locate);

    let resolution = resolve_request(result, request, lifter.view(), options);
    observer(Stage::Resolve);
    take_targets(result, &resolution);
    if let Some((role, unclear)) = first_unclear(&resolution) {
        let refusal = open_question(result, role, unclear);
        return Err(match nearest::of_kind(result, instruction, model, image, &lifter, options)? {
            Some(nearest) => refusal.with(&nearest),
            None => refusal,
        });
    }
    result.destination =
        found_indices(&resolution.destination).next().map(|idx| result.candidates[idx].clone());

    let lifted = enrich::lift_meant(result, &lifter, options);
    if let Some(geometry) = lifter.geometry() {
        enrich::plan(result, geometry, options);
    }
    observer(Stage::Lift);

    if options.caption_targets {
        enrich::caption(result, model, image)?;
        observer(Stage::Caption);
    }
    lifted?;
    Ok(message::found(result, &resolution, instruction))
}

/// Which candidates the words mean, with how well they stand where the words say weighed in.
fn resolve_request(
    result: &mut GroundingResult,
    request: &GroundingRequest,
    view: ViewAxes,
    options: &PipelineOptions,
) -> InstructionResolution {
    let instruction = &request.instruction;
    let candidates: Vec<Candidate> = result.candidates.iter().map(GroundedObject::candidate).collect();
    let resolve_options =
        ResolveOptions { thresholds: options.thresholds.clone(), view, previous: request.previous.clone() };
    let mut resolution = resolve::resolve_instruction(instruction, &candidates, &resolve_options);
    let landmarks = instruction.destination.iter().flat_map(|it| &it.landmarks);
    for reference in instruction.targets.iter().chain(landmarks) {
        for (idx, fit) in resolve::relation_fits(reference, &candidates, &resolve_options) {
            candidates::weigh_place(&mut result.candidates[idx], fit, options);
        }
    }
    for it in resolution.targets.iter_mut().chain(&mut resolution.destination) {
        candidates::doubt_weak(it, &result.candidates, options);
    }
    resolution
}

/// The targets are told unless one of them is unclear: also where only the destination is.
fn take_targets(result: &mut GroundingResult, resolution: &InstructionResolution) {
    if !matches!(first_unclear(resolution), Some((ReferenceRole::Target(_), _))) {
        result.targets =
            found_indices(&resolution.targets).map(|idx| result.candidates[idx].clone()).collect();
    }
}

fn first_unclear(resolution: &InstructionResolution) -> Option<(ReferenceRole, &Resolution)> {
    let targets = (0..).map(ReferenceRole::Target).zip(&resolution.targets);
    let destinations = (0..).map(ReferenceRole::Destination).zip(&resolution.destination);
    targets.chain(destinations).find(|(_, it)| !matches!(it, Resolution::Found { .. }))
}

/// The indices of all that is found.
fn found_indices(resolutions: &[Resolution]) -> impl Iterator<Item = usize> {
    resolutions
        .iter()
        .flat_map(|it| match it {
            Resolution::Found { indices, .. } => indices.as_slice(),
            Resolution::Ambiguous { .. } | Resolution::NotFound { .. } => &[],
        })
        .copied()
}

/// Keeps what is in doubt, and says it.
fn open_question(result: &mut GroundingResult, role: ReferenceRole, resolution: &Resolution) -> Refusal {
    let what = if matches!(role, ReferenceRole::Destination(_)) { "for the destination, " } else { "" };
    match resolution {
        Resolution::Found { reason, .. } => Refusal::NotFound(format!("{what}{reason}")),
        Resolution::Ambiguous { indices, question } => {
            result.ambiguity = Some(Ambiguity { role, unmet: None, indices: indices.clone() });
            Refusal::Ambiguous(format!("{what}{question}"))
        }
        Resolution::NotFound { missing, phrase, nearest, reason } => {
            let unmet = Some((*missing, phrase.clone()));
            result.ambiguity = Some(Ambiguity { role, unmet, indices: nearest.iter().copied().collect() });
            Refusal::NotFound(format!("{what}{reason}"))
        }
    }
}
