//! Reasons and questions a person can read.

use super::{Candidate, ResolveOptions, relations};
use crate::instruction::{ObjectReference, Order, OrderBy, Relation, RelationKind};

/// Phrases are the same but for case and space.
pub(super) fn is_phrase(a: &str, b: &str) -> bool {
    a == b || a.trim().eq_ignore_ascii_case(b.trim())
}

pub(super) fn none_seen(phrase: &str, candidates: &[Candidate], threshold: f32) -> String {
    let scores =
        candidates.iter().filter(|it| is_phrase(&it.detection.phrase, phrase)).map(|it| it.detection.score);
    match scores.max_by(f32::total_cmp) {
        Some(score) => {
            format!("no {phrase} seen: the best candidate scores {score:.2}, under {threshold:.2}")
        }
        None => format!("no {phrase} seen"),
    }
}

/// "no mug left of the plate; the nearest fit is 0.12 m right of it".
pub(super) fn none_placed(
    reference: &ObjectReference,
    relation: &Relation,
    best: usize,
    landmark: Option<usize>,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> String {
    let phrase = reference.query();
    let to =
        relation.landmarks.iter().map(|it| format!("the {}", it.query())).collect::<Vec<_>>().join(" and ");
    let seen = landmark.and_then(|it| where_from(best, it, candidates, options));
    let words = relation.kind.words();
    match seen {
        Some(seen) => format!("there is a {phrase}, but none {words} {to}: the best is {seen} it"),
        None => format!("there is a {phrase}, but none {words} {to}"),
    }
}

/// "left of the plate: 0.11 m left of it".
pub(super) fn placed(
    relation: &Relation,
    best: usize,
    landmark: Option<usize>,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> String {
    let to =
        relation.landmarks.iter().map(|it| format!("the {}", it.query())).collect::<Vec<_>>().join(" and ");
    let measured = match relation.kind {
        RelationKind::LeftOf | RelationKind::RightOf | RelationKind::InFrontOf | RelationKind::Behind => {
            landmark.and_then(|it| where_from(best, it, candidates, options))
        }
        _ => None,
    };
    match measured {
        Some(measured) => format!("{measured} {to}"),
        None => format!("{} {to}", relation.kind.words()),
    }
}

pub(super) fn closest(
    relation: &Relation,
    best: Option<usize>,
    candidates: &[Candidate],
    _options: &ResolveOptions,
) -> String {
    let to =
        relation.landmarks.iter().map(|it| format!("the {}", it.query())).collect::<Vec<_>>().join(" and ");
    let words = relation.kind.words();
    let landmark = relation.landmarks.first().and_then(|it| {
        let phrase = it.query();
        let best = best?;
        let others = candidates
            .iter()
            .enumerate()
            .filter(|(idx, it)| *idx != best && is_phrase(&it.detection.phrase, &phrase));
        others
            .map(|(_, it)| (it, relations::distance(&candidates[best], it)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(it, _)| {
                it.position_in_camera.is_some() && candidates[best].position_in_camera.is_some()
            })
    });
    match landmark {
        Some((_, distance_m)) => format!("{words} {to} at {distance_m:.2} m"),
        None => format!("{words} {to}"),
    }
}

/// "second leftmost".
pub(super) fn order_name(order: Order) -> String {
    const RANKS: [&str; 10] =
        ["", "second ", "third ", "fourth ", "fifth ", "sixth ", "seventh ", "eighth ", "ninth ", "tenth "];
    match RANKS.get(order.rank.saturating_sub(1)) {
        Some(rank) => format!("{rank}{}", order.by.name()),
        None => format!("number {} of {}", order.rank, order.by.name()),
    }
}

/// "red mug 2 of 3 from the left: 0.11 m left of the plate".
pub(super) fn reason(
    reference: &ObjectReference,
    indices: &[usize],
    notes: &[String],
    candidates: &[Candidate],
) -> String {
    let phrase = reference.query();
    let mut like: Vec<usize> =
        (0..candidates.len()).filter(|&it| is_phrase(&candidates[it].detection.phrase, &phrase)).collect();
    like.sort_by(|&a, &b| {
        candidates[a].detection.bbox.center().0.total_cmp(&candidates[b].detection.bbox.center().0)
    });
    let what = match indices {
        [one] => match like.iter().position(|it| it == one) {
            Some(place) if like.len() > 1 => {
                format!("{phrase} {} of {} from the left", place + 1, like.len())
            }
            _ => candidates[*one].detection.phrase.clone(),
        },
        several => format!("{} {}", several.len(), plural(&phrase)),
    };
    if notes.is_empty() {
        match indices {
            [one] => format!("{what}: score {:.2}", candidates[*one].detection.score),
            _ => what,
        }
    } else {
        format!("{what}: {}", notes.join(", "))
    }
}

/// "2 mugs: the left one or the right one?"
pub(super) fn question(
    reference: &ObjectReference,
    indices: &[usize],
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> String {
    let phrase = plural(&reference.query());
    if let [a, b] = *indices {
        let (a, b) = (&candidates[a], &candidates[b]);
        let (first, second) = if let (Some(p), Some(q)) = (a.position_in_camera, b.position_in_camera) {
            let right = (p - q).dot(&options.view.right).abs();
            let up = (p - q).dot(&options.view.up).abs();
            let forward = (p - q).dot(&options.view.forward).abs();
            if right >= up && right >= forward {
                ("left", "right")
            } else if forward >= up {
                ("front", "back")
            } else {
                ("upper", "lower")
            }
        } else {
            let (p, q) = (a.detection.bbox.center(), b.detection.bbox.center());
            if (p.0 - q.0).abs() >= (p.1 - q.1).abs() { ("left", "right") } else { ("upper", "lower") }
        };
        return format!("2 {phrase}: the {first} one or the {second} one?");
    }
    let n = indices.len();
    let names = ["first", "second", "third", "fourth", "fifth", "sixth"];
    if reference.quantity.count().is_some_and(|it| it > 1) || n > names.len() {
        return format!("{n} {phrase}: which of them?");
    }
    let last = names[n - 1];
    format!("{n} {phrase}: the {} or {last} from the left?", names[..n - 1].join(", "))
}

/// The plural of a phrase's last word, as far as a message needs it.
pub(super) fn plural(phrase: &str) -> String {
    if phrase.ends_with(['s', 'x', 'z']) || phrase.ends_with("ch") || phrase.ends_with("sh") {
        format!("{phrase}es")
    } else {
        format!("{phrase}s")
    }
}

/// "0.11 m left of", by the largest offset on the ground.
fn where_from(
    target: usize,
    landmark: usize,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Option<String> {
    let (target, landmark) = (&candidates[target], &candidates[landmark]);
    let (amounts, unit) = if let (Some(p), Some(q)) = (target.position_in_camera, landmark.position_in_camera)
    {
        let offset = p - q;
        ((offset.dot(&options.view.right), offset.dot(&options.view.forward)), "m")
    } else {
        let (a, b) = (&target.detection.bbox, &landmark.detection.bbox);
        ((a.center().0 - b.center().0, b.y1 - a.y1), "px")
    };
    let (right, forward) = amounts;
    if !(right.is_finite() && forward.is_finite()) {
        return None;
    }
    let (amount, by) = if right.abs() >= forward.abs() {
        (right.abs(), if right < 0.0 { OrderBy::Leftmost } else { OrderBy::Rightmost })
    } else {
        (forward.abs(), if forward < 0.0 { OrderBy::Nearest } else { OrderBy::Farthest })
    };
    let side = match by {
        OrderBy::Leftmost => "left of",
        OrderBy::Rightmost => "right of",
        OrderBy::Nearest => "in front of",
        _ => "behind",
    };
    Some(if unit == "m" { format!("{amount:.2} m {side}") } else { format!("{amount:.0} px {side}") })
}
