//! Why a request comes to nothing before the words are held against what is seen.

use super::camera::ConvertError;
use super::outcome::MAX_INSTRUCTION_BYTES;
use super::state::State;
use crate::instruction::ParseError;
use crate::model::ModelError;
use crate::model::worker::AskError;
use crate::result::Status;
use crate::transform::TransformError;

/// Why a request comes to nothing; each is the result's message.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The standing instruction is taken back.
    #[error(
        "the instruction is empty: stopped looking; say what to look for, such as \"pick up the red cup\""
    )]
    Empty,
    /// "stop", "never mind".
    #[error("stopped looking, as told; nothing is wrong: say what to look for next")]
    Stopped,
    /// The words are too many to read.
    #[error("expected an instruction of at most {MAX_INSTRUCTION_BYTES} bytes, got {bytes}: say it shorter")]
    TooLong {
        /// As received.
        bytes: usize,
    },
    /// The question is too long to read.
    #[error("expected a question of at most {MAX_INSTRUCTION_BYTES} bytes, got {bytes}")]
    QuestionTooLong {
        /// As received.
        bytes: usize,
    },
    /// The words make no instruction.
    #[error("{0}")]
    NotUnderstood(#[from] ParseError),
    /// Other words hold now.
    #[error("a newer instruction came before this one was looked at")]
    Superseded,
    /// Whoever asked has gone.
    #[error("the request was canceled before there was an answer")]
    Canceled,
    /// There is no model yet.
    #[error("the model is still being loaded: ask again in a moment")]
    Loading,
    /// The node does not answer in this state.
    #[error("the node is {}: activate it (ros2 lifecycle set NODE activate)", .0.label())]
    Inactive(State),
    /// No more images will come.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// There is no image, or none of now; why, as one sentence.
    #[error("{0}")]
    NoFreshImage(String),
    /// The color image cannot be used.
    #[error("{0}")]
    Image(#[from] ConvertError),
    /// The words name a side of a frame that is not known.
    #[error("left, right, front and back are those of {viewpoint:?}: {error}")]
    Viewpoint {
        /// The frame.
        viewpoint: String,
        /// Why it is not known.
        error: Box<TransformError>,
    },
    /// What is in reach is told in a frame that is not known.
    #[error("the workspace is told in {frame:?}: {error}")]
    Workspace {
        /// The frame.
        frame: String,
        /// Why it is not known.
        error: Box<TransformError>,
    },
    /// The model was not, or not to the end, asked.
    #[error("{0}")]
    Ask(#[from] AskError),
    /// The model was asked, and failed.
    #[error("{0}")]
    Model(#[from] ModelError),
}

impl Refusal {
    /// What it makes of the result.
    pub fn status(&self) -> Status {
        match self {
            Self::TooLong { .. } | Self::QuestionTooLong { .. } | Self::NotUnderstood(_) => {
                Status::BadInstruction
            }
            Self::Empty
            | Self::Stopped
            | Self::Superseded
            | Self::Canceled
            | Self::Loading
            | Self::Inactive(_)
            | Self::ShuttingDown => Status::Blocked,
            Self::NoFreshImage(_) => Status::Stale,
            Self::Viewpoint { .. } | Self::Workspace { .. } => Status::NoTransform,
            Self::Image(_) | Self::Ask(_) | Self::Model(_) => Status::Error,
        }
    }
}
