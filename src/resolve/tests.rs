mod bodies;
mod classes;

use std::sync::Arc;

use nalgebra::{Isometry3, Point3, Rotation3, Translation3, UnitQuaternion, Vector3};

use super::{
    Candidate, InstructionResolution, Resolution, ResolveOptions, ViewAxes, relation_fits, resolve,
    resolve_instruction,
};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::instruction::{Vocabulary, parse};
use crate::options::{PhraseThresholds, Thresholds};

/// A thing on a table: x right, y away from the viewer, z up, meters; the middle of its foot.
#[derive(Debug, Clone)]
struct Thing {
    phrase: &'static str,
    foot: Point3<f64>,
    size: Vector3<f64>,
}

fn thing(phrase: &'static str, x: f64, y: f64) -> Thing {
    Thing { phrase, foot: Point3::new(x, y, 0.0), size: Vector3::new(0.06, 0.06, 0.08) }
}

/// A camera 0.8 m before the table's middle and 0.7 m above it, looking down at it.
fn camera_from_table() -> Isometry3<f64> {
    let tilt = (0.7_f64).atan2(0.8);
    // Optical axes (x right, y down, z forward) of a level camera, then tilted.
    let level = Rotation3::from_matrix_unchecked(nalgebra::Matrix3::new(
        1.0, 0.0, 0.0, //
        0.0, 0.0, -1.0, //
        0.0, 1.0, 0.0,
    ));
    let tilted = Rotation3::from_axis_angle(&Vector3::x_axis(), tilt);
    let rotation = UnitQuaternion::from_rotation_matrix(&(tilted * level));
    let position = Point3::new(0.0, -0.8, 0.7);
    Isometry3::from_parts(Translation3::from(-(rotation * position).coords), rotation)
}

fn view() -> ViewAxes {
    ViewAxes::camera_with_up(camera_from_table() * Vector3::z()).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Depth {
    With,
    Without,
}

/// What an exact detector would say of the things, shaken by half a centimeter and a pixel.
fn look(things: &[Thing], depth: Depth, random: &mut Random) -> Vec<Candidate> {
    let camera_from_table = camera_from_table();
    things
        .iter()
        .map(|it| {
            let mut bbox: Option<BoundingBox2d> = None;
            for corner in 0..8 {
                let side = |bit: usize| if corner >> bit & 1 == 0 { -0.5 } else { 0.5 };
                let offset =
                    Vector3::new(side(0) * it.size.x, side(1) * it.size.y, (side(2) + 0.5) * it.size.z);
                let p = camera_from_table * (it.foot + offset);
                let (u, v) = (580.0 * p.x / p.z + 320.0, 580.0 * p.y / p.z + 240.0);
                let b = bbox.get_or_insert(BoundingBox2d { x0: u, y0: v, x1: u, y1: v });
                *b = BoundingBox2d { x0: b.x0.min(u), y0: b.y0.min(v), x1: b.x1.max(u), y1: b.y1.max(v) };
            }
            let mut bbox = bbox.unwrap();
            for edge in [&mut bbox.x0, &mut bbox.y0, &mut bbox.x1, &mut bbox.y1] {
                *edge += random.within(-1.0, 1.0);
            }
            let center = it.foot + Vector3::new(0.0, 0.0, 0.5 * it.size.z);
            let shake = Vector3::new(
                random.within(-0.005, 0.005),
                random.within(-0.005, 0.005),
                random.within(-0.005, 0.005),
            );
            let seen = (depth == Depth::With).then(|| camera_from_table * center + shake);
            Candidate {
                detection: Detection2d::new(it.phrase, bbox, 0.9),
                position_in_camera: seen,
                size_m: seen.map(|_| Vector3::new(it.size.x, it.size.z, it.size.y)),
                body: None,
            }
        })
        .collect()
}

fn ask(text: &str, things: &[Thing], depth: Depth, random: &mut Random) -> Resolution {
    let instruction = parse(text, &Vocabulary::default()).unwrap();
    let options = ResolveOptions { view: view(), ..ResolveOptions::default() };
    resolve(&instruction.targets[0], &look(things, depth, random), &options)
}

/// `FOUND 0 2`, `AMBIGUOUS 0 1` (sorted) or `NOT_FOUND`.
fn short(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Found { indices, .. } => found(indices),
        Resolution::Ambiguous { indices, .. } => ambiguous(indices),
        Resolution::NotFound { .. } => "NOT_FOUND".to_owned(),
    }
}

