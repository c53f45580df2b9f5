//! The naming head: what every cell of the vision tower's map shows, in words that it was taught.

use candle_core::{D, DType, Tensor};

use crate::model::ModelError;
use crate::model::candle::layers::{LayerNorm, Linear};
use crate::model::candle::loading::Weights;

/// Used in the layer normalization.
const LAYER_NORM_EPS: f32 = 1e-5;

type Result<T> = std::result::Result<T, ModelError>;

/// Names the kind and the color of every cell's object.
pub struct NamingHead {
    norm: LayerNorm,
    kind: Linear,
    color: Linear,
}

impl NamingHead {
    /// Its tensors at `w`, for a map of `n_channels`.
    pub fn new(w: &Weights<'_>, n_channels: usize, n_kinds: usize, n_colors: usize) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::new(&w.at("norm"), n_channels, LAYER_NORM_EPS)?,
            kind: Linear::new(&w.at("kind"), n_channels, n_kinds + 1)?,
            color: Linear::new(&w.at("color"), n_channels, n_colors)?,
        })
    }

    /// What it says about the vision tower's map [1, h, w, C].
    pub fn names(&self, map: &Tensor) -> Result<CellNames> {
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
