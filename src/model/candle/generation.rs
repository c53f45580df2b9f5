//! Greedy decoding and beam search by the rules of `generation_config.json`, in the order in which transformers applies them, for
//! any [`TokenDecoder`].
//!
//! On a GPU a step is started without waiting for anything, and the host waits once at its end: for 4 kB when decoding greedily, for
//! the logits of all beams in beam search. To wait for nothing at all, the rules would have to
//! run on the GPU too, and the end of a sentence would be noticed some steps late. Nor is a step replayed as a CUDA graph: how many keys
//! are seen and where the caches are written are numbers of its launches, and other ones in each step.

use std::ops::Range;

use candle_core::Tensor;

use super::generation_config::{EarlyStopping, GenerationConfig};
use super::kernels::{NextToken, next_token};
use crate::model::ModelError;

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
    /// Probability of this bin and the [`NEAR_BINS`] on each side of it, among all locations.
    pub mass_near: f32,
    /// Standard deviation of the distribution, in bins.
    pub std_bins: f32,
    /// Joint log-probability of the words that this location and its neighbors belong to.
    pub words_log_prob: f32,
}

/// Bins on each side of a chosen one that are as good: half a percent of the image's side.
pub const NEAR_BINS: usize = 5;

/// A decoder at work on one answer: sequences (beams) that grow by one token at a time.
pub trait TokenDecoder {
    /// Appends `ids[i]` to beam `i` and returns the logits after it, [beams, vocabulary] in f32, on any device. A token that must not
    /// follow may have a logit of negative infinity.
    fn step(&mut self, ids: &[u32]) -> Result<Tensor, ModelError>;

    /// Beam `i` becomes a copy of the present beam `sources[i]`: what beam search does to its hypotheses.
    fn reorder(&mut self, sources: &[u32]) -> Result<(), ModelError>;
}

/// What may follow what.
pub struct Rules<'a> {
    /// The checkpoint's own.
    pub config: &'a GenerationConfig,
    /// Ids of the tokens that stand for coordinates, by rising coordinate; empty for a model that has none.
    pub locations: Range<u32>,
    /// Longest sequence, start token included.
    pub max_tokens: usize,
    /// Whether the ban of repeated runs of tokens holds for locations too, as in the reference.
    pub ban_locations: bool,
}

/// Goes on from `start` until the end: greedily, or with several beams by the rules of transformers 5.23.0's
/// `GenerationMixin._beam_search`. `decoder` has read all of `start` but its last token, once for each beam.
pub fn generate(
    decoder: &mut dyn TokenDecoder,
    rules: &Rules<'_>,
    start: Generated,
    n_beams: usize,
) -> Result<Generated, ModelError> {
    check_beams(n_beams)?;
    match n_beams {
        1 => decode_greedily(decoder, rules, start),
        _ => search_with_beams(decoder, rules, start, n_beams),
    }
}

/// Refuses a number of beams that nobody can want.
pub fn check_beams(n_beams: usize) -> Result<(), ModelError> {
    if (1..=MAX_BEAMS).contains(&n_beams) {
        return Ok(());
    }
    Err(ModelError::Input(format!("expected 1 to {MAX_BEAMS} beams, got {n_beams}")))
}

/// More beams than this only cost time.
const MAX_BEAMS: usize = 16;
/// Stands for "impossible" in sums of log-probabilities, as in the reference.
const IMPOSSIBLE: f32 = -1e9;

fn decode_greedily(
    decoder: &mut dyn TokenDecoder,
    rules: &Rules<'_>,
    mut beam: Generated,
) -> Result<Generated, ModelError> {
    while beam.ids.len() < rules.max_tokens && !beam.ends_with(rules.config.eos_token_id) {
        let logits = decoder.step(&beam.ids[beam.ids.len() - 1..])?;
        beam = if logits.device().is_cpu() {
            let logits = logits_by_beam(&logits)?.swap_remove(0);
            let next = rules.choose(&beam.ids, &logits);
            beam.followed_by(next, &logits, &rules.locations)
        } else {
            rules.follow_on_gpu(beam, &logits)?
        };
    }
    Ok(beam)
}

