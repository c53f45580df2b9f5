//! The camera model: a pinhole behind a lens.

mod calibration;
mod distortion;

use nalgebra::{Point2, Point3, Vector3};

pub use self::calibration::Calibration;
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
    /// No lens sees so much or so little.
    #[error(
        "fx = {fx}, fy = {fy} for {width}x{height} pixels would see {across_deg:.1} x {down_deg:.1} degrees: expected focal lengths in \
         pixels of this image; are they normalized, or of another resolution?"
    )]
    FieldOfView {
        /// `K[0]`, pixels.
        fx: f64,
        /// `K[4]`, pixels.
        fy: f64,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// Field of view that they would make, degrees.
        across_deg: f64,
        /// The same downward.
        down_deg: f64,
    },
    /// Pixels are not so oblong.
    #[error("fx = {fx} and fy = {fy} differ by more than a factor of 2.2: expected those of one camera")]
    Oblong {
        /// `K[0]`, pixels.
        fx: f64,
        /// `K[4]`, pixels.
        fy: f64,
    },
    /// The optical axis does not go through the image where lenses sit.
    #[error(
        "the principal point ({cx}, {cy}) is not near the middle of {width}x{height} pixels: expected K of this very resolution; is it of \
         another one, or are binning or a region of interest told twice?"
    )]
    OffCenter {
        /// `K[2]`, pixels.
        cx: f64,
        /// `K[5]`, pixels.
        cy: f64,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// K and P are of different cameras or resolutions.
    #[error(
        "K (fx = {k_fx}, fy = {k_fy}) and P (fx = {p_fx}, fy = {p_fy}) do not belong together: expected both of one camera and resolution"
    )]
    Inconsistent {
        /// `K[0]`, pixels.
        k_fx: f64,
        /// `K[4]`, pixels.
        k_fy: f64,
        /// `P[0]`, pixels.
        p_fx: f64,
        /// `P[5]`, pixels.
        p_fy: f64,
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
    ///
    /// # Errors
    /// No camera with this image has such intrinsics: they are of another resolution, normalized, or broken.
    pub fn from_k(width: u32, height: u32, k: &[f64; 9]) -> Result<Self, CameraError> {
        calibration::check_image((width, height), k)?;
        Ok(Self::unchecked(width, height, k))
    }

    fn unchecked(width: u32, height: u32, k: &[f64; 9]) -> Self {
        let [fx, _, cx, _, fy, cy, ..] = *k;
        Self { width, height, fx, fy, cx, cy, distortion: Distortion::None }
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
