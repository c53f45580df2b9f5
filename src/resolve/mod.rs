//! Which candidate the words mean: attributes, relations, order, counts; pure.
//!
//! Candidates carry what a detector said and, where there is depth, where they are. Relations are graded between 0 and 1 in
//! 3D where both sides have a position, else in the image, with the same meaning. Landmarks are found the same way and are
//! weighed, not chosen: the pair that fits best together wins. What the words leave open is [`Resolution::Ambiguous`] with a
//! question, never the first match.

mod parts;
mod relations;
mod unseen;
mod words;

#[cfg(test)]
mod tests;

pub use self::parts::OF_WHOLE;
pub(crate) use self::relations::{is_one_box, share_inside};

use std::sync::Arc;

use nalgebra::Vector3;

use crate::candidate::Candidate;
use crate::instruction::{
    AttributeKind, GENERIC_NOUN, Instruction, ObjectReference, Order, OrderBy, Quantity, Relation,
    RelationKind,
};
use crate::options::Thresholds;
use crate::result::UnmetConstraint;
use crate::viewpoint::ViewAxes;

/// How words are held against candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolveOptions {
    /// How sure is sure enough.
    pub thresholds: Arc<Thresholds>,
    /// From where "left" and "behind" are seen.
    pub view: ViewAxes,
    /// What was meant before: "the other one" is none of these.
    pub previous: Vec<Candidate>,
    /// What may be a landmark, but no target.
    pub excluded: Vec<Excluded>,
}

/// A candidate that is no target, whatever the words say.
#[derive(Debug, Clone, PartialEq)]
pub struct Excluded {
    /// Into the candidates.
    pub idx: usize,
    /// What is missing where the words mean it.
    pub missing: UnmetConstraint,
    /// Why, as a sentence about it.
    pub reason: String,
}

/// What the words mean. Indices are into the candidates given.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// These, best first.
    Found {
        /// As many as the words ask for.
        indices: Vec<usize>,
        /// Why these, for a person.
        reason: String,
    },
    /// One of these; the words do not say which.
    Ambiguous {
        /// The ones not told apart, best first.
        indices: Vec<usize>,
        /// What to ask back.
        question: String,
    },
    /// Nothing fits.
    NotFound {
        /// Which part of the words.
        missing: UnmetConstraint,
        /// The phrase of the thing that is missing, which may be a landmark.
        phrase: String,
        /// The nearest thing seen, an index into the candidates.
        nearest: Option<usize>,
        /// What is missing, and the nearest thing seen, for a person.
        reason: String,
    },
}

/// What an instruction's references mean together: nothing is its own destination.
#[derive(Debug, Clone, PartialEq)]
pub struct InstructionResolution {
    /// One per target of the instruction.
    pub targets: Vec<Resolution>,
    /// One per landmark of the destination; empty without one.
    pub destination: Vec<Resolution>,
    /// What to do it with.
    pub tool: Option<Resolution>,
}

