//! Every way in which Florence-2 checkpoints come: the released ones' tensors name by name (shapes only), and the tiny random
//! checkpoint rewritten in each layout, spelling and precision, which must give the same answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod parity_support;

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use language_grounding::model::candle::florence2::config::Config;
use language_grounding::model::candle::florence2::layout::{is_old_layout, native_name};
use language_grounding::model::candle::florence2::network::Florence2Network;
use language_grounding::model::candle::loading::{Checkpoint, read_json};
use language_grounding::model::registry::load;
use language_grounding::model::{KeyedImage, ModelError, ModelOptions, RawTask, RawTaskOutput};
use parity_support::{edit_json, make_image, model_dir};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Released {
    checkpoints: BTreeMap<String, ReleasedCheckpoint>,
}

#[derive(Deserialize)]
struct ReleasedCheckpoint {
    config: Value,
    tensors: Shapes,
}

type Shapes = BTreeMap<String, Vec<usize>>;

fn released() -> BTreeMap<String, ReleasedCheckpoint> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/florence2_tensors.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str::<Released>(&text).unwrap().checkpoints
}

/// Builds the network from names and shapes alone.
fn load_shapes(config: &Value, tensors: Shapes) -> Result<(), ModelError> {
    static N_CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = N_CALLS.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("florence2_layouts_{}_{call}.json", std::process::id()));
    std::fs::write(&path, config.to_string()).unwrap();
    let config = Config::open(&path);
    std::fs::remove_file(&path).unwrap();
    let mut checkpoint = Checkpoint::of_shapes(tensors);
    if is_old_layout(checkpoint.names()) {
        checkpoint.rename(native_name)?;
    }
    Florence2Network::new(&checkpoint.root(), config?)?;
    checkpoint.finish()
}

#[test]
fn released_checkpoints_are_consumed_to_the_last_tensor() {
    let all = released();
    assert_eq!(all.len(), 4);
    for (name, checkpoint) in &all {
        assert_eq!(is_old_layout(checkpoint.tensors.keys().map(String::as_str)), name.starts_with("older"));
        load_shapes(&checkpoint.config, checkpoint.tensors.clone())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: {} tensors", checkpoint.tensors.len());
    }
}

#[test]
fn a_missing_turned_or_foreign_tensor_is_named() {
    for (name, checkpoint) in released().iter().filter(|(name, _)| name.contains("base")) {
        let check = |edit: &dyn Fn(&mut Shapes), expected: &str| {
            let mut tensors = checkpoint.tensors.clone();
            edit(&mut tensors);
            let error = load_shapes(&checkpoint.config, tensors).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: expected {expected:?} in: {error}");
        };
        // Every twentieth tensor, so that all kinds have their turn.
        for (i, tensor) in checkpoint.tensors.keys().step_by(20).enumerate() {
            let native = native_name(tensor).0;
            if native != "final_logits_bias" {
                check(&|tensors| drop(tensors.remove(tensor)), &format!("{native:?} of shape"));
            }
            check(
                &|tensors| tensors.get_mut(tensor).unwrap().push(3 + i),
                &format!("tensor {tensor:?}: expected shape"),
            );
        }
        check(
            &|tensors| drop(tensors.insert("model.extra.weight".into(), vec![2])),
            "\"model.extra.weight\"",
        );
        let projection = checkpoint.tensors.keys().find(|it| it.contains("image_projection")).unwrap();
        check(
            &|tensors| tensors.get_mut(projection).unwrap().reverse(),
            &format!("tensor {projection:?}: expected shape"),
        );
    }
}

