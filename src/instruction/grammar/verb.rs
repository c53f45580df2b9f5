//! The verb of a clause: where it stands, its particle, and who gets what is given.

use super::{Failure, Parser};
use crate::instruction::lexicon::{WordUse, word_use};
use crate::instruction::vocabulary::Verb;

impl<'a> Parser<'a> {
    pub(super) fn verb(&mut self) -> Result<Option<Verb>, Failure> {
        self.skip_aspect();
        if matches!(self.word(self.position), Some("go" | "come"))
            && self.verb_at(self.position).is_none()
            && self.is_verb(self.position + 1)
        {
            self.position += 1; // "go shove the block"
        }
        let other = self.phrasal_at(self.position);
        let other = other.or_else(|| match self.verb_at(self.position) {
            Some((verb, length)) => Some((verb.clone(), length)),
            None => self.inflected_verb_at(self.position),
        });
        let Some(verb) = other else {
            if let Some(verb) = self.split_only_verb() {
                return Ok(Some(verb));
            }
            if self.is_question(self.position) {
                return Err(self.unexpected());
            }
            if let Some(failure) = self.unclear_slip(self.position) {
                return Err(failure);
            }
            if let Some((verb, length)) = self.open_verb_at(self.position) {
                self.position += length;
                return Ok(Some(verb));
            }
            if let Some(word) = self.word(self.position)
                && self.vocabulary.reserved.contains(word)
            {
                return Err(self.unexpected());
            }
            return Ok(None);
        };
        self.position += verb.1;
        Ok(Some(verb.0))
    }

    /// "start picking up": the verb is the second.
    fn skip_aspect(&mut self) {
        let next = self.position + 1;
        if matches!(
            self.word(self.position),
            Some("start" | "begin" | "keep" | "continue" | "try" | "finish" | "consider")
        ) && self.word(next).is_some_and(|it| it.ends_with("ing"))
            && (self.verb_at(next).is_some() || self.inflected_verb_at(next).is_some())
        {
            self.position = next;
        }
    }

    /// "switch the light off": no verb without its particle, which must follow.
    pub(super) fn split_only_verb(&mut self) -> Option<Verb> {
        let pairs = self.vocabulary.split_verbs.get(self.word(self.position)?)?;
        let rest = &self.words[self.position + 1..];
        let end = rest
            .iter()
            .position(|it| self.vocabulary.conjunctions.contains_word(it) || *it == "." || *it == ",");
        let clause = &rest[..end.unwrap_or(rest.len())];
        let (_, verb) = pairs.iter().find(|(particle, _)| clause.contains(&particle.as_str()))?;
        self.position += 1;
        Some(verb.clone())
    }

    /// The verb that stands at a place, unless the word is a noun there ("stack of plates").
    pub(super) fn verb_at(&self, at: usize) -> Option<(&'a Verb, usize)> {
        let (verb, length) = self.vocabulary.verbs.longest(self.words.get(at..)?)?;
        let next = self.word(at + length);
        let is_noun = length == 1 && matches!(next, Some("of" | "'s"));
        // "open drawer", "closed box" alone name things; "open the drawer" and "close it" do not.
        (!is_noun).then_some((verb, length))
    }

    /// An action stands at a place, as in "to open the door".
    pub(super) fn is_action_at(&self, at: usize) -> bool {
        let at = if self.word(at).is_some_and(|it| it.ends_with("ly")) { at + 1 } else { at };
        let known = self.verb_at(at).map(|(_, length)| length);
        let length = known
            .or_else(|| self.inflected_verb_at(at).map(|(_, length)| length))
            .or_else(|| self.open_verb_at(at).map(|(_, length)| length));
        let Some(word) = self.word(at) else { return false };
        let next = at + length.unwrap_or(1);
        let before_object = self.determiner_at(next)
            || matches!(
                self.word(next),
                Some("it" | "them" | "me" | "us" | "something" | "from" | "with" | "up" | "out")
            );
        let mostly_verb = word_use(word) == Some(WordUse::MostlyVerb);
        length.is_some() && (mostly_verb || before_object)
            || mostly_verb && (before_object || self.ends_clause(next))
    }

    /// The particle of a split verb: "turn the stove on".
    pub(super) fn particle(&mut self, verb: &mut Verb) {
        if let Some(found) = self.particle_at(self.position) {
            *verb = found.clone();
            self.position += 1;
        } else if let Some(found) = self.particle.take() {
            *verb = found;
        }
    }

    pub(super) fn particle_at(&self, at: usize) -> Option<&'a Verb> {
        let word = self.word(at)?;
        let (_, verb) = self.split?.iter().find(|(particle, _)| particle == word)?;
        if self
            .relation_at(at)
            .is_some_and(|(_, length, _)| length > 1 && self.starts_noun_phrase(at + length))
        {
            return None; // "out of the box"
        }
        (!self.starts_noun_phrase(at + 1) || self.starts_modifier(at + 1)).then_some(verb)
    }

    /// "me" right behind "hand".
    pub(super) fn viewer(&mut self) -> Option<String> {
        let is_given =
            |it: &&str| matches!(*it, "him" | "her" | "them") && self.determiner_at(self.position + 1);
        let word = self.word(self.position).filter(|it| matches!(*it, "me" | "us") || is_given(it))?;
        self.position += 1;
        Some(word.to_owned())
    }
}
