//! Florence-2 as a [`VisionLanguageModel`]: pixels and phrases in, boxes with scores and words out.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use super::decode::{Answer, LabeledBox, Task, box_tokens};
use super::device::DeviceChoice;
use super::florence2::{CellNames, DenseGrounding, Florence2Network, GroundingPhrase, ImageFeatures, Trace};
use super::florence2_config::{Config, GroundingHeadConfig};
use super::florence2_layout::{is_old_layout, native_name};
use super::florence2_names::{Names, Question, listed, number};
use super::frame_cache::FrameCache;
use super::generation::{Decoding, Generated, generate};
use super::generation_config::GenerationConfig;
use super::loading::{Checkpoint, checkpoint_error};
use super::preprocess::ImageProcessor;
use super::tokenize::{FlorenceTokenizer, plain_words};
use crate::detection::{BoundingBox2d, Detection2d, non_maximum_suppression};
use crate::model::hub::shown_name;
use crate::model::{
    Decode, KeyedImage, ModelError, ModelInfo, ModelOptions, RawTask, RawTaskOutput, VisionLanguageModel,
};

/// Boxes below this score are not worth a caller's look.
const SCORE_FLOOR: f64 = 0.05;
/// Boxes of one answer that overlap more than this are one box said twice.
const REPEATED_IOU: f64 = 0.9;
/// Cells whose boxes overlap the best one's by more than this have a say in it.
const AGREEING_IOU: f64 = 0.6;
/// Of two boxes for one phrase that share more than this of the smaller one, the better is the thing and the other a part of it, or it
/// and something else.
const PART_SHARE: f64 = 0.6;
/// A thing is counted or said to be there from this score on.
const NAMED_SCORE: f64 = 0.5;
/// A cell shows something worth a name from this probability on.
const OBJECT_SCORE: f64 = 0.85;
/// A caption names a thing whose kind has this probability; of the rest it would more often be wrong than right.
const NAMED_PROBABILITY: f64 = 0.25;
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
        checkpoint.quantize(options.quantize, &device_name)?;
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

    /// Every cell's box with its score for each phrase.
    fn look_for(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        let features = self.features(image)?;
        let encoded = phrases.iter().map(|phrase| self.phrase(phrase)).collect::<Result<Vec<_>, _>>()?;
        match (self.network.ground_densely(&features, &encoded)?, &self.network.config().grounding_head) {
            (Some(dense), Some(head)) => scored_cells(&dense, head, phrases, image.image.dimensions()),
            _ => Err(ModelError::Inference("the grounding head is gone".into())),
        }
    }

    fn names(&self) -> Option<Names> {
        self.network.config().grounding_head.as_ref()?.names.clone()
    }

    /// What the naming head says about each cell, with the cell's box, scored by how likely it shows an object.
    fn named_cells(
        &mut self,
        image: KeyedImage<'_>,
    ) -> Result<(Arc<CellNames>, Vec<Detection2d>), ModelError> {
        let missing = || ModelError::Inference("the naming head is gone".into());
        let names = self.features(image)?.names().cloned().ok_or_else(missing)?;
        let mut cells = self.look_for(image, &["object"])?.pop().ok_or_else(missing)?;
        for (cell, kinds) in cells.iter_mut().zip(&names.kinds) {
            cell.score = 1.0 - kinds.last().copied().unwrap_or(1.0);
        }
        Ok((names, cells))
    }

    /// The name of what `region` boxes.
    fn name_of(
        &mut self,
        image: KeyedImage<'_>,
        names: &Names,
        region: &BoundingBox2d,
    ) -> Result<String, ModelError> {
        let (cell_names, cells) = self.named_cells(image)?;
        let name = names.likeliest(&cell_names, &agreement(&cells, region));
        Ok(name.map_or_else(|| "nothing that this model has a name for".to_owned(), |(name, _)| name))
    }

    /// Every object whose name is likely enough, from left to right.
    fn named_things(&mut self, image: KeyedImage<'_>, names: &Names) -> Result<Vec<String>, ModelError> {
        let (cell_names, cells) = self.named_cells(image)?;
        let Some(head) = &self.network.config().grounding_head else {
            return Err(ModelError::Inference("the grounding head is gone".into()));
        };
        let mut things = distinct(&cells, head.nms_iou);
        things.retain(|it| f64::from(it.score) >= OBJECT_SCORE);
        things.sort_by(|a, b| a.bbox.center().0.total_cmp(&b.bbox.center().0));
        Ok(things
            .iter()
            .filter_map(|it| names.likeliest(&cell_names, &agreement(&cells, &it.bbox)))
            .filter(|(_, probability)| *probability >= NAMED_PROBABILITY)
            .map(|(name, _)| name)
            .collect())
    }

    fn answer_from_boxes(
        &mut self,
        image: KeyedImage<'_>,
        names: &Names,
        question: &Question,
    ) -> Result<String, ModelError> {
        let (Question::Color(phrase) | Question::Count(phrase) | Question::Presence(phrase)) = question;
        let mut found = self.ground(image, &[phrase.as_str()])?.pop().unwrap_or_default();
        found.retain(|it| f64::from(it.score) >= NAMED_SCORE);
        Ok(match (question, found.first()) {
            (Question::Presence(_), first) => if first.is_some() { "yes" } else { "no" }.to_owned(),
            (Question::Count(_), _) => number(found.len()),
            (Question::Color(_), None) => format!("there is no {phrase}"),
            (Question::Color(_), Some(thing)) => {
                let (cell_names, cells) = self.named_cells(image)?;
                names.color(&cell_names, &agreement(&cells, &thing.bbox)).unwrap_or_default().to_owned()
            }
        })
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
        in_thread_pool(|| {
            let Some(max_iou) = self.network.config().grounding_head.as_ref().map(|head| head.nms_iou) else {
                return phrases.iter().map(|phrase| self.ground_by_generation(image, phrase)).collect();
            };
            let seen = self.look_for(image, phrases)?;
            Ok(seen.iter().map(|cells| distinct(cells, max_iou)).collect())
        })
    }

    /// In names that the dense head knows, where the checkpoint has them; otherwise generated.
    fn caption(
        &mut self,
        image: KeyedImage<'_>,
        region: Option<BoundingBox2d>,
    ) -> Result<String, ModelError> {
        let (width, height) = image.image.dimensions();
        let region = region.map(|it| it.clipped(width, height));
        in_thread_pool(|| match (self.names(), region) {
            (Some(names), None) => Ok(listed(&self.named_things(image, &names)?)),
            (Some(names), Some(region)) => self.name_of(image, &names, &region),
            (None, None) => self.text_answer(image, &Task::Caption.prompt(None, (width, height))?),
            (None, Some(region)) => {
                let tokens = box_tokens(&region, width, height);
                let sentence = Task::RegionToDescription.prompt(Some(&tokens), (width, height))?;
                self.text_answer(image, &sentence)
            }
        })
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
        in_thread_pool(|| match (self.names(), Question::parse(&question)) {
            (Some(names), Some(asked)) => self.answer_from_boxes(image, &names, &asked),
            _ => self.text_answer(image, &question),
        })
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

/// Every cell's box with its score for each phrase.
fn scored_cells(
    dense: &DenseGrounding,
    head: &GroundingHeadConfig,
    phrases: &[&str],
    (width, height): (u32, u32),
) -> Result<Vec<Vec<Detection2d>>, ModelError> {
    let logits: Vec<Vec<f32>> = dense.logits.to_vec2()?;
    let distances: Vec<Vec<f32>> = dense.distances.to_vec2()?;
    if logits.iter().chain(&distances).flatten().any(|it| !it.is_finite()) {
        return Err(ModelError::Inference("the grounding head's output is not finite".into()));
    }
    let (rows, columns) = dense.grid;
    let boxes = distances.iter().enumerate().map(|(cell, distances)| {
        let x = ((cell % columns) as f64 + 0.5) / columns as f64;
        let y = ((cell / columns) as f64 + 0.5) / rows as f64;
        let reach = |side: usize| softplus(f64::from(distances[side])) * head.box_scale;
        let bbox = BoundingBox2d {
            x0: (x - reach(0)) * f64::from(width),
            y0: (y - reach(1)) * f64::from(height),
            x1: (x + reach(2)) * f64::from(width),
            y1: (y + reach(3)) * f64::from(height),
        };
        bbox.clipped(width, height)
    });
    let boxes: Vec<BoundingBox2d> = boxes.collect();
    let score =
        |logit: f32| sigmoid(head.calibration.scale * f64::from(logit) + head.calibration.bias) as f32;
    let of_phrase = |(phrase, logits): (&&str, &Vec<f32>)| {
        logits.iter().zip(&boxes).map(|(&it, &bbox)| Detection2d::new(*phrase, bbox, score(it))).collect()
    };
    Ok(phrases.iter().zip(&logits).map(of_phrase).collect())
}

/// The best cells that are worth a look and do not box the same thing, each with the box on which its neighbors agree.
fn distinct(cells: &[Detection2d], max_iou: f64) -> Vec<Detection2d> {
    let worth = cells.iter().filter(|it| f64::from(it.score) >= SCORE_FLOOR).cloned().collect();
    let mut kept = non_maximum_suppression(worth, max_iou);
    kept.truncate(MAX_BOXES);
    for detection in &mut kept {
        detection.bbox = agreed_box(&detection.bbox, cells);
    }
    // What agrees on much the same box is one thing, and so is a box with a part of it.
    let mut things: Vec<Detection2d> = Vec::new();
    for it in non_maximum_suppression(kept, max_iou) {
        let is_part_of = |other: &Detection2d| {
            let smaller = it.bbox.area().min(other.bbox.area());
            PART_SHARE * smaller < it.bbox.intersection_area(&other.bbox)
        };
        if !things.iter().any(is_part_of) {
            things.push(it);
        }
    }
    things
}

/// The mean, weighted by score, of the boxes that overlap this one: as in Solovyev et al., "Weighted boxes fusion", 2021.
fn agreed_box(bbox: &BoundingBox2d, cells: &[Detection2d]) -> BoundingBox2d {
    let mut sum = [0.0; 4];
    let mut weights = 0.0;
    for cell in cells.iter().filter(|it| it.bbox.iou(bbox) >= AGREEING_IOU) {
        let weight = f64::from(cell.score);
        weights += weight;
        for (sum, edge) in sum.iter_mut().zip(<[f64; 4]>::from(cell.bbox)) {
            *sum += weight * edge;
        }
    }
    if weights > 0.0 { BoundingBox2d::from(sum.map(|it| it / weights)) } else { *bbox }
}

/// How much each cell has to say about what is in `region`: those whose boxes overlap it nearly as much as the best one's does.
fn agreement(cells: &[Detection2d], region: &BoundingBox2d) -> Vec<f64> {
    let overlaps: Vec<f64> = cells.iter().map(|it| it.bbox.iou(region)).collect();
    let most = overlaps.iter().copied().fold(0.0, f64::max);
    let weight = |(overlap, cell): (&f64, &Detection2d)| {
        if *overlap >= 0.8 * most { overlap * f64::from(cell.score).max(1e-3) } else { 0.0 }
    };
    overlaps.iter().zip(cells).map(weight).collect()
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
