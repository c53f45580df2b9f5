//! Attention between the channels of a group on the CPU (DaViT, Ding et al. 2022): many tokens, few channels.
//!
//! Tasks are ranges of tokens, not groups: so memory is read and written in its order.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use candle_core::{Result, Tensor, bail};
use pulp::{Simd, WithSimd};

use super::linear::with_scratch;
use super::math::{arch, softmax, vectorized};
use super::matmul::{
    Destination, Matrix, TileTarget, multiply, pack_panels, panel_columns, panels_len, store_tile, strip_rows,
};
use super::{for_each_chunk, with_slices};

/// Tokens of a task.
const TOKENS_PER_TASK: usize = 512;
/// Tokens that all groups read before the next ones, from the second-level cache.
const TOKENS_PER_BLOCK: usize = 32;
/// Channels of a group in all released models. Such groups are read where they lie: to lay them out for so few products would take as
/// long as the products.
const D: usize = 32;

pub(super) fn channel_attention(qkv: &Tensor, n_groups: usize) -> Result<Tensor> {
    let (batch, n_tokens, three_channels) = qkv.dims3()?;
    if !three_channels.is_multiple_of(3 * n_groups) || n_tokens == 0 {
        bail!("channel_attention: {:?} does not fit {n_groups} groups", qkv.dims());
    }
    let channels = three_channels / 3;
    let d = channels / n_groups;
    let mut out = vec![0.0; batch * n_tokens * channels];
    if d > 0 {
        with_slices([qkv], |[qkv]| {
            let images = qkv.chunks_exact(n_tokens * three_channels);
            for (qkv, out) in images.zip(out.chunks_exact_mut(n_tokens * channels)) {
                let qkv = Matrix::new(qkv, n_tokens, three_channels, three_channels);
                let weights = weights_between_channels(qkv, channels, d);
                for_each_chunk(out, TOKENS_PER_TASK * channels, n_tokens * channels * d, |task, out| {
                    let first = task * TOKENS_PER_TASK;
                    let v = qkv
                        .some_rows(first..first + out.len() / channels)
                        .some_columns(2 * channels..three_channels);
                    multiply_groups(out, v, &weights, d);
                });
            }
            Ok(())
        })?;
    }
    Tensor::from_vec(out, (batch, n_tokens, channels), qkv.device())
}

/// `softmax(q^T k / sqrt(tokens))`, [groups, d, d].
fn weights_between_channels(qkv: Matrix<'_>, channels: usize, d: usize) -> Vec<f32> {
    let n_tokens = qkv.rows();
    let scores_len = channels * d;
    // Of each task, so that the sum does not depend on who did which.
    let mut sums = vec![0.0; n_tokens.div_ceil(TOKENS_PER_TASK) * scores_len];
    for_each_chunk(&mut sums, scores_len, n_tokens * channels * d, |task, sums| {
        let first = task * TOKENS_PER_TASK;
        add_products_of_columns(
            sums,
            qkv.some_rows(first..n_tokens.min(first + TOKENS_PER_TASK)),
            channels,
            d,
        );
    });
    let (scores, others) = sums.split_at_mut(scores_len);
    let scale = 1.0 / (n_tokens as f32).sqrt();
    vectorized!({
        for others in others.chunks_exact(scores_len) {
            scores.iter_mut().zip(others).for_each(|(score, other)| *score += other);
        }
        for scores in scores.chunks_exact_mut(d) {
            scores.iter_mut().for_each(|score| *score *= scale);
            softmax(scores);
        }
    });
    sums.truncate(scores_len);
    sums
}

/// `scores [groups, d, d] += q^T k` of each group.
fn add_products_of_columns(scores: &mut [f32], qkv: Matrix<'_>, channels: usize, d: usize) {
    for first in (0..qkv.rows()).step_by(TOKENS_PER_BLOCK) {
        let tokens = qkv.some_rows(first..qkv.rows().min(first + TOKENS_PER_BLOCK));
        for (group, scores) in scores.chunks_exact_mut(d * d).enumerate() {
            let q = tokens.some_columns(group * d..(group + 1) * d);
            let k = tokens.some_columns(channels + group * d..channels + (group + 1) * d);
            if d == D {
                arch().dispatch(ProductsOfColumns { scores, q, k });
            } else {
                multiply(scores, d, Destination::Accumulate, 1.0, q.transposed(), k);
            }
        }
    }
}

