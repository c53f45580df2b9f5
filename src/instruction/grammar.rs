//! Words to the tree: recursive descent over the closed classes, with everything else a noun.
//!
//! ```text
//! text      = clause { (sequencer | conjunction | mark) clause }
//! clause    = [fillers] [verb [particle]] things [particle] [direction] [fillers]
//! things    = thing modifiers { ("," | "and") thing modifiers }
//! thing     = [quantifier ["of"]] [determiner] [number] { ordinal | order | attribute | word } noun [of thing]
//! modifiers = { [relative pronoun] (place in a row | relation thing | goal thing | attribute) }
//! ```
//!
//! Modifiers hang on the nearest noun, but for surfaces ("on the table next to the cup"). With verbs that take a destination, one
//! of them is it: see `destination_weight`.

use super::token::Token;
use super::types::{
    Action, Attribute, AttributeKind, Destination, GENERIC_NOUN, Instruction, ObjectReference, Order,
    OrderBy, ParseError, Quantity, Relation, RelationKind, Span,
};
use super::vocabulary::{Determiner, Quantifier, TargetNeed, Verb, Vocabulary, one_edit_apart};

/// Stand in for a noun until the clause is complete. No token can be one of these.
const IT: &str = "\u{1}it";
const THEM: &str = "\u{1}them";

/// "the cup on the plate on the tray on the ...": deeper than this is no instruction.
const MAX_DEPTH: usize = 12;

/// Words in one noun.
const MAX_NOUN_WORDS: usize = 6;

/// Where reading stopped, and why.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ParseError,
    /// The token that could not be placed; past the end where every word could, but not what they say together.
    pub(super) token_idx: usize,
}

/// The chain of tasks in `tokens`.
pub(super) fn parse_tokens(tokens: &[Token], vocabulary: &Vocabulary) -> Result<Instruction, Failure> {
    let words = tokens.iter().map(|it| it.text.as_str()).collect();
    let mut parser = Parser { tokens, words, vocabulary, position: 0, split: None, particle: None };
    parser.text()
}

struct Parser<'a> {
    tokens: &'a [Token],
    words: Vec<&'a str>,
    vocabulary: &'a Vocabulary,
    position: usize,
    /// The verb of the clause may have its particle behind the object.
    split: Option<&'a [(String, Verb)]>,
    /// The verb as its particle made it, where more stood behind the particle.
    particle: Option<Verb>,
}

/// What follows a thing and says more about it, or where it shall go.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the words, none excludes another")]
struct Modifier {
    meaning: Meaning,
    /// Said with "that is": never a destination.
    relative: bool,
    /// Said with "and": belongs to the head, not to the landmark before.
    to_head: bool,
    /// "into", "onto", "to": only a movement's end.
    goal: bool,
    /// "to the left of": rather a movement's end.
    towards: bool,
    /// Right behind "the closest cup": "to" goes with it, but for what is taken somewhere.
    after_closest: bool,
    token_idx: usize,
    span: Span,
}

#[derive(Debug, Clone)]
enum Meaning {
    Place(Order),
    Relation(RelationKind, Vec<ObjectReference>, usize),
    Attribute(Attribute),
}

type Things = Vec<(ObjectReference, Vec<Modifier>)>;

impl<'a> Parser<'a> {
    fn text(&mut self) -> Result<Instruction, Failure> {
        let mut tasks: Vec<Instruction> = Vec::new();
        self.skip_joints();
        while self.position < self.tokens.len() {
            let clause = self.clause(tasks.last())?;
            for task in clause {
                push_task(&mut tasks, task);
            }
            let before = self.position;
            self.skip_joints();
            if self.position == before && self.position < self.tokens.len() {
                return Err(self.unexpected());
            }
        }
        let mut chain = None;
        for mut task in tasks.into_iter().rev() {
            task.then = chain.map(Box::new);
            chain = Some(task);
        }
        chain.ok_or_else(|| {
            self.fail_at(
                0,
                "expected an instruction such as \"pick up the red cup\", got only filler words".to_owned(),
            )
        })
    }

