//! Which pixels of a box are the object: not the plane it stands on, not what is behind, in front or beside.
//!
//! What the box is about fits the box; background and occluders run out of it. So the surroundings are looked at as well:
//! points off the support plane are grouped by depth in a window larger than the box, and groups are judged by how well they
//! fit it.

use nalgebra::{Point3, Unit, Vector3};

use crate::detection::BoundingBox2d;
use crate::lift::SupportPlane;

/// The pixels around a box: their points in the optical frame, row-major, `None` without depth. Of a large box only every
/// `stride`-th row and column: where it is and how large does not depend on more of them.
pub(super) struct Window {
    pub(super) x0: u32,
    pub(super) y0: u32,
    /// Columns and rows of points.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) stride: u32,
    pub(super) points: Vec<Option<Point3<f64>>>,
}

/// How far apart neighboring points of one surface may be, and heights within noise of the plane.
pub(super) struct Tolerances<'a> {
    /// Largest depth step between neighboring pixels at a depth, meters.
    pub(super) step_m: &'a dyn Fn(f64) -> f64,
    /// How far from the plane a point at a depth still counts as on it, meters.
    pub(super) height_m: &'a dyn Fn(f64) -> f64,
    /// Level and across the view, optical frame: along it things are as wide as they are.
    pub(super) side: Unit<Vector3<f64>>,
}

struct Group {
    pixels: Vec<usize>,
    n_inside: usize,
    fit: f64,
}

impl Window {
    /// The pixel in the middle of those that a point stands for.
    pub(super) fn pixel(&self, idx: usize) -> (u32, u32) {
        let (u, v) = self.corner(idx);
        (u + self.stride / 2, v + self.stride / 2)
    }

    /// The first of the `stride` x `stride` pixels that a point stands for.
    pub(super) fn corner(&self, idx: usize) -> (u32, u32) {
        (self.x0 + idx as u32 % self.width * self.stride, self.y0 + idx as u32 / self.width * self.stride)
    }

    /// How many pixels so many points stand for.
    pub(super) fn n_pixels(&self, n_points: usize) -> usize {
        n_points * (self.stride * self.stride) as usize
    }

    pub(super) fn is_inside(&self, idx: usize, bbox: &BoundingBox2d) -> bool {
        let (u, v) = self.pixel(idx);
        let (u, v) = (f64::from(u) + 0.5, f64::from(v) + 0.5);
        bbox.x0 <= u && u <= bbox.x1 && bbox.y0 <= v && v <= bbox.y1
    }
}

/// The object's pixels within the box, as indices into the window. Empty when there is no depth in the box at all.
pub(super) fn object_pixels(
    window: &Window,
    bbox: &BoundingBox2d,
    plane: Option<&SupportPlane>,
    tolerances: &Tolerances<'_>,
) -> Vec<usize> {
    let is_off_plane =
        |point: &Point3<f64>| plane.is_none_or(|it| (tolerances.height_m)(point.z) < it.height_m(point));
    let candidates: Vec<bool> =
        window.points.iter().map(|it| it.as_ref().is_some_and(is_off_plane)).collect();
    let mut chosen = best_group(window, bbox, &candidates, tolerances);

    // What the object stands on may stand on the plane itself: a mug on a plate is one surface with the plate. The part of the
    // group outside the box tells how high that support is.
    if let (Some(plane), Some(group)) = (plane, &chosen)
        && (group.n_inside as f64) < 0.85 * group.pixels.len() as f64
        && let Some(cut) = cut_above_surroundings(window, bbox, plane, group, tolerances)
    {
        chosen = Some(cut);
    }

    let box_area = bbox.area().max(1.0);
    match chosen {
        Some(group) if 0.04 * box_area <= window.n_pixels(group.n_inside) as f64 => {
            let mut pixels: Vec<usize> =
                group.pixels.iter().copied().filter(|it| window.is_inside(*it, bbox)).collect();
            add_fragments(window, bbox, &candidates, tolerances, &mut pixels);
            drop_background(window, &tolerances.side, &mut pixels);
            pixels
        }
        // Nothing stands out of the plane: a flat thing, as far as depth can tell, is the plane within the box.
        _ => flat_pixels(window, bbox),
    }
}

