//! Vector arithmetic that the compiler turns into SIMD: sums in lanes, an exponential and an error function without branches.
//! Callers compile it for an instruction set with [`vectorized`].

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `vectorized`"
)]

use crate::cpu_features::arch;
use crate::simd::vectorized;

const LANES: usize = 16;

/// The sum of all values.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The dot product.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// The sum of squared distances from `center`.
#[inline(always)]
pub(crate) fn sum_squared_distances(values: &[f32], center: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|value| (value - center) * (value - center)).sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            let distance = value - center;
            *lane += distance * distance;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The largest value; negative infinity when there is none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

/// Whether this processor has fused multiply-adds. Without them `f32::mul_add` is a slow function call.
fn has_fused() -> bool {
    !matches!(arch(), pulp::Arch::Scalar)
}

#[inline(always)]
fn mul_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// 1.5 * 2^23, where neighbors in f32 are 1 apart: adding it rounds to an integer, which is then in the low bits of the mantissa.
pub(crate) const ROUND_TO_INT: f32 = 12_582_912.0;

/// e^x by range reduction to |r| <= ln 2 / 2 and a polynomial (Cephes `expf`); relative error below 3e-7.
/// Arguments are clamped to [-87, 88], so the result is always finite and positive. `FUSED` gains nothing in softmaxes.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = mul_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND_TO_INT);
    let n = shifted - ROUND_TO_INT;
    let r = mul_add::<FUSED>(n, -LN_2_LOW, mul_add::<FUSED>(n, -LN_2_HIGH, x));
    let mut poly = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        poly = mul_add::<FUSED>(poly, r, coefficient);
    }
    let power_of_two =
        f32::from_bits(shifted.to_bits().wrapping_sub(ROUND_TO_INT.to_bits()).wrapping_add(127) << 23);
    (mul_add::<FUSED>(poly * r, r, r) + 1.0) * power_of_two
}

/// The error function (Abramowitz and Stegun 7.1.26); absolute error below 5e-7 in f32.
#[inline(always)]
pub(crate) fn erf<const FUSED: bool>(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / mul_add::<FUSED>(a, 0.327_591_1, 1.0);
    let mut poly = mul_add::<FUSED>(1.061_405_4, t, -1.453_152_1);
    for coefficient in [1.421_413_8, -0.284_496_74, 0.254_829_6] {
        poly = mul_add::<FUSED>(poly, t, coefficient);
    }
    mul_add::<FUSED>(-poly * t, exp::<FUSED>(-a * a), 1.0).copysign(x)
}

/// GELU in its exact form, x * Phi(x), in place.
pub(crate) fn gelu(values: &mut [f32]) {
    if has_fused() {
        vectorized!(gelu_of::<true>(values));
    } else {
        vectorized!(gelu_of::<false>(values));
    }
}