    /// One verb and what belongs to it; several tasks for "put the soup in the basket and the milk on the plate".
    fn clause(&mut self, previous: Option<&Instruction>) -> Result<Vec<Instruction>, Failure> {
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
                for landmark in destination.landmarks.iter_mut().filter(|it| self.is_one(it)) {
                    landmark.noun.clone_from(&named.noun); // "stack the red block on the green one"
                }
            }
            resolve_pronouns(&mut task, before).map_err(|error| self.failure_at_span(error))?;
            inherit_whole(&mut task, before);
            done.push(task);
        }
        Ok(done)
    }

    /// A clause without a verb: find it.
    fn bare(&mut self, start: usize) -> Result<Instruction, Failure> {
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
        resolve_pronouns(&mut task, None).map_err(|error| self.failure_at_span(error))?;
        Ok(task)
    }

    /// Distributes things and their modifiers over targets and destinations.
    fn tasks_of(&mut self, verb: &Verb, things: Things, start: usize) -> Result<Vec<Instruction>, Failure> {
        let mut tasks: Vec<Instruction> = Vec::new();
        let mut targets: Vec<ObjectReference> = Vec::new();
        let mut action = verb.action.clone();
        let last = things.len().saturating_sub(1);
        for (thing_idx, (mut thing, mut modifiers)) in things.into_iter().enumerate() {
            if let Some(first) = modifiers.first_mut() {
                first.after_closest = self.words[start] != "take"
                    && thing.orders.iter().any(|it| matches!(it.by, OrderBy::Nearest | OrderBy::Farthest))
                    && !self.names_viewer(&first.meaning);
            }
            let chosen = (0..modifiers.len())
                .filter(|&it| self.destination_weight(verb, &modifiers, it, thing_idx == last) > 0)
                .max_by_key(|&it| self.destination_weight(verb, &modifiers, it, thing_idx == last));
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
                    return Err(self.failure_at_span(ParseError { message, span: thing.span.clone() }));
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
                        return Err(self.failure_at_span(ParseError {
                            message: format!("expected a thing that can be seen, got {:?}", viewer.noun),
                            span: viewer.span.clone(),
                        }));
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

    fn names_viewer(&self, meaning: &Meaning) -> bool {
        let Meaning::Relation(_, landmarks, _) = meaning else { return false };
        landmarks.iter().any(|it| self.vocabulary.viewer.contains(&it.noun))
    }

    fn grasped_part(&self, verb: &Verb, modifiers: &mut Vec<Modifier>) -> Option<ObjectReference> {
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
    fn destination_weight(&self, verb: &Verb, modifiers: &[Modifier], chosen: usize, is_last: bool) -> usize {
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
            return if modifier.goal && brings { 9 } else { 0 };
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
    fn tail(&mut self, verb: &Verb, task: &mut Instruction, recipient: &mut Option<String>) {
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
    fn trailing_order(&mut self, target: Option<&mut ObjectReference>) {
        if let Some(target) = target
            && let Some((&by, length)) = self.vocabulary.orders.longest(self.rest())
            && self.ends_clause(self.position + length)
        {
            self.position += length;
            target.orders.push(Order { by, rank: 1 });
        }
    }

    /// "with your left hand".
    fn instrument(&mut self) -> Option<String> {
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

    fn verb(&mut self) -> Result<Option<Verb>, Failure> {
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
    fn split_only_verb(&mut self) -> Option<Verb> {
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
    fn verb_at(&self, at: usize) -> Option<(&'a Verb, usize)> {
        let (verb, length) = self.vocabulary.verbs.longest(self.words.get(at..)?)?;
        let next = self.word(at + length);
        let is_noun = length == 1 && matches!(next, Some("of" | "'s"));
        // "open drawer", "closed box" alone name things; "open the drawer" and "close it" do not.
        (!is_noun).then_some((verb, length))
    }

    /// The particle of a split verb: "turn the stove on".
    fn particle(&mut self, verb: &mut Verb) {
        if let Some(found) = self.particle_at(self.position) {
            *verb = found.clone();
            self.position += 1;
        } else if let Some(found) = self.particle.take() {
            *verb = found;
        }
    }

    fn particle_at(&self, at: usize) -> Option<&'a Verb> {
        let word = self.word(at)?;
        let (_, verb) = self.split?.iter().find(|(particle, _)| particle == word)?;
        if self.relation_at(at).is_some_and(|(_, length, _)| length > 1 && self.starts_thing(at + length)) {
            return None; // "out of the box"
        }
        (!self.starts_thing(at + 1) || self.starts_modifier(at + 1)).then_some(verb)
    }

    /// One thing or several.
    fn things(&mut self, depth: usize) -> Result<Things, Failure> {
        let mut things = Vec::new();
        loop {
            let mut thing = self.thing(depth)?;
            let mut modifiers = Vec::new();
            match self.particle_at(self.position) {
                // "turn the stove on": the clause takes the particle.
                Some(_) if self.ends_clause(self.position + 1) => {}
                // "pick the cup up from the table".
                Some(verb) => {
                    self.particle = Some(verb.clone());
                    self.position += 1;
                    modifiers = self.modifiers(depth)?;
                }
                None => modifiers = self.modifiers(depth)?,
            }
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
            if self.verb_at(next).is_some() && !self.determiner_at(next) || !self.starts_thing(next) {
                self.name_ones(&mut things);
                return Ok(things);
            }
            if things.len() >= 20 {
                return Err(self.fail_at(next, "expected at most 20 things".to_owned()));
            }
            self.position = next;
        }
    }

    /// Whether `thing` says of the one thing before it, behind a comma, which one that is.
    fn is_apposition(&self, things: &Things, thing: &ObjectReference) -> bool {
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
    fn name_ones(&self, things: &mut Things) {
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
    fn is_one(&self, thing: &ObjectReference) -> bool {
        let said = self.as_said(thing);
        let words: Vec<&str> = said.split(' ').collect();
        thing.noun == GENERIC_NOUN
            && (words.iter().any(|it| matches!(*it, "one" | "ones"))
                || !words.iter().any(|it| self.vocabulary.generic_nouns.contains(*it) || *it == "everything"))
    }

    /// "the red and blue cups" are red ones and blue ones; "the red and white mug" is one.
    fn split_colors(thing: &mut ObjectReference) -> Vec<ObjectReference> {
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
    fn thing(&mut self, depth: usize) -> Result<ObjectReference, Failure> {
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
        let measured = self.word(self.position + 1).is_some_and(|it| self.vocabulary.units.contains(it));
        if let Some(word) = self.word(self.position)
            && let Some(count) = self.count_of(word)
            && !measured // "the 10 mm wrench"
            && !self.ends_thing(self.position + 1)
            && self.word(self.position + 1) != Some("of")
        {
            self.position += 1;
            plural_hint |= count > 1;
            number = Some(if definite == Some(Determiner::Definite) {
                Quantity::Exactly(count)
            } else {
                Quantity::Any(count)
            });
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
        let (head, is_plural) = self.singular(&thing.noun, plural_hint || number.is_some());
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
        thing.span = self.span_from(start);
        Ok(thing)
    }

    /// Everything between the determiner and the noun's end. Returns the words of the noun; `count` is one said behind an order
    /// ("the top two books").
    fn premodifiers(
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
                    noun.push(word.to_owned());
                    self.position += length;
                    continue;
                }
                self.position += length;
                thing.orders.push(Order { by, rank: ordinal.take().unwrap_or(1) });
                continue;
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
                    thing.attributes.push(Attribute { kind: AttributeKind::Other, word });
                }
                noun_start = at;
                thing.attributes.push(attribute);
                self.color_and(thing);
                continue;
            }
            if self.ends_thing(at) {
                break;
            }
            if !noun.is_empty()
                && let Some((_, length)) = self.vocabulary.orders.longest(self.rest())
                && self.ends_thing(at + length)
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

    fn take_ordinal(thing: &mut ObjectReference, ordinal: Option<usize>, is_last: bool) {
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
    fn color_and(&mut self, thing: &mut ObjectReference) {
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
    fn attribute(&mut self, after_noun: bool) -> Option<Attribute> {
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
            });
        }
        if let Some((&kind, length)) = self.vocabulary.attributes.longest(self.rest()) {
            // "the orange", "a glass": a noun when nothing follows.
            if !after_noun && self.vocabulary.nounlike.contains(word) && self.ends_thing(at + length) {
                return None;
            }
            self.position += length;
            return Some(Attribute { kind, word: self.words[at..self.position].join(" ") });
        }
        if word.chars().count() >= 4 && !self.is_closed(at) && !self.ends_thing(at + 1) {
            let color = sole_misspelled(word, &self.vocabulary.color_words)?.to_owned();
            self.position += 1;
            return Some(Attribute { kind: AttributeKind::Color, word: color });
        }
        None
    }

    /// The noun phrase ends behind this word, and not with "of".
    fn is_last_word(&self, at: usize) -> bool {
        self.ends_thing(at + 1) && self.word(at + 1) != Some("of")
    }

    /// "lfet", "larget": an order with a typo.
    fn misspelled_order(&self, at: usize) -> Option<&'a OrderBy> {
        let word = self.word(at).filter(|it| it.len() >= 3 && !self.is_closed(at) && !self.ends_thing(at))?;
        let meant = sole_misspelled(word, &self.vocabulary.mended_orders)?;
        self.vocabulary.orders.longest(&[meant]).map(|(by, _)| by)
    }

    /// Gives a thing its noun.
    fn name(&self, thing: &mut ObjectReference, noun: &[String], start: usize) -> Result<(), Failure> {
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
        } else {
            thing.noun = noun.join(" ");
        }
        Ok(())
    }

    /// "of ...": a part of something, or one name ("bottle of water").
    fn of(&mut self, thing: &mut ObjectReference, depth: usize) -> Result<(), Failure> {
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
    fn as_said(&self, thing: &ObjectReference) -> String {
        let words: Vec<&str> = self
            .tokens
            .iter()
            .filter(|it| thing.span.start <= it.span.start && it.span.end <= thing.span.end)
            .map(|it| it.text.as_str())
            .collect();
        words.join(" ")
    }

    fn pronoun(&mut self) -> Option<ObjectReference> {
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

    fn is_pronoun(&self, word: &str) -> bool {
        self.vocabulary.singular_pronouns.contains(word) || self.vocabulary.plural_pronouns.contains(word)
    }

    /// "me" right behind "hand".
    fn viewer(&mut self) -> Option<String> {
        let word = self.word(self.position).filter(|it| matches!(*it, "me" | "us"))?;
        self.position += 1;
        Some(word.to_owned())
    }

    fn modifiers(&mut self, depth: usize) -> Result<Vec<Modifier>, Failure> {
        let mut modifiers: Vec<Modifier> = Vec::new();
        loop {
            let start = self.position;
            let mut at = start;
            let mut to_head = false;
            if let Some(next) = self.after_joint(at)
                && !self.words[at..next].contains(&".")
                && (self.relation_at(self.skip_relation_fillers(next)).is_some()
                    || self.side_at(next).is_some())
                && !modifiers.is_empty()
                && self.verb_at(next).is_none()
            {
                at = next;
                to_head = true;
            }
            let mut relative = false;
            if let Some(((), length)) = self.vocabulary.relative_pronouns.longest(&self.words[at..]) {
                at += length;
                relative = true;
                while matches!(self.word(at), Some("is" | "are" | "'s" | "currently" | "also")) {
                    at += 1;
                }
            }
            if self.particle_at(at).is_some() && !relative {
                return Ok(modifiers);
            }
            let filled = self.skip_relation_fillers(at);
            if self.relation_at(filled).is_some() || self.side_at(filled).is_some() {
                at = filled;
            }
            self.position = at;
            let mut modifier = Modifier {
                meaning: Meaning::Place(Order { by: OrderBy::Middle, rank: 1 }),
                relative,
                to_head,
                goal: false,
                towards: matches!(self.word(at), Some("to")),
                after_closest: false,
                token_idx: at,
                span: 0..0,
            };
            if let Some((order, length)) = self.side_at(at) {
                self.position += length;
                modifier.meaning = Meaning::Place(order);
            } else if let Some((kind, length, goal)) = self.relation_at(at) {
                if kind == RelationKind::With && self.instrument().is_some() {
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
                modifier.meaning = self.related(kind, depth)?;
                if kind == RelationKind::With {
                    self.skip_on_it(); // "the plate with the fork on it"
                }
                if matches!(self.word(at), Some("on" | "at")) {
                    self.onto_surface(&mut modifier.meaning);
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
    fn related(&mut self, kind: RelationKind, depth: usize) -> Result<Meaning, Failure> {
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
        Ok(Meaning::Relation(kind, landmarks, 1))
    }

    /// "on it", "in it" behind what a thing has.
    fn skip_on_it(&mut self) {
        if let Some((_, length, _)) = self.relation_at(self.position)
            && matches!(self.word(self.position + length), Some("it" | "them"))
        {
            self.position += length + 1;
        }
    }

    /// "on the left side of the table" is a part of the table; "to the left of" it is beside it.
    fn onto_surface(&self, meaning: &mut Meaning) {
        if let Meaning::Relation(kind, landmarks, _) = meaning
            && landmarks.iter().all(|it| self.is_surface(it))
        {
            *kind = match *kind {
                RelationKind::LeftOf => RelationKind::AtLeftOf,
                RelationKind::RightOf => RelationKind::AtRightOf,
                other => other,
            };
        }
    }

    fn is_viewer(&self, at: usize) -> bool {
        self.viewer_length(at).is_some()
    }

    /// "me", "the camera".
    fn viewer_length(&self, at: usize) -> Option<usize> {
        let skip = usize::from(matches!(self.word(at), Some("the" | "your" | "my")));
        let word = self.word(at + skip)?;
        self.vocabulary.viewer.contains(word).then_some(skip + 1)
    }

    /// "on the left", "second from the right", "in the middle": a place in a row, with the number of words.
    fn side_at(&self, start: usize) -> Option<(Order, usize)> {
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
    fn relation_at(&self, at: usize) -> Option<(RelationKind, usize, bool)> {
        let words = self.words.get(at..)?;
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

    fn skip_relation_fillers(&self, mut at: usize) -> usize {
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
    fn attach(&self, head: &mut ObjectReference, modifiers: Vec<Modifier>) -> Result<(), Failure> {
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
                add_place(head, order);
                self.attach(head, rest)
            }
            Meaning::Attribute(attribute) => {
                head.attributes.push(attribute);
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
                    head.relations.push(Relation { kind, landmarks, rank: order.rank, span: first.span });
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
                head.relations.push(Relation { kind, landmarks, rank, span: first.span });
                self.attach(head, rest)
            }
        }
    }

    /// Said with "'s", before what it owns.
    fn is_owner(&self, whole: &ObjectReference) -> bool {
        self.tokens.iter().any(|it| it.text == "'s" && it.span.end == whole.span.end)
    }

    fn is_surface(&self, thing: &ObjectReference) -> bool {
        let head = thing.noun.rsplit(' ').next().unwrap_or_default();
        self.vocabulary.surfaces.contains(&thing.noun) || self.vocabulary.surfaces.contains(head)
    }

    fn misplaced(&self, modifier: &Modifier) -> String {
        format!("did not expect {:?} here", self.words[modifier.token_idx])
    }

    fn task(
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

    fn empty_reference(&self, at: usize) -> ObjectReference {
        let span = self.tokens.get(at).map_or(0..0, |it| it.span.start..it.span.start);
        ObjectReference {
            noun: String::new(),
            attributes: Vec::new(),
            quantity: Quantity::One,
            out_of: None,
            orders: Vec::new(),
            relations: Vec::new(),
            whole: None,
            other: false,
            answer: None,
            span,
        }
    }

    /// The head of `noun` in the singular, and whether it was plural.
    fn singular(&self, noun: &str, expect_plural: bool) -> (String, bool) {
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

    fn count_of(&self, word: &str) -> Option<usize> {
        self.vocabulary
            .numbers
            .get(word)
            .copied()
            .or_else(|| word.parse().ok().filter(|it| (1..=99).contains(it)))
    }

    /// "largest", not "top": a ranking can be "of the cups".
    fn is_ranking(&self, at: usize) -> bool {
        self.vocabulary.orders.longest(&self.words[at..]).is_some_and(|(by, _)| !is_side(*by))
            || self.words[at].ends_with("most")
            || self.words[at].ends_with("est")
    }

    fn determiner_at(&self, at: usize) -> bool {
        self.words.get(at..).is_some_and(|it| {
            self.vocabulary.determiners.longest(it).is_some()
                || self.vocabulary.quantifiers.longest(it).is_some()
        })
    }

    /// A noun phrase can begin here.
    fn starts_thing(&self, at: usize) -> bool {
        let Some(word) = self.word(at) else { return false };
        if self.determiner_at(at) || self.is_pronoun(word) {
            return true;
        }
        if self.vocabulary.reserved.contains(word) || word == "of" || word == "'s" {
            return false;
        }
        if self.vocabulary.numbers.contains_key(word) || self.vocabulary.generic_nouns.contains(word) {
            return true;
        }
        self.vocabulary.orders.contains_word(word) && !self.ends_clause(at + 1)
            || self.vocabulary.attributes.contains_word(word)
            || !self.ends_thing(at)
    }

    fn starts_modifier(&self, at: usize) -> bool {
        self.relation_at(at).is_some() || self.side_at(at).is_some()
    }

    /// No word of a noun phrase stands here.
    fn ends_thing(&self, at: usize) -> bool {
        let Some(word) = self.word(at) else { return true };
        let rest = &self.words[at..];
        let vocabulary = self.vocabulary;
        word == "of"
            || word == "'s"
            || vocabulary.reserved.contains(word)
            || vocabulary.conjunctions.longest(rest).is_some()
            || vocabulary.sequencers.longest(rest).is_some()
            || vocabulary.determiners.longest(rest).is_some()
            || vocabulary.quantifiers.longest(rest).is_some()
            || vocabulary.relative_pronouns.longest(rest).is_some()
            || self.is_pronoun(word)
            || matches!(word, "me" | "us")
            || self.filler_at(at).is_some()
            || (vocabulary.particles.contains(word) && !vocabulary.orders.contains_word(word))
            || vocabulary.directions.longest(rest).is_some() && !vocabulary.orders.contains_word(word)
            || self.is_relation_start(at)
    }

    /// Prepositions, but not order words that also begin relations ("near", "left") before a noun ("the near cup").
    fn is_relation_start(&self, at: usize) -> bool {
        let filled = self.skip_relation_fillers(at);
        if filled > at && (self.relation_at(filled).is_some() || self.side_at(filled).is_some()) {
            return true;
        }
        if self.side_at(at).is_some() {
            return true;
        }
        self.relation_at(at).is_some_and(|(_, length, _)| {
            length > 1
                || !self.vocabulary.orders.contains_word(self.words[at])
                || self.determiner_at(at + length)
        })
    }

    /// A filler that can stand inside a sentence: those that double as something else only where the clause ends.
    fn filler_at(&self, at: usize) -> Option<usize> {
        let ((), length) = self.vocabulary.fillers.longest(self.words.get(at..)?)?;
        let word = self.words[at];
        let doubles = self.vocabulary.ordinals.contains_key(word)
            || matches!(word, "robot" | "next" | "well" | "there" | "here" | "then" | "first");
        (!doubles || length > 1).then_some(length)
    }

    /// Nothing more of the clause stands here.
    fn ends_clause(&self, at: usize) -> bool {
        let Some(token) = self.tokens.get(at) else { return true };
        if !token.is_word {
            return true;
        }
        let rest = &self.words[at..];
        self.vocabulary.conjunctions.longest(rest).is_some()
            || self.vocabulary.sequencers.longest(rest).is_some()
            || self
                .vocabulary
                .fillers
                .longest(rest)
                .is_some_and(|((), length)| at + length >= self.tokens.len() || self.ends_clause(at + length))
    }

    /// Behind a comma, a conjunction or both; none when something else stands here.
    fn after_joint(&self, at: usize) -> Option<usize> {
        let mut next = at;
        if self.tokens.get(next).is_some_and(|it| it.text == ",") {
            next += 1;
        }
        if let Some(((), length)) =
            self.words.get(next..).and_then(|it| self.vocabulary.conjunctions.longest(it))
        {
            next += length;
        }
        (next > at && next < self.tokens.len()).then_some(next)
    }

    /// What may stand between clauses: marks, conjunctions, sequencers, fillers.
    fn skip_joints(&mut self) {
        while self.position < self.tokens.len() {
            if !self.tokens[self.position].is_word && matches!(self.words[self.position], "," | ".") {
                self.position += 1;
                continue;
            }
            let rest = &self.words[self.position..];
            let length =
                [&self.vocabulary.sequencers, &self.vocabulary.conjunctions, &self.vocabulary.fillers]
                    .iter()
                    .filter_map(|it| it.longest(rest))
                    .map(|((), length)| length)
                    .max();
            // A verb may begin with a filler's word ("go to").
            let verb = self.vocabulary.verbs.longest(rest).map_or(0, |(_, length)| length);
            match length {
                Some(length) if length >= verb && !self.ordinal_phrase(length) => self.position += length,
                _ => return,
            }
        }
    }

    /// "first mug from the left" begins with an ordinal, "first pick up" with a filler.
    fn ordinal_phrase(&self, length: usize) -> bool {
        let word = self.words[self.position];
        length == 1
            && self.vocabulary.ordinals.contains_key(word)
            && self.tokens.get(self.position + 1).is_some_and(|it| it.is_word)
            && self.verb_at(self.position + 1).is_none()
            && self.vocabulary.fillers.longest(&self.words[self.position + 1..]).is_none()
    }

    fn skip_fillers(&mut self) {
        while let Some(((), length)) = self.vocabulary.fillers.longest(self.rest()) {
            self.position += length;
        }
    }

    /// "pick up, please, the cup": fillers that cannot begin a name.
    fn skip_fillers_before_thing(&mut self) {
        while let Some(length) = self.filler_at(self.position) {
            self.position += length;
        }
    }

    fn skip_word(&mut self, word: &str) {
        if self.word(self.position) == Some(word) {
            self.position += 1;
        }
    }

    fn is_closed(&self, at: usize) -> bool {
        let Some(word) = self.word(at) else { return true };
        self.vocabulary.structure_words.binary_search_by(|it| it.as_str().cmp(word)).is_ok()
            || self.vocabulary.attributes.contains_word(word)
            || self.vocabulary.orders.contains_word(word)
            || self.vocabulary.parts.contains(word)
            || self.vocabulary.containers.contains(word)
    }

    fn rest(&self) -> &[&'a str] {
        &self.words[self.position.min(self.words.len())..]
    }

    /// The word at a place; none at marks and past the end.
    fn word(&self, at: usize) -> Option<&'a str> {
        self.tokens.get(at).filter(|it| it.is_word).map(|_| self.words[at])
    }

    /// From a token to the one before the position.
    fn span_from(&self, start: usize) -> Span {
        let first = self.tokens.get(start).or(self.tokens.last()).map_or(0, |it| it.span.start);
        let end = self.position.max(start + 1).min(self.tokens.len());
        first..self.tokens.get(end.saturating_sub(1)).map_or(first, |it| it.span.end).max(first)
    }

    fn unexpected(&self) -> Failure {
        let Some(token) = self.tokens.get(self.position) else { return self.expected("more") };
        let word = &token.text;
        if self.position == 1 && self.determiner_at(1) && self.tokens[0].is_word && self.verb_at(0).is_none()
        {
            let message = format!("{:?} is not an action in the vocabulary", self.words[0]);
            return Failure { token_idx: 1, ..self.fail_at(0, message) };
        }
        let message = match word.as_str() {
            "do" if matches!(self.word(self.position + 1), Some("not")) => {
                "cannot follow \"do not\": say what to do, not what to leave".to_owned()
            }
            "not" | "don't" | "dont" | "isn't" | "doesn't" | "never" | "no" | "except" | "but"
            | "without" | "avoid" => {
                format!("cannot follow {word:?}: say what to do, not what to leave")
            }
            "or" | "nor" => "cannot choose between things joined by \"or\": say which".to_owned(),
            "if" | "unless" | "until" | "when" | "while" | "whether" | "because" => {
                format!("cannot follow a condition ({word:?}): say what to do now")
            }
            "what" | "why" | "how" | "who" => {
                format!("expected an instruction, got a question ({word:?})")
            }
            _ => format!("did not expect {word:?} here"),
        };
        self.fail_at(self.position, message)
    }

    fn expected(&self, what: &str) -> Failure {
        let message = match self.tokens.get(self.position) {
            Some(token) => format!("expected {what}, got {:?}", token.text),
            None => format!("expected {what}, got the end of the text"),
        };
        self.fail_at(self.position, message)
    }

    fn fail_at(&self, token_idx: usize, message: String) -> Failure {
        let end = self.tokens.last().map_or(0, |it| it.span.end);
        let span = self.tokens.get(token_idx).map_or(end..end, |it| it.span.clone());
        Failure { error: ParseError { message, span }, token_idx }
    }

    fn failure_at_span(&self, error: ParseError) -> Failure {
        Failure { error, token_idx: usize::MAX }
    }
}

/// Adds a task; "pick up X" and "put it Y" become one.
fn push_task(tasks: &mut Vec<Instruction>, task: Instruction) {
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

/// "a fork to the left and a knife to the right of the plate": both sides are the plate's.
fn share_landmark(tasks: &mut [Instruction]) {
    let mut shared: Option<Vec<ObjectReference>> = None;
    for task in tasks.iter_mut().rev() {
        let Some(destination) = &mut task.destination else { continue };
        if !destination.relation.depends_on_viewpoint() {
            shared = None;
        } else if !destination.landmarks.is_empty() {
            shared = Some(destination.landmarks.clone());
        } else if let Some(landmarks) = &shared {
            destination.landmarks.clone_from(landmarks);
        }
    }
}

/// Puts what a pronoun stands for in its place.
fn resolve_pronouns(task: &mut Instruction, previous: Option<&Instruction>) -> Result<(), ParseError> {
    let fixture = matches!(
        task.action,
        Action::Open | Action::Close | Action::TurnOn | Action::TurnOff | Action::Turn | Action::Press
    );
    let mut targets = Vec::new();
    for target in std::mem::take(&mut task.targets) {
        match target.noun.as_str() {
            IT => {
                let previous = previous.ok_or_else(|| unknown_pronoun("it", &target.span))?;
                let place = previous.destination.as_ref().and_then(|it| it.landmarks.first());
                let referent =
                    if fixture { place.or(previous.targets.first()) } else { previous.targets.first() };
                if !fixture && previous.targets.len() > 1 {
                    targets.extend(previous.targets.iter().cloned());
                } else {
                    targets.push(referent.cloned().ok_or_else(|| unknown_pronoun("it", &target.span))?);
                }
            }
            THEM => {
                let previous = previous.ok_or_else(|| unknown_pronoun("them", &target.span))?;
                targets.extend(previous.targets.iter().cloned());
                let several = previous.targets.len() > 1
                    || previous.targets.iter().any(|it| it.quantity != Quantity::One);
                if !several && let Some(place) = &previous.destination {
                    targets.extend(place.landmarks.iter().cloned());
                }
                if targets.is_empty() {
                    return Err(unknown_pronoun("them", &target.span));
                }
            }
            _ => targets.push(target),
        }
    }
    // Pronouns inside a target can only mean something before it.
    for target_idx in 0..targets.len() {
        let (before, from_here) = targets.split_at_mut(target_idx);
        let referent = previous.and_then(main_place).or(before.first());
        replace_in(&mut from_here[0], referent)?;
    }
    if let Some(destination) = &mut task.destination {
        let referent = previous.and_then(main_place);
        let relation = destination.relation;
        for landmark in &mut destination.landmarks {
            replace_landmark(landmark, relation, referent)?;
        }
    }
    task.targets = targets;
    Ok(())
}

/// What "it" means as a place after a task: where things were brought, else what was handled.
fn main_place(previous: &Instruction) -> Option<&ObjectReference> {
    previous.destination.as_ref().and_then(|it| it.landmarks.first()).or(previous.targets.first())
}

fn replace_in(thing: &mut ObjectReference, referent: Option<&ObjectReference>) -> Result<(), ParseError> {
    if let Some(whole) = &mut thing.whole {
        replace_landmark(whole, RelationKind::In, referent)?;
    }
    for relation in &mut thing.relations {
        let kind = relation.kind;
        for landmark in &mut relation.landmarks {
            replace_landmark(landmark, kind, referent)?;
        }
    }
    Ok(())
}

fn replace_landmark(
    landmark: &mut ObjectReference,
    relation: RelationKind,
    referent: Option<&ObjectReference>,
) -> Result<(), ParseError> {
    if landmark.noun == IT || landmark.noun == THEM {
        let word = if landmark.noun == IT { "it" } else { "them" };
        let mut referent = referent.ok_or_else(|| unknown_pronoun(word, &landmark.span))?;
        // After "close the top drawer of the cabinet", "on top of it" is on the cabinet; "in it" is in the drawer.
        // Nothing is in a door or a lid either.
        let holds = !matches!(
            referent.noun.as_str(),
            "door" | "lid" | "cover" | "cap" | "handle" | "knob" | "button"
        );
        if (relation != RelationKind::In || !holds)
            && let Some(whole) = &referent.whole
        {
            referent = whole;
        }
        *landmark = referent.clone();
        return Ok(());
    }
    replace_in(landmark, referent)
}

/// "close the bottom drawer of the cabinet and open the top drawer": of the same cabinet.
fn inherit_whole(task: &mut Instruction, previous: Option<&Instruction>) {
    let Some(previous) = previous else { return };
    let destination = previous.destination.iter().flat_map(|it| &it.landmarks);
    let known: Vec<ObjectReference> =
        previous.targets.iter().chain(destination).filter(|it| it.whole.is_some()).cloned().collect();
    let mine = task.targets.iter_mut().chain(task.destination.iter_mut().flat_map(|it| &mut it.landmarks));
    for thing in mine.filter(|it| it.whole.is_none()) {
        if let Some(same) = known.iter().find(|it| it.noun == thing.noun) {
            thing.whole.clone_from(&same.whole);
        }
    }
}

fn unknown_pronoun(word: &str, span: &Span) -> ParseError {
    ParseError { message: format!("nothing was named before that {word:?} could mean"), span: span.clone() }
}

/// The one word of `among` that `word` is but for two letters swapped or one left out. A wrong letter is too weak a sign: "sink" is no
/// "pink".
fn sole_misspelled<'v>(word: &str, among: &'v [String]) -> Option<&'v str> {
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

/// Says where in a row a thing is. "The second mug from the left" has one place, not two.
fn add_place(thing: &mut ObjectReference, order: Order) {
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

/// "the cabinet's left door's handle": the handle of the door of the cabinet.
fn give_owner(part: &mut ObjectReference, owner: ObjectReference) {
    match &mut part.whole {
        Some(whole) => give_owner(whole, owner),
        None => part.whole = Some(Box::new(owner)),
    }
}

/// "one of the three cups": `quantity` of what was said to be so many.
fn choose_from(things: &mut ObjectReference, quantity: Quantity) {
    if let Quantity::Exactly(n) = things.quantity {
        things.out_of = Some(n);
    }
    things.quantity = quantity;
}

/// "second" alone counts from the left until a side is named.
fn is_ordinal_only(order: &Order) -> bool {
    order.by == OrderBy::Leftmost
}

fn is_side(by: OrderBy) -> bool {
    matches!(
        by,
        OrderBy::Leftmost
            | OrderBy::Rightmost
            | OrderBy::Nearest
            | OrderBy::Farthest
            | OrderBy::Highest
            | OrderBy::Lowest
            | OrderBy::Middle
    )
}

fn direction_of(by: OrderBy) -> RelationKind {
    match by {
        OrderBy::Leftmost => RelationKind::LeftOf,
        OrderBy::Rightmost => RelationKind::RightOf,
        OrderBy::Nearest => RelationKind::InFrontOf,
        OrderBy::Farthest => RelationKind::Behind,
        OrderBy::Highest => RelationKind::Above,
        OrderBy::Lowest => RelationKind::Under,
        _ => RelationKind::AtCenterOf,
    }
}
