//! Detections of someone else's model, from a file or a request: the words are resolved over them, no model runs.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Grounder, KeyedImage, Model, ModelError, ModelInfo};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::instruction::GENERIC_NOUN;

/// Boxes that are the same for every image.
#[derive(Debug)]
pub struct Precomputed {
    info: ModelInfo,
    detections: Vec<Detection2d>,
}

/// Another model made slow, for tests and rehearsals: how everything around it fares when answers take their time.
struct Delayed {
    model: Precomputed,
    delay: Duration,
}

/// As a file holds them: boxes alone, or with the time that finding them is to take.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PrecomputedFile {
    Boxes(Vec<Detection2d>),
    Delayed { delay_ms: u64, boxes: Vec<Detection2d> },
}

/// Reads a JSON file: a list of `{"phrase", "bbox": [x0, y0, x1, y1], "score"}`, boxes in pixels; for a scene that stands still. With
/// `{"delay_ms", "boxes"}` they are found as slowly as by a real model: for tests of all but the model.
pub fn load(path: &Path) -> Result<Box<dyn Model>, ModelError> {
    let refused = |problem: String| ModelError::Checkpoint { path: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    Ok(match serde_json::from_str(&text).map_err(|error| refused(error.to_string()))? {
        PrecomputedFile::Boxes(boxes) => Box::new(Precomputed::new(boxes)),
        PrecomputedFile::Delayed { delay_ms, boxes } => {
            Box::new(Delayed { model: Precomputed::new(boxes), delay: Duration::from_millis(delay_ms) })
        }
    })
}

impl Precomputed {
    /// The boxes to choose from.
    pub fn new(detections: Vec<Detection2d>) -> Self {
        let info = ModelInfo {
            name: "candidates".to_owned(),
            model_type: "given".to_owned(),
            device: "none".to_owned(),
            synthetic: false,
            input_side: None,
            is_told: true,
        };
        Self { info, detections }
    }
}

impl Model for Precomputed {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(self)
    }
}

impl Grounder for Precomputed {
    /// A box is offered for a phrase when its own phrase has all of the phrase's words: "red coffee mug" is a "red mug", but
    /// "mug" is not, for nobody has said what color it has. A "yellow and white mug" is a "white mug" only where there is none that
    /// is white alone.
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        let (width, height) = image.image.dimensions();
        let offers = |phrase: &&str| {
            // "the red thing" asks for anything red.
            let mut wanted = words(phrase);
            wanted.retain(|it| it != GENERIC_NOUN);
            let is_mixed = |said: &[String]| said.iter().any(|it| it == "and");
            let said: Vec<Vec<String>> = self.detections.iter().map(|it| words(&it.phrase)).collect();
            let fits = |said: &[String]| wanted.iter().all(|word| said.contains(word));
            let leave_mixed =
                wanted.len() > 1 && !is_mixed(&wanted) && said.iter().any(|it| fits(it) && !is_mixed(it));
            let mut offered: Vec<Detection2d> = self
                .detections
                .iter()
                .zip(&said)
                .filter(|(_, said)| fits(said) && !(leave_mixed && is_mixed(said)))
                .map(|(it, _)| it)
                .map(|it| Detection2d {
                    phrase: (*phrase).to_owned(),
                    bbox: BoundingBox2d::clipped(&it.bbox, width, height),
                    ..it.clone()
                })
                .collect();
            offered.sort_by(|a, b| b.score.total_cmp(&a.score));
            offered
        };
        Ok(phrases.iter().map(offers).collect())
    }
}

impl Model for Delayed {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(self)
    }
}

impl Grounder for Delayed {
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        std::thread::sleep(self.delay);
        self.model.ground(image, phrases)
    }
}

fn words(phrase: &str) -> Vec<String> {
    phrase
        .split(|it: char| !it.is_alphanumeric())
        .filter(|it| !it.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RgbImage;

    #[test]
    fn a_box_is_offered_for_what_it_is_said_to_be() {
        #[track_caller]
        fn check(said: &str, asked: &str, is_offered: bool) {
            let bbox = BoundingBox2d::from([0.0, 0.0, 5.0, 5.0]);
            let mut model = Precomputed::new(vec![Detection2d::new(said, bbox, 0.9)]);
            let image = RgbImage::new(4, 4);
            let found = model.ground(KeyedImage::whole(0, &image), &[asked]).unwrap();
            assert_eq!(found[0].len(), usize::from(is_offered), "{asked:?} of {said:?}");
            if let Some(detection) = found[0].first() {
                assert_eq!(detection.phrase, asked);
                assert_eq!(detection.bbox, BoundingBox2d::from([0.0, 0.0, 4.0, 4.0]));
            }
        }
        check("red mug", "red mug", true);
        check("red coffee mug", "red mug", true);
        check("Red_Mug", "mug", true);
        check("mug", "red mug", false);
        check("red mug", "red object", true);
        check("red mug", "blue object", false);
        check("smug", "mug", false);
        check("mug", "plate", false);
    }
}
