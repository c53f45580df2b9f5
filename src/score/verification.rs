//! Verification: a verifier looks at each of a grounder's boxes again.
//!
//! The verifier says whether the crop shows the phrase rather than something like it: the cosine of crop and phrase less the
//! best cosine of crop and distractors. It is good at kinds and colors and knows nothing of places, so it is asked about the
//! phrase, never about relations.

use crate::detection::{BoundingBox2d, Detection2d};
use crate::image::RgbImage;
use crate::model::{ModelError, Verifier};

/// The name of the score part.
pub const CONTRASTIVE_MARGIN: &str = "contrastive_margin";
/// Boxes of a phrase that are looked at again, best first: each costs a call of the verifier.
const MAX_VERIFIED: usize = 8;
/// What is shown around a box, as a fraction of its size.
const CONTEXT: f64 = 0.15;
/// What a box may show when it shows nothing that was asked for.
const NOTHING: [&str; 3] = ["an empty table", "a blurry background", "a part of something else"];
/// Colors that take the place of a phrase's own.
const COLORS: [&str; 8] = ["red", "green", "blue", "yellow", "orange", "black", "white", "brown"];

/// Notes for the best boxes of each phrase by how much the verifier sees the phrase in it rather than something else.
pub fn verify(
    verifier: &mut dyn Verifier,
    image: &RgbImage,
    phrases: &[&str],
    found: &mut [Vec<Detection2d>],
) -> Result<(), ModelError> {
    for (phrase, detections) in phrases.iter().zip(found) {
        let distractors = distractors(phrase, phrases);
        for detection in detections.iter_mut().take(MAX_VERIFIED) {
            let Some(crop) = crop_with_context(image, &detection.bbox, CONTEXT) else { continue };
            let margin = margin(verifier, &crop, &detection.phrase, &distractors)?;
            detection.score_parts.push((CONTRASTIVE_MARGIN.to_owned(), margin));
        }
    }
    Ok(())
}

/// The cosine of a crop and a phrase, less the best one of the crop and a distractor.
fn margin(
    verifier: &mut dyn Verifier,
    crop: &RgbImage,
    phrase: &str,
    distractors: &[String],
) -> Result<f64, ModelError> {
    let crop = verifier.embed_image(crop)?;
    let mut cosine = |text: &str| -> Result<f32, ModelError> {
        let text = verifier.embed_text(&format!("a photo of {text}"))?;
        Ok(crop.iter().zip(&text).map(|(a, b)| a * b).sum())
    };
    let of_phrase = cosine(&with_article(phrase))?;
    let mut best = f32::NEG_INFINITY;
    for distractor in distractors {
        best = best.max(cosine(distractor)?);
    }
    Ok(f64::from(of_phrase - best))
}

/// What `phrase` could be mistaken for: the other phrases of the request, the phrase in other colors, and nothing at all.
pub fn distractors(phrase: &str, all: &[&str]) -> Vec<String> {
    let words: Vec<&str> = phrase.split_whitespace().collect();
    let mut others: Vec<String> = Vec::new();
    // A phrase that says less ("cup" beside "red cup") is no mistake.
    let says_less = |other: &str| other.split_whitespace().all(|word| words.contains(&word));
    others.extend(all.iter().filter(|other| !says_less(other)).map(|other| with_article(other)));
    if let Some(at) = words.iter().position(|word| COLORS.contains(word)) {
        for color in COLORS.into_iter().filter(|color| *color != words[at]) {
            let mut recolored = words.clone();
            recolored[at] = color;
            others.push(with_article(&recolored.join(" ")));
        }
    }
    others.extend(NOTHING.map(str::to_owned));
    others
}

fn with_article(phrase: &str) -> String {
    let phrase = phrase.trim();
    let starts_with_vowel = phrase.starts_with(|it: char| "aeiouAEIOU".contains(it));
    format!("{} {phrase}", if starts_with_vowel { "an" } else { "a" })
}

