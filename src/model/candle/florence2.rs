//! Florence-2: `DaViT` vision tower, projector, BART encoder and decoder, and an optional dense grounding head.
//!
//! Paper: Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks", CVPR 2024.
//! Reference implementation: transformers 5.23.0, `models/florence2/modeling_florence2.py` and
//! `models/bart/modeling_bart.py`; tensor names are those of its checkpoints.
//! The dense head is ours; checkpoints without `grounding_head.*` load and run without it.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use super::florence2_config::{Config, TextConfig, VisionConfig};
use super::florence2_names::Names;
use super::kernels::{
    Activation, AttentionMask, attention, channel_attention, depthwise_3x3_residual, linear, window_attention,
};
use super::layers::{Convolution, LayerNorm, Linear, Matrix, feed_forward_of};
use super::loading::Weights;
use crate::model::ModelError;

/// Used in every layer normalization.
const LAYER_NORM_EPS: f32 = 1e-5;
/// BART's learned positions begin at row 2 of the table.
const POSITION_OFFSET: usize = 2;

/// Shows intermediate tensors to a test, by name; costs nothing when off.
#[expect(clippy::type_complexity, reason = "an optional callback; a name for it would say no more")]
pub struct Trace<'a>(Option<&'a mut dyn FnMut(&str, &Tensor)>);

impl<'a> Trace<'a> {
    /// Shows nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Calls `f` with each intermediate tensor and its name.
    pub fn to(f: &'a mut dyn FnMut(&str, &Tensor)) -> Self {
        Self(Some(f))
    }

    fn show(&mut self, name: impl FnOnce() -> String, tensor: &Tensor) {
        if let Some(f) = &mut self.0 {
            f(&name(), tensor);
        }
    }
}

type Result<T> = std::result::Result<T, ModelError>;

// ---------------------------------------------------------------------------------------------------------------------
// Vision tower: DaViT, maps [B, H, W, C]

/// Patch embedding between stages: convolution, with normalization before or after.
struct ConvEmbed {
    conv: Convolution,
    norm: LayerNorm,
    norm_first: bool,
}

