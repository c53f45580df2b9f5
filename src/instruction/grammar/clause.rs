//! One verb and what belongs to it: targets, destination, recipient, instrument.

use super::pronouns::{inherit_whole, resolve_pronouns};
use super::{Failure, IT, Meaning, Modifier, Parser, THEM, Things, direction_of, is_side};
use crate::instruction::types::{
    Action, Destination, Instruction, ObjectReference, Order, OrderBy, ParseError, RelationKind,
};
use crate::instruction::vocabulary::{TargetNeed, Verb};

impl<'a> Parser<'a> {
    /// One verb and what belongs to it; several tasks for "put the soup in the basket and the milk on the plate".
    pub(super) fn clause(&mut self, previous: Option<&Instruction>) -> Result<Vec<Instruction>, Failure> {
        let start = self.position;
        let verb = self.verb()?;
        let verb_words = self.position - start;
        let verb = match (verb, previous) {
            (Some(verb), _) => Some(verb),
            // "put the red cube on the blue one, then the green cube on the red one": the same again.
            (None, Some(previous)) if self.determiner_at(start) => Some(Verb {
                action: previous.action.clone(),
                takes_destination: previous.destination.is_some(),
                target: TargetNeed::Required,
                recipient: previous.recipient.clone(),
            }),
            (None, Some(_)) => return Err(self.expected("an action")),
            (None, None) => None,
        };
        let Some(mut verb) = verb else { return Ok(vec![self.bare(start)?]) };
        let first_word = self.words[start];
        if verb.target == TargetNeed::None {
            self.skip_fillers();
            return Ok(vec![self.task(&verb, Vec::new(), None, start)]);
        }
        self.particle = None;
        self.split = (verb_words == 1)
            .then(|| self.vocabulary.split_verbs.get(first_word))
            .flatten()
            .map(Vec::as_slice);
        let mut recipient = verb.recipient.take();
        if verb.action == Action::HandOver && recipient.is_none() {
            recipient = self.viewer();
        }
        self.skip_fillers_before_thing();
        let things = if self.ends_clause(self.position) {
            if verb.target == TargetNeed::Optional {
                Vec::new()
            } else {
                return Err(self.expected(&format!("what to {}", verb.action.name().replace('_', " "))));
            }
        } else if previous.is_some() && self.starts_modifier(self.position) {
            // "pick up the cup and put in the basket": the object is understood.
            let mut elided = self.empty_reference(self.position);
            IT.clone_into(&mut elided.noun);
            let modifiers = self.modifiers(0)?;
            vec![(elided, modifiers)]
        } else {
            self.things(0)?
        };
        self.particle(&mut verb);
        self.split = None;
        let mut tasks = self.tasks_of(&verb, things, start)?;
        let last = tasks.len() - 1;
        self.tail(&verb, &mut tasks[last], &mut recipient);
        for task in &mut tasks {
            task.recipient.clone_from(&recipient);
        }
        let mut done: Vec<Instruction> = Vec::new();
        for mut task in tasks {
            let before = done.last().or(previous);
            if let (Some(target), Some(named)) =
                (task.targets.first_mut(), before.and_then(|it| it.targets.first()))
                && self.is_one(target)
            {
                target.noun.clone_from(&named.noun);
            }
            if let (Some(destination), Some(named)) = (&mut task.destination, task.targets.first()) {
                // "stack the red block on the green one", "take it off the left plate and put it on the right one".
                let is_pronoun = named.noun == IT || named.noun == THEM;
                let noun = if is_pronoun { before.and_then(kind_spoken_of) } else { Some(&named.noun) };
                for landmark in destination.landmarks.iter_mut().filter(|it| self.is_one(it)) {
                    if let Some(noun) = noun {
                        landmark.noun.clone_from(noun);
                    }
                }
            }
            resolve_pronouns(&mut task, before)?;
            inherit_whole(&mut task, before);
            done.push(task);
        }
        Ok(done)
    }

