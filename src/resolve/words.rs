//! Reasons and questions a person can read.

use super::{Candidate, ResolveOptions, relations};
use crate::instruction::{ObjectReference, Order, Relation, RelationKind};

/// Under this a thing is not said to be in, on or by another at all.
const UNCLEAR_FIT: f64 = 0.4;

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

/// "0.11 m left of the plate, the next best 0.42 m right of it".
pub(super) fn placed(
    relation: &Relation,
    best: usize,
    runner_up: Option<usize>,
    landmark: Option<usize>,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> String {
    let to =
        relation.landmarks.iter().map(|it| format!("the {}", it.query())).collect::<Vec<_>>().join(" and ");
    let measure = |idx: usize| match relation.kind {
        RelationKind::LeftOf | RelationKind::RightOf | RelationKind::InFrontOf | RelationKind::Behind => {
            landmark.and_then(|it| where_from(idx, it, candidates, options))
        }
        _ => None,
    };
    match (measure(best), runner_up.and_then(measure)) {
        (Some(best), Some(next)) => format!("{best} {to}, the next best {next} it"),
        (Some(best), None) => format!("{best} {to}"),
        (None, _) => format!("{} {to}", relation.kind.words()),
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
    options: &ResolveOptions,
) -> String {
    let phrase = reference.query();
    // Only what counts as such a thing is counted.
    let mut like: Vec<usize> = super::pool(&phrase, candidates, options).iter().map(|it| it.idx).collect();
    if let Some(&first) = like.first() {
        let right = |it: usize| offset(&candidates[it], &candidates[first], options).0.x;
        like.sort_by(|&a, &b| right(a).total_cmp(&right(b)));
    }
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
            [_] if like.len() == 1 => format!("the only {phrase} seen"),
            [one] => format!("{what}: score {:.2}", candidates[*one].detection.score),
            _ => what,
        }
    } else {
        format!("{what}: {}", notes.join(", "))
    }
}

/// "2 mugs: the left one by the plate or the right one?"
pub(super) fn question(
    reference: &ObjectReference,
    indices: &[usize],
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> String {
    let n = indices.len();
    let but = reference.out_of.filter(|it| *it < n).map_or(String::new(), |it| format!(", not {it}"));
    let things = format!("{n} {}{but}", plural(&reference.query()));
    let marks: Vec<String> = indices.iter().map(|&it| mark(it, indices, candidates, options)).collect();
    if let [a, b] = *indices {
        let (offset, with_depth) = offset(&candidates[a], &candidates[b], options);
        let [right, forward, up] = [offset.x.abs(), offset.y.abs(), offset.z.abs()];
        // In the image, forward and up are one direction.
        let (along, sides) = if right >= up && right >= forward {
            (offset.x, ("left", "right"))
        } else if with_depth && forward >= up {
            (offset.y, ("front", "back"))
        } else {
            (-offset.z, ("upper", "lower"))
        };
        let (first, second) = if along <= 0.0 { (0, 1) } else { (1, 0) };
        return format!(
            "{things}: the {} one{} or the {} one{}?",
            sides.0, marks[first], sides.1, marks[second]
        );
    }
    let names = ["first", "second", "third", "fourth", "fifth", "sixth"];
    if reference.quantity.count().is_some_and(|it| it > 1) || n > names.len() {
        return format!("{things}: which of them?");
    }
    // Named from the left, whichever is best.
    let mut from_left: Vec<usize> = (0..n).collect();
    let right = |it: usize| offset(&candidates[indices[it]], &candidates[indices[0]], options).0.x;
    from_left.sort_by(|&a, &b| right(a).total_cmp(&right(b)));
    let named: Vec<String> =
        names.iter().zip(&from_left).map(|(name, &it)| format!("{name}{}", marks[it])).collect();
    format!("{things}: the {} or {} from the left?", named[..n - 1].join(", "), named[n - 1])
}

/// " by the plate": what one of `indices` stands at and the others do not; empty when nothing seen tells them apart.
fn mark(one: usize, indices: &[usize], candidates: &[Candidate], options: &ResolveOptions) -> String {
    // What stands behind another covers a part of it too: "in" and "on" must be sure.
    const PLACES: [(RelationKind, &str, f64); 3] =
        [(RelationKind::In, "in", 0.9), (RelationKind::On, "on", 0.9), (RelationKind::NextTo, "by", 0.6)];
    let fit = |kind, idx: usize, landmark: &Candidate| {
        relations::fit(kind, &candidates[idx], landmark, &options.view)
    };
    let of_kind = &candidates[one].detection.phrase;
    let is_landmark = |it: &Candidate| {
        it.detection.score >= options.threshold_of(&it.detection.phrase)
            && !is_phrase(&it.detection.phrase, of_kind)
            && !indices.iter().any(|&idx| relations::is_same_thing(&candidates[idx], it))
    };
    for (kind, word, clear_fit) in PLACES {
        let best = candidates
            .iter()
            .filter(|it| is_landmark(it))
            .map(|it| (it, fit(kind, one, it)))
            .filter(|(_, fit)| *fit > clear_fit)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((landmark, _)) = best else { continue };
        let phrase = &landmark.detection.phrase;
        let is_alike = |it: &&Candidate| is_phrase(&it.detection.phrase, phrase);
        let others_too = indices
            .iter()
            .filter(|it| **it != one)
            .any(|&other| candidates.iter().filter(is_alike).any(|it| fit(kind, other, it) > UNCLEAR_FIT));
        if !others_too {
            let article = if candidates.iter().filter(is_alike).count() == 1 { "the" } else { "a" };
            return format!(" {word} {article} {phrase}");
        }
    }
    String::new()
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
    let (offset, with_depth) = offset(&candidates[target], &candidates[landmark], options);
    let (right, forward) = (offset.x, offset.y);
    if !(right.is_finite() && forward.is_finite()) {
        return None;
    }
    let (amount, side) = if right.abs() >= forward.abs() {
        (right.abs(), if right < 0.0 { "left of" } else { "right of" })
    } else {
        (forward.abs(), if forward < 0.0 { "in front of" } else { "behind" })
    };
    Some(if with_depth { format!("{amount:.2} m {side}") } else { format!("{amount:.0} px {side}") })
}

/// From `b` to `a`: (right, forward, up), in meters where both have depth, else in pixels.
fn offset(a: &Candidate, b: &Candidate, options: &ResolveOptions) -> (nalgebra::Vector3<f64>, bool) {
    let view = &options.view;
    match (a.position_in_camera, b.position_in_camera) {
        (Some(a), Some(b)) => (view.coordinates(&(a - b)), true),
        _ => (relations::place_px(a, view) - relations::place_px(b, view), false),
    }
}
