//! Points of a visible surface to an upright oriented box around the whole body.
//!
//! z is up. A body whose near side fits a circle as wide as the body better than a rectangle is taken for round about a vertical
//! axis, and so is its unseen back; its yaw is unknown. Of any other the smallest rectangle around the footprint gives yaw, with x
//! along the longer side, and the farthest that is seen is taken for its back.

use std::f64::consts::PI;

use nalgebra::{
    Isometry3, Matrix3, Matrix6, Point2, Point3, Rotation3, Translation3, Unit, UnitQuaternion, Vector3,
    Vector6,
};

use super::below::Below;
use super::quantile;
use crate::score::logistic;

/// What is known beside the points.
pub(super) struct Surroundings {
    /// Up, in the optical frame.
    pub(super) up: Unit<Vector3<f64>>,
    /// Whether up was measured (a plane or gravity) or is a guess.
    pub(super) is_up_known: bool,
    /// Height of the plane the object stands on along up (`up . point`), if any.
    pub(super) support_m: Option<f64>,
    /// What the image shows right below the object.
    pub(super) below: Below,
    /// Standard deviation of a single depth value at the object, meters.
    pub(super) depth_noise_m: f64,
    /// Width of a pixel at the object, meters.
    pub(super) pixel_m: f64,
}

pub(super) struct Body {
    pub(super) object_in_camera: Isometry3<f64>,
    pub(super) size_m: Vector3<f64>,
    pub(super) covariance: Matrix6<f64>,
    pub(super) is_back_completed: bool,
    pub(super) hollow_depth_m: f64,
    pub(super) unseen_below_m: f64,
    pub(super) is_top_closed: bool,
}

/// `points` must not be empty; they stand for `n_points` pixels.
pub(super) fn estimate(points: &[Point3<f64>], n_points: usize, surroundings: &Surroundings) -> Body {
    let up = surroundings.up;
    let mean = points.iter().map(|it| it.coords).sum::<Vector3<f64>>() / points.len() as f64;
    // Away from the viewer, horizontally. Straight down, the image's up direction does.
    let view = Unit::try_new(mean, 1e-9).unwrap_or(Vector3::z_axis());
    let away = horizontal(&view, &up).or_else(|| horizontal(&-Vector3::y_axis(), &up));
    let away = away.or_else(|| horizontal(&Vector3::x_axis(), &up)).unwrap_or(Vector3::z_axis());
    let side = Unit::new_unchecked(up.cross(&away));

    // At most about 1500 points carry the shape; the rest only cost time.
    let stride = points.len().div_ceil(1500);
    let sample: Vec<&Point3<f64>> = points.iter().step_by(stride).collect();
    let mut heights: Vec<f64> = sample.iter().map(|it| up.dot(&it.coords)).collect();
    let top_m = quantile(&mut heights, 0.99);
    let lowest_m = quantile(&mut heights, 0.02);
    let footprint: Vec<Point2<f64>> =
        sample.iter().map(|it| Point2::new(away.dot(&it.coords), side.dot(&it.coords))).collect();
    // What stands on the plane may hide its underside, but no more of it than a ball would.
    let mut sides: Vec<f64> = footprint.iter().map(|it| it.y).collect();
    let width_m = quantile(&mut sides, 0.99) - quantile(&mut sides, 0.01);
    let base = base_of(lowest_m, top_m, width_m, surroundings);
    let base_m = base.height_m;
    let rectangle =
        smallest_rectangle(&with_edges(&footprint, &sample, &up, top_m, -view.dot(&up), surroundings));
    let contour = NearContour::new(&footprint, surroundings);
    let (circle, roundness) = round_footprint(&contour, &rectangle, surroundings);
    let is_completed = 0.5 < roundness;
    let (rectangle, other, doubt) =
        if is_completed { (circle, rectangle, 1.0 - roundness) } else { (rectangle, circle, roundness) };
    // Where round and angular are as likely, its middle may be that of either.
    let apart = other.center - rectangle.center;
    let apart = away.scale(apart.x) + side.scale(apart.y);

    let along = |yaw: f64| Unit::new_normalize(away.scale(yaw.cos()) + side.scale(yaw.sin()));
    let x_axis = along(rectangle.yaw);
    // One of the two directions of the axis: to the right in the image.
    let x_axis = if x_axis.x < 0.0 { -x_axis } else { x_axis };
    let y_axis = up.cross(&x_axis);
    let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[
        x_axis.into_inner(),
        y_axis,
        up.into_inner(),
    ]));
    let center =
        away.scale(rectangle.center.x) + side.scale(rectangle.center.y) + up.scale(0.5 * (top_m + base_m));
    let size_m = Vector3::new(rectangle.length, rectangle.width, top_m - base_m);

    let hollow_depth_m = hollow_depth(&footprint, &sample, &up, &rectangle, top_m, size_m.z);
    let mut covariance = covariance(
        &[away.into_inner(), side.into_inner(), up.into_inner()],
        &view,
        &rectangle,
        size_m.z,
        is_completed,
        n_points,
        surroundings,
    );
    let mut position = covariance.fixed_view_mut::<3, 3>(0, 0);
    position += doubt * apart * apart.transpose() + base.variance_m2 * up.into_inner() * up.transpose();
    // A vessel about as high as wide may have a handle out of sight, which belongs to the body: up to a third of its height.
    if 0.0 < hollow_depth_m && 0.55 * size_m.y <= size_m.z {
        let handle = (0.08 * size_m.z).powi(2) * (Matrix3::identity() - up.into_inner() * up.transpose());
        let mut position = covariance.fixed_view_mut::<3, 3>(0, 0);
        position += handle;
    }
    Body {
        object_in_camera: Isometry3::from_parts(
            Translation3::from(center),
            UnitQuaternion::from_rotation_matrix(&rotation),
        ),
        size_m,
        covariance,
        is_back_completed: is_completed,
        hollow_depth_m,
        unseen_below_m: lowest_m - base_m,
        is_top_closed: is_top_closed(&footprint, &sample, &up, &rectangle, top_m, size_m.z, surroundings),
    }
}

