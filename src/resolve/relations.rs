//! How well one thing stands in a relation to another: fits between 0 and 1, over 0.5 where a person would agree.
//!
//! With depth the measures are meters in the viewpoint's axes, without it they are pixels in units of the things' own
//! size, so that a picture of another resolution gives the same answer. What is on, in and under what is judged by bodies where both
//! are known (`rest`), else in the image, and depth must agree.

mod rest;

use nalgebra::{Point3, Vector2, Vector3};

use super::{Candidate, ViewAxes};
use crate::detection::BoundingBox2d;
use crate::instruction::RelationKind;
use crate::score::logistic;

/// Offsets under this are within the noise of box centers and depth, meters.
const SIDE_SCALE_M: f64 = 0.015;
/// The same in units of the things' size.
const SIDE_SCALE: f64 = 0.12;
/// Free space between things that still stand next to each other, meters.
const NEXT_TO_GAP_M: f64 = 0.15;
/// The same in units of the things' size.
const NEXT_TO_GAP: f64 = 0.9;
/// Free space to what a thing may still be taken "from" when it only stands beside it, meters.
const FROM_BESIDE_GAP_M: f64 = 0.04;

/// The fit of "`target` is `kind` `landmark`", [0, 1].
pub(super) fn fit(kind: RelationKind, target: &Candidate, landmark: &Candidate, view: &ViewAxes) -> f64 {
    let (offset, scale) = offset(target, landmark, view);
    match kind {
        RelationKind::LeftOf => side(-offset.x, offset.y, scale),
        RelationKind::RightOf => side(offset.x, offset.y, scale),
        RelationKind::InFrontOf => side(-offset.y, offset.x, scale),
        RelationKind::Behind => side(offset.y, offset.x, scale),
        RelationKind::Above => sure(offset.z, scale) * within_extents(target, landmark, view),
        RelationKind::Under => under(target, landmark, view, sure(-offset.z, scale)),
        RelationKind::NextTo => near(target, landmark, 1.0),
        RelationKind::Near | RelationKind::To => near(target, landmark, 2.0),
        RelationKind::On => on(target, landmark),
        RelationKind::In => inside(target, landmark),
        RelationKind::From => from(target, landmark),
        RelationKind::AtCenterOf
        | RelationKind::AtEdgeOf
        | RelationKind::AtCornerOf
        | RelationKind::AtFrontOf
        | RelationKind::AtBackOf
        | RelationKind::AtLeftOf
        | RelationKind::AtRightOf => region(kind, target, landmark, view),
        // Rankings, pairs and parts are judged elsewhere.
        RelationKind::Between | RelationKind::ClosestTo | RelationKind::FarthestFrom | RelationKind::With => {
            1.0
        }
    }
}

/// The fit of "`target` is `distance_m` from `landmark`", from surface to surface; 1 without depth, where no distance is known.
pub(super) fn at_distance(target: &Candidate, landmark: &Candidate, distance_m: f64) -> f64 {
    let (Some(p), Some(q)) = (target.position_in_camera, landmark.position_in_camera) else { return 1.0 };
    let half = |it: &Candidate| it.size_m.map_or(0.03, |size| 0.5 * size.x.max(size.z));
    let gap_m = ((p - q).norm() - half(target) - half(landmark)).max(0.0);
    // People measure by eye, to a third, and may mean the middles.
    let slack_m = 0.03 + 0.35 * distance_m;
    let off_m = (gap_m - distance_m).abs().min(((p - q).norm() - distance_m).abs());
    logistic((slack_m - off_m) / (0.25 * slack_m))
}

/// The fit of "`target` is between `first` and `second`".
pub(super) fn between(target: &Candidate, first: &Candidate, second: &Candidate) -> f64 {
    let points = match (target.position_in_camera, first.position_in_camera, second.position_in_camera) {
        (Some(target), Some(first), Some(second)) => [target, first, second],
        _ => [target, first, second].map(|it| {
            let (x, y) = it.detection.bbox.center();
            Point3::new(x, y, 0.0)
        }),
    };
    let [target, first, second] = points;
    let line = second - first;
    let length = line.norm();
    if length <= f64::EPSILON {
        return 0.0;
    }
    let along = (target - first).dot(&line) / (length * length);
    let aside = ((target - first) - line * along).norm() / length;
    // Inside the ends, and nearer to the line than half its length.
    let inside = logistic((along.min(1.0 - along) - 0.02) / 0.03);
    inside * (1.0 - (aside / 0.7).powi(2)).max(0.0)
}

