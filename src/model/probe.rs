//! Looking inside a model, for `ground task` and for tests against the reference. Nothing that grounds an instruction comes here.

use super::{KeyedImage, ModelError};
use crate::image::RgbImage;

/// A model whose own tasks can be run.
pub trait Probe {
    /// One of the model's own tasks, its output unprocessed.
    fn raw_task(&mut self, image: KeyedImage<'_>, task: &RawTask<'_>) -> Result<RawTaskOutput, ModelError>;
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