/// Three mugs in a row, a plate right of the first, a bowl at the back with an apple in it, a tray in front.
fn table() -> Vec<Thing> {
    vec![
        thing("mug", -0.30, 0.0),
        thing("mug", 0.02, 0.02),
        thing("mug", 0.30, 0.04),
        Thing { size: Vector3::new(0.16, 0.16, 0.02), ..thing("plate", -0.12, 0.0) },
        Thing { size: Vector3::new(0.16, 0.16, 0.07), ..thing("bowl", 0.10, 0.30) },
        Thing { foot: Point3::new(0.10, 0.30, 0.02), ..thing("apple", 0.0, 0.0) },
        thing("apple", -0.35, 0.25),
        Thing { size: Vector3::new(0.25, 0.15, 0.02), ..thing("tray", 0.15, -0.22) },
        thing("red mug", -0.30, 0.0),
    ]
}

#[test]
fn words_over_one_table() {
    for (text, expected) in [
        ("the mug", "AMBIGUOUS 0 1 2"),
        ("a mug", "FOUND 0"),
        ("all mugs", "FOUND 0 1 2"),
        ("the mugs", "FOUND 0 1 2"),
        ("both mugs", "AMBIGUOUS 0 1 2"),
        ("the three mugs", "FOUND 0 1 2"),
        ("four mugs", "NOT_FOUND"),
        ("the left mug", "FOUND 0"),
        ("the mug on the right", "FOUND 2"),
        ("the second mug from the left", "FOUND 1"),
        ("the third mug from the right", "FOUND 0"),
        ("the fourth mug from the right", "NOT_FOUND"),
        ("the middle mug", "FOUND 1"),
        ("the two leftmost mugs", "FOUND 0 1"),
        ("the red mug", "FOUND 8"),
        ("the banana", "NOT_FOUND"),
        ("the mug to the left of the plate", "FOUND 0"),
        ("the mug right of the plate", "AMBIGUOUS 1 2"),
        ("all mugs to the right of the plate", "FOUND 1 2"),
        ("the mug closest to the plate", "FOUND 1"),
        ("the mug farthest from the plate", "FOUND 2"),
        ("the apple in the bowl", "FOUND 5"),
        ("the apple on the left", "FOUND 6"),
        ("the apple behind the tray", "AMBIGUOUS 5 6"),
        ("the mug in front of the tray", "NOT_FOUND"),
        ("the mug to the left of the banana", "NOT_FOUND"),
        ("the mug between the plate and the right mug", "FOUND 1"),
        ("the bowl in front of the plate", "NOT_FOUND"),
        ("the bowl behind the plate", "FOUND 4"),
        ("the handle of the red mug", "FOUND 8"),
        ("the handle of the mug", "AMBIGUOUS 0 1 2"),
        ("the other mug", "AMBIGUOUS 0 1 2"),
        ("the leftmost of the three mugs", "FOUND 0"),
        ("the second largest of the three mugs", "AMBIGUOUS 0 1 2"),
        ("the leftmost of the two mugs", "AMBIGUOUS 0 1 2"),
        ("the leftmost of the four mugs", "NOT_FOUND"),
        ("the left one of the two mugs to the right of the plate", "FOUND 1"),
        ("one of the three mugs", "FOUND 0"),
        ("two of the four mugs", "NOT_FOUND"),
    ] {
        let got = ask(text, &table(), Depth::With, &mut Random(1));
        assert_eq!(short(&got), expected, "{text}: {got:?}");
    }
}

