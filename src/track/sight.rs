//! What a depth image says about an object that was somewhere a moment ago.

use nalgebra::{Isometry3, Point3};

use super::{MAX_SPEED_M_S, N_POINTS, Track, TrackedFrame, seconds};
use crate::detection::BoundingBox2d;
use crate::lift::{FrameGeometry, LiftedObject};

/// Points of the surface where they were last, held against what is measured there: how many are what.
pub(super) struct Evidence {
    n_points: usize,
    /// Measured where expected.
    n_there: usize,
    /// Something nearer is measured.
    n_covered: usize,
    /// Something farther is measured: the object is not there.
    n_vacated: usize,
    /// The box around the points in the image.
    bbox: Option<BoundingBox2d>,
}

/// What came of a look.
pub(super) enum Look {
    /// It is where it was.
    There,
    /// It is a little elsewhere, or where it was, more exactly.
    Moved(Box<LiftedObject>),
    /// It cannot be told: something is in front, or there is no depth.
    Hidden,
    /// It is not where it was, nor near.
    Gone,
}

/// Surface points of an object in its own frame.
pub(super) fn surface(geometry: &FrameGeometry<'_>, lifted: &LiftedObject) -> Vec<Point3<f64>> {
    let mask = &lifted.mask;
    let pixels: Vec<usize> = (0..mask.is_object.len()).filter(|it| mask.is_object[*it]).collect();
    let object_from_camera = lifted.object_in_camera.inverse();
    pixels
        .iter()
        .step_by(pixels.len().div_ceil(N_POINTS).max(1))
        .filter_map(|&idx| {
            let (u, v) = (mask.x0 + idx as u32 % mask.width, mask.y0 + idx as u32 / mask.width);
            Some(object_from_camera * geometry.point(u, v)?)
        })
        .collect()
}

impl Evidence {
    pub(super) fn weigh(
        geometry: &FrameGeometry<'_>,
        camera_from_object: &Isometry3<f64>,
        surface: &[Point3<f64>],
    ) -> Self {
        let mut all = Self { n_points: surface.len(), n_there: 0, n_covered: 0, n_vacated: 0, bbox: None };
        let (width, height) = geometry.camera().size();
        for point in surface {
            let expected = camera_from_object * point;
            let Some(pixel) = geometry.camera().project(expected) else { continue };
            let (u, v) = (pixel.x.round(), pixel.y.round());
            if u < 0.0 || v < 0.0 || f64::from(width) <= u || f64::from(height) <= v {
                continue;
            }
            let it = all.bbox.get_or_insert(BoundingBox2d { x0: u, y0: v, x1: u, y1: v });
            *it = BoundingBox2d {
                x0: it.x0.min(u),
                y0: it.y0.min(v),
                x1: it.x1.max(u + 1.0),
                y1: it.y1.max(v + 1.0),
            };
            let Some(measured) = geometry.point(u as u32, v as u32) else { continue };
            let tolerance_m = 0.008 + 3.0 * geometry.noise_m(expected.z);
            if (measured.z - expected.z).abs() <= tolerance_m {
                all.n_there += 1;
            } else if measured.z < expected.z {
                all.n_covered += 1;
            } else {
                all.n_vacated += 1;
            }
        }
        all
    }

    /// Share of the surface that is measured where it was.
    pub(super) fn share_there(&self) -> f64 {
        self.share(self.n_there)
    }

    /// Whether nothing hides more than a little of it.
    pub(super) fn is_in_the_open(&self) -> bool {
        self.share(self.n_covered) <= 0.1
    }

    /// What became of the object; `is_target`: where it is must be known as exactly as can be. A new place must be one for which
    /// `is_nearest` holds.
    pub(super) fn look(
        &self,
        frame: &TrackedFrame<'_>,
        track: &Track,
        is_target: bool,
        is_nearest: &dyn Fn(&Point3<f64>) -> bool,
    ) -> Look {
        let n_measured = self.n_there + self.n_covered + self.n_vacated;
        if self.share(n_measured) < 0.4 {
            return Look::Hidden;
        }
        let (there, vacated) = (self.share(self.n_there), self.share(self.n_vacated));
        // It is looked at anew where it may have moved; the target also where nothing hides it.
        let is_in_the_open = self.is_in_the_open();
        let may_have_moved = 0.15 < vacated || (is_in_the_open && there < 0.85);
        if (may_have_moved || (is_target && is_in_the_open))
            && let Some(lifted) = self.lift_near(frame, track, is_nearest)
        {
            return Look::Moved(Box::new(lifted));
        }
        let n_open = self.n_there + self.n_vacated;
        // Of what something hides, a motion shows on one side only.
        let enough = if is_in_the_open { 0.7 } else { 0.85 };
        if 0.15 <= self.share(n_open) && enough * n_open as f64 <= self.n_there as f64 {
            Look::There
        } else if there < vacated && 0.3 <= self.share(n_open) {
            Look::Gone
        } else {
            Look::Hidden
        }
    }

    /// The object of the same size nearby, if there is one.
    fn lift_near(
        &self,
        frame: &TrackedFrame<'_>,
        track: &Track,
        is_nearest: &dyn Fn(&Point3<f64>) -> bool,
    ) -> Option<LiftedObject> {
        let bbox = self.bbox?;
        // As far as it may have come since, and what lies between the points.
        let margin_x = 3.0 + 0.15 * bbox.width();
        let margin_y = 3.0 + 0.15 * bbox.height();
        let around = BoundingBox2d {
            x0: bbox.x0 - margin_x,
            y0: bbox.y0 - margin_y,
            x1: bbox.x1 + margin_x,
            y1: bbox.y1 + margin_y,
        };
        let outline = frame.geometry.outline(&around)?;
        let lifted = frame.geometry.lift(&track.phrase, &outline).ok()?;
        let position = frame.reference_from_camera * lifted.body_center;
        let moved_m = (position - track.position()).norm();
        let reach_m = 0.015 + MAX_SPEED_M_S * seconds(frame.stamp_ns - track.seen_ns);
        // The bare table, where something flat was, is flatter.
        let is_as_high = 0.5 * track.size_m.z <= lifted.size_m.z;
        let is_it =
            moved_m <= reach_m && is_as_high && track.is_as_large_as(&lifted.size_m) && is_nearest(&position);
        is_it.then_some(lifted)
    }

    fn share(&self, n: usize) -> f64 {
        n as f64 / self.n_points.max(1) as f64
    }
}
