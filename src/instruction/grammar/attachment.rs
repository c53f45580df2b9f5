//! Which noun a modifier hangs on.

use super::place::add_place;
use super::region::region;
use super::{Failure, IT, Meaning, Modifier, Parser};
use crate::instruction::types::{Attribute, ObjectReference, Order, OrderBy, Relation, RelationKind};

impl Parser<'_> {
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
        let Modifier { meaning, negated, distance_m, token_idx, span, .. } = first;
        match meaning {
            Meaning::Place(order) if negated => {
                let message = format!("cannot follow \"not {}\": say which it is", order.by.name());
                return Err(self.fail_at(token_idx, message));
            }
            Meaning::Place(order) => self.attach_place(head, order, token_idx)?,
            Meaning::Except(except) => head.except.push(except),
            Meaning::Attribute(attribute) => head.attributes.push(Attribute { negated, ..attribute }),
            Meaning::Relation(kind, landmarks, rank) => {
                let relation = Relation { kind, landmarks, rank, distance_m, negated, span };
                if kind == RelationKind::To {
                    self.attach_closeness(head, relation, token_idx)?;
                } else {
                    return self.attach_relation(head, relation, rest);
                }
            }
        }
        self.attach(head, rest)
    }

    fn attach_place(
        &self,
        head: &mut ObjectReference,
        order: Order,
        token_idx: usize,
    ) -> Result<(), Failure> {
        add_place(head, order);
        let Some(given) = head.orders.iter().find(|it| is_opposite(it.by, order.by)) else { return Ok(()) };
        let message = format!("cannot be {} and {} at once: say which", given.by.name(), order.by.name());
        Err(self.fail_at(token_idx, message))
    }

    /// "the closest mug to the plate": "to the plate" says what the order is about.
    fn attach_closeness(
        &self,
        head: &mut ObjectReference,
        to: Relation,
        token_idx: usize,
    ) -> Result<(), Failure> {
        let is_closeness = |it: &Order| matches!(it.by, OrderBy::Nearest | OrderBy::Farthest);
        let Some(order_idx) = head.orders.iter().position(is_closeness) else {
            return Err(self.misplaced(token_idx));
        };
        let order = head.orders.remove(order_idx);
        if to.landmarks.len() == 1 && self.vocabulary.viewer.contains(&to.landmarks[0].noun) {
            head.orders.push(order);
            return Ok(());
        }
        let kind = match order.by {
            OrderBy::Nearest => RelationKind::ClosestTo,
            _ => RelationKind::FarthestFrom,
        };
        head.relations.push(Relation { kind, rank: order.rank, ..to });
        Ok(())
    }

    /// Hangs a relation on the head, and of `rest` what tells its landmark on the landmark.
    fn attach_relation(
        &self,
        head: &mut ObjectReference,
        mut relation: Relation,
        mut rest: Vec<Modifier>,
    ) -> Result<(), Failure> {
        if relation.kind == RelationKind::From
            && let Some(order_idx) = head.orders.iter().position(|it| it.by == OrderBy::Farthest)
        {
            // "the farthest mug from the plate".
            relation.rank = head.orders.remove(order_idx).rank;
            relation.kind = RelationKind::FarthestFrom;
        }
        let to_head = rest.first().is_some_and(|it| it.to_head)
            || relation.landmarks.iter().any(|it| self.is_surface(it) || it.noun == IT)
            || relation.kind == RelationKind::With;
        if !to_head && let Some(landmark) = relation.landmarks.last_mut() {
            // "and" returns to the head.
            let back = rest.iter().position(|it| it.to_head).unwrap_or(rest.len());
            let later = rest.split_off(back);
            self.attach(landmark, rest)?;
            rest = later;
        }
        let (kind, landmarks) = region(relation.kind, relation.landmarks, "");
        head.relations.push(Relation { kind, landmarks, ..relation });
        self.attach(head, rest)
    }

    /// Said with "'s", before what it owns.
    pub(super) fn is_owner(&self, whole: &ObjectReference) -> bool {
        self.tokens.iter().any(|it| it.text == "'s" && it.span.end == whole.span.end)
    }

    pub(super) fn misplaced(&self, token_idx: usize) -> Failure {
        self.fail_at(token_idx, format!("did not expect {:?} here", self.words[token_idx]))
    }
}

fn is_opposite(a: OrderBy, b: OrderBy) -> bool {
    const OPPOSITES: [(OrderBy, OrderBy); 3] = [
        (OrderBy::Leftmost, OrderBy::Rightmost),
        (OrderBy::Nearest, OrderBy::Farthest),
        (OrderBy::Highest, OrderBy::Lowest),
    ];
    OPPOSITES.contains(&(a, b)) || OPPOSITES.contains(&(b, a))
}