/// Distance between two things: meters with depth, else pixels.
pub(super) fn distance(a: &Candidate, b: &Candidate) -> f64 {
    if let (Some(a), Some(b)) = (a.position_in_camera, b.position_in_camera) {
        return (a - b).norm();
    }
    let (a, b) = (a.detection.bbox.center(), b.detection.bbox.center());
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// Overlap so large that two boxes show one thing.
pub(super) fn is_same_thing(a: &Candidate, b: &Candidate) -> bool {
    is_one_box(&a.detection.phrase, &a.detection.bbox, &b.detection.phrase, &b.detection.bbox)
}

/// Whether two boxes are around one thing. What fills a bowl or hides a plate has nearly the box of it, but another noun; another name
/// for the same thing has the same box.
pub(crate) fn is_one_box(
    phrase: &str,
    bbox: &BoundingBox2d,
    other: &str,
    other_bbox: &BoundingBox2d,
) -> bool {
    let overlap = bbox.iou(other_bbox);
    overlap > 0.92 || overlap > 0.7 && phrase.rsplit(' ').next() == other.rsplit(' ').next()
}

/// What was seen before is still where it was: within 5 cm with depth, else mostly the same box.
pub(super) fn is_still(before: &Candidate, now: &Candidate) -> bool {
    match (before.position_in_camera, now.position_in_camera) {
        (Some(before), Some(now)) => (before - now).norm() < 0.05,
        _ => before.detection.bbox.iou(&now.detection.bbox) > 0.5,
    }
}

/// The part of `inner` that lies in `outer`, [0, 1].
pub(crate) fn share_inside(inner: &BoundingBox2d, outer: &BoundingBox2d) -> f64 {
    let width = inner.x1.min(outer.x1) - inner.x0.max(outer.x0);
    let height = inner.y1.min(outer.y1) - inner.y0.max(outer.y0);
    if width <= 0.0 || height <= 0.0 || inner.area() <= 0.0 {
        return 0.0;
    }
    width * height / inner.area()
}

/// From landmark to target: (right, forward, up) and the unit that counts as noise. In the image, lower is nearer.
fn offset(target: &Candidate, landmark: &Candidate, view: &ViewAxes) -> (Vector3<f64>, f64) {
    if let (Some(target), Some(landmark)) = (target.position_in_camera, landmark.position_in_camera) {
        return (view.coordinates(&(target - landmark)), SIDE_SCALE_M);
    }
    let unit = size_px(&target.detection.bbox, &landmark.detection.bbox);
    ((place_px(target, view) - place_px(landmark, view)) / unit, SIDE_SCALE)
}

/// Where a thing is in the image: (right, forward, up) of the viewpoint, pixels. Things stand on a surface: where they touch it
/// tells how far away they are.
pub(super) fn place_px(thing: &Candidate, view: &ViewAxes) -> Vector3<f64> {
    let bbox = &thing.detection.bbox;
    let axes = ImageAxes::of(view);
    let (x, y) = axes.coordinates(bbox.center());
    let foot = y + 0.5 * axes.extents(bbox).1;
    let (right, forward) = view.step_of_camera(x, -foot);
    Vector3::new(right, forward, -y)
}

/// Right and down in the image of a camera that may be rolled, pixels.
struct ImageAxes {
    right: Vector2<f64>,
    down: Vector2<f64>,
}

impl ImageAxes {
    /// By the viewer's up. Of a camera that looks straight down, the image's own.
    fn of(view: &ViewAxes) -> Self {
        let down = Vector2::new(-view.up.x, -view.up.y).try_normalize(0.2).unwrap_or(Vector2::y());
        Self { right: Vector2::new(down.y, -down.x), down }
    }

    fn coordinates(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let at = Vector2::new(x, y);
        (self.right.dot(&at), self.down.dot(&at))
    }

    /// How far a box reaches to the right and down.
    fn extents(&self, bbox: &BoundingBox2d) -> (f64, f64) {
        let size = Vector2::new(bbox.width(), bbox.height());
        (self.right.abs().dot(&size), self.down.abs().dot(&size))
    }
}

/// To one side by `along`, off that direction by `aside`: sure once beyond the noise, better the straighter.
fn side(along: f64, aside: f64, scale: f64) -> f64 {
    if along <= 0.0 {
        return 0.5 * logistic(along / scale);
    }
    let straight = along / along.hypot(aside);
    sure(along, scale) * (0.6 + 0.4 * straight)
}

/// 0 for none, near 1 once beyond the noise.
fn sure(along: f64, scale: f64) -> f64 {
    (2.0 * logistic(along / scale) - 1.0).max(0.0)
}

/// Over or under the landmark rather than beside it: 1 while the middle of the target is within the landmark's extents.
fn within_extents(target: &Candidate, landmark: &Candidate, view: &ViewAxes) -> f64 {
    if let (Some(p), Some(q)) = (target.position_in_camera, landmark.position_in_camera) {
        let level = ViewAxes::camera_with_up(view.up.into_inner()).unwrap_or_else(ViewAxes::camera);
        let size_m = landmark.size_m.unwrap_or_else(|| Vector3::repeat(0.1));
        let beyond_m = |axis: &Vector3<f64>| (p - q).dot(axis).abs() - 0.5 * axis.abs().dot(&size_m);
        return logistic((0.02 - beyond_m(&level.right).max(beyond_m(&level.forward))) / 0.015);
    }
    // In the image, how far away a thing above a surface is cannot be told.
    let (a, b) = (&target.detection.bbox, &landmark.detection.bbox);
    let axes = ImageAxes::of(view);
    let beyond =
        (axes.coordinates(a.center()).0 - axes.coordinates(b.center()).0).abs() - 0.5 * axes.extents(b).0;
    logistic(-beyond / (0.1 * size_px(a, b)))
}

fn near(target: &Candidate, landmark: &Candidate, reach: f64) -> f64 {
    let (a, b) = (&target.detection.bbox, &landmark.detection.bbox);
    let gap = if let (Some(p), Some(q)) = (target.position_in_camera, landmark.position_in_camera) {
        let half = |it: &Candidate| it.size_m.map_or(0.03, |size| 0.5 * size.x.max(size.z));
        let mean = half(target) + half(landmark);
        // By the footprints where they are known: a long tray is near at its end, not all around it.
        let gap_m = match (&target.body, &landmark.body) {
            (Some(a), Some(b)) => rest::gap(a, b).max(rest::height_gap(a, b)),
            _ => (p - q).norm() - mean,
        };
        gap_m.max(0.0) / (reach * NEXT_TO_GAP_M.max(0.75 * mean))
    } else {
        let dx = (a.x0.max(b.x0) - a.x1.min(b.x1)).max(0.0);
        let dy = (a.y0.max(b.y0) - a.y1.min(b.y1)).max(0.0);
        dx.hypot(dy) / (reach * NEXT_TO_GAP * size_px(a, b))
    };
    // What is inside something is not next to it.
    let apart = 1.0 - 0.8 * ((share_inside(a, b) - 0.6) / 0.4).clamp(0.0, 1.0);
    (-std::f64::consts::LN_2 * gap * gap).exp() * apart
}

/// Resting on it, or on its inside: by what is known of both bodies, else by the boxes.
fn on(target: &Candidate, landmark: &Candidate) -> f64 {
    match (&target.body, &landmark.body) {
        (Some(thing), Some(base)) => rest::on_or_in(thing, base),
        _ => support(target, landmark),
    }
}

fn inside(target: &Candidate, landmark: &Candidate) -> f64 {
    match (&target.body, &landmark.body) {
        (Some(thing), Some(base)) => rest::inside(thing, base, &landmark.detection.phrase),
        _ => containment(target, landmark),
    }
}

/// Where it is taken from: what it is on, in or under now. Beside it is the weakest of these, and only where nothing else is.
fn from(target: &Candidate, landmark: &Candidate) -> f64 {
    let resting = on(target, landmark).max(inside(target, landmark));
    let Some((thing, base)) = target.body.zip(landmark.body) else { return resting };
    let under = rest::on_or_in(&base, &thing).max(rest::overhangs(&base, &thing));
    let beside = logistic((FROM_BESIDE_GAP_M - rest::gap(&thing, &base)) / 0.005);
    resting.max(0.9 * under).max(0.6 * beside)
}

/// How surely a thing rests on or in nothing else that is seen, so that it stands on the table or the floor.
pub(super) fn on_the_ground(target: &Candidate, candidates: &[Candidate]) -> f64 {
    let others = candidates.iter().filter(|it| !std::ptr::eq(*it, target) && !is_same_thing(it, target));
    1.0 - others.map(|it| on(target, it)).fold(0.0, f64::max)
}

/// What carries a thing is under it, and so is what a thing is over.
fn under(target: &Candidate, landmark: &Candidate, view: &ViewAxes, below: f64) -> f64 {
    match (&target.body, &landmark.body) {
        (Some(thing), Some(roof)) => rest::on_or_in(roof, thing).max(rest::overhangs(roof, thing)),
        _ => below * within_extents(target, landmark, view),
    }
}

/// Resting on it: in the image the foot of the target is on the landmark, in depth both are at one place.
fn support(target: &Candidate, landmark: &Candidate) -> f64 {
    let (a, b) = (&target.detection.bbox, &landmark.detection.bbox);
    let shared_width =
        (a.x1.min(b.x1) - a.x0.max(b.x0)).max(0.0) / a.width().min(b.width()).max(f64::EPSILON);
    let slack = 0.15 * a.height().min(b.height());
    let foot_on = a.y1 >= b.y0 - slack && a.y1 <= b.y1 + slack && a.y0 <= b.y1;
    if !foot_on || a.area() > 4.0 * b.area() {
        return 0.0;
    }
    (1.2 * shared_width).min(1.0) * at_one_place(target, landmark)
}

fn containment(target: &Candidate, landmark: &Candidate) -> f64 {
    let share = share_inside(&target.detection.bbox, &landmark.detection.bbox);
    (1.3 * share).min(1.0) * at_one_place(target, landmark)
}

/// 1 while the depths of two things are within their extents of each other; 1 without depth.
fn at_one_place(a: &Candidate, b: &Candidate) -> f64 {
    let (Some(p), Some(q)) = (a.position_in_camera, b.position_in_camera) else { return 1.0 };
    let half = |it: &Candidate| it.size_m.map_or(0.05, |size| 0.5 * size.max());
    let beyond = (p - q).norm() - (half(a) + half(b) + 0.03);
    logistic(-beyond / 0.02)
}

/// Where in the landmark's box the foot of the target is.
fn region(kind: RelationKind, target: &Candidate, landmark: &Candidate, view: &ViewAxes) -> f64 {
    let (a, b) = (&target.detection.bbox, &landmark.detection.bbox);
    if b.area() <= 0.0 {
        return 0.0;
    }
    // From the middle of the box, in its widths and heights.
    let axes = ImageAxes::of(view);
    let ((a_x, a_y), (b_x, b_y)) = (axes.coordinates(a.center()), axes.coordinates(b.center()));
    let (b_width, b_height) = axes.extents(b);
    let right = (a_x - b_x) / b_width;
    let forward = (b_y - a_y - 0.25 * axes.extents(a).1) / b_height;
    let (right, forward) = view.step_of_camera(right, forward);
    let (across, down) = (0.5 + right, 0.5 - forward);
    if !(-0.1..=1.1).contains(&across) || !(-0.1..=1.1).contains(&down) {
        return 0.0;
    }
    let edge_x = across.min(1.0 - across);
    let edge_y = down.min(1.0 - down);
    let closeness = |distance: f64| logistic((0.28 - distance) / 0.05);
    match kind {
        RelationKind::AtCenterOf => (1.0 - closeness(edge_x)) * (1.0 - closeness(edge_y)),
        RelationKind::AtEdgeOf => closeness(edge_x.min(edge_y)),
        RelationKind::AtCornerOf => closeness(edge_x.max(edge_y)),
        RelationKind::AtFrontOf => closeness(1.0 - down),
        RelationKind::AtBackOf => closeness(down),
        RelationKind::AtLeftOf => closeness(across),
        RelationKind::AtRightOf => closeness(1.0 - across),
        _ => 0.0,
    }
}

fn size_px(a: &BoundingBox2d, b: &BoundingBox2d) -> f64 {
    (0.5 * (a.area().sqrt() + b.area().sqrt())).max(1.0)
}
