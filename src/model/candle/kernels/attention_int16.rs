//! Attention with both of its products in 16-bit integers; laid out as in [`super::attention`].
//!
//! Each query, each key and each channel of the values has a scale of its own. Weights are whole steps of 1 / 8191 of a query's
//! largest, and what rounding takes from a key's weight the next key gets: so many small weights keep their sum.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `vectorized`"
)]

use pulp::bytemuck::cast_slice_mut;

use super::attention::hide_unseen;
#[cfg(target_arch = "x86_64")]
use super::int16::Vnni;
use super::int16::{LARGEST_INPUT, LARGEST_WEIGHT, Plain, has_vnni, interleave_row, interleave_weights};
use super::linear::with_scratch;
use super::math::{ROUNDER, exp, vectorized};
use super::matmul::{Matrix, whole_panel};
use super::rounded::{RoundedPanels, RoundedProduct, interleave_strips, multiply_strips};

/// Fewer keys are not worth the rounding.
const MIN_KEYS: usize = 512;

/// Whether it is faster than f32: without VNNI it is not.
pub(super) fn pays(n_keys: usize) -> bool {
    has_vnni() && n_keys >= MIN_KEYS
}

/// One head: `out [nq, d] = softmax(q k^T / sqrt(d)) v`, where query `i` sees the first `n_visible(i)` keys.
pub(super) fn attend(
    out: &mut [f32],
    q: Matrix<'_>,
    k: Matrix<'_>,
    v: Matrix<'_>,
    n_visible: impl Fn(usize) -> usize,
) {
    #[cfg(target_arch = "x86_64")]
    if has_vnni() {
        return attend_with::<Vnni, { Vnni::WIDTH }>(out, q, k, v, n_visible);
    }
    attend_with::<Plain, { Plain::WIDTH }>(out, q, k, v, n_visible);
}

/// `W` is the width of `P`.
fn attend_with<P: RoundedProduct, const W: usize>(
    out: &mut [f32],
    q: Matrix<'_>,
    k: Matrix<'_>,
    v: Matrix<'_>,
    n_visible: impl Fn(usize) -> usize,
) {
    let (n_keys, head_dim) = (k.rows(), k.columns());
    let (key_pairs, channel_pairs) = (n_keys.div_ceil(2), head_dim.div_ceil(2));
    let pair_lens = [n_keys * channel_pairs, head_dim * key_pairs, channel_pairs * W, key_pairs * W];
    let lens = [n_keys, head_dim, n_keys * W, head_dim * W];
    with_scratch(pair_lens.iter().chain(&lens).sum(), |mut scratch| {
        let mut next = |len| scratch.split_off_mut(..len).expect("the sum of all lengths");
        let [keys, values, queries, weights] = pair_lens.map(|len| cast_slice_mut::<f32, u32>(next(len)));
        let [key_steps, value_steps, scores, attended] = lens.map(next);
        interleave_strips::<P>(k, 0, 1.0 / (head_dim as f32).sqrt(), keys, key_steps);
        interleave_channels::<P>(v, values, value_steps);
        for (panel, out) in out.chunks_mut(W * head_dim).enumerate() {
            let (first, n) = (panel * W, out.len() / head_dim);
            let mut query_scales = [0.0; W];
            interleave_weights(q, first, n, queries, &mut query_scales);
            let queries = RoundedPanels { numbers: queries, scales: Some(&query_scales), n: W };
            multiply_strips::<P>(&mut whole_panel(scores, W), 0, keys, key_steps, queries, head_dim);
            hide_unseen(scores, W, first, n, &n_visible);
            let mut factors = [0.0; W];
            vectorized!(softmax_in_steps::<W>(scores, weights, &mut factors));
            let weights = RoundedPanels { numbers: weights, scales: Some(&factors), n: W };
            multiply_strips::<P>(&mut whole_panel(attended, W), 0, values, value_steps, weights, n_keys);
            for (query, out) in out.chunks_exact_mut(head_dim).enumerate() {
                for (out, values) in out.iter_mut().zip(attended.chunks_exact(W)) {
                    *out = values[query];
                }
            }
        }
    });
}

/// Columns of `v` as strips, and what the steps of each are worth.
fn interleave_channels<P: RoundedProduct>(v: Matrix<'_>, out: &mut [u32], steps: &mut [f32]) {
    let (n_keys, pairs) = (v.rows(), v.rows().div_ceil(2));
    with_scratch(n_keys, |channel| {
        vectorized!({
            for (i, strip) in out.chunks_mut(P::STRIP_ROWS * pairs).enumerate() {
                let n = strip.len() / pairs;
                for j in 0..n {
                    let index = i * P::STRIP_ROWS + j;
                    for (key, value) in channel.iter_mut().enumerate() {
                        *value = v.row(key)[index];
                    }
                    steps[index] = interleave_row(channel, LARGEST_WEIGHT, j, n, strip);
                }
            }
        });
    });
}

