//! The nearest thing to what is missing.

use super::candidates::{Lifter, from_detections, refuted};
use super::second_look;
use crate::instruction::{GENERIC_NOUN, Instruction, ObjectReference};
use crate::model::{KeyedImage, Model, ModelError};
use crate::options::PipelineOptions;
use crate::result::{Ambiguity, GroundedObject, StepResult, UnmetConstraint};

/// For a missing "red mug": whether a mug of another color, or any mug, is seen. Then what is missing is the attribute, and the mug is the nearest thing.
/// The model is asked once more, about the same image.
pub(super) fn of_kind(
    answer: &mut StepResult,
    candidates: &mut Vec<GroundedObject>,
    step: &Instruction,
    model: &mut dyn Model,
    image: KeyedImage<'_>,
    lifter: &Lifter<'_>,
    options: &PipelineOptions,
) -> Result<Option<String>, ModelError> {
    let Some(Ambiguity { unmet: Some((UnmetConstraint::Object, phrase)), indices, .. }) = &answer.ambiguity
    else {
        return Ok(None);
    };
    let reference = step.references().into_iter().find(|it| it.query() == *phrase);
    let is_plain = |it: &&ObjectReference| it.noun == GENERIC_NOUN || it.noun == it.query();
    let Some(reference) = reference.filter(|it| indices.is_empty() && !is_plain(it)) else { return Ok(None) };
    if let Some((idx, color)) = refuted(candidates, phrase, image.image, options) {
        let words = place_in_words(&candidates[idx], image.image.width());
        let words = format!("what looks most like it, {words}, is {color}");
        answer.ambiguity = lacking_attribute(answer.ambiguity.take(), idx);
        return Ok(Some(words));
    }
    let noun = reference.noun.as_str();
    if !candidates.iter().any(|it| it.phrase == noun) {
        let detections = second_look::ground(model, image, &[noun], options)?;
        candidates.extend(from_detections(detections, lifter, options));
    }
    let of_kind = candidates.iter().enumerate().filter(|(_, it)| it.phrase == noun);
    let best = of_kind.max_by(|a, b| a.1.score.total_cmp(&b.1.score));
    let threshold = f64::from(options.thresholds.threshold_of(noun));
    let Some((idx, object)) = best.filter(|(_, it)| it.score >= threshold) else {
        return Ok(None);
    };
    let place = place_in_words(object, image.image.width());
    let words = format!("the nearest thing seen is a {noun} {place} (score {:.2})", object.score);
    answer.ambiguity = lacking_attribute(answer.ambiguity.take(), idx);
    Ok(Some(words))
}

fn place_in_words(object: &GroundedObject, width: u32) -> &'static str {
    let side = 3.0 * object.bbox.center().0 / f64::from(width);
    if side < 1.0 {
        "at the left of the image"
    } else if side > 2.0 {
        "at the right of the image"
    } else {
        "in the middle of the image"
    }
}

/// What is missing is an attribute of the candidate `idx`.
fn lacking_attribute(doubt: Option<Ambiguity>, idx: usize) -> Option<Ambiguity> {
    doubt.map(|it| Ambiguity {
        unmet: it.unmet.map(|(_, phrase)| (UnmetConstraint::Attribute, phrase)),
        indices: vec![idx],
        ..it
    })
}
