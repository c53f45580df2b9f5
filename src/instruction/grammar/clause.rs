//! One verb and what belongs to it: targets, destination, recipient, instrument.

use super::pronouns::{inherit_whole, resolve_pronouns};
use super::{Failure, IT, Meaning, Modifier, Parser, THEM, Things, direction_of, is_side};
use crate::instruction::lexicon::{WordUse, plain_verb, word_use};
use crate::instruction::types::{
    Action, Destination, Instruction, ObjectReference, Order, OrderBy, ParseError, Relation, RelationKind,
};
use crate::instruction::vocabulary::{TargetNeed, Verb};

impl<'a> Parser<'a> {
    /// One verb and what belongs to it; several tasks for "put the soup in the basket and the milk on the plate".
    pub(super) fn clause(&mut self, previous: Option<&Instruction>) -> Result<Vec<Instruction>, Failure> {
        let start = self.position;
        let mut manner = Vec::new();
        self.manners(&mut manner);
        if self.verb_at(self.position).is_none() {
            self.skip_fillers_before_thing();
        }
        if self.word(self.position) == Some("use") || self.word(self.position) == Some("using") {
            return self.clause_with_tool(start, manner, previous);
        }
        if let Some(release) = self.let_go(start, previous)? {
            return Ok(vec![release]);
        }
        let verb_start = self.position;
        self.pending_manner.clear();
        self.verb = None;
        let verb = self.verb()?;
        let verb_words = self.position - verb_start;
        let verb = match (verb, previous) {
            (Some(verb), _) => Some(verb),
            // "put the red cube on the blue one, then the green cube on the red one": the same again.
            (None, Some(previous)) if self.determiner_at(verb_start) => Some(Verb {
                action: previous.action.clone(),
                takes_destination: previous.destination.is_some(),
                target: TargetNeed::Required,
                recipient: previous.recipient.clone(),
            }),
            (None, Some(_)) => return Err(self.expected("an action")),
            (None, None) => None,
        };
        let Some(mut verb) = verb else { return Ok(vec![self.bare(start)?]) };
        let first_word = self.words[verb_start];
        self.verb_word = match &verb.action {
            Action::Custom(name) => name.clone(),
            _ => plain_verb(first_word).filter(|_| verb_words == 1).unwrap_or_else(|| first_word.to_owned()),
        };
        if verb.target == TargetNeed::None {
            self.skip_fillers();
            return Ok(vec![self.task(&verb, Vec::new(), None, start)]);
        }
        self.verb = Some(verb.clone());
        self.particle = None;
        self.split = (verb_words == 1)
            .then(|| self.vocabulary.split_verbs.get(first_word))
            .flatten()
            .map(Vec::as_slice);
        let mut recipient = verb.recipient.take();
        if matches!(verb.action, Action::HandOver | Action::Custom(_)) && recipient.is_none() {
            recipient = self.viewer();
        }
        self.skip_fillers_before_thing();
        self.manners(&mut manner);
        if self.ends_clause(self.position)
            && verb.target == TargetNeed::Required
            && let Some(next) =
                self.after_joint(self.position).filter(|it| self.is_verb(*it) && *it > self.position)
            && self.words[next - 1] != "."
        {
            return self.shared_object(&verb, start, next, previous);
        }
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
        self.tail(&verb, &mut tasks[last], &mut recipient)?;
        for task in &mut tasks {
            task.recipient = task.recipient.take().or_else(|| recipient.clone());
            task.manner.splice(0..0, manner.iter().chain(&self.pending_manner).cloned());
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
            let opened = self.opened.as_ref().filter(|_| task.action == Action::Close);
            if let (Some(opened), [target]) = (opened, &mut task.targets[..])
                && target.noun == IT
            {
                *target = opened.clone(); // what was opened is closed again
            }
            resolve_pronouns(&mut task, before.or(self.spoken_of))?;
            inherit_whole(&mut task, before);
            if task.action == Action::Open {
                self.opened = task.targets.first().cloned();
            }
            done.push(task);
        }
        Ok(done)
    }

