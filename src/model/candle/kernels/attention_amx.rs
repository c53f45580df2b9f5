//! Attention with both of its products in bfloat16 with AMX; laid out as in [`super::attention`].

use pulp::bytemuck::cast_slice_mut;

use super::amx::{Registers, STRIP_ROWS, WIDTH, round_row, row_len};
use super::attention::hide_unseen;
use super::bf16::{interleave_pairs, round};
use super::linear::with_scratch;
use super::math::{softmax_of_columns, vectorized};
use super::matmul::Matrix;

/// Fewer keys are not worth the rounding.
const MIN_KEYS: usize = 256;

/// Whether it is possible here and faster than f32.
pub(super) fn pays(n_keys: usize) -> bool {
    n_keys >= MIN_KEYS && super::amx::is_there()
}

/// One head: `out [nq, d] = softmax(q k^T / sqrt(d)) v`, where query `i` sees the first `n_visible(i)` keys.
pub(super) fn attend(
    out: &mut [f32],
    q: Matrix<'_>,
    k: Matrix<'_>,
    v: Matrix<'_>,
    n_visible: impl Fn(usize) -> usize,
) {
    let (n_keys, head_dim) = (k.rows(), k.columns());
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (key_rows, channel_rows) =
        (n_keys.next_multiple_of(STRIP_ROWS), head_dim.next_multiple_of(STRIP_ROWS));
    let (key_len, channel_len) = (row_len(head_dim), row_len(n_keys));
    let pair_lens = [
        key_rows * key_len,
        channel_rows * channel_len,
        head_dim.div_ceil(2) * WIDTH,
        n_keys.div_ceil(2) * WIDTH,
    ];
    let lens = [key_rows * WIDTH, channel_rows * WIDTH, n_keys];
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
        let registers = Registers::configure();
        for (panel, out) in out.chunks_mut(WIDTH * head_dim).enumerate() {
            let (first, n) = (panel * WIDTH, out.len() / head_dim);
            vectorized!(interleave_pairs(q, first, n, WIDTH, scale, queries));
            registers.multiply_strips(scores, keys, queries);
            let scores = &mut scores[..n_keys * WIDTH];
            hide_unseen(scores, WIDTH, first, n, &n_visible);
            let mut factors = [0.0; WIDTH];
            vectorized!({
                softmax_of_columns(scores, &mut factors);
                round_rows_in_pairs(scores, weights);
            });
            registers.multiply_strips(attended, values, weights);
            for (query, out) in out.chunks_exact_mut(head_dim).enumerate() {
                for (out, values) in out.iter_mut().zip(attended.chunks_exact(WIDTH)) {
                    *out = values[query] * factors[query];
                }
            }
        }
    });
}

/// Two rows in the halves of each number.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled for the instruction set of `vectorized`")]
fn round_rows_in_pairs(rows: &[f32], out: &mut [u32]) {
    let (pairs, last) = rows.as_chunks::<WIDTH>().0.as_chunks::<2>();
    let out = out.as_chunks_mut::<WIDTH>().0;
    for ([low, high], out) in pairs.iter().zip(&mut *out) {
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            *out = round(*low) | round(*high) << 16;
        }
    }
    if let ([row], Some(out)) = (last, out.last_mut()) {
        out.iter_mut().zip(row).for_each(|(out, value)| *out = round(*value));
    }
}