#[test]
fn a_config_of_something_else_is_refused_by_key() {
    let all = released();
    let base = &all["older base, base-ft"];
    for (pointer, value, expected) in [
        (
            "/vision_config/image_feature_source",
            json!(["last_frame"]),
            "vision_config.image_feature_source: expected",
        ),
        (
            "/vision_config/image_pos_embed/type",
            json!("sine"),
            "vision_config.image_pos_embed.type: expected",
        ),
        ("/vision_config/visual_temporal_embedding/type", json!("LEARNED"), "visual_temporal_embedding.type"),
        ("/vision_config/dim_embed", json!([128, 256]), "vision_config.embed_dim: expected 4 entries"),
        ("/vision_config/projection_dim", json!(512), "vision_config.projection_dim = 512 differs"),
        ("/text_config/model_type", json!("t5"), "text_config.model_type: expected \"bart\""),
        ("/text_config/d_model", Value::Null, "invalid type: null"),
        ("/text_config/vocab_size", json!(50_000), "expected shape [50000, 768]"),
    ] {
        let mut config = base.config.clone();
        *config.pointer_mut(pointer).unwrap() = value;
        let error = load_shapes(&config, base.tensors.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
    }
}

type Tensors = HashMap<String, Tensor>;

/// A copy of the tiny checkpoint without its dense head, changed by `edit`.
fn tiny(name: &str, dtype: DType, edit: impl Fn(&Path, Tensors) -> Tensors) -> PathBuf {
    model_dir(name, |dir| {
        edit_json(&dir.join("config.json"), |config| config["grounding_head"] = Value::Null);
        let path = dir.join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        tensors.retain(|name, _| !name.starts_with("grounding_head."));
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::F32).unwrap().to_dtype(dtype).unwrap();
        }
        let tensors = edit(dir, tensors);
        if !tensors.is_empty() {
            candle_core::safetensors::save(&tensors, path).unwrap();
        }
    })
}

fn answers(dir: &Path) -> Vec<RawTaskOutput> {
    let mut model = load(dir, &ModelOptions::on("cpu")).unwrap_or_else(|error| panic!("{error}"));
    std::fs::remove_dir_all(dir).unwrap();
    let image = make_image(90, 60, 3);
    let mut ask = |name, text, n_beams| {
        model
            .raw_task(KeyedImage::whole(1, &image), &RawTask { name, text, n_beams, ..RawTask::default() })
            .unwrap()
    };
    vec![ask("CAPTION", None, 1), ask("OPEN_VOCABULARY_DETECTION", Some("red cup"), 3)]
}

/// As the older checkpoints have it: names, one transposed matrix, config.json's spelling, generation rules in config.json,
/// BART's bare vocabulary.
fn make_old(dir: &Path, tensors: Tensors) -> Tensors {
    let generation: Value = read_json(&dir.join("generation_config.json")).unwrap();
    std::fs::remove_file(dir.join("generation_config.json")).unwrap();
    edit_json(&dir.join("config.json"), |config| {
        config.as_object_mut().unwrap().remove("image_token_id");
        let vision = config["vision_config"].as_object_mut().unwrap();
        let mut take = |key: &str| vision.remove(key).unwrap();
        let (dims, temporal, positions) =
            (take("embed_dim"), take("max_temporal_embeddings"), take("max_position_embeddings"));
        vision.insert("dim_embed".into(), dims);
        let temporal = json!({"type": "COSINE", "max_temporal_embeddings": temporal});
        vision.insert("visual_temporal_embedding".into(), temporal);
        let positions = json!({"type": "learned_abs_2d", "max_pos_embeddings": positions});
        vision.insert("image_pos_embed".into(), positions);
        vision.insert("image_feature_source".into(), json!(["spatial_avg_pool", "temporal_avg_pool"]));
        let text = config["text_config"].as_object_mut().unwrap();
        text.extend(generation.as_object().unwrap().clone());
        text.insert("model_type".into(), json!("florence2_language"));
        text.insert("max_length".into(), json!(20));
    });
    edit_json(&dir.join("tokenizer.json"), |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        added.retain(|token| token["id"].as_u64().unwrap() < 320);
    });
    let rename = |(name, tensor): (String, Tensor)| {
        if name == "model.multi_modal_projector.image_projection.weight" {
            return ("image_projection".to_owned(), tensor.t().unwrap().contiguous().unwrap());
        }
        let mut old = name
            .replace("model.multi_modal_projector.image_position_embed.", "image_pos_embed.")
            .replace("model.multi_modal_projector.", "")
            .replace("model.language_model.", "language_model.model.")
            .replace("lm_head.", "language_model.lm_head.")
            .replace("model.vision_tower.", "vision_tower.");
        if old.contains(".convs.") {
            old = old.replace(".conv.", ".proj.");
        }
        if old.contains("_block.") {
            let attention = if old.contains("spatial_block") { "window_attn" } else { "channel_attn" };
            old = old
                .replace(".norm1.", &format!(".{attention}.norm."))
                .replace(".norm2.", ".ffn.norm.")
                .replace("_attn.qkv.", "_attn.fn.qkv.")
                .replace("_attn.proj.", "_attn.fn.proj.")
                .replace(".ffn.fc", ".ffn.fn.net.fc")
                .replace(".conv1.", ".conv1.fn.dw.")
                .replace(".conv2.", ".conv2.fn.dw.");
        }
        (old, tensor)
    };
    let mut old: Tensors = tensors.into_iter().map(rename).collect();
    let shared = old["language_model.model.shared.weight"].clone();
    let bias = Tensor::zeros((1, shared.dim(0).unwrap()), shared.dtype(), &Device::Cpu).unwrap();
    // Such files also hold the tied copies.
    for copy in ["encoder.embed_tokens", "decoder.embed_tokens"] {
        old.insert(format!("language_model.model.{copy}.weight"), shared.clone());
    }
    old.insert("language_model.lm_head.weight".into(), shared);
    old.insert("language_model.final_logits_bias".into(), bias);
    old
}