    /// A clause without a verb: find it.
    pub(super) fn bare(&mut self, start: usize) -> Result<Instruction, Failure> {
        let things = self.things(0)?;
        let mut targets = Vec::new();
        for (mut thing, modifiers) in things {
            self.attach(&mut thing, modifiers)?;
            targets.push(thing);
        }
        self.trailing_order(targets.last_mut());
        self.skip_fillers();
        let find = Verb {
            action: Action::Find,
            takes_destination: false,
            target: TargetNeed::Required,
            recipient: None,
        };
        let mut task = self.task(&find, targets, None, start);
        resolve_pronouns(&mut task, None)?;
        Ok(task)
    }

    /// Distributes things and their modifiers over targets and destinations.
    pub(super) fn tasks_of(
        &mut self,
        verb: &Verb,
        things: Things,
        start: usize,
    ) -> Result<Vec<Instruction>, Failure> {
        let mut tasks: Vec<Instruction> = Vec::new();
        let mut targets: Vec<ObjectReference> = Vec::new();
        let mut action = verb.action.clone();
        let last = things.len().saturating_sub(1);
        // "put the white mug on the left and the red mug on the right".
        let is_side_alone = |modifiers: &[Modifier]| match modifiers {
            [Modifier { meaning: Meaning::Place(order), relative: false, .. }] => is_side(order.by),
            _ => false,
        };
        let each_has_side = things.iter().all(|(_, modifiers)| is_side_alone(modifiers));
        for (thing_idx, (mut thing, mut modifiers)) in things.into_iter().enumerate() {
            if let Some(first) = modifiers.first_mut() {
                first.after_closest = self.words[start] != "take"
                    && thing.orders.iter().any(|it| matches!(it.by, OrderBy::Nearest | OrderBy::Farthest))
                    && !self.names_viewer(&first.meaning);
            }
            let chosen = (0..modifiers.len())
                .map(|it| {
                    (self.destination_weight(verb, &modifiers, it, each_has_side || thing_idx == last), it)
                })
                .filter(|(weight, _)| *weight > 0)
                .max_by_key(|(weight, _)| *weight)
                .map(|(_, it)| it);
            let mut destination = None;
            if let Some(chosen) = chosen {
                let mut after = modifiers.split_off(chosen);
                let modifier = after.remove(0);
                let (relation, mut landmarks) = match modifier.meaning {
                    Meaning::Place(order) => (direction_of(order.by), Vec::new()),
                    Meaning::Relation(kind, landmarks, _) => (kind, landmarks),
                    Meaning::Attribute(_) => return Err(self.unexpected()),
                };
                match landmarks.last_mut() {
                    Some(landmark) => self.attach(landmark, after)?,
                    None if after.is_empty() => {}
                    None => return Err(self.fail_at(after[0].token_idx, self.misplaced(&after[0]))),
                }
                destination = Some(Destination { relation, landmarks, span: modifier.span });
                if !verb.takes_destination {
                    action = Action::Move;
                }
            }
            // "grasp the mug by the handle" grasps the handle of the mug.
            let part = self.grasped_part(verb, &mut modifiers);
            self.attach(&mut thing, modifiers)?;
            if let Some(mut part) = part {
                part.whole = Some(Box::new(thing));
                thing = part;
            }
            if destination.is_none()
                && tasks.last().is_some_and(|it| it.destination.is_some())
                && thing_idx == last
            {
                let place = tasks.last().and_then(|it| it.destination.as_ref()?.landmarks.first());
                if let Some(place) = place.filter(|it| it.noun == thing.noun) {
                    // "on the left plate and the right plate".
                    let message = format!(
                        "cannot bring things to two places at once: say what goes to which {}",
                        place.noun
                    );
                    return Err(ParseError { message, span: thing.span.clone() }.into());
                }
                // "put the soup in the basket and the milk": the milk as well.
                targets.push(thing);
                if let Some(task) = tasks.last_mut() {
                    task.targets.append(&mut targets);
                }
                continue;
            }
            targets.push(thing);
            if let Some(destination) = destination {
                // "hand the cup to me" names a recipient, not a place.
                let verb = Verb { action: action.clone(), ..verb.clone() };
                let mut task = self.task(&verb, std::mem::take(&mut targets), None, start);
                let viewer = destination
                    .landmarks
                    .iter()
                    .find(|it| matches!(it.noun.as_str(), "me" | "us" | "you" | "yourself" | "myself"));
                if let Some(viewer) = viewer {
                    if destination.relation != RelationKind::To {
                        return Err(ParseError {
                            message: format!("expected a thing that can be seen, got {:?}", viewer.noun),
                            span: viewer.span.clone(),
                        }
                        .into());
                    }
                    task.recipient = Some(viewer.noun.clone());
                } else {
                    task.destination = Some(destination);
                }
                tasks.push(task);
            }
        }
        if !targets.is_empty() || tasks.is_empty() {
            let task = self.task(verb, targets, None, start);
            tasks.push(task);
        }
        share_landmark(&mut tasks);
        Ok(tasks)
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
        if !verb.takes_destination || verb.action == Action::HandOver {
            // "take the cup to the table": a pick-up with a goal is a move. "Give me the cup on the table" goes nowhere else.
            let brings = matches!(verb.action, Action::PickUp | Action::HandOver);
            let is_near = matches!(modifier.meaning, Meaning::Relation(RelationKind::Near, ..));
            return if modifier.goal && brings && !is_near { 9 } else { 0 };
        }
        match &modifier.meaning {
            Meaning::Attribute(_) => 0,
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
                RelationKind::On | RelationKind::In if landmarks.iter().any(|it| self.is_surface(it)) => 2,
                RelationKind::On | RelationKind::In => 6,
                _ if modifier.towards => 5,
                RelationKind::Near => 3,
                _ => 4,
            },
        }
    }

    /// What may stand after all things: a direction, an instrument, fillers.
    pub(super) fn tail(&mut self, verb: &Verb, task: &mut Instruction, recipient: &mut Option<String>) {
        if recipient.is_none() {
            recipient.clone_from(&task.recipient);
        }
        if task.destination.is_none() && verb.takes_destination {
            let at = self.position;
            if matches!(self.word(at), Some("inside" | "in")) && self.ends_clause(at + 1) {
                // "open the box and put the ball inside".
                self.position += 1;
                let mut place = self.empty_reference(at);
                IT.clone_into(&mut place.noun);
                place.span = self.span_from(at);
                task.destination = Some(Destination {
                    relation: RelationKind::In,
                    span: place.span.clone(),
                    landmarks: vec![place],
                });
            } else if let Some((&kind, length)) = self.vocabulary.directions.longest(&self.words[at..]) {
                self.position += length;
                task.destination =
                    Some(Destination { relation: kind, landmarks: Vec::new(), span: self.span_from(at) });
            } else if let Some((&by, length)) = self.vocabulary.orders.longest(&self.words[at..])
                && is_side(by)
                && self.ends_clause(at + length)
            {
                self.position += length;
                let relation = direction_of(by);
                task.destination =
                    Some(Destination { relation, landmarks: Vec::new(), span: self.span_from(at) });
            }
        }
        self.trailing_order(task.targets.last_mut());
        self.skip_fillers();
        if matches!(self.word(self.position), Some("with" | "using"))
            && let Some(instrument) = self.instrument()
        {
            task.instrument = Some(instrument);
        }
        self.skip_fillers();
        task.span.end = self.span_from(self.position.saturating_sub(1)).end.max(task.span.start);
    }

    /// "the mug left": an order word behind its noun.
    pub(super) fn trailing_order(&mut self, target: Option<&mut ObjectReference>) {
        if let Some(target) = target
            && let Some((&by, length)) = self.vocabulary.orders.longest(self.rest())
            && self.ends_clause(self.position + length)
        {
            self.position += length;
            target.orders.push(Order { by, rank: 1 });
        }
    }

    /// "with your left hand".
    pub(super) fn instrument(&mut self) -> Option<String> {
        let start = self.position;
        self.position += 1;
        if let Some((_, length)) = self.vocabulary.determiners.longest(self.rest()) {
            self.position += length;
        }
        let mut words: Vec<&str> = Vec::new();
        while let Some(word) = self.word(self.position).filter(|_| words.len() < 3) {
            words.push(word);
            self.position += 1;
            if self.vocabulary.instruments.contains(word) {
                return Some(words.join(" "));
            }
        }
        self.position = start;
        None
    }

    pub(super) fn verb(&mut self) -> Result<Option<Verb>, Failure> {
        let Some(verb) = self.verb_at(self.position) else {
            if let Some(verb) = self.split_only_verb() {
                return Ok(Some(verb));
            }
            if let Some(word) = self.word(self.position)
                && self.vocabulary.reserved.contains(word)
            {
                return Err(self.unexpected());
            }
            return Ok(None);
        };
        self.position += verb.1;
        Ok(Some(verb.0.clone()))
    }

    /// "switch the light off": no verb without its particle, which must follow.
    pub(super) fn split_only_verb(&mut self) -> Option<Verb> {
        let pairs = self.vocabulary.split_verbs.get(self.word(self.position)?)?;
        let rest = &self.words[self.position + 1..];
        let end = rest
            .iter()
            .position(|it| self.vocabulary.conjunctions.contains_word(it) || *it == "." || *it == ",");
        let clause = &rest[..end.unwrap_or(rest.len())];
        let (_, verb) = pairs.iter().find(|(particle, _)| clause.contains(&particle.as_str()))?;
        self.position += 1;
        Some(verb.clone())
    }

    /// The verb that stands at a place, unless the word is a noun there ("stack of plates").
    pub(super) fn verb_at(&self, at: usize) -> Option<(&'a Verb, usize)> {
        let (verb, length) = self.vocabulary.verbs.longest(self.words.get(at..)?)?;
        let next = self.word(at + length);
        let is_noun = length == 1 && matches!(next, Some("of" | "'s"));
        // "open drawer", "closed box" alone name things; "open the drawer" and "close it" do not.
        (!is_noun).then_some((verb, length))
    }

    /// The particle of a split verb: "turn the stove on".
    pub(super) fn particle(&mut self, verb: &mut Verb) {
        if let Some(found) = self.particle_at(self.position) {
            *verb = found.clone();
            self.position += 1;
        } else if let Some(found) = self.particle.take() {
            *verb = found;
        }
    }

    pub(super) fn particle_at(&self, at: usize) -> Option<&'a Verb> {
        let word = self.word(at)?;
        let (_, verb) = self.split?.iter().find(|(particle, _)| particle == word)?;
        if self.relation_at(at).is_some_and(|(_, length, _)| length > 1 && self.starts_thing(at + length)) {
            return None; // "out of the box"
        }
        (!self.starts_thing(at + 1) || self.starts_modifier(at + 1)).then_some(verb)
    }

    /// "me" right behind "hand".
    pub(super) fn viewer(&mut self) -> Option<String> {
        let word = self.word(self.position).filter(|it| matches!(*it, "me" | "us"))?;
        self.position += 1;
        Some(word.to_owned())
    }

    pub(super) fn task(
        &self,
        verb: &Verb,
        targets: Vec<ObjectReference>,
        destination: Option<Destination>,
        start: usize,
    ) -> Instruction {
        Instruction {
            action: verb.action.clone(),
            targets,
            destination,
            recipient: None,
            instrument: None,
            then: None,
            span: self.span_from(start),
        }
    }
}

/// Adds a task; "pick up X" and "put it Y" become one.
pub(super) fn push_task(tasks: &mut Vec<Instruction>, task: Instruction) {
    if let Some(previous) = tasks.last_mut() {
        let brings = matches!(task.action, Action::Put | Action::Stack | Action::Move | Action::HandOver);
        let same = task.targets == previous.targets;
        if previous.action == Action::PickUp && previous.destination.is_none() && brings && same {
            let span = previous.span.start..task.span.end;
            let instrument = task.instrument.clone().or_else(|| previous.instrument.take());
            *previous = Instruction { instrument, span, ..task };
            return;
        }
    }
    tasks.push(task);
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

/// What "one" is after "it": of the kind that the thing was taken from, else of the thing's own.
fn kind_spoken_of(before: &Instruction) -> Option<&String> {
    let target = before.targets.first()?;
    let from = target.relations.iter().find(|it| it.kind == RelationKind::From);
    Some(from.and_then(|it| it.landmarks.first()).map_or(&target.noun, |it| &it.noun))
}
