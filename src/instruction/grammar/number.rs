//! How many a noun phrase names: the words before the noun, and whether the noun is plural.

use super::Parser;
use crate::instruction::types::{Attribute, AttributeKind, GENERIC_NOUN, ObjectReference, Quantity};
use crate::instruction::vocabulary::{Determiner, Quantifier};

/// What the words before the adjectives say: "all the", "a", "exactly two".
#[derive(Debug, Default)]
pub(super) struct DeterminerPhrase {
    pub(super) determiner: Option<Determiner>,
    /// How many, where the words say it; else the number of the noun does.
    pub(super) quantity: Option<Quantity>,
    /// A plural noun should follow.
    expects_plural: bool,
    /// "this": a noun that looks like a plural is none.
    is_singular_only: bool,
}

impl Parser<'_> {
    /// "half a dozen" and "half the" before a noun.
    pub(super) fn half(&mut self, thing: &mut ObjectReference, said: &mut DeterminerPhrase) {
        let start = self.position;
        let is_half = self.word(start) == Some("half")
            && matches!(self.word(start + 1), Some("a" | "an" | "the" | "of"));
        if !is_half {
            return;
        }
        if self.word(start + 2) == Some("dozen") {
            self.position += 3;
            said.quantity = Some(Quantity::Any(6));
            said.expects_plural = true;
            return;
        }
        self.position += 1;
        thing.attributes.push(Attribute {
            kind: AttributeKind::Other,
            word: "half".to_owned(),
            negated: false,
        });
        self.skip_word("of");
    }

    /// "all", "both of", "a pair of"; `start` is where the noun phrase begins. True when the phrase is complete with it: "all but the
    /// red one".
    pub(super) fn quantifier(
        &mut self,
        start: usize,
        thing: &mut ObjectReference,
        said: &mut DeterminerPhrase,
    ) -> bool {
        let Some((&quantifier, length)) = self.vocabulary.quantifiers.longest(self.rest()) else {
            return false;
        };
        let word = self.words[start];
        self.position += length;
        if quantifier == Quantifier::All && word == "everything" {
            self.position -= 1;
        }
        thing.quantity = match quantifier {
            Quantifier::All => Quantity::All,
            Quantifier::Both => Quantity::Exactly(2),
            Quantifier::Some if word == "a" && self.words[start + 1].starts_with(['p', 'c']) => {
                Quantity::Any(2) // "a pair", "a couple"
            }
            Quantifier::Some if word == "some" => Quantity::Any(1),
            Quantifier::Some => Quantity::Any(3),
        };
        said.quantity = Some(thing.quantity);
        said.expects_plural = true;
        self.skip_word("of");
        if quantifier == Quantifier::All && self.vocabulary.exceptions.longest(self.rest()).is_some() {
            return true;
        }
        let is_everything = self.word(self.position) == Some("everything");
        self.position += usize::from(is_everything);
        is_everything
    }

    /// "the", "another", "any".
    pub(super) fn determiner(&mut self, thing: &mut ObjectReference, said: &mut DeterminerPhrase) {
        let Some((&determiner, length)) = self.vocabulary.determiners.longest(self.rest()) else { return };
        let word = self.words[self.position];
        said.is_singular_only = matches!(word, "a" | "an" | "this" | "that" | "another");
        said.determiner = Some(determiner);
        thing.other |= word == "another";
        self.position += length;
        self.skip_fillers_before_noun_phrase(); // "the um cup"
    }

    /// "other", before or behind a number.
    pub(super) fn other(&mut self, thing: &mut ObjectReference) {
        if let Some(((), length)) = self.vocabulary.other.longest(self.rest()) {
            thing.other = true;
            self.position += length;
        }
    }

    /// "any of", "exactly two of": how many of what is named next.
    pub(super) fn partitive(&mut self, said: &DeterminerPhrase) -> Option<Quantity> {
        if said.determiner == Some(Determiner::Indefinite) && self.word(self.position) == Some("of") {
            self.position += 1;
            return Some(Quantity::Any(1));
        }
        self.skip_approximation();
        let count = self.count_of(self.word(self.position)?)?;
        if self.word(self.position + 1) != Some("of") {
            return None;
        }
        self.position += 2;
        Some(Quantity::Any(count))
    }

    /// "at least", "exactly" before a number: as many as said are taken.
    fn skip_approximation(&mut self) {
        let length = match (self.word(self.position), self.word(self.position + 1)) {
            (Some("at"), Some("least" | "most")) => 2,
            (Some("exactly" | "just" | "about" | "only"), _) => 1,
            _ => 0,
        };
        if self.word(self.position + length).is_some_and(|it| self.count_of(it).is_some()) {
            self.position += length;
        }
    }

    /// "two" before what is counted; not the number of "the 10 mm wrench".
    pub(super) fn numeral(&mut self, said: &mut DeterminerPhrase) {
        let next = self.position + 1;
        let is_measure = self
            .word(next)
            .is_some_and(|it| self.vocabulary.units.contains(it) || self.vocabulary.lengths.contains_key(it));
        let count = self.word(self.position).and_then(|it| self.count_of(it));
        let Some(count) = count.filter(|_| !is_measure && !self.ends_noun_phrase(next)) else { return };
        self.position = next;
        said.expects_plural |= count > 1;
        let is_all = said.determiner == Some(Determiner::Definite) || said.quantity == Some(Quantity::All);
        said.quantity = Some(if is_all { Quantity::Exactly(count) } else { Quantity::Any(count) });
    }

    /// Quantity of a thing and its noun in the singular, from the words before the noun and its ending.
    pub(super) fn settle_number(&self, thing: &mut ObjectReference, said: &DeterminerPhrase) {
        let (singular, is_plural) = match self.tokens.get(self.position.wrapping_sub(1)) {
            Some(last) if last.is_name && thing.noun.ends_with(&last.text) => (thing.noun.clone(), false), // "James"
            _ => self.singular(&thing.noun, said.expects_plural || said.quantity.is_some()),
        };
        // "a dozen eggs" are several for all their "a".
        let is_several = said.quantity.and_then(|it| it.count()).is_some_and(|it| it > 1);
        let is_plural = is_plural && (is_several || !said.is_singular_only);
        thing.quantity = match (said.quantity, said.determiner) {
            (Some(quantity), _) => quantity,
            (None, Some(Determiner::Indefinite)) if is_plural => Quantity::Any(2),
            (None, Some(Determiner::Indefinite)) => Quantity::Any(1),
            (None, _) if is_plural || thing.quantity == Quantity::All => Quantity::All, // "the red ones"
            (None, _) => Quantity::One,
        };
        if is_plural {
            thing.noun = singular;
        } else if self.vocabulary.plural_only.contains(&thing.noun) && said.quantity == Some(Quantity::Any(2))
        {
            thing.quantity = Quantity::Any(1); // "a pair of scissors"
        }
    }

    /// The head of `noun` in the singular, and whether it was plural.
    pub(super) fn singular(&self, noun: &str, expect_plural: bool) -> (String, bool) {
        let (before, last) = noun.rsplit_once(' ').map_or(("", noun), |(before, last)| (before, last));
        let join = |word: &str| if before.is_empty() { word.to_owned() } else { format!("{before} {word}") };
        let vocabulary = self.vocabulary;
        if noun == GENERIC_NOUN
            || vocabulary.plural_only.contains(last)
            || vocabulary.plural_only.contains(noun)
        {
            return (noun.to_owned(), false);
        }
        if let Some(singular) = vocabulary.irregular_plurals.get(last) {
            return (join(singular), true);
        }
        let stem = last.strip_suffix('s').filter(|it| {
            it.chars().count() >= 3
                && !it.ends_with(['s', 'u', 'i', '\''])
                && (expect_plural || !it.ends_with('a'))
        });
        let Some(stem) = stem else { return (noun.to_owned(), false) };
        let singular = if let Some(stem) = stem.strip_suffix("ie") {
            format!("{stem}y")
        } else if ["sse", "she", "che", "xe"].iter().any(|it| stem.ends_with(it)) {
            stem[..stem.len() - 1].to_owned()
        } else {
            stem.to_owned()
        };
        (join(&singular), true)
    }

    pub(super) fn count_of(&self, word: &str) -> Option<usize> {
        self.vocabulary
            .numbers
            .get(word)
            .copied()
            .or_else(|| word.parse().ok().filter(|it| (1..=99).contains(it)))
    }
}

impl DeterminerPhrase {
    /// Takes in a number that was said behind an order: "the top two books".
    pub(super) fn count(&mut self, count: usize) {
        let is_definite = self.determiner == Some(Determiner::Definite);
        self.quantity = Some(if is_definite { Quantity::Exactly(count) } else { Quantity::Any(count) });
        self.expects_plural |= count > 1;
    }
}

/// "one of the three cups": `quantity` of what was said to be so many.
pub(super) fn choose_from(things: &mut ObjectReference, quantity: Quantity) {
    if let Quantity::Exactly(n) = things.quantity {
        things.out_of = Some(n);
    }
    things.quantity = quantity;
}
