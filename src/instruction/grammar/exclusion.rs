//! What is not meant: "all but the red one", "the red one, not the blue one", "don't touch the knife".

use super::pronouns::replace_landmark;
use super::{Failure, Modifier, Parser};
use crate::instruction::lexicon::plain_verb;
use crate::instruction::types::{GENERIC_NOUN, Instruction, ObjectReference, RelationKind};

impl Parser<'_> {
    /// "but the red one" behind a thing: what is excepted from it, and what follows that belongs to the thing itself
    /// ("everything but the knife to the sink").
    pub(super) fn exceptions(
        &mut self,
        depth: usize,
    ) -> Result<(Vec<ObjectReference>, Vec<Modifier>), Failure> {
        let mut excepted = Vec::new();
        let mut rest = Vec::new();
        let start = self.position;
        let comma = usize::from(self.tokens.get(start).is_some_and(|it| it.text == ","));
        let Some(((), length)) =
            self.words.get(start + comma..).and_then(|it| self.vocabulary.exceptions.longest(it))
        else {
            return Ok((excepted, rest));
        };
        self.position = start + comma + length;
        if !self.starts_thing(self.position) || self.is_verb(self.position) {
            self.position = start;
            return Ok((excepted, rest));
        }
        let is_number = self.word(self.position).is_some_and(|it| self.count_of(it).is_some());
        if is_number && self.ends_thing(self.position + 1) {
            // "all but one" does not tell which.
            self.position = start + comma;
            return Err(self.unexpected());
        }
        for (mut thing, mut modifiers) in self.things(depth + 1)? {
            let is_outer = |it: &Modifier| !it.relative && (it.goal || self.verb_takes_destination());
            let own = modifiers.iter().position(is_outer).unwrap_or(modifiers.len());
            rest.extend(modifiers.split_off(own));
            self.attach(&mut thing, modifiers)?;
            let tells_which = thing.noun != GENERIC_NOUN
                || !(thing.attributes.is_empty() && thing.orders.is_empty() && thing.relations.is_empty());
            if !tells_which {
                self.position = start + comma;
                return Err(self.unexpected());
            }
            excepted.push(thing);
        }
        Ok((excepted, rest))
    }

    /// "do not touch", "avoid", at the start of a clause: the number of words before what must be left alone.
    pub(super) fn prohibition_at(&self, at: usize) -> Option<usize> {
        let skip = match (self.word(at)?, self.word(at + 1)) {
            ("do" | "must" | "should" | "can", Some("not")) => 2,
            ("be" | "make", Some("careful" | "sure"))
                if self.word(at + 2) == Some("not") && self.word(at + 3) == Some("to") =>
            {
                4
            }
            ("don't" | "never" | "avoid", _) => 1,
            ("not", _) if self.determiner_at(at + 1) => 1,
            ("without", Some(next)) if next.ends_with("ing") && plain_verb(next).is_some() => 1,
            _ => return None,
        };
        let verb = at + skip;
        let length = self.verb_at(verb).map(|(_, length)| length);
        let length = length.or_else(|| {
            let word = self.word(verb)?;
            let is_verb = plain_verb(word).is_some()
                || self.open_verb_at(verb).is_some()
                || self.determiner_at(verb + 1);
            (is_verb && !self.determiner_at(verb)).then_some(1)
        });
        Some(skip + length.unwrap_or(0))
    }

    /// "leave the saucers alone", "leave the scooter": not to be touched.
    pub(super) fn left_alone(&mut self) -> Result<bool, Failure> {
        if self.word(self.position) != Some("leave") || !self.starts_thing(self.position + 1) {
            return Ok(false);
        }
        let before = self.position;
        self.position += 1;
        let things = self.things(0)?;
        let alone = matches!(self.word(self.position), Some("alone" | "be"));
        self.position += usize::from(alone);
        let is_placed =
            things.iter().any(|(thing, modifiers)| !modifiers.is_empty() || thing.noun.starts_with('\u{1}'));
        if !self.ends_clause(self.position) || is_placed && !alone {
            self.position = before;
            return Ok(false);
        }
        for (mut thing, modifiers) in things {
            self.attach(&mut thing, modifiers)?;
            self.avoid.push(thing);
        }
        Ok(true)
    }

    /// Takes a prohibition of `length` words and the things it is about.
    pub(super) fn prohibition(
        &mut self,
        length: usize,
        previous: Option<&Instruction>,
    ) -> Result<(), Failure> {
        let failure = self.unexpected();
        let start = self.position;
        self.position += length;
        if !self.starts_thing(self.position) {
            return Err(failure);
        }
        // "not the umpire, the catcher" goes on with what is meant.
        let named = match self.word(start) {
            Some("not") => vec![(self.thing(0)?, self.modifiers(0)?)],
            _ => self.things(0)?,
        };
        for (mut thing, modifiers) in named {
            self.attach(&mut thing, modifiers)?;
            replace_landmark(
                &mut thing,
                RelationKind::With,
                previous.or(self.spoken_of).and_then(|it| it.targets.first()),
            )?;
            self.avoid.push(thing);
        }
        self.skip_fillers();
        Ok(())
    }
}
