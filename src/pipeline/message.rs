//! What came of a request in one sentence.

use nalgebra::Isometry3;

use crate::instruction::{ParseError, RelationKind};
use crate::lift::{LiftedObject, PoseSource};
use crate::resolve::{InstructionResolution, Resolution};
use crate::result::{GroundedObject, GroundingResult, Status, StepResult};

/// What is meant by a step, and why.
pub(super) fn found(answer: &StepResult, resolution: &InstructionResolution) -> String {
    let told = |found: &Resolution, objects: &[GroundedObject]| match found {
        Resolution::Found { indices, reason } => {
            let listed: Vec<String> = objects.iter().take(indices.len()).map(describe).collect();
            format!("{}: {reason}", listed.join(", "))
        }
        // Then there is no such message.
        Resolution::Ambiguous { .. } | Resolution::NotFound { .. } => String::new(),
    };
    let mut rest = answer.targets.as_slice();
    let mut objects = Vec::new();
    for found in &resolution.targets {
        objects.push(told(found, rest));
        rest = &rest[found_indices(std::slice::from_ref(found)).count()..];
    }
    if let (Some(destination), Some(found)) = (&answer.destination, resolution.destination.first()) {
        let relation = answer.destination_relation.map_or("", RelationKind::words);
        objects.push(format!("destination: {relation} {}", told(found, std::slice::from_ref(destination))));
    }
    format!("found {}", objects.join("; "))
}

/// The indices of all that is found.
pub(super) fn found_indices(resolutions: &[Resolution]) -> impl Iterator<Item = usize> {
    resolutions
        .iter()
        .flat_map(|it| match it {
            Resolution::Found { indices, .. } => indices.as_slice(),
            Resolution::Ambiguous { .. } | Resolution::NotFound { .. } => &[],
        })
        .copied()
}

/// All steps, where all are found.
pub(super) fn all_found(steps: &[StepResult]) -> String {
    let told: Vec<String> = steps.iter().enumerate().map(|(step_idx, it)| of_step(step_idx, it)).collect();
    told.join("; ")
}

/// A step's message; of later steps it says which one.
pub(super) fn of_step(step_idx: usize, step: &StepResult) -> String {
    match step_idx {
        0 => step.message.clone(),
        _ => format!("step {} ({}): {}", step_idx + 1, step.action.replace('_', " "), step.message),
    }
}

/// Adds to a FOUND message where the objects are, in the frame that their poses are told in. `frame_from_camera` takes points of the
/// camera's optical frame there; `None` where that frame is meant.
pub fn with_positions(result: &mut GroundingResult, frame: &str, frame_from_camera: Option<&Isometry3<f64>>) {
    if result.status != Status::Found {
        return;
    }
    let position = |it: &GroundedObject| {
        let lifted = it.lifted.as_ref()?;
        let at = frame_from_camera.map_or(lifted.surface_centroid, |pose| pose * lifted.surface_centroid);
        Some(format!("{} at ({:.3}, {:.3}, {:.3}) m", it.phrase, at.x, at.y, at.z))
    };
    let positions: Vec<String> =
        result.targets.iter().chain(&result.destination).filter_map(position).collect();
    if !positions.is_empty() {
        let frame = if frame.is_empty() { "the camera's optical frame" } else { frame };
        result.message += &format!("; {} in {frame}", positions.join(", "));
    }
}

fn describe(object: &GroundedObject) -> String {
    match &object.lifted {
        Some(LiftedObject { source: PoseSource::Depth, .. }) => object.phrase.clone(),
        Some(_) => format!("{} by where it stands, without depth", object.phrase),
        None => {
            let (x, y) = object.bbox.center();
            format!("{} at pixel ({x:.0}, {y:.0})", object.phrase)
        }
    }
}

/// With the words it is about.
pub(super) fn bad_instruction(error: &ParseError, text: &str) -> String {
    match text.get(error.span.clone()) {
        Some(words) if !words.is_empty() && words.len() <= 60 => {
            format!("{} (at {}: {words:?})", error.message, error.span.start)
        }
        _ => error.message.clone(),
    }
}