#[inline(always)]
fn gelu_of<const FUSED: bool>(values: &mut [f32]) {
    for value in values {
        *value = 0.5 * *value * (1.0 + erf::<FUSED>(*value * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// x * sigmoid(1.702 x), in place.
pub(crate) fn quick_gelu(values: &mut [f32]) {
    vectorized!({
        for value in &mut *values {
            *value /= 1.0 + exp::<false>(-1.702 * *value);
        }
    });
}

/// The softmax weight, not normalized, of a score that is `below` (at most 0) the largest one. Weights below e^-75, which no sum
/// in f32 would show, become zero: products with them would be subnormal, which some processors compute a hundred times slower.
#[inline(always)]
fn softmax_weight(below: f32) -> f32 {
    let weight = exp::<false>(below);
    if below < -75.0 { 0.0 } else { weight }
}

/// Softmax in place.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32]) {
    let largest = max(row);
    for value in &mut *row {
        *value = softmax_weight(*value - largest);
    }
    let scale = 1.0 / sum(row);
    for value in row {
        *value *= scale;
    }
}

/// Softmax in place without its normalization, which saves a pass over a long row. Returns the factor that normalizes it.
#[inline(always)]
pub(crate) fn softmax_unscaled(row: &mut [f32]) -> f32 {
    let largest = max(row);
    let mut lanes = [0.0; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = softmax_weight(*value - largest);
            *lane += *value;
        }
    }
    let mut total: f32 = lanes.iter().sum();
    for value in chunks.into_remainder() {
        *value = softmax_weight(*value - largest);
        total += *value;
    }
    1.0 / total
}

/// Softmax of every column in place, without its normalization; rows are as long as `factors`, at most 64, which receives what
/// normalizes each column.
#[inline(always)]
pub(crate) fn softmax_of_columns(rows: &mut [f32], factors: &mut [f32]) {
    let width = factors.len();
    let mut largest = [f32::NEG_INFINITY; 64];
    let largest = &mut largest[..width];
    for row in rows.chunks_exact(width) {
        for (largest, value) in largest.iter_mut().zip(row) {
            *largest = if *value > *largest { *value } else { *largest };
        }
    }
    factors.fill(0.0);
    for row in rows.chunks_exact_mut(width) {
        for ((value, total), largest) in row.iter_mut().zip(&mut *factors).zip(&*largest) {
            *value = softmax_weight(*value - largest);
            *total += *value;
        }
    }
    factors.iter_mut().for_each(|total| *total = 1.0 / *total);
}

/// `out = (x - mean) / sqrt(variance + eps) * weight + bias` over one row.
#[inline(always)]
pub(crate) fn layer_norm_row(x: &[f32], out: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    let scale = 1.0 / (sum_squared_distances(x, mean) / n + eps).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * scale * weight + bias;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_erf_are_as_close_as_they_say() {
        check_exp_and_erf::<false>();
        check_exp_and_erf::<true>();
    }

    fn check_exp_and_erf<const FUSED: bool>() {
        for i in -1_000_000..=1_000_000 {
            let x = i as f32 * 8.7e-5;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp::<FUSED>(x)) / exact - 1.0).abs() < 3e-7, "exp({x})");
        }
        assert!(exp::<FUSED>(f32::NEG_INFINITY) < 1e-37 && exp::<FUSED>(f32::INFINITY).is_finite());
        // Reference values: scipy.special.erf.
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916),
            (0.5, 0.520_499_88),
            (1.0, 0.842_700_8),
            (-1.0, -0.842_700_8),
            (2.0, 0.995_322_3),
            (4.0, 1.0),
            (-20.0, -1.0),
        ] {
            assert!((erf::<FUSED>(x) - expected).abs() < 5e-7, "erf({x}) = {}", erf::<FUSED>(x));
        }
    }

    #[test]
    fn softmaxes_make_no_number_too_small_to_be_normal() {
        let scores: Vec<f32> = (0..500).map(|i| (i * 37 % 211) as f32 * -0.7).collect();
        let mut row = scores.clone();
        softmax(&mut row);
        let total: f64 = scores.iter().map(|score| f64::from(*score).exp()).sum();
        for (score, weight) in scores.iter().zip(&row) {
            let exact = f64::from(*score).exp() / total;
            assert!((f64::from(*weight) - exact).abs() <= 1e-6 * exact + 1e-32, "{weight}, not {exact}");
        }
        assert!(row.iter().all(|weight| *weight == 0.0 || weight.is_normal()));
        assert!(row.contains(&0.0));
    }

    #[test]
    fn lanes_and_rests_are_all_counted() {
        for n in 0..40 {
            let values: Vec<f32> = (0..n).map(|i| i as f32 - 7.0).collect();
            assert_eq!(sum(&values), values.iter().sum::<f32>());
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let squares: f32 = values.iter().map(|v| (v - 2.0) * (v - 2.0)).sum();
            assert!((sum_squared_distances(&values, 2.0) - squares).abs() < 1e-3);
        }
    }
}
