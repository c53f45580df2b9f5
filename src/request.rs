//! What is asked of a frame: words with what they mean.

use crate::candidate::Candidate;
use crate::instruction::{Instruction, ParseError, Vocabulary, parse};

/// Words with what they mean.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundingRequest {
    /// As received.
    pub text: String,
    /// What it means, with what was said before.
    pub instruction: Instruction,
    /// What was meant before: "the other one" is none of these.
    pub previous: Vec<Candidate>,
}

impl GroundingRequest {
    /// Words that stand for themselves.
    ///
    /// # Errors
    /// The text is not an instruction.
    pub fn parse(text: &str, vocabulary: &Vocabulary) -> Result<Self, ParseError> {
        let instruction = parse(text, vocabulary)?;
        Ok(Self { text: text.to_owned(), instruction, previous: Vec::new() })
    }
}
