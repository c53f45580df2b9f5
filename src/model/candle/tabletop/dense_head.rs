//! The dense head: every cell of the vision tower's map proposes a box, and says how well each phrase names what is in it.

use candle_core::{D, DType, Tensor};

use crate::model::ModelError;
use crate::model::candle::florence2::config::Config;
use crate::model::candle::florence2::mean_token;
use crate::model::candle::kernels::Activation;
use crate::model::candle::layers::{LayerNorm, Linear};
use crate::model::candle::loading::Weights;

/// Used in every layer normalization.
const LAYER_NORM_EPS: f32 = 1e-5;

type Result<T> = std::result::Result<T, ModelError>;

/// Scores phrases on the image's grid, in a space that cells and phrases share; see the crate's model card for how it is
/// trained.
pub struct DenseHead {
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

impl DenseHead {
    /// Its tensors at `w`; `n_embed` numbers per cell and phrase in the space that they share.
    pub fn new(w: &Weights<'_>, config: &Config, n_embed: usize) -> Result<Self> {
        let (n_channels, d_model) = (config.map_channels(), config.text_width());
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
    pub fn cells(&self, map: &Tensor) -> Result<DenseCells> {
        let (_, rows, columns, n_channels) = map.dims4()?;
        let h = self.norm.forward(&map.reshape((rows * columns, n_channels))?)?;
        let vectors = self.cell_2.forward(&self.cell_0.forward_act(&h, Activation::Gelu)?)?;
        // The scale of the cosines is the same for all: it goes into the cells, so that a logit is a product and two biases.
        let scale = self.log_scale.to_dtype(DType::F32)?.exp()?;
        let distances = self.box_2.forward(&self.box_0.forward_act(&h, Activation::Gelu)?)?;
        Ok(DenseCells {
            vectors: unit_rows(&vectors)?.broadcast_mul(&scale)?,
            bias: self.cell_bias.forward(&h)?.to_dtype(DType::F32)?,
            distances: distances.to_dtype(DType::F32)?,
            grid: (rows, columns),
        })
    }

    /// Encoder states [1, T, d_model] of one phrase to its column of the shared space.
    pub fn phrase(&self, states: &Tensor) -> Result<DensePhrase> {
        let mean = mean_token(states)?.squeeze(1)?;
        Ok(DensePhrase {
            vector: unit_rows(&self.phrase.forward(&mean)?)?.t()?.contiguous()?,
            bias: self.phrase_bias.forward(&mean)?.to_dtype(DType::F32)?,
        })
    }
}

/// The head's answer for every phrase.
pub fn compare(cells: &DenseCells, phrases: &[DensePhrase]) -> Result<DenseGrounding> {
    let logits = phrases.iter().map(|phrase| {
        let logits = cells.vectors.matmul(&phrase.vector)?.add(&cells.bias)?;
        logits.broadcast_add(&phrase.bias)?.squeeze(1)
    });
    let logits = Tensor::stack(&logits.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    Ok(DenseGrounding { logits, distances: cells.distances.clone(), grid: cells.grid })
}

/// Rows of unit length, in f32.
fn unit_rows(x: &Tensor) -> candle_core::Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?)
}

/// What the grounding head says about an image, whatever is asked about it; in f32.
#[derive(Clone)]
pub struct DenseCells {
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
pub struct DensePhrase {
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