#[test]
fn messages_are_for_people() {
    let things = table();
    for (text, part) in [
        ("the mug to the left of the plate", "m left of the plate, the next best 0.1"),
        ("the left mug", "mug 1 of 3 from the left: leftmost"),
        ("the banana", "no banana seen"),
        ("the mug in front of the tray", "there is a mug, but none in front of the tray: the best is"),
        ("the mug right of the plate", "2 mugs: the left one by the plate or the right one?"),
        ("the mug", "3 mugs: the first, second or third from the left?"),
        ("the leftmost of the two mugs", "3 mugs, not 2: the first, second or third from the left?"),
        ("the leftmost of the four mugs", "the words speak of 4 mugs, only 3 seen"),
        ("the apple", "2 apples: the left one or the right one in the bowl?"),
        ("the bowl", "the only bowl seen"),
        ("the mug to the left of the banana", "no banana seen"),
        ("four mugs", "asked for 4 mugs, only 3 there"),
        ("the mug closest to the plate", "closest to the plate at 0.1"),
        ("the handle of the red mug", "this is the red mug it belongs to"),
    ] {
        let got = ask(text, &things, Depth::With, &mut Random(1));
        let (Resolution::Found { reason: words, .. }
        | Resolution::Ambiguous { question: words, .. }
        | Resolution::NotFound { reason: words, .. }) = &got;
        assert!(words.contains(part), "{text}: {words}");
    }
}

#[test]
fn nothing_is_its_own_destination() {
    let vocabulary = Vocabulary::default();
    let options = ResolveOptions { view: view(), ..ResolveOptions::default() };
    let things: Vec<Thing> = table().into_iter().filter(|it| it.phrase == "mug").take(2).collect();
    let candidates = look(&things, Depth::With, &mut Random(1));
    for (text, target, destination) in [
        ("stack the left mug on the other mug", "FOUND 0", "FOUND 1"),
        ("stack the right mug on the mug", "FOUND 1", "FOUND 0"),
        ("stack the right mug on the left mug", "FOUND 1", "FOUND 0"),
    ] {
        let instruction = parse(text, &vocabulary).unwrap();
        let InstructionResolution { targets, destination: landmarks, tool: _ } =
            resolve_instruction(&instruction, &candidates, &options);
        assert_eq!(
            (short(&targets[0]).as_str(), short(&landmarks[0]).as_str()),
            (target, destination),
            "{text}"
        );
    }
}

#[test]
fn weak_candidates_do_not_make_a_doubt() {
    let mut candidates = look(&table()[..2], Depth::With, &mut Random(1));
    let reference = &parse("the mug", &Vocabulary::default()).unwrap().targets[0];
    let options = ResolveOptions::default();
    for (scores, expected) in [
        ([0.9, 0.9], "AMBIGUOUS 0 1"),
        ([0.9, 0.6], "FOUND 0"),
        ([0.9, 0.4], "FOUND 0"),
        ([0.4, 0.3], "NOT_FOUND"),
        ([0.55, 0.6], "AMBIGUOUS 0 1"),
    ] {
        for (candidate, score) in candidates.iter_mut().zip(scores) {
            candidate.detection.score = score;
        }
        assert_eq!(short(&resolve(reference, &candidates, &options)), expected, "{scores:?}");
    }
    assert_eq!(short(&resolve(reference, &[], &options)), "NOT_FOUND");
}

