//! Parts and the wholes they belong to: a whole is never the answer for a part.

use super::{Candidate, Resolution, words};
use crate::instruction::ObjectReference;
use crate::result::UnmetConstraint;
use crate::score::part;

/// The name of the score part of a box that was not seen by itself but placed within the whole it belongs to: the score of the whole.
pub const OF_WHOLE: &str = "of_whole";

/// Whether a candidate was placed within its whole, not seen.
pub(super) fn is_of_whole(candidate: &Candidate) -> bool {
    part(&candidate.detection.score_parts, OF_WHOLE).is_some()
}

/// What stands for a part only because it is what the part belongs to is no answer: then the part is missing, and the whole is the nearest
/// thing seen.
pub(super) fn refuse_whole(
    reference: &ObjectReference,
    resolution: Resolution,
    candidates: &[Candidate],
) -> Resolution {
    let (Some(whole), Resolution::Found { indices, .. } | Resolution::Ambiguous { indices, .. }) =
        (&reference.whole, &resolution)
    else {
        return resolution;
    };
    let phrase = reference.query();
    if indices.iter().all(|&it| words::is_phrase(&candidates[it].detection.phrase, &phrase)) {
        return resolution;
    }
    let reason = format!("no {phrase} seen by itself, only the {} it belongs to", whole.query());
    Resolution::NotFound {
        missing: UnmetConstraint::Object,
        nearest: indices.first().copied(),
        phrase,
        reason,
    }
}
