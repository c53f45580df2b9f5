//! Greedy decoding and beam search by the rules of `generation_config.json`, in the order in which transformers applies them.

use std::path::Path;

use candle_core::Tensor;
use serde::Deserialize;

use super::florence2::{Encoded, Florence2Network, Trace};
use super::loading::{checkpoint_error, read_json};
use super::tokenize::FlorenceTokenizer;
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
    /// Reads `generation_config.json` of a model directory and checks its ids against the vocabulary.
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
    /// With beams: the sum of the log-probabilities over length ^ `length_penalty`, by which the answer won.
    pub score: Option<f32>,
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

/// Generates an answer for row `row` of `encoded`: greedily, or with several beams by the rules of transformers 5.23.0's
/// `GenerationMixin._beam_search`.
pub fn generate(
    network: &Florence2Network,
    tokenizer: &FlorenceTokenizer,
    config: &GenerationConfig,
    encoded: &Encoded,
    row: usize,
    n_beams: usize,
) -> Result<Generated, ModelError> {
    if !(1..=MAX_BEAMS).contains(&n_beams) {
        return Err(ModelError::Input(format!("expected 1 to {MAX_BEAMS} beams, got {n_beams}")));
    }
    let max_tokens = config.max_tokens().min(network.config().text_config.max_position_embeddings);
    let mut cache = network.start_decoding(encoded, row, n_beams, max_tokens)?;
    let mut step = |beams: &[Generated], sources: &[u32]| -> Result<Vec<Vec<f32>>, ModelError> {
        cache.reorder(sources)?;
        let last: Vec<u32> = beams.iter().map(|beam| beam.ids[beam.ids.len() - 1]).collect();
        logits_by_beam(&network.decode(&mut cache, &last, &mut Trace::off())?)
    };
    let start = Generated::start(config);
    if n_beams == 1 {
        let mut beam = start;
        while beam.ids.len() < max_tokens && !beam.ends_with(config.eos_token_id) {
            let logits = step(std::slice::from_ref(&beam), &[0])?.swap_remove(0);
            let next = choose(config, &beam.ids, &logits, max_tokens);
            beam = beam.followed_by(next, &logits, tokenizer);
        }
        return Ok(beam);
    }
    search_with_beams(config, tokenizer, n_beams, max_tokens, start, step)
}

/// More beams than this only cost time.
const MAX_BEAMS: usize = 16;
/// Stands for "impossible" in sums of log-probabilities, as in the reference.
const IMPOSSIBLE: f32 = -1e9;

