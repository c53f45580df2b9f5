//! Whether a thing is open at the top, told from its rim: rays that pass through the top's plane and end inside, with a rim beyond them.
//!
//! From a slant nothing is seen of the middle of a deep basket but its far wall. What tells a vessel from a thing that is only
//! lower in the middle than at the top, as a ball or a roof is, is that its far rim stands up again behind what is lower.

use nalgebra::{Point3, Vector3};

use super::{FrameGeometry, LiftedObject, quantile};

/// Rays through the top, a side.
const N_RAYS: usize = 15;
/// Of the half extents: where rays are sent through the top.
const INNER: f64 = 0.72;
/// Directions in which a far rim is looked for, and within what angle of straight away, radians.
const N_RIM: usize = 13;
const RIM_ANGLE: f64 = 1.1;
/// Least number of rays that must end somewhere to tell.
const MIN_RAYS: usize = 12;

/// Where a ray through the top's plane ends.
enum End {
    /// At that plane.
    AtTop,
    /// Inside, so far below it, meters.
    Inside(f64),
    /// Elsewhere: before it, or beside the thing.
    Elsewhere,
}

impl FrameGeometry<'_> {
    /// How far below the rim the inside is seen, meters; `None` for what is closed, or shows no rim on its far side.
    pub(super) fn opening_depth(&self, object: &LiftedObject) -> Option<f64> {
        let half = object.size_m * 0.5;
        let tolerance_m = 0.008_f64.max(0.05 * object.size_m.z).max(3.0 * self.noise_m(object.body_center.z));
        let end_of = |x: f64, y: f64| self.end_of_ray(object, Point3::new(x, y, half.z), tolerance_m);
        let at = |i: usize| INNER * (2.0 * i as f64 / (N_RAYS - 1) as f64 - 1.0);
        let (mut n_ends, mut drops) = (0, Vec::new());
        for row in 0..N_RAYS {
            for column in 0..N_RAYS {
                match end_of(at(column) * half.x, at(row) * half.y) {
                    None => continue,
                    Some(End::Inside(drop)) => drops.push(drop),
                    Some(_) => {}
                }
                n_ends += 1;
            }
        }
        let is_open = MIN_RAYS <= n_ends && n_ends <= 2 * drops.len();
        (is_open && has_far_rim(object, &end_of)).then(|| quantile(&mut drops, 0.9))
    }

    /// `None` where the image shows nothing of it. `at` is on the plane of the top, in the object's frame.
    fn end_of_ray(&self, object: &LiftedObject, at: Point3<f64>, tolerance_m: f64) -> Option<End> {
        let aimed = object.object_in_camera * at;
        let pixel = self.camera.project(aimed)?;
        let (width, height) = self.camera.size();
        if pixel.x < 0.0 || pixel.y < 0.0 || f64::from(width) <= pixel.x || f64::from(height) <= pixel.y {
            return None;
        }
        let seen = self.point(pixel.x as u32, pixel.y as u32)?;
        let half = object.size_m * 0.5;
        let ends: Vector3<f64> = object.object_in_camera.inverse_transform_point(&seen).coords;
        let drop = half.z - ends.z;
        let is_within = ends.x.abs() <= 1.06 * half.x && ends.y.abs() <= 1.06 * half.y;
        Some(if drop.abs() <= tolerance_m && (seen - aimed).norm() <= 3.0 * tolerance_m {
            End::AtTop
        } else if tolerance_m < drop && drop <= object.size_m.z + tolerance_m && is_within {
            End::Inside(drop)
        } else {
            End::Elsewhere
        })
    }
}

/// Whether the top's height is reached again on most of the far side.
fn has_far_rim(object: &LiftedObject, end_of: &impl Fn(f64, f64) -> Option<End>) -> bool {
    let half = object.size_m * 0.5;
    let away = object.object_in_camera.inverse_transform_vector(&object.body_center.coords);
    let straight = away.y.atan2(away.x);
    let is_rim = |angle: f64| {
        let (sin, cos) = angle.sin_cos();
        // Round things end at the ellipse, angular ones at the rectangle.
        let ellipse = 1.0 / ((cos / half.x).powi(2) + (sin / half.y).powi(2)).sqrt();
        let rectangle = (half.x / cos.abs().max(1e-9)).min(half.y / sin.abs().max(1e-9));
        [0.82, 0.88, 0.94, 1.0].into_iter().any(|share| {
            [ellipse, rectangle].into_iter().any(|reach| {
                let radius = share * reach;
                matches!(end_of(radius * cos, radius * sin), Some(End::AtTop))
            })
        })
    };
    let angles = (0..N_RIM).map(|i| straight + RIM_ANGLE * (2.0 * i as f64 / (N_RIM - 1) as f64 - 1.0));
    N_RIM <= 2 * angles.filter(|it| is_rim(*it)).count()
}