impl ConvEmbed {
    fn new(w: &Weights<'_>, config: &VisionConfig, stage: usize) -> Result<Self> {
        let n_in = if stage == 0 { config.in_channels } else { config.embed_dim[stage - 1] };
        let n_out = config.embed_dim[stage];
        let conv = config.conv(stage);
        let norm_first = config.patch_prenorm[stage];
        let weight = w.at("conv").get("weight", &[n_out, n_in, conv.kernel, conv.kernel])?;
        Ok(Self {
            conv: Convolution::new(w, &weight, w.at("conv").get("bias", &[n_out])?, conv)?,
            norm: LayerNorm::new(&w.at("norm"), if norm_first { n_in } else { n_out }, LAYER_NORM_EPS)?,
            norm_first,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if self.norm_first {
            self.conv.forward(&self.norm.forward(x)?)
        } else {
            self.norm.forward(&self.conv.forward(x)?)
        }
    }
}

/// A 3x3 depthwise convolution added to its input.
struct DepthwiseResidual {
    weight: Tensor,
    bias: Tensor,
}

impl DepthwiseResidual {
    fn new(w: &Weights<'_>, n: usize) -> Result<Self> {
        let weight = w.get("weight", &[n, 1, 3, 3])?;
        Ok(Self { weight: weight.reshape((n, 9))?.t()?.contiguous()?, bias: w.get("bias", &[n])? })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        depthwise_3x3_residual(x, &self.weight, &self.bias)
    }
}

enum VisionAttention {
    /// `spatial_block`: between tokens of a window.
    Window { n_heads: usize, window: usize },
    /// `channel_block`: between channels of a group.
    Channel { n_groups: usize },
}

/// Half of a `DaViT` block: depthwise, attention, depthwise, feed-forward, each with a residual.
struct VisionBlock {
    conv1: DepthwiseResidual,
    norm1: LayerNorm,
    kind: VisionAttention,
    qkv: Linear,
    proj: Linear,
    conv2: DepthwiseResidual,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl VisionBlock {
    fn new(w: &Weights<'_>, config: &VisionConfig, stage: usize, kind: VisionAttention) -> Result<Self> {
        let dim = config.embed_dim[stage];
        let hidden = (dim as f64 * config.mlp_ratio) as usize;
        let attn = match kind {
            VisionAttention::Window { .. } => w.at("window_attn"),
            VisionAttention::Channel { .. } => w.at("channel_attn"),
        };
        let qkv = attn.at("qkv");
        Ok(Self {
            conv1: DepthwiseResidual::new(&w.at("conv1"), dim)?,
            norm1: LayerNorm::new(&w.at("norm1"), dim, LAYER_NORM_EPS)?,
            kind,
            qkv: Linear {
                weight: Matrix::new(&qkv, qkv.get("weight", &[3 * dim, dim])?)?,
                bias: config.qkv_bias.then(|| qkv.get("bias", &[3 * dim])).transpose()?,
            },
            proj: Linear::new(&attn.at("proj"), dim, dim)?,
            conv2: DepthwiseResidual::new(&w.at("conv2"), dim)?,
            norm2: LayerNorm::new(&w.at("norm2"), dim, LAYER_NORM_EPS)?,
            fc1: Linear::new(&w.at("ffn.fc1"), dim, hidden)?,
            fc2: Linear::new(&w.at("ffn.fc2"), hidden, dim)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.conv1.forward(x)?;
        let x = self.attend(&x, &self.norm1.forward(&x)?)?;
        let x = self.conv2.forward(&x)?;
        feed_forward_of((&self.fc1, &self.fc2), Activation::Gelu, &x, Some(&self.norm2))
    }

    /// `x + attention(normed)`
    fn attend(&self, x: &Tensor, normed: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, height, width, dim) = x.dims4()?;
        match self.kind {
            VisionAttention::Channel { n_groups } => {
                let qkv = self.qkv.forward(normed)?.reshape((batch, height * width, 3 * dim))?;
                self.proj.forward_residual(x, &channel_attention(&qkv, n_groups)?.reshape(x.dims())?)
            }
            VisionAttention::Window { n_heads, window } => {
                // Maps are padded with zeros to whole windows; the padding takes part in the attention.
                let (below, right) =
                    (height.next_multiple_of(window) - height, width.next_multiple_of(window) - width);
                if (below, right) == (0, 0) {
                    let attended = window_attention(&self.qkv.forward(normed)?, n_heads, window)?;
                    return self.proj.forward_residual(x, &attended);
                }
                let padded = normed.pad_with_zeros(1, 0, below)?.pad_with_zeros(2, 0, right)?.contiguous()?;
                let attended = window_attention(&self.qkv.forward(&padded)?, n_heads, window)?;
                let attended = attended.narrow(1, 0, height)?.narrow(2, 0, width)?.contiguous()?;
                self.proj.forward_residual(x, &attended)
            }
        }
    }
}

struct VisionTower {
    stages: Vec<(ConvEmbed, Vec<[VisionBlock; 2]>)>,
}

impl VisionTower {
    fn new(w: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
        let mut stages = Vec::new();
        for (stage, &depth) in config.depths.iter().enumerate() {
            let mut blocks = Vec::new();
            for block in 0..depth {
                let w = w.at("blocks").at(stage).at(block);
                let window =
                    VisionAttention::Window { n_heads: config.num_heads[stage], window: config.window_size };
                let channel = VisionAttention::Channel { n_groups: config.num_groups[stage] };
                blocks.push([
                    VisionBlock::new(&w.at("spatial_block"), config, stage, window)?,
                    VisionBlock::new(&w.at("channel_block"), config, stage, channel)?,
                ]);
            }
            stages.push((ConvEmbed::new(&w.at("convs").at(stage), config, stage)?, blocks));
        }
        Ok(Self { stages })
    }

    /// Pixels [B, H, W, 3] to features [B, h, w, C].
    fn forward(&self, pixels: &Tensor, trace: &mut Trace<'_>) -> candle_core::Result<Tensor> {
        let mut x = pixels.clone();
        for (stage, (embed, blocks)) in self.stages.iter().enumerate() {
            x = embed.forward(&x)?;
            trace.show(|| format!("vision.convs.{stage}"), &x);
            for (block, [spatial, channel]) in blocks.iter().enumerate() {
                x = spatial.forward(&x)?;
                trace.show(|| format!("vision.blocks.{stage}.{block}.spatial_block"), &x);
                x = channel.forward(&x)?;
                trace.show(|| format!("vision.blocks.{stage}.{block}.channel_block"), &x);
            }
        }
        Ok(x)
    }
}

/// `multi_modal_projector`: positions added, mean token prepended, projected to the language model's width.
struct Projector {
    image_projection: Tensor,
    image_proj_norm: LayerNorm,
    row_embeddings: Tensor,
    column_embeddings: Tensor,
    /// The embedding of the only frame, [C].
    temporal: Tensor,
}

impl Projector {
    fn new(w: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
        let dim = config.embed_dim.last().copied().unwrap_or_default();
        let positions = w.at("image_position_embed");
        let n_positions = config.max_position_embeddings;
        let temporal =
            w.get("visual_temporal_embed.pos_idx_to_embed", &[config.max_temporal_embeddings, dim])?;
        Ok(Self {
            image_projection: w.get("image_projection.weight", &[config.projection_dim, dim])?,
            image_proj_norm: LayerNorm::new(&w.at("image_proj_norm"), config.projection_dim, LAYER_NORM_EPS)?,
            row_embeddings: positions.get("row_embeddings.weight", &[n_positions, dim / 2])?,
            column_embeddings: positions.get("column_embeddings.weight", &[n_positions, dim - dim / 2])?,
            temporal: temporal.get(0)?.contiguous()?,
        })
    }

    /// Features [B, h, w, C] to image tokens `[B, 1 + h * w, d_model]`, the mean token first.
    fn forward(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, height, width, dim) = features.dims4()?;
        let columns = self.column_embeddings.narrow(0, 0, width)?.unsqueeze(0)?;
        let rows = self.row_embeddings.narrow(0, 0, height)?.unsqueeze(1)?;
        let columns = columns.broadcast_as((height, width, columns.dim(2)?))?;
        let rows = rows.broadcast_as((height, width, rows.dim(2)?))?;
        let positions = Tensor::cat(&[columns, rows], D::Minus1)?.broadcast_add(&self.temporal)?;
        let tokens = features.broadcast_add(&positions)?.reshape((batch, height * width, dim))?;
        let tokens = Tensor::cat(&[&mean_token(&tokens)?, &tokens], 1)?;
        self.image_proj_norm.forward(&linear(&tokens, &self.image_projection, None, Activation::None, None)?)
    }
}

/// The mean of `[B, N, C]` over N, `[B, 1, C]`. A sum of hundreds of values has no place in 16 bits.
fn mean_token(tokens: &Tensor) -> candle_core::Result<Tensor> {
    tokens.to_dtype(DType::F32)?.mean_keepdim(1)?.to_dtype(tokens.dtype())
}

// ---------------------------------------------------------------------------------------------------------------------
// Language model: BART, sequences [B, N, d_model], normalization after each residual

struct Attention {
    n_heads: usize,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
}

impl Attention {
    fn new(w: &Weights<'_>, dim: usize, n_heads: usize) -> Result<Self> {
        let linear = |name| Linear::new(&w.at(name), dim, dim);
        Ok(Self {
            n_heads,
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
        })
    }

    fn keys_and_values(&self, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        Ok((self.k_proj.forward(x)?, self.v_proj.forward(x)?))
    }

    /// `x + attention(x; keys, values)`
    fn forward_residual(
        &self,
        x: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        visible: &AttentionMask,
    ) -> candle_core::Result<Tensor> {
        let attended = attention(
            &self.q_proj.forward(x)?,
            keys,
            values,
            self.n_heads,
            visible,
            self.q_proj.precision(),
        )?;
        self.out_proj.forward_residual(x, &attended)
    }
}

struct FeedForward {
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
}

impl FeedForward {
    fn new(w: &Weights<'_>, dim: usize, hidden: usize) -> Result<Self> {
        Ok(Self {
            fc1: Linear::new(&w.at("fc1"), dim, hidden)?,
            fc2: Linear::new(&w.at("fc2"), hidden, dim)?,
            final_layer_norm: LayerNorm::new(&w.at("final_layer_norm"), dim, LAYER_NORM_EPS)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.final_layer_norm.forward(&feed_forward_of((&self.fc1, &self.fc2), Activation::Gelu, x, None)?)
    }
}

struct EncoderLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    feed_forward: FeedForward,
}

impl EncoderLayer {
    fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
        Ok(Self {
            self_attn: Attention::new(&w.at("self_attn"), config.d_model, config.encoder_attention_heads)?,
            self_attn_layer_norm: LayerNorm::new(
                &w.at("self_attn_layer_norm"),
                config.d_model,
                LAYER_NORM_EPS,
            )?,
            feed_forward: FeedForward::new(w, config.d_model, config.encoder_ffn_dim)?,
        })
    }

    fn forward(&self, x: &Tensor, visible: &AttentionMask) -> candle_core::Result<Tensor> {
        let (keys, values) = self.self_attn.keys_and_values(x)?;
        let x = self.self_attn.forward_residual(x, &keys, &values, visible)?;
        self.feed_forward.forward(&self.self_attn_layer_norm.forward(&x)?)
    }
}

struct DecoderLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    encoder_attn: Attention,
    encoder_attn_layer_norm: LayerNorm,
    feed_forward: FeedForward,
}

impl DecoderLayer {
    fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
        let (dim, n_heads) = (config.d_model, config.decoder_attention_heads);
        Ok(Self {
            self_attn: Attention::new(&w.at("self_attn"), dim, n_heads)?,
            self_attn_layer_norm: LayerNorm::new(&w.at("self_attn_layer_norm"), dim, LAYER_NORM_EPS)?,
            encoder_attn: Attention::new(&w.at("encoder_attn"), dim, n_heads)?,
            encoder_attn_layer_norm: LayerNorm::new(&w.at("encoder_attn_layer_norm"), dim, LAYER_NORM_EPS)?,
            feed_forward: FeedForward::new(w, dim, config.decoder_ffn_dim)?,
        })
    }
}

/// The tables and the first normalization that encoder and decoder each have.
struct SequenceStart {
    embed_positions: Tensor,
    layernorm_embedding: LayerNorm,
}

impl SequenceStart {
    fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
        let n_positions = config.max_position_embeddings + POSITION_OFFSET;
        Ok(Self {
            embed_positions: w.get("embed_positions.weight", &[n_positions, config.d_model])?,
            layernorm_embedding: LayerNorm::new(
                &w.at("layernorm_embedding"),
                config.d_model,
                LAYER_NORM_EPS,
            )?,
        })
    }

