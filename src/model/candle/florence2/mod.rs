//! Florence-2: pixels and words in, boxes with scores and words out.
//!
//! [`config`] and [`layout`] are its file formats, `vision` and `language` the parts of the [`network`], [`tokenizer`] and [`processor`]
//! (tasks: sentences in, typed answers out) its words, [`mod@generate`] its answers.

pub mod config;
pub mod generate;
pub mod layout;
pub mod network;
pub mod processor;
pub mod tokenizer;
pub mod trace;

mod language;
mod vision;

use std::path::Path;

use candle_core::{Device, Tensor};

use self::config::Config;
use self::generate::{Decoding, generate, location_choices};
use self::layout::{is_old_layout, native_name};
use self::network::{Florence2Network, ImageFeatures};
use self::processor::{Answer, LabeledBox, Task, box_tokens};
use self::tokenizer::FlorenceTokenizer;
use self::trace::Trace;
pub(super) use self::vision::mean_token;
use super::device::DeviceChoice;
use super::frame_cache::FrameCache;
use super::generation::Generated;
use super::generation_config::GenerationConfig;
use super::loading::{Checkpoint, checkpoint_error};
use super::preprocess::ImageProcessor;
use super::tokenize::plain_words;
use crate::detection::{BoundingBox2d, Detection2d, non_maximum_suppression};
use crate::model::hub::shown_name;
use crate::model::{
    Answerer, Captioner, Decode, Florence2Options, Grounder, KeyedImage, Model, ModelError, ModelInfo,
    ModelOptions, Probe, RawTask, RawTaskOutput,
};

/// Boxes of one answer that overlap more than this are one box said twice.
const REPEATED_IOU: f64 = 0.9;
/// Most boxes given for one phrase.
const MAX_BOXES: usize = 64;

/// Loads a model directory in the hub's layout: config.json, `generation_config.json`, `preprocessor_config.json`,
/// tokenizer.json, model.safetensors.
pub fn load(dir: &Path, options: &ModelOptions) -> Result<Box<dyn Model>, ModelError> {
    let (model, checkpoint) = Florence2::open(dir, options)?;
    checkpoint.finish()?;
    Ok(Box::new(model))
}

/// A loaded Florence-2.
pub struct Florence2 {
    info: ModelInfo,
    device: Device,
    network: Florence2Network,
    tokenizer: FlorenceTokenizer,
    image_processor: ImageProcessor,
    generation: GenerationConfig,
    options: Florence2Options,
    cached_frames: FrameCache<ImageFeatures>,
}

/// One of the tasks, done.
struct TaskOutcome {
    /// The sentence that was asked.
    prompt: String,
    generated: Generated,
    /// Of what was generated.
    text: String,
    answer: Answer,
}

impl Florence2 {
    /// Reads all that is Florence-2's in a model directory. The checkpoint comes too, for those who read more of it; whoever is the
    /// last to read must call [`Checkpoint::finish`].
    pub(super) fn open(dir: &Path, options: &ModelOptions) -> Result<(Self, Checkpoint), ModelError> {
        let device: DeviceChoice = options.device.parse()?;
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
        let name = shown_name(dir);
        let model = Self {
            info: ModelInfo {
                name,
                model_type: "florence2".into(),
                device: device_name,
                synthetic,
                input_side: Some(image_processor.width.max(image_processor.height)),
                is_told: false,
            },
            device,
            network,
            tokenizer,
            image_processor,
            generation,
            options: options.florence2.clone(),
            cached_frames: FrameCache::new(),
        };
        Ok((model, checkpoint))
    }

    /// What the network was built from.
    pub(super) fn config(&self) -> &Config {
        self.network.config()
    }

    /// Whether it was taught to answer questions: only our own checkpoints were, the released Florence-2 has no such task.
    pub(super) fn answers_questions(&self) -> bool {
        self.info.synthetic
    }

    /// The image's features, from the cache when this frame was seen before.
    pub(super) fn features(&mut self, image: KeyedImage<'_>) -> Result<ImageFeatures, ModelError> {
        self.cached_frames.get_or_try_insert(image, || {
            let pixels = self.image_processor.process(image.image, &self.device)?;
            self.network.encode_image(&pixels, &mut Trace::off())
        })
    }

    /// The encoder's states [1, T, d_model] of a phrase alone, without any image.
    pub(super) fn text_states(&self, words: &str) -> Result<Tensor, ModelError> {
        self.network.encode_text(&self.tokenizer.encode_prompt(words)?)
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
    ) -> Result<TaskOutcome, ModelError> {
        let size = image.image.dimensions();
        let prompt = task.prompt(text, size)?;
        let generated = self.generate(image, &prompt, decoding)?;
        // The start token and a forced first `<s>` are no part of the answer; the parsers drop both.
        let text = self.tokenizer.decode(&generated.ids[1..])?;
        let answer = task.parse(&text, size, &location_choices(&generated, &self.tokenizer));
        Ok(TaskOutcome { prompt, generated, text, answer })
    }

