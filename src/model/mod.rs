//! Models by role, behind small, synchronous, object-safe traits over plain data: they know no tensors, threads or files.
//!
//! A [`Model`] is a handle to the roles that one loaded model fills. [`registry`] knows which there are and loads them; how a new
//! one comes in is told in `docs/adding-a-model.md`. [`candle`] holds those that compute here, in candle; [`precomputed`] is one that
//! computes nothing. [`hub`] and [`locate`] find checkpoints, [`worker`] keeps a model on a thread of its own.

pub mod candle;
pub mod hub;
pub mod locate;
pub mod options;
pub mod precomputed;
pub mod probe;
pub mod registry;
pub mod worker;

pub use self::options::{Decode, Florence2Options, ModelOptions, Quantize};
pub use self::probe::{Probe, RawTask, RawTaskOutput};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::image::RgbImage;

/// An image to look at. Models cache its features under `key` and `part`: the same two promise the same pixels.
#[derive(Clone, Copy)]
pub struct KeyedImage<'a> {
    /// Of the frame; see [`crate::image::RgbdFrame::key`].
    pub key: u64,
    /// Which part of the frame's picture this is; 0 for all of it.
    pub part: u32,
    /// Color, any size.
    pub image: &'a RgbImage,
}

impl<'a> KeyedImage<'a> {
    /// The whole picture of the frame `key`.
    pub fn whole(key: u64, image: &'a RgbImage) -> Self {
        Self { key, part: 0, image }
    }
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
    /// The longer side, in pixels, to which the network shrinks every picture; `None` for one that sees pictures as they are.
    pub input_side: Option<u32>,
    /// Whether its boxes are told by someone who knows, rather than found in pixels: then no pixel is held against them.
    pub is_told: bool,
}

impl ModelInfo {
    /// The name as results show it: a checkpoint trained on rendered scenes is called that.
    pub fn label(&self) -> String {
        let note = if self.synthetic { " (small, trained on rendered scenes)" } else { "" };
        format!("{}{note}", self.name)
    }
}

/// A loaded model: what it is, and the roles it fills. Each role is there or not; nothing is implemented to be refused.
///
/// Whoever only wants an answer asks the model itself (`model.ground(..)`): it asks whoever fills the role, and refuses with
/// [`ModelError::Unsupported`] where nobody does.
pub trait Model: Send {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// The nouns it was taught, where that list is closed: of anything else it knows nothing, whether in view or not.
    /// `None` for a model of open vocabulary.
    fn known_nouns(&self) -> Option<&[String]> {
        None
    }

    /// Finds things by phrases.
    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        None
    }

    /// Says what an image shows.
    fn captioner(&mut self) -> Option<&mut dyn Captioner> {
        None
    }

    /// Answers questions.
    fn answerer(&mut self) -> Option<&mut dyn Answerer> {
        None
    }

    /// Says how well pictures and words fit together.
    fn verifier(&mut self) -> Option<&mut dyn Verifier> {
        None
    }

    /// Runs the model's own tasks, for looking inside.
    fn probe(&mut self) -> Option<&mut dyn Probe> {
        None
    }
}

/// Finds things by phrases.
pub trait Grounder {
    /// Boxes for each phrase, by falling score, above the model's own floor (callers apply their thresholds).
    /// One list per phrase, in the order of `phrases`.
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError>;
}

/// Says what an image shows.
pub trait Captioner {
    /// A caption of the whole image, or of the part in `region` (pixels).
    fn caption(&mut self, image: KeyedImage<'_>, region: Option<BoundingBox2d>)
    -> Result<String, ModelError>;
}

/// Answers questions.
pub trait Answerer {
    /// A short answer to a question about the image.
    fn answer(&mut self, image: KeyedImage<'_>, question: &str) -> Result<String, ModelError>;
}

/// A model with one space for images and texts: how well does this picture show these words? Both are unit vectors; the nearer,
/// the better they fit.
pub trait Verifier {
    /// A picture in the shared space: unit length.
    fn embed_image(&mut self, image: &RgbImage) -> Result<Vec<f32>, ModelError>;

    /// A text in the shared space: unit length. Texts that were asked before come from a cache.
    fn embed_text(&mut self, text: &str) -> Result<Vec<f32>, ModelError>;

    /// What the model makes of a cosine between the two: the logit that it was trained with.
    fn logit(&self, cosine: f32) -> f32;

    /// Probabilities of texts from their logits: of each by itself (SigLIP) or of one against the others (CLIP).
    fn probabilities(&self, logits: &[f32]) -> Vec<f32>;
}

/// What a model can be asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// [`Grounder`]
    Grounder,
    /// [`Captioner`]
    Captioner,
    /// [`Answerer`]
    Answerer,
    /// [`Verifier`]
    Verifier,
    /// [`Probe`]
    Probe,
}

impl Role {
    /// As sentences name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grounder => "grounder",
            Self::Captioner => "captioner",
            Self::Answerer => "answerer",
            Self::Verifier => "verifier",
            Self::Probe => "probe",
        }
    }

    /// What whoever fills it does.
    pub fn task(self) -> &'static str {
        match self {
            Self::Grounder => "ground",
            Self::Captioner => "caption",
            Self::Answerer => "answer",
            Self::Verifier => "verify",
            Self::Probe => "raw tasks",
        }
    }
}

impl dyn Model + '_ {
    /// The roles it fills; [`Role::Probe`] is for looking inside and not among them.
    pub fn roles(&mut self) -> Vec<Role> {
        let filled = [
            (Role::Grounder, self.grounder().is_some()),
            (Role::Captioner, self.captioner().is_some()),
            (Role::Answerer, self.answerer().is_some()),
            (Role::Verifier, self.verifier().is_some()),
        ];
        filled.into_iter().filter(|it| it.1).map(|it| it.0).collect()
    }

    /// [`Grounder::ground`]
    pub fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        match self.grounder() {
            Some(grounder) => grounder.ground(image, phrases),
            None => Err(self.lacks(Role::Grounder)),
        }
    }

    /// [`Captioner::caption`]
    pub fn caption(
        &mut self,
        image: KeyedImage<'_>,
        region: Option<BoundingBox2d>,
    ) -> Result<String, ModelError> {
        match self.captioner() {
            Some(captioner) => captioner.caption(image, region),
            None => Err(self.lacks(Role::Captioner)),
        }
    }

    /// [`Answerer::answer`]
    pub fn answer(&mut self, image: KeyedImage<'_>, question: &str) -> Result<String, ModelError> {
        match self.answerer() {
            Some(answerer) => answerer.answer(image, question),
            None => Err(self.lacks(Role::Answerer)),
        }
    }

    /// [`Probe::raw_task`]
    pub fn raw_task(
        &mut self,
        image: KeyedImage<'_>,
        task: &RawTask<'_>,
    ) -> Result<RawTaskOutput, ModelError> {
        match self.probe() {
            Some(probe) => probe.raw_task(image, task),
            None => Err(self.lacks(Role::Probe)),
        }
    }

    fn lacks(&mut self, role: Role) -> ModelError {
        let roles = self.roles();
        let note = match roles.as_slice() {
            [only] if *only != Role::Grounder => format!("; it is a {}", only.name()),
            _ => String::new(),
        };
        ModelError::Unsupported { model: self.info().name.clone(), role, note }
    }
}

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The model does not fill the role that it was asked in.
    #[error("model {model:?} cannot do {:?}{note}", role.task())]
    Unsupported {
        /// Its name.
        model: String,
        /// What it was asked to be.
        role: Role,
        /// What it is instead, where it finds nothing at all.
        note: String,
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
