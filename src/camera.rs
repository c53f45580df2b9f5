//! The camera model: a pinhole behind a lens.

mod distortion;

use nalgebra::{Point2, Point3, Vector3};

pub use self::distortion::Distortion;

/// A calibrated camera. Always valid: focal lengths are finite and positive.
///
/// Pixel coordinates follow ROS and OpenCV: the center of the top-left pixel is (0, 0). Rays are exact: pixels are taken back
/// through the lens model, images are never warped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PinholeCamera {
    width: u32,
    height: u32,
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
    distortion: Distortion,
}

/// Why intrinsics were refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CameraError {
    /// A focal length is zero, negative or not finite: the usual sign of an uncalibrated camera.
    #[error("expected positive focal lengths in K, got fx = {fx}, fy = {fy}: is the camera calibrated?")]
    Focal {
        /// `K[0]`, pixels.
        fx: f64,
        /// `K[4]`, pixels.
        fy: f64,
    },
    /// The principal point is not finite.
    #[error("expected a finite principal point in K, got cx = {cx}, cy = {cy}")]
    PrincipalPoint {
        /// `K[2]`, pixels.
        cx: f64,
        /// `K[5]`, pixels.
        cy: f64,
    },
    /// A lens model that is not known, or not with so many coefficients.
    #[error(
        "expected distortion_model plumb_bob with 4 or 5 coefficients, rational_polynomial with 8, 12 or 14 or equidistant with 4, \
         got {model:?} with {d:?}: rectify the image and use the camera_info of the rectified one"
    )]
    Distortion {
        /// `distortion_model` as sent.
        model: String,
        /// `D` as sent.
        d: Vec<f64>,
    },
}

impl PinholeCamera {
    /// An ideal (rectified) camera from the image size and the row-major 3x3 intrinsic matrix `K` (sensor_msgs/CameraInfo), pixels.
    pub fn from_k(width: u32, height: u32, k: &[f64; 9]) -> Result<Self, CameraError> {
        let [fx, _, cx, _, fy, cy, ..] = *k;
        if !(fx.is_finite() && fy.is_finite() && fx > 0.0 && fy > 0.0) {
            return Err(CameraError::Focal { fx, fy });
        }
        if !(cx.is_finite() && cy.is_finite()) {
            return Err(CameraError::PrincipalPoint { cx, cy });
        }
        Ok(Self { width, height, fx, fy, cx, cy, distortion: Distortion::None })
    }

    /// The same camera behind a lens: `distortion_model` and `D` of sensor_msgs/CameraInfo.
    pub fn with_distortion(self, model: &str, d: &[f64]) -> Result<Self, CameraError> {
        Ok(Self { distortion: Distortion::from_model(model, d)?, ..self })
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

    /// What the lens does.
    pub fn distortion(&self) -> &Distortion {
        &self.distortion
    }

    /// The ray through a pixel in the optical frame, scaled so that z = 1; `None` where the lens model sees nothing before the
    /// camera.
    pub fn ray(&self, pixel: Point2<f64>) -> Option<Vector3<f64>> {
        let seen = Point2::new((pixel.x - self.cx) / self.fx, (pixel.y - self.cy) / self.fy);
        let ideal = self.distortion.undistort(seen)?;
        Some(Vector3::new(ideal.x, ideal.y, 1.0))
    }

    /// The point seen at `pixel` at `depth_m` meters along z, in the optical frame.
    pub fn unproject(&self, pixel: Point2<f64>, depth_m: f64) -> Option<Point3<f64>> {
        self.ray(pixel).map(|ray| Point3::from(ray * depth_m))
    }

    /// The pixel that sees a point of the optical frame; `None` behind the camera and where the lens model ends.
    pub fn project(&self, point_in_camera: Point3<f64>) -> Option<Point2<f64>> {
        let Point3 { coords } = point_in_camera;
        if coords.z <= 0.0 {
            return None;
        }
        let seen = self.distortion.distort(Point2::new(coords.x / coords.z, coords.y / coords.z))?;
        Some(Point2::new(self.fx * seen.x + self.cx, self.fy * seen.y + self.cy))
    }
}
