//! What is known of a frame beside its pixels.

use nalgebra::{Isometry3, Unit, Vector3};

use super::plane::SupportPlane;
use crate::viewpoint::ViewAxes;

/// What is known of one frame beside its pixels, usually from TF at its stamp; all in its camera's optical frame. By default
/// nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FrameContext {
    /// Against gravity; `None`: it is told from the planes in view.
    pub up_in_camera: Option<Unit<Vector3<f64>>>,
    /// That is only the z axis of a frame that usually points up: a large surface in view that contradicts it is believed instead.
    pub is_up_assumed: bool,
    /// From where "left" and "behind" are told; `None`: from the camera.
    pub view: Option<ViewAxes>,
    /// A plane that things stand on, known without depth: objects without depth are placed on it.
    pub known_plane: Option<SupportPlane>,
    /// Takes points to the frame of the workspace; `None`: the workspace is told in the camera's.
    pub workspace_from_camera: Option<Isometry3<f64>>,
}
