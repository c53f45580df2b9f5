//! What is not meant: "all but the red one", "the red one, not the blue one", "don't touch the knife".

use super::pronouns::{main_place, replace_landmark};
use super::{Failure, Parser};
use crate::instruction::lexicon::plain_verb;
use crate::instruction::types::{GENERIC_NOUN, Instruction, ObjectReference, RelationKind};

impl Parser<'_> {
    /// "but the red one" behind a thing: what is excepted from it.
    pub(super) fn exceptions(&mut self, depth: usize) -> Result<Vec<ObjectReference>, Failure> {
        let mut excepted = Vec::new();
        let start = self.position;
        let comma = usize::from(self.tokens.get(start).is_some_and(|it| it.text == ","));
        let Some(((), length)) = self.words.get(start + comma..).and_then(|it| self.vocabulary.exceptions.longest(it)) else {
            return Ok(excepted);
        };
        self.position = start + comma + length;
        if !self.starts_thing(self.position) || self.is_verb(self.position) {
            self.position = start;
            return Ok(excepted);
        }
        let is_number = self.word(self.position).is_some_and(|it| self.count_of(it).is_some());
        if is_number && self.ends_thing(self.position + 1) {
            // "all but one" does not tell which.
            self.position = start + comma;
            return Err(self.unexpected());
        }
        let start_of_thing = self.position;
        for (mut thing, modifiers) in self.things(depth + 1)? {
            self.attach(&mut thing, modifiers)?;
            let tells_which = thing.noun != GENERIC_NOUN
                || !(thing.attributes.is_empty() && thing.orders.is_empty() && thing.relations.is_empty());
            if !tells_which {
                self.position = start + comma;
                return Err(self.unexpected());
            }
            excepted.push(thing);
        }
        debug_assert!(self.position > start_of_thing, "a thing has words");
        Ok(excepted)
    }

    /// "do not touch", "avoid", at the start of a clause: the number of words before what must be left alone.
    pub(super) fn prohibition_at(&self, at: usize) -> Option<usize> {
        let skip = match (self.word(at)?, self.word(at + 1)) {
            ("do" | "must" | "should" | "can", Some("not")) => 2,
            ("be", Some("careful")) if self.word(at + 2) == Some("not") && self.word(at + 3) == Some("to") => 4,
            ("make", Some("sure")) if self.word(at + 2) == Some("not") && self.word(at + 3) == Some("to") => 4,
            ("don't" | "never" | "avoid", _) => 1,
            ("without", Some(next)) if next.ends_with("ing") && plain_verb(next).is_some() => 1,
            _ => return None,
        };
        let verb = at + skip;
        let length = self.verb_at(verb).map(|(_, length)| length);
        let length = length.or_else(|| {
            let word = self.word(verb)?;
            let is_verb = plain_verb(word).is_some() || self.open_verb_at(verb).is_some() || self.determiner_at(verb + 1);
            (is_verb && !self.determiner_at(verb)).then_some(1)
        });
        Some(skip + length.unwrap_or(0))
    }

    /// Takes a prohibition of `length` words and the things it is about.
    pub(super) fn prohibition(&mut self, length: usize, previous: Option<&Instruction>) -> Result<(), Failure> {
        let failure = self.unexpected();
        self.position += length;
        if !self.starts_thing(self.position) {
            return Err(failure);
        }
        for (mut thing, modifiers) in self.things(0)? {
            self.attach(&mut thing, modifiers)?;
            replace_landmark(&mut thing, RelationKind::With, previous.and_then(main_place))?;
            self.avoid.push(thing);
        }
        self.skip_fillers();
        Ok(())
    }
}