/// The covariance of the first of several bodies that one thing may have, each with its probability: it contains them all.
pub(super) fn containing(bodies: &[(Body, f64)]) -> Matrix6<f64> {
    let Some((first, _)) = bodies.first() else { return Matrix6::identity() };
    if bodies.len() == 1 {
        return first.covariance;
    }
    let total: f64 = bodies.iter().map(|it| it.1).sum();
    let about_first = |body: &Body| {
        let moved = body.object_in_camera.translation.vector - first.object_in_camera.translation.vector;
        let turned =
            (body.object_in_camera.rotation * first.object_in_camera.rotation.inverse()).scaled_axis();
        let mut offset = Vector6::zeros();
        offset.fixed_rows_mut::<3>(0).copy_from(&moved);
        offset.fixed_rows_mut::<3>(3).copy_from(&turned);
        body.covariance + offset * offset.transpose()
    };
    bodies.iter().fold(Matrix6::zeros(), |sum, (body, weight)| sum + weight / total * about_first(body))
}

/// How far the middle lies below the rim.
fn hollow_depth(
    footprint: &[Point2<f64>],
    points: &[&Point3<f64>],
    up: &Unit<Vector3<f64>>,
    rectangle: &Rectangle,
    top_m: f64,
    height_m: f64,
) -> f64 {
    let reach = 0.3 * rectangle.width;
    let inner = footprint.iter().zip(points).filter(|(it, _)| (*it - rectangle.center).norm() < reach);
    let mut drops: Vec<f64> = inner.map(|(_, point)| top_m - up.dot(&point.coords)).collect();
    if drops.len() < 5 {
        return 0.0;
    }
    // The middle of what is seen in the middle: of a deep cup that is the far wall, somewhere below the rim.
    let drop = quantile(&mut drops, 0.5);
    if 0.008_f64.max(0.15 * height_m) < drop { drop } else { 0.0 }
}

