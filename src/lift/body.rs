//! Points of a visible surface to an upright oriented box around the whole body.
//!
//! z is up. The footprint's smallest rectangle gives yaw, with x along its longer side. Where the top lies behind the near edge, as
//! on balls and bottles, or the camera looks too flat to see the top, the unseen back is completed by point symmetry about a vertical axis;
//! otherwise the far edge seen is taken for the real one.

use std::f64::consts::PI;

use nalgebra::{
    Isometry3, Matrix3, Matrix6, Point2, Point3, Rotation3, Translation3, Unit, UnitQuaternion, Vector3,
};

use super::quantile;

/// What is known beside the points.
pub(super) struct Surroundings {
    /// Up, in the optical frame.
    pub(super) up: Unit<Vector3<f64>>,
    /// Whether up was measured (a plane or gravity) or is only the image's.
    pub(super) is_up_known: bool,
    /// Height of the plane the object stands on along up (`up . point`), if any.
    pub(super) support_m: Option<f64>,
    /// The image shows that plane right below the object.
    pub(super) is_on_support: bool,
    /// Standard deviation of a single depth value at the object, metres.
    pub(super) depth_noise_m: f64,
    /// Width of a pixel at the object, metres.
    pub(super) pixel_m: f64,
}

pub(super) struct Body {
    pub(super) object_in_camera: Isometry3<f64>,
    pub(super) size_m: Vector3<f64>,
    pub(super) covariance: Matrix6<f64>,
}