/// Softmax of every column in steps, two rows in the halves of each number; and what a step is worth, for each column.
#[inline(always)]
fn softmax_in_steps<const W: usize>(scores: &[f32], weights: &mut [u32], factors: &mut [f32; W]) {
    let rows = scores.as_chunks::<W>().0;
    let mut largest = [f32::NEG_INFINITY; W];
    for row in rows {
        for (largest, score) in largest.iter_mut().zip(row) {
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    let (mut rests, mut totals) = ([0.0; W], [0.0; W]);
    let (pairs, last) = rows.as_chunks::<2>();
    let weights = weights.as_chunks_mut::<W>().0;
    for ([low, high], out) in pairs.iter().zip(&mut *weights) {
        let low = round_weights(low, &largest, &mut rests, &mut totals);
        let high = round_weights(high, &largest, &mut rests, &mut totals);
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            *out = low | high << 16;
        }
    }
    if let ([row], Some(out)) = (last, weights.last_mut()) {
        *out = round_weights(row, &largest, &mut rests, &mut totals);
    }
    for (factor, total) in factors.iter_mut().zip(totals) {
        *factor = 1.0 / total;
    }
}

/// One row of weights in steps; what rounding took from earlier rows, and their sums so far, are kept.
#[inline(always)]
fn round_weights<const W: usize>(
    scores: &[f32; W],
    largest: &[f32; W],
    rests: &mut [f32; W],
    totals: &mut [f32; W],
) -> [u32; W] {
    let mut out = [0; W];
    for i in 0..W {
        let exact = exp::<true>(scores[i] - largest[i]) * LARGEST_INPUT + rests[i];
        let shifted = exact + ROUNDER;
        let rounded = shifted - ROUNDER;
        rests[i] = exact - rounded;
        totals[i] += rounded;
        out[i] = shifted.to_bits() & 0xffff;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative RMS deviation of both ways from the definition in f64; three visible keys more for each query.
    fn deviations(q: &[f32], k: &[f32], v: &[f32], head_dim: usize, first: usize) -> [f64; 2] {
        let (n_queries, n_keys) = (q.len() / head_dim, k.len() / head_dim);
        let n_visible = |query: usize| n_keys.min(first + 3 * query);
        let row = |values: &[f32], i: usize| values[i * head_dim..][..head_dim].to_vec();
        let mut exact = Vec::new();
        for query in 0..n_queries {
            let score = |key| -> f64 {
                let products = row(q, query).into_iter().zip(row(k, key));
                products.map(|(q, k)| f64::from(q) * f64::from(k)).sum::<f64>() / (head_dim as f64).sqrt()
            };
            let weights: Vec<f64> = (0..n_visible(query)).map(|key| score(key).exp()).collect();
            for channel in 0..head_dim {
                let weighted =
                    weights.iter().enumerate().map(|(key, it)| it * f64::from(row(v, key)[channel]));
                exact.push(weighted.sum::<f64>() / weights.iter().sum::<f64>());
            }
        }
        let matrix = |values| Matrix::new(values, n_keys, head_dim, head_dim);
        let (q, k, v) = (Matrix::new(q, n_queries, head_dim, head_dim), matrix(k), matrix(v));
        let mut out = vec![0.0; exact.len()];
        let mut deviation = |attend: &dyn Fn(&mut [f32])| {
            out.fill(f32::NAN);
            attend(&mut out);
            let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|it| it * it).sum::<f64>();
            let errors = squares(&mut out.iter().zip(&exact).map(|(out, exact)| f64::from(*out) - exact));
            (errors / squares(&mut exact.iter().copied())).sqrt()
        };
        [
            deviation(&|out| attend(out, q, k, v, n_visible)),
            deviation(&|out| attend_with::<Plain, { Plain::WIDTH }>(out, q, k, v, n_visible)),
        ]
    }

    #[test]
    fn it_is_near_the_definition() {
        for (n_queries, n_keys, head_dim, first) in
            [(1, 1, 4, 1), (5, 7, 3, 1), (40, 33, 16, 2), (70, 200, 32, 200), (33, 601, 64, 500)]
        {
            let values = |len: usize, seed: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * 7919 + seed * 31) % 1009) as f32 / 300.0 - 1.6).collect()
            };
            let (q, k) = (values(n_queries * head_dim, 1), values(n_keys * head_dim, 2));
            let found = deviations(&q, &k, &values(n_keys * head_dim, 3), head_dim, first);
            assert!(found.iter().all(|it| *it < 1e-3), "{n_queries}x{n_keys}x{head_dim}: {found:?}");
        }
    }

    /// Weights far below a step of the largest one keep their sum.
    #[test]
    fn what_many_keys_weigh_together_is_not_lost() {
        let (n_queries, n_keys, head_dim) = (40, 3001, 16);
        let q = vec![1.0; n_queries * head_dim];
        // One key, which has no values, outweighs each other by e^11, and all of them by 20.
        let of_keys = |one: f32, many: f32| -> Vec<f32> {
            (0..n_keys * head_dim).map(|i| if i / head_dim == 7 { one } else { many }).collect()
        };
        let found = deviations(&q, &of_keys(11.0 / 4.0, 0.0), &of_keys(0.0, 30.0), head_dim, n_keys);
        assert!(found.iter().all(|it| *it < 1e-3), "{found:?}");
    }
}
