//! Florence-2 against transformers, layer by layer, on a tiny random checkpoint.
//!
//! `tests/parity/florence2_reference.py` made the checkpoint and the expected values. The tolerance is 1e-4 of a
//! tensor's largest value (or of 1, if that is larger); a failure names the first layer that differs.

#![allow(
    clippy::unwrap_used,
    clippy::manual_midpoint,
    reason = "helpers of tests; formulas as in the reference script"
)]

mod parity_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use language_grounding::image::RgbImage;
use language_grounding::model::candle::florence2::config::Config;
use language_grounding::model::candle::florence2::network::{Florence2Network, ImageFeatures};
use language_grounding::model::candle::florence2::processor::{Answer, Task};
use language_grounding::model::candle::florence2::tokenizer::FlorenceTokenizer;
use language_grounding::model::candle::florence2::trace::Trace;
use language_grounding::model::candle::loading::{Checkpoint, read_json};
use language_grounding::model::candle::preprocess::resize_bicubic;
use language_grounding::model::candle::tabletop::config::DenseHeadConfig;
use language_grounding::model::candle::tabletop::dense_head::{DenseHead, compare};
use language_grounding::model::registry::load;
use language_grounding::model::{KeyedImage, Model, ModelOptions, RawTask};
use parity_support::{deviation, edit_json, fixture_dir, make_image, model_dir};
use serde::Deserialize;
use serde_json::Value;

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Cases {
    decoder_ids: Vec<u32>,
    prompts: Vec<String>,
    resized: Vec<(u32, u32)>,
    decoded: Vec<Decoded>,
    answers: Vec<ParsedAnswer>,
    tokenized: Vec<Tokenized>,
}

#[derive(Deserialize)]
struct Decoded {
    width: u32,
    height: u32,
    seed: i64,
    prompt: String,
    greedy: Vec<u32>,
    greedy_free: Vec<u32>,
    greedy_log_probs: Vec<f32>,
    beams: Vec<u32>,
    #[expect(dead_code, reason = "raw tasks give no score of a beam")]
    beams_score: f32,
}

/// Of seeds.json, by `tests/parity/florence2_seeds_reference.py`.
#[derive(Deserialize)]
struct SeedCase {
    width: u32,
    height: u32,
    seed: i64,
    prompt: String,
    greedy: Vec<u32>,
    beams: Vec<u32>,
}

#[derive(Deserialize)]
struct ParsedAnswer {
    task: String,
    text: String,
    parsed: Value,
}

#[derive(Deserialize)]
struct Tokenized {
    prompt: String,
    ids: Vec<u32>,
}

fn cases() -> Cases {
    read_json(&fixture_dir().join("cases.json")).unwrap()
}

fn expected() -> BTreeMap<String, Tensor> {
    parity_support::expected(&fixture_dir())
}

fn network() -> Florence2Network {
    network_and_head().0
}

fn network_and_head() -> (Florence2Network, DenseHead) {
    let path = fixture_dir().join("config.json");
    let (config, head) = (Config::open(&path).unwrap(), DenseHeadConfig::open(&path).unwrap());
    let checkpoint = Checkpoint::open(&fixture_dir(), &Device::Cpu).unwrap();
    let head = DenseHead::new(&checkpoint.root().at("grounding_head"), &config, head.embed_dim).unwrap();
    let network = Florence2Network::new(&checkpoint.root(), config).unwrap();
    checkpoint.finish().unwrap();
    (network, head)
}

fn tokenizer(network: &Florence2Network) -> FlorenceTokenizer {
    let config = network.config();
    FlorenceTokenizer::open(&fixture_dir(), config.image_token_id, config.text_config.vocab_size).unwrap()
}

/// Compares everything the network shows with the expected tensors under `prefix`; returns how many and the worst.
struct Comparison<'a> {
    expected: &'a BTreeMap<String, Tensor>,
    prefix: String,
    n_compared: usize,
    worst: f32,
}

