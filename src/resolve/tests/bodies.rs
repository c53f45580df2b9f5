//! What is on, in and under what where bodies are known, the places that need not be seen, parts, and objects of any kind.

use nalgebra::{Isometry3, Point3, Translation3, UnitQuaternion, Vector3};

use super::{camera_from_table, short, view};
use crate::candidate::{Body, Candidate};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::instruction::{Vocabulary, parse};
use crate::resolve::{OF_WHOLE, Resolution, ResolveOptions, resolve, resolve_instruction};
use crate::result::UnmetConstraint;

/// An upright box on the table: middle of its foot (x right, y away, z up) and size, meters; all of it is seen.
fn body(phrase: &str, foot: [f64; 3], size: [f64; 3]) -> Candidate {
    let camera_from_table = camera_from_table();
    let (foot, size_m) = (Point3::from(foot), Vector3::from(size));
    let center = foot + Vector3::new(0.0, 0.0, 0.5 * size_m.z);
    let upright = Isometry3::from_parts(Translation3::from(center.coords), UnitQuaternion::identity());
    let mut bbox: Option<BoundingBox2d> = None;
    for corner in 0..8 {
        let side = |bit: usize| if corner >> bit & 1 == 0 { -0.5 } else { 0.5 };
        let offset = Vector3::new(side(0) * size_m.x, side(1) * size_m.y, side(2) * size_m.z);
        let p = camera_from_table * (center + offset);
        let (u, v) = (580.0 * p.x / p.z + 320.0, 580.0 * p.y / p.z + 240.0);
        let b = bbox.get_or_insert(BoundingBox2d { x0: u, y0: v, x1: u, y1: v });
        *b = BoundingBox2d { x0: b.x0.min(u), y0: b.y0.min(v), x1: b.x1.max(u), y1: b.y1.max(v) };
    }
    Candidate {
        detection: Detection2d::new(phrase, bbox.unwrap(), 0.9),
        position_in_camera: Some(camera_from_table * center),
        size_m: Some(Vector3::new(size_m.x, size_m.z, size_m.y)),
        body: Some(Body {
            pose_in_camera: camera_from_table * upright,
            size_m,
            hollow_depth_m: 0.0,
            unseen_below_m: 0.0,
        }),
    }
}

fn hollow(mut candidate: Candidate, depth_m: f64) -> Candidate {
    candidate.body = candidate.body.map(|it| Body { hollow_depth_m: depth_m, ..it });
    candidate
}

fn ask(text: &str, candidates: &[Candidate]) -> Resolution {
    let instruction = parse(text, &Vocabulary::default()).unwrap();
    let options = ResolveOptions { view: view(), ..ResolveOptions::default() };
    resolve(&instruction.targets[0], candidates, &options)
}

fn ask_all(text: &str, candidates: &[Candidate]) -> Resolution {
    let instruction = parse(text, &Vocabulary::default()).unwrap();
    let options = ResolveOptions { view: view(), ..ResolveOptions::default() };
    resolve_instruction(&instruction, candidates, &options).targets.remove(0)
}

#[track_caller]
fn check(candidates: &[Candidate], cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let got = ask(text, candidates);
        assert_eq!(short(&got), *expected, "{text}: {got:?}");
    }
}

const MUG: [f64; 3] = [0.08, 0.08, 0.1];
const BOX: [f64; 3] = [0.09, 0.06, 0.03];

#[test]
fn what_carries_a_thing_is_under_it_even_where_the_thing_is_wider() {
    let table = [
        body("bowl", [0.0, 0.0, 0.03], [0.16, 0.16, 0.06]),
        body("bowl", [0.3, 0.0, 0.0], [0.16, 0.16, 0.06]),
        body("box", [0.0, 0.0, 0.0], BOX),
        body("box", [-0.3, 0.1, 0.0], BOX),
    ];
    check(
        &table,
        &[
            ("the bowl on the box", "FOUND 0"),
            ("the box under the bowl", "FOUND 2"),
            ("take the bowl from the box", "FOUND 0"),
        ],
    );
}

#[test]
fn a_corner_that_shows_tells_what_is_under() {
    // Of the box only a strip before the bowl is seen.
    let corner = body("box", [0.0, -0.087, 0.0], [0.09, 0.012, 0.03]);
    let bowl = body("bowl", [0.0, 0.0, 0.03], [0.16, 0.16, 0.06]);
    check(
        &[bowl.clone(), corner.clone()],
        &[("the box under the bowl", "FOUND 1"), ("the bowl on the box", "FOUND 0")],
    );
    // A bowl on the table right behind a strip of a box is seen down to the table.
    let beside = body("bowl", [0.0, 0.0, 0.0], [0.16, 0.16, 0.06]);
    check(
        &[beside, corner],
        &[("the box under the bowl", "NOT_FOUND"), ("the bowl on the box", "NOT_FOUND")],
    );
}

