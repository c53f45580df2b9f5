//! Florence-2's config.json.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::model::ModelError;
use crate::model::candle::kernels::Conv2d;
use crate::model::candle::loading::{checkpoint_error, read_json};

/// config.json, as far as inference needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The vision tower.
    pub vision_config: VisionConfig,
    /// The language model.
    pub text_config: TextConfig,
    /// Placeholder for one image token in the reference's prompt; older checkpoints have none.
    pub image_token_id: Option<u32>,
    /// True for checkpoints trained on rendered scenes.
    #[serde(default)]
    pub synthetic: bool,
}

/// `DaViT`: one entry per stage.
#[derive(Debug, Clone, Deserialize)]
pub struct VisionConfig {
    #[serde(default = "three")]
    pub(super) in_channels: usize,
    pub(super) depths: Vec<usize>,
    pub(super) patch_size: Vec<usize>,
    pub(super) patch_stride: Vec<usize>,
    pub(super) patch_padding: Vec<usize>,
    pub(super) patch_prenorm: Vec<bool>,
    pub(super) embed_dim: Vec<usize>,
    pub(super) num_heads: Vec<usize>,
    pub(super) num_groups: Vec<usize>,
    pub(super) window_size: usize,
    #[serde(default = "four")]
    pub(super) mlp_ratio: f64,
    #[serde(default = "yes")]
    pub(super) qkv_bias: bool,
    #[serde(default = "gelu")]
    pub(super) activation_function: String,
    pub(super) projection_dim: usize,
    #[serde(default = "hundred")]
    pub(super) max_temporal_embeddings: usize,
    #[serde(default = "fifty")]
    pub(super) max_position_embeddings: usize,
}

/// BART.
#[derive(Debug, Clone, Deserialize)]
pub struct TextConfig {
    pub(super) d_model: usize,
    pub(super) encoder_layers: usize,
    pub(super) decoder_layers: usize,
    pub(super) encoder_attention_heads: usize,
    pub(super) decoder_attention_heads: usize,
    pub(super) encoder_ffn_dim: usize,
    pub(super) decoder_ffn_dim: usize,
    /// Size of the vocabulary, padding rows included.
    pub vocab_size: usize,
    /// Longest sequence of the encoder and of the decoder.
    pub max_position_embeddings: usize,
    #[serde(default = "gelu")]
    pub(super) activation_function: String,
    #[serde(default)]
    pub(super) scale_embedding: bool,
}

fn three() -> usize {
    3
}
fn four() -> f64 {
    4.0
}
fn fifty() -> usize {
    50
}
fn hundred() -> usize {
    100
}
fn yes() -> bool {
    true
}
fn gelu() -> String {
    "gelu".into()
}

