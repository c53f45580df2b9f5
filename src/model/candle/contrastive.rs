//! CLIP and SigLIP as verifiers: a picture and a text in one space. The networks are candle-transformers' modules; reading the
//! checkpoint strictly, tokens, pixels and caches are ours.
//!
//! Papers: Radford et al. 2021 (CLIP), Zhai et al. 2023 (SigLIP), Tschannen et al. 2025 (SigLIP 2, its fixed-resolution
//! checkpoints). Reference implementation: transformers 5.23.0, `models/clip` and `models/siglip`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{D, DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use candle_transformers::models::{clip, siglip};
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::device::DeviceChoice;
use super::loading::{Checkpoint, checkpoint_error, read_json};
use super::preprocess::{Filter, resize};
use super::tokenize::open_cutting_tokenizer;
use crate::image::RgbImage;
use crate::model::hub::shown_name;
use crate::model::{
    KeyedImage, Model, ModelError, ModelInfo, ModelOptions, Probe, RawTask, RawTaskOutput, Verifier,
};

/// Texts whose embeddings are kept.
const MAX_CACHED_TEXTS: usize = 4096;

/// Loads a model directory of CLIP in the hub's layout: config.json, `preprocessor_config.json`, tokenizer.json, model.safetensors.
pub fn load_clip(dir: &Path, options: &ModelOptions) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Contrastive::load(dir, options.device.parse()?, "clip")?))
}

/// Loads a model directory of SigLIP or SigLIP 2, likewise.
pub fn load_siglip(dir: &Path, options: &ModelOptions) -> Result<Box<dyn Model>, ModelError> {
    let ModelType { model_type } = read_json(&dir.join("config.json"))?;
    Ok(Box::new(Contrastive::load(dir, options.device.parse()?, &model_type)?))
}

#[derive(Deserialize)]
struct ModelType {
    model_type: String,
}

/// A loaded CLIP or SigLIP.
pub struct Contrastive {
    info: ModelInfo,
    device: Device,
    network: Network,
    tokenizer: TextProcessor,
    image_processor: CropProcessor,
    logit_scale: f32,
    logit_bias: f32,
    cached_texts: HashMap<String, Vec<f32>>,
}

enum Network {
    Clip(Box<clip::ClipModel>),
    Siglip(Box<siglip::Model>),
}

impl Contrastive {
    /// `model_type` is config.json's: clip, siglip or siglip2.
    fn load(dir: &Path, device: DeviceChoice, model_type: &str) -> Result<Self, ModelError> {
        let config_path = dir.join("config.json");
        let problem = |problem: String| checkpoint_error(&config_path, problem);
        let (device, device_name) = device.open()?;
        let checkpoint = Checkpoint::open(dir, &device)?;
        checkpoint.allow_unused(".embeddings.position_ids");
        let refused = Mutex::new(None);
        let strict = Strict { checkpoint: &checkpoint, refused: &refused };
        let weights = VarBuilder::from_backend(Box::new(strict), DType::F32, device.clone());
        let failed = |error: candle_core::Error| {
            let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            refused.unwrap_or_else(|| checkpoint_error(dir, error.to_string()))
        };
        let (network, side, tokenizer) = if model_type == "clip" {
            let config: ClipConfig = read_json(&config_path)?;
            let side = config.vision_config.image_size;
            let tokenizer = TextProcessor::clip(dir, config.text_config.max_position_embeddings)?;
            let config = config.for_candle().map_err(problem)?;
            let network = clip::ClipModel::new(weights.clone(), &config).map_err(failed)?;
            (Network::Clip(Box::new(network)), side, tokenizer)
        } else {
            let config: SiglipConfig = read_json(&config_path)?;
            if config.vision_config.model_type.as_deref() == Some("siglip2_vision_model") {
                return Err(problem(
                    "vision_config.model_type \"siglip2_vision_model\" (NaFlex, images of any shape) is not supported; take a \
                     checkpoint of fixed resolution such as siglip2-base-patch16-224"
                        .to_owned(),
                ));
            }
            let config: siglip::Config = read_json(&config_path)?;
            let side = config.vision_config.image_size;
            let tokenizer = TextProcessor::siglip(dir, &config.text_config)?;
            let network = siglip::Model::new(&config, weights.clone()).map_err(failed)?;
            (Network::Siglip(Box::new(network)), side, tokenizer)
        };
        // Of one element: CLIP's scale is a scalar, SigLIP's and its bias are vectors.
        let single = |name: &str| -> Result<f32, ModelError> {
            let tensor = checkpoint.root().get_if_present(name)?;
            let tensor =
                tensor.ok_or_else(|| checkpoint_error(dir, format!("tensor {name:?} is missing")))?;
            tensor.reshape(1).and_then(|it| it.get(0)?.to_scalar()).map_err(|_| {
                checkpoint_error(
                    dir,
                    format!("tensor {name:?}: expected one number, got {:?}", tensor.dims()),
                )
            })
        };
        let logit_scale = single("logit_scale")?.exp();
        let logit_bias = if model_type == "clip" { 0.0 } else { single("logit_bias")? };
        drop(weights);
        checkpoint.finish()?;
        let name = shown_name(dir);
        Ok(Self {
            info: ModelInfo {
                name,
                model_type: model_type.to_owned(),
                device: device_name,
                synthetic: false,
                input_side: None,
                is_told: false,
            },
            device,
            network,
            tokenizer,
            image_processor: CropProcessor::open(dir, side)?,
            logit_scale,
            logit_bias,
            cached_texts: HashMap::new(),
        })
    }

