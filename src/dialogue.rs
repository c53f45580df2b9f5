//! What words mean after what was said before: "the left one" answers "2 mugs: the left one or the right one?"; pure.
//!
//! The last instruction and what came of it are kept for a while. A text that names no action and no kind of its own is
//! then read as an answer or a correction, and becomes the whole instruction again, so that everything after the words sees one
//! [`Instruction`] as always. Nothing is guessed: "yes" to "the left one or the right one?" is not an answer.

use crate::candidate::Candidate;
use crate::instruction::{
    Action, AttributeKind, GENERIC_NOUN, Instruction, ObjectReference, ParseError, Quantity, Vocabulary,
    parse_after,
};
use crate::request::GroundingRequest;
use crate::result::{Ambiguity, GroundedObject, GroundingResult, ReferenceRole, Status, UnmetConstraint};

#[cfg(test)]
mod tests;

/// The memory of one conversation.
#[derive(Debug, Clone)]
pub struct Dialogue {
    /// Nanoseconds for which an answer is awaited.
    pub window_ns: i64,
    last: Option<Turn>,
}

/// The last instruction, and what came of it.
#[derive(Debug, Clone)]
struct Turn {
    at_ns: i64,
    id: String,
    request: GroundingRequest,
    response: Response,
}

#[derive(Debug, Clone)]
enum Response {
    Found(Vec<Candidate>),
    /// Several: the question that was asked about a reference.
    Asked(Part, String),
    /// None; what is missing of a reference, when something near it was offered.
    Missing(Part, Option<UnmetConstraint>),
}

impl Dialogue {
    /// With nothing said yet; answers are awaited for `window_ns` nanoseconds.
    pub fn new(window_ns: i64) -> Self {
        Self { window_ns, last: None }
    }

    /// What `text` means now. A request that is tried again under its `id` means what it meant before.
    ///
    /// # Errors
    /// The text is neither an instruction nor an answer to what was asked.
    pub fn understand(
        &self,
        id: &str,
        text: &str,
        now_ns: i64,
        vocabulary: &Vocabulary,
    ) -> Result<GroundingRequest, ParseError> {
        let turn = self.last.as_ref().filter(|it| (0..=self.window_ns).contains(&(now_ns - it.at_ns)));
        let Some(turn) = turn else { return GroundingRequest::parse(text, vocabulary) };
        if turn.id == id {
            return Ok(turn.request.clone());
        }
        let said = words(text);
        let (assent, rest) = split_assent(&said);
        if let Some(is_yes) = assent.filter(|_| rest.is_empty()) {
            return turn.yes_or_no(is_yes, text);
        }
        if let Some(quantity) = several(rest) {
            return Ok(turn.with(text, bare(quantity)));
        }
        if assent.is_none() {
            return Ok(turn.with(text, parse_after(text, vocabulary, turn.spoken_of())?));
        }
        // "no, the red one": places in the rest are not places in the text.
        let parsed = parse_after(rest, vocabulary, turn.spoken_of())
            .or_else(|_| parse_after(text, vocabulary, turn.spoken_of()))
            .map_err(|error| ParseError { span: 0..text.len(), ..error })?;
        Ok(turn.with(text, parsed))
    }

    /// Keeps what came of `request`. Results that say nothing about the words (no image, an error) change nothing.
    pub fn record(&mut self, id: &str, request: &GroundingRequest, result: &GroundingResult, now_ns: i64) {
        let of = |it: &Ambiguity| Part { step_idx: it.step_idx, role: it.role };
        let part = result.ambiguity.as_ref().map_or(Part::FIRST, of);
        let response = match result.status {
            Status::Found | Status::NoDepth | Status::NoTransform => {
                Response::Found(result.targets.iter().map(GroundedObject::candidate).collect())
            }
            Status::Ambiguous => Response::Asked(part, result.message.clone()),
            Status::NotFound => {
                let offered = result.ambiguity.as_ref().filter(|it| !it.indices.is_empty());
                Response::Missing(part, offered.and_then(|it| it.unmet.as_ref()).map(|it| it.0))
            }
            Status::Stale | Status::BadInstruction | Status::Blocked | Status::Error => return,
        };
        self.last = Some(Turn { at_ns: now_ns, id: id.to_owned(), request: request.clone(), response });
    }

