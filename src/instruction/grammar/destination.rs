//! Where things go: which of the places said is the destination, and who gets what is handed over.

use super::region::region;
use super::{Failure, IT, Meaning, Modifier, NounPhrases, Parser, THEM, direction_of, is_side};
use crate::instruction::types::{
    Action, Destination, Instruction, ObjectReference, OrderBy, ParseError, Relation, RelationKind,
};
use crate::instruction::vocabulary::Verb;

impl Parser<'_> {
    /// Distributes things and their modifiers over targets and destinations.
    pub(super) fn tasks_of(
        &mut self,
        verb: &Verb,
        things: NounPhrases,
        start: usize,
    ) -> Result<Vec<Instruction>, Failure> {
        let mut tasks: Vec<Instruction> = Vec::new();
        let mut targets: Vec<ObjectReference> = Vec::new();
        let mut action = verb.action.clone();
        let last = things.len().saturating_sub(1);
        // "put the white mug on the left and the red mug on the right".
        let each_has_side = things.iter().all(|(_, modifiers)| is_side_alone(modifiers));
        for (thing_idx, (thing, mut modifiers)) in things.into_iter().enumerate() {
            let is_last = thing_idx == last;
            self.mark_after_closest(&thing, &mut modifiers, start);
            let chosen = self.choose_destination(verb, &thing, &modifiers, is_last || each_has_side);
            let destination = chosen.map(|it| self.take_destination(&mut modifiers, it)).transpose()?;
            if destination.is_some() && action == Action::PickUp {
                action = Action::Move;
            }
            let thing = self.target(verb, thing, modifiers)?;
            if destination.is_none()
                && is_last
                && let Some(task) = tasks.last_mut()
                && let Some(place) = &task.destination
            {
                // "put the soup in the basket and the milk": the milk as well.
                refuse_two_places(place, &thing)?;
                targets.push(thing);
                task.targets.append(&mut targets);
                continue;
            }
            targets.push(thing);
            if let Some(destination) = destination {
                let verb = Verb { action: action.clone(), ..verb.clone() };
                let task = self.task(&verb, std::mem::take(&mut targets), None, start);
                tasks.push(self.brought(task, destination)?);
            }
        }
        if !targets.is_empty() || tasks.is_empty() {
            let task = self.task(verb, targets, None, start);
            tasks.push(task);
        }
        share_landmark(&mut tasks);
        Ok(tasks)
    }

    /// Notes of the first modifier that it stands right behind "the closest cup".
    fn mark_after_closest(&self, thing: &ObjectReference, modifiers: &mut [Modifier], start: usize) {
        let Some(first) = modifiers.first_mut() else { return };
        first.after_closest = self.words[start] != "take"
            && thing.orders.iter().any(|it| matches!(it.by, OrderBy::Nearest | OrderBy::Farthest))
            && !self.names_viewer(&first.meaning);
    }

    /// The index of the modifier that says where a thing goes.
    fn choose_destination(
        &self,
        verb: &Verb,
        thing: &ObjectReference,
        modifiers: &[Modifier],
        is_last: bool,
    ) -> Option<usize> {
        let heaviest = (0..modifiers.len())
            .map(|it| (self.destination_weight(verb, modifiers, it, is_last), it))
            .filter(|(weight, _)| *weight > 0)
            .max_by_key(|(weight, _)| *weight)
            .map(|(_, it)| it);
        if heaviest.is_some() || thing.noun != IT && thing.noun != THEM {
            return heaviest;
        }
        // "chop them on the board": which ones they are is known, so it is where.
        modifiers.iter().position(|it| matches!(it.meaning, Meaning::Relation(..)) && !self.is_source(it))
    }

    /// Takes the chosen modifier and those behind it, which tell its landmark, out of `modifiers`.
    fn take_destination(&self, modifiers: &mut Vec<Modifier>, chosen: usize) -> Result<Destination, Failure> {
        let mut after = modifiers.split_off(chosen);
        let modifier = after.remove(0);
        // "on the table, next to the mug": both hold of the place.
        let both = modifier.after_comma
            && modifiers.last().is_some_and(|it| {
                !it.relative && !it.goal && is_on_or_in(&it.meaning) && !self.is_source(it)
            });
        let (modifier, also) = match both.then(|| modifiers.pop()).flatten() {
            Some(first) => (first, Some(modifier)),
            None => (modifier, None),
        };
        let (distance_m, said_at) = (modifier.distance_m, modifier.token_idx);
        let span = modifier.span.clone();
        let (relation, mut landmarks) = self.placed(modifier)?;
        let mut also = also.map(|it| self.also(it)).transpose()?;
        let last_landmark = also.as_mut().map_or(&mut landmarks, |it| &mut it.landmarks).last_mut();
        match last_landmark {
            Some(landmark) => self.attach(landmark, after)?,
            None if after.is_empty() => {}
            None => return Err(self.misplaced(after[0].token_idx)),
        }
        let (relation, landmarks) = region(relation, landmarks, self.words[said_at]);
        Ok(Destination { relation, landmarks, distance_m, also: also.into_iter().collect(), span })
    }

    /// A thing with what was said of it; "grasp the mug by the handle" grasps the handle of the mug.
    fn target(
        &self,
        verb: &Verb,
        mut thing: ObjectReference,
        mut modifiers: Vec<Modifier>,
    ) -> Result<ObjectReference, Failure> {
        let part = self.grasped_part(verb, &mut modifiers);
        self.attach(&mut thing, modifiers)?;
        Ok(match part {
            Some(part) => ObjectReference { whole: Some(Box::new(thing)), ..part },
            None => thing,
        })
    }

    /// A task with its destination; "hand the cup to me" names a recipient, not a place.
    fn brought(&self, task: Instruction, destination: Destination) -> Result<Instruction, Failure> {
        let is_given = task.action == Action::HandOver && destination.relation == RelationKind::To;
        let viewer = destination
            .landmarks
            .iter()
            .find(|it| is_given || matches!(it.noun.as_str(), "me" | "us" | "you" | "yourself" | "myself"));
        let Some(viewer) = viewer else {
            return Ok(Instruction { destination: Some(destination), ..task });
        };
        if destination.relation != RelationKind::To {
            let message = format!("expected a thing that can be seen, got {:?}", viewer.noun);
            return Err(ParseError { message, span: viewer.span.clone() }.into());
        }
        let said = self.as_said(viewer);
        let name = said.strip_prefix("the ").unwrap_or(&said);
        Ok(Instruction { recipient: Some(name.to_owned()), ..task })
    }

    /// Relation and landmarks of what was said of a place.
    fn placed(&self, modifier: Modifier) -> Result<(RelationKind, Vec<ObjectReference>), Failure> {
        match modifier.meaning {
            Meaning::Place(order) => Ok((direction_of(order.by), Vec::new())),
            Meaning::Relation(kind, landmarks, _) => Ok((kind, landmarks)),
            Meaning::Attribute(_) | Meaning::Except(_) => Err(self.misplaced(modifier.token_idx)),
        }
    }

    fn also(&self, modifier: Modifier) -> Result<Relation, Failure> {
        let (distance_m, span) = (modifier.distance_m, modifier.span.clone());
        let (kind, landmarks) = self.placed(modifier)?;
        Ok(Relation { kind, landmarks, rank: 1, distance_m, negated: false, span })
    }

    /// "from the table": where a thing is, never where it goes.
    fn is_source(&self, modifier: &Modifier) -> bool {
        self.words[modifier.token_idx] == "from"
    }

    pub(super) fn names_viewer(&self, meaning: &Meaning) -> bool {
        let Meaning::Relation(_, landmarks, _) = meaning else { return false };
        landmarks.iter().any(|it| self.vocabulary.viewer.contains(&it.noun))
    }

    pub(super) fn grasped_part(&self, verb: &Verb, modifiers: &mut Vec<Modifier>) -> Option<ObjectReference> {
        let last = modifiers
            .last()
            .filter(|it| verb.action == Action::PickUp && self.words[it.token_idx] == "by")?;
        let Meaning::Relation(_, landmarks, _) = &last.meaning else { return None };
        let head = landmarks.first()?.noun.rsplit(' ').next()?;
        let part = self.vocabulary.grips.contains(head).then(|| landmarks[0].clone())?;
        modifiers.pop();
        Some(part)
    }

    /// How much a modifier looks like the destination; 0: not at all. Of equal ones the last is taken.
    ///
    /// "into", "onto", "to" always are it. Being on or in something is rather a goal than being next to something, unless that
    /// something is a surface: "put the cup next to the bowl on the tray" goes to the tray, "put the cup on the table to
    /// the left of the plate" to the left of the plate. A mere side ("at the back") is a destination only when nothing else is
    /// and only of the last thing named.
    pub(super) fn destination_weight(
        &self,
        verb: &Verb,
        modifiers: &[Modifier],
        chosen: usize,
        is_last: bool,
    ) -> usize {
        let modifier = &modifiers[chosen];
        let is_to = matches!(modifier.meaning, Meaning::Relation(RelationKind::To, ..));
        if is_to
            && chosen == 0
            && modifier.after_closest
            && !(verb.takes_destination && verb.action != Action::HandOver)
        {
            return 0; // "grab the closest cup to the bowl"
        }
        if modifier.relative || self.words[modifier.token_idx] == "from" {
            return 0;
        }
        let is_bring = matches!(self.verb_word.as_str(), "bring" | "fetch" | "deliver" | "carry");
        if is_bring
            && !modifier.goal
            && let Meaning::Relation(RelationKind::On | RelationKind::In | RelationKind::From, landmarks, _) =
                &modifier.meaning
            && landmarks.iter().any(|it| self.is_surface(it))
        {
            return 0; // "bring all the snacks on the table"
        }
        if !verb.takes_destination
            && modifier.towards
            && matches!(verb.action, Action::Turn | Action::Custom(_))
            && let Meaning::Place(order) = modifier.meaning
            && modifiers.len() == 1
            && is_last
        {
            return usize::from(order.rank == 1 && is_side(order.by)); // "twist the faucet to the left"
        }
        if !verb.takes_destination || verb.action == Action::HandOver {
            // "take the cup to the table": a pick-up with a goal is a move. "Give me the cup on the table" goes nowhere else.
            let brings = matches!(verb.action, Action::PickUp | Action::HandOver | Action::Custom(_));
            let is_near = matches!(modifier.meaning, Meaning::Relation(RelationKind::Near, ..));
            return if modifier.goal && brings && !is_near { 9 } else { 0 };
        }
        match &modifier.meaning {
            Meaning::Attribute(_) | Meaning::Except(_) => 0,
            Meaning::Place(order) => {
                let is_start = |it: &&Modifier| self.words[it.token_idx] == "from";
                let alone = modifiers.iter().filter(is_start).count() + 1 == modifiers.len();
                usize::from(alone && (is_last || modifier.towards) && order.rank == 1 && is_side(order.by))
            }
            Meaning::Relation(kind, landmarks, _) => match kind {
                RelationKind::With
                | RelationKind::ClosestTo
                | RelationKind::FarthestFrom
                | RelationKind::From => 0,
                _ if modifier.goal => 9,
                RelationKind::On | RelationKind::In if modifier.after_particle => 8,
                RelationKind::On | RelationKind::In if landmarks.iter().any(|it| self.is_surface(it)) => 2,
                RelationKind::On | RelationKind::In => 6,
                _ if modifier.towards => 5,
                RelationKind::Near => 3,
                _ => 4,
            },
        }
    }
}