/// Whether the inside of the footprint shows one level at the top rather than something lower. By places, not by points: a front that is
/// seen steeply has many points over few places.
fn is_top_closed(
    footprint: &[Point2<f64>],
    points: &[&Point3<f64>],
    up: &Unit<Vector3<f64>>,
    rectangle: &Rectangle,
    top_m: f64,
    height_m: f64,
    surroundings: &Surroundings,
) -> bool {
    const N_CELLS: usize = 7;
    /// Of the length and the width.
    const INNER: f64 = 0.72;
    let (sin, cos) = rectangle.yaw.sin_cos();
    let mut highest: [[Option<f64>; N_CELLS]; N_CELLS] = Default::default();
    for (it, point) in footprint.iter().zip(points) {
        let offset = it - rectangle.center;
        let along = (cos * offset.x + sin * offset.y) / (INNER * rectangle.length) + 0.5;
        let across = (cos * offset.y - sin * offset.x) / (INNER * rectangle.width) + 0.5;
        if (0.0..1.0).contains(&along) && (0.0..1.0).contains(&across) {
            let cell = &mut highest[(along * N_CELLS as f64) as usize][(across * N_CELLS as f64) as usize];
            let height_m = up.dot(&point.coords);
            *cell = Some(cell.map_or(height_m, |it| it.max(height_m)));
        }
    }
    let mut levels: Vec<f64> = highest.iter().flatten().copied().flatten().collect();
    if levels.len() < 16 {
        return false;
    }
    // The level of most, which a few pixels of what stands on it do not move.
    let level_m = quantile(&mut levels, 0.5);
    let slack_m = (0.006 + surroundings.depth_noise_m).min(0.25 * height_m);
    let n_level = levels.iter().filter(|it| (*it - level_m).abs() <= slack_m).count();
    top_m - level_m <= slack_m.max(0.2 * height_m) && 7 * levels.len() <= 10 * n_level
}

/// Where a body ends below.
struct Base {
    /// Along up, meters.
    height_m: f64,
    /// Of the middle of the body, because it may stand or hang; square meters.
    variance_m2: f64,
}

/// Few things are higher than so many times their width.
const MAX_SLENDERNESS: f64 = 4.0;

/// What is seen may end above the plane because the thing hangs, or because it hides its own foot: no more of it than a ball would; or
/// because something nearer hides it, and then things mostly stand. In between both are likely, and the answer passes from one to the
/// other without a jump.
fn base_of(lowest_m: f64, top_m: f64, width_m: f64, surroundings: &Surroundings) -> Base {
    let Some(support_m) = surroundings.support_m else {
        return Base { height_m: lowest_m, variance_m2: 0.0 };
    };
    let (of_hanging, of_standing) = (0.008_f64.max(0.1 * (top_m - lowest_m)), (0.6 * width_m).max(0.015));
    let on_support = logistic((surroundings.below.plane_share - 0.5) / 0.08);
    let own_m = of_hanging + on_support * (of_standing - of_hanging).max(0.0);
    // A few lines that are free tell where it ends.
    let behind = logistic((surroundings.below.hidden_share - 0.75) / 0.05);
    let highest_m = MAX_SLENDERNESS * width_m;
    let hidden_m = own_m + behind * (highest_m - (top_m - lowest_m) - own_m).max(0.0);
    let limit_m = hidden_m + 3.0 * surroundings.depth_noise_m;
    let gap_m = lowest_m - support_m;
    let standing = logistic((limit_m - gap_m) / (0.12 * limit_m));
    let height_m = (lowest_m - standing * gap_m).min(top_m);
    // What is hidden may as well stand on something that is hidden too, at any height up to where it is seen: as likely as on the plane.
    let guess_m2 = 0.5 * behind * standing * gap_m.max(0.0).powi(2) / 12.0;
    Base { height_m, variance_m2: standing * (1.0 - standing) * (0.5 * gap_m).powi(2) + guess_m2 }
}

struct Rectangle {
    center: Point2<f64>,
    /// Of the longer side, from the first axis, radians.
    yaw: f64,
    length: f64,
    width: f64,
    /// As good turned by any angle, as far as the points tell.
    is_round: bool,
}

fn horizontal(direction: &Vector3<f64>, up: &Unit<Vector3<f64>>) -> Option<Unit<Vector3<f64>>> {
    Unit::try_new(direction - up.scale(up.dot(direction)), 0.05)
}

