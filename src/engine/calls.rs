//! What services and actions ask of the engine.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::camera::FrameHeader;
use super::outcome::Outcome;
use super::refusal::Refusal;

/// A request of a service or an action.
#[derive(Debug)]
pub enum Call {
    /// From `~/ground` and `~/find`.
    Ground(GroundCall),
    /// From `~/describe`.
    Describe(DescribeCall),
}

/// A request for one result.
#[derive(Debug)]
pub struct GroundCall {
    /// Comes back with the result.
    pub id: String,
    /// As received.
    pub instruction: String,
    /// For the image and for the model; zero = the node's own limits.
    pub timeout: Duration,
    /// Only an image newer than this one will do; 0 = the newest there is.
    pub after_sequence: u64,
    /// The outcome, and the number of the image it is about. Dropping the receiver cancels the request.
    pub reply: oneshot::Sender<(Arc<Outcome>, u64)>,
}

/// A request for words about the newest image.
#[derive(Debug)]
pub struct DescribeCall {
    /// Empty = a caption.
    pub question: String,
    /// The words, or why there are none.
    pub reply: oneshot::Sender<Result<Description, DescribeRefusal>>,
}

/// Words about an image.
#[derive(Debug)]
pub struct Description {
    /// Stamp and frame of the image looked at.
    pub header: FrameHeader,
    /// Name of the model that looked.
    pub model: String,
    /// The caption or answer.
    pub text: String,
}

/// Why there are no words.
#[derive(Debug)]
pub struct DescribeRefusal {
    /// Stamp and frame of the image looked at; of nothing when none was.
    pub header: FrameHeader,
    /// Name of the model that looked; empty when none did.
    pub model: String,
    /// The sentence that is answered instead.
    pub refusal: Refusal,
}

impl From<Refusal> for DescribeRefusal {
    fn from(refusal: Refusal) -> Self {
        Self { header: FrameHeader::default(), model: String::new(), refusal }
    }
}