    /// Adds positions `first..` to embeddings `[B, N, d_model]` and normalizes.
    fn forward(&self, embeddings: &Tensor, first: usize) -> candle_core::Result<Tensor> {
        let positions = self.embed_positions.narrow(0, first + POSITION_OFFSET, embeddings.dim(1)?)?;
        self.layernorm_embedding.forward(&embeddings.broadcast_add(&positions)?)
    }
}

/// What the encoder says about one image and some prompts.
#[derive(Clone)]
pub struct Encoded {
    /// `[prompts, 1 + h * w + longest prompt, d_model]`: the mean image token, the grid row-major, the text, padding.
    pub states: Tensor,
    /// Tokens of each row that are not padding.
    pub lengths: Vec<usize>,
    /// Rows and columns of the image's grid.
    pub grid: (usize, usize),
}

/// Image features ready for the encoder: tokens `[1, 1 + h * w, d_model]`, the grid (h, w) and what the dense head needs.
#[derive(Clone)]
pub struct ImageFeatures {
    tokens: Tensor,
    grid: (usize, usize),
    cells: Option<GroundingCells>,
    names: Option<Arc<CellNames>>,
}

impl ImageFeatures {
    /// What the naming head says, if this checkpoint has the head.
    pub fn names(&self) -> Option<&Arc<CellNames>> {
        self.names.as_ref()
    }

