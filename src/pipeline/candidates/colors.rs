//! Whether candidates have the colors that they are asked for in.

use crate::image::RgbImage;
use crate::instruction::{AttributeKind, Instruction};
use crate::options::PipelineOptions;
use crate::result::GroundedObject;
use crate::score::color::{self, COLOR_FIT, ColorFits, Light};
use crate::score::part;

/// Notes for every candidate of a phrase with a color how far its pixels bear that out, and takes away from the score what they refute.
pub(in crate::pipeline) fn check(
    candidates: &mut [GroundedObject],
    instruction: &Instruction,
    image: &RgbImage,
) {
    let mut light = None;
    for reference in instruction.steps().flat_map(Instruction::references) {
        let colors = reference.attributes.iter().filter(|it| it.kind == AttributeKind::Color && !it.negated);
        let words: Vec<&str> = colors.map(|it| last_of(&it.word)).collect();
        let phrase = reference.query();
        if words.is_empty() {
            continue;
        }
        for object in candidates.iter_mut().filter(|it| it.phrase == phrase) {
            let is_checked = part(&object.score_parts, COLOR_FIT).is_some();
            if is_checked || is_a_plane(object) {
                continue;
            }
            let light = *light.get_or_insert_with(|| Light::of(image));
            let Some(fits) = fits(object, image, light) else { continue };
            // Of "yellow and white" either may be the smaller part.
            let Some(fit) = words.iter().filter_map(|it| fits.fit(it)).reduce(f64::max) else { continue };
            object.score *= color::gate(fit);
            object.score_parts.push((COLOR_FIT.to_owned(), fit));
        }
    }
}

/// A candidate for `phrase` that would count but for its color, and the name of the color that it has.
pub(in crate::pipeline) fn refuted(
    candidates: &[GroundedObject],
    phrase: &str,
    image: &RgbImage,
    options: &PipelineOptions,
) -> Option<(usize, &'static str)> {
    let threshold = f64::from(options.thresholds.threshold_of(phrase));
    let model_score = |it: &GroundedObject| part(&it.score_parts, "model").unwrap_or(0.0);
    let would_count = |it: &GroundedObject| {
        let is_refuted = part(&it.score_parts, COLOR_FIT).is_some_and(|fit| color::gate(fit) < 1.0);
        it.phrase == phrase && is_refuted && it.score < threshold && threshold <= model_score(it)
    };
    let counted = candidates.iter().enumerate().filter(|it| would_count(it.1));
    let (idx, best) = counted.max_by(|a, b| model_score(a.1).total_cmp(&model_score(b.1)))?;
    Some((idx, fits(best, image, Light::of(image))?.name()))
}

/// What a score that weights made is multiplied with.
pub(super) fn gate(parts: &[(String, f64)]) -> f64 {
    part(parts, COLOR_FIT).map_or(1.0, color::gate)
}

/// By the object's own pixels where they are known, else by those in the middle of its box.
fn fits(object: &GroundedObject, image: &RgbImage, light: Light) -> Option<ColorFits> {
    let of_mask = object
        .lifted
        .as_ref()
        .and_then(|it| ColorFits::of(image, &object.bbox, light, |u, v| it.mask.contains(u, v)));
    of_mask.or_else(|| ColorFits::of(image, &object.bbox, light, |u, v| color::is_inner(&object.bbox, u, v)))
}

/// Planes are named by the words themselves, not by any detector.
fn is_a_plane(object: &GroundedObject) -> bool {
    part(&object.score_parts, "support_plane").is_some()
}

/// "dark blue" is a blue.
fn last_of(word: &str) -> &str {
    word.rsplit(' ').next().unwrap_or(word)
}
