//! Florence-2 as a [`VisionLanguageModel`]: pixels and phrases in, boxes with scores and words out.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Device;

use super::decode::{Answer, LabeledBox, Task, box_tokens};
use super::device::DeviceChoice;
use super::florence2::{DenseGrounding, Florence2Network, GroundingPhrase, ImageFeatures, Trace};
use super::florence2_config::{Config, GroundingHeadConfig};
use super::florence2_layout::{is_old_layout, native_name};
use super::frame_cache::FrameCache;
use super::generation::{Decoding, Generated, generate};
use super::generation_config::GenerationConfig;
use super::loading::{Checkpoint, checkpoint_error};
use super::preprocess::ImageProcessor;
use super::tokenize::{FlorenceTokenizer, plain_words};
use crate::detection::{BoundingBox2d, Detection2d, non_maximum_suppression};
use crate::model::hub::shown_name;
use crate::model::{
    Decode, KeyedImage, ModelError, ModelInfo, ModelOptions, Quantize, RawTask, RawTaskOutput,
    VisionLanguageModel,
};

/// Boxes below this score are not worth a caller's look.
const SCORE_FLOOR: f64 = 0.05;
/// Boxes of one answer that overlap more than this are one box said twice.
const REPEATED_IOU: f64 = 0.9;
/// Most boxes given for one phrase.
const MAX_BOXES: usize = 64;
/// Phrases that are remembered; then all are forgotten.
const MAX_PHRASES: usize = 512;

/// A loaded Florence-2.
pub struct Florence2 {
    info: ModelInfo,
    device: Device,
    network: Florence2Network,
    tokenizer: FlorenceTokenizer,
    image_processor: ImageProcessor,
    generation: GenerationConfig,
    options: ModelOptions,
    cached_frames: FrameCache<ImageFeatures>,
    cached_phrases: HashMap<String, GroundingPhrase>,
}

impl Florence2 {
    /// Reads a model directory in the hub's layout: config.json, `generation_config.json`, `preprocessor_config.json`,
    /// tokenizer.json, model.safetensors.
    pub fn load(dir: &Path, device: DeviceChoice, options: &ModelOptions) -> Result<Self, ModelError> {
        let config_path = dir.join("config.json");
        let config = Config::open(&config_path)?;
        let vocab_size = config.text_config.vocab_size;
        let tokenizer = FlorenceTokenizer::open(dir, config.image_token_id, vocab_size)?;
        let image_processor = ImageProcessor::open(dir)?;
        let generation = GenerationConfig::open(dir, vocab_size)?;
        check_ids(dir, &generation, &tokenizer)?;
        check_grid(dir, &config, &image_processor)?;
        let (device, device_name) = device.open()?;
        let mut checkpoint = Checkpoint::open(dir, &device)?;
        if options.quantize == Quantize::Q8_0 {
            if !device.is_cpu() {
                return Err(ModelError::Device(format!(
                    "quantize: q8_0 runs on the CPU only, and the device is {device_name}; use quantize: none or device: cpu"
                )));
            }
            checkpoint.quantize_linear_layers();
        }
        if is_old_layout(checkpoint.names()) {
            checkpoint.rename(native_name)?;
        }
        let synthetic = config.synthetic;
        let network = Florence2Network::new(&checkpoint.root(), config)?;
        checkpoint.finish()?;
        let name = shown_name(dir);
        Ok(Self {
            info: ModelInfo { name, model_type: "florence2".into(), device: device_name, synthetic },
            device,
            network,
            tokenizer,
            image_processor,
            generation,
            options: options.clone(),
            cached_frames: FrameCache::new(),
            cached_phrases: HashMap::new(),
        })
    }

    /// The image's features, from the cache when this frame was seen before.
    fn features(&mut self, image: KeyedImage<'_>) -> Result<ImageFeatures, ModelError> {
        self.cached_frames.get_or_try_insert(image.key, || {
            let pixels = self.image_processor.process(image.image, &self.device)?;
            self.network.encode_image(&pixels, &mut Trace::off())
        })
    }

    /// What the dense head makes of a phrase, from the cache when it was asked for before.
    fn phrase(&mut self, phrase: &str) -> Result<GroundingPhrase, ModelError> {
        let words = plain_words(phrase);
        if let Some(known) = self.cached_phrases.get(&words) {
            return Ok(known.clone());
        }
        let ids = self.tokenizer.encode_prompt(&words)?;
        let Some(encoded) = self.network.encode_phrase(&ids)? else {
            return Err(ModelError::Inference("the grounding head is gone".into()));
        };
        if self.cached_phrases.len() == MAX_PHRASES {
            self.cached_phrases.clear();
        }
        self.cached_phrases.insert(words, encoded.clone());
        Ok(encoded)
    }

    /// Asks one sentence and generates the answer.
    fn generate(
        &mut self,
        image: KeyedImage<'_>,
        sentence: &str,
        decoding: &Decoding,
    ) -> Result<Generated, ModelError> {
        let features = self.features(image)?;
        let prompt = self.tokenizer.encode_prompt(sentence)?;
        let encoded = self.network.encode(&features, &[prompt], &mut Trace::off())?;
        generate(&self.network, &self.tokenizer, &self.generation, &encoded, 0, decoding)
    }

