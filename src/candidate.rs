//! What the words may mean: a detection with its place in space.

use nalgebra::{Point3, Vector3};

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
}
