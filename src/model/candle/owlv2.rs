//! OWLv2: an open-vocabulary detector that scores every patch of the image against every phrase.
//!
//! Paper: Minderer et al., "Scaling Open-Vocabulary Object Detection", NeurIPS 2023.
//! Reference implementation: transformers 5.23.0, `models/owlv2/modeling_owlv2.py`; tensor names are those of its
//! checkpoints. Two CLIP towers, and three heads on the image's patches: class, box and objectness.

use candle_core::{D, DType, Device, Tensor};
use serde::Deserialize;

use super::kernels::{Activation, AttentionMask, Conv2d, attention, linear};
use super::layers::{Convolution, LayerNorm, Linear, feed_forward_of};
use super::loading::Weights;
use crate::model::ModelError;

type Result<T> = std::result::Result<T, ModelError>;

/// Keeps the norm of a vector that is all zeros from dividing by zero, as in the reference.
const NORM_EPS: f64 = 1e-6;

/// config.json, as far as inference needs it. Keys left out have the reference's defaults.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// The text tower.
    #[serde(default)]
    pub text_config: TextConfig,
    /// The vision tower.
    #[serde(default)]
    pub vision_config: VisionConfig,
    /// Size of the space that images and texts share.
    #[serde(default = "default_projection_dim")]
    pub projection_dim: usize,
}

/// The text tower's numbers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    /// Size of the vocabulary.
    pub vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f32,
}

/// The vision tower's numbers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    /// Side of the square input, pixels.
    pub image_size: usize,
    patch_size: usize,
    hidden_act: String,
    layer_norm_eps: f32,
}

