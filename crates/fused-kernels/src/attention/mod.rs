//! Attention between tokens and inside windows. Each pair of an image or window and a head is a task, whose scores stay in cache.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod f32;
mod mask;

pub use mask::AttentionMask;

use crate::gemm::Precision;
use crate::matrix::MatrixView;
use crate::parallel::for_each_chunk;
use crate::scratch::with_scratch;

/// Up to this many queries, packing keys and values costs more than it saves.
const FEW_QUERIES: usize = 4;

/// The shape of an attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Independent sequences.
    pub batch: usize,
    /// Queries of each.
    pub n_queries: usize,
    /// Keys of each.
    pub n_keys: usize,
    /// Heads.
    pub n_heads: usize,
    /// Channels of each head.
    pub head_dim: usize,
}

/// `out = softmax(q k^T / sqrt(head_dim)) v` for each head; q and out [batch, queries, heads, `head_dim`], k and v [batch, keys, heads,
/// `head_dim`]. Products are in bfloat16 where `precision` is and the processor is faster with it, otherwise in f32.
///
/// # Panics
/// If lengths or the mask do not fit.
pub fn attention(
    out: &mut [f32],
    [q, k, v]: [&[f32]; 3],
    shape: AttentionShape,
    mask: &AttentionMask,
    precision: Precision,
) {
    let AttentionShape { batch, n_queries, n_keys, n_heads, head_dim } = shape;
    let channels = n_heads * head_dim;
    assert!(mask.fits(batch, n_queries, n_keys), "attention: {mask:?} does not fit {shape:?}");
    assert!(
        q.len() == out.len() && q.len() == batch * n_queries * channels && k.len() == v.len(),
        "attention: lengths do not fit {shape:?}"
    );
    let mut heads = vec![0.0; out.len()];
    let work = 2 * batch * n_queries * n_keys * channels;
    for_each_chunk(&mut heads, (n_queries * head_dim).max(1), work, |task, out| {
        let (image, head) = (task / n_heads, task % n_heads);
        let n_keys_here = mask.n_visible(image, n_queries - 1);
        let of_head = |values, n, n_all: usize| {
            let values: &[f32] = values;
            MatrixView::new(&values[image * n_all * channels + head * head_dim..], n, head_dim, channels)
        };
        attend(
            out,
            of_head(q, n_queries, n_queries),
            of_head(k, n_keys_here, n_keys),
            of_head(v, n_keys_here, n_keys),
            |query| mask.n_visible(image, query),
            precision,
        );
    });
    merge_heads(&heads, out, n_heads, head_dim, |row| (row / n_queries, row % n_queries), n_queries);
}

/// Transposes [tasks, heads, rows, d] to [.., heads, d]; `place` gives the task of an output row, and its row there.
fn merge_heads(
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

/// One head: `out [nq, d] = softmax(q k^T / sqrt(d)) v`, where query `i` attends to the first `n_visible(i)` keys.
fn attend(
    out: &mut [f32],
    q: MatrixView<'_>,
    k: MatrixView<'_>,
    v: MatrixView<'_>,
    n_visible: impl Fn(usize) -> usize,
    precision: Precision,
) {
    if out.is_empty() {
        return;
    }
    if q.n_rows() <= FEW_QUERIES {
        return f32::attend_few(out, q, k, v, n_visible);
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if precision == Precision::Bf16 && amx::is_profitable(k.n_rows()) {
        return amx::attend(out, q, k, v, n_visible);
    }
    f32::attend(out, q, k, v, n_visible);
}

/// Attention inside non-overlapping square windows; qkv [batch, height, width, 3, heads, d], height and width multiples of `window`;
/// out [batch, height, width, heads, d].
///
/// # Panics
/// If lengths do not fit.
pub fn window_attention(
    out: &mut [f32],
    qkv: &[f32],
    [height, width, channels]: [usize; 3],
    n_heads: usize,
    window: usize,
) {
    assert!(
        qkv.len() == 3 * out.len()
            && channels.is_multiple_of(n_heads)
            && height.is_multiple_of(window)
            && width.is_multiple_of(window),
        "window_attention: [{height}, {width}, {channels}] with {n_heads} heads and windows of {window}"
    );
    let three_channels = 3 * channels;
    let head_dim = channels / n_heads;
    let (n_down, n_across) = (height / window, width / window);
    let n_tokens = window * window;
    let task_len = n_tokens * head_dim;
    let mut heads = vec![0.0; out.len()];
    let work = 2 * heads.len() * n_tokens;
    // The first pixel of a window's row.
    let pixel = |window_idx: usize, row: usize| {
        let (image, in_image) = (window_idx / (n_down * n_across), window_idx % (n_down * n_across));
        let y = in_image / n_across * window + row;
        (image * height + y) * width + in_image % n_across * window
    };
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
            let part = |i: usize| MatrixView::new(&gathered[i * task_len..], n_tokens, head_dim, head_dim);
            attend(out, part(0), part(1), part(2), |_| n_tokens, Precision::F32);
        });
    });
    let place = |row: usize| {
        let (y, x) = (row / width, row % width);
        (y / window * n_across + x / window, y % window * window + x % window)
    };
    merge_heads(&heads, out, n_heads, head_dim, place, n_tokens);
}
