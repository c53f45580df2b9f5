//! Attention between tokens and inside windows on the CPU.
//! Every (batch or window, head) is a task of its own whose scores never leave the cache.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use candle_core::{Result, Tensor, bail};
use pulp::{Simd, WithSimd};

use super::linear::with_scratch;
use super::math::{arch, dot, prefetch, softmax_of_columns, softmax_unscaled, vectorized};
use super::matmul::{
    Matrix, interleave_strips, multiply_strips, panel_columns, strip_rows, tile, whole_panel,
};
use super::{Precision, Visible, attention_int16, for_each_chunk, with_slices};

/// Up to this many queries, laying the keys and values out costs more than it saves.
const FEW_QUERIES: usize = 4;
/// Keys and values of one head lie too far apart for the processor to foresee which comes next: so many rows ahead are asked for.
const ROWS_AHEAD: usize = 16;

pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    n_heads: usize,
    visible: &Visible,
    precision: Precision,
) -> Result<Tensor> {
    let (batch, n_queries, channels) = q.dims3()?;
    let n_keys = k.dim(1)?;
    let n_visible = |image: usize, query: usize| match visible {
        Visible::First(n) => n[image],
        Visible::Causal { offset } => offset + query + 1,
    };
    let fits = match visible {
        Visible::First(n) => n.len() == batch && n.iter().all(|n| (1..=n_keys).contains(n)),
        Visible::Causal { offset } => offset + n_queries <= n_keys,
    };
    if !fits {
        bail!("attention: {visible:?} does not fit {n_queries} queries and {n_keys} keys");
    }
    let head_dim = channels / n_heads;
    let mut heads = vec![0.0; batch * n_queries * channels];
    let work = 2 * batch * n_queries * n_keys * channels;
    with_slices([q, k, v], |[q, k, v]| {
        for_each_chunk(&mut heads, (n_queries * head_dim).max(1), work, |task, out| {
            let (image, head) = (task / n_heads, task % n_heads);
            let n_keys_here = n_visible(image, n_queries - 1);
            let of_head = |values, n, n_all: usize| {
                let values: &[f32] = values;
                Matrix::new(&values[image * n_all * channels + head * head_dim..], n, head_dim, channels)
            };
            attend(
                out,
                of_head(q, n_queries, n_queries),
                of_head(k, n_keys_here, n_keys),
                of_head(v, n_keys_here, n_keys),
                |query| n_visible(image, query),
                precision,
            );
        });
        Ok(())
    })?;
    let mut out = vec![0.0; heads.len()];
    beside_each_other(
        &heads,
        &mut out,
        n_heads,
        head_dim,
        |row| (row / n_queries, row % n_queries),
        n_queries,
    );
    Tensor::from_vec(out, q.dims(), q.device())
}

/// From one head after the other, `[tasks, heads, rows, d]`, to all heads of a row beside each other, `[.., heads, d]`; `place` gives
/// an output row's task and its row there.
fn beside_each_other(
    heads: &[f32],
    out: &mut [f32],
    n_heads: usize,
    head_dim: usize,
    place: impl Fn(usize) -> (usize, usize) + Sync,
    rows_per_task: usize,
) {
    let channels = n_heads * head_dim;
    if channels == 0 {
        return;
    }
    let rows_per_chunk = (32_768 / channels).max(1);
    let work = out.len();
    for_each_chunk(out, rows_per_chunk * channels, work, |chunk, out| {
        for (i, out) in out.chunks_exact_mut(channels).enumerate() {
            let (task, row) = place(chunk * rows_per_chunk + i);
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let start = ((task * n_heads + head) * rows_per_task + row) * head_dim;
                out.copy_from_slice(&heads[start..start + head_dim]);
            }
        }
    });
}

/// One head: `out [nq, d] = softmax(q k^T / sqrt(d)) v`, where query `i` sees the first `n_visible(i)` keys.
fn attend(
    out: &mut [f32],
    q: Matrix<'_>,
    k: Matrix<'_>,
    v: Matrix<'_>,
    n_visible: impl Fn(usize) -> usize,
    precision: Precision,
) {
    let (n_keys, head_dim) = (k.rows(), k.columns());
    if out.is_empty() {
        return;
    }
    if q.rows() <= FEW_QUERIES {
        return with_scratch(n_keys, |scores| attend_few(out, q, k, v, n_visible, scores));
    }
    if matches!(precision, Precision::Int16 | Precision::Int8) && attention_int16::pays(n_keys) {
        return attention_int16::attend(out, q, k, v, n_visible);
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if precision == Precision::Bf16 && super::attention_amx::pays(n_keys) {
        return super::attention_amx::attend(out, q, k, v, n_visible);
    }
    let width = tile().columns;
    with_scratch((2 * n_keys + 2 * width) * head_dim + n_keys * width, |scratch| {
        let (keys, scratch) = scratch.split_at_mut(n_keys * head_dim);
        let (values, scratch) = scratch.split_at_mut(n_keys * head_dim);
        let (queries, scratch) = scratch.split_at_mut(width * head_dim);
        let (attended, scores) = scratch.split_at_mut(width * head_dim);
        arch().dispatch(Attend { out, q, k, v, n_visible, keys, values, queries, attended, scores });
    });
}

fn attend_few(
    out: &mut [f32],
    q: Matrix<'_>,
    k: Matrix<'_>,
    v: Matrix<'_>,
    n_visible: impl Fn(usize) -> usize,
    scores: &mut [f32],
) {
    let scale = 1.0 / (k.columns() as f32).sqrt();
    vectorized!({
        for (query, out) in out.chunks_exact_mut(k.columns()).enumerate() {
            let scores = &mut scores[..n_visible(query).min(k.rows())];
            for (key, score) in scores.iter_mut().enumerate() {
                prefetch(k.row((key + ROWS_AHEAD).min(k.rows() - 1)));
                *score = scale * dot(q.row(query), k.row(key));
            }
            let factor = softmax_unscaled(scores);
            out.fill(0.0);
            for (key, score) in scores.iter().enumerate() {
                prefetch(v.row((key + ROWS_AHEAD).min(v.rows() - 1)));
                let weight = score * factor;
                for (out, value) in out.iter_mut().zip(v.row(key)) {
                    *out += weight * value;
                }
            }
        }
    });
}

/// Transposed: keys are rows and a few queries the columns of the scores. So each query's softmax is a lane's own, and the scores
/// already lie as the product with the values reads them.
struct Attend<'a, F> {
    out: &'a mut [f32],
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    n_visible: F,
    /// Strips of k.
    keys: &'a mut [f32],
    /// Strips of v transposed.
    values: &'a mut [f32],
    /// One panel of q.
    queries: &'a mut [f32],
    /// [d, panel columns]
    attended: &'a mut [f32],
    /// [keys, panel columns]
    scores: &'a mut [f32],
}

