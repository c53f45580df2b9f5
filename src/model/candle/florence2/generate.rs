//! Florence-2's answers: free, as the reference generates them, or limited to boxes of given words.

use candle_core::{Device, Tensor};

use super::network::{DecoderCache, Encoded, Florence2Network};
use super::tokenizer::FlorenceTokenizer;
use super::trace::Trace;
use crate::model::ModelError;
use crate::model::candle::generation::{
    self, Generated, LocationChoice, Rules, TokenDecoder, check_beams, log_softmax_at,
};
use crate::model::candle::generation_config::GenerationConfig;

/// How one answer is generated, beyond `generation_config.json`.
#[derive(Debug, Clone)]
pub struct Decoding {
    /// 1 decodes greedily; the released Florence-2 uses 3.
    pub n_beams: usize,
    /// Whether the ban of repeated runs of tokens holds for locations too, as in the reference. It moves an edge by a bin
    /// where a box shares three coordinates with an earlier one.
    pub ban_repeated_locations: bool,
    /// Limits the answer to boxes of these words: the words are given, and after them only locations in fours or the end may
    /// follow. All log-probabilities after the words are then among those tokens.
    pub boxes_of: Option<String>,
}

impl Decoding {
    /// As the reference decodes with this number of beams.
    pub fn with_beams(n_beams: usize) -> Self {
        Self { n_beams, ban_repeated_locations: true, boxes_of: None }
    }
}

/// Generates an answer for row `row` of `encoded`.
pub fn generate(
    network: &Florence2Network,
    tokenizer: &FlorenceTokenizer,
    config: &GenerationConfig,
    encoded: &Encoded,
    row: usize,
    decoding: &Decoding,
) -> Result<Generated, ModelError> {
    let n_beams = decoding.n_beams;
    check_beams(n_beams)?;
    let max_tokens = config.max_tokens().min(network.config().text_config.max_position_embeddings);
    let mut answer =
        FreeDecoder { network, cache: network.start_decoding(encoded, row, n_beams, max_tokens)? };
    let ban_locations = decoding.ban_repeated_locations;
    let rules = Rules { config, locations: tokenizer.locations(), max_tokens, ban_locations };
    match &decoding.boxes_of {
        None => generation::generate(&mut answer, &rules, Generated::start(config), n_beams),
        Some(words) => {
            let ids = answer_start(tokenizer, &rules, words)?;
            let start = answer.read(&ids, n_beams)?;
            let mut boxes = BoxDecoder { answer, rules: &rules, n_coordinates: 0 };
            generation::generate(&mut boxes, &rules, start, n_beams)
        }
    }
}

/// The choices of all location tokens in order, each with the log-probability of the words before it.
pub fn location_choices(generated: &Generated, tokenizer: &FlorenceTokenizer) -> Vec<LocationChoice> {
    let mut choices = Vec::new();
    let (mut words_log_prob, mut after_location) = (0.0, false);
    let tokens = generated.ids[1..].iter().zip(&generated.log_probs).zip(&generated.locations);
    for ((id, log_prob), location) in tokens {
        if let Some(choice) = location {
            choices.push(LocationChoice { words_log_prob, ..*choice });
        } else {
            if after_location {
                words_log_prob = 0.0;
            }
            if *id != tokenizer.bos && *id != tokenizer.eos {
                words_log_prob += log_prob;
            }
        }
        after_location = location.is_some();
    }
    choices
}

/// An answer in which anything may follow.
struct FreeDecoder<'a> {
    network: &'a Florence2Network,
    cache: DecoderCache,
}

impl TokenDecoder for FreeDecoder<'_> {
    fn step(&mut self, ids: &[u32]) -> Result<Tensor, ModelError> {
        let states = self.states(ids)?;
        Ok(self.network.head(&states)?.squeeze(1)?)
    }

    fn reorder(&mut self, sources: &[u32]) -> Result<(), ModelError> {
        self.cache.reorder(sources)
    }
}

impl FreeDecoder<'_> {
    fn states(&mut self, ids: &[u32]) -> Result<Tensor, ModelError> {
        self.network.decode_states(&mut self.cache, ids, &mut Trace::off())
    }

    /// Has the model read an answer's words (all but the last token, which the first step reads), and notes how probable they
    /// are.
    fn read(&mut self, ids: &[u32], n_beams: usize) -> Result<Generated, ModelError> {
        let states = self.states(&ids[..ids.len() - 1].repeat(n_beams))?;
        let logits: Vec<Vec<f32>> = self.network.head(&states.narrow(0, 0, 1)?)?.squeeze(0)?.to_vec2()?;
        let log_probs = logits.iter().zip(&ids[1..]).map(|(logits, id)| log_softmax_at(logits, *id as usize));
        Ok(Generated {
            log_probs: log_probs.collect(),
            locations: vec![None; ids.len() - 1],
            ids: ids.to_vec(),
            score: None,
        })
    }
}

/// An answer in which only locations in fours, or the end after some of them, may follow.
struct BoxDecoder<'a> {
    answer: FreeDecoder<'a>,
    rules: &'a Rules<'a>,
    /// So far.
    n_coordinates: usize,
}

impl TokenDecoder for BoxDecoder<'_> {
    /// Only the rows of these tokens are multiplied: a small part of the time of the whole vocabulary.
    fn step(&mut self, ids: &[u32]) -> Result<Tensor, ModelError> {
        let (locations, eos) = (self.rules.locations.clone(), self.rules.config.eos_token_id);
        let network = self.answer.network;
        let states = self.answer.states(ids)?;
        let of_locations: Vec<Vec<f32>> =
            network.head_rows(&states, locations.clone())?.squeeze(1)?.to_vec2()?;
        let of_end: Vec<Vec<f32>> = network.head_rows(&states, eos..eos + 1)?.squeeze(1)?.to_vec2()?;
        let may_end = self.n_coordinates > 0 && self.n_coordinates.is_multiple_of(4);
        self.n_coordinates += 1;
        let vocab_size = network.config().text_config.vocab_size;
        let mut logits = vec![f32::NEG_INFINITY; ids.len() * vocab_size];
        for (beam, (of_locations, of_end)) in of_locations.iter().zip(&of_end).enumerate() {
            let row = &mut logits[beam * vocab_size..][..vocab_size];
            row[locations.start as usize..locations.end as usize].copy_from_slice(of_locations);
            if may_end {
                row[eos as usize] = of_end[0];
            }
        }
        Ok(Tensor::from_vec(logits, (ids.len(), vocab_size), &Device::Cpu)?)
    }

    fn reorder(&mut self, sources: &[u32]) -> Result<(), ModelError> {
        self.answer.reorder(sources)
    }
}

/// The start of an answer with boxes of `words`.
fn answer_start(
    tokenizer: &FlorenceTokenizer,
    rules: &Rules<'_>,
    words: &str,
) -> Result<Vec<u32>, ModelError> {
    let mut ids = vec![rules.config.decoder_start_token_id, tokenizer.bos];
    ids.extend(tokenizer.encode_words(words)?);
    // Room for one box and the end.
    if ids.len() + 5 > rules.max_tokens {
        return Err(ModelError::Input(format!(
            "{} tokens leave no room for a box among {}; use a shorter phrase",
            ids.len(),
            rules.max_tokens
        )));
    }
    Ok(ids)
}