/// Only a side is said, and not with "that is".
fn is_side_alone(modifiers: &[Modifier]) -> bool {
    match modifiers {
        [Modifier { meaning: Meaning::Place(order), relative: false, .. }] => is_side(order.by),
        _ => false,
    }
}

fn is_on_or_in(meaning: &Meaning) -> bool {
    matches!(meaning, Meaning::Relation(RelationKind::On | RelationKind::In, ..))
}

/// "on the left plate and the right plate": the second is no thing to put on the first.
fn refuse_two_places(place: &Destination, thing: &ObjectReference) -> Result<(), ParseError> {
    match place.landmarks.first().filter(|it| it.noun == thing.noun) {
        None => Ok(()),
        Some(place) => Err(ParseError {
            message: format!(
                "cannot bring things to two places at once: say what goes to which {}",
                place.noun
            ),
            span: thing.span.clone(),
        }),
    }
}

/// "a fork to the left and a knife to the right of the plate", "a fork to the left of the plate and a knife to the right": both
/// sides are the plate's.
fn share_landmark(tasks: &mut [Instruction]) {
    let is_side = |it: &&mut Destination| it.relation.depends_on_viewpoint();
    let mut sides: Vec<&mut Destination> =
        tasks.iter_mut().filter_map(|it| it.destination.as_mut()).filter(is_side).collect();
    let Some(shared) = sides.iter().find(|it| !it.landmarks.is_empty()).map(|it| it.landmarks.clone()) else {
        return;
    };
    for destination in sides.iter_mut().filter(|it| it.landmarks.is_empty()) {
        destination.landmarks.clone_from(&shared);
    }
}