/// The footprint and what the pixels at the top's edge do not show: a pixel is seen by its center, and where depth jumps it is
/// often lost, so that a top ends some 0.7 pixels before its edge.
fn with_edges(
    footprint: &[Point2<f64>],
    points: &[&Point3<f64>],
    up: &Unit<Vector3<f64>>,
    top_m: f64,
    sin_elevation: f64,
    surroundings: &Surroundings,
) -> Vec<Point2<f64>> {
    let behind = 0.7 * surroundings.pixel_m / sin_elevation.max(0.3);
    let beside = 0.5 * surroundings.pixel_m;
    let band = 0.003 + 2.0 * surroundings.depth_noise_m;
    let mut all = footprint.to_vec();
    for (it, point) in footprint.iter().zip(points) {
        if top_m - band <= up.dot(&point.coords) {
            all.extend([
                Point2::new(it.x + behind, it.y),
                Point2::new(it.x, it.y - beside),
                Point2::new(it.x, it.y + beside),
            ]);
        }
    }
    all
}

/// The side of the footprint that faces the viewer: mean nearest distance by slices across the view.
struct NearContour {
    /// Across, along away; meters.
    points: Vec<Point2<f64>>,
    left: f64,
    right: f64,
    near: f64,
    far: f64,
}

impl NearContour {
    const N_SLICES: usize = 15;

    fn new(footprint: &[Point2<f64>], surroundings: &Surroundings) -> Self {
        let mut sides: Vec<f64> = footprint.iter().map(|it| it.y).collect();
        let mut aways: Vec<f64> = footprint.iter().map(|it| it.x).collect();
        // Pixels are seen by their centers: the outline is half a pixel further out.
        let margin = 0.5 * surroundings.pixel_m;
        let (left, right) = (quantile(&mut sides, 0.003) - margin, quantile(&mut sides, 0.997) + margin);
        let (near, far) = (quantile(&mut aways, 0.01), quantile(&mut aways, 0.99));
        let band = 3.0 * surroundings.depth_noise_m + 0.002;
        let mut slices: Vec<Vec<f64>> = vec![Vec::new(); Self::N_SLICES];
        for it in footprint {
            let share = (it.y - left) / (right - left).max(1e-6);
            let slice = (share * Self::N_SLICES as f64).clamp(0.0, Self::N_SLICES as f64 - 1.0) as usize;
            slices[slice].push(it.x);
        }
        let mut points = Vec::new();
        for (slice, aways) in slices.iter_mut().enumerate() {
            if aways.len() < 4 {
                continue;
            }
            let nearest = quantile(aways, 0.04);
            let (sum, n) = aways
                .iter()
                .filter(|it| **it <= nearest + band)
                .fold((0.0, 0.0), |(sum, n), it| (sum + it, n + 1.0));
            let side = left + (right - left) * (slice as f64 + 0.5) / Self::N_SLICES as f64;
            points.push(Point2::new(side, sum / n));
        }
        Self { points, left, right, near, far }
    }

    /// Root mean square distance of the contour from `near_of(side)`, the outermost slices left out: they mix with what is behind.
    fn misfit(&self, near_of: impl Fn(f64) -> f64) -> f64 {
        let (middle, half) = (0.5 * (self.left + self.right), 0.5 * (self.right - self.left));
        let inner = self.points.iter().filter(|it| (it.x - middle).abs() < 0.87 * half);
        let (sum, n) = inner.fold((0.0, 0.0), |(sum, n), it| (sum + (it.y - near_of(it.x)).powi(2), n + 1.0));
        if n < 4.0 { f64::INFINITY } else { f64::sqrt(sum / n) }
    }

    /// The circle as wide as the footprint whose near side fits the contour best: center (away, side), radius and misfit.
    fn circle(&self) -> (Point2<f64>, f64, f64) {
        let radius = 0.5 * (self.right - self.left);
        let middle = 0.5 * (self.left + self.right);
        let sag = |side: f64| (radius * radius - (side - middle).powi(2)).max(0.0).sqrt();
        let inner = self.points.iter().filter(|it| (it.x - middle).abs() < 0.75 * radius);
        let mut centers: Vec<f64> = inner.map(|it| it.y + sag(it.x)).collect();
        if centers.is_empty() {
            return (Point2::new(self.near + radius, middle), radius, f64::INFINITY);
        }
        let away = quantile(&mut centers, 0.5);
        // Where the far rim is seen too, as of bowls and plates, both sides count.
        let from_far = self.far - radius;
        let is_far_rim = (from_far - away).abs() <= 0.12 * radius;
        let away = if is_far_rim { 0.5 * (away + from_far) } else { away };
        (Point2::new(away, middle), radius, self.misfit(|side| away - sag(side)))
    }
}

