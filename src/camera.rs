//! The pinhole camera model.

use nalgebra::{Point2, Point3, Vector3};

/// An ideal (rectified) pinhole camera. Always valid: focal lengths are finite and positive.
///
/// Pixel coordinates follow ROS and OpenCV: the centre of the top-left pixel is (0, 0).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PinholeCamera {
    width: u32,
    height: u32,
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
}

/// Why intrinsics were refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CameraError {
    /// A focal length is zero, negative or not finite: the usual sign of an uncalibrated camera.
    #[error("expected positive focal lengths in K, got fx = {fx}, fy = {fy}: is the camera calibrated?")]
    Focal {
        /// K[0].
        fx: f64,
        /// K[4].
        fy: f64,
    },
    /// The principal point is not finite.
    #[error("expected a finite principal point in K, got cx = {cx}, cy = {cy}")]
    PrincipalPoint {
        /// K[2].
        cx: f64,
        /// K[5].
        cy: f64,
    },
}

impl PinholeCamera {
    /// From the image size and the row-major 3x3 intrinsic matrix `K` (sensor_msgs/CameraInfo), pixels.
    pub fn from_k(width: u32, height: u32, k: &[f64; 9]) -> Result<Self, CameraError> {
        let [fx, _, cx, _, fy, cy, ..] = *k;
        if !(fx.is_finite() && fy.is_finite() && fx > 0.0 && fy > 0.0) {
            return Err(CameraError::Focal { fx, fy });
        }
        if !(cx.is_finite() && cy.is_finite()) {
            return Err(CameraError::PrincipalPoint { cx, cy });
        }
        Ok(Self { width, height, fx, fy, cx, cy })
    }

    /// Image size in pixels: (width, height).
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Row-major 3x3 intrinsic matrix.
    pub fn k(&self) -> [f64; 9] {
        [self.fx, 0.0, self.cx, 0.0, self.fy, self.cy, 0.0, 0.0, 1.0]
    }

    /// Focal lengths in pixels: (fx, fy).
    pub fn focal_lengths(&self) -> (f64, f64) {
        (self.fx, self.fy)
    }

    /// The ray through a pixel in the optical frame, scaled so that z = 1.
    pub fn ray(&self, pixel: Point2<f64>) -> Vector3<f64> {
        Vector3::new((pixel.x - self.cx) / self.fx, (pixel.y - self.cy) / self.fy, 1.0)
    }

    /// The point seen at `pixel` at `depth_m` metres along z, in the optical frame.
    pub fn unproject(&self, pixel: Point2<f64>, depth_m: f64) -> Point3<f64> {
        Point3::from(self.ray(pixel) * depth_m)
    }

    /// The pixel that sees a point of the optical frame; `None` behind the camera.
    pub fn project(&self, point_in_camera: Point3<f64>) -> Option<Point2<f64>> {
        let Point3 { coords } = point_in_camera;
        (coords.z > 0.0).then(|| {
            Point2::new(self.fx * coords.x / coords.z + self.cx, self.fy * coords.y / coords.z + self.cy)
        })
    }
}