    /// The options as they are for answers in words.
    fn decoding(&self) -> Decoding {
        let n_beams = match self.options.decode {
            Decode::Beam => self.generation.num_beams,
            Decode::Greedy => 1,
        };
        Decoding {
            ban_repeated_locations: self.options.ban_repeated_locations,
            ..Decoding::with_beams(n_beams)
        }
    }

    fn run_task(
        &mut self,
        image: KeyedImage<'_>,
        task: Task,
        text: Option<&str>,
        decoding: &Decoding,
    ) -> Result<(String, Generated, String, Answer), ModelError> {
        let size = image.image.dimensions();
        let prompt = task.prompt(text, size)?;
        let generated = self.generate(image, &prompt, decoding)?;
        // The start token and a forced first `<s>` are no part of the answer; the parsers drop both.
        let answer_text = self.tokenizer.decode(&generated.ids[1..])?;
        let answer = task.parse(&answer_text, size, &generated.location_choices(&self.tokenizer));
        Ok((prompt, generated, answer_text, answer))
    }

    fn text_answer(&mut self, image: KeyedImage<'_>, sentence: &str) -> Result<String, ModelError> {
        let generated = self.generate(image, sentence, &self.decoding())?;
        let text = self.tokenizer.decode(&generated.ids[1..])?;
        match Task::Caption.parse(&text, image.image.dimensions(), &[]) {
            Answer::Text(text) => Ok(text),
            _ => Ok(text),
        }
    }

    /// Boxes by generation, for checkpoints without a dense head: the score is how surely the coordinates were chosen.
    fn ground_by_generation(
        &mut self,
        image: KeyedImage<'_>,
        phrase: &str,
    ) -> Result<Vec<Detection2d>, ModelError> {
        let (task, words) = (Task::OpenVocabularyDetection, plain_words(phrase));
        let limited = Decoding { boxes_of: Some(words.clone()), ..self.decoding() };
        let mut decoding = if self.options.limit_to_locations { &limited } else { &self.decoding() };
        let boxes = loop {
            match self.run_task(image, task, Some(&words), decoding)?.3 {
                Answer::Boxes(boxes) => break boxes,
                // Outlines say less than boxes about how sure the model is: ask again, for boxes.
                _ => decoding = &limited,
            }
        };
        let (width, height) = image.image.dimensions();
        let detections = boxes.into_iter().filter_map(|LabeledBox { bbox, certainty, .. }| {
            let (bbox, certainty) = (bbox.clipped(width, height), certainty?);
            (bbox.area() > 0.0).then(|| Detection2d {
                score_parts: certainty.parts(),
                ..Detection2d::new(phrase, bbox, certainty.location_mass as f32)
            })
        });
        let mut kept = non_maximum_suppression(detections.collect(), REPEATED_IOU);
        kept.truncate(MAX_BOXES);
        Ok(kept)
    }
}

impl VisionLanguageModel for Florence2 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(empty) = phrases.iter().find(|phrase| plain_words(phrase).is_empty()) {
            return Err(ModelError::Input(format!("phrase {empty:?} has no words; say what to look for")));
        }
        let size = image.image.dimensions();
        in_thread_pool(|| {
            let Some(head) = self.network.config().grounding_head.clone() else {
                return phrases.iter().map(|phrase| self.ground_by_generation(image, phrase)).collect();
            };
            let features = self.features(image)?;
            let encoded = phrases.iter().map(|phrase| self.phrase(phrase)).collect::<Result<Vec<_>, _>>()?;
            match self.network.ground_densely(&features, &encoded)? {
                Some(dense) => dense_detections(&dense, &head, phrases, size),
                None => Err(ModelError::Inference("the grounding head is gone".into())),
            }
        })
    }

    fn caption(
        &mut self,
        image: KeyedImage<'_>,
        region: Option<BoundingBox2d>,
    ) -> Result<String, ModelError> {
        let (width, height) = image.image.dimensions();
        let sentence = match region {
            None => Task::Caption.prompt(None, (width, height))?,
            Some(region) => {
                let tokens = box_tokens(&region.clipped(width, height), width, height);
                Task::RegionToDescription.prompt(Some(&tokens), (width, height))?
            }
        };
        in_thread_pool(|| self.text_answer(image, &sentence))
    }

    /// Only our own checkpoints are trained to answer questions; the released Florence-2 has no such task.
    fn answer(&mut self, image: KeyedImage<'_>, question: &str) -> Result<String, ModelError> {
        if !self.info.synthetic {
            return Err(ModelError::Unsupported { model: self.info.name.clone(), task: "answer" });
        }
        let question = plain_words(question);
        if question.is_empty() {
            return Err(ModelError::Input("the question has no words".into()));
        }
        in_thread_pool(|| self.text_answer(image, &question))
    }

    fn raw_task(&mut self, image: KeyedImage<'_>, task: &RawTask<'_>) -> Result<RawTaskOutput, ModelError> {
        let name: Task = task.name.parse()?;
        let finds_words = matches!(name, Task::OpenVocabularyDetection | Task::CaptionToPhraseGrounding);
        let boxes_of = task.text.filter(|_| finds_words && self.options.limit_to_locations).map(plain_words);
        let decoding = Decoding { n_beams: task.n_beams, boxes_of, ..self.decoding() };
        let (prompt, generated, text, answer) =
            in_thread_pool(|| self.run_task(image, name, task.text, &decoding))?;
        Ok(RawTaskOutput {
            task: name.name().to_owned(),
            prompt,
            token_ids: generated.ids,
            log_probs: generated.log_probs,
            text,
            parsed: serde_json::to_value(answer)
                .map_err(|error| ModelError::Inference(format!("the answer cannot be written: {error}")))?,
        })
    }
}

