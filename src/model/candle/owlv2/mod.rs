//! OWLv2: pixels and phrases in, scored boxes out. It has no words of its own.
//!
//! [`network`] computes, [`image`] brings images to its square.

pub mod image;
pub mod network;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Serialize;
use tokenizers::Tokenizer;

use self::image::SquareImageProcessor;
use self::network::{Config, ImageFeatures, Owlv2Network};
use super::device::DeviceChoice;
use super::frame_cache::FrameCache;
use super::loading::{Checkpoint, checkpoint_error, read_json};
use super::tokenize::open_cutting_tokenizer;
use crate::detection::{BoundingBox2d, Detection2d, non_maximum_suppression};
use crate::model::hub::shown_name;
use crate::model::{
    Grounder, KeyedImage, Model, ModelError, ModelInfo, ModelOptions, Probe, RawTask, RawTaskOutput,
};

/// Boxes below this score are not worth a caller's look.
const SCORE_FLOOR: f32 = 0.02;
/// Most boxes given for one phrase.
const MAX_BOXES: usize = 64;
/// Boxes that overlap a better one of the same phrase by more than this are dropped.
const NMS_IOU: f64 = 0.5;
/// Phrases whose embeddings are kept.
const MAX_CACHED_TEXTS: usize = 1024;

/// Loads a model directory in the hub's layout: config.json, `preprocessor_config.json`, tokenizer.json,
/// model.safetensors.
pub fn load(dir: &Path, options: &ModelOptions) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Owlv2::load(dir, options)?))
}

/// A loaded OWLv2.
pub struct Owlv2 {
    info: ModelInfo,
    device: Device,
    network: Owlv2Network,
    tokenizer: Tokenizer,
    image_processor: SquareImageProcessor,
    cached_frames: FrameCache<ImageFeatures>,
    /// [1, projection_dim] by text as tokenized.
    cached_texts: HashMap<String, Tensor>,
}

/// One box of a raw task.
#[derive(Serialize)]
struct RawBox {
    /// Which of the texts scores best here.
    label: String,
    score: f32,
    /// For every text, in order.
    scores: Vec<f32>,
    /// How surely there is any object in the box; not calibrated.
    objectness: f32,
    bbox: BoundingBox2d,
}

impl Owlv2 {
    fn load(dir: &Path, options: &ModelOptions) -> Result<Self, ModelError> {
        let device: DeviceChoice = options.device.parse()?;
        let config_path = dir.join("config.json");
        let config: Config = read_json(&config_path)?;
        config.validate().map_err(|problem| checkpoint_error(&config_path, problem))?;
        let tokenizer = open_tokenizer(dir, &config)?;
        let image_processor = SquareImageProcessor::open(dir, config.vision_config.image_size)?;
        let (device, device_name) = device.open()?;
        let mut checkpoint = Checkpoint::open(dir, &device)?;
        checkpoint.quantize(options.quantize, &device_name)?;
        let input_side = config.vision_config.image_size as u32;
        let network = Owlv2Network::new(&checkpoint.root(), config, &device)?;
        checkpoint.allow_unused(".embeddings.position_ids");
        checkpoint.allow_unused("box_bias");
        checkpoint.finish()?;
        let name = shown_name(dir);
        Ok(Self {
            info: ModelInfo {
                name,
                model_type: "owlv2".into(),
                device: device_name,
                synthetic: false,
                input_side: Some(input_side),
                is_told: false,
            },
            device,
            network,
            tokenizer,
            image_processor,
            cached_frames: FrameCache::new(),
            cached_texts: HashMap::new(),
        })
    }

    /// Every patch's box in pixels of the source image, best first, with the scores of each text; texts go in as they are.
    fn detect(&mut self, image: KeyedImage<'_>, texts: &[String]) -> Result<Vec<PatchBox>, ModelError> {
        let queries = texts.iter().map(|text| self.text_query(text)).collect::<Result<Vec<_>, _>>()?;
        let features = self.features(image)?;
        self.score(&features, &Tensor::cat(&queries, 0)?, image.image.dimensions())
    }

    fn score(
        &self,
        features: &ImageFeatures,
        queries: &Tensor,
        size: (u32, u32),
    ) -> Result<Vec<PatchBox>, ModelError> {
        let logits: Vec<Vec<f32>> = self.network.class_logits(features, queries)?.squeeze(0)?.to_vec2()?;
        let boxes: Vec<Vec<f32>> = features.boxes.squeeze(0)?.to_vec2()?;
        let objectness: Vec<f32> = features.objectness.squeeze(0)?.to_vec1()?;
        let mut found = Vec::with_capacity(logits.len());
        for ((logits, cxcywh), objectness) in logits.iter().zip(&boxes).zip(objectness) {
            if logits.iter().chain(cxcywh).any(|value| !value.is_finite()) {
                return Err(ModelError::Inference("the detector's output is not finite".into()));
            }
            let &[x, y, width, height] = cxcywh.as_slice() else {
                return Err(ModelError::Inference("a box does not have four numbers".into()));
            };
            found.push(PatchBox {
                bbox: self.image_processor.to_pixels([x, y, width, height], size),
                scores: logits.iter().map(|&logit| sigmoid(logit)).collect(),
                objectness: sigmoid(objectness),
            });
        }
        Ok(found)
    }

    /// The image's features, from the cache when this frame was seen before.
    fn features(&mut self, image: KeyedImage<'_>) -> Result<ImageFeatures, ModelError> {
        self.cached_frames.get_or_try_insert(image, || {
            let pixels = self.image_processor.process(image.image, &self.device)?;
            self.network.encode_image(&pixels)
        })
    }

