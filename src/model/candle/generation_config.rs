//! `generation_config.json`: the reference's rules of decoding, as a checkpoint sets them.

use std::path::Path;

use serde::Deserialize;

use super::loading::{checkpoint_error, read_json};
use crate::model::ModelError;

/// `generation_config.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Beams of the reference's default mode.
    pub num_beams: usize,
    /// No run of this many tokens appears twice; 0 switches the rule off.
    pub no_repeat_ngram_size: usize,
    /// When to stop looking for better sequences.
    pub early_stopping: EarlyStopping,
    /// Sums of log-probabilities are divided by length to this power.
    pub length_penalty: f32,
    /// The first token after the start token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token when the length limit is reached.
    pub forced_eos_token_id: Option<u32>,
    /// What decoding starts with.
    pub decoder_start_token_id: u32,
    /// Ends a sequence.
    #[serde(deserialize_with = "one_id")]
    pub eos_token_id: u32,
    /// Longest sequence, start token included.
    pub max_length: usize,
    /// Most tokens after the start token; takes precedence over `max_length`.
    pub max_new_tokens: Option<usize>,
}

/// `early_stopping` of the reference: false, true or "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub enum EarlyStopping {
    /// Stop when running beams, judged at their present length, cannot win any more.
    No,
    /// Stop when there are as many finished sequences as beams.
    Yes,
    /// Stop when running beams, judged at the greatest length, cannot win any more.
    Never,
}

impl TryFrom<serde_json::Value> for EarlyStopping {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => Ok(Self::No),
            serde_json::Value::Bool(true) => Ok(Self::Yes),
            serde_json::Value::String(text) if text == "never" => Ok(Self::Never),
            other => Err(format!("early_stopping: expected true, false or \"never\", got {other}")),
        }
    }
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            num_beams: 1,
            early_stopping: EarlyStopping::No,
            length_penalty: 1.0,
            no_repeat_ngram_size: 0,
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            decoder_start_token_id: 2,
            eos_token_id: 2,
            // Longer than any caption or list of boxes worth waiting for; a checkpoint may say otherwise.
            max_length: 256,
            max_new_tokens: None,
        }
    }
}

impl GenerationConfig {
    /// Reads `generation_config.json` of a model directory and checks its ids against the vocabulary. Checkpoints older than
    /// that file keep the same keys in config.json's `text_config`; there, `max_length` is a default nobody chose.
    pub fn open(dir: &Path, vocab_size: usize) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct ModelConfig {
            text_config: GenerationConfig,
        }
        let path = dir.join("generation_config.json");
        let config: Self = if path.is_file() {
            read_json(&path)?
        } else {
            let of_model: ModelConfig = read_json(&dir.join("config.json"))?;
            Self { max_length: Self::default().max_length, ..of_model.text_config }
        };
        let ids = [
            ("forced_bos_token_id", config.forced_bos_token_id),
            ("forced_eos_token_id", config.forced_eos_token_id),
            ("decoder_start_token_id", Some(config.decoder_start_token_id)),
            ("eos_token_id", Some(config.eos_token_id)),
        ];
        for (key, id) in ids {
            if let Some(id) = id.filter(|id| *id as usize >= vocab_size) {
                return Err(checkpoint_error(
                    &path,
                    format!("{key} {id} is outside the vocabulary of {vocab_size}"),
                ));
            }
        }
        Ok(config)
    }

    /// Longest sequence, start token included.
    pub fn max_tokens(&self) -> usize {
        self.max_new_tokens.map_or(self.max_length, |n| n.saturating_add(1)).max(2)
    }
}

/// An id, or a list of one, as transformers may write it.
fn one_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(u32),
        Many(Vec<u32>),
    }
    match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(id) => Ok(id),
        OneOrMany::Many(ids) => match ids.as_slice() {
            [id] => Ok(*id),
            _ => Err(serde::de::Error::custom(format!("eos_token_id: expected one id, got {ids:?}"))),
        },
    }
}
