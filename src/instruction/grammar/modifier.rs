//! What follows a noun: places in a row, relations to landmarks, qualities said with "that is".

use super::place::add_place;
use super::{Failure, MAX_DEPTH, Meaning, Modifier, Parser};
use crate::instruction::types::{Action, Order, OrderBy, Quantity, RelationKind};

/// "that is not" before a quality or a place.
struct RelativeClause {
    /// The token behind it.
    end: usize,
    negated: bool,
}

/// A place and the distance said before it.
struct MeasuredPlace {
    /// The token that the place begins at; "of" in "within 10 cm of".
    at: usize,
    distance_m: Option<f64>,
    is_within: bool,
}

impl Parser<'_> {
    /// All that says where a thing is or shall go, or how it is: "on the left and next to the plate that is red".
    pub(super) fn modifiers(&mut self, depth: usize) -> Result<Vec<Modifier>, Failure> {
        let mut modifiers: Vec<Modifier> = Vec::new();
        loop {
            self.manner_before_place();
            let start = self.position;
            let Some(modifier) = self.modifier(&mut modifiers, depth)? else {
                self.position = start;
                return Ok(modifiers);
            };
            let at = modifier.token_idx;
            modifiers.push(modifier);
            if modifiers.len() > MAX_DEPTH {
                return Err(
                    self.fail_at(at, format!("expected at most {MAX_DEPTH} places within each other"))
                );
            }
        }
    }

    /// The next modifier; of two sides said together ("at the bottom right") the first goes to `earlier`. None where the clause goes on
    /// with something else; the position is the caller's to restore then.
    fn modifier(&mut self, earlier: &mut Vec<Modifier>, depth: usize) -> Result<Option<Modifier>, Failure> {
        let start = self.position;
        if self.clause_goes_on(start) {
            return Ok(None);
        }
        let joined = self.joined_modifier_at(start, !earlier.is_empty());
        let at = joined.unwrap_or(start);
        let copula = self.relative_clause_at(at);
        let relative = copula.is_some();
        let at = copula.as_ref().map_or(at, |it| it.end);
        if !relative && self.particle_at(at).is_some() {
            return Ok(None);
        }
        let Some(measured) = self.measured_place_at(at) else { return Ok(None) };
        let at = measured.at;
        self.position = at;
        let mut modifier = Modifier {
            meaning: Meaning::Place(Order { by: OrderBy::Middle, rank: 1 }),
            relative,
            to_head: joined.is_some(),
            goal: false,
            towards: self.word(at) == Some("to"),
            after_closest: false,
            after_comma: joined.is_some() && self.words[start] == ",",
            after_particle: false,
            negated: copula.is_some_and(|it| it.negated),
            distance_m: measured.distance_m,
            token_idx: at,
            span: 0..0,
        };
        if measured.is_within {
            self.position = at + 1;
            modifier.meaning = self.related(RelationKind::Near, depth)?;
        } else if let Some(corner) = self.corner(at, depth)? {
            modifier.meaning = Meaning::Relation(RelationKind::On, vec![corner], 1);
        } else if let Some((order, length)) = self.side_at(at) {
            self.position += length;
            self.side(order, &mut modifier, earlier);
        } else if let Some(relation) = self.relation_at(at) {
            let Some(meaning) = self.relation(relation, &mut modifier, depth)? else { return Ok(None) };
            modifier.meaning = meaning;
        } else if relative {
            let is_other_kind =
                modifier.negated && self.starts_noun_phrase(self.position) && self.is_kind(self.position);
            modifier.meaning = if is_other_kind {
                Meaning::Except(self.noun_phrase(depth + 1)?) // "that are not bananas"
            } else {
                self.relative_quality()?
            };
        } else {
            return Ok(None);
        }
        modifier.span = self.span_from(at);
        Ok(Some(modifier))
    }

    /// A purpose, an amount, a manner or a turn stands here, which belongs to the clause.
    fn clause_goes_on(&self, at: usize) -> bool {
        let is_purpose = self.word(at) == Some("to") && self.is_action_at(at + 1);
        let is_amount = self.word(at) == Some("by") && self.measure_at(at + 1).is_some();
        is_purpose || is_amount || self.manner_at(at).is_some() || self.rotation_at(at).is_some()
    }

    /// Where a modifier begins behind "and" or a comma that joins it to the noun before, not to the clause.
    fn joined_modifier_at(&self, start: usize, is_later: bool) -> Option<usize> {
        let next = self.after_joint(start)?;
        let is_bare_comma = self.words[start] == "," && next == start + 1;
        let is_place =
            self.relation_at(self.skip_relation_fillers(next)).is_some() || self.side_at(next).is_some();
        let is_joined = is_place
            && !self.words[start..next].contains(&".")
            && (is_later || is_bare_comma)
            && !self.is_verb(next);
        is_joined.then_some(next)
    }

    /// "that is", "which are not": where it ends.
    fn relative_clause_at(&self, at: usize) -> Option<RelativeClause> {
        if self.relation_at(at).is_some() {
            return None; // "that has"
        }
        let ((), length) = self.vocabulary.relative_pronouns.longest(&self.words[at..])?;
        let mut end = at + length;
        let mut negated = false;
        while let Some(word) = self.word(end) {
            negated |= matches!(word, "not" | "isn't" | "aren't" | "never");
            let is_copula = matches!(
                word,
                "is" | "are"
                    | "'s"
                    | "currently"
                    | "also"
                    | "not"
                    | "isn't"
                    | "aren't"
                    | "previously"
                    | "already"
                    | "being"
            );
            if !is_copula {
                break;
            }
            end += 1;
        }
        Some(RelativeClause { end, negated })
    }

    /// The place behind "two inches" or "within 10 cm of"; none when a measure stands here without a place.
    fn measured_place_at(&self, at: usize) -> Option<MeasuredPlace> {
        let measure = self.measure_at(at);
        let distance_m = measure.map(|it| it.0);
        let end = at + measure.map_or(0, |(_, length)| length);
        if measure.is_some() && self.word(at) == Some("within") && self.word(end) == Some("of") {
            return Some(MeasuredPlace { at: end, distance_m, is_within: true });
        }
        let filled = self.skip_relation_fillers(end);
        if self.relation_at(filled).is_some() || self.side_at(filled).is_some() {
            return Some(MeasuredPlace { at: filled, distance_m, is_within: false });
        }
        measure.is_none().then_some(MeasuredPlace { at, distance_m, is_within: false })
    }

    /// A side, with a second one and a distance behind it: "at the bottom right", "to the left by 10 cm".
    fn side(&mut self, order: Order, modifier: &mut Modifier, earlier: &mut Vec<Modifier>) {
        modifier.meaning = Meaning::Place(order);
        if let Some(second) = self.second_side(order) {
            earlier.push(modifier.clone());
            modifier.meaning = Meaning::Place(second);
        }
        if modifier.distance_m.is_some() {
            return;
        }
        let by = usize::from(self.word(self.position) == Some("by"));
        if let Some((meters, length)) = self.measure_at(self.position + by) {
            modifier.distance_m = Some(meters);
            self.position += by + length;
        }
    }

    /// A relation and its landmark; none where "with" names a tool, or where no landmark follows: "turn the stove on".
    fn relation(
        &mut self,
        (kind, length, goal): (RelationKind, usize, bool),
        modifier: &mut Modifier,
        depth: usize,
    ) -> Result<Option<Meaning>, Failure> {
        let at = self.position;
        let is_with = kind == RelationKind::With;
        if is_with && (self.instrument().is_some() || self.is_tool(at + length, modifier.relative)) {
            return Ok(None);
        }
        self.position = at + length;
        modifier.goal = goal;
        if !self.starts_noun_phrase(self.position) && !self.is_viewer(self.position) {
            return Ok(None);
        }
        let kind = match kind {
            RelationKind::From if modifier.distance_m.is_some() => RelationKind::Near, // "two inches from the plate"
            kind => kind,
        };
        let mut meaning = self.related(kind, depth)?;
        if is_with {
            self.skip_on_it(); // "the plate with the fork on it"
        }
        if matches!(self.word(at), Some("on" | "at")) {
            self.onto_surface(&self.words[at..at + length].join(" "), &mut meaning);
        }
        Ok(Some(meaning))
    }

    /// "that is leftmost", "that is red".
    fn relative_quality(&mut self) -> Result<Meaning, Failure> {
        if let Some((&by, length)) = self.vocabulary.orders.longest(self.rest()) {
            self.position += length;
            return Ok(Meaning::Place(Order { by, rank: 1 }));
        }
        if let Some(attribute) = self.attribute(true) {
            return Ok(Meaning::Attribute(attribute));
        }
        if self.word(self.position).is_some_and(|it| self.vocabulary.reserved.contains(it)) {
            return Err(self.unexpected());
        }
        Err(self.expected("where or how the thing is"))
    }

    /// What stands behind a relation's words.
    pub(super) fn related(&mut self, kind: RelationKind, depth: usize) -> Result<Meaning, Failure> {
        if matches!(kind, RelationKind::ClosestTo | RelationKind::FarthestFrom | RelationKind::Near)
            && let Some(length) = self.viewer_length(self.position)
        {
            self.position += length;
            let by = if kind == RelationKind::FarthestFrom { OrderBy::Farthest } else { OrderBy::Nearest };
            return Ok(Meaning::Place(Order { by, rank: 1 }));
        }
        let first = self.noun_phrase(depth + 1)?;
        let mut landmarks = vec![first];
        if kind == RelationKind::Between && landmarks[0].quantity == Quantity::One {
            if let Some((order, length)) = self.side_at(self.position)
                && self.after_joint(self.position + length).is_some()
            {
                self.position += length; // "between the cup on the left and the plate"
                add_place(&mut landmarks[0], order);
            }
            let Some(next) = self.after_joint(self.position) else {
                return Err(self.expected("\"and\" and the second thing that it is between"));
            };
            self.position = next;
            landmarks.push(self.noun_phrase(depth + 1)?);
        }
        let is_two = landmarks[0].quantity == Quantity::Exactly(2);
        // "in the middle of the two plates".
        let kind = if kind == RelationKind::AtCenterOf && is_two { RelationKind::Between } else { kind };
        Ok(Meaning::Relation(kind, landmarks, 1))
    }

    /// "on it", "in it" behind what a thing has.
    pub(super) fn skip_on_it(&mut self) {
        if let Some((_, length, _)) = self.relation_at(self.position)
            && matches!(self.word(self.position + length), Some("it" | "them"))
        {
            // "put the bowl with the nuts in it" still needs a place.
            let is_place = self.verb_takes_destination() && self.ends_clause(self.position + length + 1);
            self.position += if is_place { 0 } else { length + 1 };
        }
    }

    /// "on the left side of the table" is a part of the table; "to the left of" it is beside it.
    pub(super) fn onto_surface(&self, words: &str, meaning: &mut Meaning) {
        if let Meaning::Relation(kind, landmarks, _) = meaning
            && landmarks.iter().all(|it| self.is_surface(it))
        {
            *kind = match *kind {
                RelationKind::LeftOf => RelationKind::AtLeftOf,
                RelationKind::RightOf => RelationKind::AtRightOf,
                // As a map lies: its bottom is the near side.
                RelationKind::In if words.ends_with("the bottom of") => RelationKind::AtFrontOf,
                RelationKind::On if words == "at the top of" => RelationKind::AtBackOf,
                other => other,
            };
        }
    }

    /// A name, not a quality or a place in a row.
    fn is_kind(&self, at: usize) -> bool {
        self.word(at).is_some_and(|it| {
            !self.vocabulary.attributes.contains_word(it) && !self.vocabulary.orders.contains_word(it)
        })
    }

    /// "wipe the table with a sponge": what stands behind "with" is used, unless it is a part of the thing.
    fn is_tool(&self, at: usize, relative: bool) -> bool {
        if relative || !self.starts_noun_phrase(at) {
            return false;
        }
        if matches!(self.word(at), Some("it" | "them")) {
            return self.is_resultative(); // "push the bowl with it"
        }
        let first_word = self.verb_word.split(' ').next().unwrap_or_default();
        let takes_tool = self.verb_is_open() || self.vocabulary.tool_verbs.contains(first_word);
        let takes_up = self.verb.as_ref().is_some_and(|it| it.action == Action::PickUp);
        if !takes_tool && !takes_up && !self.is_resultative() {
            return false;
        }
        let end = (at..self.words.len())
            .find(|it| *it > at && !self.determiner_at(*it) && self.ends_noun_phrase(*it));
        let head = self.words.get(end.unwrap_or(self.words.len()) - 1);
        head.is_some_and(|it| {
            let features = [&self.vocabulary.parts, &self.vocabulary.grips, &self.vocabulary.features];
            let is_part = features.iter().any(|set| set.contains(*it));
            // "pick up the plate with the fork" is not taken with the fork.
            let holds = matches!(
                *it,
                "tongs"
                    | "tweezers"
                    | "clamp"
                    | "glove"
                    | "gloves"
                    | "mitt"
                    | "mitts"
                    | "hands"
                    | "pliers"
                    | "chopsticks"
                    | "magnet"
            );
            takes_tool && !is_part || self.vocabulary.tools.contains(*it) && (holds || !takes_up)
        })
    }
}
