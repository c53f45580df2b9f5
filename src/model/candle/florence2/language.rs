//! BART, the language model: sequences [B, N, `d_model`], normalization after each residual.

use candle_core::{DType, Tensor};

use super::config::TextConfig;
use crate::model::ModelError;
use crate::model::candle::kernels::{Activation, AttentionMask, attention};
use crate::model::candle::layers::{LayerNorm, Linear, feed_forward_of};
use crate::model::candle::loading::Weights;

/// Used in every layer normalization.
const LAYER_NORM_EPS: f32 = 1e-5;
/// BART's learned positions begin at row 2 of the table.
const POSITION_OFFSET: usize = 2;

type Result<T> = std::result::Result<T, ModelError>;

pub(super) struct Attention {
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

    pub(super) fn keys_and_values(&self, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        Ok((self.k_proj.forward(x)?, self.v_proj.forward(x)?))
    }

    /// `x + attention(x; keys, values)`
    pub(super) fn forward_residual(
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

pub(super) struct FeedForward {
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

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.final_layer_norm.forward(&feed_forward_of((&self.fc1, &self.fc2), Activation::Gelu, x, None)?)
    }
}

pub(super) struct EncoderLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    feed_forward: FeedForward,
}

impl EncoderLayer {
    pub(super) fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
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

    pub(super) fn forward(&self, x: &Tensor, visible: &AttentionMask) -> candle_core::Result<Tensor> {
        let (keys, values) = self.self_attn.keys_and_values(x)?;
        let x = self.self_attn.forward_residual(x, &keys, &values, visible)?;
        self.feed_forward.forward(&self.self_attn_layer_norm.forward(&x)?)
    }
}

pub(super) struct DecoderLayer {
    pub(super) self_attn: Attention,
    pub(super) self_attn_layer_norm: LayerNorm,
    pub(super) encoder_attn: Attention,
    pub(super) encoder_attn_layer_norm: LayerNorm,
    pub(super) feed_forward: FeedForward,
}

impl DecoderLayer {
    pub(super) fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
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
pub(super) struct SequenceStart {
    embed_positions: Tensor,
    layernorm_embedding: LayerNorm,
}

impl SequenceStart {
    pub(super) fn new(w: &Weights<'_>, config: &TextConfig) -> Result<Self> {
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
    pub(super) fn forward(&self, embeddings: &Tensor, first: usize) -> candle_core::Result<Tensor> {
        let positions = self.embed_positions.narrow(0, first + POSITION_OFFSET, embeddings.dim(1)?)?;
        self.layernorm_embedding.forward(&embeddings.broadcast_add(&positions)?)
    }
}

/// The token embedding and the output projection. They are usually tied, and files store one copy under any of four
/// names, or several equal ones.
pub(super) fn embeddings(
    root: &Weights<'_>,
    language: &Weights<'_>,
    text: &TextConfig,
) -> Result<(Tensor, Tensor)> {
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
    let shared = match found.first() {
        Some((_, first)) => first.clone(),
        // The error names the usual one.
        None => language.get("shared.weight", &shape)?,
    };
    let mut lm_head = shared.clone();
    for (name, tensor) in found.into_iter().skip(1) {
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
