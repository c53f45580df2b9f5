//! What a camera says of itself (sensor_msgs/CameraInfo) to the camera of the image it sent, or one sentence why it cannot be.
//!
//! A pose is only as right as these numbers, so whatever no camera has is refused here, and nowhere else.

use super::{CameraError, PinholeCamera};

/// Focal length over image width of a lens that sees 160 degrees, and of one that sees 2.
const MIN_FOCAL_SHARE: f64 = 0.08;
const MAX_FOCAL_SHARE: f64 = 30.0;
/// Pixels that are more oblong than those of every second row or column left out.
const MAX_OBLONG: f64 = 2.2;
/// Where the principal point may be in an image that may have been cropped, and on a whole sensor: shares of width and height.
const PRINCIPAL_IN_IMAGE: (f64, f64) = (0.2, 0.8);
const PRINCIPAL_ON_SENSOR: (f64, f64) = (0.35, 0.65);
/// A principal point as far off in x as in y, and by more than this share, is one of another resolution.
const MAX_DIAGONAL_SHIFT: f64 = 0.08;
const DIAGONAL_SLACK: f64 = 0.03;

/// A calibration as sent: everything in pixels of the whole sensor, as the message's definition has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Of the whole sensor.
    pub size: (u32, u32),
    /// Row-major 3x3; all zero where there is none.
    pub k: [f64; 9],
    /// Row-major 3x4, of the rectified image; `None` where there is none.
    pub p: Option<[f64; 12]>,
    /// The lens: `distortion_model` and `D`.
    pub lens: (String, Vec<f64>),
    /// The part of the sensor that was read: x, y, width, height; `None`: all of it.
    pub roi: Option<(u32, u32, u32, u32)>,
    /// Pixels of the sensor for each of the image, at least 1.
    pub binning: (u32, u32),
}

impl Calibration {
    /// Size of the image: region of interest and binning taken off.
    pub fn image_size(&self) -> (u32, u32) {
        let (width, height) = self.roi.map_or(self.size, |(_, _, width, height)| (width, height));
        (width / self.binning.0.max(1), height / self.binning.1.max(1))
    }

    /// The camera of the image.
    ///
    /// # Errors
    /// The numbers are none of a camera with this image.
    pub fn camera(&self, is_rectified: bool) -> Result<PinholeCamera, CameraError> {
        let projection = self.p.map(|p| [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]]);
        let projection = projection.filter(|it| 0.0 < it[0]);
        let has_k = self.k.iter().any(|it| *it != 0.0);
        let is_bent = self.lens.1.iter().any(|it| 1e-9 < it.abs());
        let (k, is_ideal) = match projection {
            Some(p) if is_rectified => (p, true),
            // A driver that fills in P alone.
            Some(p) if !has_k && !is_bent => (p, true),
            _ => (self.k, is_rectified),
        };
        if let (Some(p), true) = (projection, has_k) {
            check_together(&self.k, &p, is_bent)?;
        }
        let is_whole = self.roi.is_some() || self.binning != (1, 1);
        check(self.size, &k, if is_whole { PRINCIPAL_ON_SENSOR } else { PRINCIPAL_IN_IMAGE })?;
        let (x, y) = self.roi.map_or((0, 0), |(x, y, ..)| (x, y));
        let scale = (1.0 / f64::from(self.binning.0.max(1)), 1.0 / f64::from(self.binning.1.max(1)));
        let mut of_image = k;
        of_image[0] *= scale.0;
        of_image[2] = (k[2] - f64::from(x)) * scale.0;
        of_image[4] *= scale.1;
        of_image[5] = (k[5] - f64::from(y)) * scale.1;
        let (width, height) = self.image_size();
        let camera = PinholeCamera::unchecked(width, height, &of_image);
        if is_ideal { Ok(camera) } else { camera.with_distortion(&self.lens.0, &self.lens.1) }
    }
}

/// Whether `k` may be the intrinsics of an image of this size, which may be cropped.
pub(super) fn check_image(size: (u32, u32), k: &[f64; 9]) -> Result<(), CameraError> {
    check(size, k, PRINCIPAL_IN_IMAGE)
}

fn check((width, height): (u32, u32), k: &[f64; 9], principal: (f64, f64)) -> Result<(), CameraError> {
    let [fx, _, cx, _, fy, cy, ..] = *k;
    if !(fx.is_finite() && fy.is_finite() && fx > 0.0 && fy > 0.0) {
        return Err(CameraError::Focal { fx, fy });
    }
    if !(cx.is_finite() && cy.is_finite()) {
        return Err(CameraError::PrincipalPoint { cx, cy });
    }
    if width == 0 || height == 0 {
        // An image without pixels is refused elsewhere.
        return Ok(());
    }
    let (columns, rows) = (f64::from(width), f64::from(height));
    let (focal_x, focal_y) = (fx / columns, fy / rows);
    let is_plausible = |share: f64| (MIN_FOCAL_SHARE..=MAX_FOCAL_SHARE).contains(&share);
    if !is_plausible(focal_x) || !is_plausible(focal_y) {
        let degrees = |share: f64| 2.0 * (0.5 / share).atan().to_degrees();
        let (across_deg, down_deg) = (degrees(focal_x), degrees(focal_y));
        return Err(CameraError::FieldOfView { fx, fy, width, height, across_deg, down_deg });
    }
    if !(1.0 / MAX_OBLONG..=MAX_OBLONG).contains(&(fx / fy)) {
        return Err(CameraError::Oblong { fx, fy });
    }
    let (x, y) = ((cx + 0.5) / columns, (cy + 0.5) / rows);
    let is_inside = |share: f64| (principal.0..=principal.1).contains(&share);
    let is_diagonal = (x - y).abs() <= DIAGONAL_SLACK && MAX_DIAGONAL_SHIFT < (x - 0.5).abs();
    if !is_inside(x) || !is_inside(y) || is_diagonal {
        return Err(CameraError::OffCenter { cx, cy, width, height });
    }
    Ok(())
}

/// `K` and the left of `P` are of one sensor: the same without a lens to straighten, else not far apart.
fn check_together(k: &[f64; 9], p: &[f64; 9], is_bent: bool) -> Result<(), CameraError> {
    let most: f64 = if is_bent { 3.0 } else { 1.35 };
    let is_near = |a: f64, b: f64| (1.0 / most..=most).contains(&(a / b));
    if is_near(k[0], p[0]) && is_near(k[4], p[4]) {
        return Ok(());
    }
    Err(CameraError::Inconsistent { k_fx: k[0], k_fy: k[4], p_fx: p[0], p_fy: p[4] })
}