impl<'a> Comparison<'a> {
    fn new(expected: &'a BTreeMap<String, Tensor>, prefix: String) -> Self {
        Self { expected, prefix, n_compared: 0, worst: 0.0 }
    }

    fn compare(&mut self, layer: &str, got: &Tensor) {
        let Some(expected) = self.expected.get(&format!("{}.{layer}", self.prefix)) else { return };
        let worst = deviation(got, expected, &format!("{}.{layer}", self.prefix));
        assert!(worst <= TOLERANCE, "{}.{layer} differs by {worst:e}", self.prefix);
        self.n_compared += 1;
        self.worst = self.worst.max(worst);
    }
}

#[test]
fn every_layer_matches_on_images_of_odd_sizes_one_after_the_other() {
    let ((network, head), expected, cases) = (network_and_head(), expected(), cases());
    let tokenizer = tokenizer(&network);
    for image in 0..2 {
        for (p, prompt) in cases.prompts.iter().enumerate() {
            let mut comparison = Comparison::new(&expected, format!("image{image}.prompt{p}"));
            let pixels = &expected[&format!("image{image}.prompt0.pixels")];
            let mut show = |layer: &str, tensor: &Tensor| comparison.compare(layer, tensor);
            let mut trace = Trace::to(&mut show);
            let features = network.encode_image(pixels, &mut trace).unwrap();
            let ids = tokenizer.encode_prompt(prompt).unwrap();
            let encoded = network.encode(&features, std::slice::from_ref(&ids), &mut trace).unwrap();
            let mut cache = network.start_decoding(&encoded, 0, 1, 32).unwrap();
            network.decode(&mut cache, &cases.decoder_ids, &mut trace).unwrap();
            let phrase = head.phrase(&network.encode_text(&ids).unwrap()).unwrap();
            let dense = compare(&head.cells(features.map()).unwrap(), &[phrase]).unwrap();
            comparison.compare("dense.logits", &dense.logits);
            comparison.compare("dense.distances", &dense.distances);
            let n_expected = if p == 0 { 4 + 2 * 5 + 2 + 2 + 2 + 1 + 2 } else { 4 };
            assert_eq!(comparison.n_compared, n_expected, "layers compared");
            println!("image {image} prompt {p}: {n_expected} layers, worst {:.1e}", comparison.worst);
        }
    }
}

fn features(network: &Florence2Network, expected: &BTreeMap<String, Tensor>, image: usize) -> ImageFeatures {
    let pixels = &expected[&format!("image{image}.prompt0.pixels")];
    network.encode_image(pixels, &mut Trace::off()).unwrap()
}

#[test]
fn a_padded_batch_of_prompts_equals_single_prompts() {
    let ((network, head), expected, cases) = (network_and_head(), expected(), cases());
    let tokenizer = tokenizer(&network);
    let prompts: Vec<_> = cases.prompts.iter().map(|it| tokenizer.encode_prompt(it).unwrap()).collect();
    for image in 0..2 {
        let features = features(&network, &expected, image);
        let encoded = network.encode(&features, &prompts, &mut Trace::off()).unwrap();
        let phrase = |ids: &Vec<u32>| head.phrase(&network.encode_text(ids).unwrap()).unwrap();
        let phrases: Vec<_> = prompts.iter().map(phrase).collect();
        let dense = compare(&head.cells(features.map()).unwrap(), &phrases).unwrap();
        for (p, prompt) in prompts.iter().enumerate() {
            let mut comparison = Comparison::new(&expected, format!("image{image}.prompt{p}"));
            let row = |tensor: &Tensor| tensor.narrow(0, p, 1).unwrap();
            let length = features.n_tokens() + prompt.len();
            comparison.compare("encoder.layers.1", &row(&encoded.states).narrow(1, 0, length).unwrap());
            comparison.compare("dense.logits", &row(&dense.logits));
            comparison.compare("dense.distances", &dense.distances);
            let mut cache = network.start_decoding(&encoded, p, 1, 32).unwrap();
            let logits = network.decode(&mut cache, &cases.decoder_ids, &mut Trace::off()).unwrap();
            comparison.compare("logits", &logits);
            assert_eq!(comparison.n_compared, 4);
        }
    }
}

