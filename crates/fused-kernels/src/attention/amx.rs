//! Attention with both of its products in bfloat16 with AMX, in the layout of `f32.rs`.

use pulp::bytemuck::cast_slice_mut;

use super::mask::apply_mask;
use crate::cpu_features;
use crate::gemm::amx::{MR, NR, TileRegisters, row_len};
use crate::gemm::bf16::{self, round, round_row};
use crate::math::softmax_of_columns;
use crate::matrix::MatrixView;
use crate::scratch::with_scratch;
use crate::simd::vectorized;

/// With fewer keys, rounding costs more than AMX saves.
const MIN_KEYS: usize = 256;

/// Whether the processor has AMX and it is faster than f32.
pub(crate) fn is_profitable(n_keys: usize) -> bool {
    n_keys >= MIN_KEYS && cpu_features::has_amx_bf16()
}

/// One head: `out [nq, d] = softmax(q k^T / sqrt(d)) v`, where query `i` sees the first `n_visible(i)` keys.
pub(crate) fn attend(
    out: &mut [f32],
    q: MatrixView<'_>,
    k: MatrixView<'_>,
    v: MatrixView<'_>,
    n_visible: impl Fn(usize) -> usize,
) {
    let (n_keys, head_dim) = (k.n_rows(), k.n_columns());
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (key_rows, channel_rows) = (n_keys.next_multiple_of(MR), head_dim.next_multiple_of(MR));
    let (key_len, channel_len) = (row_len(head_dim), row_len(n_keys));
    let pair_lens = [
        key_rows * key_len,
        channel_rows * channel_len,
        bf16::lines(head_dim) * NR,
        bf16::lines(n_keys) * NR,
    ];
    let lens = [key_rows * NR, channel_rows * NR, n_keys];
    with_scratch(pair_lens.iter().chain(&lens).sum(), |mut scratch| {
        let mut next = |len| scratch.split_off_mut(..len).expect("the sum of all lengths");
        let [keys, values, queries, weights] = pair_lens.map(|len| cast_slice_mut::<f32, u32>(next(len)));
        let [scores, attended, channel] = lens.map(next);
        vectorized!({
            for (key, out) in keys.chunks_exact_mut(key_len).take(n_keys).enumerate() {
                round_row(k.row(key), out);
            }
            for (index, out) in values.chunks_exact_mut(channel_len).take(head_dim).enumerate() {
                for (key, value) in channel.iter_mut().enumerate() {
                    *value = v.row(key)[index];
                }
                round_row(channel, out);
            }
        });
        let registers = TileRegisters::configure();
        for (panel, out) in out.chunks_mut(NR * head_dim).enumerate() {
            let (first, n) = (panel * NR, out.len() / head_dim);
            vectorized!(bf16::pack(q, first, n, NR, scale, queries));
            registers.multiply_panels(scores, keys, queries);
            let scores = &mut scores[..n_keys * NR];
            apply_mask(scores, NR, first, n, &n_visible);
            let mut factors = [0.0; NR];
            vectorized!({
                softmax_of_columns(scores, &mut factors);
                round_rows_in_pairs(scores, weights);
            });
            registers.multiply_panels(attended, values, weights);
            for (query, out) in out.chunks_exact_mut(head_dim).enumerate() {
                for (out, values) in out.iter_mut().zip(attended.chunks_exact(NR)) {
                    *out = values[query] * factors[query];
                }
            }
        }
    });
}

/// Rounds rows to bfloat16, two rows in the halves of each number.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled for the instruction set of `vectorized`")]
fn round_rows_in_pairs(rows: &[f32], out: &mut [u32]) {
    let (pairs, last) = rows.as_chunks::<NR>().0.as_chunks::<2>();
    let out = out.as_chunks_mut::<NR>().0;
    for ([low, high], out) in pairs.iter().zip(&mut *out) {
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            *out = round(*low) | round(*high) << 16;
        }
    }
    if let ([row], Some(out)) = (last, out.last_mut()) {
        out.iter_mut().zip(row).for_each(|(out, value)| *out = round(*value));
    }
}
