//! Grounding models behind one small, synchronous, object-safe trait over plain data.

pub mod agreement;
pub mod candle;
pub mod given;
pub mod hub;
pub mod locate;
pub mod verified;
pub mod worker;

use crate::detection::{BoundingBox2d, Detection2d};
use crate::image::RgbImage;

/// An image to look at. Models cache its features under `key`: the same key promises the same pixels.
#[derive(Clone, Copy)]
pub struct KeyedImage<'a> {
    /// See [`crate::image::RgbdFrame::key`].
    pub key: u64,
    /// Color, any size.
    pub image: &'a RgbImage,
}

/// What a loaded model is; shown wherever its output is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Directory or hub name it was loaded from, last component.
    pub name: String,
    /// `model_type` of its config.json.
    pub model_type: String,
    /// "cpu" or "cuda:N".
    pub device: String,
    /// True for small checkpoints trained on rendered scenes: no claim for real photographs.
    pub synthetic: bool,
}

impl ModelInfo {
    /// The name as results show it: a checkpoint trained on rendered scenes is called that.
    pub fn label(&self) -> String {
        let note = if self.synthetic { " (small, trained on rendered scenes)" } else { "" };
        format!("{}{note}", self.name)
    }
}

/// How a model is loaded and run. A model ignores what does not concern it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOptions {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// How text is generated.
    pub decode: Decode,
    /// Whether the ban of repeated runs of tokens holds for location tokens too, as in the reference.
    pub ban_repeated_locations: bool,
    /// Whether a generative model may answer with boxes of the asked phrase only: faster, always at least one box, and the
    /// phrase's own probability becomes a sign of its absence. The reference lets the model say anything.
    pub limit_to_locations: bool,
    /// Directory or name of a second model that looks at each box again (CLIP or SigLIP); empty = none.
    pub verifier: String,
    /// Directory or name of a second model that finds boxes by itself; empty = none.
    pub second_model: String,
    /// How weights are kept. Florence-2 and OWLv2.
    pub quantize: Quantize,
}

/// How weights are kept: on the CPU those of linear layers and convolutions, on a GPU all of them, and what flows between the layers
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    /// As the checkpoint has them, computed with in f32.
    None,
    /// The fastest on this device: on the CPU `Bf16` if the processor has AMX, otherwise `Int8`; on a GPU `F16`.
    Auto,
    /// As bfloat16; what they are multiplied with is rounded likewise, sums are f32. On processors with AVX512_BF16 or AMX, and on GPUs.
    Bf16,
    /// As 8-bit integers with a scale for each 128 values of a row; what they are multiplied with is quantized likewise. On the CPU only.
    Int8,
    /// As IEEE half precision: three more bits than bfloat16, values up to 65504. On a GPU only.
    F16,
}

impl Quantize {
    /// The names that options use.
    pub const NAMES: &[&str] = &["none", "auto", "bf16", "int8", "f16"];

    /// The value with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::None, Self::Auto, Self::Bf16, Self::Int8, Self::F16].into_iter().find(|it| it.name() == name)
    }

    /// What to say of a name that earlier versions had.
    pub fn replacement(name: &str) -> Option<&'static str> {
        match name {
            "int16" => Some("int16 is gone: use auto, or int8, which is faster"),
            "q8_0" => Some("q8_0 is gone: use int8, which takes as little memory and is faster"),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Auto => "auto",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::F16 => "f16",
        }
    }
}

/// How text is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decode {
    /// By beam search with as many beams as the checkpoint asks for: the reference's way.
    Beam,
    /// The most probable token at each step: faster.
    Greedy,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            device: "auto".to_owned(),
            decode: Decode::Beam,
            ban_repeated_locations: true,
            limit_to_locations: false,
            verifier: String::new(),
            second_model: String::new(),
            quantize: Quantize::None,
        }
    }
}

/// A vision-language model. What a model cannot do, it refuses with [`ModelError::Unsupported`].
pub trait VisionLanguageModel: Send {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// Boxes for each phrase, by falling score, above the model's own floor (callers apply their thresholds).
    /// One list per phrase, in the order of `phrases`.
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError>;

