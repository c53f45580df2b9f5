//! What rests on, in and under what, by heights and footprints.
//!
//! Bodies do not pass through each other: what has its middle over the footprint of another is on it, in it or under it. Where what
//! carries a thing is mostly hidden by it, only a rim or a corner shows: then the thing stands above what shows, right at its edge.
//! What is inside lies below the rim; where the rim hides it, its lowest visible point is at the rim.

use crate::candidate::Body;
use crate::score::logistic;

/// The fit of "`thing` rests on `base`", [0, 1]: on top of it or inside.
pub(super) fn on_or_in(thing: &Body, base: &Body) -> f64 {
    let is_under = bottom(base) - top(thing);
    let over = over(thing, base) * logistic((-0.01 - is_under) / 0.004);
    over.max(0.9 * over_corner(thing, base))
}

/// The fit of "`thing` is in `base`": below its rim, and not on a top that is seen to be closed.
pub(super) fn inside(thing: &Body, base: &Body) -> f64 {
    let below_rim_m = top(base) - bottom(thing);
    let share = thing.size_m.x * thing.size_m.y / (base.size_m.x * base.size_m.y).max(1e-6);
    let may_be_open = base.hollow_depth_m > 0.008 || share > 0.35;
    // What rises over the rim may hide how deep it stands.
    let needed_m = if may_be_open { -0.02 } else { 0.6 * thing.size_m.z.min(base.size_m.z) };
    on_or_in(thing, base) * logistic((below_rim_m - needed_m) / 0.003)
}

/// The fit of "`roof` is over `thing`" for what does not touch it: all of it lies higher.
pub(super) fn overhangs(roof: &Body, thing: &Body) -> f64 {
    let clear_m = bottom(roof) + roof.unseen_below_m.min(0.5 * roof.size_m.z) - top(thing);
    over(thing, roof) * logistic((clear_m + 0.01) / 0.004)
}

/// Whether the middle of a thing is above the footprint of another.
fn over(thing: &Body, base: &Body) -> f64 {
    let (x_m, y_m) = beyond(thing, base);
    let slack_m = 0.2 * thing.size_m.x.min(thing.size_m.y);
    logistic((slack_m - x_m.max(y_m)) / 0.005)
}

/// Whether a thing stands over something of which only a corner shows: its foot begins where the corner is hidden, no lower than it.
fn over_corner(thing: &Body, base: &Body) -> f64 {
    let gap_m = gap_to(thing, base);
    let raised_m = bottom(thing) + thing.unseen_below_m - top(base);
    logistic((0.006 - gap_m) / 0.003)
        * logistic((raised_m + 0.012) / 0.002)
        * logistic((0.02 - raised_m) / 0.004)
}

/// The free space between two footprints, meters; negative where they overlap.
pub(super) fn gap(a: &Body, b: &Body) -> f64 {
    gap_to(a, b).min(gap_to(b, a))
}

/// How far one body ends below where the other begins, meters; negative where their heights overlap.
pub(super) fn height_gap(a: &Body, b: &Body) -> f64 {
    (bottom(a) - top(b)).max(bottom(b) - top(a))
}

/// From the footprint of `base` to a round one of the width of `thing`.
fn gap_to(thing: &Body, base: &Body) -> f64 {
    let (x_m, y_m) = beyond(thing, base);
    x_m.max(0.0).hypot(y_m.max(0.0)) - 0.5 * thing.size_m.x.min(thing.size_m.y)
}

/// How far the middle of a thing lies beyond the footprint of another, along its axes, meters; negative within.
fn beyond(thing: &Body, base: &Body) -> (f64, f64) {
    let between = thing.pose_in_camera.translation.vector - base.pose_in_camera.translation.vector;
    let offset = base.pose_in_camera.inverse_transform_vector(&between);
    (offset.x.abs() - 0.5 * base.size_m.x, offset.y.abs() - 0.5 * base.size_m.y)
}

/// Along the body's up, which bodies of one frame share.
fn bottom(body: &Body) -> f64 {
    body.up().dot(&body.pose_in_camera.translation.vector) - 0.5 * body.size_m.z
}

fn top(body: &Body) -> f64 {
    bottom(body) + body.size_m.z
}