    /// What the decoder says to a sentence.
    fn text_answer(&mut self, image: KeyedImage<'_>, sentence: &str) -> Result<String, ModelError> {
        let generated = self.generate(image, sentence, &self.decoding())?;
        let text = self.tokenizer.decode(&generated.ids[1..])?;
        match Task::Caption.parse(&text, image.image.dimensions(), &[]) {
            Answer::Text(text) => Ok(text),
            _ => Ok(text),
        }
    }

    /// Boxes by generation: the score is how surely the coordinates were chosen.
    fn ground_by_generation(
        &mut self,
        image: KeyedImage<'_>,
        phrase: &str,
    ) -> Result<Vec<Detection2d>, ModelError> {
        let (task, words) = (Task::OpenVocabularyDetection, plain_words(phrase));
        let limited = Decoding { boxes_of: Some(words.clone()), ..self.decoding() };
        let mut decoding = if self.options.limit_to_locations { &limited } else { &self.decoding() };
        let boxes = loop {
            match self.run_task(image, task, Some(&words), decoding)?.answer {
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

impl Model for Florence2 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(self)
    }

    fn captioner(&mut self) -> Option<&mut dyn Captioner> {
        Some(self)
    }

    fn answerer(&mut self) -> Option<&mut dyn Answerer> {
        if self.answers_questions() { Some(self) } else { None }
    }

    fn probe(&mut self) -> Option<&mut dyn Probe> {
        Some(self)
    }
}

impl Grounder for Florence2 {
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        check_phrases(phrases)?;
        in_thread_pool(|| phrases.iter().map(|phrase| self.ground_by_generation(image, phrase)).collect())
    }
}

impl Captioner for Florence2 {
    fn caption(
        &mut self,
        image: KeyedImage<'_>,
        region: Option<BoundingBox2d>,
    ) -> Result<String, ModelError> {
        let size = image.image.dimensions();
        let sentence = match region.map(|it| it.clipped(size.0, size.1)) {
            None => Task::Caption.prompt(None, size)?,
            Some(region) => {
                let tokens = box_tokens(&region, size.0, size.1);
                Task::RegionToDescription.prompt(Some(&tokens), size)?
            }
        };
        in_thread_pool(|| self.text_answer(image, &sentence))
    }
}

impl Answerer for Florence2 {
    fn answer(&mut self, image: KeyedImage<'_>, question: &str) -> Result<String, ModelError> {
        let question = plain_question(question)?;
        in_thread_pool(|| self.text_answer(image, &question))
    }
}

impl Probe for Florence2 {
    fn raw_task(&mut self, image: KeyedImage<'_>, task: &RawTask<'_>) -> Result<RawTaskOutput, ModelError> {
        let name: Task = task.name.parse()?;
        let finds_words = matches!(name, Task::OpenVocabularyDetection | Task::CaptionToPhraseGrounding);
        let boxes_of = task.text.filter(|_| finds_words && self.options.limit_to_locations).map(plain_words);
        let decoding = Decoding { n_beams: task.n_beams, boxes_of, ..self.decoding() };
        let done = in_thread_pool(|| self.run_task(image, name, task.text, &decoding))?;
        Ok(RawTaskOutput {
            task: name.name().to_owned(),
            prompt: done.prompt,
            token_ids: done.generated.ids,
            log_probs: done.generated.log_probs,
            text: done.text,
            parsed: serde_json::to_value(done.answer)
                .map_err(|error| ModelError::Inference(format!("the answer cannot be written: {error}")))?,
        })
    }
}

/// Refuses phrases without words.
pub(super) fn check_phrases(phrases: &[&str]) -> Result<(), ModelError> {
    match phrases.iter().find(|phrase| plain_words(phrase).is_empty()) {
        Some(empty) => Err(ModelError::Input(format!("phrase {empty:?} has no words; say what to look for"))),
        None => Ok(()),
    }
}

/// A question as it may stand in a prompt.
pub(super) fn plain_question(question: &str) -> Result<String, ModelError> {
    let question = plain_words(question);
    if question.is_empty() {
        return Err(ModelError::Input("the question has no words".into()));
    }
    Ok(question)
}

/// Runs `f` on a thread of the pool, so that its kernels share their work without waking a thread for each.
pub(super) fn in_thread_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
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
