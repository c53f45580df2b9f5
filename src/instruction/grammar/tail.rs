//! What stands behind the objects of a verb: a direction, a distance, a manner, a tool, a purpose, a recipient.

use super::region::region;
use super::{Failure, IT, Parser, direction_of, is_side};
use crate::instruction::types::{Action, Destination, Instruction, ObjectReference, Order, RelationKind};
use crate::instruction::vocabulary::Verb;

impl Parser<'_> {
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
            let has_direction = verb.takes_destination
                || matches!(verb.action, Action::Turn | Action::Pull | Action::Custom(_));
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
            self.path(task)?;
            self.goal_behind(task)?;
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

    /// "to open the door": what it is for, up to the end of the clause.
    fn purpose(&mut self, task: &mut Instruction) {
        let at = self.position;
        let words = match (self.word(at), self.word(at + 1)) {
            (Some("in"), Some("order")) if self.word(at + 2) == Some("to") => 3,
            (Some("so"), Some("that" | "i" | "you" | "we" | "it" | "the")) => 1,
            (Some("to"), _) if self.is_action_at(at + 1) => 1,
            (Some("for"), Some(next)) if !matches!(next, "me" | "us") && self.starts_noun_phrase(at + 1) => 1,
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

    /// "with a sponge" behind what is wiped.
    fn tool(
        &mut self,
        verb: &Verb,
        target: Option<&ObjectReference>,
    ) -> Result<Option<ObjectReference>, Failure> {
        let word = self.word(self.position);
        let is_open = matches!(verb.action, Action::Custom(_)) || self.is_resultative();
        let is_tool = word == Some("using") || word == Some("with") && is_open;
        if !is_tool || !self.starts_noun_phrase(self.position + 1) {
            return Ok(None);
        }
        self.position += 1;
        let mut tool = self.noun_phrase(0)?;
        if let Some(target) = target.filter(|_| self.is_one(&tool)) {
            tool.noun.clone_from(&target.noun); // "swap the bit with the new one"
        }
        let modifiers = self.modifiers(0)?;
        self.attach(&mut tool, modifiers)?;
        Ok(Some(tool))
    }

    /// "across the bench": a way to go, as said.
    fn path(&mut self, task: &mut Instruction) -> Result<(), Failure> {
        let start = self.position;
        let is_path = matches!(self.word(start), Some("across" | "through" | "along"));
        if !is_path || !self.starts_noun_phrase(start + 1) {
            return Ok(());
        }
        self.position += 1;
        self.noun_phrase(0)?;
        task.manner.push(self.words[start..self.position].join(" "));
        Ok(())
    }

    /// "to the cab", behind a tool or a manner.
    fn goal_behind(&mut self, task: &mut Instruction) -> Result<(), Failure> {
        let start = self.position;
        let Some((relation, length, true)) = self.relation_at(start) else { return Ok(()) };
        let is_open = task.destination.is_none() && !task.targets.is_empty() && self.side_at(start).is_none();
        if !is_open || !self.starts_noun_phrase(start + length) || self.is_viewer(start + length) {
            return Ok(());
        }
        self.position += length;
        let mut landmark = self.noun_phrase(0)?;
        let modifiers = self.modifiers(0)?;
        self.attach(&mut landmark, modifiers)?;
        let (relation, landmarks) = region(relation, vec![landmark], self.words[start]);
        let span = self.span_from(start);
        task.destination =
            Some(Destination { relation, landmarks, distance_m: None, also: Vec::new(), span });
        if task.action == Action::PickUp {
            task.action = Action::Move;
        }
        Ok(())
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
}
