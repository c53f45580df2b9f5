//! Two grounding models asked the same: a box that both see is rather right than one that only the first sees.
//!
//! Models trained on other data fail in other places, so agreement says more than either score. It is a part of the score for
//! `ground calibrate` to weigh, never a verdict: the boxes stay those of the first model.

use crate::detection::{BoundingBox2d, Detection2d};
use crate::model::{KeyedImage, ModelError, ModelInfo, RawTask, RawTaskOutput, VisionLanguageModel};

/// The name of the score part.
pub const AGREEMENT: &str = "agreement";

/// Both models as one: the first answers, the second is asked about its boxes.
pub struct AgreeingModels {
    first: Box<dyn VisionLanguageModel>,
    second: Box<dyn VisionLanguageModel>,
}

impl AgreeingModels {
    /// `second` is asked about what `first` finds.
    pub fn new(first: Box<dyn VisionLanguageModel>, second: Box<dyn VisionLanguageModel>) -> Self {
        Self { first, second }
    }
}

impl VisionLanguageModel for AgreeingModels {
    fn info(&self) -> &ModelInfo {
        self.first.info()
    }

    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        let mut found = self.first.ground(image, phrases)?;
        let also_found = self.second.ground(image, phrases)?;
        for (detections, others) in found.iter_mut().zip(&also_found) {
            for detection in detections {
                let agreement = agreement(&detection.bbox, others);
                detection.score_parts.push((AGREEMENT.to_owned(), agreement));
            }
        }
        Ok(found)
    }

    fn caption(
        &mut self,
        image: KeyedImage<'_>,
        region: Option<BoundingBox2d>,
    ) -> Result<String, ModelError> {
        self.first.caption(image, region)
    }

    fn answer(&mut self, image: KeyedImage<'_>, question: &str) -> Result<String, ModelError> {
        self.first.answer(image, question)
    }

    fn raw_task(&mut self, image: KeyedImage<'_>, task: &RawTask<'_>) -> Result<RawTaskOutput, ModelError> {
        self.first.raw_task(image, task)
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
    use crate::model::given::GivenDetections;

    #[test]
    fn boxes_that_both_see_agree() {
        let at = |phrase: &str, x: f64, score: f32| {
            Detection2d::new(phrase, BoundingBox2d { x0: x, y0: 0.0, x1: x + 10.0, y1: 10.0 }, score)
        };
        let first =
            GivenDetections::new(vec![at("mug", 0.0, 0.9), at("mug", 50.0, 0.8), at("plate", 80.0, 0.7)]);
        let second =
            GivenDetections::new(vec![at("mug", 0.0, 0.4), at("mug", 5.0, 0.9), at("bowl", 50.0, 1.0)]);
        let mut both = AgreeingModels::new(Box::new(first), Box::new(second));
        let image = RgbImage::new(100, 20);
        let found = both.ground(KeyedImage { key: 0, image: &image }, &["mug", "plate"]).unwrap();
        let part = |it: &Detection2d| it.score_parts.iter().find(|it| it.0 == AGREEMENT).unwrap().1;
        assert_eq!(found[0].iter().map(|it| it.bbox.x0).collect::<Vec<_>>(), [0.0, 50.0]);
        assert!((part(&found[0][0]) - 0.4).abs() < 1e-6, "the same box, though its score is the lower one");
        assert_eq!((part(&found[0][1]), part(&found[1][0])), (0.0, 0.0));
    }
}
