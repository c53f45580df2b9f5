//! bfloat16: rounding to it, and packing pairs of it. Products of pairs are `avx512_bf16.rs` and `amx.rs`.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of its caller"
)]

use pulp::bytemuck::cast_slice_mut;

use crate::matrix::MatrixView;

/// Columns of a micro-panel of B: two registers of 512 bits, or two tiles of AMX.
pub(crate) const NR: usize = 32;

/// Lines of a micro-panel with inner dimension `k`: the two halves of a number are columns `2 line` and `2 line + 1` of a row.
pub(crate) fn lines(k: usize) -> usize {
    k.div_ceil(2)
}

/// The bits of the nearest bfloat16, of the even one of two that are as near. Infinities and NaN stay infinite or NaN.
#[inline(always)]
pub(crate) fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

/// Packs rows `first .. first + n`, times `scale`, as a micro-panel that is `width` wide; places from `n` on become zero.
#[inline(always)]
pub(crate) fn pack(a: MatrixView<'_>, first: usize, n: usize, width: usize, scale: f32, panel: &mut [u32]) {
    assert!(n <= width && panel.len() == width * lines(a.n_columns()));
    if n < width {
        panel.fill(0);
    }
    for i in 0..n {
        pack_row(a.row(first + i), scale, i, width, panel);
    }
}

/// Packs a row, times `scale`, into place `i` of each line of a micro-panel that is `width` wide.
#[inline(always)]
pub(crate) fn pack_row(row: &[f32], scale: f32, i: usize, width: usize, panel: &mut [u32]) {
    let (pairs, rest) = row.as_chunks::<2>();
    for (line, [low, high]) in panel.chunks_exact_mut(width).zip(pairs) {
        line[i] = round(low * scale) | round(high * scale) << 16;
    }
    if let [last] = rest {
        panel[pairs.len() * width + i] = round(last * scale);
    }
}

/// Rounds a row to contiguous pairs; what is left of `out` becomes zero.
#[inline(always)]
pub(crate) fn round_row(row: &[f32], out: &mut [u32]) {
    // The low half of a number is the first in memory.
    let (out, rest) = cast_slice_mut::<u32, u16>(out).split_at_mut(row.len());
    out.iter_mut().zip(row).for_each(|(out, value)| *out = round(*value) as u16);
    rest.fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        for i in 0..2_000_000u32 {
            let value = f32::from_bits(i.wrapping_mul(2_654_435_761));
            if value.is_finite() {
                let expected = half::bf16::from_f32(value);
                assert_eq!(round(value), u32::from(expected.to_bits()), "{value:e}");
            }
        }
    }
}
