//! The lens models of sensor_msgs/CameraInfo, both ways, on the plane z = 1.
//!
//! Formulas as in OpenCV's camera calibration (`projectPoints`, `fisheye::distortPoints`); held to OpenCV 5.0.0 by
//! `tests/camera.rs`.

use nalgebra::{Matrix2, Matrix3, Point2, Vector2};

use super::CameraError;

/// What a lens does to the ideal image on the plane z = 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distortion {
    /// Nothing: an ideal or rectified camera.
    None,
    /// Brown and Conrady's, `plumb_bob` and `rational_polynomial`: k1, k2, p1, p2, k3, k4, k5, k6.
    Rational([f64; 8]),
    /// The same with OpenCV's thin prism and tilted sensor, `rational_polynomial` with 12 or 14 coefficients: then s1, s2, s3, s4,
    /// tau_x, tau_y.
    Full([f64; 14]),
    /// Kannala and Brandt's fisheye, `equidistant`: k1, k2, k3, k4.
    Equidistant([f64; 4]),
}

/// Residual on the plane z = 1 at which a pixel counts as undistorted: a millionth of a pixel at most.
const MAX_RESIDUAL: f64 = 1e-10;
const MAX_STEPS: usize = 30;
/// Farther from the axis nothing is seen that depth along the axis could describe: 85 degrees.
const MAX_ANGLE: f64 = 1.483;

impl Distortion {
    /// From `distortion_model` and `D`. All zeros are no distortion, whatever the model is called.
    pub fn from_model(model: &str, d: &[f64]) -> Result<Self, CameraError> {
        if d.iter().all(|it| *it == 0.0) {
            return Ok(Self::None);
        }
        let refused = || CameraError::Distortion { model: model.to_owned(), d: d.to_vec() };
        // Trailing zeros change nothing.
        let n_used = d.iter().rposition(|it| *it != 0.0).map_or(0, |it| it + 1);
        let max_used = match model {
            "plumb_bob" => 5,
            "rational_polynomial" => 14,
            "equidistant" | "fisheye" => 4,
            _ => return Err(refused()),
        };
        if max_used < n_used || d.iter().any(|it| !it.is_finite()) {
            return Err(refused());
        }
        let mut all = [0.0; 14];
        all[..n_used].copy_from_slice(&d[..n_used]);
        Ok(if max_used == 4 {
            Self::Equidistant([all[0], all[1], all[2], all[3]])
        } else if n_used <= 8 {
            let [k1, k2, p1, p2, k3, k4, k5, k6, ..] = all;
            Self::Rational([k1, k2, p1, p2, k3, k4, k5, k6])
        } else {
            Self::Full(all)
        })
    }

    /// Ideal to seen. `None` where the model folds over: no lens does that.
    pub fn distort(&self, ideal: Point2<f64>) -> Option<Point2<f64>> {
        match self {
            Self::None => Some(ideal),
            Self::Rational(d) => {
                let (seen, jacobian) = rational(d, ideal);
                is_upright(&jacobian).then_some(seen)
            }
            Self::Full(d) => {
                let (seen, jacobian) = full(d, ideal);
                is_upright(&jacobian).then_some(seen)
            }
            Self::Equidistant(k) => {
                let radius = ideal.coords.norm();
                let (bent, slope) = equidistant(k, radius.atan());
                let scale = if radius < 1e-12 { 1.0 } else { bent / radius };
                (0.0 < slope).then(|| ideal * scale)
            }
        }
    }

    /// Seen to ideal, by Newton's method from the pixel itself. `None` where no ideal point is seen.
    #[inline]
    pub fn undistort(&self, seen: Point2<f64>) -> Option<Point2<f64>> {
        match self {
            Self::None => Some(seen),
            Self::Rational(d) => solved(|ideal| rational(d, ideal), seen),
            Self::Full(d) => solved(|ideal| full(d, ideal), seen),
            Self::Equidistant(k) => undistorted_equidistant(k, seen),
        }
    }
}

#[inline]
fn solved(
    lens: impl Fn(Point2<f64>) -> (Point2<f64>, Matrix2<f64>),
    seen: Point2<f64>,
) -> Option<Point2<f64>> {
    let mut ideal = seen;
    for _ in 0..MAX_STEPS {
        let (now, jacobian) = lens(ideal);
        let error = now - seen;
        if error.amax() <= MAX_RESIDUAL {
            return is_upright(&jacobian).then_some(ideal);
        }
        let step: Vector2<f64> = jacobian.try_inverse()? * error;
        // A step far beyond the image has left the part where the model holds.
        ideal -= step * (1.0 / (step.norm() * 2.0).max(1.0));
    }
    None
}