    /// Number of tokens the image takes in a prompt.
    pub fn n_tokens(&self) -> usize {
        1 + self.grid.0 * self.grid.1
    }
}

/// Keys and values of one decoder: buffers of fixed size, filled step by step, and the encoder's, computed once.
pub struct DecoderCache {
    layers: Vec<LayerCache>,
    visible_encoder: AttentionMask,
    n_tokens: usize,
    capacity: usize,
}

struct LayerCache {
    self_keys: Tensor,
    self_values: Tensor,
    cross_keys: Tensor,
    cross_values: Tensor,
}

impl DecoderCache {
    /// Number of tokens decoded so far.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Row `i` becomes a copy of the present row `source[i]`: what beam search does to its hypotheses.
    pub fn reorder(&mut self, source: &[u32]) -> Result<()> {
        if source.iter().enumerate().all(|(row, &from)| row == from as usize) {
            return Ok(());
        }
        for layer in &mut self.layers {
            let rows = Tensor::new(source, layer.self_keys.device())?;
            layer.self_keys = layer.self_keys.index_select(&rows, 0)?;
            layer.self_values = layer.self_values.index_select(&rows, 0)?;
        }
        Ok(())
    }
}

/// Scores phrases on the image's grid, in a space that cells and phrases share; see the crate's model card for how it is
/// trained.
struct GroundingHead {
    norm: LayerNorm,
    cell_0: Linear,
    cell_2: Linear,
    cell_bias: Linear,
    box_0: Linear,
    box_2: Linear,
    phrase: Linear,
    phrase_bias: Linear,
    log_scale: Tensor,
}

