//! Words of a place that need not be seen: where a thing is taken from, and the table or floor under everything.
//!
//! "Take the mug from the shelf" is about the mug, and it does not matter whether the shelf is in the picture, or whether the model has a
//! box for it; the same holds for "the mug on the table". What is seen must fit all the same: a mug that is seen elsewhere than on the plate
//! it shall be taken from is not meant.

use super::{Candidate, MIN_FIT, Weighed, relations};
use crate::instruction::{Relation, RelationKind};

/// What everything stands on, and rooms: large, often beyond the picture, and of no box.
const GROUNDS: [&str; 16] = [
    "table",
    "tabletop",
    "counter",
    "countertop",
    "worktop",
    "desk",
    "workbench",
    "floor",
    "ground",
    "surface",
    "room",
    "kitchen",
    "office",
    "top",
    "bench",
    "table top",
];

/// Whether a relation may be to something that is not seen.
pub(super) fn is_allowed(relation: &Relation) -> bool {
    match relation.kind {
        RelationKind::From => true,
        RelationKind::On => is_ground(relation),
        _ => false,
    }
}

/// Of a pool whose landmark is not seen, those that stand on the ground where that is what the words say; all if none does.
pub(super) fn kept(relation: &Relation, pool: &[Weighed], candidates: &[Candidate]) -> Vec<Weighed> {
    let stands = |it: &&Weighed| relations::on_the_ground(&candidates[it.idx], candidates) >= MIN_FIT;
    let standing: Vec<Weighed> = pool.iter().filter(stands).copied().collect();
    if is_ground(relation) && !standing.is_empty() { standing } else { pool.to_vec() }
}

/// "the table it is taken from was not seen".
pub(super) fn note(relation: &Relation) -> String {
    let names: Vec<String> = relation.landmarks.iter().map(|it| format!("the {}", it.query())).collect();
    format!("{} {}, which was not seen", relation.kind.words(), names.join(" and "))
}

fn is_ground(relation: &Relation) -> bool {
    relation.landmarks.iter().all(|it| GROUNDS.contains(&it.noun.as_str()))
}
