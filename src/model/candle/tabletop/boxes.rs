//! What the dense head's cells propose, made into boxes.

use super::config::DenseHeadConfig;
use super::dense_head::DenseGrounding;
use crate::detection::{BoundingBox2d, Detection2d, non_maximum_suppression};
use crate::model::ModelError;

/// Boxes below this score are not worth a caller's look.
const SCORE_FLOOR: f64 = 0.05;
/// Cells whose boxes overlap the best one's by more than this have a say in it.
const AGREEING_IOU: f64 = 0.6;
/// Of two boxes for one phrase that share more than this of the smaller one, the better is the thing and the other a part of it, or it
/// and something else.
const PART_SHARE: f64 = 0.6;
/// Most boxes given for one phrase.
const MAX_BOXES: usize = 64;

/// Every cell's box with its score for each phrase.
pub(super) fn scored_cells(
    dense: &DenseGrounding,
    config: &DenseHeadConfig,
    phrases: &[&str],
    (width, height): (u32, u32),
) -> Result<Vec<Vec<Detection2d>>, ModelError> {
    let logits: Vec<Vec<f32>> = dense.logits.to_vec2()?;
    let distances: Vec<Vec<f32>> = dense.distances.to_vec2()?;
    if logits.iter().chain(&distances).flatten().any(|it| !it.is_finite()) {
        return Err(ModelError::Inference("the grounding head's output is not finite".into()));
    }
    let (rows, columns) = dense.grid;
    let boxes = distances.iter().enumerate().map(|(cell, distances)| {
        let x = ((cell % columns) as f64 + 0.5) / columns as f64;
        let y = ((cell / columns) as f64 + 0.5) / rows as f64;
        let reach = |side: usize| softplus(f64::from(distances[side])) * config.box_scale;
        let bbox = BoundingBox2d {
            x0: (x - reach(0)) * f64::from(width),
            y0: (y - reach(1)) * f64::from(height),
            x1: (x + reach(2)) * f64::from(width),
            y1: (y + reach(3)) * f64::from(height),
        };
        bbox.clipped(width, height)
    });
    let boxes: Vec<BoundingBox2d> = boxes.collect();
    let score =
        |logit: f32| sigmoid(config.calibration.scale * f64::from(logit) + config.calibration.bias) as f32;
    let of_phrase = |(phrase, logits): (&&str, &Vec<f32>)| {
        logits.iter().zip(&boxes).map(|(&it, &bbox)| Detection2d::new(*phrase, bbox, score(it))).collect()
    };
    Ok(phrases.iter().zip(&logits).map(of_phrase).collect())
}

/// The best cells that are worth a look and do not box the same thing, each with the box on which its neighbors agree.
pub(super) fn distinct(cells: &[Detection2d], max_iou: f64) -> Vec<Detection2d> {
    let worth = cells.iter().filter(|it| f64::from(it.score) >= SCORE_FLOOR).cloned().collect();
    let mut kept = non_maximum_suppression(worth, max_iou);
    kept.truncate(MAX_BOXES);
    for detection in &mut kept {
        detection.bbox = agreed_box(&detection.bbox, cells);
    }
    // What agrees on much the same box is one thing, and so is a box with a part of it.
    let mut things: Vec<Detection2d> = Vec::new();
    for it in non_maximum_suppression(kept, max_iou) {
        if !things.iter().any(|other| it.bbox.is_part(&other.bbox, PART_SHARE)) {
            things.push(it);
        }
    }
    things
}

/// The mean, weighted by score, of the boxes that overlap this one: as in Solovyev et al., "Weighted boxes fusion", 2021.
fn agreed_box(bbox: &BoundingBox2d, cells: &[Detection2d]) -> BoundingBox2d {
    let mut sum = [0.0; 4];
    let mut weights = 0.0;
    for cell in cells.iter().filter(|it| it.bbox.iou(bbox) >= AGREEING_IOU) {
        let weight = f64::from(cell.score);
        weights += weight;
        for (sum, edge) in sum.iter_mut().zip(<[f64; 4]>::from(cell.bbox)) {
            *sum += weight * edge;
        }
    }
    if weights > 0.0 { BoundingBox2d::from(sum.map(|it| it / weights)) } else { *bbox }
}

/// How much each cell has to say about what is in `region`: those whose boxes overlap it nearly as much as the best one's does.
pub(super) fn agreement(cells: &[Detection2d], region: &BoundingBox2d) -> Vec<f64> {
    let overlaps: Vec<f64> = cells.iter().map(|it| it.bbox.iou(region)).collect();
    let most = overlaps.iter().copied().fold(0.0, f64::max);
    let weight = |(overlap, cell): (&f64, &Detection2d)| {
        if *overlap >= 0.8 * most { overlap * f64::from(cell.score).max(1e-3) } else { 0.0 }
    };
    overlaps.iter().zip(cells).map(weight).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + e^x), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softplus_and_sigmoid_survive_extremes() {
        for (x, expected) in
            [(0.0, std::f64::consts::LN_2), (800.0, 800.0), (-800.0, 0.0), (1.0, 1.313_261_687_5)]
        {
            assert!((softplus(x) - expected).abs() < 1e-9, "softplus({x})");
        }
        assert!(sigmoid(-800.0).abs() < 1e-12 && (sigmoid(800.0) - 1.0).abs() < 1e-12);
    }
}
