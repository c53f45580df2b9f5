//! Why a request comes to less than FOUND.

use crate::model::ModelError;
use crate::result::Status;

/// Why a request comes to less than FOUND; each is the result's message.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to look at.
    #[error("the image is empty: expected at least one pixel")]
    EmptyImage,
    /// The model failed.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// Several objects match; a question to ask back.
    #[error("{0}")]
    Ambiguous(String),
    /// Nothing matches; what is missing.
    #[error("{0}")]
    NotFound(String),
    /// Something that is meant has no pose.
    #[error("{0}")]
    NoDepth(String),
}

impl Refusal {
    /// What it makes of the result.
    pub fn status(&self) -> Status {
        match self {
            Self::EmptyImage | Self::Model(_) => Status::Error,
            Self::Ambiguous(_) => Status::Ambiguous,
            Self::NotFound(_) => Status::NotFound,
            Self::NoDepth(_) => Status::NoDepth,
        }
    }
}
