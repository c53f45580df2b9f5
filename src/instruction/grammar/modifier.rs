//! What follows a noun: places in a row, relations to landmarks; and which noun it hangs on.

use super::clause::region;
use super::{Failure, IT, MAX_DEPTH, Meaning, Modifier, Parser, is_ordinal_only, is_side};
use crate::instruction::types::{
    Attribute, ObjectReference, Order, OrderBy, Quantity, Relation, RelationKind,
};

impl Parser<'_> {
    pub(super) fn modifiers(&mut self, depth: usize) -> Result<Vec<Modifier>, Failure> {
        let mut modifiers: Vec<Modifier> = Vec::new();
        loop {
            self.manner_before_place();
            let start = self.position;
            let is_purpose = self.word(start) == Some("to") && self.is_action_at(start + 1);
            let is_amount = self.word(start) == Some("by") && self.measure_at(start + 1).is_some();
            if is_purpose || is_amount || self.manner_at(start).is_some() || self.rotation_at(start).is_some()
            {
                return Ok(modifiers);
            }
            let mut at = start;
            let mut to_head = false;
            if let Some(next) = self.after_joint(at)
                && !self.words[at..next].contains(&".")
                && (self.relation_at(self.skip_relation_fillers(next)).is_some()
                    || self.side_at(next).is_some())
                && (!modifiers.is_empty() || self.words[at] == "," && self.words[..next].len() == at + 1)
                && !self.is_verb(next)
            {
                at = next;
                to_head = true;
            }
            let after_comma = to_head && self.words[start] == ",";
            let mut relative = false;
            let mut negated = false;
            if self.relation_at(at).is_none() // "that has"
                && let Some(((), length)) = self.vocabulary.relative_pronouns.longest(&self.words[at..])
            {
                at += length;
                relative = true;
                while let Some(word) = self.word(at) {
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
                    at += 1;
                }
            }
            if self.particle_at(at).is_some() && !relative {
                return Ok(modifiers);
            }
            let measure = self.measure_at(at);
            let measured = at + measure.map_or(0, |(_, length)| length);
            let within =
                measure.is_some() && self.word(at) == Some("within") && self.word(measured) == Some("of");
            let filled = if within { measured } else { self.skip_relation_fillers(measured) };
            if within || self.relation_at(filled).is_some() || self.side_at(filled).is_some() {
                at = filled;
            } else if measure.is_some() {
                self.position = start;
                return Ok(modifiers);
            }
            self.position = at;
            let mut modifier = Modifier {
                meaning: Meaning::Place(Order { by: OrderBy::Middle, rank: 1 }),
                relative,
                to_head,
                goal: false,
                towards: matches!(self.word(at), Some("to")),
                after_closest: false,
                after_comma,
                after_particle: false,
                negated,
                distance_m: measure.map(|it| it.0),
                token_idx: at,
                span: 0..0,
            };
            if within {
                self.position = at + 1;
                modifier.meaning = self.related(RelationKind::Near, depth)?;
            } else if let Some(corner) = self.corner(at, depth)? {
                modifier.meaning = Meaning::Relation(RelationKind::On, vec![corner], 1);
            } else if let Some((order, length)) = self.side_at(at) {
                self.position += length;
                modifier.meaning = Meaning::Place(order);
                if let Some(second) = self.second_side(order) {
                    // "from the bottom right": both.
                    modifiers.push(modifier.clone());
                    modifier.meaning = Meaning::Place(second);
                }
                let by = usize::from(self.word(self.position) == Some("by"));
                if let Some((meters, length)) =
                    self.measure_at(self.position + by).filter(|_| modifier.distance_m.is_none())
                {
                    modifier.distance_m = Some(meters);
                    self.position += by + length;
                }
            } else if let Some((kind, length, goal)) = self.relation_at(at) {
                if kind == RelationKind::With
                    && (self.instrument().is_some() || self.is_tool(at + length, relative))
                {
                    self.position = start;
                    return Ok(modifiers);
                }
                self.position = at + length;
                modifier.goal = goal;
                if !self.starts_thing(self.position) && !self.is_viewer(self.position) {
                    // "turn the stove on": no landmark, so perhaps a particle, or a slip.
                    self.position = start;
                    return Ok(modifiers);
                }
                let kind = match (kind, measure) {
                    (RelationKind::From, Some(_)) => RelationKind::Near, // "two inches from the plate"
                    (kind, _) => kind,
                };
                modifier.meaning = self.related(kind, depth)?;
                if kind == RelationKind::With {
                    self.skip_on_it(); // "the plate with the fork on it"
                }
                if matches!(self.word(at), Some("on" | "at")) {
                    self.onto_surface(&self.words[at..at + length].join(" "), &mut modifier.meaning);
                }
            } else if relative {
                if let Some((&by, length)) = self.vocabulary.orders.longest(self.rest()) {
                    self.position += length;
                    modifier.meaning = Meaning::Place(Order { by, rank: 1 });
                } else if let Some(attribute) = self.attribute(true) {
                    modifier.meaning = Meaning::Attribute(attribute);
                } else if self.word(self.position).is_some_and(|it| self.vocabulary.reserved.contains(it)) {
                    return Err(self.unexpected());
                } else {
                    return Err(self.expected("where or how the thing is"));
                }
            } else {
                self.position = start;
                return Ok(modifiers);
            }
            modifier.span = self.span_from(at);
            modifiers.push(modifier);
            if modifiers.len() > MAX_DEPTH {
                return Err(
                    self.fail_at(at, format!("expected at most {MAX_DEPTH} places within each other"))
                );
            }
        }
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
        let first = self.thing(depth + 1)?;
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
            landmarks.push(self.thing(depth + 1)?);
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

    /// The second of two sides, "right" of "at the bottom right", where the position is behind both.
    fn second_side(&self, first: Order) -> Option<Order> {
        let (&by, _) = self.vocabulary.orders.longest(self.words.get(self.position - 1..self.position)?)?;
        let (&before, _) = self
            .vocabulary
            .orders
            .longest(self.words.get(self.position.checked_sub(2)?..self.position - 1)?)?;
        let is_second = matches!(by, OrderBy::Leftmost | OrderBy::Rightmost) && is_depth_or_height(before);
        (is_second && before == first.by).then_some(Order { by, rank: 1 })
    }

    /// "at the top left of the tray": that corner of it.
    fn corner(&mut self, start: usize, depth: usize) -> Result<Option<ObjectReference>, Failure> {
        let the = usize::from(self.word(start + 1) == Some("the"));
        let first = start + 1 + the;
        let side = |at: usize| {
            let (&by, length) = self.vocabulary.orders.longest(self.words.get(at..)?)?;
            (is_side(by) && by != OrderBy::Middle).then_some((Order { by, rank: 1 }, length))
        };
        let Some((one, length)) = side(first) else { return Ok(None) };
        let Some((other, more)) = side(first + length) else { return Ok(None) };
        let end = first + length + more;
        let is_place = matches!(self.word(start), Some("on" | "at" | "in" | "to" | "near"));
        if !is_place || self.word(end) != Some("of") || !self.starts_thing(end + 1) {
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.position, end + 1);
        let whole = self.thing(depth + 1)?;
        if whole.quantity != Quantity::One
            || !self.is_support(whole.noun.rsplit(' ').next().unwrap_or_default())
        {
            self.position = before;
            return Ok(None);
        }
        Ok(Some(ObjectReference {
            noun: "corner".to_owned(),
            orders: vec![one, other],
            whole: Some(Box::new(whole)),
            span: self.span_from(start),
            ..ObjectReference::default()
        }))
    }

    /// "wipe the table with a sponge": what stands behind "with" is used, unless it is a part of the thing.
    fn is_tool(&self, at: usize, relative: bool) -> bool {
        if relative || !self.starts_thing(at) {
            return false;
        }
        let first_word = self.verb_word.split(' ').next().unwrap_or_default();
        let takes_tool = self.verb_is_open() || self.vocabulary.tool_verbs.contains(first_word);
        if !takes_tool && !self.is_resultative() {
            return false;
        }
        let end =
            (at..self.words.len()).find(|it| *it > at && !self.determiner_at(*it) && self.ends_thing(*it));
        let head = self.words.get(end.unwrap_or(self.words.len()) - 1);
        head.is_some_and(|it| {
            let features = [&self.vocabulary.parts, &self.vocabulary.grips, &self.vocabulary.features];
            let is_part = features.iter().any(|set| set.contains(*it));
            takes_tool && !is_part || self.vocabulary.tools.contains(*it)
        })
    }

    pub(super) fn is_viewer(&self, at: usize) -> bool {
        self.viewer_length(at).is_some()
    }

    /// "me", "the camera".
    pub(super) fn viewer_length(&self, at: usize) -> Option<usize> {
        let skip = usize::from(matches!(self.word(at), Some("the" | "your" | "my")));
        let word = self.word(at + skip)?;
        self.vocabulary.viewer.contains(word).then_some(skip + 1)
    }

    /// "on the left", "second from the right", "in the middle": a place in a row, with the number of words.
    pub(super) fn side_at(&self, start: usize) -> Option<(Order, usize)> {
        let mut at = start;
        let mut rank = 1;
        if matches!(self.word(at), Some("furthest" | "farthest")) {
            at += 1; // "furthest to the left"
        }
        if let Some(&ordinal) = self.word(at).and_then(|it| self.vocabulary.ordinals.get(it)) {
            if !matches!(self.word(at + 1), Some("from" | "to" | "on" | "in")) {
                return None;
            }
            rank = ordinal;
            at += 1;
        }
        if !matches!(self.word(at), Some("on" | "at" | "in" | "to" | "toward" | "towards" | "from" | "near"))
        {
            return None;
        }
        at += 1;
        if matches!(self.word(at), Some("the" | "your" | "my" | "its" | "teh")) {
            at += 1;
        }
        if self.word(at) == Some("very") {
            at += 1;
        }
        let side = self.vocabulary.orders.longest(self.words.get(at..)?);
        let (&by, length) = side.or_else(|| Some((self.misspelled_order(at)?, 1)))?;
        at += length;
        if let Some((&second, length)) =
            self.words.get(at..).and_then(|it| self.vocabulary.orders.longest(it))
            && matches!(second, OrderBy::Leftmost | OrderBy::Rightmost)
            && is_depth_or_height(by)
            && (self.ends_clause(at + length) || self.relation_at(at + length).is_some())
        {
            at += length; // "at the bottom right"
        }
        if let Some(((), length)) =
            self.vocabulary.side_words.longest(&self.words[at.min(self.words.len())..])
        {
            at += length;
        }
        let follows = self.word(at);
        (is_side(by) && follows != Some("of") && follows != Some("'s") && self.ends_thing(at))
            .then_some((Order { by, rank }, at - start))
    }

    /// A relation or goal at a place: kind, number of words, whether it is a goal.
    pub(super) fn relation_at(&self, at: usize) -> Option<(RelationKind, usize, bool)> {
        let words = self.words.get(at..)?;
        if let Some(&first @ ("from" | "to")) = words.first()
            && let Some((&kind, length)) = self.vocabulary.relations.longest(&words[1..])
            && !matches!(
                kind,
                RelationKind::With
                    | RelationKind::From
                    | RelationKind::ClosestTo
                    | RelationKind::FarthestFrom
            )
            && (length > 1 || self.determiner_at(at + 2))
            && self.vocabulary.relations.longest(words).is_none_or(|(_, whole)| whole <= 1)
        {
            // "from in front of the can", "to next to the towel".
            return Some((kind, length + 1, first == "to"));
        }
        let goal = self.vocabulary.goals.longest(words).map(|(&kind, length)| (kind, length, true));
        let relation = self.vocabulary.relations.longest(words).map(|(&kind, length)| (kind, length, false));
        let exact = match (goal, relation) {
            (Some(goal), Some(relation)) => Some(if goal.1 >= relation.1 { goal } else { relation }),
            (goal, relation) => goal.or(relation),
        };
        let misspelled = self.vocabulary.relations.misspelled(words).filter(|(_, length)| {
            *length > exact.map_or(0, |it| it.1) && (0..*length).any(|it| !self.is_closed(at + it))
        });
        misspelled.map(|(&kind, length)| (kind, length, false)).or(exact)
    }

    pub(super) fn skip_relation_fillers(&self, mut at: usize) -> usize {
        while let Some(((), length)) =
            self.words.get(at..).and_then(|it| self.vocabulary.relation_fillers.longest(it))
        {
            let next = at + length;
            if self.relation_at(next).is_none()
                && self.side_at(next).is_none()
                && self
                    .words
                    .get(next..)
                    .and_then(|it| self.vocabulary.relation_fillers.longest(it))
                    .is_none()
            {
                break;
            }
            at = next;
        }
        at
    }

    /// Hangs modifiers on a thing: on the nearest noun, but on the head behind a surface or "and".
    pub(super) fn attach(&self, head: &mut ObjectReference, modifiers: Vec<Modifier>) -> Result<(), Failure> {
        let counted = head.orders.last().is_some_and(|it| it.rank > 1);
        if let Some(whole) = &mut head.whole
            && !counted
            && !self.is_owner(whole)
        {
            return self.attach(whole, modifiers); // the nearest noun: "the door of the cabinet on the right"
        }
        let mut rest = modifiers.into_iter();
        let Some(first) = rest.next() else { return Ok(()) };
        let rest: Vec<Modifier> = rest.collect();
        match first.meaning {
            Meaning::Place(order) => {
                if first.negated {
                    return Err(self.fail_at(
                        first.token_idx,
                        format!("cannot follow \"not {}\": say which it is", order.by.name()),
                    ));
                }
                add_place(head, order);
                if let Some(given) = head.orders.iter().find(|it| is_opposite(it.by, order.by)) {
                    let message =
                        format!("cannot be {} and {} at once: say which", given.by.name(), order.by.name());
                    return Err(self.fail_at(first.token_idx, message));
                }
                self.attach(head, rest)
            }
            Meaning::Attribute(attribute) => {
                head.attributes.push(Attribute { negated: first.negated, ..attribute });
                self.attach(head, rest)
            }
            Meaning::Relation(RelationKind::To, landmarks, _) => {
                // "the closest mug to the plate".
                let Some(order_idx) =
                    head.orders.iter().position(|it| matches!(it.by, OrderBy::Nearest | OrderBy::Farthest))
                else {
                    let shown =
                        Modifier { meaning: Meaning::Relation(RelationKind::To, landmarks, 1), ..first };
                    return Err(self.fail_at(shown.token_idx, self.misplaced(&shown)));
                };
                let order = head.orders.remove(order_idx);
                if landmarks.len() == 1 && self.vocabulary.viewer.contains(&landmarks[0].noun) {
                    head.orders.push(order);
                } else {
                    let kind = if order.by == OrderBy::Nearest {
                        RelationKind::ClosestTo
                    } else {
                        RelationKind::FarthestFrom
                    };
                    let (distance_m, negated) = (first.distance_m, first.negated);
                    let relation =
                        Relation { kind, landmarks, rank: order.rank, distance_m, negated, span: first.span };
                    head.relations.push(relation);
                }
                self.attach(head, rest)
            }
            Meaning::Relation(mut kind, mut landmarks, mut rank) => {
                if kind == RelationKind::From
                    && let Some(order_idx) = head.orders.iter().position(|it| it.by == OrderBy::Farthest)
                {
                    // "the farthest mug from the plate".
                    rank = head.orders.remove(order_idx).rank;
                    kind = RelationKind::FarthestFrom;
                }
                let to_head = rest.first().is_some_and(|it| it.to_head)
                    || landmarks.iter().any(|it| self.is_surface(it) || it.noun == IT)
                    || matches!(kind, RelationKind::With);
                let mut rest = rest;
                if !to_head && let Some(landmark) = landmarks.last_mut() {
                    // "and" returns to the head.
                    let back = rest.iter().position(|it| it.to_head).unwrap_or(rest.len());
                    let later = rest.split_off(back);
                    self.attach(landmark, rest)?;
                    rest = later;
                }
                let (kind, landmarks) = region(kind, landmarks, "");
                let (distance_m, negated) = (first.distance_m, first.negated);
                head.relations.push(Relation {
                    kind,
                    landmarks,
                    rank,
                    distance_m,
                    negated,
                    span: first.span,
                });
                self.attach(head, rest)
            }
        }
    }

    /// Said with "'s", before what it owns.
    pub(super) fn is_owner(&self, whole: &ObjectReference) -> bool {
        self.tokens.iter().any(|it| it.text == "'s" && it.span.end == whole.span.end)
    }

    pub(super) fn is_surface(&self, thing: &ObjectReference) -> bool {
        let head = thing.noun.rsplit(' ').next().unwrap_or_default();
        self.vocabulary.surfaces.contains(&thing.noun) || self.vocabulary.surfaces.contains(head)
    }

    pub(super) fn misplaced(&self, modifier: &Modifier) -> String {
        format!("did not expect {:?} here", self.words[modifier.token_idx])
    }
}

/// Says where in a row a thing is. "The second mug from the left" has one place, not two.
pub(super) fn add_place(thing: &mut ObjectReference, order: Order) {
    match thing.orders.last_mut() {
        Some(given)
            if given.rank > 1
                && is_side(order.by)
                && (is_ordinal_only(given)
                    || given.by == order.by
                    || (given.by, order.by) == (OrderBy::Highest, OrderBy::Lowest)) =>
        {
            given.by = order.by;
        }
        // "the last mug on the right".
        Some(given) if *given == order => {}
        _ => thing.orders.push(order),
    }
}

fn is_depth_or_height(by: OrderBy) -> bool {
    matches!(by, OrderBy::Nearest | OrderBy::Farthest | OrderBy::Highest | OrderBy::Lowest)
}

fn is_opposite(a: OrderBy, b: OrderBy) -> bool {
    const OPPOSITES: [(OrderBy, OrderBy); 3] = [
        (OrderBy::Leftmost, OrderBy::Rightmost),
        (OrderBy::Nearest, OrderBy::Farthest),
        (OrderBy::Highest, OrderBy::Lowest),
    ];
    OPPOSITES.contains(&(a, b)) || OPPOSITES.contains(&(b, a))
}
