//! CLIP and SigLIP against transformers on tiny random checkpoints, from image bytes and texts to logits.
//!
//! `tests/parity/verifiers_reference.py` made the checkpoints and the expected values.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod parity_support;

use std::path::{Path, PathBuf};

use language_grounding::model::candle::loading::read_json;
use language_grounding::model::registry::{load, require};
use language_grounding::model::{KeyedImage, Model, ModelError, ModelOptions, RawTask, Role};
use parity_support::{edit_json, make_image};
use serde::Deserialize;

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Cases {
    texts: Vec<String>,
    images: Vec<Compared>,
}

#[derive(Deserialize)]
struct Compared {
    size: (u32, u32),
    seed: i64,
    cosines: Vec<f32>,
    logits: Vec<f32>,
}

fn fixture_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity").join(name)
}

fn load_as_verifier(dir: &Path, device: &str) -> Result<Box<dyn Model>, ModelError> {
    let mut model = load(dir, &ModelOptions::on(device))?;
    require(&dir.display().to_string(), model.as_mut(), Role::Verifier)?;
    Ok(model)
}

#[test]
fn cosines_and_logits_match_on_images_of_odd_sizes() {
    for name in ["clip", "siglip"] {
        let dir = fixture_dir(name);
        let mut loaded = load_as_verifier(&dir, "cpu").unwrap();
        let verifier = loaded.verifier().unwrap();
        let mut model = load(&dir, &ModelOptions::on("cpu")).unwrap();
        let cases: Cases = read_json(&dir.join("cases.json")).unwrap();
        let mut worst = 0.0f32;
        for case in &cases.images {
            let image = make_image(case.size.0, case.size.1, case.seed);
            let embedded = verifier.embed_image(&image).unwrap();
            assert!((embedded.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
            for ((text, cosine), logit) in cases.texts.iter().zip(&case.cosines).zip(&case.logits) {
                let got: f32 =
                    embedded.iter().zip(verifier.embed_text(text).unwrap()).map(|(a, b)| a * b).sum();
                worst = worst
                    .max((got - cosine).abs())
                    .max((verifier.logit(got) - logit).abs() / logit.abs().max(1.0));
            }
            let task = RawTask { name: "verify", text: Some(&cases.texts.join(";")), ..RawTask::default() };
            let told = model.raw_task(KeyedImage::whole(0, &image), &task).unwrap().parsed;
            let probabilities: Vec<f64> =
                told.as_array().unwrap().iter().map(|it| it["probability"].as_f64().unwrap()).collect();
            let sum: f64 = probabilities.iter().sum();
            assert!(name == "siglip" || (sum - 1.0).abs() < 1e-5, "CLIP compares the texts with each other");
            assert!(probabilities.iter().all(|it| (0.0..=1.0).contains(it)));
        }
        println!("{name}: {} images, {} texts, worst {worst:.1e}", cases.images.len(), cases.texts.len());
        assert!(worst <= TOLERANCE, "{name} differs by {worst:e}");
    }
}

/// A copy of a fixture with something changed; the error that loading it gives.
fn load_error(name: &str, change: impl FnOnce(&Path)) -> String {
    let dir = std::env::temp_dir().join(format!(
        "verifier_parity_{}_{:?}_{name}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&dir).unwrap();
    for file in ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(fixture_dir(name).join(file), dir.join(file)).unwrap();
    }
    change(&dir);
    let error = load_as_verifier(&dir, "cpu").map(|_| ()).unwrap_err().to_string();
    std::fs::remove_dir_all(dir).unwrap();
    error
}

#[test]
fn wrong_checkpoints_are_refused_with_what_was_expected() {
    #[rustfmt::skip]
    let cases: [(&str, &str, &str, serde_json::Value, &str); 5] = [
        ("clip", "config.json", "/text_config/hidden_size", 64.into(), "text_model.embeddings.token_embedding.weight\": expected shape"),
        ("clip", "config.json", "/vision_config/num_hidden_layers", 1.into(), "not part of the model"),
        ("clip", "config.json", "/vision_config/hidden_act", "gelu".into(), "hidden_act \"quick_gelu\""),
        ("clip", "preprocessor_config.json", "/crop_size", 16.into(), "the image_size of config.json"),
        ("siglip", "config.json", "/vision_config/num_hidden_layers", 3.into(), "is missing"),
    ];
    for (name, file, pointer, value, expected) in cases {
        let error = load_error(name, |dir| {
            edit_json(&dir.join(file), |it| *it.pointer_mut(pointer).unwrap() = value);
        });
        assert!(error.contains(expected), "{name} {pointer}: expected {expected:?} in: {error}");
    }
}

#[test]
fn a_checkpoint_without_its_scale_is_refused() {
    for (name, scalar) in [("clip", "logit_scale"), ("siglip", "logit_scale"), ("siglip", "logit_bias")] {
        let error = load_error(name, |dir| {
            let path = dir.join("model.safetensors");
            let mut tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
            tensors.remove(scalar).unwrap();
            candle_core::safetensors::save(&tensors, path).unwrap();
        });
        assert!(error.contains(scalar) && error.contains("is missing"), "{name}: {error}");
    }
}

#[test]
fn a_grounder_is_no_verifier_and_a_verifier_no_grounder() {
    let error = load_as_verifier(&fixture_dir("owlv2"), "cpu").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("\"owlv2\"") && error.contains("clip, siglip"), "{error}");
    let mut model = load(&fixture_dir("clip"), &ModelOptions::on("cpu")).unwrap();
    let image = make_image(20, 20, 1);
    let error = model.ground(KeyedImage::whole(0, &image), &["cup"]).unwrap_err().to_string();
    assert!(error.contains("verifier"), "{error}");
}
