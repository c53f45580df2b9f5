//! Greedy decoding by the rules of generation_config.json, in the order in which transformers applies them.

use std::path::Path;

use candle_core::Tensor;
use serde::Deserialize;

use super::florence2::{Encoded, Florence2Network, Trace};
use super::loading::{checkpoint_error, read_json};
use super::tokenize::FlorenceTokenizer;
use crate::model::ModelError;

/// generation_config.json.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Beams of the reference's default mode.
    pub num_beams: usize,
    /// No run of this many tokens appears twice; 0 switches the rule off.
    pub no_repeat_ngram_size: usize,
    /// The first token after the start token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token when the length limit is reached.
    pub forced_eos_token_id: Option<u32>,
    /// What decoding starts with.
    pub decoder_start_token_id: u32,
    /// Ends a sequence.
    pub eos_token_id: u32,
    /// Longest sequence, start token included.
    pub max_length: usize,
    /// Most tokens after the start token; takes precedence over `max_length`.
    pub max_new_tokens: Option<usize>,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            num_beams: 1,
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
    /// Reads generation_config.json of a model directory and checks its ids against the vocabulary.
    pub fn open(dir: &Path, vocab_size: usize) -> Result<Self, ModelError> {
        let path = dir.join("generation_config.json");
        let config: Self = read_json(&path)?;
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

/// What was generated for one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The start token, what was generated, and the end token unless the length limit came first.
    pub ids: Vec<u32>,
    /// For each generated token (all but the start token) its log-probability under the model, before forced and banned
    /// tokens are accounted for.
    pub log_probs: Vec<f32>,
    /// For each generated token that is a location: how it was chosen among the locations.
    pub locations: Vec<Option<LocationChoice>>,
}

/// The distribution of one coordinate over the 1000 location tokens, when one of them was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocationChoice {
    /// 0 to 999.
    pub bin: u32,
    /// Log-probability of this bin among all locations.
    pub log_prob: f32,
    /// Standard deviation of the distribution, in bins.
    pub std_bins: f32,
}

/// Generates greedily for row `row` of `encoded`.
pub fn generate_greedily(
    network: &Florence2Network,
    tokenizer: &FlorenceTokenizer,
    config: &GenerationConfig,
    encoded: &Encoded,
    row: usize,
) -> Result<Generated, ModelError> {
    let max_tokens = config.max_tokens().min(network.config().text_config.max_position_embeddings);
    let mut cache = network.start_decoding(encoded, row, 1, max_tokens)?;
    let mut ids = vec![config.decoder_start_token_id];
    let mut generated = Generated { ids: Vec::new(), log_probs: Vec::new(), locations: Vec::new() };
    while ids.len() < max_tokens {
        let last = ids[ids.len() - 1];
        let logits = network.decode(&mut cache, &[last], &mut Trace::off())?;
        let logits = last_logits(&logits)?;
        let next = choose(config, &ids, &logits, max_tokens);
        generated.log_probs.push(log_softmax_at(&logits, next as usize));
        generated.locations.push(location_choice(tokenizer, &logits, next));
        ids.push(next);
        if next == config.eos_token_id {
            break;
        }
    }
    generated.ids = ids;
    Ok(generated)
}

fn last_logits(logits: &Tensor) -> Result<Vec<f32>, ModelError> {
    let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(ModelError::Inference("the decoder's output is not a number".into()));
    }
    Ok(logits)
}

/// The token that greedy decoding takes after `ids`.
fn choose(config: &GenerationConfig, ids: &[u32], logits: &[f32], max_tokens: usize) -> u32 {
    if let Some(bos) = config.forced_bos_token_id.filter(|_| ids.len() == 1) {
        return bos;
    }
    if let Some(eos) = config.forced_eos_token_id.filter(|_| ids.len() + 1 == max_tokens) {
        return eos;
    }
    let banned = banned_tokens(ids, config.no_repeat_ngram_size);
    let mut best = (config.eos_token_id, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 && !banned.contains(&(id as u32)) {
            best = (id as u32, logit);
        }
    }
    best.0
}

/// Tokens that would complete a run of `n` tokens that `ids` already holds.
fn banned_tokens(ids: &[u32], n: usize) -> Vec<u32> {
    if n == 0 || ids.len() < n {
        return Vec::new();
    }
    let prefix = &ids[ids.len() + 1 - n..];
    ids.windows(n).filter(|window| window[..n - 1] == *prefix).map(|window| window[n - 1]).collect()
}

fn log_softmax_at(logits: &[f32], index: usize) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    (f64::from(logits[index] - largest) - sum.ln()) as f32
}

fn location_choice(tokenizer: &FlorenceTokenizer, logits: &[f32], id: u32) -> Option<LocationChoice> {
    let bin = tokenizer.location(id)?;
    let range = tokenizer.locations();
    let logits = logits.get(range.start as usize..range.end as usize)?;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
    for (bin, logit) in logits.iter().enumerate() {
        let weight = f64::from(logit - largest).exp();
        total += weight;
        first += weight * bin as f64;
        second += weight * (bin * bin) as f64;
    }
    let mean = first / total;
    Some(LocationChoice {
        bin,
        log_prob: log_softmax_at(logits, bin as usize),
        std_bins: (second / total - mean * mean).max(0.0).sqrt() as f32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_runs_are_banned() {
        for (ids, n, expected) in [
            (vec![2, 0, 5, 6, 7, 5, 6], 3, vec![7]),
            (vec![2, 0, 5, 6, 7, 5, 6], 0, vec![]),
            (vec![4, 4], 3, vec![]),
            (vec![4, 4, 4], 3, vec![4]),
            (vec![1, 2, 3], 1, vec![1, 2, 3]),
            (vec![5, 9, 5, 8, 5], 2, vec![9, 8]),
        ] {
            assert_eq!(banned_tokens(&ids, n), expected, "{ids:?} {n}");
        }
    }

    #[test]
    fn forced_tokens_come_first_and_last() {
        let config = GenerationConfig {
            forced_bos_token_id: Some(0),
            forced_eos_token_id: Some(2),
            no_repeat_ngram_size: 1,
            ..GenerationConfig::default()
        };
        let logits = [0.0, 1.0, 2.0, 9.0, 8.0];
        assert_eq!(choose(&config, &[2], &logits, 10), 0);
        assert_eq!(choose(&config, &[2, 0], &logits, 10), 3);
        assert_eq!(choose(&config, &[2, 0, 3], &logits, 10), 4);
        assert_eq!(choose(&config, &[2, 0, 3], &logits, 4), 2);
    }
}
