//! The whole network: vision tower, projector, BART encoder and decoder.
//!
//! Paper: Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks", CVPR 2024.
//! Reference implementation: transformers 5.23.0, `models/florence2/modeling_florence2.py` and
//! `models/bart/modeling_bart.py`; tensor names are those of its checkpoints.

use candle_core::{DType, Device, Tensor};

use super::config::Config;
use super::language::{DecoderLayer, EncoderLayer, SequenceStart, embeddings};
use super::trace::Trace;
use super::vision::{Projector, VisionTower};
use crate::model::ModelError;
use crate::model::candle::kernels::{Activation, AttentionMask};
use crate::model::candle::layers::Matrix;
use crate::model::candle::loading::Weights;

type Result<T> = std::result::Result<T, ModelError>;

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

/// Image features: tokens `[1, 1 + h * w, d_model]` ready for the encoder, the grid (h, w), and the vision tower's map
/// [1, h, w, C], which other heads than the language model may read.
#[derive(Clone)]
pub struct ImageFeatures {
    tokens: Tensor,
    grid: (usize, usize),
    map: Tensor,
}

impl ImageFeatures {
    /// The vision tower's map, [1, h, w, C].
    pub fn map(&self) -> &Tensor {
        &self.map
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
        Ok(ImageFeatures { tokens, grid, map: features })
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

    /// The encoder's states `[1, T, d_model]` of a text's token ids (with `<s>` and `</s>`) alone, without any image.
    pub fn encode_text(&self, ids: &[u32]) -> Result<Tensor> {
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
        Ok(x)
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