impl GroundingHead {
    fn new(w: &Weights<'_>, config: &Config, n_embed: usize) -> Result<Self> {
        let n_channels = config.vision_config.embed_dim.last().copied().unwrap_or_default();
        let d_model = config.text_config.d_model;
        Ok(Self {
            norm: LayerNorm::new(&w.at("norm"), n_channels, LAYER_NORM_EPS)?,
            cell_0: Linear::new(&w.at("cell.0"), n_channels, 2 * n_channels)?,
            cell_2: Linear::new(&w.at("cell.2"), 2 * n_channels, n_embed)?,
            cell_bias: Linear::new(&w.at("cell_bias"), n_channels, 1)?,
            box_0: Linear::new(&w.at("box.0"), n_channels, n_channels)?,
            box_2: Linear::new(&w.at("box.2"), n_channels, 4)?,
            phrase: Linear::new(&w.at("phrase"), d_model, n_embed)?,
            phrase_bias: Linear::new(&w.at("phrase_bias"), d_model, 1)?,
            log_scale: w.get("log_scale", &[])?,
        })
    }

    /// The vision tower's map [1, h, w, C] in the shared space.
    fn cells(&self, map: &Tensor) -> Result<GroundingCells> {
        let (_, rows, columns, n_channels) = map.dims4()?;
        let h = self.norm.forward(&map.reshape((rows * columns, n_channels))?)?;
        let vectors = self.cell_2.forward(&self.cell_0.forward_act(&h, Activation::Gelu)?)?;
        // The scale of the cosines is the same for all: it goes into the cells, so that a logit is a product and two biases.
        let scale = self.log_scale.to_dtype(DType::F32)?.exp()?;
        let distances = self.box_2.forward(&self.box_0.forward_act(&h, Activation::Gelu)?)?;
        Ok(GroundingCells {
            vectors: unit_rows(&vectors)?.broadcast_mul(&scale)?,
            bias: self.cell_bias.forward(&h)?.to_dtype(DType::F32)?,
            distances: distances.to_dtype(DType::F32)?,
            grid: (rows, columns),
        })
    }

    /// Encoder states [1, T, d_model] of one phrase to its column of the shared space.
    fn phrase(&self, states: &Tensor) -> Result<GroundingPhrase> {
        let mean = mean_token(states)?.squeeze(1)?;
        Ok(GroundingPhrase {
            vector: unit_rows(&self.phrase.forward(&mean)?)?.t()?.contiguous()?,
            bias: self.phrase_bias.forward(&mean)?.to_dtype(DType::F32)?,
        })
    }
}

/// Names the kind and the color of every cell's object.
struct NamingHead {
    norm: LayerNorm,
    kind: Linear,
    color: Linear,
}

impl NamingHead {
    fn new(w: &Weights<'_>, config: &Config, names: &Names) -> Result<Self> {
        let n_channels = config.vision_config.embed_dim.last().copied().unwrap_or_default();
        Ok(Self {
            norm: LayerNorm::new(&w.at("norm"), n_channels, LAYER_NORM_EPS)?,
            kind: Linear::new(&w.at("kind"), n_channels, names.kinds.len() + 1)?,
            color: Linear::new(&w.at("color"), n_channels, names.colors.len())?,
        })
    }

    fn names(&self, map: &Tensor) -> Result<CellNames> {
        let (_, rows, columns, n_channels) = map.dims4()?;
        let h = self.norm.forward(&map.reshape((rows * columns, n_channels))?)?;
        let probabilities = |head: &Linear| -> Result<Vec<Vec<f32>>> {
            Ok(candle_nn::ops::softmax(&head.forward(&h)?.to_dtype(DType::F32)?, D::Minus1)?.to_vec2()?)
        };
        Ok(CellNames { kinds: probabilities(&self.kind)?, colors: probabilities(&self.color)? })
    }
}

/// What the naming head says about every cell of an image, row-major.
#[derive(Debug, Clone)]
pub struct CellNames {
    /// Probability of each kind; the last is that of no object.
    pub kinds: Vec<Vec<f32>>,
    /// Probability of each color, if there is an object.
    pub colors: Vec<Vec<f32>>,
}

/// Rows of unit length, in f32.
fn unit_rows(x: &Tensor) -> candle_core::Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?)
}

/// What the grounding head says about an image, whatever is asked about it; in f32.
#[derive(Clone)]
struct GroundingCells {
    /// [h * w, embedding], of equal lengths
    vectors: Tensor,
    /// [h * w, 1]
    bias: Tensor,
    /// [h * w, 4]
    distances: Tensor,
    grid: (usize, usize),
}

/// What the grounding head makes of a phrase, whatever the image; in f32.
#[derive(Clone)]
pub struct GroundingPhrase {
    /// [embedding, 1], of unit length
    vector: Tensor,
    /// [1, 1]
    bias: Tensor,
}

