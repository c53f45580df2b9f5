//! Several noun phrases in a row ("the cup, the plate and both forks"), and what says of one again which one it is.

use super::{Failure, IT, Modifier, NounPhrases, Parser, THEM};
use crate::instruction::types::{GENERIC_NOUN, ObjectReference, Order, Quantity};

impl Parser<'_> {
    /// One thing or several.
    pub(super) fn noun_phrases(&mut self, depth: usize) -> Result<NounPhrases, Failure> {
        if let Some(joined) = self.both_or_either(depth)? {
            return Ok(joined);
        }
        self.listed(depth)
    }

    /// "both the soup and the milk", "either the red mug or the blue one".
    fn both_or_either(&mut self, depth: usize) -> Result<Option<NounPhrases>, Failure> {
        let start = self.position;
        let word = self.word(start);
        if word == Some("both") && self.determiner_at(start + 1) {
            self.position += 1;
            let singular =
                |things: &NounPhrases| things.iter().all(|(thing, _)| thing.quantity == Quantity::One);
            match self.listed(depth) {
                Ok(things) if things.len() > 1 && singular(&things) => return Ok(Some(things)),
                _ => self.position = start,
            }
        }
        if word == Some("either") && self.starts_noun_phrase(start + 1) {
            self.position += 1;
            let first = self.noun_phrase(depth)?;
            let modifiers = self.modifiers(depth)?;
            if self.word(self.position) == Some("or") {
                return self.alternatives(first, modifiers, depth).map(Some);
            }
            self.position = start;
        }
        Ok(None)
    }

    /// "or the blue one", behind the first that may be taken.
    fn alternatives(
        &mut self,
        mut first: ObjectReference,
        mut modifiers: Vec<Modifier>,
        depth: usize,
    ) -> Result<NounPhrases, Failure> {
        let mut others: NounPhrases = Vec::new();
        loop {
            let is_slash = self.tokens.get(self.position).is_some_and(|it| it.text == "/");
            if !is_slash && self.word(self.position) != Some("or") {
                break;
            }
            self.position += 1;
            let mut other = self.noun_phrase(depth)?;
            if is_slash && other.attributes.is_empty() {
                other.attributes.clone_from(&first.attributes); // "red mug/cup"
            }
            modifiers = self.modifiers(depth)?;
            others.push((other, Vec::new()));
        }
        let mut named: NounPhrases = vec![(first.clone(), Vec::new())];
        named.append(&mut others);
        self.name_ones(&mut named);
        let mut named = named.into_iter().map(|it| it.0);
        first.noun = named.next().map(|it| it.noun).unwrap_or_default();
        first.alternatives = named.collect();
        Ok(vec![(first, modifiers)])
    }

    fn listed(&mut self, depth: usize) -> Result<NounPhrases, Failure> {
        let mut things = Vec::new();
        loop {
            let mut thing = self.noun_phrase(depth)?;
            if self.tokens.get(self.position).is_some_and(|it| it.text == "/") {
                // "the red mug/cup": either.
                things.append(&mut self.alternatives(thing, Vec::new(), depth)?);
                return Ok(things);
            }
            let mut modifiers = Vec::new();
            match self.particle_at(self.position) {
                // "turn the stove on": the clause takes the particle.
                Some(_) if self.ends_clause(self.position + 1) => {}
                // "pick the cup up from the table".
                Some(verb) => {
                    self.particle = Some(verb.clone());
                    self.position += 1;
                    modifiers = self.modifiers(depth)?;
                    if let Some(first) = modifiers.first_mut() {
                        first.after_particle = true;
                    }
                }
                None => modifiers = self.modifiers(depth)?,
            }
            let (except, mut outer) = self.exceptions(depth)?;
            thing.except = except;
            modifiers.append(&mut outer);
            for except in &mut thing.except {
                if thing.noun != IT && thing.noun != THEM && self.is_one(except) {
                    except.noun.clone_from(&thing.noun); // "every cup but the red one"
                }
            }
            self.in_brackets(&mut thing, &mut modifiers, depth)?;
            if self.is_apposition(&things, &thing) {
                // "the cup, the red one".
                if let Some((named, named_modifiers)) = things.last_mut() {
                    named.attributes = thing.attributes;
                    named.orders = thing.orders;
                    named_modifiers.append(&mut modifiers);
                }
                return Ok(things);
            }
            let split_colors = Self::split_colors(&mut thing);
            for extra in split_colors {
                things.push((extra, Vec::new()));
            }
            things.push((thing, modifiers));
            let after_joint = self.after_joint(self.position);
            let Some(next) = after_joint else {
                self.name_ones(&mut things);
                return Ok(things);
            };
            if self.is_verb(next) && !self.determiner_at(next) || !self.starts_noun_phrase(next) {
                self.name_ones(&mut things);
                return Ok(things);
            }
            if things.len() >= 20 {
                return Err(self.fail_at(next, "expected at most 20 things".to_owned()));
            }
            self.position = next;
        }
    }

    /// "(the one on the left)", "[left]" behind a name: which one it is.
    fn in_brackets(
        &mut self,
        thing: &mut ObjectReference,
        modifiers: &mut Vec<Modifier>,
        depth: usize,
    ) -> Result<(), Failure> {
        if self.tokens.get(self.position).is_none_or(|it| it.text != "(") {
            return Ok(());
        }
        self.position += 1;
        let start = self.position;
        if self.starts_modifier(start) {
            modifiers.append(&mut self.modifiers(depth)?);
        } else if let Some((&by, length)) = self.vocabulary.orders.longest(self.rest())
            && self.tokens.get(start + length).is_some_and(|it| it.text == ")")
        {
            self.position += length;
            thing.orders.push(Order { by, rank: 1 });
        } else if let Some(attribute) = self.attribute(true) {
            thing.attributes.push(attribute);
        } else if !self.exceptions_in_brackets(thing, depth)? {
            let inner = self.noun_phrase(depth + 1)?;
            if inner.noun != GENERIC_NOUN && inner.noun != thing.noun {
                self.position = start;
                return Err(self.unexpected());
            }
            thing.attributes.extend(inner.attributes);
            thing.orders.extend(inner.orders);
            modifiers.append(&mut self.modifiers(depth)?);
        }
        if self.tokens.get(self.position).is_none_or(|it| it.text != ")") {
            return Err(self.unexpected());
        }
        self.position += 1;
        modifiers.append(&mut self.modifiers(depth)?);
        Ok(())
    }

    fn exceptions_in_brackets(&mut self, thing: &mut ObjectReference, depth: usize) -> Result<bool, Failure> {
        let (mut except, _) = self.exceptions(depth)?;
        let found = !except.is_empty();
        thing.except.append(&mut except);
        Ok(found)
    }

    /// Whether `thing` says of the one thing before it, behind a comma, which one that is.
    pub(super) fn is_apposition(&self, things: &NounPhrases, thing: &ObjectReference) -> bool {
        let [(named, modifiers)] = &things[..] else { return false };
        let before = self.tokens.iter().rev().find(|it| it.span.end <= thing.span.start);
        before.is_some_and(|it| it.text == ",")
            && self.as_said(thing).ends_with(" one")
            && self.as_said(thing).starts_with("the ")
            && self.is_one(thing)
            && !thing.other
            && modifiers.is_empty()
            && named.quantity == Quantity::One
            && named.noun != GENERIC_NOUN
            && named.attributes.is_empty()
            && named.orders.is_empty()
            && self.after_joint(self.position).is_none_or(|next| self.verb_at(next).is_some())
    }

    /// "the red cup and the blue one", "the red and the blue cup": what the noun is said with once.
    pub(super) fn name_ones(&self, things: &mut NounPhrases) {
        for thing_idx in 0..things.len() {
            if !self.is_one(&things[thing_idx].0) {
                continue;
            }
            let before = things[..thing_idx].iter().rev().find(|it| it.0.noun != GENERIC_NOUN);
            let bare = !self.as_said(&things[thing_idx].0).contains("one");
            let after = things[thing_idx + 1..].iter().find(|it| it.0.noun != GENERIC_NOUN).filter(|_| bare);
            if let Some((named, _)) = before.or(after)
                && named.noun != IT
                && named.noun != THEM
            {
                let noun = named.noun.clone();
                things[thing_idx].0.noun = noun;
            }
        }
    }

    /// The noun was left out or is "one", not "thing" or "something".
    pub(super) fn is_one(&self, thing: &ObjectReference) -> bool {
        let said = self.as_said(thing);
        let words: Vec<&str> = said.split(' ').collect();
        thing.noun == GENERIC_NOUN
            && (words.iter().any(|it| matches!(*it, "one" | "ones"))
                || !words.iter().any(|it| self.vocabulary.generic_nouns.contains(*it) || *it == "everything"))
    }
}