    /// Forgets all that was said.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

/// A reference of a step of the instruction.
#[derive(Debug, Clone, Copy)]
struct Part {
    step_idx: usize,
    role: ReferenceRole,
}

impl Part {
    const FIRST: Self = Self { step_idx: 0, role: ReferenceRole::Target(0) };
}

impl Turn {
    /// The new words with what was said before, where they need it.
    fn with(&self, text: &str, said: Instruction) -> GroundingRequest {
        let mut request =
            GroundingRequest { text: text.to_owned(), instruction: said, previous: self.previous() };
        let said = &request.instruction;
        let [answer] = &said.targets[..] else { return request };
        // Without a verb: "find the left one" is an instruction of its own.
        let names_no_action = said.action == Action::Find && said.span.start == answer.span.start;
        if !names_no_action || said.destination.is_some() || said.then.is_some() {
            return request;
        }
        let part = match &self.response {
            Response::Asked(part, _) => *part,
            Response::Found(_) => Part::FIRST,
            Response::Missing(..) => return request,
        };
        let mut whole = self.request.instruction.clone();
        let Some(reference) = reference_mut(&mut whole, part) else { return request };
        let was_asked = matches!(self.response, Response::Asked(..));
        let means_it = answer.noun == GENERIC_NOUN && !names_a_thing(text, answer)
            || was_asked && answer.noun == reference.noun;
        if !means_it {
            return request;
        }
        answer_with(reference, answer.clone(), was_asked);
        request.instruction = whole;
        request
    }

    /// What "it" means after something was found: what the last step was about.
    fn spoken_of(&self) -> Option<&Instruction> {
        let found = matches!(self.response, Response::Found(_));
        self.request.instruction.steps().last().filter(|_| found)
    }

    /// What "the other one" is not: what was found, or what an earlier answer had excluded.
    fn previous(&self) -> Vec<Candidate> {
        match &self.response {
            Response::Found(found) => found.clone(),
            Response::Asked(..) | Response::Missing(..) => self.request.previous.clone(),
        }
    }

