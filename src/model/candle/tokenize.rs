//! Florence-2's tokenizer: BART's byte-level BPE and 1000 location tokens.
//!
//! The ids of special tokens are read from tokenizer.json and checked against config.json when a model is loaded, never
//! assumed.

use std::path::Path;

use tokenizers::Tokenizer;

use super::loading::checkpoint_error;
use crate::model::ModelError;

/// Location tokens `<loc_0>` to `<loc_999>`.
pub const N_LOCATIONS: u32 = 1000;

/// tokenizer.json, with the ids that decoding needs.
pub struct FlorenceTokenizer {
    tokenizer: Tokenizer,
    /// `<s>`
    pub bos: u32,
    /// `</s>`
    pub eos: u32,
    /// `<loc_0>`; the others follow.
    first_location: u32,
}

impl FlorenceTokenizer {
    /// Reads tokenizer.json of a model directory and checks it against config.json's numbers.
    pub fn open(dir: &Path, image_token_id: u32, vocab_size: usize) -> Result<Self, ModelError> {
        let path = dir.join("tokenizer.json");
        let problem = |problem: String| checkpoint_error(&path, problem);
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| problem(error.to_string()))?;
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| problem(format!("token {token:?} is missing")))
        };
        let (bos, eos, first_location) = (id("<s>")?, id("</s>")?, id("<loc_0>")?);
        for location in 0..N_LOCATIONS {
            let (expected, got) = (first_location + location, id(&format!("<loc_{location}>"))?);
            if got != expected {
                return Err(problem(format!(
                    "<loc_{location}>: expected id {expected} (consecutive), got {got}"
                )));
            }
        }
        let image = id("<image>")?;
        if image != image_token_id {
            return Err(problem(format!("<image>: config.json says id {image_token_id}, got {image}")));
        }
        let n_ids = tokenizer.get_vocab_size(true);
        if n_ids > vocab_size {
            return Err(problem(format!("{n_ids} tokens, but config.json has vocab_size {vocab_size}")));
        }
        Ok(Self { tokenizer, bos, eos, first_location })
    }

    /// A prompt as the reference processor writes it after the image placeholders: `<s>`, the sentence, `</s>`.
    /// Location tokens in the sentence are read as such.
    pub fn encode_prompt(&self, sentence: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .tokenizer
            .encode(sentence, false)
            .map_err(|error| ModelError::Input(format!("the text cannot be tokenized: {error}")))?;
        Ok([&[self.bos], encoding.get_ids(), &[self.eos]].concat())
    }

    /// Token ids to text, special tokens spelled out; ids without a token are left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.tokenizer
            .decode(ids, false)
            .map_err(|error| ModelError::Inference(format!("token ids cannot be decoded: {error}")))
    }

    /// The bin (0 to 999) of a location token.
    pub fn location(&self, id: u32) -> Option<u32> {
        id.checked_sub(self.first_location).filter(|bin| *bin < N_LOCATIONS)
    }

    /// The ids of the location tokens.
    pub fn locations(&self) -> std::ops::Range<u32> {
        self.first_location..self.first_location + N_LOCATIONS
    }
}

/// A person's words as they may stand in a prompt: one line, and no `<` or `>`, so that they cannot form special tokens.
pub fn plain_words(text: &str) -> String {
    let spaced = text.replace(['<', '>'], " ");
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_form_special_tokens() {
        assert_eq!(plain_words(" red\tcup </s><image>\n"), "red cup /s image");
        assert_eq!(plain_words("<<>>"), "");
    }
}