fn default_projection_dim() -> usize {
    512
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 16,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 768,
            patch_size: 16,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl Config {
    /// Checks everything the layers rely on; the error is a sentence about config.json.
    pub fn validate(&self) -> std::result::Result<(), String> {
        let (text, vision) = (&self.text_config, &self.vision_config);
        for (tower, hidden, heads) in [
            ("text_config", text.hidden_size, text.num_attention_heads),
            ("vision_config", vision.hidden_size, vision.num_attention_heads),
        ] {
            if heads == 0 || hidden == 0 || !hidden.is_multiple_of(heads) {
                return Err(format!(
                    "{tower}: hidden_size = {hidden} is not a multiple of num_attention_heads = {heads}"
                ));
            }
        }
        if vision.num_channels != 3 || vision.patch_size == 0 || vision.image_size < vision.patch_size {
            return Err(format!(
                "vision_config: expected num_channels = 3 and patch_size from 1 to image_size, got {}, {} and {}",
                vision.num_channels, vision.patch_size, vision.image_size
            ));
        }
        if self.projection_dim != text.hidden_size {
            // The class head compares its output of text_config.hidden_size with projected texts.
            return Err(format!(
                "projection_dim = {} differs from text_config.hidden_size = {}",
                self.projection_dim, text.hidden_size
            ));
        }
        if text.max_position_embeddings < 2 || text.vocab_size == 0 {
            return Err("text_config: no room for tokens".into());
        }
        activation(&text.hidden_act)?;
        activation(&vision.hidden_act)?;
        Ok(())
    }

    /// Patches along each side of the input.
    pub fn grid(&self) -> usize {
        self.vision_config.image_size / self.vision_config.patch_size
    }
}

fn activation(name: &str) -> std::result::Result<Activation, String> {
    match name {
        "quick_gelu" => Ok(Activation::QuickGelu),
        "gelu" => Ok(Activation::Gelu),
        other => Err(format!("hidden_act: expected \"quick_gelu\" or \"gelu\", got {other:?}")),
    }
}

/// What the network says about an image before any phrase is known; P patches, row by row. In f32 but for `patch_features`.
#[derive(Clone)]
pub struct ImageFeatures {
    /// The image in the shared space, unit length, [1, projection_dim].
    pub image_embed: Tensor,
    /// The detector's patch features, [1, P, vision hidden].
    pub patch_features: Tensor,
    /// Class embedding of every patch before normalization, [1, P, projection_dim].
    pub class_embeds: Tensor,
    /// Center x, center y, width and height of every patch's box as fractions of the padded square, [1, P, 4].
    pub boxes: Tensor,
    /// Logit that a patch's box holds any object, [1, P].
    pub objectness: Tensor,
    class_shift: Tensor,
    class_scale: Tensor,
}

/// The network.
pub struct Owlv2Network {
    config: Config,
    vision: VisionTower,
    text: TextTower,
    visual_projection: Linear,
    text_projection: Linear,
    /// Logarithm of the factor on cosines between images and texts.
    logit_scale: f64,
    /// Of the merged patch features.
    layer_norm: LayerNorm,
    class_dense: Linear,
    class_shift: Linear,
    class_scale: Linear,
    box_head: Mlp3,
    objectness_head: Mlp3,
    /// [P, 4]
    box_bias: Tensor,
}

impl Owlv2Network {
    /// Takes every tensor of the checkpoint by its name.
    pub fn new(w: &Weights<'_>, config: Config, device: &Device) -> Result<Self> {
        let (text, vision) = (&config.text_config, &config.vision_config);
        let (width, dim) = (vision.hidden_size, config.projection_dim);
        let clip = w.at("owlv2");
        let class = w.at("class_head");
        let logit_scale = clip.get("logit_scale", &[])?.to_dtype(DType::F32)?.to_vec0::<f32>()?;
        Ok(Self {
            vision: VisionTower::new(&clip.at("vision_model"), vision)?,
            text: TextTower::new(&clip.at("text_model"), text)?,
            visual_projection: Linear::without_bias(&clip.at("visual_projection"), width, dim)?,
            text_projection: Linear::without_bias(&clip.at("text_projection"), text.hidden_size, dim)?,
            logit_scale: f64::from(logit_scale),
            layer_norm: LayerNorm::new(&w.at("layer_norm"), width, vision.layer_norm_eps)?,
            class_dense: Linear::new(&class.at("dense0"), width, text.hidden_size)?,
            class_shift: Linear::new(&class.at("logit_shift"), width, 1)?,
            class_scale: Linear::new(&class.at("logit_scale"), width, 1)?,
            box_head: Mlp3::new(&w.at("box_head"), width, 4)?,
            objectness_head: Mlp3::new(&w.at("objectness_head"), width, 1)?,
            box_bias: box_bias(config.grid(), device)?,
            config,
        })
    }

    /// As loaded.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Looks at an image; pixels [1, image_size, image_size, 3] (channels last), normalized.
    pub fn encode_image(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        let hidden = self.vision.forward(&pixels.to_dtype(self.layer_norm.dtype())?)?;
        let (batch, n_tokens, _) = hidden.dims3()?;
        let normed = self.vision.post_layernorm.forward(&hidden)?;
        let class_token = normed.narrow(1, 0, 1)?.contiguous()?;
        let image_embed = unit_length(&self.visual_projection.forward(&class_token)?.squeeze(1)?, 0.0)?;
        let merged = normed.narrow(1, 1, n_tokens - 1)?.broadcast_mul(&class_token)?.contiguous()?;
        let patch_features = self.layer_norm.forward(&merged)?;
        let in_f32 = |it: Tensor| it.to_dtype(DType::F32);
        let boxes = in_f32(self.box_head.forward(&patch_features)?)?.broadcast_add(&self.box_bias)?;
        let n_patches = n_tokens - 1;
        Ok(ImageFeatures {
            image_embed,
            class_embeds: in_f32(self.class_dense.forward(&patch_features)?)?,
            boxes: candle_nn::ops::sigmoid(&boxes)?,
            objectness: in_f32(self.objectness_head.forward(&patch_features)?)?
                .reshape((batch, n_patches))?,
            class_shift: in_f32(self.class_shift.forward(&patch_features)?)?,
            class_scale: (in_f32(self.class_scale.forward(&patch_features)?)?.elu(1.0)? + 1.0)?,
            patch_features,
        })
    }

    /// Texts in the shared space, unit length, [texts, projection_dim]. Token ids begin and end as the tokenizer's
    /// template says; the last one must be the highest id (end of text).
    pub fn encode_text(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        let pooled = self.text.forward(ids, device)?;
        unit_length(&self.text_projection.forward(&pooled)?, 0.0)
    }

    /// Logits of every patch for every query, [1, P, Q]; queries [Q, projection_dim].
    pub fn class_logits(&self, image: &ImageFeatures, queries: &Tensor) -> Result<Tensor> {
        let patches = unit_length(&image.class_embeds, NORM_EPS)?;
        let queries = unit_length(queries, NORM_EPS)?.contiguous()?;
        let cosines = linear(&patches, &queries, None, Activation::None, None)?;
        Ok(cosines.broadcast_add(&image.class_shift)?.broadcast_mul(&image.class_scale)?)
    }

    /// An example image as a query, [1, projection_dim]: the class embedding of its patch with the highest objectness, and
    /// that patch.
    pub fn image_query(&self, example: &ImageFeatures) -> Result<(Tensor, usize)> {
        let objectness: Vec<f32> = example.objectness.flatten_all()?.to_vec1()?;
        // The first of equals, as the reference's argmax.
        let best = (0..objectness.len()).rev().max_by(|&a, &b| objectness[a].total_cmp(&objectness[b]));
        let best = best.ok_or_else(|| ModelError::Input("the example image has no patches".into()))?;
        Ok((example.class_embeds.squeeze(0)?.narrow(0, best, 1)?.contiguous()?, best))
    }

    /// Logits of an image for texts in the shared space, [1, texts] (CLIP's contrastive score, not the detector's).
    pub fn contrastive_logits(&self, image: &ImageFeatures, texts: &Tensor) -> Result<Tensor> {
        let cosines = linear(&image.image_embed, texts, None, Activation::None, None)?;
        Ok((cosines * self.logit_scale.exp())?)
    }
}

/// `x / (|x| + eps)` along the last axis, in f32.
fn unit_length(x: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    let norm = (x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + eps)?;
    Ok(x.broadcast_div(&norm)?)
}

/// Where a patch's box is before the head moves it, as logits, [P, 4].
fn box_bias(grid: usize, device: &Device) -> Result<Tensor> {
    let logit = |p: f32| (p + 1e-4).ln() - (-p + 1e-4).ln_1p();
    let size = logit(1.0 / grid as f32);
    let mut values = Vec::with_capacity(grid * grid * 4);
    for y in 1..=grid {
        for x in 1..=grid {
            values.extend([logit(x as f32 / grid as f32), logit(y as f32 / grid as f32), size, size]);
        }
    }
    Ok(Tensor::from_vec(values, (grid * grid, 4), device)?)
}

struct VisionTower {
    patches: Convolution,
    class_embedding: Tensor,
    positions: Tensor,
    pre_layernorm: LayerNorm,
    layers: Vec<EncoderLayer>,
    post_layernorm: LayerNorm,
}

impl VisionTower {
    fn new(w: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
        let (dim, patch) = (config.hidden_size, config.patch_size);
        let grid = config.image_size / patch;
        let embeddings = w.at("embeddings");
        let weight = embeddings.at("patch_embedding").get("weight", &[dim, 3, patch, patch])?;
        let positions = embeddings.at("position_embedding").get("weight", &[grid * grid + 1, dim])?;
        let no_bias = Tensor::zeros(dim, weight.dtype(), weight.device())?;
        let conv = Conv2d { kernel: patch, stride: patch, padding: 0 };
        Ok(Self {
            patches: Convolution::new(w, &weight, no_bias, conv)?,
            class_embedding: embeddings.get("class_embedding", &[dim])?,
            positions: positions.unsqueeze(0)?,
            pre_layernorm: LayerNorm::new(&w.at("pre_layernorm"), dim, config.layer_norm_eps)?,
            layers: encoder_layers(
                w,
                config.num_hidden_layers,
                (dim, config.intermediate_size, config.num_attention_heads),
                &config.hidden_act,
                config.layer_norm_eps,
            )?,
            post_layernorm: LayerNorm::new(&w.at("post_layernorm"), dim, config.layer_norm_eps)?,
        })
    }

    /// Class token and patches, [B, 1 + P, hidden], before the last norm.
    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patches.forward(pixels)?;
        let (batch, rows, columns, dim) = patches.dims4()?;
        let class = self.class_embedding.broadcast_as((batch, 1, dim))?.contiguous()?;
        let tokens = Tensor::cat(&[class, patches.reshape((batch, rows * columns, dim))?], 1)?;
        let tokens = tokens.broadcast_add(&self.positions)?.contiguous()?;
        let visible = AttentionMask::Lengths(vec![1 + rows * columns; batch]);
        let mut x = self.pre_layernorm.forward(&tokens)?;
        for layer in &self.layers {
            x = layer.forward(&x, &visible)?;
        }
        Ok(x)
    }
}