#[test]
fn decoding_token_by_token_and_with_beams_equals_one_pass() {
    let (network, expected, cases) = (network(), expected(), cases());
    let tokenizer = tokenizer(&network);
    let prompt = tokenizer.encode_prompt(&cases.prompts[2]).unwrap();
    let encoded = network.encode(&features(&network, &expected, 0), &[prompt], &mut Trace::off()).unwrap();
    let reference = &expected["image0.prompt2.logits"];
    let mut cache = network.start_decoding(&encoded, 0, 2, cases.decoder_ids.len()).unwrap();
    for (step, &id) in cases.decoder_ids.iter().enumerate() {
        // The second beam says something else, then is replaced by the first.
        let second = if step < 3 { 5 } else { id };
        if step == 3 {
            cache.reorder(&[0, 0]).unwrap();
        }
        let logits = network.decode(&mut cache, &[id, second], &mut Trace::off()).unwrap();
        let expected = reference.narrow(1, step, 1).unwrap();
        for beam in 0..2 {
            let same = beam == 0 || step >= 3;
            let worst = deviation(&logits.narrow(0, beam, 1).unwrap(), &expected, "logits");
            assert!(!same || worst <= TOLERANCE, "step {step} beam {beam} differs by {worst:e}");
        }
    }
    assert!(network.decode(&mut cache, &[1, 1], &mut Trace::off()).is_err(), "the cache is full");
}

#[test]
fn resizing_gives_pillows_bytes() {
    let expected = expected();
    for (width, height) in cases().resized {
        let reference: Vec<u8> =
            expected[&format!("resized.{width}x{height}")].flatten_all().unwrap().to_vec1().unwrap();
        let got = resize_bicubic(&make_image(width, height, 5), 72, 72).unwrap();
        let n_different = got.iter().zip(&reference).filter(|(a, b)| a != b).count();
        assert_eq!((got.len(), n_different), (reference.len(), 0), "{width}x{height}");
    }
}

#[test]
fn prompts_are_tokenized_alike() {
    let network = network();
    let tokenizer = tokenizer(&network);
    for case in cases().tokenized {
        assert_eq!(tokenizer.encode_prompt(&case.prompt).unwrap(), case.ids, "{:?}", case.prompt);
    }
}

/// The task whose sentence the reference sent, and its text.
fn task_of(prompt: &str) -> (&'static str, Option<&str>) {
    if prompt == "What does the image describe?" {
        return ("CAPTION", None);
    }
    let inner = |before, after| prompt.strip_prefix(before).and_then(|rest: &str| rest.strip_suffix(after));
    if let Some(phrase) = inner("Locate ", " in the image.") {
        return ("<OPEN_VOCABULARY_DETECTION>", Some(phrase));
    }
    ("region_to_description", Some(inner("What does the region ", " describe?").unwrap()))
}