    /// A caption of the whole image, or of the part in `region` (pixels).
    fn caption(
        &mut self,
        _image: KeyedImage<'_>,
        _region: Option<BoundingBox2d>,
    ) -> Result<String, ModelError> {
        Err(ModelError::Unsupported { model: self.info().name.clone(), task: "caption" })
    }

    /// A short answer to a question about the image.
    fn answer(&mut self, _image: KeyedImage<'_>, _question: &str) -> Result<String, ModelError> {
        Err(ModelError::Unsupported { model: self.info().name.clone(), task: "answer" })
    }

    /// One of the model's own tasks, unprocessed: for looking inside and for tests against the reference.
    fn raw_task(&mut self, _image: KeyedImage<'_>, _task: &RawTask<'_>) -> Result<RawTaskOutput, ModelError> {
        Err(ModelError::Unsupported { model: self.info().name.clone(), task: "raw tasks" })
    }
}

/// A model with one space for images and texts: how well does this picture show these words? Both are unit vectors; the nearer,
/// the better they fit.
pub trait Verifier: Send {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// A picture in the shared space: unit length.
    fn embed_image(&mut self, image: &RgbImage) -> Result<Vec<f32>, ModelError>;

    /// A text in the shared space: unit length. Texts that were asked before come from a cache.
    fn embed_text(&mut self, text: &str) -> Result<Vec<f32>, ModelError>;

    /// What the model makes of a cosine between the two: the logit that it was trained with.
    fn logit(&self, cosine: f32) -> f32;

    /// Probabilities of texts from their logits: of each by itself (SigLIP) or of one against the others (CLIP).
    fn probabilities(&self, logits: &[f32]) -> Vec<f32>;
}

/// A raw task: the model's own name for it and what it needs.
#[derive(Clone, Copy, Default)]
pub struct RawTask<'a> {
    /// For Florence-2 `<CAPTION>`, `caption`, `OD`, ...; for OWLv2 `detect`, `image_guided`.
    pub name: &'a str,
    /// Words, or a region as four pixels `x0,y0,x1,y1`, for tasks that need them; for `detect` texts separated by `;`.
    pub text: Option<&'a str>,
    /// A detector's boxes are listed above this score.
    pub threshold: f32,
    /// An image of what to look for, for `image_guided`.
    pub example: Option<&'a RgbImage>,
    /// 1 decodes greedily; the released Florence-2 uses 3.
    pub n_beams: usize,
}

impl<'a> RawTask<'a> {
    /// The texts that `;` separates.
    pub fn texts(&self) -> Vec<&'a str> {
        self.text.unwrap_or_default().split(';').map(str::trim).filter(|it| !it.is_empty()).collect()
    }
}

/// What a raw task gave.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RawTaskOutput {
    /// The task's name.
    pub task: String,
    /// The sentence that was asked.
    pub prompt: String,
    /// The decoder's start token and everything generated; empty for a detector.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
    /// Log-probability of every generated token: one less than `token_ids`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_probs: Vec<f32>,
    /// The text of the generated tokens, special tokens spelled out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The result by the task's parser; every box of a detector.
    pub parsed: serde_json::Value,
}

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model has no such task.
    #[error("model {model:?} cannot do {task:?}")]
    Unsupported {
        /// Its name.
        model: String,
        /// The task asked for.
        task: &'static str,
    },
    /// A checkpoint's file is missing or not what it should be.
    #[error("{path}: {problem}")]
    Checkpoint {
        /// The file.
        path: String,
        /// Expected, got, and what to do.
        problem: String,
    },
    /// The model could not be had from the hub.
    #[error("{0}")]
    Hub(#[from] hub::HubError),
    /// The device asked for cannot be used.
    #[error("{0}")]
    Device(String),
    /// The input cannot be used.
    #[error("{0}")]
    Input(String),
    /// A tensor operation failed. This is a bug or lack of memory.
    #[error("the model failed: {0}")]
    Inference(String),
}
