//! From where "left" and "behind" are told.

use nalgebra::{Unit, UnitQuaternion, Vector3};

/// The directions of a viewpoint, as unit vectors in the camera's optical frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewAxes {
    /// To the right of the viewer.
    pub right: Unit<Vector3<f64>>,
    /// Away from the viewer.
    pub forward: Unit<Vector3<f64>>,
    /// Up.
    pub up: Unit<Vector3<f64>>,
}

impl ViewAxes {
    /// The camera's own: right, forward and up of the image.
    pub fn camera() -> Self {
        Self { right: Vector3::x_axis(), forward: Vector3::z_axis(), up: -Vector3::y_axis() }
    }

    /// The camera's with a level ground: `up_in_camera` is against gravity. For a camera that looks straight down, forward is
    /// the top of the image.
    pub fn leveled(up_in_camera: Unit<Vector3<f64>>) -> Self {
        let up = up_in_camera;
        // An axis that is nearly vertical has no direction on the ground.
        let leveled = |axis: Vector3<f64>| Unit::try_new(axis - up.scale(up.dot(&axis)), 0.2);
        match leveled(Vector3::z()).or_else(|| leveled(-Vector3::y())) {
            Some(forward) => Self { right: Unit::new_unchecked(forward.cross(&up)), forward, up },
            // Only for an up that is not a unit vector: never two perpendicular axes are both vertical.
            None => Self::camera(),
        }
    }

    /// [`Self::leveled`] for an up direction of any length; `None` when it has no direction.
    pub fn camera_with_up(up_in_camera: Vector3<f64>) -> Option<Self> {
        Unit::try_new(up_in_camera, 1e-9).map(Self::leveled)
    }

    /// Those of a frame by the conventions of REP 103: optical frames (`..._optical_frame`, `..._optical`) have x right and z
    /// forward, all others x forward and z up.
    pub fn of_frame(name: &str, camera_from_frame: &UnitQuaternion<f64>) -> Self {
        if !(name.ends_with("_optical_frame") || name.ends_with("_optical")) {
            return Self::of_body(camera_from_frame);
        }
        let Self { right, forward, up } = Self::camera();
        let turned = |axis: Unit<Vector3<f64>>| camera_from_frame * axis;
        Self { right: turned(right), forward: turned(forward), up: turned(up) }
    }

    /// Those of a frame with x forward, y left and z up (REP 103), such as a robot's base.
    pub fn of_body(camera_from_body: &UnitQuaternion<f64>) -> Self {
        let axis = |v: Unit<Vector3<f64>>| camera_from_body * v;
        Self {
            right: -axis(Vector3::y_axis()),
            forward: axis(Vector3::x_axis()),
            up: axis(Vector3::z_axis()),
        }
    }

    /// A vector of the camera's optical frame as (right, forward, up).
    pub fn coordinates(&self, in_camera: &Vector3<f64>) -> Vector3<f64> {
        Vector3::new(in_camera.dot(&self.right), in_camera.dot(&self.forward), in_camera.dot(&self.up))
    }

    /// A step to the camera's (right, forward) on level ground, as the same step to this viewpoint's (right, forward).
    pub fn step_of_camera(&self, right: f64, forward: f64) -> (f64, f64) {
        let camera = Self::leveled(self.up);
        let step = camera.right.scale(right) + camera.forward.scale(forward);
        (step.dot(&self.right), step.dot(&self.forward))
    }
}
