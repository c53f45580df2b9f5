mod geometry;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{RELATION_FIT, run_text};
use crate::config::{Config, RawConfig};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::image::{RgbImage, RgbdFrame};
use crate::instruction::Vocabulary;
use crate::model::given::GivenDetections;
use crate::options::PipelineOptions;
use crate::result::{GroundingResult, Status, UnmetConstraint};
use crate::score::{PartWeight, ScoreWeights};

fn at(phrase: &str, x: f64, y: f64, score: f32) -> Detection2d {
    Detection2d::new(phrase, BoundingBox2d { x0: x, y0: y, x1: x + 40.0, y1: y + 50.0 }, score)
}

fn ask(text: &str, boxes: &[Detection2d], options: &PipelineOptions) -> GroundingResult {
    let frame = RgbdFrame {
        key: 0,
        image: RgbImage::new(320, 240),
        depth: None,
        camera: None,
        frame_id: "camera".to_owned(),
        stamp_ns: 0,
    };
    let mut model = GivenDetections::new(boxes.to_vec());
    run_text(&mut model, &frame, text, &Vocabulary::default(), options, &mut |_| {})
}

fn config(raw: RawConfig) -> PipelineOptions {
    Config::try_from(RawConfig { use_depth: false, ..raw }).unwrap().pipeline
}

/// A mug left of the plate, one right of it and lower.
fn table() -> Vec<Detection2d> {
    vec![at("mug", 20.0, 100.0, 0.9), at("mug", 250.0, 150.0, 0.9), at("plate", 140.0, 110.0, 0.9)]
}

#[test]
fn found_says_why() {
    let message = |text: &str| ask(text, &table(), &config(RawConfig::default())).message;
    assert_eq!(
        message("the mug to the left of the plate"),
        "found mug at pixel (40, 125): mug 1 of 2 from the left: 120 px left of the plate, the next best 110 px right of it"
    );
    assert_eq!(
        message("put the right mug on the plate"),
        "found mug at pixel (270, 175): mug 2 of 2 from the left: rightmost; \
         destination: on plate at pixel (160, 135): the only plate seen"
    );
    assert_eq!(message("both mugs"), "found mug at pixel (40, 125), mug at pixel (270, 175): 2 mugs");
}

#[test]
fn a_place_that_is_said_is_a_part_of_the_score() {
    let part = |result: &GroundingResult, idx: usize| {
        let parts = &result.candidates[idx].score_parts;
        parts.iter().find(|it| it.0 == RELATION_FIT).map(|it| it.1)
    };
    let result = ask("the mug to the left of the plate", &table(), &config(RawConfig::default()));
    assert!(part(&result, 0).unwrap() > 0.9 && part(&result, 1).unwrap() < 0.5, "{result:?}");
    assert_eq!(part(&result, 2), None, "of the plate no place is said");
    assert_eq!(result.targets[0], result.candidates[0]);
    assert!((result.targets[0].score - 0.9).abs() < 1e-6, "without weights the score is the model's");
    let result = ask("the left mug", &table(), &config(RawConfig::default()));
    assert_eq!(part(&result, 0), None);
}

#[test]
fn the_weights_decide_with_the_place() {
    let weighed = |weight: f64| {
        let parts = BTreeMap::from([(RELATION_FIT.to_owned(), PartWeight { weight, mean: 0.5 })]);
        let weights = ScoreWeights { fitted_on: "a test".to_owned(), bias: 0.2, parts };
        let options =
            PipelineOptions { score_weights: Some(Arc::new(weights)), ..config(RawConfig::default()) };
        ask("the mug to the left of the plate", &table(), &options)
    };
    let sure = weighed(4.0);
    assert_eq!(sure.status, Status::Found);
    assert!(sure.targets[0].score > 0.8, "{sure:?}");
    // A fit that speaks against the box: what was sure enough without the place is not any more.
    let weak = weighed(-4.0);
    assert_eq!(weak.status, Status::NotFound, "{}", weak.message);
    assert!(weak.targets.is_empty());
    let doubt = weak.ambiguity.unwrap();
    assert_eq!(doubt.unmet, Some((UnmetConstraint::Relation, "mug".to_owned())));
    assert_eq!(doubt.indices, [0]);
}

#[test]
fn a_phrase_has_its_own_threshold() {
    let boxes = [at("mug", 20.0, 100.0, 0.3), at("plate", 140.0, 110.0, 0.3)];
    let config =
        config(RawConfig { per_phrase: "{mug: {score_threshold: 0.25}}".to_owned(), ..RawConfig::default() });
    assert_eq!(ask("the mug", &boxes, &config).status, Status::Found);
    assert_eq!(ask("the plate", &boxes, &config).status, Status::NotFound);
}

#[test]
fn questions_name_what_things_stand_at() {
    let mut boxes = table();
    boxes[0].bbox.x0 += 70.0;
    boxes[0].bbox.x1 += 70.0;
    let asked = ask("put the mug on the plate", &boxes, &config(RawConfig::default()));
    assert_eq!(asked.status, Status::Ambiguous);
    assert_eq!(asked.message, "2 mugs: the left one by the plate or the right one?");
}
