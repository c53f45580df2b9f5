//! Attention between the channels of a group (DaViT, Ding et al. 2022): many tokens, few channels.
//!
//! Tasks are ranges of tokens, not groups, so that memory is read and written in order.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use pulp::{Simd, WithSimd};

use crate::cpu_features::arch;
use crate::gemm::f32::gemm;
use crate::gemm::micro_kernel::{Tile, mr, nr, pack_b, packed_b_len, store_tile};
use crate::gemm::output::{Output, Store};
use crate::math::softmax;
use crate::matrix::MatrixView;
use crate::parallel::for_each_chunk;
use crate::scratch::with_scratch;
use crate::simd::vectorized;

/// Tokens in a task.
const TOKENS_PER_TASK: usize = 512;
/// Tokens that all groups read, from the second-level cache, before the next ones.
const TOKENS_PER_BLOCK: usize = 32;
/// Channels of a group in all released models. Such groups are read in place: packing them would take as long as their few products.
const D: usize = 32;

/// `out = v softmax(q^T k / sqrt(tokens))^T` for each group; qkv [batch, tokens, 3, groups, d], out [batch, tokens, groups, d].
///
/// # Panics
/// If lengths do not fit.
pub fn channel_attention(out: &mut [f32], qkv: &[f32], n_tokens: usize, channels: usize, n_groups: usize) {
    assert!(
        qkv.len() == 3 * out.len() && channels.is_multiple_of(n_groups),
        "channel_attention: [{n_tokens}, {channels}] with {n_groups} groups"
    );
    if out.is_empty() {
        return;
    }
    let (three_channels, d) = (3 * channels, channels / n_groups);
    let images = qkv.chunks_exact(n_tokens * three_channels);
    for (qkv, out) in images.zip(out.chunks_exact_mut(n_tokens * channels)) {
        let qkv = MatrixView::new(qkv, n_tokens, three_channels, three_channels);
        let weights = weights_between_channels(qkv, channels, d);
        for_each_chunk(out, TOKENS_PER_TASK * channels, n_tokens * channels * d, |task, out| {
            let first = task * TOKENS_PER_TASK;
            let v = qkv.rows(first..first + out.len() / channels).columns(2 * channels..three_channels);
            multiply_groups(out, v, &weights, d);
        });
    }
}

/// `softmax(q^T k / sqrt(tokens))`, [groups, d, d].
fn weights_between_channels(qkv: MatrixView<'_>, channels: usize, d: usize) -> Vec<f32> {
    let n_tokens = qkv.n_rows();
    let scores_len = channels * d;
    // Each task has sums of its own: added in order, they do not depend on which thread ran which task.
    let mut sums = vec![0.0; n_tokens.div_ceil(TOKENS_PER_TASK) * scores_len];
    for_each_chunk(&mut sums, scores_len, n_tokens * channels * d, |task, sums| {
        let first = task * TOKENS_PER_TASK;
        add_products_of_columns(sums, qkv.rows(first..n_tokens.min(first + TOKENS_PER_TASK)), channels, d);
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
fn add_products_of_columns(scores: &mut [f32], qkv: MatrixView<'_>, channels: usize, d: usize) {
    for first in (0..qkv.n_rows()).step_by(TOKENS_PER_BLOCK) {
        let tokens = qkv.rows(first..qkv.n_rows().min(first + TOKENS_PER_BLOCK));
        for (group, scores) in scores.chunks_exact_mut(d * d).enumerate() {
            let q = tokens.columns(group * d..(group + 1) * d);
            let k = tokens.columns(channels + group * d..channels + (group + 1) * d);
            if d == D {
                arch().dispatch(ProductsOfColumns { scores, q, k });
            } else {
                gemm(Output { data: scores, row_stride: d, store: Store::Accumulate }, q.transposed(), k, 1);
            }
        }
    }
}

/// `out = v w^T` of each group, for `v` [tokens, channels] and `w` [groups, d, d].
fn multiply_groups(out: &mut [f32], v: MatrixView<'_>, w: &[f32], d: usize) {
    let channels = v.n_columns();
    let w = w.chunks_exact(d * d).map(|w| MatrixView::new(w, d, d, d));
    if d == D {
        with_scratch(channels / D * packed_b_len(D, D), |panels| {
            vectorized!({
                for (w, panels) in w.clone().zip(panels.chunks_exact_mut(packed_b_len(D, D))) {
                    pack_b(w, panels);
                }
            });
            arch().dispatch(ProductsOfRows { out, v, panels });
        });
    } else {
        for (group, w) in w.enumerate() {
            let v = v.columns(group * d..(group + 1) * d);
            let out = Output::overwrite(&mut out[group * d..], channels);
            gemm(out, v, w.transposed(), 1);
        }
    }
}

struct ProductsOfColumns<'a> {
    scores: &'a mut [f32],
    q: MatrixView<'a>,
    k: MatrixView<'a>,
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
        let width = nr::<S>();
        for (i, scores) in scores.chunks_exact_mut(R * D).enumerate() {
            for column in (0..D).step_by(width) {
                let mut sums = [[simd.splat_f32s(0.0); 2]; R];
                for token in 0..q.n_rows() {
                    let q = &q.row(token).as_chunks::<R>().0[i];
                    let (k, _) = S::as_simd_f32s(&k.row(token)[column..][..width]);
                    for (sums, q) in sums.iter_mut().zip(q) {
                        let q = simd.splat_f32s(*q);
                        sums[0] = simd.mul_add_e_f32s(q, k[0], sums[0]);
                        sums[1] = simd.mul_add_e_f32s(q, k[1], sums[1]);
                    }
                }
                let (out, store) = (&mut scores[column..], Store::Accumulate);
                store_tile(simd, &mut Tile { out, row_stride: D, n_columns: width, store }, sums);
            }
        }
    }
}

struct ProductsOfRows<'a> {
    out: &'a mut [f32],
    v: MatrixView<'a>,
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
        let (channels, width) = (self.v.n_columns(), nr::<S>());
        let n_whole = (self.v.n_rows() - first) / R;
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
                let (out, store) = (&mut out[column..], Store::Overwrite);
                let mut tile = Tile { out, row_stride: channels, n_columns: width, store };
                store_tile(simd, &mut tile, sums);
            }
        }
        first + n_whole * R
    }
}

/// Whether there are 32 registers; AVX2 has 16.
#[inline(always)]
const fn has_many_registers<S: Simd>() -> bool {
    mr::<S>() == 12
}
