//! OWLv2 against transformers on a tiny random checkpoint, from image bytes and texts to boxes and scores.
//!
//! `tests/parity/owlv2_reference.py` made the checkpoint and the expected values.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod parity_support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use language_grounding::model::candle::kernels::Precision;
use language_grounding::model::candle::loading::{Checkpoint, read_json};
use language_grounding::model::candle::owlv2::image::SquareImageProcessor;
use language_grounding::model::candle::owlv2::network::{Config, Owlv2Network};
use language_grounding::model::registry::load;
use language_grounding::model::{KeyedImage, ModelOptions, Quantize, RawTask};
use parity_support::{deviation, expected, make_image};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::Tokenizer;

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Released {
    config: Config,
    tensors: BTreeMap<String, Vec<usize>>,
}

#[derive(Deserialize)]
struct Cases {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    /// Width, height and seed.
    images: Vec<(u32, u32, i64)>,
}

fn fixture_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/owlv2")
}

fn network(dir: &Path, quantize: Quantize) -> Owlv2Network {
    let config: Config = read_json(&dir.join("config.json")).unwrap();
    config.validate().unwrap();
    let mut checkpoint = Checkpoint::open(dir, &Device::Cpu).unwrap();
    checkpoint.quantize(quantize, "cpu").unwrap();
    let network = Owlv2Network::new(&checkpoint.root(), config, &Device::Cpu).unwrap();
    checkpoint.finish().unwrap();
    network
}