/// Two shards and an index; returns nothing to save.
fn shard(dir: &Path, tensors: Tensors) -> Tensors {
    let mut shards = [Tensors::new(), Tensors::new()];
    let mut weight_map = BTreeMap::new();
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        weight_map.insert(name.clone(), format!("model-0000{}-of-00002.safetensors", i % 2 + 1));
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        let path = dir.join(format!("model-0000{}-of-00002.safetensors", i + 1));
        candle_core::safetensors::save(shard, path).unwrap();
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    Tensors::new()
}

#[test]
fn layouts_shards_and_precisions_give_the_same_answers() {
    let as_it_is = |_: &Path, tensors| tensors;
    let reference = answers(&tiny("native", DType::F32, as_it_is));
    assert!(reference[0].token_ids.len() > 5);
    let same = |dir: &Path| assert_eq!(answers(dir), reference, "{}", dir.display());
    same(&tiny("f16", DType::F16, as_it_is));
    same(&tiny("sharded", DType::F32, shard));
    same(&tiny("old", DType::F16, make_old));
    same(&tiny("old_sharded", DType::F32, |dir, tensors| shard(dir, make_old(dir, tensors))));
    same(&tiny("newer_processor", DType::F32, |dir, tensors| {
        let old = dir.join("preprocessor_config.json");
        let processor: Value = read_json(&old).unwrap();
        std::fs::remove_file(old).unwrap();
        let newer = json!({"image_processor": processor, "processor_class": "Florence2Processor"});
        std::fs::write(dir.join("processor_config.json"), newer.to_string()).unwrap();
        edit_json(&dir.join("generation_config.json"), |config| config["eos_token_id"] = json!([2]));
        tensors
    }));
    // bfloat16 rounds the weights; both layouts round alike.
    let rounded = answers(&tiny("bf16", DType::BF16, as_it_is));
    assert_eq!(answers(&tiny("old_bf16", DType::BF16, make_old)), rounded);
}

#[test]
fn shards_that_are_missing_or_lie_are_refused() {
    let check = |name: &str, edit: &dyn Fn(&Path), expected: &str| {
        let dir = tiny(name, DType::F32, shard);
        edit(&dir);
        let error = load(&dir, &ModelOptions::on("cpu")).err().unwrap().to_string();
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
        std::fs::remove_dir_all(dir).unwrap();
    };
    let second = "model-00002-of-00002.safetensors";
    check("no_shard", &|dir| std::fs::remove_file(dir.join(second)).unwrap(), second);
    check(
        "outside",
        &|dir| {
            edit_json(&dir.join("model.safetensors.index.json"), |index| {
                index["weight_map"]["lm_head.weight"] = json!("../elsewhere.safetensors");
            });
        },
        "expected a file name without a folder",
    );
    check(
        "unnamed",
        &|dir| {
            edit_json(&dir.join("model.safetensors.index.json"), |index| {
                let map = index["weight_map"].as_object_mut().unwrap();
                map.retain(|_, file| file != second);
            });
        },
        "is missing",
    );
}