struct TextTower {
    tokens: Tensor,
    positions: Tensor,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
}

impl TextTower {
    fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
        let dim = config.hidden_size;
        let embeddings = w.at("embeddings");
        Ok(Self {
            tokens: embeddings.at("token_embedding").get("weight", &[config.vocab_size, dim])?,
            positions: embeddings
                .at("position_embedding")
                .get("weight", &[config.max_position_embeddings, dim])?,
            layers: encoder_layers(
                w,
                config.num_hidden_layers,
                (dim, config.intermediate_size, config.num_attention_heads),
                &config.hidden_act,
                config.layer_norm_eps,
            )?,
            final_layer_norm: LayerNorm::new(&w.at("final_layer_norm"), dim, config.layer_norm_eps)?,
        })
    }

    /// The end-of-text token's features, [1, hidden]. Padding after it could not change them (attention is causal), so there is
    /// none.
    fn forward(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        let (n_tokens, n_positions) = (ids.len(), self.positions.dim(0)?);
        if n_tokens == 0 || n_tokens > n_positions {
            return Err(ModelError::Input(format!(
                "expected a text of 1 to {n_positions} tokens, got {n_tokens}"
            )));
        }
        let embedded = self.tokens.index_select(&Tensor::new(ids, device)?, 0)?;
        let mut x = (embedded + self.positions.narrow(0, 0, n_tokens)?)?.unsqueeze(0)?;
        for layer in &self.layers {
            x = layer.forward(&x, &AttentionMask::Causal { offset: 0 })?;
        }
        let last = x.narrow(1, n_tokens - 1, 1)?.squeeze(1)?.contiguous()?;
        Ok(self.final_layer_norm.forward(&last)?)
    }
}

