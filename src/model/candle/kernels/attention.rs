//! The three attentions of Florence-2 on the CPU: between tokens, inside windows, between channels.
//! Every (batch or window, head) is a task of its own whose scores never leave the cache.

use candle_core::{Result, Tensor, bail};

use super::math::{softmax, softmax_unscaled, vectorized};
use super::matmul::{Destination, Matrix, multiply};
use super::{Visible, for_each_chunk, with_slices};

/// Queries whose scores are in memory at a time: with more they would leave the cache, with fewer keys and values would be packed
/// too often.
const QUERIES_PER_BLOCK: usize = 256;

pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    n_heads: usize,
    visible: &Visible,
) -> Result<Tensor> {
    let (batch, n_queries, channels) = q.dims3()?;
    let (key_batch, n_keys, key_channels) = k.dims3()?;
    if k.dims() != v.dims()
        || (key_batch, key_channels) != (batch, channels)
        || !channels.is_multiple_of(n_heads)
    {
        bail!("attention: q {:?}, k {:?}, v {:?}, {n_heads} heads", q.dims(), k.dims(), v.dims());
    }
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
                (n_queries, n_keys_here, head_dim),
                |query| n_visible(image, query),
            );
        });
        Ok(())
    })?;
    let mut out = vec![0.0; heads.len()];
    for (task, head_out) in heads.chunks_exact((n_queries * head_dim).max(1)).enumerate() {
        let (image, head) = (task / n_heads, task % n_heads);
        for (query, values) in head_out.chunks_exact(head_dim).enumerate() {
            let start = (image * n_queries + query) * channels + head * head_dim;
            out[start..start + head_dim].copy_from_slice(values);
        }
    }
    Tensor::from_vec(out, q.dims(), q.device())
}

/// One head: `out [nq, d] = softmax(q k^T / sqrt(d)) v`, where query `i` sees the first `n_visible(i)` keys.
fn attend(
    out: &mut [f32],
    q: Matrix<'_>,
    k: Matrix<'_>,
    v: Matrix<'_>,
    (n_queries, n_keys, head_dim): (usize, usize, usize),
    n_visible: impl Fn(usize) -> usize,
) {
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut scores = vec![0.0; n_queries.min(QUERIES_PER_BLOCK) * n_keys];
    let mut scales = [0.0; QUERIES_PER_BLOCK];
    for (block, out) in out.chunks_mut(QUERIES_PER_BLOCK * head_dim).enumerate() {
        let first = block * QUERIES_PER_BLOCK;
        let q = q.rows(first, out.len() / head_dim);
        let scores = &mut scores[..out.len() / head_dim * n_keys];
        multiply(scores, n_keys, Destination::Overwrite, scale, q, k.transposed(), 1);
        vectorized(|| {
            for (query, (row, scale)) in scores.chunks_exact_mut(n_keys).zip(&mut scales).enumerate() {
                let (seen, hidden) = row.split_at_mut(n_visible(first + query).min(n_keys));
                *scale = softmax_unscaled(seen);
                hidden.fill(0.0);
            }
        });
        let scores = Matrix::new(scores, out.len() / head_dim, n_keys, n_keys);
        multiply(out, head_dim, Destination::Overwrite, 1.0, scores, v, 1);
        for (out, scale) in out.chunks_exact_mut(head_dim).zip(&scales) {
            out.iter_mut().for_each(|value| *value *= scale);
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
            let mut gathered = vec![0.0; 3 * task_len];
            for (part, gathered) in gathered.chunks_exact_mut(task_len).enumerate() {
                for (token, values) in gathered.chunks_exact_mut(head_dim).enumerate() {
                    let pixel = pixel(window_idx, token / window) + token % window;
                    let start = pixel * three_channels + part * channels + head * head_dim;
                    values.copy_from_slice(&qkv[start..start + head_dim]);
                }
            }
            let part = |i: usize| Matrix::new(&gathered[i * task_len..], n_tokens, head_dim, head_dim);
            attend(out, part(0), part(1), part(2), (n_tokens, n_tokens, head_dim), |_| n_tokens);
        });
        Ok(())
    })?;
    let mut out = vec![0.0; heads.len()];
    for (task, head_out) in heads.chunks_exact(task_len.max(1)).enumerate() {
        let (window_idx, head) = (task / n_heads, task % n_heads);
        for (token, values) in head_out.chunks_exact(head_dim).enumerate() {
            let start = (pixel(window_idx, token / window) + token % window) * channels + head * head_dim;
            out[start..start + head_dim].copy_from_slice(values);
        }
    }
    Tensor::from_vec(out, (batch, height, width, channels), qkv.device())
}

pub(super) fn channel_attention(qkv: &Tensor, n_groups: usize) -> Result<Tensor> {
    let (batch, n_tokens, three_channels) = qkv.dims3()?;
    let channels = three_channels / 3;
    if !three_channels.is_multiple_of(3 * n_groups) || n_tokens == 0 {
        bail!("channel_attention: {:?} does not fit {n_groups} groups", qkv.dims());
    }
    let group_dim = channels / n_groups;
    let scale = 1.0 / (n_tokens as f32).sqrt();
    let mut groups = vec![0.0; batch * n_tokens * channels];
    let work = 2 * groups.len() * group_dim;
    with_slices([qkv], |[qkv]| {
        for_each_chunk(&mut groups, (n_tokens * group_dim).max(1), work, |task, out| {
            let (image, group) = (task / n_groups, task % n_groups);
            let part = |i: usize| {
                let start = image * n_tokens * three_channels + i * channels + group * group_dim;
                Matrix::new(&qkv[start..], n_tokens, group_dim, three_channels)
            };
            let mut scores = vec![0.0; group_dim * group_dim];
            multiply(&mut scores, group_dim, Destination::Overwrite, scale, part(0).transposed(), part(1), 1);
            vectorized(|| scores.chunks_exact_mut(group_dim).for_each(softmax));
            let scores = Matrix::new(&scores, group_dim, group_dim, group_dim);
            multiply(out, group_dim, Destination::Overwrite, 1.0, part(2), scores.transposed(), 1);
        });
        Ok(())
    })?;
    let mut out = vec![0.0; groups.len()];
    for (task, group_out) in groups.chunks_exact(n_tokens * group_dim).enumerate() {
        let (image, group) = (task / n_groups, task % n_groups);
        for (token, values) in group_out.chunks_exact(group_dim).enumerate() {
            let start = (image * n_tokens + token) * channels + group * group_dim;
            out[start..start + group_dim].copy_from_slice(values);
        }
    }
    Tensor::from_vec(out, (batch, n_tokens, channels), qkv.device())
}