fn best_group(
    window: &Window,
    bbox: &BoundingBox2d,
    is_candidate: &[bool],
    tolerances: &Tolerances<'_>,
) -> Option<Group> {
    groups(window, bbox, is_candidate, tolerances).into_iter().max_by(|a, b| a.fit.total_cmp(&b.fit))
}

/// Candidates connected over small depth steps, with how well each group fits the box.
fn groups(
    window: &Window,
    bbox: &BoundingBox2d,
    is_candidate: &[bool],
    tolerances: &Tolerances<'_>,
) -> Vec<Group> {
    let (width, height) = (window.width as usize, window.height as usize);
    let mut is_seen = vec![false; is_candidate.len()];
    let mut groups = Vec::new();
    for start in 0..is_candidate.len() {
        if is_seen[start] || !is_candidate[start] {
            continue;
        }
        is_seen[start] = true;
        let mut pixels = vec![start];
        let mut next = 0;
        while next < pixels.len() {
            let idx = pixels[next];
            next += 1;
            let Some(here) = window.points[idx] else { continue };
            let (x, y) = (idx % width, idx / width);
            let neighbors = [
                (0 < x).then(|| idx - 1),
                (x + 1 < width).then(|| idx + 1),
                (0 < y).then(|| idx - width),
                (y + 1 < height).then(|| idx + width),
            ];
            for neighbor in neighbors.into_iter().flatten() {
                if is_seen[neighbor] || !is_candidate[neighbor] {
                    continue;
                }
                let Some(there) = window.points[neighbor] else { continue };
                if (here.z - there.z).abs() <= (tolerances.step_m)(here.z.min(there.z)) {
                    is_seen[neighbor] = true;
                    pixels.push(neighbor);
                }
            }
        }
        let n_inside = pixels.iter().filter(|it| window.is_inside(**it, bbox)).count();
        if n_inside == 0 {
            continue;
        }
        let (mut x0, mut y0, mut x1, mut y1) = (f64::MAX, f64::MAX, 0.0_f64, 0.0_f64);
        let side = f64::from(window.stride);
        for &idx in &pixels {
            let (u, v) = window.corner(idx);
            let (u, v) = (f64::from(u), f64::from(v));
            (x0, y0, x1, y1) = (x0.min(u), y0.min(v), x1.max(u + side), y1.max(v + side));
        }
        let extent = BoundingBox2d { x0, y0, x1, y1 };
        let fit = extent.iou(bbox) * n_inside as f64 / pixels.len() as f64;
        groups.push(Group { pixels, n_inside, fit });
    }
    groups
}

/// The part of a group above the surface that runs out of the box, if that leaves enough.
fn cut_above_surroundings(
    window: &Window,
    bbox: &BoundingBox2d,
    plane: &SupportPlane,
    group: &Group,
    tolerances: &Tolerances<'_>,
) -> Option<Group> {
    let mut heights_outside: Vec<f64> = group
        .pixels
        .iter()
        .filter(|it| !window.is_inside(**it, bbox))
        .filter_map(|it| window.points[*it].as_ref().map(|point| plane.height_m(point)))
        .collect();
    if heights_outside.is_empty() {
        return None;
    }
    let mut is_candidate = vec![false; window.points.len()];
    for share in [0.8, 0.5] {
        let support_m = super::quantile(&mut heights_outside, share);
        for &idx in &group.pixels {
            is_candidate[idx] = window.points[idx]
                .as_ref()
                .is_some_and(|point| support_m + (tolerances.height_m)(point.z) < plane.height_m(point));
        }
        let cut = best_group(window, bbox, &is_candidate, tolerances);
        if let Some(cut) =
            cut.filter(|it| 0.35 * group.n_inside as f64 <= it.n_inside as f64 && group.fit < it.fit)
        {
            return Some(cut);
        }
    }
    None
}

