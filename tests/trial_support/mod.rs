//! What trials of poses in rendered scenes share.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a covariance that cannot be inverted fails the test")]

use language_grounding::image::RgbdFrame;
use language_grounding::scene::{DepthSensor, RenderedScene};
use nalgebra::{Matrix3, Matrix6, Vector3};

/// 95 % of a chi-squared distribution with three degrees of freedom.
pub(crate) const CHI2_95: f64 = 7.815;

/// A rendered scene as a depth camera sees it.
pub(crate) fn sensed(seen: &RenderedScene, seed: u64) -> RgbdFrame {
    let mut frame = seen.frame("camera", 0);
    frame.depth = Some(DepthSensor::default().measure(&seen.depth, seed));
    frame
}

/// Squared Mahalanobis distance of an offset of the position.
pub(crate) fn chi2(covariance: &Matrix6<f64>, offset: &Vector3<f64>) -> f64 {
    let position: Matrix3<f64> = covariance.fixed_view::<3, 3>(0, 0).into_owned();
    (position.try_inverse().unwrap() * offset).dot(offset)
}

/// Numbers from -1 to 1, the same for the same seed.
pub(crate) fn offsets(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        2.0 * ((state >> 33) as f64 / f64::from(1_u32 << 31)) - 1.0
    }
}

/// The value below which a share of the values lies; NaN where there are none.
pub(crate) fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { values[((values.len() - 1) as f64 * share).round() as usize] }
}