/// Raw output of the grounding head for an image.
pub struct DenseGrounding {
    /// [phrases, h * w]
    pub logits: Tensor,
    /// [h * w, 4]: left, top, right, bottom, before softplus and `box_scale`.
    pub distances: Tensor,
    /// (h, w)
    pub grid: (usize, usize),
}

/// The whole network.
pub struct Florence2Network {
    config: Config,
    vision_tower: VisionTower,
    projector: Projector,
    shared: Tensor,
    embed_scale: f64,
    encoder_start: SequenceStart,
    encoder_layers: Vec<EncoderLayer>,
    decoder_start: SequenceStart,
    decoder_layers: Vec<DecoderLayer>,
    lm_head: Matrix,
    logits_bias: Option<Tensor>,
    grounding_head: Option<GroundingHead>,
    naming_head: Option<NamingHead>,
}

impl Florence2Network {
    /// Reads all tensors; `config` must be valid.
    pub fn new(root: &Weights<'_>, config: Config) -> Result<Self> {
        let model = root.at("model");
        let language = model.at("language_model");
        let text = &config.text_config;
        let (encoder, decoder) = (language.at("encoder"), language.at("decoder"));
        let (shared, lm_head) = embeddings(root, &language, text)?;
        let logits_bias = match root.get_if_present("final_logits_bias")? {
            Some(bias) => Some(bias.reshape(text.vocab_size)?),
            None => None,
        };
        let (encoder_layers, decoder_layers) = (encoder.at("layers"), decoder.at("layers"));
        Ok(Self {
            vision_tower: VisionTower::new(&model.at("vision_tower"), &config.vision_config)?,
            projector: Projector::new(&model.at("multi_modal_projector"), &config.vision_config)?,
            shared,
            embed_scale: if text.scale_embedding { (text.d_model as f64).sqrt() } else { 1.0 },
            encoder_start: SequenceStart::new(&encoder, text)?,
            encoder_layers: (0..text.encoder_layers)
                .map(|i| EncoderLayer::new(&encoder_layers.at(i), text))
                .collect::<Result<_>>()?,
            decoder_start: SequenceStart::new(&decoder, text)?,
            decoder_layers: (0..text.decoder_layers)
                .map(|i| DecoderLayer::new(&decoder_layers.at(i), text))
                .collect::<Result<_>>()?,
            lm_head: Matrix::new(root, lm_head)?,
            logits_bias,
            grounding_head: config
                .grounding_head
                .as_ref()
                .map(|head| GroundingHead::new(&root.at("grounding_head"), &config, head.embed_dim))
                .transpose()?,
            naming_head: config
                .grounding_head
                .as_ref()
                .and_then(|head| head.names.as_ref())
                .map(|names| NamingHead::new(&root.at("naming_head"), &config, names))
                .transpose()?,
            config,
        })
    }

    /// What it was built from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where its tensors are.
    pub fn device(&self) -> &Device {
        self.shared.device()
    }

    /// Looks at normalized pixels [1, H, W, 3].
    pub fn encode_image(&self, pixels: &Tensor, trace: &mut Trace<'_>) -> Result<ImageFeatures> {
        let (batch, height, width, channels) = pixels.dims4()?;
        let grid = self.config.grid(height, width);
        let max_grid = self.config.max_grid();
        if (batch, channels) != (1, 3) || grid.0.min(grid.1) == 0 || grid.0.max(grid.1) > max_grid {
            return Err(ModelError::Input(format!(
                "expected one color image whose grid is 1 to {max_grid} cells wide and high, got {:?} with grid {grid:?}",
                pixels.dims()
            )));
        }
        let features = self.vision_tower.forward(&pixels.to_dtype(self.shared.dtype())?, trace)?;
        let tokens = self.projector.forward(&features)?;
        trace.show(|| "projector".into(), &tokens);
        let cells = self.grounding_head.as_ref().map(|head| head.cells(&features)).transpose()?;
        let names = self.naming_head.as_ref().map(|head| head.names(&features).map(Arc::new)).transpose()?;
        Ok(ImageFeatures { tokens, grid, cells, names })
    }