/// Which of the candidates `reference` means.
pub fn resolve(
    reference: &ObjectReference,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Resolution {
    resolve_without(reference, candidates, &[], options)
}

/// [`resolve`] for every target and destination of an instruction (not of what comes `then`). What is a target is no destination, and
/// a whole is no answer for a part of it.
///
/// ```
/// use language_grounding::candidate::Candidate;
/// use language_grounding::detection::{BoundingBox2d, Detection2d};
/// use language_grounding::instruction::{Vocabulary, parse};
/// use language_grounding::resolve::{Resolution, ResolveOptions, resolve_instruction};
///
/// let mug = |x0: f64| Candidate {
///     detection: Detection2d::new("mug", BoundingBox2d { x0, y0: 200.0, x1: x0 + 60.0, y1: 270.0 }, 0.9),
///     position_in_camera: None,
///     size_m: None,
///     body: None,
/// };
/// let candidates = [mug(100.0), mug(400.0)];
/// let resolved = |text: &str| {
///     let instruction = parse(text, &Vocabulary::default()).unwrap();
///     resolve_instruction(&instruction, &candidates, &ResolveOptions::default()).targets.remove(0)
/// };
/// assert!(matches!(resolved("take the left mug"), Resolution::Found { indices, .. } if indices == [0]));
/// // What the words leave open is a question, never the first match.
/// assert!(matches!(resolved("take the mug"), Resolution::Ambiguous { indices, .. } if indices.len() == 2));
/// ```
pub fn resolve_instruction(
    instruction: &Instruction,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> InstructionResolution {
    // What must be left alone is none of the targets.
    let left_alone: Vec<usize> = instruction
        .avoid
        .iter()
        .filter_map(|it| survivors(it, candidates, None, &[], options).ok())
        .flat_map(|it| it.weighed)
        .map(|it| it.idx)
        .collect();
    let excluded = options.excluded.iter().map(|it| it.idx);
    let no_targets: Vec<usize> = left_alone.iter().copied().chain(excluded).collect();
    let mut taken = left_alone;
    let targets = instruction
        .targets
        .iter()
        .map(|reference| {
            let resolution = resolve_without(reference, candidates, &no_targets, options);
            let resolution = parts::refuse_whole(reference, resolution, candidates);
            if let Resolution::Found { indices, .. } = &resolution {
                taken.extend_from_slice(indices);
            }
            resolution
        })
        .collect();
    let landmarks = instruction.destination.iter().flat_map(|it| &it.landmarks);
    let destination = landmarks
        .map(|it| parts::refuse_whole(it, resolve_without(it, candidates, &taken, options), candidates))
        .collect();
    let tool = instruction.tool.as_ref().map(|it| resolve_without(it, candidates, &taken, options));
    InstructionResolution { targets, destination, tool }
}

/// How well each candidate that `reference` may mean stands where its relations say: index and fit, [0, 1]. Empty where the words
/// tell no place, or a landmark is not seen. Rankings ("closest to") are no fits.
pub fn relation_fits(
    reference: &ObjectReference,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Vec<(usize, f64)> {
    let mut fits: Vec<(usize, f64)> =
        pool(&reference.query(), candidates, options).into_iter().map(|it| (it.idx, 1.0)).collect();
    let mut n_relations = 0;
    for relation in placing(reference) {
        let Ok(landmarks) = landmarks_of(relation, candidates, options) else { return Vec::new() };
        n_relations += 1;
        for (idx, fit) in &mut fits {
            *fit *= relation_fit(relation, *idx, &landmarks, candidates, options);
        }
    }
    if n_relations == 0 { Vec::new() } else { fits }
}

impl Default for ResolveOptions {
    fn default() -> Self {
        Self {
            thresholds: Arc::default(),
            view: ViewAxes::camera(),
            previous: Vec::new(),
            excluded: Vec::new(),
        }
    }
}

impl ResolveOptions {
    fn threshold_of(&self, phrase: &str) -> f32 {
        self.thresholds.threshold_of(phrase)
    }

    fn ambiguity_margin_of(&self, phrase: &str) -> f64 {
        self.thresholds.ambiguity_margin_of(phrase)
    }
}

/// Relations that fit less are not meant.
const MIN_FIT: f64 = 0.5;

/// Ranked neighbors closer than this share of their spread and their noise are a tie.
const TIE_M: f64 = 0.01;
const TIE_SHARE_OF_SIZE: f64 = 0.08;

/// A candidate that is still in question.
#[derive(Debug, Clone, Copy)]
struct Weighed {
    idx: usize,
    /// Detector's score times the fit of all relations, [0, 1].
    weight: f64,
}

/// What speaks for a reference before counting.
struct Survivors {
    weighed: Vec<Weighed>,
    /// The words picked one place in a row: the first entry is it, the others tie with it.
    picked: bool,
    /// Why, for a person: about the first entry.
    notes: Vec<String>,
}

fn resolve_without(
    reference: &ObjectReference,
    candidates: &[Candidate],
    taken: &[usize],
    options: &ResolveOptions,
) -> Resolution {
    let resolve_among = |reference: &ObjectReference, among: Option<&[usize]>| match survivors(
        reference, candidates, among, taken, options,
    ) {
        Ok(survivors) => count(reference, candidates, survivors, options),
        Err(absence) => absence.into(),
    };
    if !reference.alternatives.is_empty() {
        return first_found(reference, |it| resolve_without(it, candidates, taken, options));
    }
    match (&reference.answer, resolve_among(reference, None)) {
        (Some(answer), Resolution::Ambiguous { indices, .. }) => resolve_among(answer, Some(&indices)),
        (_, resolution) => resolution,
    }
}

/// "either the red mug or the blue one": the first that is found; else what is to be said of the first.
fn first_found(reference: &ObjectReference, resolve: impl Fn(&ObjectReference) -> Resolution) -> Resolution {
    let alone = ObjectReference { alternatives: Vec::new(), ..reference.clone() };
    let all: Vec<Resolution> = std::iter::once(&alone).chain(&reference.alternatives).map(resolve).collect();
    let is_found = |it: &&Resolution| matches!(it, Resolution::Found { .. });
    let is_seen = |it: &&Resolution| !matches!(it, Resolution::NotFound { .. });
    let best = all.iter().find(is_found).or_else(|| all.iter().find(is_seen)).unwrap_or(&all[0]);
    best.clone()
}

/// Why nothing is left.
struct Absence {
    missing: UnmetConstraint,
    phrase: String,
    nearest: Option<usize>,
    reason: String,
}

impl From<Absence> for Resolution {
    fn from(absence: Absence) -> Self {
        let Absence { missing, phrase, nearest, reason } = absence;
        Self::NotFound { missing, phrase, nearest, reason }
    }
}

/// Candidates of the phrase (of those `among`, if given) that stand where the words say; an error says what is missing.
fn survivors(
    reference: &ObjectReference,
    candidates: &[Candidate],
    among: Option<&[usize]>,
    taken: &[usize],
    options: &ResolveOptions,
) -> Result<Survivors, Absence> {
    let phrase = reference.query();
    let mut notes = Vec::new();
    let mut pool = pool(&phrase, candidates, options);
    if let Some(among) = among {
        pool.retain(|it| among.contains(&it.idx));
    }
    if reference.other {
        leave_out_previous(&phrase, &mut pool, candidates, options)?;
    }
    exclude(reference, &mut pool, candidates, options);
    if let Some(whole) = &reference.whole {
        let wholes = survivors(whole, candidates, None, &[], options)?;
        pool.retain(|it| is_within(it, &wholes, candidates));
        if pool.is_empty() {
            let note =
                format!("the {phrase} was not seen by itself: this is the {} it belongs to", whole.query());
            return Ok(Survivors { notes: vec![note], ..wholes });
        }
        if pool.iter().all(|it| parts::is_of_whole(&candidates[it.idx])) {
            notes.push(format!("not seen by itself, but placed within the {} that was seen", whole.query()));
        }
    }
    if pool.is_empty() {
        let reason = words::none_seen(&phrase, candidates, options.threshold_of(&phrase));
        return Err(absent(&phrase, UnmetConstraint::Object, None, reason));
    }
    let is_free = |it: &Weighed| {
        !taken.iter().any(|&taken| {
            taken == it.idx || relations::is_same_thing(&candidates[taken], &candidates[it.idx])
        })
    };
    if pool.iter().all(|it| !is_free(it)) {
        if let Some(absence) = excluded(&phrase, &pool, taken, options) {
            return Err(absence);
        }
        let reason = format!("the only {phrase} seen is the one to be moved");
        return Err(absent(&phrase, UnmetConstraint::Object, None, reason));
    }
    for relation in placing(reference) {
        pool = standing_there(reference, relation, pool, &mut notes, candidates, options)?;
    }
    pool.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    if let Some(n) = reference.out_of {
        // "the leftmost of the three": of three, or it is not clear which row is meant.
        if pool.len() < n {
            let reason =
                format!("the words speak of {n} {}, only {} seen", words::plural(&phrase), pool.len());
            return Err(absent(&phrase, UnmetConstraint::Count, pool.first().map(|it| it.idx), reason));
        }
        if !is_cut_clear(&pool, n, options.ambiguity_margin_of(&phrase)) {
            return Ok(Survivors { weighed: pool, picked: true, notes });
        }
        pool.truncate(n);
    }
    let ranked = ranked(reference, &pool, &mut notes, candidates, options)?;
    let picked = ranked.is_some();
    let mut weighed = ranked.unwrap_or(pool);
    let meant = weighed.clone();
    weighed.retain(is_free);
    if weighed.is_empty() {
        if let Some(absence) = excluded(&phrase, &meant, taken, options) {
            return Err(absence);
        }
        let reason = format!("the {phrase} these words mean is the one to be moved");
        return Err(absent(&phrase, UnmetConstraint::Object, None, reason));
    }
    Ok(Survivors { weighed, picked, notes })
}

/// Why the best of those that are meant, none of which is free, is no target, where it is for more than the words.
fn excluded(phrase: &str, meant: &[Weighed], taken: &[usize], options: &ResolveOptions) -> Option<Absence> {
    let of = |idx: usize| options.excluded.iter().find(|it| it.idx == idx && taken.contains(&idx));
    let why = meant.iter().find_map(|it| of(it.idx))?;
    Some(absent(phrase, why.missing, Some(why.idx), why.reason.clone()))
}

fn absent(phrase: &str, missing: UnmetConstraint, nearest: Option<usize>, reason: String) -> Absence {
    Absence { missing, phrase: phrase.to_owned(), nearest, reason }
}

/// "the other cup": none that was meant before.
fn leave_out_previous(
    phrase: &str,
    pool: &mut Vec<Weighed>,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Result<(), Absence> {
    let was_meant =
        |it: &Weighed| options.previous.iter().any(|before| relations::is_still(before, &candidates[it.idx]));
    let n_all = pool.len();
    pool.retain(|it| !was_meant(it));
    if pool.is_empty() && n_all > 0 {
        let reason = format!("no other {phrase} seen than the one spoken of before");
        return Err(absent(phrase, UnmetConstraint::Object, None, reason));
    }
    Ok(())
}

/// Whether a part lies in the box of one of the wholes.
fn is_within(part: &Weighed, wholes: &Survivors, candidates: &[Candidate]) -> bool {
    let part_box = &candidates[part.idx].detection.bbox;
    wholes.weighed.iter().any(|whole| {
        let inside = relations::share_inside(part_box, &candidates[whole.idx].detection.bbox);
        inside >= MIN_FIT && whole.idx != part.idx
    })
}

/// Those of the pool, which is not empty, that stand to the relation's landmarks as the words say, by how well they fit.
fn standing_there(
    reference: &ObjectReference,
    relation: &Relation,
    pool: Vec<Weighed>,
    notes: &mut Vec<String>,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Result<Vec<Weighed>, Absence> {
    let landmarks = match landmarks_of(relation, candidates, options) {
        Err(_) if relation.negated => return Ok(pool), // "not on the plate", and there is no plate
        Err(_) if unseen::is_allowed(relation) => {
            notes.push(unseen::note(relation));
            return Ok(unseen::kept(relation, &pool, candidates));
        }
        landmarks => landmarks?,
    };
    let mut fits: Vec<(Weighed, f64)> = pool
        .iter()
        .map(|&it| (it, relation_fit(relation, it.idx, &landmarks, candidates, options)))
        .collect();
    fits.sort_by(|a, b| b.1.total_cmp(&a.1));
    let best = fits[0].0.idx;
    let landmark = landmarks.first().and_then(|it| it.first()).map(|it| it.idx);
    let fitting: Vec<Weighed> = fits
        .iter()
        .filter(|(_, fit)| *fit >= MIN_FIT)
        .map(|(it, fit)| Weighed { weight: it.weight * fit, ..*it })
        .collect();
    if fitting.is_empty() {
        let reason = words::none_placed(reference, relation, best, landmark, candidates, options);
        return Err(absent(&reference.query(), UnmetConstraint::Relation, Some(best), reason));
    }
    let runner_up = fits.get(1).filter(|(_, fit)| *fit < MIN_FIT).map(|it| it.0.idx);
    notes.push(words::placed(relation, best, runner_up, landmark, candidates, options));
    Ok(fitting)
}

/// Those that an order ("second from the left") or a closeness picks; none where the words rank nothing.
fn ranked(
    reference: &ObjectReference,
    pool: &[Weighed],
    notes: &mut Vec<String>,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Result<Option<Vec<Weighed>>, Absence> {
    let closest = reference.relations.iter().find(|it| is_ranking(it.kind));
    let orders = orders_of(reference);
    let rank = rank_of(closest, &orders);
    let is_ranked = closest.is_some() || !orders.is_empty();
    if rank <= 1 && !(is_ranked && reference.quantity != Quantity::All && pool.len() > 1) {
        return Ok(None);
    }
    let keys = if let Some(relation) = closest {
        let landmarks = landmarks_of(relation, candidates, options)?;
        closeness_keys(relation, pool, &landmarks, candidates)
    } else {
        order_keys(&orders, pool, candidates, options)
    };
    let picked = pick(pool, &keys, rank, reference.quantity.count().unwrap_or(1)).ok_or_else(|| {
        let phrase = reference.query();
        let reason = format!("asked for {phrase} number {rank}, only {} seen", pool.len());
        absent(&phrase, UnmetConstraint::Count, pool.first().map(|it| it.idx), reason)
    })?;
    notes.push(match closest {
        Some(relation) => words::closest(relation, picked.first().map(|it| it.idx), candidates, options),
        None => orders.iter().map(|it| words::order_name(*it)).collect::<Vec<_>>().join(" and "),
    });
    Ok(Some(picked))
}

/// Takes what the words except out of the pool: "all but the red one", "that is not red".
fn exclude(
    reference: &ObjectReference,
    pool: &mut Vec<Weighed>,
    candidates: &[Candidate],
    options: &ResolveOptions,
) {
    let negated = reference.attributes.iter().filter(|it| it.negated);
    let looks =
        negated.flat_map(|it| self::pool(&format!("{} {}", it.word, reference.noun), candidates, options));
    let excepted =
        reference.except.iter().filter_map(|it| survivors(it, candidates, None, &[], options).ok());
    let out: Vec<usize> = looks.chain(excepted.flat_map(|it| it.weighed)).map(|it| it.idx).collect();
    pool.retain(|it| {
        !out.iter()
            .any(|&out| out == it.idx || relations::is_same_thing(&candidates[out], &candidates[it.idx]))
    });
}

/// Detections of the phrase over the threshold, each thing once, by falling score.
fn pool(phrase: &str, candidates: &[Candidate], options: &ResolveOptions) -> Vec<Weighed> {
    let of_phrase = |phrase: &str| -> Vec<Weighed> {
        let threshold = options.threshold_of(phrase);
        let sure = candidates.iter().enumerate().filter(|(_, it)| it.detection.score >= threshold);
        sure.filter(|(_, it)| words::is_phrase(&it.detection.phrase, phrase))
            .map(|(idx, it)| Weighed { idx, weight: f64::from(it.detection.score) })
            .collect()
    };
    let mut pool = of_phrase(phrase);
    if pool.is_empty() && phrase == GENERIC_NOUN {
        // A model that has nothing for "object" has seen objects all the same.
        let sure = |it: &Candidate| it.detection.score >= options.threshold_of(&it.detection.phrase);
        pool = (0..candidates.len())
            .filter(|&idx| sure(&candidates[idx]))
            .map(|idx| Weighed { idx, weight: f64::from(candidates[idx].detection.score) })
            .collect();
    }
    pool.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let mut distinct: Vec<Weighed> = Vec::new();
    for it in pool {
        if !distinct.iter().any(|kept| relations::is_same_thing(&candidates[kept.idx], &candidates[it.idx])) {
            distinct.push(it);
        }
    }
    distinct
}

/// Candidates for each landmark of a relation; never empty lists.
fn landmarks_of(
    relation: &Relation,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Result<Vec<Vec<Weighed>>, Absence> {
    relation
        .landmarks
        .iter()
        .map(|it| {
            let mut found = survivors(it, candidates, None, &[], options)?;
            let is_of_more = it.out_of.is_some_and(|n| found.weighed.len() > n);
            if found.picked && !is_of_more {
                // A landmark that was pointed out is that one, or those that tie with it.
                found.weighed.truncate(it.quantity.count().unwrap_or(1).max(1));
            }
            Ok(found.weighed)
        })
        .collect()
}

/// The best fit over the landmarks a relation may mean; a thing is never its own landmark.
fn relation_fit(
    relation: &Relation,
    target_idx: usize,
    landmarks: &[Vec<Weighed>],
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> f64 {
    let fit = plain_fit(relation, target_idx, landmarks, candidates, options);
    if relation.negated { 1.0 - fit } else { fit }
}

fn plain_fit(
    relation: &Relation,
    target_idx: usize,
    landmarks: &[Vec<Weighed>],
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> f64 {
    let target = &candidates[target_idx];
    let usable = |landmarks: &[Weighed]| -> Vec<Weighed> {
        let other = landmarks
            .iter()
            .filter(|it| it.idx != target_idx && !relations::is_same_thing(target, &candidates[it.idx]));
        other.copied().collect()
    };
    let lists: Vec<Vec<Weighed>> = landmarks.iter().map(|it| usable(it)).collect();
    if relation.kind == RelationKind::Between {
        let (first, second) = match &lists[..] {
            [both] => (both, both),
            [first, second, ..] => (first, second),
            [] => return 0.0,
        };
        let pairs =
            first.iter().flat_map(|a| second.iter().map(move |b| (a, b))).filter(|(a, b)| a.idx != b.idx);
        let fits = pairs.map(|(a, b)| relations::between(target, &candidates[a.idx], &candidates[b.idx]));
        return fits.fold(0.0, f64::max);
    }
    let Some(list) = lists.first() else { return 1.0 };
    let best = list.iter().map(|it| it.weight).fold(f64::EPSILON, f64::max);
    let fits = list.iter().map(|it| {
        // Landmarks seen less surely count less, but only against each other.
        let sure = 0.8 + 0.2 * (it.weight / best);
        let landmark = &candidates[it.idx];
        let far = relation.distance_m.map_or(1.0, |it| relations::at_distance(target, landmark, it));
        // "two inches from the plate" is told by the distance alone.
        let placed = match (relation.kind, relation.distance_m) {
            (RelationKind::Near, Some(_)) => 1.0,
            (kind, _) => relations::fit(kind, target, landmark, &options.view),
        };
        sure * far * placed
    });
    let all_of_them = relation.landmarks.first().is_some_and(|it| it.quantity == Quantity::All)
        && !matches!(
            relation.kind,
            RelationKind::On
                | RelationKind::In
                | RelationKind::From
                | RelationKind::NextTo
                | RelationKind::Near
        );
    if all_of_them && !list.is_empty() { fits.fold(1.0, f64::min) } else { fits.fold(0.0, f64::max) }
}

/// The orders said, and relative sizes as weaker ones.
fn orders_of(reference: &ObjectReference) -> Vec<Order> {
    let sizes = reference.attributes.iter().filter_map(|it| match it.kind {
        AttributeKind::Size(by) => Some(Order { by, rank: 1 }),
        _ => None,
    });
    reference.orders.iter().copied().chain(sizes).collect()
}

fn rank_of(closest: Option<&Relation>, orders: &[Order]) -> usize {
    closest.map_or_else(|| orders.iter().map(|it| it.rank).max().unwrap_or(1), |it| it.rank)
}

/// How much of something a thing has.
type Measure<T> = fn(&T) -> f64;

/// Values to rank by, smallest first, and how close two must be to tie.
struct Keys {
    values: Vec<f64>,
    tie: f64,
}

fn order_keys(
    orders: &[Order],
    pool: &[Weighed],
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> Keys {
    let keys: Vec<Keys> = orders.iter().map(|it| keys_by(it.by, pool, candidates, options)).collect();
    if keys.len() == 1 {
        return keys.into_iter().next().unwrap_or(Keys { values: Vec::new(), tie: 0.0 });
    }
    // "the back left one": each on its own scale, together.
    let mut values = vec![0.0; pool.len()];
    for keys in keys {
        let lowest = keys.values.iter().copied().fold(f64::INFINITY, f64::min);
        let spread = keys.values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - lowest;
        for (value, key) in values.iter_mut().zip(&keys.values) {
            *value += (key - lowest) / spread.max(keys.tie).max(f64::EPSILON);
        }
    }
    Keys { values, tie: 0.08 }
}

fn keys_by(by: OrderBy, pool: &[Weighed], candidates: &[Candidate], options: &ResolveOptions) -> Keys {
    let things: Vec<&Candidate> = pool.iter().map(|it| &candidates[it.idx]).collect();
    let with_depth = things.iter().all(|it| it.position_in_camera.is_some());
    let with_size = with_depth && things.iter().all(|it| it.size_m.is_some());
    let mean_px =
        things.iter().map(|it| it.detection.bbox.area().sqrt()).sum::<f64>() / things.len().max(1) as f64;
    // Places along right (0), forward (1) or up (2).
    let along = |axis: usize| -> Keys {
        let place = |it: &Candidate| match it.position_in_camera.filter(|_| with_depth) {
            Some(position) => options.view.coordinates(&position.coords)[axis],
            None => relations::place_px(it, &options.view)[axis],
        };
        let tie = if with_depth { TIE_M } else { TIE_SHARE_OF_SIZE * mean_px };
        Keys { values: things.iter().map(|it| place(it)).collect(), tie }
    };
    // Extents: of the bodies where they are known; else meters along the camera's axes; else pixels times distance; else pixels.
    let with_body = things.iter().all(|it| it.body.is_some());
    let extent =
        |of_body: Measure<Vector3<f64>>, measured: Measure<Vector3<f64>>, seen: Measure<Candidate>| {
            let values: Vec<f64> = things
                .iter()
                .map(|it| match (&it.body, &it.size_m, it.position_in_camera) {
                    (Some(body), ..) if with_body => of_body(&body.size_m),
                    (_, Some(size), _) if with_size => measured(size),
                    (.., Some(p)) if with_depth => seen(it) * p.z,
                    _ => seen(it),
                })
                .collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            Keys { values, tie: TIE_SHARE_OF_SIZE * mean }
        };
    let area = || {
        extent(
            |size| (size.x * size.y * size.z).max(0.0).cbrt(),
            |size| (size.x * size.y).max(0.0).sqrt(),
            |it| it.detection.bbox.area().sqrt(),
        )
    };
    let height = || extent(|size| size.z, |size| size.y, |it| it.detection.bbox.height());
    let width = || extent(|size| size.x, |size| size.x, |it| it.detection.bbox.width());
    match by {
        OrderBy::Leftmost => along(0),
        OrderBy::Rightmost => negated(along(0)),
        OrderBy::Nearest => along(1),
        OrderBy::Farthest => negated(along(1)),
        OrderBy::Lowest => along(2),
        OrderBy::Highest => negated(along(2)),
        OrderBy::Middle => {
            let values =
                things.iter().map(|it| things.iter().map(|other| relations::distance(it, other)).sum());
            Keys {
                values: values.collect(),
                tie: if with_depth { TIE_M } else { TIE_SHARE_OF_SIZE * mean_px },
            }
        }
        OrderBy::Smallest => area(),
        OrderBy::Largest => negated(area()),
        OrderBy::Shortest => height(),
        OrderBy::Tallest => negated(height()),
        OrderBy::Narrowest => width(),
        OrderBy::Widest => negated(width()),
    }
}

fn negated(mut keys: Keys) -> Keys {
    for value in &mut keys.values {
        *value = -*value;
    }
    keys
}

/// Distance to the nearest landmark that is another thing.
fn closeness_keys(
    relation: &Relation,
    pool: &[Weighed],
    landmarks: &[Vec<Weighed>],
    candidates: &[Candidate],
) -> Keys {
    let values: Vec<f64> = pool
        .iter()
        .map(|it| {
            let others = landmarks.iter().flatten().filter(|landmark| {
                landmark.idx != it.idx
                    && !relations::is_same_thing(&candidates[landmark.idx], &candidates[it.idx])
            });
            let nearest = others
                .map(|landmark| relations::distance(&candidates[it.idx], &candidates[landmark.idx]))
                .fold(f64::INFINITY, f64::min);
            // What has no other landmark is out of question either way.
            match relation.kind {
                RelationKind::FarthestFrom if nearest.is_finite() => -nearest,
                _ => nearest,
            }
        })
        .collect();
    let with_depth = pool.iter().all(|it| candidates[it.idx].position_in_camera.is_some());
    let mean_px = pool.iter().map(|it| candidates[it.idx].detection.bbox.area().sqrt()).sum::<f64>()
        / pool.len().max(1) as f64;
    Keys { values, tie: if with_depth { TIE_M } else { TIE_SHARE_OF_SIZE * mean_px } }
}

/// The `n` things from place `rank` on, then those that tie with the last of them. `None` when there are not so many.
fn pick(pool: &[Weighed], keys: &Keys, rank: usize, n: usize) -> Option<Vec<Weighed>> {
    let mut order: Vec<usize> = (0..pool.len()).filter(|&it| keys.values[it].is_finite()).collect();
    order.sort_by(|&a, &b| keys.values[a].total_cmp(&keys.values[b]).then(pool[a].idx.cmp(&pool[b].idx)));
    let first = rank.checked_sub(1)?;
    let last = (first + n.max(1)).min(order.len()).checked_sub(1).filter(|it| *it >= first)?;
    let mut chosen: Vec<usize> = order[first..=last].to_vec();
    if n <= 1 {
        let value = keys.values[order[first]];
        chosen.extend(
            order.iter().filter(|&&it| it != order[first] && (keys.values[it] - value).abs() <= keys.tie),
        );
    } else if let Some(&next) = order.get(last + 1)
        && (keys.values[next] - keys.values[order[last]]).abs() <= keys.tie
    {
        chosen.push(next);
    }
    Some(chosen.into_iter().map(|it| pool[it]).collect())
}

/// As many as the words ask for.
fn count(
    reference: &ObjectReference,
    candidates: &[Candidate],
    survivors: Survivors,
    options: &ResolveOptions,
) -> Resolution {
    let Survivors { mut weighed, picked, notes } = survivors;
    if !picked {
        weighed.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.idx.cmp(&b.idx)));
    }
    let indices = |weighed: &[Weighed]| weighed.iter().map(|it| it.idx).collect::<Vec<_>>();
    let found = |weighed: &[Weighed]| {
        let indices = indices(weighed);
        let reason = words::reason(reference, &indices, &notes, candidates, options);
        Resolution::Found { indices, reason }
    };
    let ambiguous = |weighed: &[Weighed]| {
        let indices = indices(weighed);
        let question = words::question(reference, &indices, candidates, options);
        Resolution::Ambiguous { indices, question }
    };
    let few = |wanted: usize| Resolution::NotFound {
        missing: UnmetConstraint::Count,
        phrase: reference.query(),
        nearest: weighed.first().map(|it| it.idx),
        reason: format!(
            "asked for {wanted} {}, only {} there",
            words::plural(&reference.query()),
            weighed.len()
        ),
    };
    match reference.quantity {
        Quantity::All => found(&weighed),
        Quantity::Any(n) | Quantity::Exactly(n) if weighed.len() < n => few(n),
        Quantity::Any(n) => found(&weighed[..n.max(1)]),
        Quantity::Exactly(n) if weighed.len() == n => found(&weighed),
        Quantity::One | Quantity::Exactly(_) => {
            let n = reference.quantity.count().unwrap_or(1).max(1);
            if weighed.len() == n {
                return found(&weighed);
            }
            // Which one is "other" depends on what was spoken of; among several that is not in the words.
            let is_other_of_none = reference.other && options.previous.is_empty();
            if picked || is_other_of_none {
                return ambiguous(&weighed);
            }
            let least = weighed[n - 1].weight - options.ambiguity_margin_of(&reference.query());
            let near: Vec<Weighed> = weighed.iter().copied().filter(|it| it.weight > least).collect();
            if near.len() <= n { found(&weighed[..n]) } else { ambiguous(&near) }
        }
    }
}

/// Whether the `n` best of a pool, best first, stand out from the rest.
fn is_cut_clear(pool: &[Weighed], n: usize, margin: f64) -> bool {
    let Some(next) = pool.get(n) else { return true };
    n.checked_sub(1).is_some_and(|last| next.weight <= pool[last].weight - margin)
}

/// The relations that say where a thing is: neither rankings nor parts.
fn placing(reference: &ObjectReference) -> impl Iterator<Item = &Relation> {
    reference.relations.iter().filter(|it| !is_ranking(it.kind) && it.kind != RelationKind::With)
}

fn is_ranking(kind: RelationKind) -> bool {
    matches!(kind, RelationKind::ClosestTo | RelationKind::FarthestFrom)
}
