//! Qualities of a thing: colors, materials, sizes; and orders with a slip in them.

use super::Parser;
use crate::instruction::lexicon::is_english;
use crate::instruction::types::{Attribute, AttributeKind, GENERIC_NOUN, ObjectReference, OrderBy, Quantity};
use crate::instruction::vocabulary::one_edit_apart;

impl<'a> Parser<'a> {
    /// An attribute at the position, with its modifier ("dark blue"); small typos in colors are mended.
    pub(super) fn attribute(&mut self, after_noun: bool) -> Option<Attribute> {
        let at = self.position;
        let word = self.word(at)?;
        if self.vocabulary.color_modifiers.contains(word)
            && let Some((AttributeKind::Color, length)) =
                self.vocabulary.attributes.longest(self.words.get(at + 1..)?)
        {
            self.position += 1 + length;
            return Some(Attribute {
                kind: AttributeKind::Color,
                word: self.words[at..self.position].join(" "),
                negated: false,
            });
        }
        if let Some((&kind, length)) = self.vocabulary.attributes.longest(self.rest()) {
            // "the orange", "a glass": a noun when nothing follows.
            if !after_noun && self.vocabulary.nounlike.contains(word) && self.ends_noun_phrase(at + length) {
                return None;
            }
            self.position += length;
            return Some(Attribute { kind, word: self.words[at..self.position].join(" "), negated: false });
        }
        if word.chars().count() >= 4
            && !is_english(word)
            && !self.is_closed(at)
            && !self.ends_noun_phrase(at + 1)
        {
            let color = sole_misspelled(word, &self.vocabulary.color_words)?.to_owned();
            self.position += 1;
            return Some(Attribute { kind: AttributeKind::Color, word: color, negated: false });
        }
        None
    }

    /// "yellow and white mug": the second color of one thing.
    pub(super) fn color_and(&mut self, thing: &mut ObjectReference) {
        let last_is_color = thing.attributes.last().is_some_and(|it| it.kind == AttributeKind::Color);
        if !last_is_color || !matches!(self.word(self.position), Some("and" | "&")) {
            return;
        }
        let at = self.position;
        self.position += 1;
        match self.attribute(false) {
            Some(attribute)
                if attribute.kind == AttributeKind::Color && !self.ends_noun_phrase(self.position) =>
            {
                thing.attributes.push(attribute);
            }
            _ => self.position = at,
        }
    }

    /// "the red and blue cups" are red ones and blue ones; "the red and white mug" is one.
    pub(super) fn split_colors(thing: &mut ObjectReference) -> Vec<ObjectReference> {
        let colors = thing.attributes.iter().filter(|it| it.kind == AttributeKind::Color).count();
        if colors < 2 || thing.quantity != Quantity::All || thing.noun == GENERIC_NOUN {
            return Vec::new();
        }
        let all: Vec<Attribute> = thing.attributes.clone();
        let mut extras = Vec::new();
        for color_idx in 0..colors {
            let mut nth = 0;
            let attributes: Vec<Attribute> = all
                .iter()
                .filter(|it| {
                    it.kind != AttributeKind::Color || {
                        nth += 1;
                        nth - 1 == color_idx
                    }
                })
                .cloned()
                .collect();
            if color_idx + 1 == colors {
                thing.attributes = attributes;
            } else {
                extras.push(ObjectReference { attributes, ..thing.clone() });
            }
        }
        extras
    }

    /// "lfet", "larget": an order with a typo.
    pub(super) fn misspelled_order(&self, at: usize) -> Option<&'a OrderBy> {
        let is_slip =
            |it: &&str| it.len() >= 3 && !is_english(it) && !self.is_closed(at) && !self.ends_noun_phrase(at);
        let word = self.word(at).filter(is_slip)?;
        let meant = sole_misspelled(word, &self.vocabulary.mended_orders)?;
        self.vocabulary.orders.longest(&[meant]).map(|(by, _)| by)
    }
}

/// The one word of `among` that `word` is but for two letters swapped or one left out. A wrong letter is too weak a sign: "sink" is no
/// "pink".
pub(super) fn sole_misspelled<'v>(word: &str, among: &'v [String]) -> Option<&'v str> {
    let sorted = |it: &str| {
        let mut letters: Vec<char> = it.chars().collect();
        letters.sort_unstable();
        letters
    };
    let length = word.chars().count();
    let mut near = among.iter().filter(|it| {
        let meant = it.chars().count();
        let is_swap = meant == length && sorted(it) == sorted(word);
        meant >= 4 && (is_swap || meant == length + 1) && one_edit_apart(it, word)
    });
    match (near.next(), near.next()) {
        (Some(meant), None) => Some(meant),
        _ => None,
    }
}