    /// Scores of texts for a picture, in their order: cosine, logit, probability.
    fn compare(&mut self, image: &RgbImage, texts: &[&str]) -> Result<Vec<(f32, f32, f32)>, ModelError> {
        let image = self.embed_image(image)?;
        let cosines = texts
            .iter()
            .map(|text| Ok(dot(&image, &self.embed_text(text)?)))
            .collect::<Result<Vec<f32>, ModelError>>()?;
        let logits: Vec<f32> = cosines.iter().map(|&cosine| self.logit(cosine)).collect();
        let probabilities = self.probabilities(&logits);
        Ok(cosines.into_iter().zip(logits).zip(probabilities).map(|((c, l), p)| (c, l, p)).collect())
    }
}

impl Model for Contrastive {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn verifier(&mut self) -> Option<&mut dyn Verifier> {
        Some(self)
    }

    fn probe(&mut self) -> Option<&mut dyn Probe> {
        Some(self)
    }
}

impl Verifier for Contrastive {
    fn embed_image(&mut self, image: &RgbImage) -> Result<Vec<f32>, ModelError> {
        let pixels = self.image_processor.process(image, &self.device)?;
        let features = match &self.network {
            Network::Clip(network) => network.get_image_features(&pixels)?,
            Network::Siglip(network) => network.get_image_features(&pixels)?,
        };
        unit_length(&features)
    }

    fn embed_text(&mut self, text: &str) -> Result<Vec<f32>, ModelError> {
        if let Some(embedded) = self.cached_texts.get(text) {
            return Ok(embedded.clone());
        }
        let ids = Tensor::new(self.tokenizer.ids(text)?, &self.device)?.unsqueeze(0)?;
        let features = match &self.network {
            Network::Clip(network) => network.get_text_features(&ids)?,
            Network::Siglip(network) => network.get_text_features(&ids)?,
        };
        let embedded = unit_length(&features)?;
        if self.cached_texts.len() == MAX_CACHED_TEXTS {
            self.cached_texts.clear();
        }
        self.cached_texts.insert(text.to_owned(), embedded.clone());
        Ok(embedded)
    }

    fn logit(&self, cosine: f32) -> f32 {
        cosine * self.logit_scale + self.logit_bias
    }

    fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        match self.network {
            Network::Siglip(_) => logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
            Network::Clip(_) => {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
                logits.iter().map(|logit| (logit - largest).exp() / sum).collect()
            }
        }
    }
}

impl Probe for Contrastive {
    /// `verify`: the texts (separated by `;`) compared with the image.
    fn raw_task(&mut self, image: KeyedImage<'_>, task: &RawTask<'_>) -> Result<RawTaskOutput, ModelError> {
        if task.name != "verify" {
            return Err(ModelError::Input(format!("task {:?}: a verifier knows verify", task.name)));
        }
        let texts = task.texts();
        if texts.is_empty() {
            return Err(ModelError::Input(
                "task verify: expected --text with what to compare, such as \"red cup;laptop\"".into(),
            ));
        }
        let compared = rayon::scope(|_| self.compare(image.image, &texts))?;
        let parsed = texts.iter().zip(compared).map(|(text, (cosine, logit, probability))| {
            serde_json::json!({ "text": text, "cosine": cosine, "logit": logit, "probability": probability })
        });
        Ok(RawTaskOutput {
            task: task.name.to_owned(),
            prompt: texts.join(";"),
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            text: String::new(),
            parsed: parsed.collect(),
        })
    }
}

