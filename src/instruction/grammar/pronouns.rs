//! What "it" and "them" stand for.

use super::{IT, THEM};
use crate::instruction::types::{
    Action, Instruction, ObjectReference, ParseError, Quantity, RelationKind, Span,
};

/// Puts what a pronoun stands for in its place.
pub(super) fn resolve_pronouns(
    task: &mut Instruction,
    previous: Option<&Instruction>,
) -> Result<(), ParseError> {
    let fixture = matches!(task.action, Action::Open | Action::Close | Action::TurnOn | Action::TurnOff);
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
    let referent = previous.and_then(main_place);
    if let Some(destination) = &mut task.destination {
        let relation = destination.relation;
        for landmark in &mut destination.landmarks {
            if landmark.noun == "there" && previous.is_some_and(|it| it.destination.is_some()) {
                IT.clone_into(&mut landmark.noun);
            }
            replace_landmark(landmark, relation, referent)?;
        }
        for also in &mut destination.also {
            for landmark in &mut also.landmarks {
                replace_landmark(landmark, also.kind, referent)?;
            }
        }
    }
    if let Some(tool) = &mut task.tool {
        replace_landmark(tool, RelationKind::With, referent)?;
    }
    task.targets = targets;
    Ok(())
}

/// What "it" means as a place after a task: where things were brought, else what was handled.
pub(super) fn main_place(previous: &Instruction) -> Option<&ObjectReference> {
    previous.destination.as_ref().and_then(|it| it.landmarks.first()).or(previous.targets.first())
}

pub(super) fn replace_in(
    thing: &mut ObjectReference,
    referent: Option<&ObjectReference>,
) -> Result<(), ParseError> {
    if let Some(whole) = &mut thing.whole {
        replace_landmark(whole, RelationKind::In, referent)?;
    }
    for other in thing.except.iter_mut().chain(&mut thing.alternatives) {
        replace_landmark(other, RelationKind::In, referent)?;
    }
    for relation in &mut thing.relations {
        let kind = relation.kind;
        for landmark in &mut relation.landmarks {
            replace_landmark(landmark, kind, referent)?;
        }
    }
    Ok(())
}

pub(super) fn replace_landmark(
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
        } else if relation == RelationKind::In && !holds {
            // "take the lid off the kettle and put the bread in it".
            let from = referent.relations.iter().find(|it| it.kind == RelationKind::From);
            referent = from.and_then(|it| it.landmarks.first()).unwrap_or(referent);
        }
        *landmark = referent.clone();
        return Ok(());
    }
    replace_in(landmark, referent)
}

/// "close the bottom drawer of the cabinet and open the top drawer": of the same cabinet.
pub(super) fn inherit_whole(task: &mut Instruction, previous: Option<&Instruction>) {
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

pub(super) fn unknown_pronoun(word: &str, span: &Span) -> ParseError {
    ParseError { message: format!("nothing was named before that {word:?} could mean"), span: span.clone() }
}