    /// Reads prompts (token ids, without image placeholders) about one image, all in one pass.
    pub fn encode(
        &self,
        image: &ImageFeatures,
        prompts: &[Vec<u32>],
        trace: &mut Trace<'_>,
    ) -> Result<Encoded> {
        let n_image = image.n_tokens();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let (max_len, dim) =
            (self.config.text_config.max_position_embeddings, self.config.text_config.d_model);
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) || n_image + longest > max_len {
            return Err(ModelError::Input(format!(
                "expected prompts of 1 to {} tokens, got {} prompts, the longest of {longest}; use a shorter text",
                max_len.saturating_sub(n_image),
                prompts.len()
            )));
        }
        // Padding rows use token 0; no other row sees them.
        let ids: Vec<u32> =
            prompts.iter().flat_map(|it| it.iter().copied().chain(vec![0; longest - it.len()])).collect();
        let text = self.embed(&ids)?.reshape((prompts.len(), longest, dim))?;
        let tokens = image.tokens.broadcast_as((prompts.len(), n_image, dim))?;
        let lengths: Vec<usize> = prompts.iter().map(|it| n_image + it.len()).collect();
        let visible = AttentionMask::Lengths(lengths.clone());
        let mut x = self.encoder_start.forward(&Tensor::cat(&[&tokens.contiguous()?, &text], 1)?, 0)?;
        trace.show(|| "encoder.start".into(), &x);
        for (i, layer) in self.encoder_layers.iter().enumerate() {
            x = layer.forward(&x, &visible)?;
            trace.show(|| format!("encoder.layers.{i}"), &x);
        }
        Ok(Encoded { states: x, lengths, grid: image.grid })
    }

    /// Starts decoding `n_beams` sequences from row `row` of `encoded`, of up to `capacity` tokens each.
    pub fn start_decoding(
        &self,
        encoded: &Encoded,
        row: usize,
        n_beams: usize,
        capacity: usize,
    ) -> Result<DecoderCache> {
        let length = encoded.lengths[row];
        let states = encoded.states.narrow(0, row, 1)?.narrow(1, 0, length)?.contiguous()?;
        let capacity = capacity.min(self.config.text_config.max_position_embeddings);
        let dim = self.config.text_config.d_model;
        let empty = || Tensor::zeros((n_beams, capacity, dim), states.dtype(), states.device());
        let layers = self.decoder_layers.iter().map(|layer| {
            let (cross_keys, cross_values) = layer.encoder_attn.keys_and_values(&states)?;
            Ok(LayerCache { self_keys: empty()?, self_values: empty()?, cross_keys, cross_values })
        });
        Ok(DecoderCache {
            layers: layers.collect::<candle_core::Result<_>>()?,
            visible_encoder: AttentionMask::Lengths(vec![length]),
            n_tokens: 0,
            capacity,
        })
    }

    /// Appends the same number of tokens to every beam (`ids` beam by beam) and returns the logits after each,
    /// [beams, tokens, vocabulary].
    pub fn decode(&self, cache: &mut DecoderCache, ids: &[u32], trace: &mut Trace<'_>) -> Result<Tensor> {
        let logits = self.head(&self.decode_states(cache, ids, trace)?)?;
        trace.show(|| "logits".into(), &logits);
        Ok(logits)
    }

    /// Logits of decoder states `[.., d_model]` over the vocabulary, in f32.
    pub fn head(&self, states: &Tensor) -> Result<Tensor> {
        let logits = self.lm_head.apply(states, self.logits_bias.as_ref(), Activation::None, None)?;
        Ok(logits.to_dtype(DType::F32)?)
    }

    /// Logits of decoder states `[.., d_model]` for the tokens `ids` only: a small part of the time of [`Self::head`].
    pub fn head_rows(&self, states: &Tensor, ids: std::ops::Range<u32>) -> Result<Tensor> {
        let (first, n) = (ids.start as usize, ids.len());
        let bias = self.logits_bias.as_ref().map(|bias| bias.narrow(0, first, n)).transpose()?;
        Ok(self.lm_head.apply_rows(states, first..first + n, bias.as_ref())?.to_dtype(DType::F32)?)
    }

    /// [`Self::decode`] up to the output projection: [beams, tokens, `d_model`].
    pub fn decode_states(
        &self,
        cache: &mut DecoderCache,
        ids: &[u32],
        trace: &mut Trace<'_>,
    ) -> Result<Tensor> {
        let dim = self.config.text_config.d_model;
        let n_beams = cache.layers.first().map_or(Ok(1), |layer| layer.self_keys.dim(0))?;
        let n_new = ids.len() / n_beams;
        let offset = cache.n_tokens;
        if n_new == 0 || !ids.len().is_multiple_of(n_beams) || offset + n_new > cache.capacity {
            return Err(ModelError::Inference(format!(
                "decoding {} tokens for {n_beams} beams after {offset} of at most {}",
                ids.len(),
                cache.capacity
            )));
        }
        let mut x = self.decoder_start.forward(&self.embed(ids)?.reshape((n_beams, n_new, dim))?, offset)?;
        for (i, (layer, cached)) in self.decoder_layers.iter().zip(&cache.layers).enumerate() {
            let (keys, values) = layer.self_attn.keys_and_values(&x)?;
            cached.self_keys.slice_set(&keys, 1, offset)?;
            cached.self_values.slice_set(&values, 1, offset)?;
            let visible = AttentionMask::Causal { offset };
            x = layer.self_attn.forward_residual(&x, &cached.self_keys, &cached.self_values, &visible)?;
            x = layer.self_attn_layer_norm.forward(&x)?;
            // All beams ask the same encoder states: to the cross-attention they are just more queries.
            let queries = x.reshape((1, n_beams * n_new, dim))?;
            let attended = layer.encoder_attn.forward_residual(
                &queries,
                &cached.cross_keys,
                &cached.cross_values,
                &cache.visible_encoder,
            )?;
            x = layer.encoder_attn_layer_norm.forward(&attended)?.reshape((n_beams, n_new, dim))?;
            x = layer.feed_forward.forward(&x)?;
            trace.show(|| format!("decoder.layers.{i}"), &x);
        }
        cache.n_tokens += n_new;
        Ok(x)
    }

    /// A phrase's token ids (with `<s>` and `</s>`, without any image) in the dense head's space, if this checkpoint has the head.
    pub fn encode_phrase(&self, ids: &[u32]) -> Result<Option<GroundingPhrase>> {
        let Some(head) = &self.grounding_head else { return Ok(None) };
        let (n, max_len) = (ids.len(), self.config.text_config.max_position_embeddings);
        if n == 0 || n > max_len {
            return Err(ModelError::Input(format!(
                "expected a phrase of 1 to {max_len} tokens, got {n}; use a shorter text"
            )));
        }
        let mut x = self.encoder_start.forward(&self.embed(ids)?.unsqueeze(0)?, 0)?;
        let visible = AttentionMask::Lengths(vec![n]);
        for layer in &self.encoder_layers {
            x = layer.forward(&x, &visible)?;
        }
        Ok(Some(head.phrase(&x)?))
    }

    /// The dense head's answer for every phrase, if this checkpoint has the head.
    pub fn ground_densely(
        &self,
        image: &ImageFeatures,
        phrases: &[GroundingPhrase],
    ) -> Result<Option<DenseGrounding>> {
        let Some(cells) = &image.cells else { return Ok(None) };
        let logits = phrases.iter().map(|phrase| {
            let logits = cells.vectors.matmul(&phrase.vector)?.add(&cells.bias)?;
            logits.broadcast_add(&phrase.bias)?.squeeze(1)
        });
        let logits = Tensor::stack(&logits.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        Ok(Some(DenseGrounding { logits, distances: cells.distances.clone(), grid: cells.grid }))
    }

    /// Token ids to embeddings `[ids, d_model]`.
    fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let vocab_size = self.config.text_config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(ModelError::Inference(format!(
                "token id {id} is outside the vocabulary of {vocab_size}"
            )));
        }
        let embeddings = self.shared.index_select(&Tensor::new(ids, self.device())?, 0)?;
        if (self.embed_scale - 1.0).abs() < f64::EPSILON {
            return Ok(embeddings);
        }
        Ok((embeddings * self.embed_scale)?)
    }
}