    /// "approach and touch the stamp": both are done to the same.
    fn shared_object(
        &mut self,
        verb: &Verb,
        start: usize,
        next: usize,
        previous: Option<&Instruction>,
    ) -> Result<Vec<Instruction>, Failure> {
        let before = self.position;
        self.position = next;
        let mut rest = self.clause(previous)?;
        let Some(shared) = rest.first().map(|it| it.targets.clone()).filter(|it| !it.is_empty()) else {
            self.position = before;
            return Err(self.expected(&format!("what to {}", verb.action.name().replace('_', " "))));
        };
        let first = self.task(verb, shared, None, start);
        rest.insert(0, first);
        Ok(rest)
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
        let mut manner = Vec::new();
        self.manners(&mut manner);
        let find = Verb {
            action: Action::Find,
            takes_destination: false,
            target: TargetNeed::Required,
            recipient: None,
        };
        let mut task = Instruction { manner, ..self.task(&find, targets, None, start) };
        resolve_pronouns(&mut task, self.spoken_of)?;
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
            // "chop them on the board": which ones they are is known, so it is where.
            let is_pronoun = thing.noun == IT || thing.noun == THEM;
            let first_place = || {
                modifiers
                    .iter()
                    .position(|it| matches!(it.meaning, Meaning::Relation(..)) && !self.is_source(it))
            };
            let chosen = chosen.or_else(|| first_place().filter(|_| is_pronoun));
            let mut destination = None;
            if let Some(chosen) = chosen {
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
                    None => return Err(self.fail_at(after[0].token_idx, self.misplaced(&after[0]))),
                }
                let (relation, landmarks) = region(relation, landmarks, self.words[said_at]);
                destination = Some(Destination {
                    relation,
                    landmarks,
                    distance_m,
                    also: also.into_iter().collect(),
                    span,
                });
                if matches!(verb.action, Action::PickUp) {
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
                let is_given = verb.action == Action::HandOver && destination.relation == RelationKind::To;
                let viewer = destination.landmarks.iter().find(|it| {
                    is_given || matches!(it.noun.as_str(), "me" | "us" | "you" | "yourself" | "myself")
                });
                if let Some(viewer) = viewer {
                    if destination.relation != RelationKind::To {
                        return Err(ParseError {
                            message: format!("expected a thing that can be seen, got {:?}", viewer.noun),
                            span: viewer.span.clone(),
                        }
                        .into());
                    }
                    let said = self.as_said(viewer);
                    let name = said.strip_prefix("the ").unwrap_or(&said);
                    task.recipient = Some(name.to_owned());
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

    /// Relation and landmarks of what was said of a place.
    fn placed(&self, modifier: Modifier) -> Result<(RelationKind, Vec<ObjectReference>), Failure> {
        match modifier.meaning {
            Meaning::Place(order) => Ok((direction_of(order.by), Vec::new())),
            Meaning::Relation(kind, landmarks, _) => Ok((kind, landmarks)),
            Meaning::Attribute(_) => Err(self.fail_at(modifier.token_idx, self.misplaced(&modifier))),
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

    /// "use the stick to drag the cube": the clause behind "to" with a tool; "use the stick" alone is an action.
    fn clause_with_tool(
        &mut self,
        start: usize,
        manner: Vec<String>,
        previous: Option<&Instruction>,
    ) -> Result<Vec<Instruction>, Failure> {
        self.position += 1;
        let verb = self.open_verb("use".to_owned());
        if !self.starts_thing(self.position) {
            return Err(self.expected("what to use"));
        }
        let mut things = self.things(0)?;
        let to =
            matches!(self.word(self.position), Some("to" | "for")) && self.is_action_at(self.position + 1);
        if to && things.len() == 1 {
            self.position += 1;
            let (mut tool, modifiers) = things.remove(0);
            self.attach(&mut tool, modifiers)?;
            let mut tasks = self.clause(previous)?;
            for task in &mut tasks {
                task.tool = Some(tool.clone());
                task.manner.splice(0..0, manner.iter().cloned());
                task.span.start = self.span_from(start).start;
            }
            return Ok(tasks);
        }
        let mut tasks = self.tasks_of(&verb, things, start)?;
        let last = tasks.len() - 1;
        self.tail(&verb, &mut tasks[last], &mut None)?;
        tasks[last].manner.splice(0..0, manner);
        for task in &mut tasks {
            resolve_pronouns(task, previous.or(self.spoken_of))?;
        }
        Ok(tasks)
    }

    /// "let it go": release it.
    fn let_go(
        &mut self,
        start: usize,
        previous: Option<&Instruction>,
    ) -> Result<Option<Instruction>, Failure> {
        if self.word(self.position) != Some("let") || !self.starts_thing(self.position + 1) {
            return Ok(None);
        }
        let before = self.position;
        self.position += 1;
        let mut target = self.thing(0)?;
        let modifiers = self.modifiers(0)?;
        if self.word(self.position) != Some("go") {
            self.position = before;
            return Ok(None);
        }
        self.position += 1;
        self.attach(&mut target, modifiers)?;
        let release = Verb { action: Action::Release, ..self.open_verb(String::new()) };
        let mut task = self.task(&release, vec![target], None, start);
        resolve_pronouns(&mut task, previous.or(self.spoken_of))?;
        Ok(Some(task))
    }

    /// An action stands at a place, as in "to open the door".
    pub(super) fn is_action_at(&self, at: usize) -> bool {
        let at = if self.word(at).is_some_and(|it| it.ends_with("ly")) { at + 1 } else { at };
        let known = self.verb_at(at).map(|(_, length)| length);
        let length = known
            .or_else(|| self.inflected_verb_at(at).map(|(_, length)| length))
            .or_else(|| self.open_verb_at(at).map(|(_, length)| length));
        let Some(word) = self.word(at) else { return false };
        let next = at + length.unwrap_or(1);
        let before_object = self.determiner_at(next)
            || matches!(
                self.word(next),
                Some("it" | "them" | "me" | "us" | "something" | "from" | "with" | "up" | "out")
            );
        let mostly_verb = word_use(word) == Some(WordUse::MostlyVerb);
        length.is_some() && (mostly_verb || before_object)
            || mostly_verb && (before_object || self.ends_clause(next))
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
                RelationKind::On | RelationKind::In if modifier.after_particle => 8,
                RelationKind::On | RelationKind::In if landmarks.iter().any(|it| self.is_surface(it)) => 2,
                RelationKind::On | RelationKind::In => 6,
                _ if modifier.towards => 5,
                RelationKind::Near => 3,
                _ => 4,
            },
        }
    }

    /// What may stand after all things: a direction, a measure, a turn, a manner, a tool, a purpose, fillers; in any order.
    pub(super) fn tail(
        &mut self,
        verb: &Verb,
        task: &mut Instruction,
        recipient: &mut Option<String>,
    ) -> Result<(), Failure> {
        self.joined_particle(verb, task);
        loop {
            let before = self.position;
            self.purpose(task);
            self.skip_fillers_but_places(verb, task);
            let has_direction =
                verb.takes_destination || matches!(verb.action, Action::Turn | Action::Custom(_));
            if task.destination.is_none() && has_direction {
                self.position += self.degree_at(self.position).unwrap_or(0);
                task.destination = self.direction();
            }
            self.distance(task);
            if let Some((rotation, length)) = self.rotation_at(self.position)
                && task.rotation.is_none()
            {
                task.rotation = Some(rotation);
                self.position += length;
            }
            self.manners(&mut task.manner);
            if matches!(self.word(self.position), Some("with" | "using"))
                && let Some(instrument) = self.instrument()
            {
                task.instrument = Some(instrument);
            }
            if task.tool.is_none() {
                task.tool = self.tool(verb, task.targets.first())?;
            }
            self.recipient_behind(recipient);
            self.without_doing(task)?;
            if self.position == before {
                break;
            }
        }
        if task.destination.is_none() {
            self.trailing_order(task.targets.last_mut());
        }
        self.skip_fillers();
        task.span.end = self.span_from(self.position.saturating_sub(1)).end.max(task.span.start);
        Ok(())
    }

    /// "without touching the plate": the plate is left alone; "without spilling it" is a manner.
    fn without_doing(&mut self, task: &mut Instruction) -> Result<(), Failure> {
        let start = self.position;
        let length = self.prohibition_at(start).filter(|_| self.word(start) == Some("without"));
        let Some(length) = length else { return Ok(()) };
        if self.word(start + length).is_some_and(|it| self.is_pronoun(it)) {
            let end = (start + length + 1..self.tokens.len()).find(|it| self.ends_clause(*it));
            self.position = end.unwrap_or(self.tokens.len());
            task.manner.push(self.words[start..self.position].join(" "));
            return Ok(());
        }
        let named = task.clone();
        self.prohibition(length, Some(&named))
    }

    /// "throw the can away": the verb with its particle is another action than the verb alone.
    fn joined_particle(&mut self, verb: &Verb, task: &mut Instruction) {
        let is_joined = match &verb.action {
            Action::Custom(name) => !name.contains(' '),
            _ => task.destination.is_none(),
        };
        let word = self.verb_word.clone();
        let Some(phrase) = self.joins_particle(&word, self.position).filter(|_| is_joined) else { return };
        let is_alone = self.ends_clause(self.position + 1) || self.manner_at(self.position + 1).is_some();
        let listed = self.vocabulary.other_verbs.contains_key(&phrase);
        if is_alone && (listed || matches!(verb.action, Action::Custom(_))) {
            self.position += 1;
            task.action = Action::Custom(phrase);
        }
    }

    /// Fillers; but "here" and "there" are places where the verb still needs one: "put it there".
    fn skip_fillers_but_places(&mut self, verb: &Verb, task: &mut Instruction) {
        let at = self.position;
        let over = usize::from(self.word(at) == Some("over"));
        if let Some(word @ ("here" | "there")) = self.word(at + over)
            && verb.takes_destination
            && verb.action != Action::HandOver
            && self.verb_word != "bring"
            && task.destination.is_none()
            && self.ends_clause(at + over + 1)
        {
            self.position += over + 1;
            let place = ObjectReference {
                noun: word.to_owned(),
                span: self.span_from(at),
                ..self.empty_reference(at)
            };
            let span = place.span.clone();
            task.destination = Some(Destination {
                relation: RelationKind::To,
                landmarks: vec![place],
                distance_m: None,
                also: Vec::new(),
                span,
            });
        }
        self.skip_fillers();
    }

    /// A place without a landmark: "inside", "forward", "left".
    fn direction(&mut self) -> Option<Destination> {
        let at = self.position;
        let measure = self.measure_at(at);
        let from = at + measure.map_or(0, |(_, length)| length);
        let (relation, length, landmarks) = if matches!(self.word(from), Some("inside" | "in"))
            && self.ends_clause(from + 1)
        {
            // "open the box and put the ball inside".
            let mut place = self.empty_reference(from);
            IT.clone_into(&mut place.noun);
            (RelationKind::In, 1, vec![place])
        } else if let Some((&kind, length)) = self.vocabulary.directions.longest(self.words.get(from..)?) {
            (kind, length, Vec::new())
        } else {
            let to_the =
                usize::from(self.word(from) == Some("to")) + usize::from(self.word(from + 1) == Some("the"));
            let (&by, length) = self.vocabulary.orders.longest(self.words.get(from + to_the..)?)?;
            let ends = from + to_the + length;
            let is_direction = is_side(by)
                && (self.ends_clause(ends)
                    || self.measure_at(ends).is_some()
                    || self.manner_at(ends).is_some()
                    || self.word(ends) == Some("by"));
            if !is_direction {
                return None;
            }
            (direction_of(by), to_the + length, Vec::new())
        };
        self.position = from + length;
        let span = self.span_from(at);
        let landmarks: Vec<ObjectReference> =
            landmarks.into_iter().map(|it| ObjectReference { span: span.clone(), ..it }).collect();
        Some(Destination { relation, landmarks, distance_m: measure.map(|it| it.0), also: Vec::new(), span })
    }

    /// "by 10 cm" behind a direction.
    fn distance(&mut self, task: &mut Instruction) {
        let by = usize::from(self.word(self.position) == Some("by"));
        let Some((meters, length)) = self.measure_at(self.position + by) else { return };
        let way = match self.verb_word.as_str() {
            "raise" | "lift" | "elevate" => Some(RelationKind::Above),
            "lower" => Some(RelationKind::Under),
            _ => None,
        };
        if let (None, Some(relation)) = (&task.destination, way) {
            let span = self.span_from(self.position);
            task.destination = Some(Destination {
                relation,
                landmarks: Vec::new(),
                distance_m: None,
                also: Vec::new(),
                span,
            });
        }
        if let Some(destination) = task.destination.as_mut().filter(|it| it.distance_m.is_none()) {
            destination.distance_m = Some(meters);
            self.position += by + length;
        }
    }

    /// "with a sponge" behind what is wiped.
    fn tool(
        &mut self,
        verb: &Verb,
        target: Option<&ObjectReference>,
    ) -> Result<Option<ObjectReference>, Failure> {
        let word = self.word(self.position);
        let is_open = matches!(verb.action, Action::Custom(_)) || self.is_resultative();
        let is_tool = word == Some("using") || word == Some("with") && is_open;
        if !is_tool || !self.starts_thing(self.position + 1) {
            return Ok(None);
        }
        self.position += 1;
        let mut tool = self.thing(0)?;
        if let Some(target) = target.filter(|_| self.is_one(&tool)) {
            tool.noun.clone_from(&target.noun); // "swap the bit with the new one"
        }
        let modifiers = self.modifiers(0)?;
        self.attach(&mut tool, modifiers)?;
        Ok(Some(tool))
    }

    /// "to open the door": what it is for, up to the end of the clause.
    fn purpose(&mut self, task: &mut Instruction) {
        let at = self.position;
        let words = match (self.word(at), self.word(at + 1)) {
            (Some("in"), Some("order")) if self.word(at + 2) == Some("to") => 3,
            (Some("so"), Some("that" | "i" | "you" | "we" | "it" | "the")) => 1,
            (Some("to"), _) if self.is_action_at(at + 1) => 1,
            (Some("for"), Some(next)) if !matches!(next, "me" | "us") && self.starts_thing(at + 1) => 1,
            _ => return,
        };
        let mut end = at + words;
        while end < self.tokens.len() && self.words[end] != "." && self.words[end] != "," {
            let joint = self.after_joint(end);
            if joint.is_some_and(|next| self.is_verb(next))
                || self.vocabulary.sequencers.longest(&self.words[end..]).is_some()
            {
                break;
            }
            end += 1;
        }
        let said = self.words[at + words..end].join(" ");
        self.position = end;
        if said.is_empty() {
            return;
        }
        match &mut task.purpose {
            Some(purpose) => *purpose += &format!(" {said}"),
            None => task.purpose = Some(said),
        }
    }

    /// "over to me", "for me": who gets it.
    fn recipient_behind(&mut self, recipient: &mut Option<String>) {
        let at = self.position;
        let skip = usize::from(self.word(at) == Some("over"));
        if self.verb_takes_recipient()
            && matches!(self.word(at + skip), Some("to" | "for"))
            && let Some(viewer @ ("me" | "us")) = self.word(at + skip + 1)
        {
            self.position += skip + 2;
            *recipient = Some(viewer.to_owned());
        }
    }

    /// "the mug left": an order word behind its noun.
    pub(super) fn trailing_order(&mut self, target: Option<&mut ObjectReference>) {
        let Some(target) = target else { return };
        for length in self.orders_to_the_end(self.position) {
            if let Some((&by, _)) = self.vocabulary.orders.longest(self.rest()) {
                target.orders.push(Order { by, rank: 1 });
            }
            self.position += length;
        }
    }

    /// The lengths of the order words from a place up to the end of the clause: "bottom right". None where something else stands there.
    pub(super) fn orders_to_the_end(&self, start: usize) -> Vec<usize> {
        let (mut at, mut lengths) = (start, Vec::new());
        while let Some((_, length)) = self.words.get(at..).and_then(|it| self.vocabulary.orders.longest(it)) {
            lengths.push(length);
            at += length;
        }
        if self.ends_clause(at) { lengths } else { Vec::new() }
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
        self.skip_aspect();
        if matches!(self.word(self.position), Some("go" | "come"))
            && self.verb_at(self.position).is_none()
            && self.is_verb(self.position + 1)
        {
            self.position += 1; // "go shove the block"
        }
        let other = self.phrasal_at(self.position);
        let other = other.or_else(|| match self.verb_at(self.position) {
            Some((verb, length)) => Some((verb.clone(), length)),
            None => self.inflected_verb_at(self.position),
        });
        let Some(verb) = other else {
            if let Some(verb) = self.split_only_verb() {
                return Ok(Some(verb));
            }
            if self.is_question(self.position) {
                return Err(self.unexpected());
            }
            if let Some(failure) = self.unclear_slip(self.position) {
                return Err(failure);
            }
            if let Some((verb, length)) = self.open_verb_at(self.position) {
                self.position += length;
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
        Ok(Some(verb.0))
    }

    /// "start picking up": the verb is the second.
    fn skip_aspect(&mut self) {
        let next = self.position + 1;
        if matches!(
            self.word(self.position),
            Some("start" | "begin" | "keep" | "continue" | "try" | "finish" | "consider")
        ) && self.word(next).is_some_and(|it| it.ends_with("ing"))
            && (self.verb_at(next).is_some() || self.inflected_verb_at(next).is_some())
        {
            self.position = next;
        }
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
        let is_given =
            |it: &&str| matches!(*it, "him" | "her" | "them") && self.determiner_at(self.position + 1);
        let word = self.word(self.position).filter(|it| matches!(*it, "me" | "us") || is_given(it))?;
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
            targets,
            destination,
            span: self.span_from(start),
            ..Instruction::of(verb.action.clone())
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
            let tool = task.tool.clone().or_else(|| previous.tool.take());
            let mut manner = std::mem::take(&mut previous.manner);
            manner.extend(task.manner.iter().filter(|it| !manner.contains(it)).cloned().collect::<Vec<_>>());
            *previous = Instruction { instrument, tool, manner, span, ..task };
            return;
        }
        if task.action == previous.action && same && task.destination.is_none() {
            return; // "grasp the block and lift it up"
        }
    }
    tasks.push(task);
}

/// The place within a thing that "at the center of it" names: "in the middle of the table", "from table center".
pub(super) fn region(
    kind: RelationKind,
    mut landmarks: Vec<ObjectReference>,
    said: &str,
) -> (RelationKind, Vec<ObjectReference>) {
    let holds = kind == RelationKind::To && said == "to"
        || matches!(
            kind,
            RelationKind::On
                | RelationKind::In
                | RelationKind::Near
                | RelationKind::From
                | RelationKind::NextTo
        );
    let [landmark] = &mut landmarks[..] else { return (kind, landmarks) };
    let is_gap = matches!(landmark.noun.as_str(), "gap" | "space" | "area" | "spot" | "region");
    let between = landmark.relations.iter().position(|it| it.kind == RelationKind::Between);
    if let Some(between) = between.filter(|_| is_gap) {
        return (RelationKind::Between, landmark.relations.swap_remove(between).landmarks);
    }
    if !holds || !landmark.orders.is_empty() || !landmark.attributes.is_empty() {
        return (kind, landmarks);
    }
    let place = match landmark.noun.as_str() {
        "center" | "centre" | "middle" => RelationKind::AtCenterOf,
        "edge" => RelationKind::AtEdgeOf,
        "corner" => RelationKind::AtCornerOf,
        "front" => RelationKind::AtFrontOf,
        "back" | "rear" => RelationKind::AtBackOf,
        "left" | "far left" => RelationKind::AtLeftOf,
        "right" | "far right" => RelationKind::AtRightOf,
        _ => return (kind, landmarks),
    };
    match landmark.whole.take() {
        Some(whole) => (place, vec![*whole]),
        None => (kind, landmarks),
    }
}

fn is_on_or_in(meaning: &Meaning) -> bool {
    matches!(meaning, Meaning::Relation(RelationKind::On | RelationKind::In, ..))
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
