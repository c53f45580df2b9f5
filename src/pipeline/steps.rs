//! One step of an instruction: which candidates it means, where they are, and where they go.

use super::candidates::{self, Lifter};
use super::message::found_indices;
use super::{enrich, message};
use crate::candidate::Candidate;
use crate::instruction::Instruction;
use crate::options::PipelineOptions;
use crate::resolve::{self, Excluded, InstructionResolution, Resolution, ResolveOptions};
use crate::result::{Ambiguity, GroundedObject, ReferenceRole, Status, StepResult};

/// Which of the candidates the words of a step mean, with how well they stand where the words say weighed in. Given are what was meant
/// before, and which of the candidates are no targets.
pub(super) fn resolve(
    step_idx: usize,
    step: &Instruction,
    candidates: &mut [GroundedObject],
    (previous, excluded): (&[Candidate], &[Excluded]),
    lifter: &Lifter<'_>,
    options: &PipelineOptions,
) -> StepResult {
    let mut answer = unanswered(step);
    let seen: Vec<Candidate> = candidates.iter().map(GroundedObject::candidate).collect();
    let resolve_options = ResolveOptions {
        thresholds: options.thresholds.clone(),
        view: lifter.view(),
        previous: previous.to_vec(),
        excluded: excluded.to_vec(),
    };
    let mut resolution = resolve::resolve_instruction(step, &seen, &resolve_options);
    let landmarks = step.destination.iter().flat_map(|it| &it.landmarks);
    for reference in step.targets.iter().chain(landmarks) {
        for (idx, fit) in resolve::relation_fits(reference, &seen, &resolve_options) {
            candidates::weigh_place(&mut candidates[idx], fit, options);
        }
    }
    for it in resolution.targets.iter_mut().chain(&mut resolution.destination) {
        candidates::doubt_weak(it, candidates, options);
    }
    take(&mut answer, &resolution, candidates);
    if let Some((role, unclear)) = first_unclear(&resolution) {
        open_question(&mut answer, step_idx, role, unclear);
    } else {
        answer.message = message::found(&answer, &resolution);
    }
    answer
}

/// Poses, grasps and a free place for what a step means; [`Status::NoDepth`] where something that is meant has no pose.
pub(super) fn locate(answer: &mut StepResult, lifter: &Lifter<'_>, options: &PipelineOptions) {
    if answer.ambiguity.is_some() {
        return;
    }
    let lifted = enrich::lift_meant(answer, lifter, options);
    if let Some(geometry) = lifter.geometry() {
        enrich::plan(answer, geometry, options);
    }
    if let Err(error) = lifted {
        answer.status = Status::NoDepth;
        answer.message = error.to_string();
    }
}

fn unanswered(step: &Instruction) -> StepResult {
    StepResult {
        action: step.action.name().to_owned(),
        status: Status::Found,
        message: String::new(),
        ambiguity: None,
        targets: Vec::new(),
        destination_relation: step.destination.as_ref().map(|it| it.relation),
        destination: None,
        place: None,
        tool: None,
        manner: step.manner.clone(),
        rotation: step.rotation,
        distance_m: step.destination.as_ref().and_then(|it| it.distance_m),
    }
}

/// The targets are told unless one of them is unclear: also where only the destination is.
fn take(answer: &mut StepResult, resolution: &InstructionResolution, candidates: &[GroundedObject]) {
    let object = |idx: usize| candidates[idx].clone();
    if !matches!(first_unclear(resolution), Some((ReferenceRole::Target(_), _))) {
        answer.targets = found_indices(&resolution.targets).map(object).collect();
    }
    if first_unclear(resolution).is_none() {
        answer.destination = found_indices(&resolution.destination).next().map(object);
        answer.tool = found_indices(resolution.tool.as_slice()).next().map(object);
    }
}

fn first_unclear(resolution: &InstructionResolution) -> Option<(ReferenceRole, &Resolution)> {
    let targets = (0..).map(ReferenceRole::Target).zip(&resolution.targets);
    let destinations = (0..).map(ReferenceRole::Destination).zip(&resolution.destination);
    let tool = resolution.tool.iter().map(|it| (ReferenceRole::Tool, it));
    targets.chain(destinations).chain(tool).find(|(_, it)| !matches!(it, Resolution::Found { .. }))
}

/// Keeps what is in doubt, and says it.
fn open_question(answer: &mut StepResult, step_idx: usize, role: ReferenceRole, resolution: &Resolution) {
    let what = match role {
        ReferenceRole::Target(_) => "",
        ReferenceRole::Destination(_) => "for the destination, ",
        ReferenceRole::Tool => "for the tool, ",
    };
    match resolution {
        Resolution::Found { .. } => {}
        Resolution::Ambiguous { indices, question } => {
            answer.status = Status::Ambiguous;
            answer.message = format!("{what}{question}");
            answer.ambiguity = Some(Ambiguity { step_idx, role, unmet: None, indices: indices.clone() });
        }
        Resolution::NotFound { missing, phrase, nearest, reason } => {
            let unmet = Some((*missing, phrase.clone()));
            let indices = nearest.iter().copied().collect();
            answer.status = Status::NotFound;
            answer.message = format!("{what}{reason}");
            answer.ambiguity = Some(Ambiguity { step_idx, role, unmet, indices });
        }
    }
}