/// `out = v w^T` of each group, for `v` [tokens, channels] and `w` [groups, d, d].
fn multiply_groups(out: &mut [f32], v: Matrix<'_>, w: &[f32], d: usize) {
    let channels = v.columns();
    let w = w.chunks_exact(d * d).map(|w| Matrix::new(w, d, d, d));
    if d == D {
        with_scratch(channels / D * panels_len(D, D), |panels| {
            for (w, panels) in w.zip(panels.chunks_exact_mut(panels_len(D, D))) {
                pack_panels(w, panels);
            }
            arch().dispatch(ProductsOfRows { out, v, panels });
        });
    } else {
        for (group, w) in w.enumerate() {
            let v = v.some_columns(group * d..(group + 1) * d);
            multiply(&mut out[group * d..], channels, Destination::Overwrite, 1.0, v, w.transposed());
        }
    }
}

struct ProductsOfColumns<'a> {
    scores: &'a mut [f32],
    q: Matrix<'a>,
    k: Matrix<'a>,
}

impl WithSimd for ProductsOfColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if has_many_registers::<S>() { self.run::<S, 8>(simd) } else { self.run::<S, 4>(simd) }
    }
}

impl ProductsOfColumns<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self, simd: S) {
        let Self { scores, q, k } = self;
        let width = panel_columns::<S>();
        for (i, scores) in scores.chunks_exact_mut(R * D).enumerate() {
            for column in (0..D).step_by(width) {
                let mut sums = [[simd.splat_f32s(0.0); 2]; R];
                for token in 0..q.rows() {
                    let q = &q.row(token).as_chunks::<R>().0[i];
                    let (k, _) = S::as_simd_f32s(&k.row(token)[column..][..width]);
                    for (sums, q) in sums.iter_mut().zip(q) {
                        let q = simd.splat_f32s(*q);
                        sums[0] = simd.mul_add_e_f32s(q, k[0], sums[0]);
                        sums[1] = simd.mul_add_e_f32s(q, k[1], sums[1]);
                    }
                }
                let (out, destination) = (&mut scores[column..], Destination::Accumulate);
                store_tile(simd, &mut TileTarget { out, row_stride: D, n_columns: width, destination }, sums);
            }
        }
    }
}

struct ProductsOfRows<'a> {
    out: &'a mut [f32],
    v: Matrix<'a>,
    panels: &'a [f32],
}

impl WithSimd for ProductsOfRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let whole =
            if has_many_registers::<S>() { self.run::<S, 8>(simd, 0) } else { self.run::<S, 4>(simd, 0) };
        self.run::<S, 1>(simd, whole);
    }
}

impl ProductsOfRows<'_> {
    /// `R` rows at a time, from `first` on. Returns the first row that is left.
    #[inline(always)]
    fn run<S: Simd, const R: usize>(&mut self, simd: S, first: usize) -> usize {
        let (channels, width) = (self.v.columns(), panel_columns::<S>());
        let n_whole = (self.v.rows() - first) / R;
        for (i, out) in self.out[first * channels..].chunks_exact_mut(R * channels).enumerate() {
            let rows: [&[[f32; D]]; R] = std::array::from_fn(|r| self.v.row(first + i * R + r).as_chunks().0);
            for (index, panel) in self.panels.chunks_exact(width * D).enumerate() {
                let column = index * width;
                let rows: [&[f32; D]; R] = rows.map(|row| &row[column / D]);
                let (panel, _) = S::as_simd_f32s(panel);
                let mut sums = [[simd.splat_f32s(0.0); 2]; R];
                for (t, panel) in (0..D).zip(panel.as_chunks::<2>().0) {
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let value = simd.splat_f32s(row[t]);
                        sums[0] = simd.mul_add_e_f32s(value, panel[0], sums[0]);
                        sums[1] = simd.mul_add_e_f32s(value, panel[1], sums[1]);
                    }
                }
                let (out, destination) = (&mut out[column..], Destination::Overwrite);
                let mut target = TileTarget { out, row_stride: channels, n_columns: width, destination };
                store_tile(simd, &mut target, sums);
            }
        }
        first + n_whole * R
    }
}

/// 32 of them; AVX2 has 16.
#[inline(always)]
const fn has_many_registers<S: Simd>() -> bool {
    strip_rows::<S>() == 12
}