#[test]
fn greedy_decoding_and_beam_search_are_token_exact_from_image_bytes_to_ids() {
    let free = model_dir("free", |dir| {
        edit_json(&dir.join("generation_config.json"), |config| {
            config["no_repeat_ngram_size"] = 0.into();
            config["forced_bos_token_id"] = Value::Null;
        });
    });
    let mut model = load(&fixture_dir(), &ModelOptions::on("cpu")).unwrap();
    let stopping = model_dir("stopping", |dir| {
        edit_json(&dir.join("generation_config.json"), |config| config["early_stopping"] = true.into());
    });
    let mut beam_model = load(&stopping, &ModelOptions::on("cpu")).unwrap();
    let mut free_model = load(&free, &ModelOptions::on("cpu")).unwrap();
    let mut worst = 0.0f32;
    let cases = cases().decoded;
    assert!(cases.len() >= 100);
    for case in &cases {
        let image = make_image(case.width, case.height, case.seed);
        let image = KeyedImage::whole(case.seed as u64, &image);
        let (name, text) = task_of(&case.prompt);
        let run = |model: &mut dyn Model, n_beams| {
            model.raw_task(image, &RawTask { name, text, n_beams, ..RawTask::default() }).unwrap()
        };
        let got = run(&mut *model, 1);
        assert_eq!(got.prompt, case.prompt);
        let probabilities = (&got.log_probs, &case.greedy_log_probs);
        assert_eq!(got.token_ids, case.greedy, "seed {} {:?}: {probabilities:?}", case.seed, case.prompt);
        assert_eq!(run(&mut *free_model, 1).token_ids, case.greedy_free, "without rules, seed {}", case.seed);
        assert_eq!(
            run(&mut *beam_model, 3).token_ids,
            case.beams,
            "beams, seed {} {:?}",
            case.seed,
            case.prompt
        );
        assert_eq!(got.log_probs.len(), case.greedy_log_probs.len());
        for (got, expected) in got.log_probs.iter().zip(&case.greedy_log_probs) {
            worst = worst.max((got - expected).abs());
        }
    }
    assert!(worst < 1e-3, "log-probabilities differ by {worst}");
    println!("{} cases token-exact, log-probabilities within {worst:.1e}", cases.len());
    std::fs::remove_dir_all(free).unwrap();
    std::fs::remove_dir_all(stopping).unwrap();
}

#[test]
fn answers_about_a_hundred_more_images_are_token_exact() {
    let stopping = model_dir("more_stopping", |dir| {
        edit_json(&dir.join("generation_config.json"), |config| config["early_stopping"] = true.into());
    });
    let mut model = load(&stopping, &ModelOptions::on("cpu")).unwrap();
    let cases: Vec<SeedCase> = read_json(&fixture_dir().join("seeds.json")).unwrap();
    let n_seeds = cases.iter().map(|it| it.seed).collect::<BTreeSet<_>>().len();
    assert!(n_seeds >= 100, "{n_seeds} seeds");
    for case in &cases {
        let image = make_image(case.width, case.height, case.seed);
        let image = KeyedImage::whole(case.seed as u64, &image);
        let (name, text) = task_of(&case.prompt);
        for (n_beams, expected) in [(1, &case.greedy), (3, &case.beams)] {
            let got = model.raw_task(image, &RawTask { name, text, n_beams, ..RawTask::default() }).unwrap();
            assert_eq!(got.token_ids, *expected, "seed {} {:?} {n_beams}", case.seed, case.prompt);
        }
    }
    println!("{n_seeds} images token-exact, greedy and with 3 beams");
    std::fs::remove_dir_all(stopping).unwrap();
}

#[test]
fn answers_are_parsed_alike() {
    let cases = cases().answers;
    let mut n_regions = 0;
    for ParsedAnswer { task, text, parsed } in &cases {
        let answer = task.parse::<Task>().unwrap().parse(text, (640, 480), &[]);
        let ints = |values: &[f64]| Value::from(values.iter().map(|v| *v as i64).collect::<Vec<_>>());
        let list = |values: Vec<Value>| Value::from(values);
        let (regions, labels): (Vec<Value>, Vec<Value>) = match answer {
            Answer::Text(answer) => {
                assert_eq!(Value::from(answer), *parsed, "{task} {text:?}");
                continue;
            }
            Answer::Boxes(all) => {
                all.into_iter().map(|it| (ints(&<[f64; 4]>::from(it.bbox)), it.label.into())).unzip()
            }
            Answer::Quads(all) => all.into_iter().map(|it| (ints(&it.corners), it.text.into())).unzip(),
            Answer::Polygons(all) => all
                .into_iter()
                .map(|it| (list(it.polygons.iter().map(|it| ints(it)).collect()), it.label.into()))
                .unzip(),
        };
        n_regions += regions.len();
        // The reference names the lists differently for each task; at most one pair of them is filled.
        let all_of = |keys: [&str; 3]| {
            let filled = keys.iter().filter_map(|key| parsed[key].as_array());
            list(filled.max_by_key(|values| values.len()).cloned().unwrap_or_default())
        };
        assert_eq!(list(regions), all_of(["bboxes", "polygons", "quad_boxes"]), "{task} {text:?}");
        assert_eq!(list(labels), all_of(["labels", "bboxes_labels", "polygons_labels"]), "{task} {text:?}");
    }
    assert!(n_regions > 100, "only {n_regions} regions in the cases");
}