/// The part of an image inside `bbox` with some context on each side, a fraction of the box's size; `None` for an empty box.
pub fn crop_with_context(image: &RgbImage, bbox: &BoundingBox2d, context: f64) -> Option<RgbImage> {
    let (dx, dy) = (context * bbox.width(), context * bbox.height());
    let wide = BoundingBox2d { x0: bbox.x0 - dx, y0: bbox.y0 - dy, x1: bbox.x1 + dx, y1: bbox.y1 + dy };
    let wide = wide.clipped(image.width(), image.height());
    let (x0, y0) = (wide.x0.floor() as u32, wide.y0.floor() as u32);
    let (width, height) = (wide.x1.ceil() as u32 - x0, wide.y1.ceil() as u32 - y0);
    (bbox.area() > 0.0 && width > 0 && height > 0)
        .then(|| image::imageops::crop_imm(image, x0, y0, width, height).to_image())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_take_context_and_stay_inside() {
        let image = RgbImage::from_fn(100, 50, |x, y| image::Rgb([x as u8, y as u8, 0]));
        let bbox = |x0, y0, x1, y1| BoundingBox2d { x0, y0, x1, y1 };
        let crop = crop_with_context(&image, &bbox(20.0, 10.0, 40.0, 30.0), 0.15).unwrap();
        assert_eq!((crop.dimensions(), crop.get_pixel(0, 0).0), ((26, 26), [17, 7, 0]));
        let crop = crop_with_context(&image, &bbox(-5.0, 40.0, 10.0, 60.0), 0.0).unwrap();
        assert_eq!(crop.dimensions(), (10, 10));
        assert!(crop_with_context(&image, &bbox(5.0, 5.0, 5.0, 9.0), 0.15).is_none());
        assert!(crop_with_context(&image, &bbox(200.0, 5.0, 220.0, 9.0), 0.15).is_none());
    }

    #[test]
    fn distractors_are_other_phrases_other_colors_and_nothing() {
        let others = distractors("red cup", &["red cup", "cup", "orange plate"]);
        assert_eq!(others[0], "an orange plate");
        assert!(others.contains(&"a blue cup".to_owned()) && others.contains(&"an orange cup".to_owned()));
        assert!(!others.iter().any(|it| it == "a red cup" || it == "a cup"));
        assert_eq!(distractors("laptop", &["laptop"]).len(), NOTHING.len());
    }

    /// Pictures lie on an axis by their mean red, texts by whether they say "red".
    struct Reddish;

    impl Verifier for Reddish {
        fn embed_image(&mut self, image: &RgbImage) -> Result<Vec<f32>, ModelError> {
            let red = f32::from(image.get_pixel(0, 0).0[0]) / 255.0;
            Ok(vec![red, (1.0 - red * red).sqrt()])
        }

        fn embed_text(&mut self, text: &str) -> Result<Vec<f32>, ModelError> {
            Ok(if text.contains("red") { vec![1.0, 0.0] } else { vec![0.0, 1.0] })
        }

        fn logit(&self, cosine: f32) -> f32 {
            cosine
        }

        fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
            logits.to_vec()
        }
    }

    #[test]
    fn every_box_gets_its_margin() {
        let bbox = |x0, x1| BoundingBox2d { x0, y0: 0.0, x1, y1: 10.0 };
        let boxes = vec![
            Detection2d::new("red cup", bbox(0.0, 8.0), 0.9),
            Detection2d::new("red cup", bbox(12.0, 20.0), 0.8),
        ];
        let mut found = vec![boxes];
        let image = RgbImage::from_fn(20, 10, |x, _| image::Rgb([if x < 10 { 255 } else { 0 }, 0, 0]));
        verify(&mut Reddish, &image, &["red cup"], &mut found).unwrap();
        let margin =
            |i: usize| found[0][i].score_parts.iter().find(|it| it.0 == CONTRASTIVE_MARGIN).unwrap().1;
        assert_eq!((margin(0), margin(1)), (1.0, -1.0));
    }
}
