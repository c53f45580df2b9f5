//! The words of places: sides and places in a row, relations, surfaces, the viewer.

use super::{Failure, Parser, is_ordinal_only, is_side};
use crate::instruction::types::{ObjectReference, Order, OrderBy, Quantity, RelationKind};

impl Parser<'_> {
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
        (is_side(by) && follows != Some("of") && follows != Some("'s") && self.ends_noun_phrase(at))
            .then_some((Order { by, rank }, at - start))
    }

    /// The second of two sides, "right" of "at the bottom right", where the position is behind both.
    pub(super) fn second_side(&self, first: Order) -> Option<Order> {
        let (&by, _) = self.vocabulary.orders.longest(self.words.get(self.position - 1..self.position)?)?;
        let (&before, _) = self
            .vocabulary
            .orders
            .longest(self.words.get(self.position.checked_sub(2)?..self.position - 1)?)?;
        let is_second = matches!(by, OrderBy::Leftmost | OrderBy::Rightmost) && is_depth_or_height(before);
        (is_second && before == first.by).then_some(Order { by, rank: 1 })
    }

    /// "at the top left of the tray": that corner of it.
    pub(super) fn corner(&mut self, start: usize, depth: usize) -> Result<Option<ObjectReference>, Failure> {
        let the = usize::from(self.word(start + 1) == Some("the"));
        let first = start + 1 + the;
        let side = |at: usize| {
            let (&by, length) = self.vocabulary.orders.longest(self.words.get(at..)?)?;
            (is_side(by) && by != OrderBy::Middle).then_some((Order { by, rank: 1 }, length))
        };
        let Some((one, length)) = side(first) else { return Ok(None) };
        let Some((other, more)) = side(first + length) else { return Ok(None) };
        let end = first + length + more;
        let is_place =
            matches!(self.word(start), Some("on" | "at" | "in" | "to" | "near" | "toward" | "towards"));
        if !is_place || self.word(end) != Some("of") || !self.starts_noun_phrase(end + 1) {
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.position, end + 1);
        let whole = self.noun_phrase(depth + 1)?;
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

    pub(super) fn is_viewer(&self, at: usize) -> bool {
        self.viewer_length(at).is_some()
    }

    /// "me", "the camera".
    pub(super) fn viewer_length(&self, at: usize) -> Option<usize> {
        let skip = usize::from(matches!(self.word(at), Some("the" | "your" | "my")));
        let word = self.word(at + skip)?;
        self.vocabulary.viewer.contains(word).then_some(skip + 1)
    }

    pub(super) fn is_surface(&self, thing: &ObjectReference) -> bool {
        let head = thing.noun.rsplit(' ').next().unwrap_or_default();
        self.vocabulary.surfaces.contains(&thing.noun) || self.vocabulary.surfaces.contains(head)
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