#[test]
fn f32_and_f16_files_give_the_same_answers() {
    let wide = model_dir("f32", |dir| {
        let path = dir.join("model.safetensors");
        let tensors: std::collections::HashMap<_, _> = candle_core::safetensors::load(&path, &Device::Cpu)
            .unwrap()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.to_dtype(candle_core::DType::F32).unwrap()))
            .collect();
        candle_core::safetensors::save(&tensors, path).unwrap();
    });
    let image = make_image(90, 60, 3);
    let image = KeyedImage::whole(1, &image);
    let ground = |dir: &Path| {
        load(dir, &ModelOptions::on("cpu")).unwrap().ground(image, &["red cup", "ball"]).unwrap()
    };
    assert_eq!(ground(&fixture_dir()), ground(&wide));
    std::fs::remove_dir_all(wide).unwrap();
}

#[test]
fn grounding_is_ordered_bounded_and_the_same_one_by_one() {
    let mut model = load(&fixture_dir(), &ModelOptions::on("cpu")).unwrap();
    for (key, (width, height)) in [(640, 480), (1, 1), (33, 900), (3000, 17)].into_iter().enumerate() {
        let pixels = make_image(width, height, 3);
        let image = KeyedImage::whole(key as u64, &pixels);
        let phrases = ["red cup", "a very green bottle to the left", "x"];
        let all = model.ground(image, &phrases).unwrap();
        assert_eq!(all.len(), phrases.len());
        for (phrase, detections) in phrases.iter().zip(&all) {
            let alone = model.ground(image, &[phrase]).unwrap().remove(0);
            assert_eq!(alone.len(), detections.len());
            assert!(!detections.is_empty() && detections.len() <= 64, "{} boxes", detections.len());
            for (i, (one, other)) in detections.iter().zip(&alone).enumerate() {
                assert!((one.score - other.score).abs() < 1e-5 && one.bbox.iou(&other.bbox) > 0.999);
                assert!((0.05..=1.0).contains(&one.score) && one.phrase == *phrase);
                assert!(i == 0 || detections[i - 1].score >= one.score);
                let bbox = one.bbox;
                let edges = [
                    0.0 <= bbox.x0,
                    bbox.x1 <= f64::from(width),
                    0.0 <= bbox.y0,
                    bbox.y1 <= f64::from(height),
                ];
                assert!(edges.iter().all(|inside| *inside) && bbox.area() > 0.0, "{bbox:?}");
            }
        }
    }
}

#[test]
fn words_that_cannot_be_used_are_refused_and_others_never_break_the_model() {
    let mut model = load(&fixture_dir(), &ModelOptions::on("cpu")).unwrap();
    let pixels = make_image(64, 48, 1);
    let image = KeyedImage::whole(1, &pixels);
    for phrase in ["", "  ", "<>", &"cup ".repeat(25_000)] {
        let error = model.ground(image, &[phrase]).unwrap_err().to_string();
        assert!(error.contains("words") || error.contains("shorter"), "{error}");
    }
    for phrase in ["</s><image><loc_3>", "杯子", "\u{0}\u{1}", "é ü ß"] {
        assert_eq!(model.ground(image, &[phrase]).unwrap().len(), 1);
    }
    assert_eq!(model.ground(image, &[]).unwrap(), Vec::<Vec<_>>::new());
    let region =
        language_grounding::detection::BoundingBox2d { x0: -5.0, y0: 1e9, x1: f64::INFINITY, y1: -3.0 };
    for region in [None, Some(region)] {
        model.caption(image, region).unwrap();
    }
    assert!(model.answer(image, "What color is the cup?").is_ok());
    assert!(model.raw_task(image, &RawTask { name: "VQA", n_beams: 1, ..RawTask::default() }).is_err());
    let empty = RgbImage::new(0, 3);
    assert!(model.ground(KeyedImage::whole(9, &empty), &["cup"]).is_err());
}