fn unit_length(features: &Tensor) -> Result<Vec<f32>, ModelError> {
    let norm = features.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    let values: Vec<f32> = features.broadcast_div(&norm)?.flatten_all()?.to_vec1()?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(ModelError::Inference("the embedding is not finite".into()));
    }
    Ok(values)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Lets candle's modules read from our strict checkpoint.
struct Strict<'a> {
    checkpoint: &'a Checkpoint,
    /// Why a tensor was refused: candle's errors keep only text.
    refused: &'a Mutex<Option<ModelError>>,
}

impl Strict<'_> {
    fn told<T>(&self, result: Result<T, ModelError>) -> candle_core::Result<T> {
        result.map_err(|error| {
            let told = candle_core::Error::Msg(error.to_string());
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            told
        })
    }
}

impl SimpleBackend for Strict<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        self.told(self.checkpoint.root().get(name, shape.dims()))?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> candle_core::Result<Tensor> {
        let tensor = self.told(self.checkpoint.root().get_if_present(name))?;
        tensor.ok_or_else(|| candle_core::Error::Msg(format!("tensor {name:?} is missing")))?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.checkpoint.root().contains(name)
    }
}

/// config.json of CLIP; keys left out have the reference's defaults.
#[derive(Deserialize)]
struct ClipConfig {
    #[serde(default)]
    text_config: ClipTextConfig,
    #[serde(default)]
    vision_config: ClipVisionConfig,
    #[serde(default = "default_clip_projection")]
    projection_dim: usize,
}

#[derive(Deserialize)]
#[serde(default)]
struct ClipTextConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

#[derive(Deserialize)]
#[serde(default)]
struct ClipVisionConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

fn default_clip_projection() -> usize {
    512
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipConfig {
    fn for_candle(self) -> Result<clip::ClipConfig, String> {
        let (text, vision) = (self.text_config, self.vision_config);
        for (key, act, eps) in [
            ("text_config", &text.hidden_act, text.layer_norm_eps),
            ("vision_config", &vision.hidden_act, vision.layer_norm_eps),
        ] {
            if act != "quick_gelu" || eps != 1e-5 {
                return Err(format!(
                    "{key}: expected hidden_act \"quick_gelu\" and layer_norm_eps 1e-5, got {act:?} and {eps:e}"
                ));
            }
        }
        Ok(clip::ClipConfig {
            text_config: clip::text_model::ClipTextConfig {
                vocab_size: text.vocab_size,
                embed_dim: text.hidden_size,
                activation: clip::text_model::Activation::QuickGelu,
                intermediate_size: text.intermediate_size,
                max_position_embeddings: text.max_position_embeddings,
                pad_with: None,
                num_hidden_layers: text.num_hidden_layers,
                num_attention_heads: text.num_attention_heads,
                projection_dim: self.projection_dim,
            },
            vision_config: clip::vision_model::ClipVisionConfig {
                embed_dim: vision.hidden_size,
                activation: clip::text_model::Activation::QuickGelu,
                intermediate_size: vision.intermediate_size,
                num_hidden_layers: vision.num_hidden_layers,
                num_attention_heads: vision.num_attention_heads,
                projection_dim: self.projection_dim,
                num_channels: 3,
                image_size: vision.image_size,
                patch_size: vision.patch_size,
            },
            logit_scale_init_value: 0.0,
            image_size: vision.image_size,
        })
    }
}

/// What of SigLIP's config.json candle's own type does not look at.
#[derive(Deserialize)]
struct SiglipConfig {
    #[serde(default)]
    vision_config: SiglipVisionConfig,
}

#[derive(Deserialize, Default)]
struct SiglipVisionConfig {
    model_type: Option<String>,
}

/// Text to token ids.
struct TextProcessor {
    tokenizer: Tokenizer,
    /// SigLIP reads its answer at the last place, so every text is filled up to the same length with this token.
    padding: Option<(u32, usize)>,
}

impl TextProcessor {
    fn clip(dir: &Path, max_length: usize) -> Result<Self, ModelError> {
        Ok(Self { tokenizer: open_cutting_tokenizer(dir, max_length)?, padding: None })
    }

    fn siglip(dir: &Path, config: &siglip::TextConfig) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::from_file(dir.join("tokenizer.json"));
        let of_file = tokenizer.ok().and_then(|it| it.get_padding().map(|padding| padding.pad_id));
        let tokenizer = open_cutting_tokenizer(dir, config.max_position_embeddings)?;
        let pad_id = of_file.or_else(|| tokenizer.token_to_id("<pad>")).unwrap_or(config.pad_token_id);
        Ok(Self { tokenizer, padding: Some((pad_id, config.max_position_embeddings)) })
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let text = if self.padding.is_some() { canonical(text) } else { text.to_owned() };
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|error| ModelError::Input(format!("the text cannot be tokenized: {error}")))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some((pad_id, length)) = self.padding {
            ids.resize(length, pad_id);
        }
        Ok(ids)
    }
}

