//! The last look at a pose before it leaves: what cannot be is not told.

use nalgebra::{Isometry3, Point3};

use super::{Grasp, LiftOptions, LiftedObject, Place};

/// Why a pose is not told.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PoseFault {
    /// A number is NaN or infinite.
    #[error("its pose is not finite: are depth and camera_info right?")]
    NotFinite,
    /// Nothing behind the camera is seen.
    #[error(
        "its pose lies {depth_m:.3} m in front of the camera: expected it to be before it; are depth and camera_info right?"
    )]
    BehindCamera {
        /// Along the optical axis, meters.
        depth_m: f64,
    },
    /// Farther or nearer than depth is believed.
    #[error("its pose is {depth_m:.3} m away: expected {min_m} m to {max_m} m (min_depth_m, max_depth_m)")]
    OutOfRange {
        /// Along the optical axis, meters.
        depth_m: f64,
        /// Nearest, meters.
        min_m: f64,
        /// Farthest, meters.
        max_m: f64,
    },
    /// The covariance is no covariance.
    #[error("the covariance of its pose is not positive definite: are depth and camera_info right?")]
    Covariance,
}

impl LiftedObject {
    /// Whether this may be told of a scene seen with depth between the limits of `options`.
    ///
    /// # Errors
    /// The reason why not, as the end of a sentence about the object.
    pub fn check(&self, options: &LiftOptions) -> Result<(), PoseFault> {
        let numbers = self.size_m.iter().chain(self.surface_centroid.coords.iter()).chain(&self.covariance);
        if !is_finite(&self.object_in_camera) || !numbers.into_iter().all(|it| it.is_finite()) {
            return Err(PoseFault::NotFinite);
        }
        check_depth(&self.surface_centroid, 0.0, options)?;
        // The middle lies behind what is seen, by no more than the thing is large.
        check_depth(&self.body_center, self.size_m.norm(), options)?;
        let symmetric = (self.covariance - self.covariance.transpose()).abs().max();
        if 1e-9 + 1e-6 * self.covariance.abs().max() < symmetric || self.covariance.cholesky().is_none() {
            return Err(PoseFault::Covariance);
        }
        Ok(())
    }
}

impl Grasp {
    /// Finite, and before the camera or close around its object.
    pub fn is_tellable(&self) -> bool {
        is_finite(&self.grasp_in_camera) && self.score.is_finite() && self.opening_m.is_finite()
    }
}

impl Place {
    /// Finite and before the camera.
    pub fn is_tellable(&self) -> bool {
        is_finite(&self.place_in_camera)
            && self.clearance_m.is_finite()
            && 0.0 < self.place_in_camera.translation.z
    }
}

fn check_depth(at: &Point3<f64>, slack_m: f64, options: &LiftOptions) -> Result<(), PoseFault> {
    let (depth_m, min_m, max_m) = (at.z, options.min_depth_m, options.max_depth_m);
    if depth_m <= 0.0 {
        return Err(PoseFault::BehindCamera { depth_m });
    }
    if !(min_m - slack_m..=max_m + slack_m).contains(&depth_m) {
        return Err(PoseFault::OutOfRange { depth_m, min_m, max_m });
    }
    Ok(())
}

/// Every number is, and the rotation is one.
fn is_finite(pose: &Isometry3<f64>) -> bool {
    let is_rotation = (pose.rotation.coords.norm() - 1.0).abs() < 1e-3;
    pose.translation.vector.iter().all(|it| it.is_finite()) && is_rotation
}