type Change = Box<dyn Fn(&Path)>;

#[test]
#[expect(clippy::too_many_lines, reason = "one entry for each kind of damage")]
fn damaged_checkpoints_are_refused_with_a_reason() {
    let rewrite = |dir: &Path, edit: &dyn Fn(&mut std::collections::HashMap<String, Tensor>)| {
        let path = dir.join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        edit(&mut tensors);
        candle_core::safetensors::save(&tensors, path).unwrap();
    };
    let json = |file: &'static str, key: &'static str, value: Value| -> Change {
        Box::new(move |dir| edit_json(&dir.join(file), |json| json[key] = value.clone()))
    };
    let changes: Vec<(&str, Change)> = vec![
        (
            "\"model.multi_modal_projector.image_projection.weight\" of shape [32, 40] is missing",
            Box::new(move |dir| {
                rewrite(dir, &|tensors| {
                    tensors.remove("model.multi_modal_projector.image_projection.weight");
                });
            }),
        ),
        (
            "not part of the model",
            Box::new(move |dir| {
                rewrite(dir, &|tensors| {
                    tensors.insert(
                        "extra".into(),
                        Tensor::zeros(3, candle_core::DType::F16, &Device::Cpu).unwrap(),
                    );
                });
            }),
        ),
        (
            "expected shape [32, 40] by config.json, got [40, 32]",
            Box::new(move |dir| {
                rewrite(dir, &|tensors| {
                    let name = "model.multi_modal_projector.image_projection.weight";
                    let turned = tensors[name].t().unwrap().contiguous().unwrap();
                    tensors.insert(name.into(), turned);
                });
            }),
        ),
        (
            "not a whole safetensors file",
            Box::new(|dir| {
                let path = dir.join("model.safetensors");
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
            }),
        ),
        (
            "not a whole safetensors file",
            Box::new(|dir| std::fs::write(dir.join("model.safetensors"), [255; 64]).unwrap()),
        ),
        (
            "pytorch_model.bin is a pickle",
            Box::new(|dir| {
                std::fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
            }),
        ),
        ("tokenizer.json", Box::new(|dir| std::fs::write(dir.join("tokenizer.json"), "{").unwrap())),
        ("config.json says id 5", json("config.json", "image_token_id", 5.into())),
        ("model_type \"bert\"", json("config.json", "model_type", "bert".into())),
        ("are not part of the model", json("config.json", "grounding_head", Value::Null)),
        ("outside the vocabulary", json("generation_config.json", "eos_token_id", 99_999.into())),
        ("tokenizer.json says 2", json("generation_config.json", "eos_token_id", 3.into())),
        ("image_seq_length", json("preprocessor_config.json", "image_seq_length", 577.into())),
        ("bicubic", json("preprocessor_config.json", "resample", 2.into())),
        ("height", json("preprocessor_config.json", "size", serde_json::json!({"shortest_edge": 3}))),
        ("grid", json("preprocessor_config.json", "size", serde_json::json!({"height": 900, "width": 72}))),
    ];
    for (i, (reason, change)) in changes.iter().enumerate() {
        let dir = model_dir(&format!("damaged{i}"), |dir| change(dir));
        let error = load(&dir, &ModelOptions::on("cpu")).err().expect(reason).to_string();
        assert!(error.contains(reason), "expected {reason:?} in: {error}");
        std::fs::remove_dir_all(dir).unwrap();
    }
    assert!(
        load(Path::new("/nowhere"), &ModelOptions::on("cpu"))
            .err()
            .unwrap()
            .to_string()
            .contains("no such model directory")
    );
    assert!(load(&fixture_dir(), &ModelOptions::on("gpu")).err().unwrap().to_string().contains("cuda:N"));
}
