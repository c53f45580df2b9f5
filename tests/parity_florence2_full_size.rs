//! Florence-2 at full size against transformers, on a random checkpoint that `tests/parity/florence2_full_size.py` writes
//! (the command is there). Ignored by default: it needs that checkpoint and some minutes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod parity_support;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use language_grounding::model::candle::florence2::config::Config;
use language_grounding::model::candle::florence2::network::Florence2Network;
use language_grounding::model::candle::florence2::tokenizer::FlorenceTokenizer;
use language_grounding::model::candle::florence2::trace::Trace;
use language_grounding::model::candle::loading::{Checkpoint, read_json};
use language_grounding::model::registry::load;
use language_grounding::model::{KeyedImage, ModelOptions, Quantize, RawTask};
use parity_support::make_image;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    decoder_ids: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    seed: i64,
    greedy: Vec<u32>,
    beams: Vec<u32>,
}

fn dir() -> PathBuf {
    PathBuf::from(
        std::env::var("FLORENCE2_FULL_SIZE").expect("FLORENCE2_FULL_SIZE=DIR, see the module's first lines"),
    )
}

fn open(dir: &Path, quantize: Quantize) -> (FlorenceTokenizer, Florence2Network) {
    let config = Config::open(&dir.join("config.json")).unwrap();
    let tokenizer =
        FlorenceTokenizer::open(dir, config.image_token_id, config.text_config.vocab_size).unwrap();
    let mut checkpoint = Checkpoint::open(dir, &Device::Cpu).unwrap();
    checkpoint.quantize(quantize, "cpu").unwrap();
    let network = Florence2Network::new(&checkpoint.root(), config).unwrap();
    checkpoint.finish().unwrap();
    (tokenizer, network)
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
#[ignore = "needs a checkpoint of full size"]
fn full_size_agrees_with_transformers() {
    let dir = dir();
    let expected: Expected = read_json(&dir.join("expected.json")).unwrap();
    let tensors = parity_support::expected(&dir);
    {
        let (tokenizer, network) = open(&dir, Quantize::None);
        println!("{:10} {:>12} {:>12} {:>12}", "output", "largest", "abs. diff.", "rel. diff.");
        for case in &expected.cases {
            let show = |name: &str, got: &Tensor, limit: f32| {
                let reference = &tensors[&format!("{}.{name}", case.seed)];
                let difference = largest(&(got - reference).unwrap());
                let largest = largest(reference);
                println!("{name:10} {largest:12.3} {difference:12.1e} {:12.1e}", difference / largest);
                assert!(difference <= limit, "{name} differs by {difference:e}");
            };
            let mut last = None;
            let mut keep = |name: &str, tensor: &Tensor| {
                if name == "vision.blocks.3.0.channel_block" {
                    last = Some(tensor.clone());
                }
            };
            let pixels = &tensors[&format!("{}.pixels", case.seed)];
            let features = network.encode_image(pixels, &mut Trace::to(&mut keep)).unwrap();
            show("vision", &last.unwrap(), 5e-3);
            let prompt = tokenizer.encode_prompt(&case.prompt).unwrap();
            let encoded = network.encode(&features, &[prompt], &mut Trace::off()).unwrap();
            show("encoder", &encoded.states, 5e-4);
            let mut cache = network.start_decoding(&encoded, 0, 1, 32).unwrap();
            let logits = network.decode(&mut cache, &expected.decoder_ids, &mut Trace::off()).unwrap();
            show("logits", &logits, 5e-4);
        }
    }
    let mut model = load(&dir, &ModelOptions::on("cpu")).unwrap();
    for case in &expected.cases {
        let image = make_image(640, 480, case.seed);
        let text = case.prompt.strip_prefix("Locate ").and_then(|it| it.strip_suffix(" in the image."));
        let name = if text.is_some() { "OPEN_VOCABULARY_DETECTION" } else { "CAPTION" };
        for (n_beams, ids) in [(1, &case.greedy), (3, &case.beams)] {
            let task = RawTask { name, text, n_beams, ..RawTask::default() };
            let got = model.raw_task(KeyedImage::whole(case.seed as u64, &image), &task).unwrap();
            assert_eq!(got.token_ids, *ids, "{:?} with {n_beams} beams", case.prompt);
        }
    }
    println!("{} answers token-exact, greedy and with 3 beams", expected.cases.len());
}

/// What smaller weights change, on random weights: distances to the f32 numbers, and how far greedy answers stay the same.
#[test]
#[ignore = "needs a checkpoint of full size"]
fn full_size_with_smaller_weights_stays_close() {
    for quantize in [Quantize::Bf16, Quantize::Int8] {
        println!("{}", quantize.name());
        stays_close(quantize);
    }
}

fn stays_close(quantize: Quantize) {
    let dir = dir();
    let expected: Expected = read_json(&dir.join("expected.json")).unwrap();
    let tensors = parity_support::expected(&dir);
    let (tokenizer, network) = open(&dir, quantize);
    for case in &expected.cases {
        let pixels = &tensors[&format!("{}.pixels", case.seed)];
        let features = network.encode_image(pixels, &mut Trace::off()).unwrap();
        let prompt = tokenizer.encode_prompt(&case.prompt).unwrap();
        let encoded = network.encode(&features, &[prompt], &mut Trace::off()).unwrap();
        let mut cache = network.start_decoding(&encoded, 0, 1, 32).unwrap();
        let logits = network.decode(&mut cache, &expected.decoder_ids, &mut Trace::off()).unwrap();
        for (name, got) in [("encoder", &encoded.states), ("logits", &logits)] {
            let reference = &tensors[&format!("{}.{name}", case.seed)];
            let rms = |it: &Tensor| {
                it.sqr().unwrap().mean_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap()
            };
            let relative = rms(&(got - reference).unwrap()) / rms(reference);
            println!("{name}: relative RMS deviation {:.2} %", 100.0 * relative);
            assert!(relative < 0.1, "{name}");
        }
        let best = |it: &Tensor| it.argmax(2).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
        let reference = &tensors[&format!("{}.logits", case.seed)];
        println!("most probable tokens: {:?}, in f32 {:?}", best(&logits), best(reference));
    }
}

/// Every task on images of every size. `FLORENCE2_IMAGES=N` sets how many (1000 without), `FLORENCE2_SEED` which, `FLORENCE2_QUANTIZE`
/// with which weights. On standard error it counts them: what was run before it was stopped, was run.
#[test]
#[ignore = "needs a checkpoint of full size, and hours for all 1000 images"]
fn full_size_survives_every_task_on_random_images() {
    let n_images = std::env::var("FLORENCE2_IMAGES").map_or(1000, |n| n.parse().unwrap());
    let seed = std::env::var("FLORENCE2_SEED").map_or(11, |seed| seed.parse().unwrap());
    let quantize =
        std::env::var("FLORENCE2_QUANTIZE").map_or(Quantize::None, |name| Quantize::by_name(&name).unwrap());
    let mut model = load(&dir(), &ModelOptions { quantize, ..ModelOptions::default() }).unwrap();
    let n_calls = parity_support::run_all_tasks(&mut *model, n_images, seed, 1);
    println!("{n_calls} calls on {n_images} images without a panic");
}
