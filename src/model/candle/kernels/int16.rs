//! Products whose operands are rounded to 16-bit integers: twice the multiply-adds per instruction of f32 on processors with AVX2 or
//! AVX-512, half the memory for weights on all.
//!
//! Each row of the weight and each row of what it is multiplied with has a scale of its own (symmetric quantization, the latter at
//! run time). Products of some columns are summed exactly in i32, these sums in f32.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use super::math::{ROUNDER, vectorized};
use super::matmul::{Matrix, Target};
use super::rounded::{
    self, RoundedPanels, RoundedProduct, Tile, largest_magnitude, prefetch_panel, steps_and_step,
};

/// Magnitudes of weights, and of what they are multiplied with, are at most these; the latter vary more.
pub(super) const LARGEST_WEIGHT: f32 = 2047.0;
pub(super) const LARGEST_INPUT: f32 = 8191.0;
/// So many pairs of products cannot overflow an i32: 128 * 2047 * 8191 < 2^31.
const PAIRS_PER_SUM: usize = 64;

/// Whether this machine has `vpdpwssd` over registers of 512 bits.
pub(super) fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::cpu_features::has_avx512_vnni();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Columns of a panel of pairs.
pub(super) fn panel_columns() -> usize {
    #[cfg(target_arch = "x86_64")]
    if has_vnni() {
        return Vnni::WIDTH;
    }
    Plain::WIDTH
}

/// Rows `first .. first + n` of a weight in pairs beside each other, and the scale of each.
pub(super) fn interleave_weights(
    weight: Matrix<'_>,
    first: usize,
    n: usize,
    pairs: &mut [u32],
    scales: &mut [f32],
) {
    let width = scales.len();
    vectorized!({
        pairs.fill(0);
        for (i, scale) in scales.iter_mut().take(n).enumerate() {
            *scale = interleave_row(weight.row(first + i), LARGEST_WEIGHT, i, width, pairs);
        }
    });
}

/// Rounds a row to integers up to `largest` into place `i` of `width`: columns `2 p` and `2 p + 1` become the low and the high
/// half of `out[p * width + i]`. Returns what a step is worth, NaN for a row with a value that is not finite.
#[inline(always)]
pub(super) fn interleave_row(row: &[f32], largest: f32, i: usize, width: usize, out: &mut [u32]) -> f32 {
    let (steps, step) = steps_and_step(largest_magnitude(row), largest);
    let round = |value: f32| (value * steps + ROUNDER).to_bits() & 0xffff;
    let (pairs, rest) = row.as_chunks::<2>();
    for (out, [low, high]) in out.chunks_exact_mut(width).zip(pairs) {
        out[i] = round(*low) | round(*high) << 16;
    }
    if let [last] = rest {
        out[pairs.len() * width + i] = round(*last);
    }
    step
}

/// [`super::matmul::multiply_panels`] with panels of pairs; `block` rows at a time.
pub(super) fn multiply(target: Target<'_>, scale: f32, a: Matrix<'_>, b: RoundedPanels<'_>, block: usize) {
    #[cfg(target_arch = "x86_64")]
    if has_vnni() {
        return rounded::multiply::<Vnni>(target, scale, a, b, block);
    }
    rounded::multiply::<Plain>(target, scale, a, b, block);
}

/// For all processors; with AVX2 where it is, and `vpdpwssd` over its registers where that is (AVX-VNNI).
pub(super) struct Plain;

impl RoundedProduct for Plain {
    /// Two registers of AVX2.
    const WIDTH: usize = 16;
    /// With two registers for each of these rows, two for a panel and one for a strip, 15 of 16 are in use.
    const STRIP_ROWS: usize = 6;
    /// Those of a panel stay in the first-level cache while all strips pass.
    const LINES_PER_BLOCK: usize = 256;

