//! Scores for a model that has none, and decoding limited to boxes, against what a script computes from transformers' logits
//! (`tests/parity/florence2_scores_reference.py`), on the tiny random checkpoint without its dense head.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod parity_support;

use std::path::Path;

use language_grounding::model::candle::loading::read_json;
use language_grounding::model::registry;
use language_grounding::model::{Decode, Florence2Options, KeyedImage, Model, ModelOptions, RawTask};
use parity_support::{fixture_dir, headless_dir, make_image};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    width: u32,
    height: u32,
    seed: i64,
    words: String,
    greedy: Expected,
    greedy_sparing: Expected,
    beams_sparing: Expected,
    limited_greedy: Expected,
    limited_beams: Expected,
}

#[derive(Deserialize)]
struct Expected {
    ids: Vec<u32>,
    boxes: Option<Vec<Value>>,
}

fn load(dir: &Path, ban_repeated_locations: bool, limit_to_locations: bool) -> Box<dyn Model> {
    let florence2 =
        Florence2Options { ban_repeated_locations, limit_to_locations, ..Florence2Options::default() };
    let options = ModelOptions { florence2, ..ModelOptions::on("cpu") };
    registry::load(dir, &options).unwrap()
}

/// Compares the scores of all boxes of an answer; returns the number compared and the worst relative difference.
fn compare_boxes(
    parsed: &Value,
    expected: &[Value],
    (width, height): (u32, u32),
    what: &str,
) -> (usize, f64) {
    let boxes = parsed["boxes"].as_array().unwrap();
    assert_eq!(boxes.len(), expected.len(), "{what}: number of boxes");
    let mut worst = 0.0f64;
    let mut compare = |got: f64, expected: f64, key: &str| {
        let difference = (got - expected).abs() / expected.abs().max(1e-3);
        assert!(difference < 2e-3, "{what}: {key} is {got}, expected {expected}");
        worst = worst.max(difference);
    };
    for (got, expected) in boxes.iter().zip(expected) {
        for i in 0..4 {
            let side = f64::from(if i % 2 == 0 { width } else { height });
            let edge = (expected["bins"][i].as_f64().unwrap() + 0.5) * side / 1000.0;
            compare(got["bbox"][i].as_f64().unwrap(), edge, "edge");
            let std_px = expected["std_bins"][i].as_f64().unwrap() * side / 1000.0;
            compare(got["certainty"]["std_px"][i].as_f64().unwrap(), std_px, "std_px");
        }
        for key in [
            "location_log_prob",
            "location_probability",
            "min_location_probability",
            "location_mass",
            "phrase_log_prob",
        ] {
            compare(got["certainty"][key].as_f64().unwrap(), expected[key].as_f64().unwrap(), key);
        }
    }
    (boxes.len(), worst)
}

#[test]
fn scores_and_limited_decoding_agree_with_the_reference() {
    let dir = headless_dir("scores");
    let mut reference = load(&dir, true, false);
    let mut sparing = load(&dir, false, false);
    let mut limited = load(&dir, true, true);
    let cases: Vec<Case> = read_json(&fixture_dir().join("scores.json")).unwrap();
    let (mut n_boxes, mut worst) = (0, 0.0f64);
    for case in &cases {
        let pixels = make_image(case.width, case.height, case.seed);
        let image = KeyedImage::whole(case.seed as u64, &pixels);
        let mut check = |model: &mut dyn Model, n_beams, expected: &Expected, what: &str| {
            let what = format!("seed {} {:?} {what}", case.seed, case.words);
            let task = RawTask {
                name: "OPEN_VOCABULARY_DETECTION",
                text: Some(&case.words),
                n_beams,
                ..RawTask::default()
            };
            let got = model.raw_task(image, &task).unwrap();
            assert_eq!(got.token_ids, expected.ids, "{what}");
            assert_eq!(got.log_probs.len(), got.token_ids.len() - 1, "{what}");
            if let Some(boxes) = &expected.boxes {
                let (n, difference) = compare_boxes(&got.parsed, boxes, (case.width, case.height), &what);
                n_boxes += n;
                worst = worst.max(difference);
            }
        };
        check(&mut *reference, 1, &case.greedy, "greedy");
        check(&mut *sparing, 1, &case.greedy_sparing, "greedy, locations not banned");
        check(&mut *sparing, 3, &case.beams_sparing, "beams, locations not banned");
        check(&mut *limited, 1, &case.limited_greedy, "limited, greedy");
        check(&mut *limited, 3, &case.limited_beams, "limited, beams");
    }
    assert!(n_boxes > 300, "{n_boxes} boxes");
    println!("{} cases token-exact in 5 modes; scores of {n_boxes} boxes within {worst:.1e}", cases.len());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_checkpoint_without_a_dense_head_grounds_and_captions() {
    let dir = headless_dir("headless");
    let pixels = make_image(320, 200, 4);
    let image = KeyedImage::whole(1, &pixels);
    for decode in [Decode::Beam, Decode::Greedy] {
        for limit_to_locations in [false, true] {
            let florence2 = Florence2Options { decode, limit_to_locations, ..Florence2Options::default() };
            let options = ModelOptions { florence2, ..ModelOptions::on("cpu") };
            let mut model = registry::load(&dir, &options).unwrap();
            let all = model.ground(image, &["red cup", "a green bottle left of the bowl"]).unwrap();
            assert_eq!(all.len(), 2);
            for detection in all.iter().flatten() {
                let part = |name: &str| {
                    let found = detection.score_parts.iter().find(|part| part.0 == name);
                    found.unwrap_or_else(|| panic!("no part {name}")).1
                };
                assert!((part("location_mass") - f64::from(detection.score)).abs() < 1e-6);
                assert!(part("location_mass") >= part("location_probability"));
                assert!(part("location_probability") >= part("min_location_probability"));
                assert!((part("location_log_prob") / 4.0 - part("location_probability").ln()).abs() < 1e-6);
                assert!(part("phrase_log_prob") < 0.0);
                // No distribution over 1000 bins of 320 pixels can be wider than half of them.
                assert!((0.0..=160.0).contains(&part("x0_std_px")));
                assert!(part("y1_std_px") <= 100.0);
            }
            assert!(!limit_to_locations || all.iter().all(|boxes| boxes.len() <= 64));
            assert!(model.caption(image, None).is_ok());
            assert!(model.caption(image, Some([10.0, 10.0, 90.0, 80.0].into())).is_ok());
            let error = model.answer(image, "What color is the cup?").unwrap_err().to_string();
            assert!(error.contains("cannot do \"answer\""), "{error}");
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// `FLORENCE2_IMAGES=N` sets how many images; the first of them are the extremes.
#[test]
fn every_task_survives_images_of_every_size() {
    let dir = headless_dir("sizes");
    let n_images = std::env::var("FLORENCE2_IMAGES").map_or(14, |n| n.parse().unwrap());
    for (limit_to_locations, n_images, n_beams) in [(false, n_images, 3), (true, 4, 1)] {
        let mut model = load(&dir, true, limit_to_locations);
        let n_calls = parity_support::run_all_tasks(&mut *model, n_images, 5, n_beams);
        assert_eq!(n_calls as u64, n_images * 17);
        println!("{n_calls} calls on {n_images} images without a panic");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