/// Ids as the model takes them: without padding, cut to 16.
fn token_ids(dir: &Path, text: &str) -> Vec<u32> {
    let mut tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    let truncation = tokenizers::TruncationParams { max_length: 16, ..Default::default() };
    tokenizer.with_truncation(Some(truncation)).unwrap();
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

fn text_embeds(network: &Owlv2Network, dir: &Path, texts: &[String]) -> Tensor {
    let embed = |text: &String| network.encode_text(&token_ids(dir, text), &Device::Cpu).unwrap();
    Tensor::cat(&texts.iter().map(embed).collect::<Vec<_>>(), 0).unwrap()
}

/// Compares everything on every image with the expectations in `dir`.
fn check_network(dir: &Path) {
    let (network, expected, cases) =
        (network(dir, Quantize::None), expected(dir), read_json::<Cases>(&dir.join("cases.json")).unwrap());
    let side = network.config().vision_config.image_size;
    let processor = SquareImageProcessor::open(dir, side).unwrap();
    let texts = text_embeds(&network, dir, &cases.texts);
    for (i, &(width, height, seed)) in cases.images.iter().enumerate() {
        let compare = |name: &str, got: &Tensor| {
            let name = format!("image{i}.{name}");
            let worst = deviation(got, &expected[&name], &name);
            println!("{name}: {worst:.1e}");
            assert!(worst <= TOLERANCE, "{name} differs by {worst:e}");
        };
        let pixels = processor.process(&make_image(width, height, seed), &Device::Cpu).unwrap();
        compare("pixels", &pixels);
        let features = network.encode_image(&pixels).unwrap();
        compare("text_embeds", &texts);
        compare("patch_features", &features.patch_features);
        compare("boxes", &features.boxes);
        compare("objectness", &features.objectness);
        compare("logits", &network.class_logits(&features, &texts).unwrap());
        compare("contrastive_logits", &network.contrastive_logits(&features, &texts).unwrap());
        let example = if dir == fixture_dir() {
            make_image(40 + i as u32, 40, 90 + i as i64)
        } else {
            make_image(200, 300, 4)
        };
        let example = network.encode_image(&processor.process(&example, &Device::Cpu).unwrap()).unwrap();
        let (query, _) = network.image_query(&example).unwrap();
        compare("guided_logits", &network.class_logits(&features, &query).unwrap());
    }
}

#[test]
fn towers_and_heads_match_on_images_of_odd_sizes_one_after_the_other() {
    check_network(&fixture_dir());
}

#[test]
#[ignore = "needs a full-size checkpoint made by tests/parity/owlv2_reference.py --full-size"]
fn the_full_base_size_matches() {
    check_network(Path::new(&std::env::var("LG_OWLV2_FULL_SIZE").unwrap()));
}

/// What fewer bits change: relative RMS deviation of the logits, and the boxes' edges.
fn check_fewer_bits(dir: &Path) {
    let (expected, cases) = (expected(dir), read_json::<Cases>(&dir.join("cases.json")).unwrap());
    for (quantize, limit) in [(Quantize::Bf16, 0.03), (Quantize::Int8, 0.08)] {
        if quantize == Quantize::Bf16 && !Precision::Bf16.is_supported() {
            println!("bf16: this processor has no instructions for it");
            continue;
        }
        let network = network(dir, quantize);
        let processor = SquareImageProcessor::open(dir, network.config().vision_config.image_size).unwrap();
        let texts = text_embeds(&network, dir, &cases.texts);
        for (i, &(width, height, seed)) in cases.images.iter().enumerate() {
            let pixels = processor.process(&make_image(width, height, seed), &Device::Cpu).unwrap();
            let features = network.encode_image(&pixels).unwrap();
            let logits = network.class_logits(&features, &texts).unwrap();
            let reference = &expected[&format!("image{i}.logits")];
            let rms = |it: &Tensor| {
                it.sqr().unwrap().mean_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap()
            };
            let relative = rms(&(logits - reference).unwrap()) / rms(reference);
            let boxes = deviation(&features.boxes, &expected[&format!("image{i}.boxes")], "boxes");
            println!("{} image{i}: logits {:.3} % RMS, boxes {boxes:.1e}", quantize.name(), 100.0 * relative);
            assert!(relative < limit && boxes < limit, "{}: {relative}, boxes {boxes}", quantize.name());
        }
    }
}

#[test]
fn with_fewer_bits_scores_and_boxes_stay_close() {
    check_fewer_bits(&fixture_dir());
}

#[test]
#[ignore = "needs a full-size checkpoint made by tests/parity/owlv2_reference.py --full-size"]
fn with_fewer_bits_the_full_base_size_stays_close() {
    check_fewer_bits(Path::new(&std::env::var("LG_OWLV2_FULL_SIZE").unwrap()));
}

#[test]
fn images_are_padded_and_resized_alike() {
    let processor = SquareImageProcessor::open(&fixture_dir(), 48).unwrap();
    let mut n_compared = 0;
    for (name, reference) in expected(&fixture_dir()) {
        let Some(size) = name.strip_prefix("pixels.") else { continue };
        let (width, height) = size.split_once('x').unwrap();
        let image = make_image(width.parse().unwrap(), height.parse().unwrap(), 5);
        let worst = deviation(&processor.process(&image, &Device::Cpu).unwrap(), &reference, &name);
        assert!(worst <= 1e-5, "{name} differs by {worst:e}");
        n_compared += 1;
    }
    assert_eq!(n_compared, 6);
}

#[test]
fn texts_are_tokenized_alike() {
    let cases: Cases = read_json(&fixture_dir().join("cases.json")).unwrap();
    for (text, ids) in cases.texts.iter().zip(&cases.ids) {
        assert_eq!(token_ids(&fixture_dir(), text), *ids, "{text:?}");
    }
    assert_eq!(cases.ids.last().unwrap().len(), 16, "the long text is cut");
}

#[test]
fn a_loaded_model_detects_with_the_references_scores_and_boxes_in_pixels() {
    let (dir, mut model) = (fixture_dir(), load(&fixture_dir(), &ModelOptions::on("cpu")).unwrap());
    let expected = expected(&dir);
    let cases: Cases = read_json(&dir.join("cases.json")).unwrap();
    // Twice each, so that cached features answer too.
    for (i, &(width, height, seed)) in cases.images.iter().enumerate().chain(cases.images.iter().enumerate())
    {
        let pixels = make_image(width, height, seed);
        let image = KeyedImage::whole(i as u64, &pixels);
        let text = cases.texts.join(";");
        let task = RawTask { name: "detect", text: Some(&text), threshold: 0.0, ..RawTask::default() };
        let output = model.raw_task(image, &task).unwrap();
        let boxes = output.parsed.as_array().unwrap();
        assert_eq!(boxes.len(), 36, "every patch has a box");
        let logits: Vec<Vec<f32>> =
            expected[&format!("image{i}.logits")].squeeze(0).unwrap().to_vec2().unwrap();
        let best = |row: &Vec<f32>| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let top = (0..logits.len()).max_by(|&a, &b| best(&logits[a]).total_cmp(&best(&logits[b]))).unwrap();
        let score = f64::from(1.0 / (1.0 + (-best(&logits[top])).exp()));
        assert!((boxes[0]["score"].as_f64().unwrap() - score).abs() < 1e-4);
        let cxcywh: Vec<Vec<f32>> =
            expected[&format!("image{i}.boxes")].squeeze(0).unwrap().to_vec2().unwrap();
        let (side, patch) = (f64::from(width.max(height)), &cxcywh[top]);
        let x0 = (f64::from(patch[0]) - 0.5 * f64::from(patch[2])) * side;
        assert!((boxes[0]["bbox"][0].as_f64().unwrap() - x0).abs() < 1e-3 * side);
        let falling: Vec<f64> = boxes.iter().map(|it| it["score"].as_f64().unwrap()).collect();
        assert!(falling.windows(2).all(|pair| pair[0] >= pair[1]));
    }
}

#[test]
fn phrases_get_lists_of_their_own_inside_the_image() {
    let mut model = load(&fixture_dir(), &ModelOptions::on("cpu")).unwrap();
    let pixels = make_image(90, 40, 2);
    let image = KeyedImage::whole(1, &pixels);
    let found = model.ground(image, &["red cup", "laptop"]).unwrap();
    assert_eq!(found.len(), 2);
    for (phrase, detections) in ["red cup", "laptop"].iter().zip(&found) {
        for detection in detections {
            assert_eq!(detection.phrase, *phrase);
            let [x0, y0, x1, y1] = <[f64; 4]>::from(detection.bbox);
            assert!(0.0 <= x0 && x0 < x1 && x1 <= 90.0 && 0.0 <= y0 && y0 < y1 && y1 <= 40.0);
        }
    }
    assert!(found.iter().any(|it| !it.is_empty()));
    assert!(model.ground(image, &[" "]).is_err());
    assert!(model.caption(image, None).is_err(), "a detector has no words");
    let task = RawTask { name: "image_guided", example: Some(&pixels), ..RawTask::default() };
    assert!(!model.raw_task(image, &task).unwrap().parsed.as_array().unwrap().is_empty());
    assert!(model.raw_task(image, &RawTask { name: "image_guided", ..RawTask::default() }).is_err());
}

/// A copy of the fixture's model directory with something changed; the error that loading it gives.
fn load_error(name: &str, change: impl FnOnce(&Path)) -> String {
    let dir = std::env::temp_dir().join(format!("owlv2_parity_{}_{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(fixture_dir().join(file), dir.join(file)).unwrap();
    }
    change(&dir);
    let error = load(&dir, &ModelOptions::on("cpu")).map(|_| ()).unwrap_err().to_string();
    std::fs::remove_dir_all(dir).unwrap();
    error
}

#[test]
fn released_checkpoints_are_consumed_to_the_last_tensor() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/owlv2_tensors.json.gz");
    let file = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
    let all: BTreeMap<String, Released> = serde_json::from_reader(file).unwrap();
    assert_eq!(all.len(), 2);
    for (name, Released { config, tensors }) in all {
        config.validate().unwrap();
        let load = |tensors: BTreeMap<String, Vec<usize>>| {
            let checkpoint = Checkpoint::of_shapes(tensors);
            Owlv2Network::new(&checkpoint.root(), config.clone(), &Device::Cpu)?;
            checkpoint.finish()
        };
        load(tensors.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (i, tensor) in tensors.keys().enumerate().step_by(40) {
            let mut fewer = tensors.clone();
            fewer.remove(tensor);
            let error = load(fewer).unwrap_err().to_string();
            assert!(error.contains(&format!("{tensor:?}")) && error.contains("is missing"), "{error}");
            let mut turned = tensors.clone();
            turned.get_mut(tensor).unwrap().push(2 + i);
            let error = load(turned).unwrap_err().to_string();
            assert!(error.contains(&format!("{tensor:?}")) && error.contains("expected shape"), "{error}");
        }
        println!("{name}: {} tensors", tensors.len());
    }
}

#[track_caller]
fn check_error(error: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn wrong_checkpoints_are_refused_with_what_was_expected() {
    let edit = |file: &'static str, edit: fn(&mut Value)| {
        move |dir: &Path| {
            let mut value: Value = read_json(&dir.join(file)).unwrap();
            edit(&mut value);
            std::fs::write(dir.join(file), value.to_string()).unwrap();
        }
    };
    check_error(
        &load_error("hidden", edit("config.json", |it| it["vision_config"]["hidden_size"] = 96.into())),
        &["owlv2.vision_model", "expected shape", "96", "48"],
    );
    check_error(
        &load_error("layers", edit("config.json", |it| it["text_config"]["num_hidden_layers"] = 1.into())),
        &["not part of the model", "owlv2.text_model.encoder.layers.1"],
    );
    check_error(
        &load_error("act", edit("config.json", |it| it["text_config"]["hidden_act"] = "relu".into())),
        &["config.json", "hidden_act", "relu"],
    );
    check_error(
        &load_error("size", edit("preprocessor_config.json", |it| it["size"]["width"] = 64.into())),
        &["preprocessor_config.json", "48x48", "64x48"],
    );
    check_error(
        &load_error("vocab", edit("config.json", |it| it["text_config"]["vocab_size"] = 10.into())),
        &["tokenizer.json", "vocab_size 10"],
    );
}