/// Runs `f` on a thread of the pool, so that its kernels share their work without waking a thread for each.
fn in_thread_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

fn check_ids(
    dir: &Path,
    generation: &GenerationConfig,
    tokenizer: &FlorenceTokenizer,
) -> Result<(), ModelError> {
    for (key, expected, got) in [
        ("eos_token_id", tokenizer.eos, Some(generation.eos_token_id)),
        ("forced_bos_token_id", tokenizer.bos, generation.forced_bos_token_id),
        ("forced_eos_token_id", tokenizer.eos, generation.forced_eos_token_id),
    ] {
        if let Some(got) = got.filter(|got| *got != expected) {
            return Err(checkpoint_error(
                &dir.join("generation_config.json"),
                format!("{key}: tokenizer.json says {expected}, got {got}"),
            ));
        }
    }
    Ok(())
}

fn check_grid(dir: &Path, config: &Config, processor: &ImageProcessor) -> Result<(), ModelError> {
    let (rows, columns) = config.grid(processor.height as usize, processor.width as usize);
    let n_tokens = 1 + rows * columns;
    let problem = |problem: String| Err(checkpoint_error(&dir.join("preprocessor_config.json"), problem));
    if rows.min(columns) == 0 || rows.max(columns) > config.max_grid() {
        return problem(format!(
            "size {}x{} makes a grid of {columns}x{rows}; config.json allows 1 to {} per side",
            processor.width,
            processor.height,
            config.max_grid()
        ));
    }
    if n_tokens >= config.text_config.max_position_embeddings {
        return problem(format!(
            "{n_tokens} image tokens leave no room for text in {} positions",
            config.text_config.max_position_embeddings
        ));
    }
    match processor.image_seq_length {
        Some(expected) if expected != n_tokens => problem(format!(
            "image_seq_length {expected}, but config.json makes {n_tokens} tokens of this size"
        )),
        _ => Ok(()),
    }
}

/// Turns every cell's logit and distances into a scored box, and keeps the best ones that do not overlap.
fn dense_detections(
    dense: &DenseGrounding,
    head: &GroundingHeadConfig,
    phrases: &[&str],
    (width, height): (u32, u32),
) -> Result<Vec<Vec<Detection2d>>, ModelError> {
    let logits: Vec<Vec<f32>> = dense.logits.to_vec2()?;
    let distances: Vec<Vec<f32>> = dense.distances.to_vec2()?;
    let (rows, columns) = dense.grid;
    let mut all = Vec::with_capacity(phrases.len());
    for (phrase, logits) in phrases.iter().zip(&logits) {
        let mut detections = Vec::new();
        for (cell, (&logit, distances)) in logits.iter().zip(&distances).enumerate() {
            let logit = f64::from(logit);
            if !logit.is_finite() || distances.iter().any(|distance| !distance.is_finite()) {
                return Err(ModelError::Inference("the grounding head's output is not finite".into()));
            }
            let score = sigmoid(head.calibration.scale * logit + head.calibration.bias);
            if score < SCORE_FLOOR {
                continue;
            }
            let x = ((cell % columns) as f64 + 0.5) / columns as f64;
            let y = ((cell / columns) as f64 + 0.5) / rows as f64;
            let reach = |side: usize| softplus(f64::from(distances[side])) * head.box_scale;
            let bbox = BoundingBox2d {
                x0: (x - reach(0)) * f64::from(width),
                y0: (y - reach(1)) * f64::from(height),
                x1: (x + reach(2)) * f64::from(width),
                y1: (y + reach(3)) * f64::from(height),
            };
            detections.push(Detection2d::new(*phrase, bbox.clipped(width, height), score as f32));
        }
        let mut kept = non_maximum_suppression(detections, head.nms_iou);
        kept.truncate(MAX_BOXES);
        all.push(kept);
    }
    Ok(all)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + e^x), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softplus_and_sigmoid_survive_extremes() {
        for (x, expected) in
            [(0.0, std::f64::consts::LN_2), (800.0, 800.0), (-800.0, 0.0), (1.0, 1.313_261_687_5)]
        {
            assert!((softplus(x) - expected).abs() < 1e-9, "softplus({x})");
        }
        assert!(sigmoid(-800.0).abs() < 1e-12 && (sigmoid(800.0) - 1.0).abs() < 1e-12);
    }
}