    /// A text in the shared space, from the cache when it was asked before.
    fn text_query(&mut self, text: &str) -> Result<Tensor, ModelError> {
        if let Some(query) = self.cached_texts.get(text) {
            return Ok(query.clone());
        }
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|error| ModelError::Input(format!("the text cannot be tokenized: {error}")))?;
        let query = self.network.encode_text(encoding.get_ids(), &self.device)?;
        if self.cached_texts.len() == MAX_CACHED_TEXTS {
            self.cached_texts.clear();
        }
        self.cached_texts.insert(text.to_owned(), query.clone());
        Ok(query)
    }
}

/// What one patch of the image proposes.
struct PatchBox {
    bbox: BoundingBox2d,
    /// By query.
    scores: Vec<f32>,
    objectness: f32,
}

impl Model for Owlv2 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(self)
    }

    fn probe(&mut self) -> Option<&mut dyn Probe> {
        Some(self)
    }
}

impl Grounder for Owlv2 {
    /// Scores are the detector's own, for "a photo of a PHRASE" (the wording it was trained with). They are low by nature: the
    /// reference reports boxes from 0.1 on.
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(empty) = phrases.iter().find(|phrase| phrase.trim().is_empty()) {
            return Err(ModelError::Input(format!("phrase {empty:?} has no words; say what to look for")));
        }
        let texts: Vec<String> =
            phrases.iter().map(|phrase| format!("a photo of a {}", phrase.trim())).collect();
        let patches = rayon::scope(|_| self.detect(image, &texts))?;
        let (width, height) = image.image.dimensions();
        let of_phrase = |(index, phrase): (usize, &&str)| {
            let detections = patches.iter().filter_map(|patch| {
                let (bbox, score) = (patch.bbox.clipped(width, height), patch.scores[index]);
                let mut detection = Detection2d::new(*phrase, bbox, score);
                detection.score_parts = vec![("objectness".into(), f64::from(patch.objectness))];
                (bbox.area() > 0.0 && score >= SCORE_FLOOR).then_some(detection)
            });
            let mut kept = non_maximum_suppression(detections.collect(), NMS_IOU);
            kept.truncate(MAX_BOXES);
            kept
        };
        Ok(phrases.iter().enumerate().map(of_phrase).collect())
    }
}

impl Probe for Owlv2 {
    /// `detect` (texts separated by `;`, taken as they are) and `image_guided` (an example image): every box whose best score is
    /// above the threshold, by falling score, nothing suppressed, boxes as predicted (they may reach out of the image).
    fn raw_task(&mut self, image: KeyedImage<'_>, task: &RawTask<'_>) -> Result<RawTaskOutput, ModelError> {
        let (labels, patches) = match task.name {
            "detect" => {
                let texts: Vec<String> = task.texts().into_iter().map(str::to_owned).collect();
                if texts.is_empty() {
                    return Err(ModelError::Input(
                        "task detect: expected --text with what to detect, such as \"red cup;laptop\"".into(),
                    ));
                }
                let patches = rayon::scope(|_| self.detect(image, &texts))?;
                (texts, patches)
            }
            "image_guided" => {
                let example = task.example.ok_or_else(|| {
                    ModelError::Input(
                        "task image_guided: expected --example with an image of the object".into(),
                    )
                })?;
                let patches = rayon::scope(|_| {
                    let pixels = self.image_processor.process(example, &self.device)?;
                    let (query, _) = self.network.image_query(&self.network.encode_image(&pixels)?)?;
                    let features = self.features(image)?;
                    self.score(&features, &query, image.image.dimensions())
                })?;
                (vec!["example".to_owned()], patches)
            }
            other => {
                return Err(ModelError::Input(format!(
                    "task {other:?}: an OWLv2 model knows detect and image_guided"
                )));
            }
        };
        let mut boxes: Vec<RawBox> = patches
            .into_iter()
            .filter_map(|patch| {
                let best =
                    (0..labels.len()).rev().max_by(|&a, &b| patch.scores[a].total_cmp(&patch.scores[b]))?;
                (patch.scores[best] > task.threshold).then(|| RawBox {
                    label: labels[best].clone(),
                    score: patch.scores[best],
                    scores: patch.scores,
                    objectness: patch.objectness,
                    bbox: patch.bbox,
                })
            })
            .collect();
        boxes.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(RawTaskOutput {
            task: task.name.to_owned(),
            prompt: labels.join(";"),
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            text: String::new(),
            parsed: serde_json::to_value(boxes)
                .map_err(|error| ModelError::Inference(format!("the boxes cannot be written: {error}")))?,
        })
    }
}

/// CLIP's tokenizer: text between `<|startoftext|>` and `<|endoftext|>`, cut to the text tower's length.
fn open_tokenizer(dir: &Path, config: &Config) -> Result<Tokenizer, ModelError> {
    let path = dir.join("tokenizer.json");
    let problem = |problem: String| checkpoint_error(&path, problem);
    let tokenizer = open_cutting_tokenizer(dir, config.text_config.max_position_embeddings)?;
    let (vocab_size, n_ids) = (config.text_config.vocab_size, tokenizer.get_vocab_size(true));
    if n_ids > vocab_size {
        return Err(problem(format!("{n_ids} tokens, but config.json has vocab_size {vocab_size}")));
    }
    // The text tower answers at its highest id, and ours is read at the last token: both must be the end of the text.
    let probe = tokenizer.encode("a", true).map_err(|error| problem(error.to_string()))?;
    let ids = probe.get_ids();
    if ids.len() < 3 || ids.last() != ids.iter().max() {
        return Err(problem(format!(
            "expected a start and an end token around a text, the end token with the highest id; \"a\" became {ids:?}"
        )));
    }
    Ok(tokenizer)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
