//! Verbs that the vocabulary has no action for: the action is the verb as said.

use super::{Failure, Parser};
use crate::instruction::lexicon::{WordUse, is_english, plain_verb, word_use};
use crate::instruction::types::Action;
use crate::instruction::vocabulary::{TargetNeed, Verb};

/// Particles that are seldom prepositions.
const FIRM_PARTICLES: [&str; 7] = ["up", "down", "away", "out", "apart", "together", "aside"];

impl Parser<'_> {
    /// Whether a verb stands at a place, of the vocabulary or any other.
    pub(super) fn is_verb(&self, at: usize) -> bool {
        self.verb_at(at).is_some() || self.open_verb_at(at).is_some()
    }

    /// A verb outside of the vocabulary at a place, and its number of words. It is one where it cannot begin the name of a thing:
    /// before "the" or "it", or where the word is known as a verb above all.
    pub(super) fn open_verb_at(&self, at: usize) -> Option<(Verb, usize)> {
        let word = self.word(at)?;
        if self.cannot_be_verb(at) {
            return None;
        }
        let plain =
            if self.vocabulary.other_verbs.contains_key(word) || word_use(word).is_some_and(is_verb_use) {
                word.to_owned()
            } else {
                plain_verb(word).unwrap_or_else(|| word.to_owned())
            };
        if let Some(particle) = self.particle_of(&plain, at + 1) {
            let phrase = format!("{plain} {particle}");
            if self.is_phrasal(&phrase) && self.begins_object(at + 2, particle) {
                return Some((self.open_verb(phrase), 2));
            }
        }
        let is_before_object = self.determiner_at(at + 1) && !self.is_relative_that(at + 1)
            || self.word(at + 1).is_some_and(|it| is_object_pronoun(it) && !is_noun_before(word, it));
        let is_known = plain == word
            && (word_use(word) == Some(WordUse::MostlyVerb) || self.vocabulary.firm_verbs.contains(word))
            && self.vocabulary.other_verbs.contains_key(word)
            && (self.starts_thing(at + 1) || self.ends_clause(at + 1) || self.relation_at(at + 1).is_some());
        // "pipette 50 ml of buffer"; "tray 2" is a name.
        let is_before_number = word_use(word).is_some_and(is_verb_use)
            && self.word(at + 1).is_some_and(|it| self.count_of(it).is_some())
            && !self.ends_thing(at + 2);
        let is_verb = is_before_object || is_before_number || is_known || self.is_split_phrasal(&plain, at);
        is_verb.then(|| (self.open_verb(plain), 1))
    }

    /// A word that is no English one and may be a slip in several verbs: "puh" is "push" or "put".
    pub(super) fn unclear_slip(&self, at: usize) -> Option<Failure> {
        let word =
            self.word(at).filter(|it| it.len() >= 3 && !is_english(it) && self.open_verb_at(at).is_some())?;
        let near: Vec<String> = self.vocabulary.verbs_near(word).iter().map(|it| format!("{it:?}")).collect();
        let message = || format!("did not understand {word:?}: did you mean {}?", near.join(" or "));
        (near.len() > 1).then(|| self.fail_at(at, message()))
    }

    /// The verb of the vocabulary whose plain form an inflected word is, before an object: "moved the cloth".
    pub(super) fn inflected_verb_at(&self, at: usize) -> Option<(Verb, usize)> {
        let plain = plain_verb(self.word(at)?)?;
        let mut words = vec![plain.as_str()];
        words.extend(self.words.get(at + 1..)?);
        let (verb, length) = self.vocabulary.verbs.longest(&words)?;
        let next = at + length;
        let before_object = self.determiner_at(next)
            || self.word(next).is_some_and(is_object_pronoun)
            || at > 0 && self.filler_at(at - 1).is_some() && self.starts_thing(next);
        before_object.then(|| (verb.clone(), length))
    }

    /// A verb of the vocabulary that its particle makes another: "throw away the can", "take off the lid".
    pub(super) fn phrasal_at(&self, at: usize) -> Option<(Verb, usize)> {
        let word = self.word(at)?;
        let (_, length) = self.vocabulary.verbs.longest(self.words.get(at..)?)?;
        if let Some(three) = self.words.get(at..at + 3).map(|it| it.join(" "))
            && self.vocabulary.other_verbs.contains_key(&three)
        {
            return Some((self.open_verb(three), 3)); // "get rid of"
        }
        let particle =
            self.word(at + 1).filter(|it| length == 1 && self.vocabulary.particles.contains(*it))?;
        let phrase = format!("{word} {particle}");
        let is_phrasal = self.vocabulary.other_verbs.contains_key(&phrase)
            || word_use(&phrase).is_some() && FIRM_PARTICLES.contains(&particle);
        (is_phrasal && self.begins_object(at + 2, particle)).then(|| (self.open_verb(phrase), 2))
    }

    /// The clause's verb is none of the vocabulary.
    pub(super) fn verb_is_open(&self) -> bool {
        self.verb.as_ref().is_some_and(|it| matches!(it.action, Action::Custom(_)))
    }

    /// A place may follow the clause's object.
    pub(super) fn verb_takes_destination(&self) -> bool {
        self.verb.as_ref().is_some_and(|it| it.takes_destination)
    }

    /// The clause's verb can leave its object in a state ("push the drawer shut") and be done with a tool.
    pub(super) fn is_resultative(&self) -> bool {
        self.verb.as_ref().is_some_and(|it| {
            matches!(
                it.action,
                Action::Custom(_)
                    | Action::Push
                    | Action::Pull
                    | Action::Open
                    | Action::Close
                    | Action::Turn
                    | Action::Press
            )
        })
    }

    /// Somebody may be named who gets the clause's object.
    pub(super) fn verb_takes_recipient(&self) -> bool {
        let is_bring = matches!(self.verb_word.as_str(), "bring" | "fetch" | "get" | "deliver" | "carry");
        let gives = |it: &Verb| matches!(it.action, Action::HandOver | Action::Custom(_));
        is_bring || self.verb.as_ref().is_some_and(gives)
    }

    /// The action of a verb as said.
    pub(super) fn open_verb(&self, name: String) -> Verb {
        let places = &self.vocabulary.other_verbs;
        let takes_destination = places.get(&name).or_else(|| places.get(name.split(' ').next()?)).copied();
        Verb {
            takes_destination: takes_destination.unwrap_or(false),
            action: Action::Custom(name),
            target: TargetNeed::Required,
            recipient: None,
        }
    }

    /// "knock the bottle over": the particle behind the object makes "knock over" of "knock".
    pub(super) fn joins_particle(&self, verb: &str, at: usize) -> Option<String> {
        let particle = self.word(at)?;
        let phrase = format!("{verb} {particle}");
        let known = self.vocabulary.other_verbs.contains_key(&phrase) || word_use(&phrase).is_some();
        (known && self.vocabulary.particles.contains(particle)).then_some(phrase)
    }

    /// Whether a verb and its particle are one verb.
    fn is_phrasal(&self, phrase: &str) -> bool {
        self.vocabulary.other_verbs.contains_key(phrase)
            || word_use(phrase).is_some()
            || phrase.split(' ').next_back().is_some_and(|it| FIRM_PARTICLES.contains(&it))
    }

    fn particle_of(&self, _verb: &str, at: usize) -> Option<&str> {
        self.word(at).filter(|it| {
            self.vocabulary.particles.contains(*it) || matches!(*it, "in" | "apart" | "together" | "aside")
        })
    }

    /// An object follows the particle, so that it is no preposition: "screw in the bulb", "sweep up crumbs"; but "look in the box".
    fn begins_object(&self, at: usize, particle: &str) -> bool {
        let determined = self.determiner_at(at) || self.word(at).is_some_and(is_object_pronoun);
        let firm = FIRM_PARTICLES.contains(&particle);
        determined || self.ends_clause(at) || firm && self.starts_thing(at)
    }

    /// "throw the bottle away" with a word that has an object in between.
    fn is_split_phrasal(&self, plain: &str, at: usize) -> bool {
        let Some(rest) = self.words.get(at + 1..) else { return false };
        let end = rest
            .iter()
            .position(|it| self.vocabulary.conjunctions.contains_word(it) || *it == "." || *it == ",");
        let clause = &rest[..end.unwrap_or(rest.len())];
        let Some(particle) =
            clause.last().filter(|it| clause.len() > 1 && self.vocabulary.particles.contains(**it))
        else {
            return false;
        };
        self.vocabulary.other_verbs.contains_key(&format!("{plain} {particle}"))
    }

    /// "the mug that is red": "that" goes on with the name.
    fn is_relative_that(&self, at: usize) -> bool {
        self.word(at) == Some("that")
            && matches!(
                self.word(at + 1),
                Some(
                    "is" | "are"
                        | "was"
                        | "has"
                        | "have"
                        | "stands"
                        | "lies"
                        | "looks"
                        | "sits"
                        | "can"
                        | "i"
                        | "you"
                        | "we"
                )
            )
    }

    /// Words of the closed classes, but for those that are verbs before an object: "clean the table", "empty the bin".
    fn cannot_be_verb(&self, at: usize) -> bool {
        let word = self.words[at];
        let vocabulary = self.vocabulary;
        let is_quality = vocabulary.attributes.contains_word(word) || vocabulary.orders.contains_word(word);
        if is_quality {
            return !vocabulary.other_verbs.contains_key(word);
        }
        self.determiner_at(at)
            || vocabulary.reserved.contains(word)
            || vocabulary.numbers.contains_key(word)
            || vocabulary.ordinals.contains_key(word)
            || self.is_pronoun(word)
            || is_object_pronoun(word)
            || vocabulary.conjunctions.contains_word(word)
            || vocabulary.generic_nouns.contains(word)
            || vocabulary.viewer.contains(word)
            || vocabulary.relations.contains_word(word)
            || vocabulary.goals.contains_word(word)
            || vocabulary.exceptions.contains_word(word)
            || word.chars().any(|it| it.is_ascii_digit() || it == '\'')
            || self.filler_at(at).is_some()
            || matches!(word, "half" | "of" | "'s" | "that's" | "it's" | "to" | "i'd")
            || self.verb_at(at).is_some()
            || self.vocabulary.manners.longest(&self.words[at..]).is_some() && is_english(word)
    }
}

fn is_verb_use(used: WordUse) -> bool {
    matches!(used, WordUse::MostlyVerb | WordUse::AlsoVerb)
}

fn is_object_pronoun(word: &str) -> bool {
    matches!(
        word,
        "it" | "them"
            | "this"
            | "that"
            | "these"
            | "those"
            | "me"
            | "us"
            | "everything"
            | "something"
            | "anything"
    )
}

/// "mug that", "object this": no verb before a word that may begin a clause of its own.
fn is_noun_before(word: &str, next: &str) -> bool {
    matches!(next, "that" | "this" | "these" | "those")
        && !matches!(word_use(word), Some(WordUse::MostlyVerb))
}