fn search_with_beams(
    config: &GenerationConfig,
    tokenizer: &FlorenceTokenizer,
    n_beams: usize,
    max_tokens: usize,
    start: Generated,
    mut step: impl FnMut(&[Generated], &[u32]) -> Result<Vec<Vec<f32>>, ModelError>,
) -> Result<Generated, ModelError> {
    let mut beams = vec![start; n_beams];
    // All beams are alike at first, so only one of them may go on.
    let mut scores = vec![IMPOSSIBLE; n_beams];
    scores[0] = 0.0;
    let mut sources: Vec<u32> = (0..n_beams as u32).collect();
    // Best first; `None` while there are fewer finished sequences than beams.
    let mut finished: Vec<(f32, Option<Generated>)> = vec![(IMPOSSIBLE, None); n_beams];
    let mut can_improve = true;
    loop {
        let logits = step(&beams, &sources)?;
        let mut candidates = Vec::new();
        for (beam, (generated, logits)) in beams.iter().zip(&logits).enumerate() {
            candidates.extend(
                allowed_log_probs(config, &generated.ids, logits, max_tokens)
                    .into_iter()
                    .map(|(id, log_prob)| (scores[beam] + log_prob, beam, id)),
            );
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        candidates.truncate(2 * n_beams);
        let n_tokens = beams[0].ids.len() + 1;
        let ends = |id: u32| id == config.eos_token_id || n_tokens >= max_tokens;
        let follow = |&(_, beam, id): &(f32, usize, u32)| {
            beams[beam].clone().followed_by(id, &logits[beam], tokenizer)
        };

        let all_finished = |finished: &[(f32, Option<Generated>)]| finished.iter().all(|it| it.1.is_some());
        let full = all_finished(&finished) && config.early_stopping == EarlyStopping::Yes;
        if can_improve && !full {
            let length = (n_tokens - 1) as f32;
            for candidate in candidates.iter().take(n_beams).filter(|candidate| ends(candidate.2)) {
                let score = candidate.0 / length.powf(config.length_penalty);
                if score > IMPOSSIBLE {
                    finished.push((score, Some(follow(candidate))));
                }
            }
            finished.sort_by(|a, b| b.0.total_cmp(&a.0));
            finished.truncate(n_beams);
        }
        let running: Vec<_> =
            candidates.iter().filter(|candidate| !ends(candidate.2)).take(n_beams).collect();
        if running.len() < n_beams {
            // Nothing is left to go on with: the length limit, or every candidate was forced to end.
            break;
        }
        (scores, sources) = running.iter().map(|it| (it.0, it.1 as u32)).unzip();
        beams = running.into_iter().map(follow).collect();

        let best_possible_length = match config.early_stopping {
            EarlyStopping::Never if config.length_penalty > 0.0 => max_tokens - 1,
            _ => n_tokens - 1,
        } as f32;
        let best_possible = scores[0] / best_possible_length.powf(config.length_penalty);
        let worst = finished.last().map_or(IMPOSSIBLE, |it| it.0);
        can_improve &=
            finished.iter().any(|it| best_possible > if it.1.is_some() { worst } else { IMPOSSIBLE });
        if !can_improve || (all_finished(&finished) && config.early_stopping == EarlyStopping::Yes) {
            break;
        }
    }
    let best = finished
        .into_iter()
        .find_map(|(score, generated)| Some(Generated { score: Some(score), ..generated? }));
    best.ok_or_else(|| ModelError::Inference("beam search found no sequence".into()))
}

impl Generated {
    fn start(config: &GenerationConfig) -> Self {
        Self {
            ids: vec![config.decoder_start_token_id],
            log_probs: Vec::new(),
            locations: Vec::new(),
            score: None,
        }
    }

    /// Whether a generated token is the end token; the start token may have the same id.
    fn ends_with(&self, id: u32) -> bool {
        self.ids.len() > 1 && self.ids.last() == Some(&id)
    }

    fn followed_by(mut self, id: u32, logits: &[f32], tokenizer: &FlorenceTokenizer) -> Self {
        self.log_probs.push(log_softmax_at(logits, id as usize));
        self.locations.push(location_choice(tokenizer, logits, id));
        self.ids.push(id);
        self
    }
}

/// One vector over the vocabulary for each beam.
fn logits_by_beam(logits: &Tensor) -> Result<Vec<Vec<f32>>, ModelError> {
    let logits: Vec<Vec<f32>> = logits.squeeze(1)?.to_vec2()?;
    if logits.iter().flatten().any(|logit| logit.is_nan()) {
        return Err(ModelError::Inference("the decoder's output is not a number".into()));
    }
    Ok(logits)
}

/// The tokens that may follow `ids`, with their log-probabilities.
fn allowed_log_probs(
    config: &GenerationConfig,
    ids: &[u32],
    logits: &[f32],
    max_tokens: usize,
) -> Vec<(u32, f32)> {
    if let Some(forced) = forced_token(config, ids, max_tokens) {
        return vec![(forced, 0.0)];
    }
    let log_total = log_sum_exp(logits);
    let banned = banned_tokens(ids, config.no_repeat_ngram_size);
    let all = (0u32..).zip(logits.iter().map(|logit| (f64::from(*logit) - log_total) as f32));
    all.filter(|(id, _)| !banned.contains(id)).collect()
}

fn forced_token(config: &GenerationConfig, ids: &[u32], max_tokens: usize) -> Option<u32> {
    let bos = config.forced_bos_token_id.filter(|_| ids.len() == 1);
    bos.or(config.forced_eos_token_id.filter(|_| ids.len() + 1 == max_tokens))
}

/// The token that greedy decoding takes after `ids`.
fn choose(config: &GenerationConfig, ids: &[u32], logits: &[f32], max_tokens: usize) -> u32 {
    if let Some(forced) = forced_token(config, ids, max_tokens) {
        return forced;
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
    (f64::from(logits[index]) - log_sum_exp(logits)) as f32
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
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