    #[inline(always)]
    fn interleave_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) -> f32 {
        interleave_row(row, LARGEST_INPUT, i, width, out)
    }

    fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
        #[cfg(target_arch = "x86_64")]
        if super::cpu_features::has_avx2() {
            // SAFETY: the instructions that they are compiled for are there.
            #[expect(unsafe_code, reason = "functions for some processors only, after asking this one")]
            return unsafe {
                if super::cpu_features::has_avx_vnni() {
                    avx2::multiply_tile_vnni::<R>(tile, strip, panel);
                } else {
                    avx2::multiply_tile::<R>(tile, strip, panel);
                }
            };
        }
        tile.store(portable_products::<R, { Self::WIDTH }>(strip, panel));
    }
}

/// For processors with `vpdpwssd` over registers of 512 bits.
#[cfg(target_arch = "x86_64")]
pub(super) struct Vnni;

#[cfg(target_arch = "x86_64")]
impl RoundedProduct for Vnni {
    /// Two registers.
    const WIDTH: usize = 32;
    /// With two registers for each of these rows, two for a panel and one for a strip, 27 of 32 are in use.
    const STRIP_ROWS: usize = 12;
    /// All: panels come from the second-level cache in time; to add sums up where they go would take longer.
    const LINES_PER_BLOCK: usize = usize::MAX;

    #[inline(always)]
    fn interleave_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) -> f32 {
        interleave_row(row, LARGEST_INPUT, i, width, out)
    }

    fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
        assert!(has_vnni());
        // SAFETY: the instructions that it is compiled for are there.
        #[expect(unsafe_code, reason = "a function for some processors only, after asking this one")]
        unsafe {
            vnni::multiply_tile::<R>(tile, strip, panel);
        }
    }
}

