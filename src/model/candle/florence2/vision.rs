//! `DaViT`, the vision tower, and the projector of its features; maps are [B, H, W, C].

use candle_core::{D, DType, Tensor};

use super::config::VisionConfig;
use super::trace::Trace;
use crate::model::ModelError;
use crate::model::candle::kernels::{
    Activation, channel_attention, depthwise_3x3_residual, linear, window_attention,
};
use crate::model::candle::layers::{Convolution, LayerNorm, Linear, Matrix, feed_forward_of};
use crate::model::candle::loading::Weights;

/// Used in every layer normalization.
const LAYER_NORM_EPS: f32 = 1e-5;

type Result<T> = std::result::Result<T, ModelError>;

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

/// The stages, each behind its patch embedding.
pub(super) struct VisionTower {
    stages: Vec<(ConvEmbed, Vec<[VisionBlock; 2]>)>,
}

impl VisionTower {
    pub(super) fn new(w: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
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
    pub(super) fn forward(&self, pixels: &Tensor, trace: &mut Trace<'_>) -> candle_core::Result<Tensor> {
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
pub(super) struct Projector {
    image_projection: Tensor,
    image_proj_norm: LayerNorm,
    row_embeddings: Tensor,
    column_embeddings: Tensor,
    /// The embedding of the only frame, [C].
    temporal: Tensor,
}

impl Projector {
    pub(super) fn new(w: &Weights<'_>, config: &VisionConfig) -> Result<Self> {
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
    pub(super) fn forward(&self, features: &Tensor) -> candle_core::Result<Tensor> {
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
pub(in crate::model::candle) fn mean_token(tokens: &Tensor) -> candle_core::Result<Tensor> {
    tokens.to_dtype(DType::F32)?.mean_keepdim(1)?.to_dtype(tokens.dtype())
}