fn undistorted_equidistant(k: &[f64; 4], seen: Point2<f64>) -> Option<Point2<f64>> {
    let bent = seen.coords.norm();
    let mut angle = bent.min(1.2);
    for _ in 0..MAX_STEPS {
        let (now, slope) = equidistant(k, angle);
        if slope <= 0.0 {
            return None;
        }
        if (now - bent).abs() <= MAX_RESIDUAL {
            let scale = if bent < 1e-12 { 1.0 } else { angle.tan() / bent };
            return (angle <= MAX_ANGLE).then(|| seen * scale);
        }
        angle = (angle - (now - bent) / slope).clamp(0.0, 1.6);
    }
    None
}

/// Neither mirrored nor turned around: the part of the model that a lens can be.
fn is_upright(jacobian: &Matrix2<f64>) -> bool {
    0.0 < jacobian.determinant() && 0.0 < jacobian.trace()
}

/// The distorted point and the Jacobian of it.
fn rational(d: &[f64; 8], ideal: Point2<f64>) -> (Point2<f64>, Matrix2<f64>) {
    let [k1, k2, p1, p2, k3, k4, k5, k6] = *d;
    let (x, y) = (ideal.x, ideal.y);
    let r2 = x * x + y * y;
    let above = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3));
    let below = 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6));
    let radial = above / below;
    let seen = Point2::new(
        x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
        y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y,
    );
    let slope_above = k1 + r2 * (2.0 * k2 + r2 * 3.0 * k3);
    let slope_below = k4 + r2 * (2.0 * k5 + r2 * 3.0 * k6);
    // Of `radial` along r2.
    let slope = (slope_above * below - above * slope_below) / (below * below);
    let cross = 2.0 * x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y;
    let jacobian = Matrix2::new(
        radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x,
        cross,
        cross,
        radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x,
    );
    (seen, jacobian)
}

/// The distorted point and the Jacobian of it, with a thin prism behind the lens and a sensor that is not square to it.
fn full(d: &[f64; 14], ideal: Point2<f64>) -> (Point2<f64>, Matrix2<f64>) {
    let [k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, tau_x, tau_y] = *d;
    let (bent, mut jacobian) = rational(&[k1, k2, p1, p2, k3, k4, k5, k6], ideal);
    let r2 = ideal.coords.norm_squared();
    let prism = Vector2::new(r2 * (s1 + r2 * s2), r2 * (s3 + r2 * s4));
    let slope = Vector2::new(s1 + 2.0 * r2 * s2, s3 + 2.0 * r2 * s4);
    jacobian += slope * (2.0 * ideal.coords).transpose();
    let bent = bent + prism;
    if tau_x == 0.0 && tau_y == 0.0 {
        return (bent, jacobian);
    }
    let ((sin_x, cos_x), (sin_y, cos_y)) = (tau_x.sin_cos(), tau_y.sin_cos());
    let about_x = Matrix3::new(1.0, 0.0, 0.0, 0.0, cos_x, sin_x, 0.0, -sin_x, cos_x);
    let about_y = Matrix3::new(cos_y, 0.0, -sin_y, 0.0, 1.0, 0.0, sin_y, 0.0, cos_y);
    let turned = about_y * about_x;
    let onto = Matrix3::new(turned.m33, 0.0, -turned.m13, 0.0, turned.m33, -turned.m23, 0.0, 0.0, 1.0);
    let tilt = onto * turned;
    let at = tilt * bent.to_homogeneous();
    let seen = Point2::new(at.x / at.z, at.y / at.z);
    let along = Matrix2::new(
        tilt.m11 - seen.x * tilt.m31,
        tilt.m12 - seen.x * tilt.m32,
        tilt.m21 - seen.y * tilt.m31,
        tilt.m22 - seen.y * tilt.m32,
    ) / at.z;
    (seen, along * jacobian)
}

/// Distance from the center of the image of a ray at `angle` from the axis, and its derivative.
fn equidistant(k: &[f64; 4], angle: f64) -> (f64, f64) {
    let a2 = angle * angle;
    let bent = angle * (1.0 + a2 * (k[0] + a2 * (k[1] + a2 * (k[2] + a2 * k[3]))));
    let slope = 1.0 + a2 * (3.0 * k[0] + a2 * (5.0 * k[1] + a2 * (7.0 * k[2] + a2 * 9.0 * k[3])));
    (bent, slope)
}