/// The circle that a round body would have, the unseen back included, and how likely it is one.
///
/// It is when a circle fits the side that is seen better than the rectangle does, and nothing is seen where the circle is not.
fn round_footprint(
    contour: &NearContour,
    rectangle: &Rectangle,
    surroundings: &Surroundings,
) -> (Rectangle, f64) {
    let (center, radius, misfit) = contour.circle();
    let noise_m = surroundings.depth_noise_m;
    let slack = 0.12 * radius + 2.0 * noise_m;
    let of_rectangle = contour.misfit(|side| rectangle.near_of(side));
    // From above, of a ball its near half is seen, of everything else more.
    let depth = contour.far - contour.near + 2.0 * noise_m;
    // Each holds where it is under 1.
    let doubts = [
        (contour.far - center.x - radius) / slack,
        (center.x - radius - contour.near) / slack,
        0.92 * radius / depth.max(1e-6),
        misfit / (0.06 * radius + 0.7 * noise_m),
        if of_rectangle.is_finite() { misfit / (0.8 * of_rectangle).max(1e-9) } else { 0.0 },
    ];
    let worst = doubts.into_iter().fold(0.0, f64::max);
    let roundness = if worst.is_finite() { logistic((1.0 - worst) / 0.08) } else { 0.0 };
    let circle = Rectangle { center, yaw: 0.0, length: 2.0 * radius, width: 2.0 * radius, is_round: true };
    (circle, roundness)
}

impl Rectangle {
    /// Where its near side is at a place across the view; far away beside it.
    fn near_of(&self, side: f64) -> f64 {
        let (sin, cos) = self.yaw.sin_cos();
        let (half_u, half_v) = (0.5 * self.length, 0.5 * self.width);
        let corner = |u: f64, v: f64| {
            Point2::new(self.center.x + u * cos - v * sin, self.center.y + u * sin + v * cos)
        };
        let corners = [
            corner(half_u, half_v),
            corner(-half_u, half_v),
            corner(-half_u, -half_v),
            corner(half_u, -half_v),
        ];
        let mut nearest = f64::INFINITY;
        for i in 0..4 {
            let (a, b) = (corners[i], corners[(i + 1) % 4]);
            let (low, high) = (a.y.min(b.y), a.y.max(b.y));
            if low <= side && side <= high && 1e-9 < high - low {
                nearest = nearest.min(a.x + (b.x - a.x) * (side - a.y) / (b.y - a.y));
            }
        }
        if nearest.is_finite() { nearest } else { self.center.x }
    }
}

/// The rectangle of least area around nearly all points, over turns of one degree, refined to a tenth.
fn smallest_rectangle(points: &[Point2<f64>]) -> Rectangle {
    let stride = points.len().div_ceil(600);
    let sample: Vec<Point2<f64>> = points.iter().step_by(stride).copied().collect();
    let area = |angle: f64| {
        let (u, v) = spans(&sample, angle);
        (u.1 - u.0) * (v.1 - v.0)
    };
    let (mut best, mut best_area, mut worst_area) = (0.0, f64::MAX, 0.0_f64);
    for step in 0..45 {
        let angle = PI / 2.0 * f64::from(step) / 45.0;
        let area = area(angle);
        worst_area = worst_area.max(area);
        if area < best_area {
            (best, best_area) = (angle, area);
        }
    }
    let coarse = best;
    for step in -9..=9 {
        let angle = coarse + f64::from(step) * 0.2_f64.to_radians();
        let area = area(angle);
        if area < best_area {
            (best, best_area) = (angle, area);
        }
    }
    let is_round = best_area <= 0.0 || 0.82 * worst_area < best_area;
    let mut yaw = if is_round { 0.0 } else { best };
    let (u, v) = spans(points, yaw);
    let (sin, cos) = yaw.sin_cos();
    let (mid_u, mid_v) = (0.5 * (u.0 + u.1), 0.5 * (v.0 + v.1));
    let (mut length, mut width) = (u.1 - u.0, v.1 - v.0);
    if length < width {
        std::mem::swap(&mut length, &mut width);
        yaw += PI / 2.0;
    }
    Rectangle {
        center: Point2::new(cos * mid_u - sin * mid_v, sin * mid_u + cos * mid_v),
        yaw,
        length,
        width,
        is_round,
    }
}