#[test]
fn what_leans_on_a_thing_or_stands_behind_it_is_not_on_it() {
    let shelf = body("box", [0.0, 0.0, 0.0], [0.2, 0.1, 0.12]);
    let leaning = body("book", [0.0, -0.075, 0.0], [0.15, 0.06, 0.16]);
    let behind = body("mug", [0.0, 0.12, 0.0], MUG);
    check(
        &[shelf, leaning, behind],
        &[
            ("the book on the box", "NOT_FOUND"),
            ("the mug on the box", "NOT_FOUND"),
            ("the book next to the box", "FOUND 1"),
        ],
    );
}

#[test]
fn in_is_below_the_rim_and_on_a_closed_top_is_not_in() {
    let basket = hollow(body("basket", [0.0, 0.0, 0.0], [0.25, 0.2, 0.12]), 0.1);
    let cabinet = body("cabinet", [0.5, 0.2, 0.0], [0.3, 0.2, 0.25]);
    let mut sunk = body("mug", [0.03, 0.0, 0.01], MUG);
    let on_top = body("mug", [0.5, 0.2, 0.25], MUG);
    let cases = [
        ("the mug in the basket", "FOUND 2"),
        ("the mug in the cabinet", "NOT_FOUND"),
        ("the mug on the cabinet", "FOUND 3"),
        ("take the mug from the basket", "FOUND 2"),
    ];
    check(&[basket.clone(), cabinet.clone(), sunk.clone(), on_top.clone()], &cases);
    // Seen steeply, the rim hides all of the mug but its top.
    sunk = body("mug", [0.03, 0.0, 0.125], [0.08, 0.08, 0.005]);
    check(&[basket, cabinet, sunk, on_top], &cases);
}

#[test]
fn what_fills_a_bowl_is_another_thing_than_the_bowl() {
    let bowl = hollow(body("bowl", [0.0, 0.0, 0.0], [0.1, 0.1, 0.05]), 0.03);
    let mut mug = body("mug", [0.0, 0.0, 0.02], [0.1, 0.09, 0.09]);
    mug.detection.bbox = bowl.detection.bbox;
    mug.detection.bbox.y0 -= 0.2 * bowl.detection.bbox.height();
    assert!(mug.detection.bbox.iou(&bowl.detection.bbox) > 0.7);
    check(&[bowl, mug], &[("the mug in the bowl", "FOUND 1")]);
}

#[test]
fn where_a_thing_is_taken_from_need_not_be_seen() {
    let on_plate = body("mug", [0.0, 0.0, 0.015], MUG);
    let on_table = body("mug", [0.3, 0.0, 0.0], MUG);
    let plate = body("plate", [0.0, 0.0, 0.0], [0.2, 0.2, 0.02]);
    let both = [on_plate.clone(), on_table.clone(), plate.clone()];
    check(
        &both,
        &[
            ("take the mug from the plate", "FOUND 0"),
            // The model has no box for a table: it is what the other mug stands on.
            ("take the mug from the table", "FOUND 1"),
            ("the mug on the table", "FOUND 1"),
            ("take the mug from the shelf", "AMBIGUOUS 0 1"),
            ("the mug on the shelf", "NOT_FOUND"),
        ],
    );
    let got = ask("take the mug from the shelf", &both[1..]);
    assert!(
        matches!(&got, Resolution::Found { reason, .. } if reason.contains("from the shelf, which was not seen")),
        "{got:?}"
    );
    // A source that is seen, and the thing is not there: that is not the one.
    check(&both[1..], &[("take the mug from the plate", "NOT_FOUND")]);
    // Right beside it is as good as no other place allows.
    let beside = body("mug", [0.15, 0.0, 0.0], MUG);
    check(&[beside.clone(), plate.clone()], &[("take the mug from the plate", "FOUND 0")]);
    check(&[beside, plate, on_plate], &[("take the mug from the plate", "FOUND 2")]);
}

#[test]
fn a_whole_is_no_answer_for_its_part() {
    let mug = body("mug", [0.0, 0.0, 0.0], MUG);
    let got = ask_all("the handle of the mug", std::slice::from_ref(&mug));
    let Resolution::NotFound { missing, phrase, nearest, reason } = got else { panic!("{got:?}") };
    assert_eq!((missing, phrase.as_str(), nearest), (UnmetConstraint::Object, "handle", Some(0)));
    assert!(reason.contains("no handle seen by itself, only the mug"), "{reason}");
    let mut handle = body("handle", [0.03, 0.0, 0.03], [0.01, 0.02, 0.05]);
    assert_eq!(short(&ask_all("the handle of the mug", &[mug.clone(), handle.clone()])), "FOUND 1");
    handle.detection.score_parts.push((OF_WHOLE.to_owned(), 0.9));
    let got = ask_all("the handle of the mug", &[mug, handle]);
    assert!(
        matches!(&got, Resolution::Found { reason, .. } if reason.contains("placed within the mug")),
        "{got:?}"
    );
}

#[test]
fn all_that_is_seen_are_objects() {
    let things = [
        body("mug", [0.3, 0.0, 0.0], MUG),
        body("plate", [0.0, 0.0, 0.0], [0.2, 0.2, 0.02]),
        body("box", [0.0, 0.0, 0.02], BOX),
    ];
    check(
        &things,
        &[
            ("the thing on the plate", "FOUND 2"),
            ("the largest object", "FOUND 1"),
            ("all objects", "FOUND 0 1 2"),
        ],
    );
}