impl Config {
    /// Reads config.json, in the spelling of transformers (4 and 5) or of the older checkpoints that came with their own
    /// code, and checks it.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut json: Value = read_json(path)?;
        let problem = |problem: String| checkpoint_error(path, problem);
        if let Some(vision) = json.get_mut("vision_config") {
            respell(vision).map_err(problem)?;
        }
        let text_type = &json["text_config"]["model_type"];
        if !text_type.is_null() && !["bart", "florence2_language"].iter().any(|known| text_type == known) {
            return Err(problem(format!(
                "text_config.model_type: expected \"bart\" or \"florence2_language\", got {text_type}"
            )));
        }
        let config: Self = serde_json::from_value(json).map_err(|error| problem(error.to_string()))?;
        config.validate().map_err(problem)?;
        Ok(config)
    }

    /// Checks everything the layers rely on; the error is a sentence about config.json.
    pub fn validate(&self) -> Result<(), String> {
        let (vision, text) = (&self.vision_config, &self.text_config);
        let n_stages = vision.depths.len();
        for (key, len) in [
            ("patch_size", vision.patch_size.len()),
            ("patch_stride", vision.patch_stride.len()),
            ("patch_padding", vision.patch_padding.len()),
            ("patch_prenorm", vision.patch_prenorm.len()),
            ("embed_dim", vision.embed_dim.len()),
            ("num_heads", vision.num_heads.len()),
            ("num_groups", vision.num_groups.len()),
        ] {
            if len != n_stages || n_stages == 0 {
                return Err(format!(
                    "vision_config.{key}: expected {n_stages} entries as in depths, got {len}"
                ));
            }
        }
        let divides = |parts: usize, whole: usize| parts > 0 && whole > 0 && whole.is_multiple_of(parts);
        for stage in 0..n_stages {
            let dim = vision.embed_dim[stage];
            if !divides(vision.num_heads[stage], dim) || !divides(vision.num_groups[stage], dim) {
                return Err(format!(
                    "vision_config.embed_dim[{stage}] = {dim} is not a multiple of num_heads and num_groups"
                ));
            }
            if vision.patch_size[stage] == 0 || vision.patch_stride[stage] == 0 {
                return Err(format!(
                    "vision_config: patch_size and patch_stride of stage {stage} must not be 0"
                ));
            }
        }
        if vision.window_size == 0 || vision.in_channels != 3 {
            return Err("vision_config: expected window_size > 0 and in_channels = 3".into());
        }
        if vision.embed_dim[n_stages - 1] < 2 || vision.max_temporal_embeddings == 0 {
            return Err("vision_config: no room for position embeddings".into());
        }
        for (key, heads) in [
            ("encoder_attention_heads", text.encoder_attention_heads),
            ("decoder_attention_heads", text.decoder_attention_heads),
        ] {
            if !divides(heads, text.d_model) {
                return Err(format!(
                    "text_config.d_model = {} is not a multiple of {key} = {heads}",
                    text.d_model
                ));
            }
        }
        if vision.projection_dim != text.d_model {
            return Err(format!(
                "vision_config.projection_dim = {} differs from text_config.d_model = {}",
                vision.projection_dim, text.d_model
            ));
        }
        for activation in [&vision.activation_function, &text.activation_function] {
            if activation != "gelu" {
                return Err(format!("activation_function: expected \"gelu\", got {activation:?}"));
            }
        }
        if let Some(id) = self.image_token_id.filter(|id| *id as usize >= text.vocab_size) {
            return Err(format!("image_token_id {id} is outside the vocabulary of {}", text.vocab_size));
        }
        Ok(())
    }

    /// Channels of the last feature map.
    pub fn map_channels(&self) -> usize {
        self.vision_config.embed_dim.last().copied().unwrap_or_default()
    }

    /// Width of the language model.
    pub fn text_width(&self) -> usize {
        self.text_config.d_model
    }

    /// Rows and columns of the last feature map for an image of this height and width.
    pub fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        let vision = &self.vision_config;
        (0..vision.depths.len()).fold((height, width), |(h, w), stage| {
            let conv = vision.conv(stage);
            (conv.output_len(h), conv.output_len(w))
        })
    }

    /// The largest grid the position embeddings allow, per side.
    pub fn max_grid(&self) -> usize {
        self.vision_config.max_position_embeddings
    }
}

impl VisionConfig {
    pub(super) fn conv(&self, stage: usize) -> Conv2d {
        Conv2d {
            kernel: self.patch_size[stage],
            stride: self.patch_stride[stage],
            padding: self.patch_padding[stage],
        }
    }
}

/// Brings the `vision_config` of older checkpoints to transformers' spelling; the error names the key.
fn respell(vision: &mut Value) -> Result<(), String> {
    let Some(vision) = vision.as_object_mut() else { return Ok(()) };
    if let Some(dims) = vision.remove("dim_embed") {
        vision.insert("embed_dim".into(), dims);
    }
    for (table, kind, old, new) in [
        ("visual_temporal_embedding", "COSINE", "max_temporal_embeddings", "max_temporal_embeddings"),
        ("image_pos_embed", "learned_abs_2d", "max_pos_embeddings", "max_position_embeddings"),
    ] {
        let Some(given) = vision.remove(table) else { continue };
        if given["type"] != kind {
            return Err(format!("vision_config.{table}.type: expected {kind:?}, got {}", given["type"]));
        }
        vision.insert(new.into(), given[old].clone());
    }
    let sources = serde_json::json!(["spatial_avg_pool", "temporal_avg_pool"]);
    match vision.remove("image_feature_source") {
        Some(got) if got != sources => {
            Err(format!("vision_config.image_feature_source: expected {sources}, got {got}"))
        }
        _ => Ok(()),
    }
}
