//! Florence-2's tokenizer: BART's byte-level BPE and 1000 location tokens.
//!
//! The ids of special tokens are read from tokenizer.json and checked against config.json when a model is loaded, never
//! assumed.

use std::path::Path;

use tokenizers::{AddedToken, Tokenizer};

use crate::model::ModelError;
use crate::model::candle::loading::checkpoint_error;

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
    /// Reads tokenizer.json of a model directory and checks it against config.json's numbers. Older checkpoints, which have no
    /// image token, leave adding Florence-2's tokens to BART's vocabulary to their code; it is done here.
    pub fn open(dir: &Path, image_token_id: Option<u32>, vocab_size: usize) -> Result<Self, ModelError> {
        let path = dir.join("tokenizer.json");
        let problem = |problem: String| checkpoint_error(&path, problem);
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|error| problem(error.to_string()))?;
        if image_token_id.is_none() && tokenizer.token_to_id("<loc_0>").is_none() {
            tokenizer.add_special_tokens(florence_tokens()).map_err(|error| problem(error.to_string()))?;
        }
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
        if let Some(expected) = image_token_id {
            let got = id("<image>")?;
            if got != expected {
                return Err(problem(format!("<image>: config.json says id {expected}, got {got}")));
            }
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
        Ok([[self.bos].as_slice(), &self.encode_words(sentence)?, &[self.eos]].concat())
    }

    /// Text as it stands inside a prompt or an answer, without `<s>` and `</s>` around it.
    pub fn encode_words(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|error| ModelError::Input(format!("the text cannot be tokenized: {error}")))?;
        Ok(encoding.get_ids().to_vec())
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

/// The tokens that Florence-2 adds to BART's, in order (`processing_florence2.py` of the checkpoints that came with their own
/// code; the misspelling is theirs).
fn florence_tokens() -> Vec<AddedToken> {
    let before = ["<od>", "</od>", "<ocr>", "</ocr>"].map(str::to_owned);
    let after = [
        "<cap>",
        "</cap>",
        "<ncap>",
        "</ncap>",
        "<dcap>",
        "</dcap>",
        "<grounding>",
        "</grounding>",
        "<seg>",
        "</seg>",
        "<sep>",
        "<region_cap>",
        "</region_cap>",
        "<region_to_desciption>",
        "</region_to_desciption>",
        "<proposal>",
        "</proposal>",
        "<poly>",
        "</poly>",
        "<and>",
    ]
    .map(str::to_owned);
    let locations = (0..N_LOCATIONS).map(|bin| format!("<loc_{bin}>"));
    let all = before.into_iter().chain(locations).chain(after);
    all.map(|token| AddedToken::from(token, true).normalized(false)).collect()
}
