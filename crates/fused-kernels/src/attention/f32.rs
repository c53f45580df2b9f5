//! Attention of one head in f32.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use pulp::{Simd, WithSimd};

use super::mask::apply_mask;
use crate::cpu_features::arch;
use crate::gemm::micro_kernel::{mr, multiply_panel, nr, pack_a, panel_width};
use crate::gemm::output::Output;
use crate::math::{dot, softmax_of_columns, softmax_unscaled};
use crate::matrix::MatrixView;
use crate::scratch::with_scratch;
use crate::simd::{prefetch, vectorized};

/// Keys and values of one head are too far apart in memory for the processor's own prefetching: so many rows ahead are fetched.
const ROWS_AHEAD: usize = 16;

/// `out [nq, d] = softmax(q k^T / sqrt(d)) v`, where query `i` attends to the first `n_visible(i)` keys.
pub(crate) fn attend(
    out: &mut [f32],
    q: MatrixView<'_>,
    k: MatrixView<'_>,
    v: MatrixView<'_>,
    n_visible: impl Fn(usize) -> usize,
) {
    let (n_keys, head_dim) = (k.n_rows(), k.n_columns());
    let width = panel_width();
    with_scratch((2 * n_keys + 2 * width) * head_dim + n_keys * width, |scratch| {
        let (keys, scratch) = scratch.split_at_mut(n_keys * head_dim);
        let (values, scratch) = scratch.split_at_mut(n_keys * head_dim);
        let (queries, scratch) = scratch.split_at_mut(width * head_dim);
        let (attended, scores) = scratch.split_at_mut(width * head_dim);
        arch().dispatch(Attend { out, q, k, v, n_visible, keys, values, queries, attended, scores });
    });
}

/// The same for a few queries, without packing: it would cost more than it saves.
pub(crate) fn attend_few(
    out: &mut [f32],
    q: MatrixView<'_>,
    k: MatrixView<'_>,
    v: MatrixView<'_>,
    n_visible: impl Fn(usize) -> usize,
) {
    let scale = 1.0 / (k.n_columns() as f32).sqrt();
    with_scratch(k.n_rows(), |scores| {
        vectorized!({
            for (query, out) in out.chunks_exact_mut(k.n_columns()).enumerate() {
                let scores = &mut scores[..n_visible(query).min(k.n_rows())];
                for (key, score) in scores.iter_mut().enumerate() {
                    prefetch(k.row((key + ROWS_AHEAD).min(k.n_rows() - 1)));
                    *score = scale * dot(q.row(query), k.row(key));
                }
                let factor = softmax_unscaled(scores);
                out.fill(0.0);
                for (key, score) in scores.iter().enumerate() {
                    prefetch(v.row((key + ROWS_AHEAD).min(v.n_rows() - 1)));
                    let weight = score * factor;
                    for (out, value) in out.iter_mut().zip(v.row(key)) {
                        *out += weight * value;
                    }
                }
            }
        });
    });
}

/// Scores are transposed, [keys, queries]: the softmax of a query then runs in one lane, and the scores are already packed for the
/// product with the values.
struct Attend<'a, F> {
    out: &'a mut [f32],
    q: MatrixView<'a>,
    k: MatrixView<'a>,
    v: MatrixView<'a>,
    n_visible: F,
    /// Packed k.
    keys: &'a mut [f32],
    /// Packed v^T.
    values: &'a mut [f32],
    /// A packed micro-panel of q.
    queries: &'a mut [f32],
    /// [d, NR]
    attended: &'a mut [f32],
    /// [keys, NR]
    scores: &'a mut [f32],
}

impl<F: Fn(usize) -> usize> WithSimd for Attend<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, q, k, v, n_visible, keys, values, queries, attended, scores } = self;
        let (n_keys, head_dim, width) = (k.n_rows(), k.n_columns(), nr::<S>());
        let scale = 1.0 / (head_dim as f32).sqrt();
        pack_a(k, 0, mr::<S>(), keys);
        pack_a(v.transposed(), 0, mr::<S>(), values);
        for (panel, out) in out.chunks_mut(width * head_dim).enumerate() {
            let (first, n) = (panel * width, out.len() / head_dim);
            q.pack(first, n, width, scale, queries);
            multiply_panel(
                simd,
                &mut Output::overwrite(scores, width),
                (0, 0),
                width,
                keys,
                queries,
                head_dim,
            );
            apply_mask(scores, width, first, n, &n_visible);
            let mut factors = [0.0; 64];
            softmax_of_columns(scores, &mut factors[..width]);
            multiply_panel(
                simd,
                &mut Output::overwrite(attended, width),
                (0, 0),
                width,
                values,
                scores,
                n_keys,
            );
            for (query, out) in out.chunks_exact_mut(head_dim).enumerate() {
                for (out, values) in out.iter_mut().zip(attended.chunks_exact(width)) {
                    *out = values[query] * factors[query];
                }
            }
        }
    }
}
