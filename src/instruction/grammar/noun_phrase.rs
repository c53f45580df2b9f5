//! One noun phrase: determiner, adjectives, noun, and what is "of" something.

use super::number::{DeterminerPhrase, choose_from};
use super::{Failure, IT, MAX_DEPTH, Parser, THEM, is_ordinal_only};
use crate::instruction::lexicon::is_past_verb;
use crate::instruction::types::{Attribute, AttributeKind, GENERIC_NOUN, ObjectReference, OrderBy, Quantity};

impl Parser<'_> {
    /// A noun phrase without what follows it, but with "of ...".
    pub(super) fn noun_phrase(&mut self, depth: usize) -> Result<ObjectReference, Failure> {
        if depth >= MAX_DEPTH {
            return Err(
                self.fail_at(self.position, format!("expected at most {MAX_DEPTH} places within each other"))
            );
        }
        if let Some(pronoun) = self.pronoun() {
            return Ok(pronoun);
        }
        let start = self.position;
        let mut thing = self.empty_reference(start);
        let mut said = DeterminerPhrase::default();
        self.half(&mut thing, &mut said);
        if self.quantifier(start, &mut thing, &mut said) {
            GENERIC_NOUN.clone_into(&mut thing.noun);
            thing.span = self.span_from(start);
            return Ok(thing);
        }
        self.determiner(&mut thing, &mut said);
        self.other(&mut thing);
        if let Some(quantity) = self.partitive(&said) {
            let mut some = self.noun_phrase(depth + 1)?;
            choose_from(&mut some, quantity);
            some.span.start = thing.span.start;
            return Ok(some);
        }
        self.numeral(&mut said);
        self.other(&mut thing);
        let read = self.premodifiers(&mut thing, depth)?;
        if let Some(count) = read.count {
            said.count(count);
        }
        self.name(&mut thing, &read.noun, start)?;
        self.settle_number(&mut thing, &said);
        count_from_top(&mut thing);
        self.of(&mut thing, depth)?;
        thing.is_surface = self.is_surface(&thing) && thing.whole.is_none();
        thing.span = self.span_from(start);
        Ok(thing)
    }

    /// Gives a thing its noun.
    pub(super) fn name(
        &self,
        thing: &mut ObjectReference,
        noun: &[String],
        start: usize,
    ) -> Result<(), Failure> {
        if noun.is_empty() {
            // "the left", "the red": whatever it is, only with a quality to tell it by.
            if thing.attributes.is_empty() && thing.orders.is_empty() && !thing.other {
                return Err(if self.position < self.tokens.len() {
                    self.expected("a thing")
                } else {
                    self.fail_at(start, "expected a thing, got the end of the text".to_owned())
                });
            }
            GENERIC_NOUN.clone_into(&mut thing.noun);
        } else if let [qualities @ .., "one" | "ones"] =
            &noun.iter().map(String::as_str).collect::<Vec<_>>()[..]
        {
            // "the new one".
            let other =
                |it: &&str| Attribute { kind: AttributeKind::Other, word: (*it).to_owned(), negated: false };
            thing.attributes.extend(qualities.iter().map(other));
            GENERIC_NOUN.clone_into(&mut thing.noun);
        } else if let Some(verb) = noun.iter().skip(1).find(|it| is_past_verb(it)) {
            return Err(self.fail_at(start, format!("expected what to do, got a statement ({verb:?})")));
        } else if noun.iter().all(|it| it.chars().all(|c| c.is_ascii_digit())) {
            return Err(self.fail_at(start, format!("expected a thing, got a number ({:?})", noun.join(" "))));
        } else {
            if let [first @ .., place] = noun
                && matches!(place.as_str(), "center" | "centre" | "middle" | "edge" | "corner")
                && first.last().is_some_and(|it| self.is_support(it))
            {
                // "table center": the center of the table.
                let whole = ObjectReference { noun: first.join(" "), ..self.empty_reference(start) };
                let whole = ObjectReference { is_surface: self.is_surface(&whole), ..whole };
                thing.whole = Some(Box::new(ObjectReference { span: self.span_from(start), ..whole }));
                thing.noun.clone_from(place);
                return Ok(());
            }
            thing.noun = noun.join(" ");
        }
        Ok(())
    }

    /// What things stand on or in.
    pub(super) fn is_support(&self, noun: &str) -> bool {
        let is_part = self.vocabulary.grips.contains(noun) || self.vocabulary.orders.contains_word(noun);
        let holds = [&self.vocabulary.surfaces, &self.vocabulary.supports, &self.vocabulary.parts];
        !is_part && holds.iter().any(|it| it.contains(noun))
    }

    /// "of ...": a part of something, or one name ("bottle of water").
    pub(super) fn of(&mut self, thing: &mut ObjectReference, depth: usize) -> Result<(), Failure> {
        if self.word(self.position) != Some("of") {
            return Ok(());
        }
        let head = thing.noun.rsplit(' ').next().unwrap_or_default().to_owned();
        let determined = self.determiner_at(self.position + 1)
            || self.word(self.position + 1).is_some_and(|it| self.is_pronoun(it));
        self.position += 1;
        let mut inner = self.noun_phrase(depth + 1)?;
        if determined && thing.noun == GENERIC_NOUN && inner.quantity != Quantity::One {
            // "the red one of the three mugs".
            choose_from(&mut inner, thing.quantity);
            inner.attributes.splice(0..0, std::mem::take(&mut thing.attributes));
            inner.orders.append(&mut thing.orders);
            inner.other |= thing.other;
            *thing = inner;
            return Ok(());
        }
        if determined
            || (self.vocabulary.parts.contains(&head) && !self.vocabulary.containers.contains(&head))
        {
            thing.whole = Some(Box::new(inner));
        } else {
            thing.noun = format!("{} of {}", thing.noun, self.as_said(&inner));
        }
        Ok(())
    }

    /// The words a reference was said with.
    pub(super) fn as_said(&self, thing: &ObjectReference) -> String {
        let words: Vec<&str> = self
            .tokens
            .iter()
            .filter(|it| thing.span.start <= it.span.start && it.span.end <= thing.span.end)
            .map(|it| it.text.as_str())
            .collect();
        words.join(" ")
    }

    pub(super) fn pronoun(&mut self) -> Option<ObjectReference> {
        let at = self.position;
        let word = self.word(at)?;
        let alone = self.ends_noun_phrase(at + 1)
            && !self.vocabulary.generic_nouns.contains(self.word(at + 1).unwrap_or(""));
        let name = if self.vocabulary.plural_pronouns.contains(word) && (word.starts_with("the") || alone) {
            let of = self.word(at + 1) == Some("of");
            if (word == "these" || word == "both") && (!alone || of) {
                return None;
            }
            THEM
        } else if self.vocabulary.singular_pronouns.contains(word) && (word.starts_with("it") || alone) {
            IT
        } else if self.vocabulary.viewer.contains(word) && alone {
            word
        } else {
            return None;
        };
        self.position += 1;
        if word == "both" || (name == THEM && self.word(self.position) == Some("both")) {
            self.skip_word("both");
        }
        let mut reference = self.empty_reference(at);
        name.clone_into(&mut reference.noun);
        reference.span = self.span_from(at);
        Some(reference)
    }

    pub(super) fn is_pronoun(&self, word: &str) -> bool {
        self.vocabulary.singular_pronouns.contains(word) || self.vocabulary.plural_pronouns.contains(word)
    }

    pub(super) fn empty_reference(&self, at: usize) -> ObjectReference {
        let span = self.tokens.get(at).map_or(0..0, |it| it.span.start..it.span.start);
        ObjectReference { span, ..ObjectReference::default() }
    }
}

/// "the second drawer": drawers and their like are counted from the top.
fn count_from_top(thing: &mut ObjectReference) {
    if matches!(thing.noun.as_str(), "drawer" | "shelf" | "layer" | "level" | "row")
        && let [order] = &mut thing.orders[..]
        && is_ordinal_only(order)
        && order.rank > 1
    {
        order.by = OrderBy::Highest;
    }
}
