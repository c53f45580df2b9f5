//! What was said on one way in, and when: a service's "the left one" does not answer a question of the topic's.

use std::time::{Duration, Instant};

use super::outcome::MAX_INSTRUCTION_BYTES;
use super::refusal::Refusal;
use crate::dialogue::Dialogue;
use crate::instruction::Vocabulary;
use crate::request::GroundingRequest;
use crate::result::GroundingResult;

/// One dialogue with a clock beside it.
pub struct Conversation {
    dialogue: Dialogue,
    started: Instant,
}

impl Conversation {
    /// With nothing said yet; for `window` after a result words may answer it.
    pub fn new(window: Duration) -> Self {
        let window_ns = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX);
        Self { dialogue: Dialogue::new(window_ns), started: Instant::now() }
    }

    /// What `text` means after what was said.
    pub fn understand(
        &self,
        id: &str,
        text: &str,
        vocabulary: &Vocabulary,
    ) -> Result<GroundingRequest, Refusal> {
        if text.len() > MAX_INSTRUCTION_BYTES {
            return Err(Refusal::TooLong { bytes: text.len() });
        }
        Ok(self.dialogue.understand(id, text, self.now_ns(), vocabulary)?)
    }

    /// Keeps what came of a request.
    pub fn record(&mut self, id: &str, request: &GroundingRequest, result: &GroundingResult) {
        let now_ns = self.now_ns();
        self.dialogue.record(id, request, result, now_ns);
    }

    /// Forgets all that was said.
    pub fn forget(&mut self) {
        self.dialogue.forget();
    }

    fn now_ns(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }
}
