//! Agreement of two grounders that were asked the same: a box that both see is rather right than one that only the first sees.
//!
//! Models trained on other data fail in other places, so agreement says more than either score. It is a part of the score for
//! `ground calibrate` to weigh, never a verdict: the boxes stay those of the first model.

use crate::detection::{BoundingBox2d, Detection2d};

/// The name of the score part.
pub const AGREEMENT: &str = "agreement";

/// Notes for each of `found` how well it agrees with what another model found for the same phrases.
pub fn note_agreement(found: &mut [Vec<Detection2d>], also_found: &[Vec<Detection2d>]) {
    for (detections, others) in found.iter_mut().zip(also_found) {
        for detection in detections {
            let agreement = agreement(&detection.bbox, others);
            detection.score_parts.push((AGREEMENT.to_owned(), agreement));
        }
    }
}

/// The score of the other model's box, by how much of it is this one; the best of them, [0, 1].
fn agreement(bbox: &BoundingBox2d, others: &[Detection2d]) -> f64 {
    others.iter().map(|it| f64::from(it.score) * bbox.iou(&it.bbox)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RgbImage;
    use crate::model::precomputed::Precomputed;
    use crate::model::{Grounder as _, KeyedImage};

    #[test]
    fn boxes_that_both_see_agree() {
        let at = |phrase: &str, x: f64, score: f32| {
            Detection2d::new(phrase, BoundingBox2d { x0: x, y0: 0.0, x1: x + 10.0, y1: 10.0 }, score)
        };
        let mut first =
            Precomputed::new(vec![at("mug", 0.0, 0.9), at("mug", 50.0, 0.8), at("plate", 80.0, 0.7)]);
        let mut second =
            Precomputed::new(vec![at("mug", 0.0, 0.4), at("mug", 5.0, 0.9), at("bowl", 50.0, 1.0)]);
        let image = RgbImage::new(100, 20);
        let (image, phrases) = (KeyedImage::whole(0, &image), ["mug", "plate"]);
        let mut found = first.ground(image, &phrases).unwrap();
        note_agreement(&mut found, &second.ground(image, &phrases).unwrap());
        let part = |it: &Detection2d| it.score_parts.iter().find(|it| it.0 == AGREEMENT).unwrap().1;
        assert_eq!(found[0].iter().map(|it| it.bbox.x0).collect::<Vec<_>>(), [0.0, 50.0]);
        assert!((part(&found[0][0]) - 0.4).abs() < 1e-6, "the same box, though its score is the lower one");
        assert_eq!((part(&found[0][1]), part(&found[1][0])), (0.0, 0.0));
    }
}
