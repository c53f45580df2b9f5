//! Models in candle. The only place that names candle.
//!
//! One model, one file ([`florence2`] is the network, [`florence2_config`] and [`florence2_layout`] its file formats,
//! [`florence2_model`] answers with it, [`florence2_names`] words from boxes; likewise [`owlv2`], [`owlv2_image`] and [`owlv2_model`]; [`contrastive`] wraps CLIP and
//! SigLIP of candle-transformers). Around them: [`device`] (the
//! only `cuda` switch), [`loading`] (strict safetensors), [`preprocess`], [`tokenize`], [`generation`] (greedy decoding, beam search),
//! [`decode`] (tasks, and text to typed results) and [`kernels`] (the operations that decide the speed).

pub mod contrastive;
pub mod decode;
pub mod device;
pub mod florence2;
pub mod florence2_config;
pub mod florence2_layout;
pub mod florence2_model;
pub mod florence2_names;
mod frame_cache;
pub mod generation;
pub mod generation_config;
pub mod kernels;
mod layers;
pub mod loading;
pub mod owlv2;
pub mod owlv2_image;
pub mod owlv2_model;
pub mod preprocess;
pub mod tokenize;

use std::path::Path;

use serde::Deserialize;

use crate::model::agreement::AgreeingModels;
use crate::model::hub::FetchProgress;
use crate::model::locate::locate_model;
use crate::model::verified::VerifiedModel;
use crate::model::{ModelError, ModelOptions, Verifier, VisionLanguageModel};

/// Values of config.json's `model_type` that can be loaded.
pub const MODEL_TYPES: &[&str] = &["florence2", "owlv2", "clip", "siglip", "siglip2"];

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
    let mut model = load_grounder(dir, options)?;
    if !options.second_model.is_empty() {
        let second = load_grounder(&locate_model(&options.second_model, &mut |_| {})?, options)?;
        model = Box::new(AgreeingModels::new(model, second));
    }
    if options.verifier.is_empty() {
        return Ok(model);
    }
    let verifier = load_verifier(&locate_model(&options.verifier, &mut |_| {})?, &options.device)?;
    Ok(Box::new(VerifiedModel::new(model, verifier)))
}

/// [`load_model_with`], the model and those beside it by name or directory as [`locate_model`] finds them; `on_progress` is told
/// which of them is being downloaded, and how far that is.
pub fn load_model_by_name(
    name: &str,
    options: &ModelOptions,
    on_progress: &mut dyn FnMut(&str, FetchProgress<'_>),
) -> Result<Box<dyn VisionLanguageModel>, ModelError> {
    let dir = locate_model(name, &mut |progress| on_progress(name, progress))?;
    for beside in [&options.second_model, &options.verifier].into_iter().filter(|it| !it.is_empty()) {
        // Into the cache, where loading finds it.
        locate_model(beside, &mut |progress| on_progress(beside, progress))?;
    }
    load_model_with(&dir, options)
}

fn load_grounder(dir: &Path, options: &ModelOptions) -> Result<Box<dyn VisionLanguageModel>, ModelError> {
    let device: device::DeviceChoice = options.device.parse()?;
    let model_type = model_type(dir)?;
    match model_type.as_str() {
        "florence2" => Ok(Box::new(florence2_model::Florence2::load(dir, device, options)?)),
        "owlv2" => Ok(Box::new(owlv2_model::Owlv2::load(dir, device, options)?)),
        "clip" | "siglip" | "siglip2" => {
            Ok(Box::new(contrastive::Contrastive::load(dir, device, &model_type)?))
        }
        other => Err(unsupported(
            dir,
            other,
            "florence2, owlv2, or clip, siglip or siglip2 to compare images with texts",
        )),
    }
}

/// Loads the model in directory `dir` as a verifier.
pub fn load_verifier(dir: &Path, device: &str) -> Result<Box<dyn Verifier>, ModelError> {
    let device: device::DeviceChoice = device.parse()?;
    let model_type = model_type(dir)?;
    match model_type.as_str() {
        "clip" | "siglip" | "siglip2" => {
            Ok(Box::new(contrastive::Contrastive::load(dir, device, &model_type)?))
        }
        other => Err(unsupported(dir, other, "clip, siglip or siglip2 for a verifier")),
    }
}

fn model_type(dir: &Path) -> Result<String, ModelError> {
    #[derive(Deserialize)]
    struct ModelType {
        model_type: String,
    }
    if !dir.is_dir() {
        return Err(loading::checkpoint_error(dir, "no such model directory"));
    }
    Ok(loading::read_json::<ModelType>(&dir.join("config.json"))?.model_type)
}

fn unsupported(dir: &Path, got: &str, expected: &str) -> ModelError {
    let problem = format!("model_type {got:?} is not supported; expected {expected}");
    loading::checkpoint_error(&dir.join("config.json"), problem)
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        Self::Inference(error.to_string())
    }
}
