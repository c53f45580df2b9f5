//! What came of a request in one sentence.

use super::found_indices;
use crate::instruction::{Instruction, ParseError, RelationKind};
use crate::lift::{LiftedObject, PoseSource};
use crate::resolve::{InstructionResolution, Resolution};
use crate::result::{GroundedObject, GroundingResult};

/// Where everything is, and why it is meant.
pub(super) fn found(
    result: &GroundingResult,
    resolution: &InstructionResolution,
    instruction: &Instruction,
) -> String {
    let told = |found: &Resolution, objects: &[GroundedObject]| match found {
        Resolution::Found { indices, reason } => {
            let listed: Vec<String> = objects.iter().take(indices.len()).map(describe).collect();
            format!("{}: {reason}", listed.join(", "))
        }
        // Then there is no such message.
        Resolution::Ambiguous { .. } | Resolution::NotFound { .. } => String::new(),
    };
    let mut rest = result.targets.as_slice();
    let mut objects = Vec::new();
    for found in &resolution.targets {
        objects.push(told(found, rest));
        rest = &rest[found_indices(std::slice::from_ref(found)).count()..];
    }
    if let (Some(destination), Some(found)) = (&result.destination, resolution.destination.first()) {
        let relation = result.destination_relation.map_or("", RelationKind::words);
        objects.push(format!("destination: {relation} {}", told(found, std::slice::from_ref(destination))));
    }
    let mut message = format!("found {}", objects.join("; "));
    if let Some(then) = &instruction.then {
        message += &format!("; only the first step was looked at, ask again for: {then}");
    }
    message
}

fn describe(object: &GroundedObject) -> String {
    match &object.lifted {
        Some(LiftedObject { surface_centroid: at, source, .. }) => {
            let how = if *source == PoseSource::Depth { "" } else { " by where it stands, without depth" };
            format!("{} at ({:.3}, {:.3}, {:.3}) m{how}", object.phrase, at.x, at.y, at.z)
        }
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
