//! What a person chose for the way from words to poses: the part of the parameters that the pipeline needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::lift::{Gripper, LiftOptions};
use crate::score::ScoreWeights;

/// The same for every frame; what is known of one frame is a [`FrameContext`](crate::lift::FrameContext).
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Whether targets are lifted; without, results are 2D only.
    pub use_depth: bool,
    /// Whether parts of a picture are looked at again.
    pub second_look: SecondLook,
    /// Whether a candidate's pixels must bear out the colors that are asked for.
    pub check_colors: bool,
    /// At most so many candidates per phrase.
    pub max_candidates: usize,
    /// Describe each target.
    pub caption_targets: bool,
    /// How score parts become the score; `None`: the model's score is it.
    pub score_weights: Option<Arc<ScoreWeights>>,
    /// How sure is sure enough.
    pub thresholds: Arc<Thresholds>,
    /// How boxes become poses.
    pub lift: LiftOptions,
    /// Where targets are, and how large.
    pub bounds: TargetBounds,
    /// What grasps are for.
    pub gripper: Gripper,
}

/// What is outside is no target, but may be a landmark.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetBounds {
    /// Targets lie within; `None`: anywhere.
    pub workspace: Option<Workspace>,
    /// The longest side of a target is at least this, meters; 0: any.
    pub min_size_m: f64,
    /// The longest side of a target is at most this, meters; 0: any.
    pub max_size_m: f64,
}

/// A box along the axes of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    /// TF frame; `None`: the camera's optical frame.
    pub frame: Option<String>,
    /// Least x, y and z, meters.
    pub min_m: [f64; 3],
    /// Greatest x, y and z, meters.
    pub max_m: [f64; 3],
}

/// Whether parts of a picture are looked at again where the first look was not sure of a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondLook {
    /// One look at the whole picture.
    Never,
    /// By models with a small input (at most 512 pixels), for which another look is cheap.
    Auto,
    /// By every model that shrinks the picture.
    Always,
}

impl SecondLook {
    /// The names that options use.
    pub const NAMES: &[&str] = &["never", "auto", "always"];

    /// The value with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "never" => Some(Self::Never),
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            _ => None,
        }
    }
}

/// How sure is sure enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// Detections under this score are nothing, in [0, 1].
    pub score: f32,
    /// Two candidates whose fits (in [0, 1]) differ by less are not told apart.
    pub ambiguity_margin: f64,
    /// By phrase (lower case), what holds for it instead.
    pub per_phrase: BTreeMap<String, PhraseThresholds>,
}

/// What holds for one phrase; `None`: what holds for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhraseThresholds {
    /// Instead of [`Thresholds::score`], in [0, 1].
    pub score_threshold: Option<f32>,
    /// Instead of [`Thresholds::ambiguity_margin`], in [0, 1].
    pub ambiguity_margin: Option<f64>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { score: 0.5, ambiguity_margin: 0.2, per_phrase: BTreeMap::new() }
    }
}

impl Thresholds {
    /// The least score that counts for a phrase, [0, 1].
    pub fn threshold_of(&self, phrase: &str) -> f32 {
        self.of_phrase(phrase).score_threshold.unwrap_or(self.score)
    }

    /// How far apart fits to a phrase must be, [0, 1].
    pub fn ambiguity_margin_of(&self, phrase: &str) -> f64 {
        self.of_phrase(phrase).ambiguity_margin.unwrap_or(self.ambiguity_margin)
    }

    fn of_phrase(&self, phrase: &str) -> PhraseThresholds {
        self.per_phrase.get(phrase).copied().unwrap_or_default()
    }
}
