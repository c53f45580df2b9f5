//! Noun phrases: number, order, attributes, noun, and what is "of" something.

use super::{
    Failure, IT, MAX_DEPTH, MAX_NOUN_WORDS, Modifier, Parser, THEM, Things, is_ordinal_only, is_side,
};
use crate::instruction::lexicon::{is_english, is_past_verb};
use crate::instruction::types::{
    Attribute, AttributeKind, GENERIC_NOUN, ObjectReference, Order, OrderBy, Quantity,
};
use crate::instruction::vocabulary::{Determiner, Quantifier, one_edit_apart};

impl<'a> Parser<'a> {
    /// One thing or several.
    pub(super) fn things(&mut self, depth: usize) -> Result<Things, Failure> {
        if let Some(joined) = self.both_or_either(depth)? {
            return Ok(joined);
        }
        self.listed(depth)
    }

    /// "both the soup and the milk", "either the red mug or the blue one".
    fn both_or_either(&mut self, depth: usize) -> Result<Option<Things>, Failure> {
        let start = self.position;
        let word = self.word(start);
        if word == Some("both") && self.determiner_at(start + 1) {
            self.position += 1;
            let singular = |things: &Things| things.iter().all(|(thing, _)| thing.quantity == Quantity::One);
            match self.listed(depth) {
                Ok(things) if things.len() > 1 && singular(&things) => return Ok(Some(things)),
                _ => self.position = start,
            }
        }
        if word == Some("either") && self.starts_thing(start + 1) {
            self.position += 1;
            let first = self.thing(depth)?;
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
    ) -> Result<Things, Failure> {
        let mut others: Things = Vec::new();
        loop {
            let is_slash = self.tokens.get(self.position).is_some_and(|it| it.text == "/");
            if !is_slash && self.word(self.position) != Some("or") {
                break;
            }
            self.position += 1;
            let mut other = self.thing(depth)?;
            if is_slash && other.attributes.is_empty() {
                other.attributes.clone_from(&first.attributes); // "red mug/cup"
            }
            modifiers = self.modifiers(depth)?;
            others.push((other, Vec::new()));
        }
        let mut named: Things = vec![(first.clone(), Vec::new())];
        named.append(&mut others);
        self.name_ones(&mut named);
        let mut named = named.into_iter().map(|it| it.0);
        first.noun = named.next().map(|it| it.noun).unwrap_or_default();
        first.alternatives = named.collect();
        Ok(vec![(first, modifiers)])
    }

    fn listed(&mut self, depth: usize) -> Result<Things, Failure> {
        let mut things = Vec::new();
        loop {
            let mut thing = self.thing(depth)?;
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
            if self.is_verb(next) && !self.determiner_at(next) || !self.starts_thing(next) {
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
            let inner = self.thing(depth + 1)?;
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
    pub(super) fn is_apposition(&self, things: &Things, thing: &ObjectReference) -> bool {
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
    pub(super) fn name_ones(&self, things: &mut Things) {
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

    /// A noun phrase without what follows it, but with "of ...".
    pub(super) fn thing(&mut self, depth: usize) -> Result<ObjectReference, Failure> {
        if depth >= MAX_DEPTH {
            return Err(
                self.fail_at(self.position, format!("expected at most {MAX_DEPTH} places within each other"))
            );
        }
        let start = self.position;
        if let Some(pronoun) = self.pronoun() {
            return Ok(pronoun);
        }
        let mut thing = self.empty_reference(start);
        let mut definite = None;
        let mut number = None;
        let mut plural_hint = false;
        let mut is_singular_only = false;
        if self.word(start) == Some("half") && matches!(self.word(start + 1), Some("a" | "an" | "the" | "of"))
        {
            let is_dozen = self.word(start + 2) == Some("dozen");
            self.position += if is_dozen { 3 } else { 1 };
            if is_dozen {
                number = Some(Quantity::Any(6));
                plural_hint = true;
            } else {
                thing.attributes.push(Attribute {
                    kind: AttributeKind::Other,
                    word: "half".to_owned(),
                    negated: false,
                });
                self.skip_word("of");
            }
        }
        if let Some((&quantifier, length)) = self.vocabulary.quantifiers.longest(self.rest()) {
            let word = self.words[start];
            self.position += length;
            if quantifier == Quantifier::All && word == "everything" {
                self.position -= 1;
            }
            thing.quantity = match quantifier {
                Quantifier::All => Quantity::All,
                Quantifier::Both => Quantity::Exactly(2),
                Quantifier::Some => {
                    Quantity::Any(if word == "a" && self.words[start + 1].starts_with(['p', 'c']) {
                        2
                    } else if word == "some" {
                        1
                    } else {
                        3
                    })
                }
            };
            plural_hint = true;
            number = Some(thing.quantity);
            self.skip_word("of");
            if quantifier == Quantifier::All && self.vocabulary.exceptions.longest(self.rest()).is_some() {
                // "all but the red one".
                GENERIC_NOUN.clone_into(&mut thing.noun);
                thing.span = self.span_from(start);
                return Ok(thing);
            }
            if self.word(self.position) == Some("everything") {
                self.position += 1;
                GENERIC_NOUN.clone_into(&mut thing.noun);
                thing.span = self.span_from(start);
                return Ok(thing);
            }
        }
        if let Some((&determiner, length)) = self.vocabulary.determiners.longest(self.rest()) {
            is_singular_only = matches!(self.words[self.position], "a" | "an" | "this" | "that" | "another");
            thing.other |= self.words[self.position] == "another";
            self.position += length;
            definite = Some(determiner);
            self.skip_fillers_before_thing(); // "the um cup"
        }
        if let Some(((), length)) = self.vocabulary.other.longest(self.rest()) {
            thing.other = true;
            self.position += length;
        }
        if definite == Some(Determiner::Indefinite) && self.word(self.position) == Some("of") {
            // "any of the bottles".
            self.position += 1;
            let mut some = self.thing(depth + 1)?;
            choose_from(&mut some, Quantity::Any(1));
            some.span.start = thing.span.start;
            return Ok(some);
        }
        let about = match (self.word(self.position), self.word(self.position + 1)) {
            (Some("at"), Some("least" | "most")) => 2,
            (Some("exactly" | "just" | "about" | "only"), _) => 1,
            _ => 0,
        };
        if self.word(self.position + about).is_some_and(|it| self.count_of(it).is_some()) {
            self.position += about;
        }
        let measured = self
            .word(self.position + 1)
            .is_some_and(|it| self.vocabulary.units.contains(it) || self.vocabulary.lengths.contains_key(it));
        if let Some(word) = self.word(self.position)
            && let Some(count) = self.count_of(word)
            && !measured // "the 10 mm wrench"
            && !self.ends_thing(self.position + 1)
            && self.word(self.position + 1) != Some("of")
        {
            self.position += 1;
            plural_hint |= count > 1;
            let is_all = definite == Some(Determiner::Definite) || number == Some(Quantity::All);
            number = Some(if is_all { Quantity::Exactly(count) } else { Quantity::Any(count) });
        } else if let Some(word) = self.word(self.position)
            && let Some(count) = self.count_of(word)
            && self.word(self.position + 1) == Some("of")
        {
            // "two of the bottles".
            self.position += 2;
            let mut some = self.thing(depth + 1)?;
            choose_from(&mut some, Quantity::Any(count));
            some.span.start = thing.span.start;
            return Ok(some);
        }
        if let Some(((), length)) = self.vocabulary.other.longest(self.rest()) {
            thing.other = true;
            self.position += length;
        }
        let mut count = None;
        let words = self.premodifiers(&mut thing, &mut count, depth)?;
        if let Some(count) = count {
            let definite = definite == Some(Determiner::Definite);
            number = Some(if definite { Quantity::Exactly(count) } else { Quantity::Any(count) });
            plural_hint |= count > 1;
        }
        self.name(&mut thing, &words, start)?;
        // The number of the noun.
        let (head, is_plural) = match self.tokens.get(self.position.wrapping_sub(1)) {
            Some(last) if last.is_name && thing.noun.ends_with(&last.text) => (thing.noun.clone(), false), // "James"
            _ => self.singular(&thing.noun, plural_hint || number.is_some()),
        };
        thing.quantity = match (number, definite) {
            (Some(quantity), _) => quantity,
            (None, Some(Determiner::Indefinite)) if !is_plural || is_singular_only => Quantity::Any(1),
            (None, Some(Determiner::Indefinite)) => Quantity::Any(2),
            (None, _) if is_plural && !is_singular_only => Quantity::All,
            _ => Quantity::One,
        };
        if is_plural && !is_singular_only {
            thing.noun = head;
        } else if self.vocabulary.plural_only.contains(&thing.noun) && number == Some(Quantity::Any(2)) {
            thing.quantity = Quantity::Any(1); // "a pair of scissors"
        }
        if matches!(thing.noun.as_str(), "drawer" | "shelf" | "layer" | "level" | "row")
            && let [order] = &mut thing.orders[..]
            && is_ordinal_only(order)
            && order.rank > 1
        {
            order.by = OrderBy::Highest; // drawers are counted from the top
        }
        self.of(&mut thing, depth)?;
        thing.is_surface = self.is_surface(&thing) && thing.whole.is_none();
        thing.span = self.span_from(start);
        Ok(thing)
    }

    /// Everything between the determiner and the noun's end. Returns the words of the noun; `count` is one said behind an order
    /// ("the top two books").
    pub(super) fn premodifiers(
        &mut self,
        thing: &mut ObjectReference,
        count: &mut Option<usize>,
        depth: usize,
    ) -> Result<Vec<String>, Failure> {
        let mut ordinal = None;
        let mut is_last = false;
        // Words that may be the noun: unknown ones, and attributes that may be nouns.
        let mut noun: Vec<String> = Vec::new();
        let mut noun_start = self.position;
        loop {
            let at = self.position;
            let Some(word) = self.word(at) else { break };
            if word == "'s" {
                // "the cabinet's top drawer": what was read is the whole.
                self.position += 1;
                let mut owner = std::mem::replace(thing, self.empty_reference(noun_start));
                self.name(&mut owner, &std::mem::take(&mut noun), noun_start)?;
                owner.span = self.span_from(noun_start);
                let mut part = self.thing(depth + 1)?;
                give_owner(&mut part, owner);
                let name = part.noun.clone();
                *thing = part;
                return Ok(vec![name]);
            }
            if let Some(((), length)) = self.vocabulary.compounds.longest(self.rest()) {
                noun.extend(self.words[at..at + length].iter().map(|it| (*it).to_owned()));
                self.position += length;
                continue;
            }
            if self.vocabulary.generic_nouns.contains(word) && noun.is_empty() {
                self.position += 1;
                Self::take_ordinal(thing, ordinal, is_last);
                if word.ends_with('s') {
                    thing.quantity = Quantity::All;
                }
                while let Some(attribute) = self.attribute(true) {
                    thing.attributes.push(attribute); // "something red"
                }
                return Ok(vec![GENERIC_NOUN.to_owned()]);
            }
            if noun.is_empty()
                && let Some(&rank) = self.vocabulary.ordinals.get(word)
            {
                ordinal = Some(rank);
                self.position += 1;
                if let Some((by, length)) = self.side_counted_from(at + 1) {
                    // "2nd from left bottle".
                    self.position += length;
                    ordinal = None;
                    thing.orders.push(Order { by, rank });
                }
                continue;
            }
            if noun.is_empty() && self.vocabulary.last.contains(word) {
                is_last = true;
                self.position += 1;
                continue;
            }
            if ordinal.is_some()
                && word == "to"
                && self.word(at + 1).is_some_and(|it| self.vocabulary.last.contains(it))
            {
                is_last = true; // "the second to last"
                self.position += 2;
                continue;
            }
            let is_ranked = ordinal.is_some() || is_last || !thing.orders.is_empty();
            if noun.is_empty()
                && is_ranked
                && !self.ends_thing(at + 1)
                && let Some(number) = self.count_of(word)
            {
                *count = Some(number);
                self.position += 1;
                continue;
            }
            let written = self.vocabulary.orders.longest(self.rest()).map(|(&by, length)| (by, length));
            let order = written.or_else(|| Some((*self.misspelled_order(at)?, 1)));
            if noun.is_empty()
                && let Some((by, length)) = order.filter(|_| written.is_some() || !self.is_last_word(at))
            {
                let is_ranking = if written.is_some() { self.is_ranking(at) } else { !is_side(by) };
                let next = self.word(at + length);
                if next == Some("of") || next == Some("'s") {
                    if is_ranking || thing.span.is_empty() && ordinal.is_some() {
                        // "the largest of the cups".
                        self.position += length + 1;
                        let order = Order { by, rank: ordinal.unwrap_or(1) };
                        let mut ranked = self.thing(depth + 1)?;
                        ranked.orders.push(order);
                        let name = ranked.noun.clone();
                        choose_from(&mut ranked, Quantity::One);
                        *thing = ranked;
                        return Ok(vec![name]);
                    }
                    // "the top of the cabinet" is a part.
                    noun.push(self.words[at..at + length].join(" "));
                    self.position += length;
                    continue;
                }
                self.position += length;
                thing.orders.push(Order { by, rank: ordinal.take().unwrap_or(1) });
                continue;
            }
            if !noun.is_empty() && self.ends_name(at) {
                break;
            }
            if let Some(attribute) = self.attribute(!noun.is_empty()) {
                if !noun.is_empty()
                    && self.ends_thing(self.position)
                    && self.vocabulary.nounlike.contains(&attribute.word)
                {
                    noun.push(attribute.word);
                    continue;
                }
                // "fancy red cup": the unknown word is a quality.
                if !noun.is_empty() && self.ends_thing(self.position) {
                    // "cup red": said behind the noun.
                    thing.attributes.push(attribute);
                    continue;
                }
                for word in noun.drain(..) {
                    thing.attributes.push(Attribute { kind: AttributeKind::Other, word, negated: false });
                }
                noun_start = at;
                thing.attributes.push(attribute);
                self.color_and(thing);
                continue;
            }
            if self.ends_thing(at) {
                break;
            }
            // "cup near red plate".
            if !noun.is_empty() && self.relation_at(at).is_some_and(|it| self.starts_thing(at + it.1)) {
                break;
            }
            if !noun.is_empty()
                && let Some((by, length)) = self.vocabulary.orders.longest(self.rest())
                && (self.ends_thing(at + length)
                    && !is_end_of_name(*by)
                    && !(*by == OrderBy::Middle && noun.last().is_some_and(|it| self.is_support(it)))
                    || self.orders_to_the_end(at).len() > 1)
            {
                // "move the cup left": the clause decides.
                break;
            }
            noun.push(word.to_owned());
            self.position += 1;
            if noun.len() > MAX_NOUN_WORDS {
                return Err(self.fail_at(
                    at,
                    format!("expected a name of at most {MAX_NOUN_WORDS} words, still going on at {word:?}"),
                ));
            }
        }
        Self::take_ordinal(thing, ordinal, is_last);
        Ok(noun)
    }

    /// "from the left" behind an ordinal and before a name: the side, with the number of words.
    fn side_counted_from(&self, at: usize) -> Option<(OrderBy, usize)> {
        let the = usize::from(self.word(at + 1) == Some("the"));
        let (&by, length) = self.vocabulary.orders.longest(self.words.get(at + 1 + the..)?)?;
        let end = at + 1 + the + length;
        let is_before_name = self.word(at) == Some("from") && is_side(by) && !self.ends_thing(end);
        is_before_name.then_some((by, end - at))
    }

    /// What stands here goes on with the clause, not with the name: "cup 10 cm to the left", "mug upright".
    fn ends_name(&self, at: usize) -> bool {
        self.manner_at(at).is_some()
            || self.degree_at(at).is_some()
            || self.rotation_at(at).is_some()
            || self.measure_at(at).is_some_and(|(_, length)| {
                let next = at + length;
                self.ends_clause(next)
                    || self.starts_modifier(self.skip_relation_fillers(next))
                    || self.vocabulary.directions.contains_word(self.words.get(next).unwrap_or(&""))
                    || self.vocabulary.orders.contains_word(self.words.get(next).unwrap_or(&""))
            })
    }

    pub(super) fn take_ordinal(thing: &mut ObjectReference, ordinal: Option<usize>, is_last: bool) {
        if is_last {
            thing.orders.push(Order { by: OrderBy::Rightmost, rank: ordinal.unwrap_or(1) });
        } else if let Some(rank) = ordinal {
            match thing.orders.last_mut() {
                Some(order) => order.rank = rank,
                None => thing.orders.push(Order { by: OrderBy::Leftmost, rank }),
            }
        }
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
            Some(attribute) if attribute.kind == AttributeKind::Color && !self.ends_thing(self.position) => {
                thing.attributes.push(attribute);
            }
            _ => self.position = at,
        }
    }

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
            if !after_noun && self.vocabulary.nounlike.contains(word) && self.ends_thing(at + length) {
                return None;
            }
            self.position += length;
            return Some(Attribute { kind, word: self.words[at..self.position].join(" "), negated: false });
        }
        if word.chars().count() >= 4 && !is_english(word) && !self.is_closed(at) && !self.ends_thing(at + 1) {
            let color = sole_misspelled(word, &self.vocabulary.color_words)?.to_owned();
            self.position += 1;
            return Some(Attribute { kind: AttributeKind::Color, word: color, negated: false });
        }
        None
    }

    /// The noun phrase ends behind this word, and not with "of".
    pub(super) fn is_last_word(&self, at: usize) -> bool {
        self.ends_thing(at + 1) && self.word(at + 1) != Some("of")
    }

    /// "lfet", "larget": an order with a typo.
    pub(super) fn misspelled_order(&self, at: usize) -> Option<&'a OrderBy> {
        let is_slip =
            |it: &&str| it.len() >= 3 && !is_english(it) && !self.is_closed(at) && !self.ends_thing(at);
        let word = self.word(at).filter(is_slip)?;
        let meant = sole_misspelled(word, &self.vocabulary.mended_orders)?;
        self.vocabulary.orders.longest(&[meant]).map(|(by, _)| by)
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
        let mut inner = self.thing(depth + 1)?;
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
        let alone = self.ends_thing(at + 1)
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

    /// "largest", not "top": a ranking can be "of the cups".
    pub(super) fn is_ranking(&self, at: usize) -> bool {
        self.vocabulary.orders.longest(&self.words[at..]).is_some_and(|(by, _)| !is_side(*by))
            || self.words[at].ends_with("most")
            || self.words[at].ends_with("est")
    }
}

/// "stove top", "table bottom": the last word of a name as well.
fn is_end_of_name(by: OrderBy) -> bool {
    matches!(by, OrderBy::Highest | OrderBy::Lowest)
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

/// "the cabinet's left door's handle": the handle of the door of the cabinet.
pub(super) fn give_owner(part: &mut ObjectReference, owner: ObjectReference) {
    match &mut part.whole {
        Some(whole) => give_owner(whole, owner),
        None => part.whole = Some(Box::new(owner)),
    }
}

/// "one of the three cups": `quantity` of what was said to be so many.
pub(super) fn choose_from(things: &mut ObjectReference, quantity: Quantity) {
    if let Quantity::Exactly(n) = things.quantity {
        things.out_of = Some(n);
    }
    things.quantity = quantity;
}