impl<F: Fn(usize) -> usize> WithSimd for Attend<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, q, k, v, n_visible, keys, values, queries, attended, scores } = self;
        let (n_keys, head_dim, width) = (k.rows(), k.columns(), panel_columns::<S>());
        let scale = 1.0 / (head_dim as f32).sqrt();
        interleave_strips(k, 0, strip_rows::<S>(), 1.0, keys);
        interleave_strips(v.transposed(), 0, strip_rows::<S>(), 1.0, values);
        for (panel, out) in out.chunks_mut(width * head_dim).enumerate() {
            let (first, n) = (panel * width, out.len() / head_dim);
            q.interleave(first, n, width, scale, queries);
            multiply_strips(simd, &mut whole_panel(scores, width), 0, 0, width, keys, queries, head_dim);
            hide_unseen(scores, width, first, n, &n_visible);
            let mut factors = [0.0; 64];
            softmax_of_columns(scores, &mut factors[..width]);
            multiply_strips(simd, &mut whole_panel(attended, width), 0, 0, width, values, scores, n_keys);
            for (query, out) in out.chunks_exact_mut(head_dim).enumerate() {
                for (out, values) in out.iter_mut().zip(attended.chunks_exact(width)) {
                    *out = values[query] * factors[query];
                }
            }
        }
    }
}

/// Keys that a query does not see get no weight from a softmax; scores [keys, width] of `n` queries from `first` on.
#[inline(always)]
pub(super) fn hide_unseen(
    scores: &mut [f32],
    width: usize,
    first: usize,
    n: usize,
    n_visible: impl Fn(usize) -> usize,
) {
    for query in 0..n {
        for scores in scores.chunks_exact_mut(width).skip(n_visible(first + query)) {
            scores[query] = f32::MIN;
        }
    }
}

pub(super) fn window_attention(qkv: &Tensor, n_heads: usize, window: usize) -> Result<Tensor> {
    let (batch, height, width, three_channels) = qkv.dims4()?;
    let channels = three_channels / 3;
    if !three_channels.is_multiple_of(3 * n_heads)
        || !height.is_multiple_of(window)
        || !width.is_multiple_of(window)
    {
        bail!("window_attention: {:?} does not fit {n_heads} heads and windows of {window}", qkv.dims());
    }
    let head_dim = channels / n_heads;
    let (n_down, n_across) = (height / window, width / window);
    let n_tokens = window * window;
    let task_len = n_tokens * head_dim;
    let mut heads = vec![0.0; batch * height * width * channels];
    let work = 2 * heads.len() * n_tokens;
    // First pixel of a window's row.
    let pixel = |window_idx: usize, row: usize| {
        let (image, in_image) = (window_idx / (n_down * n_across), window_idx % (n_down * n_across));
        let y = in_image / n_across * window + row;
        (image * height + y) * width + in_image % n_across * window
    };
    with_slices([qkv], |[qkv]| {
        for_each_chunk(&mut heads, task_len.max(1), work, |task, out| {
            let (window_idx, head) = (task / n_heads, task % n_heads);
            with_scratch(3 * task_len, |gathered| {
                for (part, gathered) in gathered.chunks_exact_mut(task_len).enumerate() {
                    for (token, values) in gathered.chunks_exact_mut(head_dim).enumerate() {
                        let pixel = pixel(window_idx, token / window) + token % window;
                        let start = pixel * three_channels + part * channels + head * head_dim;
                        values.copy_from_slice(&qkv[start..start + head_dim]);
                    }
                }
                let part = |i: usize| Matrix::new(&gathered[i * task_len..], n_tokens, head_dim, head_dim);
                attend(out, part(0), part(1), part(2), |_| n_tokens, Precision::F32);
            });
        });
        Ok(())
    })?;
    let place = |row: usize| {
        let (y, x) = (row / width, row % width);
        (y / window * n_across + x / window, y % window * window + x % window)
    };
    let mut out = vec![0.0; heads.len()];
    beside_each_other(&heads, &mut out, n_heads, head_dim, place, n_tokens);
    Tensor::from_vec(out, (batch, height, width, channels), qkv.device())
}