/// The token embedding and the output projection. They are usually tied, and files store one copy under any of four
/// names, or several equal ones.
fn embeddings(root: &Weights<'_>, language: &Weights<'_>, text: &TextConfig) -> Result<(Tensor, Tensor)> {
    let shape = [text.vocab_size, text.d_model];
    let places = [
        (language, "shared.weight"),
        (language, "encoder.embed_tokens.weight"),
        (language, "decoder.embed_tokens.weight"),
        (root, "lm_head.weight"),
    ];
    let mut found = Vec::new();
    for (place, name) in places {
        if place.contains(name) {
            found.push((name, place.get(name, &shape)?));
        }
    }
    let Some((_, shared)) = found.first().cloned() else {
        // The error names the usual one.
        language.get("shared.weight", &shape)?;
        return Err(ModelError::Inference("unreachable: a missing tensor was loaded".into()));
    };
    let mut lm_head = shared.clone();
    for (name, tensor) in found.drain(1..) {
        if name == "lm_head.weight" {
            lm_head = tensor;
        } else if (&tensor - &shared)?.abs()?.max_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()? > 0.0 {
            return Err(ModelError::Checkpoint {
                path: name.into(),
                problem: "expected the same values as shared.weight".into(),
            });
        }
    }
    Ok((shared, lm_head))
}