fn search_with_beams(
    decoder: &mut dyn TokenDecoder,
    rules: &Rules<'_>,
    start: Generated,
    n_beams: usize,
) -> Result<Generated, ModelError> {
    let Rules { config, locations, max_tokens, .. } = rules;
    let max_tokens = *max_tokens;
    let n_given = start.ids.len();
    let mut beams = vec![start; n_beams];
    // All beams are alike at first, so only one of them may go on.
    let mut scores = vec![IMPOSSIBLE; n_beams];
    scores[0] = 0.0;
    let mut sources: Vec<u32> = (0..n_beams as u32).collect();
    // Best first; `None` while there are fewer finished sequences than beams.
    let mut finished: Vec<(f32, Option<Generated>)> = vec![(IMPOSSIBLE, None); n_beams];
    let mut can_improve = true;
    loop {
        decoder.reorder(&sources)?;
        let last: Vec<u32> = beams.iter().map(|beam| beam.ids[beam.ids.len() - 1]).collect();
        let logits = logits_by_beam(&decoder.step(&last)?)?;
        let mut candidates = Vec::new();
        for (beam, (generated, logits)) in beams.iter().zip(&logits).enumerate() {
            candidates.extend(
                rules
                    .allowed_log_probs(&generated.ids, logits)
                    .into_iter()
                    .map(|(id, log_prob)| (scores[beam] + log_prob, beam, id)),
            );
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        candidates.truncate(2 * n_beams);
        let n_tokens = beams[0].ids.len() + 1;
        let ends = |id: u32| id == config.eos_token_id || n_tokens >= max_tokens;
        let follow = |&(_, beam, id): &(f32, usize, u32)| {
            beams[beam].clone().followed_by(id, &logits[beam], locations)
        };

        let all_finished = |finished: &[(f32, Option<Generated>)]| finished.iter().all(|it| it.1.is_some());
        let full = all_finished(&finished) && config.early_stopping == EarlyStopping::Yes;
        if can_improve && !full {
            let length = (n_tokens - n_given) as f32;
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
            EarlyStopping::Never if config.length_penalty > 0.0 => max_tokens - n_given,
            _ => n_tokens - n_given,
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
    /// Nothing but the start token.
    pub fn start(config: &GenerationConfig) -> Self {
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

    fn followed_by(mut self, id: u32, logits: &[f32], locations: &Range<u32>) -> Self {
        let of_locations = logits.get(locations.start as usize..locations.end as usize);
        self.push(id, log_softmax_at(logits, id as usize), of_locations, locations);
        self
    }

    /// `of_locations` are the logits of all locations.
    fn push(&mut self, id: u32, log_prob: f32, of_locations: Option<&[f32]>, locations: &Range<u32>) {
        self.log_probs.push(log_prob);
        self.locations.push(of_locations.and_then(|logits| location_choice(locations, logits, id)));
        self.ids.push(id);
    }
}

/// One vector over the vocabulary for each beam, of [beams, vocabulary].
fn logits_by_beam(logits: &Tensor) -> Result<Vec<Vec<f32>>, ModelError> {
    let logits: Vec<Vec<f32>> = logits.to_vec2()?;
    if logits.iter().flatten().any(|logit| logit.is_nan()) {
        return Err(not_a_number());
    }
    Ok(logits)
}

fn not_a_number() -> ModelError {
    ModelError::Inference("the decoder's output is not a number".into())
}

impl Rules<'_> {
    /// One greedy step whose logits stay on the GPU: it brings the token, its log-probability and the logits of the locations, 4 kB
    /// instead of 200. The host needs the token to see the end, and what must not be said again.
    fn follow_on_gpu(&self, mut beam: Generated, logits: &Tensor) -> Result<Generated, ModelError> {
        let rule = NextToken {
            forced: self.forced_token(&beam.ids),
            banned: &self.banned_tokens(&beam.ids),
            fallback: self.config.eos_token_id,
            copied: self.locations.clone(),
        };
        let chosen: Vec<f32> = next_token(&logits.flatten_all()?, &rule)?.to_vec1()?;
        let [id, log_prob, of_locations @ ..] = chosen.as_slice() else {
            return Err(ModelError::Inference("no token was chosen. This is a bug.".into()));
        };
        if log_prob.is_nan() {
            return Err(not_a_number());
        }
        beam.push(*id as u32, *log_prob, Some(of_locations), &self.locations);
        Ok(beam)
    }

    /// The tokens that may follow `ids`, with their log-probabilities.
    fn allowed_log_probs(&self, ids: &[u32], logits: &[f32]) -> Vec<(u32, f32)> {
        if let Some(forced) = self.forced_token(ids) {
            return vec![(forced, 0.0)];
        }
        let log_total = log_sum_exp(logits);
        let banned = self.banned_tokens(ids);
        let all = (0u32..).zip(logits.iter().map(|logit| (f64::from(*logit) - log_total) as f32));
        all.filter(|(id, log_prob)| *log_prob > f32::NEG_INFINITY && !banned.contains(id)).collect()
    }

    fn forced_token(&self, ids: &[u32]) -> Option<u32> {
        let bos = self.config.forced_bos_token_id.filter(|_| ids.len() == 1);
        bos.or(self.config.forced_eos_token_id.filter(|_| ids.len() + 1 == self.max_tokens))
    }

    /// The token that greedy decoding takes after `ids`.
    fn choose(&self, ids: &[u32], logits: &[f32]) -> u32 {
        if let Some(forced) = self.forced_token(ids) {
            return forced;
        }
        let banned = self.banned_tokens(ids);
        let mut best = (self.config.eos_token_id, f32::NEG_INFINITY);
        for (id, &logit) in logits.iter().enumerate() {
            if logit > best.1 && !banned.contains(&(id as u32)) {
                best = (id as u32, logit);
            }
        }
        best.0
    }

    fn banned_tokens(&self, ids: &[u32]) -> Vec<u32> {
        let mut banned = banned_tokens(ids, self.config.no_repeat_ngram_size);
        if !self.ban_locations {
            banned.retain(|id| !self.locations.contains(id));
        }
        banned
    }
}

/// Tokens that would complete a run of `n` tokens that `ids` already holds.
fn banned_tokens(ids: &[u32], n: usize) -> Vec<u32> {
    if n == 0 || ids.len() < n {
        return Vec::new();
    }
    let prefix = &ids[ids.len() + 1 - n..];
    ids.windows(n).filter(|window| window[..n - 1] == *prefix).map(|window| window[n - 1]).collect()
}

/// The log-probability of the token `index`.
pub(super) fn log_softmax_at(logits: &[f32], index: usize) -> f32 {
    (f64::from(logits[index]) - log_sum_exp(logits)) as f32
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// Of token `id`, if it is a location; `logits` are those of all locations.
fn location_choice(locations: &Range<u32>, logits: &[f32], id: u32) -> Option<LocationChoice> {
    let bin = locations.contains(&id).then(|| id - locations.start)?;
    let log_total = log_sum_exp(logits);
    let probability = |bin: usize| (f64::from(logits[bin]) - log_total).exp();
    let (mut mean, mut mean_square) = (0.0, 0.0);
    for bin in 0..logits.len() {
        mean += probability(bin) * bin as f64;
        mean_square += probability(bin) * (bin * bin) as f64;
    }
    let chosen = bin as usize;
    let near = chosen.saturating_sub(NEAR_BINS)..(chosen + NEAR_BINS + 1).min(logits.len());
    Some(LocationChoice {
        bin,
        log_prob: (f64::from(logits[chosen]) - log_total) as f32,
        mass_near: near.map(probability).sum::<f64>() as f32,
        std_bins: (mean_square - mean * mean).max(0.0).sqrt() as f32,
        words_log_prob: 0.0,
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
}
