//! Models in candle. The only place that names candle.
//!
//! One model, one file ([`florence2`] is the network, [`florence2_config`] and [`florence2_layout`] its file formats,
//! [`florence2_model`] answers with it; likewise [`owlv2`], [`owlv2_image`] and [`owlv2_model`]). Around them: [`device`] (the
//! only `cuda` switch), [`loading`] (strict safetensors), [`preprocess`], [`tokenize`], [`generation`] (greedy decoding, beam search),
//! [`decode`] (tasks, and text to typed results) and [`kernels`] (the operations that decide the speed).

pub mod decode;
pub mod device;
pub mod florence2;
pub mod florence2_config;
pub mod florence2_layout;
pub mod florence2_model;
pub mod generation;
pub mod generation_config;
pub mod kernels;
pub mod loading;
pub mod owlv2;
pub mod owlv2_image;
pub mod owlv2_model;
pub mod preprocess;
pub mod tokenize;

use std::path::Path;

use serde::Deserialize;

use crate::model::{ModelError, ModelOptions, VisionLanguageModel};

/// Loads the model in directory `dir`; config.json's `model_type` picks the code.
/// `device` is `auto`, `cpu`, `cuda` or `cuda:N`; all other options are at their defaults.
pub fn load_model(dir: &Path, device: &str) -> Result<Box<dyn VisionLanguageModel>, ModelError> {
    load_model_with(dir, &ModelOptions { device: device.to_owned(), ..ModelOptions::default() })
}

/// [`load_model`] with all options.
pub fn load_model_with(
    dir: &Path,
    options: &ModelOptions,
) -> Result<Box<dyn VisionLanguageModel>, ModelError> {
    #[derive(Deserialize)]
    struct ModelType {
        model_type: String,
    }
    let device: device::DeviceChoice = options.device.parse()?;
    let config_path = dir.join("config.json");
    if !dir.is_dir() {
        return Err(loading::checkpoint_error(dir, "no such model directory"));
    }
    let ModelType { model_type } = loading::read_json(&config_path)?;
    match model_type.as_str() {
        "florence2" => Ok(Box::new(florence2_model::Florence2::load(dir, device, options)?)),
        "owlv2" => Ok(Box::new(owlv2_model::Owlv2::load(dir, device)?)),
        other => Err(loading::checkpoint_error(
            &config_path,
            format!("model_type {other:?} is not supported; expected \"florence2\" or \"owlv2\""),
        )),
    }
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        Self::Inference(error.to_string())
    }
}