/// From where to where nearly all points reach along x and along y, both turned by `angle`.
fn spans(points: &[Point2<f64>], angle: f64) -> ((f64, f64), (f64, f64)) {
    let (sin, cos) = angle.sin_cos();
    let n_outside = ((points.len() - 1) as f64 * 0.004).round() as usize;
    let (mut u, mut v) = (Span::new(n_outside), Span::new(n_outside));
    for it in points {
        u.add(cos * it.x + sin * it.y);
        v.add(cos * it.y - sin * it.x);
    }
    (u.ends(), v.ends())
}

/// The few smallest and largest of many values: a quantile near the ends costs less this way than by sorting.
struct Span {
    /// Ascending.
    smallest: Vec<f64>,
    /// Descending.
    largest: Vec<f64>,
    /// The last of each: most values are between.
    low: f64,
    high: f64,
}

impl Span {
    fn new(n_outside: usize) -> Self {
        let (low, high) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { smallest: vec![low; n_outside + 1], largest: vec![high; n_outside + 1], low, high }
    }

    #[inline]
    fn add(&mut self, value: f64) {
        if value < self.low {
            let at = self.smallest.partition_point(|it| *it <= value);
            self.smallest[at..].rotate_right(1);
            self.smallest[at] = value;
            self.low = *self.smallest.last().unwrap_or(&value);
        }
        if self.high < value {
            let at = self.largest.partition_point(|it| value <= *it);
            self.largest[at..].rotate_right(1);
            self.largest[at] = value;
            self.high = *self.largest.last().unwrap_or(&value);
        }
    }

    /// Without the values outside; their margin is put back, as for evenly spread points.
    fn ends(&self) -> (f64, f64) {
        let margin = 0.004 * (self.high - self.low);
        (self.low - margin, self.high + margin)
    }
}

fn covariance(
    axes: &[Vector3<f64>; 3],
    view: &Vector3<f64>,
    rectangle: &Rectangle,
    height_m: f64,
    is_completed: bool,
    n_points: usize,
    surroundings: &Surroundings,
) -> Matrix6<f64> {
    let [away, side, up] = axes;
    // Depth errors of neighboring pixels hang together: far fewer independent ones than points.
    let n_independent = (n_points as f64 / 25.0).max(1.0);
    let depth_variance = surroundings.depth_noise_m.powi(2) * (0.04 + 1.0 / n_independent);
    let edge_variance = (0.3 * surroundings.pixel_m).powi(2) + (0.2 * surroundings.depth_noise_m).powi(2);
    // How far the estimated body is from the real one, as a share of its size: measured on rendered objects of known shape.
    let shape = |extent: f64, share: f64| (share * extent).powi(2);
    let away_share = if is_completed { 0.03 } else { 0.035 };
    let position: Matrix3<f64> = depth_variance * view * view.transpose()
        + (edge_variance + shape(rectangle.length, away_share)) * away * away.transpose()
        + (edge_variance + shape(rectangle.length, 0.024)) * side * side.transpose()
        + (edge_variance + shape(height_m, 0.033)) * up * up.transpose();

    // Where up is unknown the thing may lie on any side: every turn is as likely.
    let tilt: f64 = if surroundings.is_up_known { 1.0_f64.to_radians() } else { PI / 3.0_f64.sqrt() };
    let yaw_variance = if rectangle.is_round {
        // Nothing is known: uniform over a half turn.
        PI.powi(2) / 12.0
    } else {
        let elongation = (rectangle.length - rectangle.width) / rectangle.length.max(1e-6);
        (3.0_f64.to_radians() / elongation.clamp(0.15, 1.0)).powi(2)
            + edge_variance / rectangle.length.max(1e-3).powi(2)
    };
    let rotation: Matrix3<f64> = tilt.powi(2) * (away * away.transpose() + side * side.transpose())
        + yaw_variance * up * up.transpose();
    let mut covariance = Matrix6::zeros();
    covariance.fixed_view_mut::<3, 3>(0, 0).copy_from(&position);
    covariance.fixed_view_mut::<3, 3>(3, 3).copy_from(&rotation);
    covariance
}