/// `points` must not be empty.
pub(super) fn estimate(points: &[Point3<f64>], surroundings: &Surroundings) -> Body {
    let up = surroundings.up;
    let mean = points.iter().map(|it| it.coords).sum::<Vector3<f64>>() / points.len() as f64;
    // Away from the viewer, horizontally. Straight down, the image's up direction does.
    let view = Unit::try_new(mean, 1e-9).unwrap_or(Vector3::z_axis());
    let away = horizontal(&view, &up).or_else(|| horizontal(&-Vector3::y_axis(), &up));
    let away = away.or_else(|| horizontal(&Vector3::x_axis(), &up)).unwrap_or(Vector3::z_axis());
    let side = Unit::new_unchecked(up.cross(&away));
    let sin_elevation = -view.dot(&up);

    // At most about 1500 points carry the shape; the rest only cost time.
    let stride = points.len().div_ceil(1500);
    let sample: Vec<&Point3<f64>> = points.iter().step_by(stride).collect();
    let mut heights: Vec<f64> = sample.iter().map(|it| up.dot(&it.coords)).collect();
    let top_m = quantile(&mut heights, 0.99);
    let lowest_m = quantile(&mut heights, 0.02);
    let mut footprint: Vec<Point2<f64>> =
        sample.iter().map(|it| Point2::new(away.dot(&it.coords), side.dot(&it.coords))).collect();
    // What stands on the plane may hide its underside, but no more of it than a ball would.
    let mut sides: Vec<f64> = footprint.iter().map(|it| it.y).collect();
    let width_m = quantile(&mut sides, 0.99) - quantile(&mut sides, 0.01);
    let hidden_m = if surroundings.is_on_support {
        (0.6 * width_m).max(0.015)
    } else {
        0.008_f64.max(0.1 * (top_m - lowest_m))
    };
    let base_m = match surroundings.support_m {
        Some(support_m) if lowest_m - support_m <= hidden_m + 3.0 * surroundings.depth_noise_m => {
            support_m.min(top_m)
        }
        _ => lowest_m,
    };
    let is_completed = complete_back(&mut footprint, &sample, &up, sin_elevation, top_m, top_m - base_m);
    let rectangle = smallest_rectangle(&footprint);

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

    let covariance = covariance(
        &[away.into_inner(), side.into_inner(), up.into_inner()],
        &view,
        &rectangle,
        size_m.z,
        is_completed,
        points.len(),
        surroundings,
    );
    Body {
        object_in_camera: Isometry3::from_parts(
            Translation3::from(center),
            UnitQuaternion::from_rotation_matrix(&rotation),
        ),
        size_m,
        covariance,
    }
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

/// Mirrors the footprint about the estimated axis of the body where its back is hidden. Returns whether it did.
fn complete_back(
    footprint: &mut Vec<Point2<f64>>,
    points: &[&Point3<f64>],
    up: &Unit<Vector3<f64>>,
    sin_elevation: f64,
    top_m: f64,
    height_m: f64,
) -> bool {
    let mut aways: Vec<f64> = footprint.iter().map(|it| it.x).collect();
    let mut sides: Vec<f64> = footprint.iter().map(|it| it.y).collect();
    let (near, far) = (quantile(&mut aways, 0.01), quantile(&mut aways, 0.99));
    let (left, right) = (quantile(&mut sides, 0.01), quantile(&mut sides, 0.99));
    let (depth, width) = (far - near, right - left);
    if width <= depth {
        return false;
    }
    // Half of a round body at least is seen; less is a wall or a thing lying across, and its depth is anyone's guess.
    if depth < 0.4 * width {
        return false;
    }
    // A flat top or a rim begins at the near edge of the footprint; the top of a ball or a bottle's neck lies behind it.
    let near_of_top = footprint
        .iter()
        .zip(points)
        .filter(|(_, point)| top_m - 0.08 * height_m <= up.dot(&point.coords))
        .map(|(it, _)| it.x)
        .fold(f64::MAX, f64::min);
    let is_curving_away = near + 0.15 * depth < near_of_top;
    let is_top_unseen = sin_elevation < 0.17;
    if !(is_curving_away || is_top_unseen) {
        return false;
    }
    let axis = Point2::new(near + 0.5 * width, 0.5 * (left + right));
    let mirrored: Vec<Point2<f64>> =
        footprint.iter().map(|it| Point2::new(2.0 * axis.x - it.x, 2.0 * axis.y - it.y)).collect();
    footprint.extend(mirrored);
    true
}

/// The rectangle of least area around nearly all points, over turns of one degree, refined to a tenth.
fn smallest_rectangle(points: &[Point2<f64>]) -> Rectangle {
    let stride = points.len().div_ceil(600);
    let sample: Vec<Point2<f64>> = points.iter().step_by(stride).copied().collect();
    let turned = |points: &[Point2<f64>], angle: f64| {
        let (sin, cos) = angle.sin_cos();
        let range = |values: Vec<f64>| {
            let mut values = values;
            // The margin of the quantiles is put back, as for evenly spread points.
            let (low, high) = (quantile(&mut values, 0.004), quantile(&mut values, 0.996));
            let margin = 0.004 * (high - low);
            (low - margin, high + margin)
        };
        let u = range(points.iter().map(|it| cos * it.x + sin * it.y).collect());
        let v = range(points.iter().map(|it| cos * it.y - sin * it.x).collect());
        (u, v)
    };
    let area = |angle: f64| {
        let (u, v) = turned(&sample, angle);
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
    let (u, v) = turned(points, yaw);
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
    let depth_variance = surroundings.depth_noise_m.powi(2) * (0.1 + 1.0 / n_independent);
    let edge_variance = (0.5 * surroundings.pixel_m).powi(2) + 0.25 * surroundings.depth_noise_m.powi(2);
    // How far the estimated body is from the real one, as a share of its size: measured on rendered objects of known shape.
    let shape = |extent: f64, share: f64| (share * extent).powi(2);
    let away_share = if is_completed { 0.08 } else { 0.04 };
    let position: Matrix3<f64> = depth_variance * view * view.transpose()
        + (edge_variance + shape(rectangle.length, away_share)) * away * away.transpose()
        + (edge_variance + shape(rectangle.length, 0.025)) * side * side.transpose()
        + (edge_variance + shape(height_m, 0.04)) * up * up.transpose();

    let tilt: f64 = if surroundings.is_up_known { 1.0_f64.to_radians() } else { 15.0_f64.to_radians() };
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
