//! What our own checkpoints add to Florence-2's config.json.

use std::path::Path;

use serde::Deserialize;

use super::names::Names;
use crate::model::ModelError;
use crate::model::candle::loading::{checkpoint_error, read_json};

/// How the dense head's output becomes boxes and scores.
#[derive(Debug, Clone, Deserialize)]
pub struct DenseHeadConfig {
    /// Numbers per cell and phrase in the space that they share.
    pub embed_dim: usize,
    /// Distance, as a fraction of the image, that one unit of softplus output stands for.
    pub box_scale: f64,
    /// Logit to probability.
    pub calibration: Calibration,
    /// Boxes that overlap a better one by more than this are dropped.
    pub nms_iou: f64,
    /// What it has names for: captions are made of these.
    pub names: Option<Names>,
}

/// Platt scaling: score = sigmoid(scale * logit + bias).
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Calibration {
    /// Factor on the logit.
    pub scale: f64,
    /// Added to it.
    pub bias: f64,
}

impl DenseHeadConfig {
    /// Reads `grounding_head` of config.json.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct Config {
            grounding_head: DenseHeadConfig,
        }
        let Config { grounding_head: head } = read_json(path)?;
        let numbers = [head.box_scale, head.calibration.scale, head.calibration.bias, head.nms_iou];
        if numbers.iter().any(|number| !number.is_finite()) || head.box_scale <= 0.0 || head.embed_dim == 0 {
            let problem = "grounding_head: expected finite numbers, box_scale > 0 and embed_dim > 0";
            return Err(checkpoint_error(path, problem));
        }
        Ok(head)
    }
}
