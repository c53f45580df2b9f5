//! One clause: a verb, what it is done to, and what belongs to it.

use super::pronouns::{inherit_whole, resolve_pronouns};
use super::{Failure, IT, NounPhrases, Parser, THEM};
use crate::instruction::lexicon::plain_verb;
use crate::instruction::types::{Action, Destination, Instruction, ObjectReference, RelationKind};
use crate::instruction::vocabulary::{TargetNeed, Verb};

impl Parser<'_> {
    /// One verb and what belongs to it; several tasks for "put the soup in the basket and the milk on the plate".
    pub(super) fn clause(&mut self, previous: Option<&Instruction>) -> Result<Vec<Instruction>, Failure> {
        let start = self.position;
        let mut manner = Vec::new();
        self.manners(&mut manner);
        if self.verb_at(self.position).is_none() {
            self.skip_fillers_before_noun_phrase();
        }
        if matches!(self.word(self.position), Some("use" | "using")) {
            return self.clause_with_tool(start, manner, previous);
        }
        if let Some(release) = self.let_go(start, previous)? {
            return Ok(vec![release]);
        }
        let verb_start = self.position;
        let Some(mut verb) = self.clause_verb(previous)? else { return Ok(vec![self.bare(start)?]) };
        self.verb_word = self.verb_as_said(&verb, verb_start);
        if verb.target == TargetNeed::None {
            self.skip_fillers();
            return Ok(vec![self.task(&verb, Vec::new(), None, start)]);
        }
        self.verb = Some(verb.clone());
        self.await_particle(verb_start);
        let mut recipient = verb.recipient.take();
        if matches!(verb.action, Action::HandOver | Action::Custom(_)) && recipient.is_none() {
            recipient = self.viewer();
        }
        self.skip_fillers_before_noun_phrase();
        self.manners(&mut manner);
        if let Some(next) = self.verb_with_same_object(&verb) {
            return self.shared_object(&verb, start, next, previous);
        }
        let objects = self.objects(&verb, previous, &mut recipient)?;
        self.particle(&mut verb);
        self.split = None;
        let mut tasks = self.tasks_of(&verb, objects, start)?;
        let last = tasks.len() - 1;
        self.tail(&verb, &mut tasks[last], &mut recipient)?;
        for task in &mut tasks {
            task.recipient = task.recipient.take().or_else(|| recipient.clone());
            task.manner.splice(0..0, manner.iter().chain(&self.pending_manner).cloned());
        }
        self.settle(tasks, previous)
    }

    /// The clause's verb; that of the clause before for "put the red cube on the blue one, then the green cube on the red one".
    fn clause_verb(&mut self, previous: Option<&Instruction>) -> Result<Option<Verb>, Failure> {
        let start = self.position;
        self.pending_manner.clear();
        self.verb = None;
        let verb = self.verb()?;
        let Some(previous) = previous.filter(|_| verb.is_none()) else { return Ok(verb) };
        if !self.determiner_at(start) {
            return Err(self.expected("an action"));
        }
        Ok(Some(Verb {
            action: previous.action.clone(),
            takes_destination: previous.destination.is_some(),
            target: TargetNeed::Required,
            recipient: previous.recipient.clone(),
        }))
    }

    /// The verb in its plain form, which was read from `start` on.
    fn verb_as_said(&self, verb: &Verb, start: usize) -> String {
        let first_word = self.words[start];
        let is_one_word = self.position - start == 1;
        match &verb.action {
            Action::Custom(name) => name.clone(),
            _ => plain_verb(first_word).filter(|_| is_one_word).unwrap_or_else(|| first_word.to_owned()),
        }
    }

    /// From here on a particle may make another verb of the one that was read from `start` on.
    fn await_particle(&mut self, start: usize) {
        let is_one_word = self.position - start == 1;
        let pairs = self.vocabulary.split_verbs.get(self.words[start]).filter(|_| is_one_word);
        self.split = pairs.map(Vec::as_slice);
        self.particle = None;
    }

    /// Where the next verb stands when a verb has no object of its own: "approach and touch the stamp".
    fn verb_with_same_object(&self, verb: &Verb) -> Option<usize> {
        // "turn around and walk" is done to nothing.
        let is_bare = self.word(self.position - 1) == Some("around");
        if !self.ends_clause(self.position) || verb.target != TargetNeed::Required || is_bare {
            return None;
        }
        let next = self.after_joint(self.position)?;
        (self.is_verb(next) && next > self.position && self.words[next - 1] != ".").then_some(next)
    }

    /// Both verbs are done to the same.
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
            return Err(self.expected_object(verb));
        };
        let first = self.task(verb, shared, None, start);
        rest.insert(0, first);
        Ok(rest)
    }

    /// What the verb is done to; nothing where it needs no object.
    fn objects(
        &mut self,
        verb: &Verb,
        previous: Option<&Instruction>,
        recipient: &mut Option<String>,
    ) -> Result<NounPhrases, Failure> {
        if self.ends_clause(self.position) {
            return match verb.target {
                TargetNeed::Optional => Ok(Vec::new()),
                _ => Err(self.expected_object(verb)),
            };
        }
        if previous.is_some() && self.starts_modifier(self.position) {
            // "pick up the cup and put in the basket": the object is understood.
            let mut elided = self.empty_reference(self.position);
            IT.clone_into(&mut elided.noun);
            let modifiers = self.modifiers(0)?;
            return Ok(vec![(elided, modifiers)]);
        }
        self.given_objects(verb, recipient)
    }

    /// Of "give the nurse the syringe" the first is who gets the second.
    fn given_objects(&mut self, verb: &Verb, recipient: &mut Option<String>) -> Result<NounPhrases, Failure> {
        let objects = self.noun_phrases(0)?;
        let gives =
            verb.action == Action::HandOver || matches!(self.verb_word.as_str(), "bring" | "feed" | "offer");
        let [(named, modifiers)] = &objects[..] else { return Ok(objects) };
        if !gives || recipient.is_some() || !modifiers.is_empty() || !self.determiner_at(self.position) {
            return Ok(objects);
        }
        let said = self.as_said(named);
        *recipient = Some(said.strip_prefix("the ").unwrap_or(&said).to_owned());
        self.noun_phrases(0)
    }

    fn expected_object(&self, verb: &Verb) -> Failure {
        self.expected(&format!("what to {}", verb.action.name().replace('_', " ")))
    }

    /// Gives "one", "it" and what was opened their names, from the tasks before.
    fn settle(
        &mut self,
        tasks: Vec<Instruction>,
        previous: Option<&Instruction>,
    ) -> Result<Vec<Instruction>, Failure> {
        let mut done: Vec<Instruction> = Vec::new();
        for mut task in tasks {
            let before = done.last().or(previous);
            self.name_ones_as_before(&mut task, before);
            self.close_what_was_opened(&mut task);
            resolve_pronouns(&mut task, before.or(self.spoken_of))?;
            inherit_whole(&mut task, before);
            if task.action == Action::Open {
                self.opened = task.targets.first().cloned();
            }
            done.push(task);
        }
        Ok(done)
    }

    /// "stack the red block on the green one", "take it off the left plate and put it on the right one".
    fn name_ones_as_before(&self, task: &mut Instruction, before: Option<&Instruction>) {
        if let (Some(target), Some(named)) =
            (task.targets.first_mut(), before.and_then(|it| it.targets.first()))
            && self.is_one(target)
        {
            target.noun.clone_from(&named.noun);
        }
        let (Some(destination), Some(named)) = (&mut task.destination, task.targets.first()) else { return };
        let is_pronoun = named.noun == IT || named.noun == THEM;
        let noun = if is_pronoun { before.and_then(kind_spoken_of) } else { Some(&named.noun) };
        let Some(noun) = noun else { return };
        for landmark in destination.landmarks.iter_mut().filter(|it| self.is_one(it)) {
            landmark.noun.clone_from(noun);
        }
    }

    /// "open the drawer, put the cup in it and close it": what was opened is closed again.
    fn close_what_was_opened(&self, task: &mut Instruction) {
        let opened = self.opened.as_ref().filter(|_| task.action == Action::Close);
        if let (Some(opened), [target]) = (opened, &mut task.targets[..])
            && target.noun == IT
        {
            *target = opened.clone();
        }
    }

    /// A clause without a verb: find it.
    pub(super) fn bare(&mut self, start: usize) -> Result<Instruction, Failure> {
        let things = self.noun_phrases(0)?;
        let mut targets = Vec::new();
        for (mut thing, modifiers) in things {
            self.attach(&mut thing, modifiers)?;
            targets.push(thing);
        }
        self.trailing_order(targets.last_mut());
        self.skip_fillers();
        let mut manner = Vec::new();
        self.manners(&mut manner);
        // "chandelier on".
        let switched = match self.word(self.position).filter(|_| self.ends_clause(self.position + 1)) {
            Some("on") => Some(Action::TurnOn),
            Some("off") => Some(Action::TurnOff),
            _ => None,
        };
        self.position += usize::from(switched.is_some());
        let find = Verb {
            action: switched.unwrap_or(Action::Find),
            takes_destination: false,
            target: TargetNeed::Required,
            recipient: None,
        };
        let mut task = Instruction { manner, ..self.task(&find, targets, None, start) };
        resolve_pronouns(&mut task, self.spoken_of)?;
        Ok(task)
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
        if !self.starts_noun_phrase(self.position) {
            return Err(self.expected("what to use"));
        }
        let mut things = self.noun_phrases(0)?;
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
        if self.word(self.position) != Some("let") || !self.starts_noun_phrase(self.position + 1) {
            return Ok(None);
        }
        let before = self.position;
        self.position += 1;
        let mut target = self.noun_phrase(0)?;
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

/// What "one" is after "it": of the kind that the thing was taken from, else of the thing's own.
fn kind_spoken_of(before: &Instruction) -> Option<&String> {
    let target = before.targets.first()?;
    let from = target.relations.iter().find(|it| it.kind == RelationKind::From);
    Some(from.and_then(|it| it.landmarks.first()).map_or(&target.noun, |it| &it.noun))
}