    fn yes_or_no(&self, is_yes: bool, text: &str) -> Result<GroundingRequest, ParseError> {
        let refuse = |message: String| Err(ParseError { message, span: 0..text.len() });
        let word = if is_yes { "yes" } else { "no" };
        match &self.response {
            Response::Asked(_, question) => refuse(format!("{word:?} does not say which: {question}")),
            Response::Missing(part, Some(unmet)) if is_yes => {
                let mut request = GroundingRequest { text: text.to_owned(), ..self.request.clone() };
                if let Some(reference) = reference_mut(&mut request.instruction, *part) {
                    match unmet {
                        UnmetConstraint::Attribute => {
                            reference.attributes.retain(|it| matches!(it.kind, AttributeKind::Size(_)));
                        }
                        UnmetConstraint::Relation => reference.relations.clear(),
                        UnmetConstraint::Count | UnmetConstraint::Object => {
                            reference.quantity = Quantity::All;
                        }
                        // Words do not bring it nearer.
                        UnmetConstraint::Reach | UnmetConstraint::Size => {}
                    }
                }
                Ok(request)
            }
            _ => refuse(format!("nothing was asked that {word:?} could answer: say what to do with what")),
        }
    }
}

/// Makes `reference` mean what the answer says of it.
fn answer_with(reference: &mut ObjectReference, answer: ObjectReference, was_asked: bool) {
    if answer.other {
        // Another than before: where the first was is no longer said.
        reference.other = true;
        reference.orders.clear();
        reference.answer = None;
        if was_asked || answer.orders.is_empty() && answer.relations.is_empty() {
            return;
        }
    }
    let (sizes, looks): (Vec<_>, Vec<_>) =
        answer.attributes.into_iter().partition(|it| matches!(it.kind, AttributeKind::Size(_)));
    // The newest word of a kind holds: "no, the red one".
    reference.attributes.retain(|old| !looks.iter().any(|new| new.kind == old.kind));
    reference.attributes.splice(0..0, looks);
    let says_place = !(answer.orders.is_empty() && answer.relations.is_empty() && sizes.is_empty());
    let says_number = answer.quantity != Quantity::One;
    if !says_place && !says_number {
        return;
    }
    let mut attributes = reference.attributes.clone();
    attributes.retain(|it| !matches!(it.kind, AttributeKind::Size(_)));
    attributes.extend(sizes);
    if was_asked || reference.answer.is_some() {
        let noun = reference.noun.clone();
        let refined = ObjectReference { noun, attributes, whole: None, answer: None, ..answer };
        reference.answer = Some(Box::new(refined));
    } else {
        reference.attributes = attributes;
        reference.orders = answer.orders;
        reference.relations = answer.relations;
        reference.quantity = answer.quantity;
    }
}

fn reference_mut(instruction: &mut Instruction, part: Part) -> Option<&mut ObjectReference> {
    let instruction = instruction.step_mut(part.step_idx)?;
    match part.role {
        ReferenceRole::Target(idx) => instruction.targets.get_mut(idx),
        ReferenceRole::Destination(idx) => instruction.destination.as_mut()?.landmarks.get_mut(idx),
        ReferenceRole::Tool => instruction.tool.as_mut(),
    }
}

/// "the red thing" is anything red; "the red one" is one of those spoken of.
fn names_a_thing(text: &str, reference: &ObjectReference) -> bool {
    let said = text.get(reference.span.clone()).map(words).unwrap_or_default();
    said.split(' ').any(|it| {
        matches!(it.trim_end_matches('s'), "thing" | "object" | "item" | "something" | "anything" | "stuff")
    })
}

/// Lower case, without punctuation.
fn words(text: &str) -> String {
    let plain: String =
        text.chars().map(|it| if it.is_alphanumeric() || it == '\'' { it } else { ' ' }).collect();
    plain.to_lowercase().split_whitespace().filter(|it| *it != "please").collect::<Vec<_>>().join(" ")
}

/// A leading yes or no, and what follows.
fn split_assent(said: &str) -> (Option<bool>, &str) {
    const ASSENTS: [(&str, bool); 11] = [
        ("yes", true),
        ("yeah", true),
        ("yep", true),
        ("sure", true),
        ("ok", true),
        ("okay", true),
        ("correct", true),
        ("exactly", true),
        ("that one", true),
        ("no", false),
        ("nope", false),
    ];
    for (word, is_yes) in ASSENTS {
        let Some(rest) = said.strip_prefix(word).filter(|it| it.is_empty() || it.starts_with(' ')) else {
            continue;
        };
        return (Some(is_yes), rest.trim());
    }
    (None, said)
}

/// Answers that are a number only.
fn several(said: &str) -> Option<Quantity> {
    match said {
        "both" | "both of them" => Some(Quantity::Exactly(2)),
        "all" | "all of them" | "every one" => Some(Quantity::All),
        "any" | "either" | "any of them" | "either one" | "any one" | "whichever" | "whatever" => {
            Some(Quantity::Any(1))
        }
        _ => None,
    }
}

fn bare(quantity: Quantity) -> Instruction {
    let reference = ObjectReference { noun: GENERIC_NOUN.to_owned(), quantity, ..ObjectReference::default() };
    Instruction { targets: vec![reference], ..Instruction::of(Action::Find) }
}