/// SigLIP's texts were lower-cased and had their punctuation removed (`canonicalize_text` of its tokenizer).
fn canonical(text: &str) -> String {
    let kept: String = text.chars().filter(|it| !it.is_ascii_punctuation()).collect();
    kept.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Pictures to model input, as `CLIPImageProcessor` and `SiglipImageProcessor` with Pillow do.
struct CropProcessor {
    side: u32,
    /// CLIP: the shorter side becomes `side`, the middle is cut out. SigLIP: resized to the square whatever the shape.
    keeps_aspect: bool,
    filter: Filter,
    scale: [f32; 3],
    offset: [f32; 3],
}

#[derive(Deserialize)]
struct RawProcessor {
    size: Size,
    crop_size: Option<Size>,
    do_center_crop: Option<bool>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    resample: Option<u32>,
    image_mean: [f64; 3],
    image_std: [f64; 3],
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Shortest(u32),
    ShortestEdge { shortest_edge: u32 },
    Square { height: u32, width: u32 },
}

impl CropProcessor {
    fn open(dir: &Path, side: usize) -> Result<Self, ModelError> {
        let path = dir.join("preprocessor_config.json");
        let raw: RawProcessor = read_json(&path)?;
        let problem = |problem: String| checkpoint_error(&path, problem);
        let (keeps_aspect, size) = match raw.size {
            Size::Shortest(side) | Size::ShortestEdge { shortest_edge: side } => (true, [side, side]),
            Size::Square { height, width } => (false, [height, width]),
        };
        let crop = match raw.crop_size {
            Some(Size::Shortest(side) | Size::ShortestEdge { shortest_edge: side }) => [side, side],
            Some(Size::Square { height, width }) => [height, width],
            None => size,
        };
        let side = side as u32;
        if size != [side, side] || (keeps_aspect && crop != size) {
            return Err(problem(format!(
                "size {size:?} and crop_size {crop:?}: expected {side}, the image_size of config.json"
            )));
        }
        let steps = [raw.do_resize, raw.do_rescale, raw.do_normalize];
        if steps.contains(&Some(false)) || raw.do_center_crop.is_some_and(|crops| crops != keeps_aspect) {
            return Err(problem(
                "expected do_resize, do_rescale and do_normalize, and do_center_crop only with a shortest edge".into(),
            ));
        }
        if raw.image_std.iter().any(|std| !std.is_finite() || *std <= 0.0) {
            return Err(problem("expected positive image_std".into()));
        }
        let number = raw.resample.unwrap_or(3);
        let filter = Filter::of_pillow(number)
            .ok_or_else(|| problem(format!("resample {number}: expected 2 (bilinear) or 3 (bicubic)")))?;
        Ok(Self {
            side,
            keeps_aspect,
            filter,
            scale: std::array::from_fn(|c| (1.0 / (255.0 * raw.image_std[c])) as f32),
            offset: std::array::from_fn(|c| (raw.image_mean[c] / raw.image_std[c]) as f32),
        })
    }

    /// [1, 3, side, side], as candle's modules take it.
    fn process(&self, image: &RgbImage, device: &Device) -> Result<Tensor, ModelError> {
        let (width, height) = image.dimensions();
        let side = self.side;
        let (width, height) = if self.keeps_aspect && width > 0 && height > 0 {
            let (short, long) = (width.min(height), width.max(height));
            let long = (u64::from(side) * u64::from(long) / u64::from(short)) as u32;
            if width <= height { (side, long) } else { (long, side) }
        } else {
            (side, side)
        };
        if width.max(height) > 16_384 {
            return Err(ModelError::Input(format!(
                "the image is too elongated ({}x{} pixels)",
                image.width(),
                image.height()
            )));
        }
        let resized = resize(image, width, height, self.filter)?;
        let (left, top) = ((width - side) / 2, (height - side) / 2);
        let mut values = Vec::with_capacity((side * side * 3) as usize);
        for c in 0..3 {
            for y in top..top + side {
                let row = &resized[((y * width + left) * 3) as usize..][..(side * 3) as usize];
                let channel = row.iter().skip(c).step_by(3);
                values.extend(channel.map(|&value| f32::from(value) * self.scale[c] - self.offset[c]));
            }
        }
        Ok(Tensor::from_vec(values, (1, 3, side as usize, side as usize), device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_canonical() {
        assert_eq!(canonical("  The Red-Cup, please! "), "the redcup please");
    }
}