/// In steps of both.
fn portable_products<const R: usize, const W: usize>(strip: &[u32], panel: &[u32]) -> [[f32; W]; R] {
    let halves = |pair: u32| (i32::from(pair as i16), i32::from((pair >> 16) as i16));
    let mut totals = [[0.0; W]; R];
    for (strip, panel) in strip.chunks(PAIRS_PER_SUM * R).zip(panel.chunks(PAIRS_PER_SUM * W)) {
        let mut sums = [[0; W]; R];
        for (strip, panel) in strip.as_chunks::<R>().0.iter().zip(panel.as_chunks::<W>().0) {
            prefetch_panel::<R>(panel);
            for (sums, pair) in sums.iter_mut().zip(strip) {
                let (low, high) = halves(*pair);
                for (sum, pair) in sums.iter_mut().zip(panel) {
                    let (panel_low, panel_high) = halves(*pair);
                    *sum += low * panel_low + high * panel_high;
                }
            }
        }
        for (totals, sums) in totals.iter_mut().zip(sums) {
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total += sum as f32;
            }
        }
    }
    totals
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_dpwssd_avx_epi32,
        _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_setzero_si256,
    };

    use pulp::bytemuck::cast;

    use super::super::rounded::{RoundedProduct, Tile};
    use super::{PAIRS_PER_SUM, Plain, prefetch_panel};

    const WIDTH: usize = Plain::WIDTH;

    /// `$add` adds the products of pairs to sums.
    macro_rules! multiply_tile {
        ($name:ident, $features:literal, |$sum:ident, $a:ident, $b:ident| $add:expr) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
                let mut totals = [[_mm256_setzero_ps(); 2]; R];
                for (strip, panel) in strip.chunks(PAIRS_PER_SUM * R).zip(panel.chunks(PAIRS_PER_SUM * WIDTH))
                {
                    let mut sums = [[_mm256_setzero_si256(); 2]; R];
                    for (strip, panel) in strip.as_chunks::<R>().0.iter().zip(panel.as_chunks::<WIDTH>().0) {
                        prefetch_panel::<R>(panel);
                        let panel: [__m256i; 2] = cast(*panel);
                        for (sums, pair) in sums.iter_mut().zip(strip) {
                            let $a = _mm256_set1_epi32(pair.cast_signed());
                            for ($sum, $b) in sums.iter_mut().zip(panel) {
                                *$sum = $add;
                            }
                        }
                    }
                    for (totals, sums) in totals.iter_mut().zip(sums) {
                        totals[0] = _mm256_add_ps(totals[0], _mm256_cvtepi32_ps(sums[0]));
                        totals[1] = _mm256_add_ps(totals[1], _mm256_cvtepi32_ps(sums[1]));
                    }
                }
                tile.store(totals.iter().map(|row| cast::<_, [f32; WIDTH]>(*row)));
            }
        };
    }

    multiply_tile!(multiply_tile, "avx2", |sum, a, b| _mm256_add_epi32(*sum, _mm256_madd_epi16(a, b)));
    multiply_tile!(multiply_tile_vnni, "avx2,avxvnni", |sum, a, b| _mm256_dpwssd_avx_epi32(*sum, a, b));
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::{
        __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_setzero_si512,
    };

    use pulp::bytemuck::cast;

    use super::super::rounded::{RoundedProduct, Tile};
    use super::{PAIRS_PER_SUM, Vnni, prefetch_panel};

    const WIDTH: usize = Vnni::WIDTH;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
        let mut totals = [[_mm512_setzero_ps(); 2]; R];
        for (strip, panel) in strip.chunks(PAIRS_PER_SUM * R).zip(panel.chunks(PAIRS_PER_SUM * WIDTH)) {
            let mut sums = [[_mm512_setzero_si512(); 2]; R];
            for (strip, panel) in strip.as_chunks::<R>().0.iter().zip(panel.as_chunks::<WIDTH>().0) {
                prefetch_panel::<R>(panel);
                let panel: [__m512i; 2] = cast(*panel);
                for (sums, pair) in sums.iter_mut().zip(strip) {
                    let pair = _mm512_set1_epi32(pair.cast_signed());
                    sums[0] = _mm512_dpwssd_epi32(sums[0], pair, panel[0]);
                    sums[1] = _mm512_dpwssd_epi32(sums[1], pair, panel[1]);
                }
            }
            for (totals, sums) in totals.iter_mut().zip(sums) {
                totals[0] = _mm512_add_ps(totals[0], _mm512_cvtepi32_ps(sums[0]));
                totals[1] = _mm512_add_ps(totals[1], _mm512_cvtepi32_ps(sums[1]));
            }
        }
        tile.store(totals.iter().map(|row| cast::<_, [f32; WIDTH]>(*row)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::candle::kernels::matmul::Destination;

    #[test]
    fn instructions_give_what_plain_code_gives() {
        check_instructions::<Plain, { Plain::STRIP_ROWS }, { Plain::WIDTH }>();
        #[cfg(target_arch = "x86_64")]
        if has_vnni() {
            check_instructions::<Vnni, { Vnni::STRIP_ROWS }, { Vnni::WIDTH }>();
        }
    }

    fn check_instructions<P: RoundedProduct, const R: usize, const W: usize>() {
        let of_integers = |len: usize, largest: i32, seed: i32| -> Vec<u32> {
            let value = |i: i32| (i.wrapping_mul(2_654_435) ^ seed) % largest;
            (0..len as i32)
                .map(|i| (value(2 * i) as u32 & 0xffff) | (value(2 * i + 1) as u32) << 16)
                .collect()
        };
        let pairs = 200;
        let strip = of_integers(R * pairs, 8191, 3);
        let panel = of_integers(W * pairs, 2047, 8);
        let scales: [f32; W] = std::array::from_fn(|i| 1.0 + i as f32 / 7.0);
        let steps: [f32; R] = std::array::from_fn(|i| 0.5 + i as f32 / 3.0);
        for destination in [Destination::Overwrite, Destination::Accumulate] {
            for n_columns in [W, W - 3] {
                let (mut out, mut expected) = (vec![3.0; R * W], vec![3.0; R * W]);
                let scales = &scales[..n_columns];
                let tile = |out| Tile { out, row_stride: W, destination, steps: &steps, scales };
                P::multiply_tile::<R>(&mut tile(&mut out), &strip, &panel);
                tile(&mut expected).store(portable_products::<R, W>(&strip, &panel));
                assert_eq!(out, expected);
            }
        }
    }
}
