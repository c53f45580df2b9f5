//! Everything to be told about one request, before it becomes messages.

use nalgebra::Isometry3;

use super::camera::FrameHeader;
use crate::result::{GroundingResult, Status};

/// Instructions longer than this, in bytes, are refused unread.
pub const MAX_INSTRUCTION_BYTES: usize = 4096;

/// Everything to be told about one processed request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The request this answers.
    pub instruction_id: String,
    /// What the pipeline found, in the camera's optical frame.
    pub result: GroundingResult,
    /// Where poses are told; `None` when they are not (nothing lifted, or no transform).
    pub target_from_camera: Option<TargetFrame>,
    /// Size of the image looked at, (width, height); (0, 0) when there was none.
    pub image_size: (u32, u32),
    /// Milliseconds by stage.
    pub latency_ms: Vec<(String, f64)>,
    /// What became of the target since the image was taken.
    pub fate: TargetFate,
}

/// What became of a target since the image that it was found in was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetFate {
    /// It was not followed: nobody knows.
    #[default]
    Unknown,
    /// It is followed: newer poses of it may have been told already.
    Followed,
    /// It was lost: a pose of then is not to be told as one of now.
    Lost,
}

/// The frame poses are told in, and how to get there from the camera.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetFrame {
    /// Its name.
    pub frame_id: String,
    /// The transform at the image's stamp.
    pub target_from_camera: Isometry3<f64>,
}

impl Outcome {
    /// Of a request that no image was looked at for.
    pub fn without_image(id: &str, instruction: &str, status: Status, message: String) -> Self {
        Self {
            instruction_id: id.to_owned(),
            result: GroundingResult::refused(&shortened(instruction), status, message),
            target_from_camera: None,
            image_size: (0, 0),
            latency_ms: Vec::new(),
            fate: TargetFate::Unknown,
        }
    }

    /// About an image, although it was not looked at.
    #[must_use]
    pub fn at(mut self, header: &FrameHeader) -> Self {
        self.result.stamp_ns = header.stamp_ns;
        self.result.frame_id.clone_from(&header.frame_id);
        self
    }
}

/// An instruction as it may be repeated in results and logs.
pub fn shortened(text: &str) -> String {
    if text.len() <= MAX_INSTRUCTION_BYTES {
        return text.to_owned();
    }
    let end = (0..=MAX_INSTRUCTION_BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}...", &text[..end])
}