#[test]
fn phrases_have_thresholds_and_margins_of_their_own() {
    let mut candidates = look(&table()[..2], Depth::With, &mut Random(1));
    candidates[0].detection.score = 0.4;
    candidates[1].detection.score = 0.3;
    let reference = &parse("the mug", &Vocabulary::default()).unwrap().targets[0];
    for (phrase, score_threshold, ambiguity_margin, expected) in [
        ("mug", None, None, "NOT_FOUND"),
        ("mug", Some(0.35), None, "FOUND 0"),
        ("mug", Some(0.25), None, "AMBIGUOUS 0 1"),
        ("mug", Some(0.25), Some(0.05), "FOUND 0"),
        ("plate", Some(0.25), Some(0.05), "NOT_FOUND"),
    ] {
        let of_phrase = PhraseThresholds { score_threshold, ambiguity_margin };
        let per_phrase = [(phrase.to_owned(), of_phrase)].into();
        let thresholds = Arc::new(Thresholds { per_phrase, ..Thresholds::default() });
        let options = ResolveOptions { thresholds, ..ResolveOptions::default() };
        assert_eq!(short(&resolve(reference, &candidates, &options)), expected, "{phrase} {of_phrase:?}");
    }
}

#[test]
fn fits_are_told_of_every_candidate_of_the_phrase() {
    let candidates = look(&table(), Depth::With, &mut Random(1));
    let options = ResolveOptions { view: view(), ..ResolveOptions::default() };
    let fits = |text: &str| {
        relation_fits(&parse(text, &Vocabulary::default()).unwrap().targets[0], &candidates, &options)
    };
    let left = fits("the mug to the left of the plate");
    assert_eq!(left.iter().map(|it| it.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(left[0].1 > 0.9 && left[1].1 < 0.1 && left[2].1 < 0.1, "{left:?}");
    assert!(fits("the mug").is_empty() && fits("the mug closest to the plate").is_empty());
    assert!(fits("the mug to the left of the banana").is_empty());
}

/// Random tables whose answer follows from the layout by definitions of their own, with margins.
#[test]
fn relations_on_random_tables() {
    for (words, class) in [
        ("to the left of", Class::Side(-1.0, 0.0)),
        ("to the right of", Class::Side(1.0, 0.0)),
        ("in front of", Class::Side(0.0, -1.0)),
        ("behind", Class::Side(0.0, 1.0)),
        ("next to", Class::NextTo),
        ("closest to", Class::Closest),
        ("on", Class::On),
    ] {
        let text = format!("the mug {words} the plate");
        for depth in [Depth::With, Depth::Without] {
            assert_right(&text, depth, |random| random_table(class, random), |it| answer(class, it));
        }
    }
}

/// At least 99 % of 20,000 layouts of `table` must get the answer of the layout (none: could be seen either way).
fn assert_right(
    text: &str,
    depth: Depth,
    table: impl Fn(&mut Random) -> Vec<Thing>,
    answer: impl Fn(&[Thing]) -> Option<String>,
) {
    let reference = &parse(text, &Vocabulary::default()).unwrap().targets[0];
    let options = ResolveOptions { view: view(), ..ResolveOptions::default() };
    let mut random = Random(11);
    let (mut right, mut total, mut kinds) = (0_u32, 0_u32, [0; 3]);
    let mut wrong = String::new();
    while total < 20_000 {
        let things = table(&mut random);
        let Some(expected) = answer(&things) else { continue };
        let got = resolve(reference, &look(&things, depth, &mut random), &options);
        total += 1;
        kinds[["F", "A", "N"].iter().position(|it| expected.starts_with(it)).unwrap()] += 1;
        if short(&got) == expected {
            right += 1;
        } else {
            wrong = format!("expected {expected}, got {got:?}\n{things:?}");
        }
    }
    let share = f64::from(right) / f64::from(total);
    println!("{text}, {depth:?} depth: {share:.4} of {total} (found, ambiguous, none: {kinds:?})");
    assert!(share >= 0.99, "{text}, {depth:?} depth: {share:.4}, for example\n{wrong}");
}

#[derive(Debug, Clone, Copy)]
enum Class {
    /// Direction on the table that counts.
    Side(f64, f64),
    NextTo,
    Closest,
    On,
}

/// A plate and one to four mugs that do not touch, on 0.9 m x 0.6 m; for `On` some stand on the plate.
fn random_table(class: Class, random: &mut Random) -> Vec<Thing> {
    let plate = thing("plate", random.within(-0.2, 0.2), random.within(-0.1, 0.2));
    let mut things = vec![Thing { size: Vector3::new(0.18, 0.18, 0.02), ..plate }];
    let n_mugs = 1 + (random.next() % 4) as usize;
    let mut tries = 0;
    while things.len() < n_mugs + 1 && tries < 100 {
        tries += 1;
        let mut mug = thing("mug", random.within(-0.45, 0.45), random.within(-0.25, 0.4));
        let plate = things[0].foot;
        if matches!(class, Class::On) && random.next().is_multiple_of(3) {
            mug.foot =
                Point3::new(plate.x + random.within(-0.04, 0.04), plate.y + random.within(-0.04, 0.04), 0.02);
        } else if matches!(class, Class::NextTo) && random.next().is_multiple_of(2) {
            mug.foot = plate + 0.7 * (mug.foot - plate) / (mug.foot - plate).norm().max(0.01) * 0.25;
        }
        let on_plate = mug.foot.z > 0.0;
        let free = things.iter().enumerate().all(|(it_idx, it)| {
            let needed = if it_idx == 0 { if on_plate { 0.0 } else { 0.15 } } else { 0.09 };
            (it.foot - mug.foot).xy().norm() > needed
        });
        if free {
            things.push(mug);
        }
    }
    things
}

/// The answer of the layout; none where a person could see it either way.
fn answer(class: Class, things: &[Thing]) -> Option<String> {
    let plate = things[0].foot;
    let mugs: Vec<(usize, f64, f64)> = things
        .iter()
        .enumerate()
        .skip(1)
        .map(|(idx, it)| (idx, it.foot.x - plate.x, it.foot.y - plate.y))
        .collect();
    if mugs.is_empty() {
        return None;
    }
    let mut fit = Vec::new();
    match class {
        Class::Side(x, y) => {
            for (idx, dx, dy) in mugs {
                let along = dx * x + dy * y;
                let aside = (dx * y).abs() + (dy * x).abs();
                let angle = aside.atan2(along).to_degrees();
                if angle < 35.0 && along > 0.10 {
                    fit.push(idx);
                } else if along > -0.03 {
                    return None;
                }
            }
        }
        Class::NextTo => {
            for (idx, dx, dy) in mugs {
                let distance = dx.hypot(dy);
                if (0.15..0.2).contains(&distance) {
                    fit.push(idx);
                } else if distance < 0.4 {
                    return None;
                }
            }
        }
        Class::Closest => {
            let mut by_distance: Vec<(f64, usize)> =
                mugs.iter().map(|&(idx, dx, dy)| (dx.hypot(dy), idx)).collect();
            by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
            // In the image, lengths away from the viewer look shorter: leave a wide margin.
            if by_distance.len() > 1 && by_distance[1].0 < 1.6 * by_distance[0].0 + 0.05 {
                return None;
            }
            fit.push(by_distance[0].1);
        }
        Class::On => {
            for (idx, dx, dy) in mugs {
                if things[idx].foot.z > 0.0 {
                    fit.push(idx);
                } else if dx.abs() < 0.13 && dy.abs() < 0.25 {
                    return None; // before or behind it in the image
                }
            }
        }
    }
    Some(match fit[..] {
        [] => "NOT_FOUND".to_owned(),
        [_] => found(&fit),
        _ => ambiguous(&fit),
    })
}

/// Mirroring turns left into right; more things and another order change nothing.
#[test]
fn metamorphic() {
    let vocabulary = Vocabulary::default();
    let options = ResolveOptions { view: view(), ..ResolveOptions::default() };
    let reference = |text: &str| parse(text, &vocabulary).unwrap().targets[0].clone();
    let sides = [
        ("the mug to the left of the plate", "the mug to the right of the plate"),
        ("the left mug", "the right mug"),
        ("the second mug from the left", "the second mug from the right"),
        ("the mug behind the plate", "the mug behind the plate"),
        ("the mug closest to the plate", "the mug closest to the plate"),
        ("the nearest mug", "the nearest mug"),
        ("the mug", "the mug"),
    ];
    let mut random = Random(5);
    for _ in 0..2_000 {
        let things = random_table(Class::Closest, &mut random);
        for depth in [Depth::With, Depth::Without] {
            let candidates = look(&things, depth, &mut random);
            let mirrored: Vec<Candidate> = candidates
                .iter()
                .map(|it| {
                    let mut it = it.clone();
                    let bbox = it.detection.bbox;
                    it.detection.bbox = BoundingBox2d { x0: 640.0 - bbox.x1, x1: 640.0 - bbox.x0, ..bbox };
                    it.position_in_camera = it.position_in_camera.map(|p| Point3::new(-p.x, p.y, p.z));
                    it
                })
                .collect();
            let mut more = candidates.clone();
            more.push(look(&[thing("kettle", 0.4, 0.4)], depth, &mut random).remove(0));
            let reversed: Vec<Candidate> = candidates.iter().rev().cloned().collect();
            for (text, mirror_text) in sides {
                let answer = resolve(&reference(text), &candidates, &options);
                let mirrored = resolve(&reference(mirror_text), &mirrored, &options);
                assert_eq!(short(&answer), short(&mirrored), "{text}\n{answer:?}\n{mirrored:?}\n{things:?}");
                // But for the question, which may say that a mug stands by the kettle.
                assert_eq!(short(&answer), short(&resolve(&reference(text), &more, &options)), "{text}");
                let back = match resolve(&reference(text), &reversed, &options) {
                    Resolution::Found { indices, reason } => Resolution::Found {
                        indices: indices.iter().map(|it| candidates.len() - 1 - it).collect(),
                        reason,
                    },
                    Resolution::Ambiguous { indices, question } => Resolution::Ambiguous {
                        indices: indices.iter().map(|it| candidates.len() - 1 - it).collect(),
                        question,
                    },
                    none @ Resolution::NotFound { .. } => none,
                };
                assert_eq!(short(&answer), short(&back), "{text}: order of candidates");
            }
        }
    }
}

#[test]
fn viewpoints() {
    let straight_down = ViewAxes::camera_with_up(Vector3::new(0.0, 0.0, -1.0)).unwrap();
    assert!((straight_down.forward.into_inner() - Vector3::new(0.0, -1.0, 0.0)).norm() < 1e-12);
    assert!((straight_down.right.into_inner() - Vector3::x()).norm() < 1e-12);
    assert_eq!(ViewAxes::camera_with_up(Vector3::zeros()), None);
    let level = ViewAxes::camera_with_up(-Vector3::y()).unwrap();
    assert!((level.right.into_inner() - Vector3::x()).norm() < 1e-12);
    assert!((level.forward.into_inner() - Vector3::z()).norm() < 1e-12);
    // A robot that faces the camera sees left and right the other way round.
    let camera_from_body = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(
        nalgebra::Matrix3::new(0.0, 1.0, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0),
    ));
    let facing = ViewAxes::of_body(&camera_from_body);
    assert!((facing.right.into_inner() + Vector3::x()).norm() < 1e-12);
    assert!((facing.forward.into_inner() + Vector3::z()).norm() < 1e-12);
    let options = ResolveOptions { view: facing, ..ResolveOptions::default() };
    let candidates = look(&table()[..3], Depth::With, &mut Random(1));
    let reference = &parse("the left mug", &Vocabulary::default()).unwrap().targets[0];
    assert_eq!(short(&resolve(reference, &candidates, &options)), "FOUND 2");
}

/// Who stands on the other side of the table says "right" where the camera says "left", with depth and without.
#[test]
fn from_the_other_side_all_is_turned() {
    let camera = view();
    let opposite = ViewAxes { right: -camera.right, forward: -camera.forward, up: camera.up };
    let vocabulary = Vocabulary::default();
    let ask = |text: &str, view: ViewAxes, candidates: &[Candidate]| {
        let reference = &parse(text, &vocabulary).unwrap().targets[0];
        resolve(reference, candidates, &ResolveOptions { view, ..ResolveOptions::default() })
    };
    let mut random = Random(6);
    for _ in 0..1_000 {
        let things = random_table(Class::Closest, &mut random);
        for depth in [Depth::With, Depth::Without] {
            let candidates = look(&things, depth, &mut random);
            for (text, turned) in [
                ("the mug to the left of the plate", "the mug to the right of the plate"),
                ("the mug behind the plate", "the mug in front of the plate"),
                ("the left mug", "the right mug"),
                ("the second mug from the right", "the second mug from the left"),
                ("the farthest mug", "the nearest mug"),
                ("the mug next to the plate", "the mug next to the plate"),
                ("the mug at the left edge of the plate", "the mug at the right edge of the plate"),
            ] {
                let answer = short(&ask(text, camera, &candidates));
                assert_eq!(answer, short(&ask(turned, opposite, &candidates)), "{text}\n{things:?}");
            }
        }
    }
}

#[test]
fn degenerate_boxes_and_positions_do_no_harm() {
    let vocabulary = Vocabulary::default();
    let texts = [
        "the mug left of the plate",
        "the mug between the plate and the plate",
        "the largest mug",
        "the middle mug",
        "the mug on the plate",
        "the mug at the edge of the plate",
        "the mug closest to the plate",
        "the third back left mug",
        "both mugs next to the plate",
    ];
    let values = [0.0, -5.0, 1e9, f64::NAN, f64::INFINITY, 100.0];
    let mut random = Random(9);
    for _ in 0..5_000 {
        let mut value = || values[(random.next() % 6) as usize];
        let candidates: Vec<Candidate> = (0..6)
            .map(|it| Candidate {
                detection: Detection2d::new(
                    if it % 2 == 0 { "mug" } else { "plate" },
                    BoundingBox2d { x0: value(), y0: value(), x1: value(), y1: value() },
                    value() as f32,
                ),
                position_in_camera: (it < 4).then(|| Point3::new(value(), value(), value())),
                size_m: (it < 3).then(|| Vector3::new(value(), value(), value())),
                body: None,
            })
            .collect();
        for text in texts {
            let instruction = parse(text, &vocabulary).unwrap();
            resolve_instruction(&instruction, &candidates, &ResolveOptions::default());
        }
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Rankings, pairs, containment and counts on random tables; answers by definitions of their own, with margins, and shaken
/// positions.
#[test]
fn rankings_pairs_and_counts_on_random_tables() {
    /// The right answer of a layout; none where it could be seen either way.
    type Answer = fn(&[Thing]) -> Option<String>;
    let cases: [(&str, Answer); 9] = [
        ("the left mug", |it| ranked(it, |mug| mug.foot.x, 0, 1)),
        ("the rightmost mug", |it| ranked(it, |mug| -mug.foot.x, 0, 1)),
        ("the second mug from the left", |it| ranked(it, |mug| mug.foot.x, 1, 1)),
        ("the two leftmost mugs", |it| ranked(it, |mug| mug.foot.x, 0, 2)),
        ("the nearest mug", |it| ranked(it, |mug| mug.foot.y, 0, 1)),
        ("the mug between the plate and the bowl", between),
        ("the mug in the bowl", inside),
        ("the three mugs", |it| match mugs(it).len() {
            3 => Some(found(&mugs(it))),
            n if n < 3 => Some("NOT_FOUND".to_owned()),
            _ => Some(ambiguous(&mugs(it))),
        }),
        ("all mugs", |it| Some(if mugs(it).is_empty() { "NOT_FOUND".to_owned() } else { found(&mugs(it)) })),
    ];
    for (text, answer) in cases {
        assert_right(text, Depth::With, table_with_bowl, answer);
    }
}

/// A plate, a bowl and up to four mugs, one of three of them in the bowl.
fn table_with_bowl(random: &mut Random) -> Vec<Thing> {
    let plate = thing("plate", random.within(-0.4, -0.1), random.within(-0.2, 0.3));
    let bowl = thing("bowl", random.within(0.1, 0.4), random.within(-0.2, 0.3));
    let mut things = vec![
        Thing { size: Vector3::new(0.18, 0.18, 0.02), ..plate },
        Thing { size: Vector3::new(0.16, 0.16, 0.07), ..bowl },
    ];
    let n_mugs = (random.next() % 5) as usize;
    for _ in 0..4 * n_mugs {
        if things.len() == n_mugs + 2 {
            break;
        }
        let mut mug = thing("mug", random.within(-0.45, 0.45), random.within(-0.25, 0.4));
        if things.len() == 2 && random.next().is_multiple_of(3) {
            mug.foot =
                things[1].foot + Vector3::new(random.within(-0.03, 0.03), random.within(-0.03, 0.03), 0.01);
        }
        let in_bowl = mug.foot.z > 0.0;
        let free = things.iter().enumerate().all(|(idx, it)| {
            let needed = if idx < 2 { 0.16 } else { 0.10 };
            in_bowl || (it.foot - mug.foot).xy().norm() > needed
        });
        if free {
            things.push(mug);
        }
    }
    things
}

fn mugs(things: &[Thing]) -> Vec<usize> {
    (0..things.len()).filter(|&it| things[it].phrase == "mug").collect()
}

fn found(indices: &[usize]) -> String {
    format!("FOUND{}", list(indices))
}

fn ambiguous(indices: &[usize]) -> String {
    format!("AMBIGUOUS{}", list(indices))
}

/// ` 0 2`, sorted.
fn list(indices: &[usize]) -> String {
    let mut indices = indices.to_vec();
    indices.sort_unstable();
    indices.iter().fold(String::new(), |list, it| list + " " + &it.to_string())
}

/// The `n` mugs from place `from` on by a key in meters; neighbors nearer than 4 cm could be seen either way.
fn ranked(things: &[Thing], key: fn(&Thing) -> f64, from: usize, n: usize) -> Option<String> {
    let mut order = mugs(things);
    order.sort_by(|&a, &b| key(&things[a]).total_cmp(&key(&things[b])));
    let is_clear = order.windows(2).all(|it| key(&things[it[1]]) - key(&things[it[0]]) > 0.04);
    if !is_clear || order.len() < from + n && !order.is_empty() && from == 0 {
        return None;
    }
    Some(if order.len() < from + n { "NOT_FOUND".to_owned() } else { found(&order[from..from + n]) })
}

/// Well inside the gap and near the line, or well out of both.
fn between(things: &[Thing]) -> Option<String> {
    let (a, b) = (things[0].foot, things[1].foot);
    let line = (b - a).xy();
    let mut fit = Vec::new();
    for mug in mugs(things) {
        let offset = (things[mug].foot - a).xy();
        let along = offset.dot(&line) / line.norm_squared();
        let aside = (offset - line * along).norm() / line.norm();
        if (0.2..=0.8).contains(&along) && aside < 0.15 {
            fit.push(mug);
        } else if (-0.1..=1.1).contains(&along) && aside < 0.9 {
            return None;
        }
    }
    one_of(&fit)
}

fn inside(things: &[Thing]) -> Option<String> {
    let fit: Vec<usize> = mugs(things).into_iter().filter(|&it| things[it].foot.z > 0.0).collect();
    // A mug right behind or before the bowl is seen within its box from some heights.
    let bowl = things[1].foot;
    let is_clear =
        mugs(things).iter().all(|&it| things[it].foot.z > 0.0 || (things[it].foot - bowl).xy().norm() > 0.25);
    if is_clear { one_of(&fit) } else { None }
}

fn one_of(fit: &[usize]) -> Option<String> {
    match fit {
        [] => Some("NOT_FOUND".to_owned()),
        [_] => Some(found(fit)),
        _ => None, // the better one may be clear enough
    }
}
