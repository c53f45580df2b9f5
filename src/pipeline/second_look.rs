//! A second look at parts of the picture, for phrases of which the first was not sure.
//!
//! Every grounder shrinks what it is shown to the size that it was taught at: a can 40 pixels tall is 16 pixels tall for a network that
//! takes 256. Shown a part of the picture it sees the same thing larger. First the surroundings of what it half saw are looked at, which
//! costs a call or two; only where that does not help, the whole picture in overlapping tiles. The idea is that of Akyon et al. 2022,
//! "Slicing Aided Hyper Inference"; that weak proposals come first, and what a second look's score is worth, are ours.

mod windows;

use self::windows::{Window, around, tiles};
use crate::detection::Detection2d;
use crate::model::{KeyedImage, Model, ModelError};
use crate::options::{PipelineOptions, SecondLook};
use crate::score::{logistic, part};

/// The name of the score part that holds the model's own score in the second look, [0, 1].
pub(super) const SECOND_LOOK: &str = "second_look";
/// What is shrunk by less is seen well enough at first.
const MIN_SHRINK: f64 = 1.25;
/// A larger input makes a second look dear: [`SecondLook::Auto`] leaves it.
const CHEAP_SIDE: u32 = 512;
/// Weak proposals of a phrase whose surroundings are looked at.
const MAX_PROPOSALS: usize = 2;
/// Surroundings that are looked at for all phrases together.
const MAX_CROPS: usize = 4;
/// Boxes that overlap by more are one thing.
const SAME_IOU: f64 = 0.5;
/// Of two boxes that share more than this of the smaller one, one is a part of the other.
const PART_SHARE: f64 = 0.6;
/// What was overlooked at first is less likely there, whatever the second look says: the log-odds of its score are scaled and shifted. Fitted
/// on the validation split of `training/splits.py`, whose rooms, things and cameras no model of ours has learned.
const TRUST: (f64, f64) = (0.95, -1.45);

/// The model's boxes for each phrase, best first; those of a second look among them, their scores made comparable.
pub(super) fn ground(
    model: &mut dyn Model,
    image: KeyedImage<'_>,
    phrases: &[&str],
    options: &PipelineOptions,
) -> Result<Vec<Vec<Detection2d>>, ModelError> {
    let mut found = model.ground(image, phrases)?;
    if !is_worth_it(model, image, options.second_look) {
        return Ok(found);
    }
    let mut crops: Vec<Window> = Vec::new();
    for idx in unsure(&found, phrases, options) {
        for weak in found[idx].iter().take(MAX_PROPOSALS) {
            let window = around(&weak.bbox, image.image.dimensions());
            if crops.len() < MAX_CROPS && !crops.contains(&window) {
                crops.push(window);
            }
        }
    }
    for windows in [crops, tiles()] {
        let asked = unsure(&found, phrases, options);
        if asked.is_empty() {
            break;
        }
        look_again(model, image, phrases, &asked, &windows, &mut found)?;
    }
    Ok(found)
}

fn is_worth_it(model: &dyn Model, image: KeyedImage<'_>, choice: SecondLook) -> bool {
    let Some(side) = model.info().input_side else { return false };
    let is_chosen = match choice {
        SecondLook::Never => false,
        SecondLook::Auto => side <= CHEAP_SIDE,
        SecondLook::Always => true,
    };
    let (width, height) = image.image.dimensions();
    is_chosen && f64::from(width.max(height)) >= MIN_SHRINK * f64::from(side)
}

/// The phrases, by index, of which nothing was seen that counts.
fn unsure(found: &[Vec<Detection2d>], phrases: &[&str], options: &PipelineOptions) -> Vec<usize> {
    let is_unsure = |idx: &usize| {
        let threshold = options.thresholds.threshold_of(phrases[*idx]);
        found[*idx].iter().all(|it| it.score < threshold)
    };
    (0..phrases.len()).filter(is_unsure).collect()
}

/// Adds what is seen in `windows` of the phrases `asked`.
fn look_again(
    model: &mut dyn Model,
    image: KeyedImage<'_>,
    phrases: &[&str],
    asked: &[usize],
    windows: &[Window],
    found: &mut [Vec<Detection2d>],
) -> Result<(), ModelError> {
    let size = image.image.dimensions();
    let asked_phrases: Vec<&str> = asked.iter().map(|idx| phrases[*idx]).collect();
    for window in windows {
        let crop = window.crop(image.image);
        let shown = KeyedImage { part: window.part(), image: &crop, ..image };
        for (idx, seen) in asked.iter().zip(model.ground(shown, &asked_phrases)?) {
            let whole = seen.into_iter().filter_map(|mut it| {
                it.bbox = window.to_picture(&it.bbox, size)?;
                Some(it)
            });
            found[*idx].extend(whole.map(trusted_less));
        }
    }
    for idx in asked {
        found[*idx] = distinct(std::mem::take(&mut found[*idx]));
    }
    Ok(())
}

fn trusted_less(detection: Detection2d) -> Detection2d {
    let own = f64::from(detection.score);
    let clamped = own.clamp(1e-6, 1.0 - 1e-6);
    let log_odds = (clamped / (1.0 - clamped)).ln();
    let mut score_parts = detection.score_parts;
    score_parts.push((SECOND_LOOK.to_owned(), own));
    Detection2d { score: logistic(TRUST.0 * log_odds + TRUST.1) as f32, score_parts, ..detection }
}

/// One box of each thing, best first. What a window saw replaces what the whole picture made of the same place: it saw it larger.
fn distinct(mut detections: Vec<Detection2d>) -> Vec<Detection2d> {
    let is_second = |it: &Detection2d| part(&it.score_parts, SECOND_LOOK).is_some();
    detections.sort_by(|a, b| {
        (is_second(b), b.score).partial_cmp(&(is_second(a), a.score)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut kept: Vec<Detection2d> = Vec::new();
    for it in detections {
        let is_same = |other: &Detection2d| {
            it.bbox.iou(&other.bbox) > SAME_IOU || it.bbox.is_part(&other.bbox, PART_SHARE)
        };
        if !kept.iter().any(is_same) {
            kept.push(it);
        }
    }
    kept.sort_by(|a, b| b.score.total_cmp(&a.score));
    kept
}

#[cfg(test)]
mod tests;