/// Other parts of the object: cut off by something in front, or by its own rim, as the inside of a bowl. Groups that lie in the
/// box, no nearer than the object (unless nearly as wide: its near side) and no further behind than the object is wide.
fn add_fragments(
    window: &Window,
    bbox: &BoundingBox2d,
    is_candidate: &[bool],
    tolerances: &Tolerances<'_>,
    pixels: &mut Vec<usize>,
) {
    let points = |pixels: &[usize]| sample(window, pixels);
    let quantile = |points: &[Point3<f64>], share: f64, axis: &Vector3<f64>| {
        super::quantile(&mut points.iter().map(|it| axis.dot(&it.coords)).collect::<Vec<_>>(), share)
    };
    let (side, depth) = (&*tolerances.side, &Vector3::z());
    let own = points(pixels);
    if own.is_empty() {
        return;
    }
    let width_of = |points: &[Point3<f64>]| quantile(points, 0.98, side) - quantile(points, 0.02, side);
    let (near, width) = (quantile(&own, 0.02, depth), width_of(&own));
    let own_far = quantile(&own, 0.9, depth);
    let far = own_far.max(near + 1.1 * width);
    let mut is_rest = is_candidate.to_vec();
    for &idx in pixels.iter() {
        is_rest[idx] = false;
    }
    for group in groups(window, bbox, &is_rest, tolerances) {
        let there = points(&group.pixels);
        let is_in_box = 0.9 * group.pixels.len() as f64 <= group.n_inside as f64;
        if !is_in_box || group.pixels.len() < 6 {
            continue;
        }
        let (there_near, there_far) = (quantile(&there, 0.1, depth), quantile(&there, 0.9, depth));
        let is_behind = near - 0.01 <= there_near && there_far <= far + 0.01;
        let is_near_side = 0.7 * width <= width_of(&there) && own_far - 1.1 * width <= there_near;
        if is_behind || is_near_side {
            pixels.extend(group.pixels.into_iter().filter(|it| window.is_inside(*it, bbox)));
        }
    }
}

/// At most about 2000 of the points: enough for extents.
fn sample(window: &Window, pixels: &[usize]) -> Vec<Point3<f64>> {
    let stride = pixels.len().div_ceil(2000).max(1);
    pixels.iter().step_by(stride).filter_map(|it| window.points[*it]).collect()
}

/// Drops what lies behind a gap in depth that is wider than the object: background that flying pixels or a hole tied to it.
fn drop_background(window: &Window, side: &Unit<Vector3<f64>>, pixels: &mut Vec<usize>) {
    let mut by_depth = sample(window, pixels);
    by_depth.sort_by(|a, b| a.z.total_cmp(&b.z));
    let (mut left, mut right) = (f64::MAX, f64::MIN);
    for pair in by_depth.windows(2) {
        let across = side.dot(&pair[0].coords);
        (left, right) = (left.min(across), right.max(across));
        if 0.1_f64.max(1.2 * (right - left)) < pair[1].z - pair[0].z {
            let far = pair[0].z;
            let n_near = by_depth.iter().filter(|it| it.z <= far).count();
            // The larger part is the object; a few stray points in front are not.
            if by_depth.len() <= 3 * n_near {
                pixels.retain(|it| window.points[*it].is_some_and(|point| point.z <= far));
                return;
            }
        }
    }
}

/// All pixels with depth in the middle of the box.
fn flat_pixels(window: &Window, bbox: &BoundingBox2d) -> Vec<usize> {
    let (margin_x, margin_y) = (0.1 * bbox.width(), 0.1 * bbox.height());
    let middle = BoundingBox2d {
        x0: bbox.x0 + margin_x,
        y0: bbox.y0 + margin_y,
        x1: bbox.x1 - margin_x,
        y1: bbox.y1 - margin_y,
    };
    (0..window.points.len())
        .filter(|it| window.points[*it].is_some() && window.is_inside(*it, &middle))
        .collect()
}
