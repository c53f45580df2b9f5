//! What the words may mean: a detection with its place in space.

use nalgebra::{Isometry3, Point3, Unit, Vector3};

use crate::detection::Detection2d;

/// Something that may be meant. `detection.phrase` says which phrase of the instruction's queries it was found for.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Box, phrase and score.
    pub detection: Detection2d,
    /// Center of what is seen of it, meters, camera's optical frame (x right, y down, z forward).
    pub position_in_camera: Option<Point3<f64>>,
    /// Extents along the optical frame's axes, meters.
    pub size_m: Option<Vector3<f64>>,
    /// The upright box around its body, where one is known: what is on, in and under what is told by it.
    pub body: Option<Body>,
}

/// An upright box around a whole thing, its hidden parts as far as they can be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Body {
    /// At the middle of the box, in the camera's optical frame: z up, x along the longer side of the footprint.
    pub pose_in_camera: Isometry3<f64>,
    /// Extents along the axes of the pose, meters.
    pub size_m: Vector3<f64>,
    /// How far the inside lies below the rim, meters; 0 for what is not hollow, as far as can be seen.
    pub hollow_depth_m: f64,
    /// How far the lowest point that is seen lies above the bottom of the box, meters: its foot may be hidden.
    pub unseen_below_m: f64,
}

impl Body {
    /// Up, in the camera's optical frame.
    pub fn up(&self) -> Unit<Vector3<f64>> {
        self.pose_in_camera.rotation * Vector3::z_axis()
    }
}