fn encoder_layers(
    w: &Weights<'_>,
    n_layers: usize,
    (dim, hidden, n_heads): (usize, usize, usize),
    hidden_act: &str,
    eps: f32,
) -> Result<Vec<EncoderLayer>> {
    let activation = activation(hidden_act).map_err(ModelError::Input)?;
    (0..n_layers)
        .map(|i| {
            let w = w.at(format_args!("encoder.layers.{i}"));
            let attn = w.at("self_attn");
            Ok(EncoderLayer {
                norm1: LayerNorm::new(&w.at("layer_norm1"), dim, eps)?,
                q: Linear::new(&attn.at("q_proj"), dim, dim)?,
                k: Linear::new(&attn.at("k_proj"), dim, dim)?,
                v: Linear::new(&attn.at("v_proj"), dim, dim)?,
                out: Linear::new(&attn.at("out_proj"), dim, dim)?,
                n_heads,
                norm2: LayerNorm::new(&w.at("layer_norm2"), dim, eps)?,
                fc1: Linear::new(&w.at("mlp.fc1"), dim, hidden)?,
                fc2: Linear::new(&w.at("mlp.fc2"), hidden, dim)?,
                activation,
            })
        })
        .collect()
}

/// CLIP's layer: norm before attention and before the feed-forward part, each with a residual.
struct EncoderLayer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    n_heads: usize,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl EncoderLayer {
    fn forward(&self, x: &Tensor, visible: &AttentionMask) -> candle_core::Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let (q, k, v) = (self.q.forward(&normed)?, self.k.forward(&normed)?, self.v.forward(&normed)?);
        let attended = attention(&q, &k, &v, self.n_heads, visible, self.q.precision())?;
        let x = self.out.forward_residual(x, &attended)?;
        feed_forward_of((&self.fc1, &self.fc2), self.activation, &x, Some(&self.norm2))
    }
}

/// Three linear layers with GELU between them.
struct Mlp3 {
    dense0: Linear,
    dense1: Linear,
    dense2: Linear,
}

impl Mlp3 {
    fn new(w: &Weights<'_>, dim: usize, n_out: usize) -> Result<Self> {
        Ok(Self {
            dense0: Linear::new(&w.at("dense0"), dim, dim)?,
            dense1: Linear::new(&w.at("dense1"), dim, dim)?,
            dense2: Linear::new(&w.at("dense2"), dim, n_out)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.dense0.forward_act(x, Activation::Gelu)?;
        self.dense2.forward(&self.dense1.forward_act(&x, Activation::Gelu)?)
    }
}
