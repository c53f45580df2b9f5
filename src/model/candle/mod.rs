//! Models in candle. The only place that names candle.
//!
//! One model, one folder: [`florence2`], [`tabletop`] (ours, on Florence-2's network), [`owlv2`]; [`contrastive`] wraps CLIP and SigLIP
//! of candle-transformers. None of them knows another, but for `tabletop`, and nothing here knows which there are:
//! that is [`crate::model::registry`]'s. What they share: [`device`] (the only `cuda` switch), [`loading`] (strict safetensors),
//! [`preprocess`], [`tokenize`], [`generation`] (greedy decoding and beam search for any decoder) and [`kernels`] (the operations that
//! decide the speed).

pub mod contrastive;
pub mod device;
pub mod florence2;
mod frame_cache;
pub mod generation;
pub mod generation_config;
pub mod kernels;
mod layers;
pub mod loading;
pub mod owlv2;
pub mod preprocess;
pub mod tabletop;
pub mod tokenize;

use crate::model::ModelError;

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        Self::Inference(error.to_string())
    }
}
