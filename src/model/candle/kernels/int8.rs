//! Products whose operands are rounded to 8-bit integers in blocks along a row: more than twice the multiply-adds per second of f32 on
//! processors with AVX2, still more with instructions for them, a quarter of the memory for weights on all.
//!
//! 128 values of a row of the weight, and of a row of what it is multiplied with, have a scale of their own (symmetric quantization, the
//! latter at run time). Products inside a block are summed exactly in i32, these sums in f32. The instructions multiply bytes without a
//! sign with bytes with one: a weight is kept 128 larger than it is, and its products start with what that adds, taken away.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `vectorized`"
)]

use super::int16::has_vnni;
use super::math::{ROUNDER, vectorized};
use super::matmul::{Matrix, Target};
use super::rounded::{
    self, RoundedPanels, RoundedProduct, Tile, largest_magnitude, prefetch_panel, steps_and_step,
};

/// Values that share a scale.
const BLOCK: usize = 128;
/// Lines of four values.
const QUADS: usize = BLOCK / 4;
/// Of a block of a strip: what its sums start with, its scales, its values.
const STRIP_LINES: usize = QUADS + 2;
/// Of a block of a panel: its scales, its values.
const PANEL_LINES: usize = QUADS + 1;
/// Magnitudes are at most this.
const LARGEST: f32 = 127.0;
/// Added to weights.
const OFFSET: u32 = 128;

/// Columns of a panel.
pub(super) fn panel_columns() -> usize {
    #[cfg(target_arch = "x86_64")]
    if has_vnni() {
        return Vnni::WIDTH;
    }
    Plain::WIDTH
}

/// Lines of a panel of so many rows.
pub(super) fn panel_lines(rows: usize) -> usize {
    rows.div_ceil(BLOCK) * PANEL_LINES
}

/// [`super::matmul::multiply_panels`] with panels of quads; `block` rows at a time.
pub(super) fn multiply(target: Target<'_>, scale: f32, a: Matrix<'_>, b: RoundedPanels<'_>, block: usize) {
    #[cfg(target_arch = "x86_64")]
    if has_vnni() {
        return rounded::multiply::<Vnni>(target, scale, a, b, block);
    }
    rounded::multiply::<Plain>(target, scale, a, b, block);
}

/// Rows `first .. first + n` of a weight beside each other, a panel that is `width` wide.
pub(super) fn interleave_weights(weight: Matrix<'_>, first: usize, n: usize, width: usize, out: &mut [u32]) {
    vectorized!({
        out.fill(0);
        for i in 0..n {
            let blocks = out.chunks_exact_mut(PANEL_LINES * width);
            for (values, out) in weight.row(first + i).chunks(BLOCK).zip(blocks) {
                let values = fill_up(values);
                let (steps, step) = steps_and_step(largest_magnitude(&values), LARGEST);
                let (scales, quads) = out.split_at_mut(width);
                scales[i] = step.to_bits();
                round(&values, steps, OFFSET, i, width, quads);
            }
        }
    });
}

/// A row of what weights are multiplied with, into place `i` of the strip's `width`.
#[inline(always)]
fn interleave_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) {
    for (values, out) in row.chunks(BLOCK).zip(out.chunks_exact_mut(STRIP_LINES * width)) {
        let values = fill_up(values);
        // Steps so long that even two neighbors of one sign sum to 128 of them at most: where there is no VNNI, their products with 255,
        // the largest weight, are added in 16 bits.
        let mut sums = [0.0; BLOCK / 2];
        for (sum, [low, high]) in sums.iter_mut().zip(values.as_chunks::<2>().0) {
            *sum = low + high;
        }
        let (steps, step) = steps_and_step(largest_magnitude(&values).max(largest_magnitude(&sums)), LARGEST);
        let (starts, steps_and_quads) = out.split_at_mut(width);
        let (all_steps, quads) = steps_and_quads.split_at_mut(width);
        all_steps[i] = step.to_bits();
        starts[i] = OFFSET.wrapping_mul(round(&values, steps, 0, i, width, quads)).wrapping_neg();
    }
}

#[inline(always)]
fn fill_up(values: &[f32]) -> [f32; BLOCK] {
    match values.first_chunk() {
        Some(values) => *values,
        None => std::array::from_fn(|i| values.get(i).copied().unwrap_or_default()),
    }
}

/// To integers, plus `offset`, four in a number, into place `i` of each line. Returns the sum of the integers, in two's complement.
#[inline(always)]
fn round(values: &[f32; BLOCK], steps: f32, offset: u32, i: usize, width: usize, lines: &mut [u32]) -> u32 {
    let (mut bytes, mut sum) = ([0u8; BLOCK], 0u32);
    for (byte, value) in bytes.iter_mut().zip(values) {
        let integer = (value * steps + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits());
        sum = sum.wrapping_add(integer);
        *byte = integer.wrapping_add(offset) as u8;
    }
    for (line, quad) in lines.chunks_exact_mut(width).zip(bytes.as_chunks::<4>().0) {
        line[i] = u32::from_le_bytes(*quad);
    }
    sum
}

/// For all processors; with AVX2 where it is, and `vpdpbusd` over its registers where that is (AVX-VNNI).
struct Plain;

impl RoundedProduct for Plain {
    /// Two registers of AVX2.
    const WIDTH: usize = 16;
    /// Two registers for each of these rows are all but four.
    const STRIP_ROWS: usize = 6;
    /// All.
    const LINES_PER_BLOCK: usize = usize::MAX;

    fn strip_lines(columns: usize) -> usize {
        columns.div_ceil(BLOCK) * STRIP_LINES
    }

    fn panel_lines(rows: usize) -> usize {
        panel_lines(rows)
    }

    #[inline(always)]
    fn interleave_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) -> f32 {
        interleave_row(row, i, width, out);
        1.0
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

/// For processors with `vpdpbusd` over registers of 512 bits.
#[cfg(target_arch = "x86_64")]
struct Vnni;

#[cfg(target_arch = "x86_64")]
impl RoundedProduct for Vnni {
    /// Two registers.
    const WIDTH: usize = 32;
    const STRIP_ROWS: usize = 12;
    /// All.
    const LINES_PER_BLOCK: usize = usize::MAX;

    fn strip_lines(columns: usize) -> usize {
        Plain::strip_lines(columns)
    }

    fn panel_lines(rows: usize) -> usize {
        panel_lines(rows)
    }

    #[inline(always)]
    fn interleave_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) -> f32 {
        interleave_row(row, i, width, out);
        1.0
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

fn portable_products<const R: usize, const W: usize>(strip: &[u32], panel: &[u32]) -> [[f32; W]; R] {
    let mut totals = [[0.0; W]; R];
    let (strip, panel) = (blocks::<R, STRIP_LINES>(strip), blocks::<W, PANEL_LINES>(panel));
    for ([starts, steps, strip @ ..], [scales, panel @ ..]) in strip.iter().zip(panel) {
        let mut sums = starts.map(|start| [start.cast_signed(); W]);
        for (strip, panel) in strip.iter().zip(panel) {
            prefetch_panel::<R>(panel);
            for (sums, quad) in sums.iter_mut().zip(strip) {
                let quad = quad.to_le_bytes().map(|value| i32::from(value.cast_signed()));
                for (sum, weights) in sums.iter_mut().zip(panel) {
                    let products = quad.iter().zip(weights.to_le_bytes());
                    *sum += products.map(|(value, weight)| value * i32::from(weight)).sum::<i32>();
                }
            }
        }
        for ((totals, sums), step) in totals.iter_mut().zip(sums).zip(steps) {
            for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scales) {
                *total += sum as f32 * (f32::from_bits(*scale) * f32::from_bits(*step));
            }
        }
    }
    totals
}

/// Lines of `N` numbers, `LINES` of them a block.
fn blocks<const N: usize, const LINES: usize>(numbers: &[u32]) -> &[[[u32; N]; LINES]] {
    numbers.as_chunks::<N>().0.as_chunks::<LINES>().0
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256i, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32,
        _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    };

    use pulp::bytemuck::cast;

    use super::super::rounded::{RoundedProduct, Tile};
    use super::{PANEL_LINES, Plain, STRIP_LINES, blocks, prefetch_panel};

    const WIDTH: usize = Plain::WIDTH;

    /// `$add` adds the products of quads to sums.
    macro_rules! multiply_tile {
        ($name:ident, $features:literal, |$sum:ident, $a:ident, $b:ident| $add:expr) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
                let mut totals = [[_mm256_setzero_ps(); 2]; R];
                let (strip, panel) = (blocks::<R, STRIP_LINES>(strip), blocks::<WIDTH, PANEL_LINES>(panel));
                for ([starts, steps, strip @ ..], [scales, panel @ ..]) in strip.iter().zip(panel) {
                    let mut sums = [[_mm256_setzero_si256(); 2]; R];
                    for (sums, start) in sums.iter_mut().zip(starts) {
                        *sums = [_mm256_set1_epi32(start.cast_signed()); 2];
                    }
                    for (strip, panel) in strip.iter().zip(panel) {
                        prefetch_panel::<R>(panel);
                        let panel: [__m256i; 2] = cast(*panel);
                        for (sums, quad) in sums.iter_mut().zip(strip) {
                            let $b = _mm256_set1_epi32(quad.cast_signed());
                            for ($sum, $a) in sums.iter_mut().zip(panel) {
                                *$sum = $add;
                            }
                        }
                    }
                    let scales: [__m256; 2] = cast(*scales);
                    for ((totals, sums), step) in totals.iter_mut().zip(sums).zip(steps) {
                        let step = _mm256_set1_ps(f32::from_bits(*step));
                        for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scales) {
                            *total =
                                _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, step), *total);
                        }
                    }
                }
                tile.store(totals.iter().map(|row| cast::<_, [f32; WIDTH]>(*row)));
            }
        };
    }

    multiply_tile!(multiply_tile, "avx2,fma", |sum, a, b| {
        let sums_of_pairs = _mm256_maddubs_epi16(a, b);
        _mm256_add_epi32(*sum, _mm256_madd_epi16(sums_of_pairs, _mm256_set1_epi16(1)))
    });
    multiply_tile!(multiply_tile_vnni, "avx2,fma,avxvnni", |sum, a, b| _mm256_dpbusd_avx_epi32(*sum, a, b));
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    };

    use pulp::bytemuck::cast;

    use super::super::rounded::{RoundedProduct, Tile};
    use super::{PANEL_LINES, STRIP_LINES, Vnni, blocks, prefetch_panel};

    const WIDTH: usize = Vnni::WIDTH;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
        let mut totals = [[_mm512_setzero_ps(); 2]; R];
        let (strip, panel) = (blocks::<R, STRIP_LINES>(strip), blocks::<WIDTH, PANEL_LINES>(panel));
        for ([starts, steps, strip @ ..], [scales, panel @ ..]) in strip.iter().zip(panel) {
            let mut sums = [[_mm512_setzero_si512(); 2]; R];
            for (sums, start) in sums.iter_mut().zip(starts) {
                *sums = [_mm512_set1_epi32(start.cast_signed()); 2];
            }
            for (strip, panel) in strip.iter().zip(panel) {
                prefetch_panel::<R>(panel);
                let panel: [__m512i; 2] = cast(*panel);
                for (sums, quad) in sums.iter_mut().zip(strip) {
                    let quad = _mm512_set1_epi32(quad.cast_signed());
                    sums[0] = _mm512_dpbusd_epi32(sums[0], panel[0], quad);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], panel[1], quad);
                }
            }
            let scales: [__m512; 2] = cast(*scales);
            for ((totals, sums), step) in totals.iter_mut().zip(sums).zip(steps) {
                let step = _mm512_set1_ps(f32::from_bits(*step));
                for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scales) {
                    *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, step), *total);
                }
            }
        }
        tile.store(totals.iter().map(|row| cast::<_, [f32; WIDTH]>(*row)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::candle::kernels::matmul::Destination;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 30.0 - 1.7).collect()
    }

    #[test]
    fn instructions_give_what_plain_code_gives() {
        check_instructions::<Plain, { Plain::STRIP_ROWS }, { Plain::WIDTH }>();
        #[cfg(target_arch = "x86_64")]
        if has_vnni() {
            check_instructions::<Vnni, { Vnni::STRIP_ROWS }, { Vnni::WIDTH }>();
        }
    }

    fn check_instructions<P: RoundedProduct, const R: usize, const W: usize>() {
        let k = 700;
        let (a, w) = (values(R * k, 3), values(W * k, 8));
        let (mut strip, mut panel) = (vec![0; R * P::strip_lines(k)], vec![0; W * panel_lines(k)]);
        for (i, row) in a.chunks_exact(k).enumerate() {
            P::interleave_row(row, i, R, &mut strip);
        }
        interleave_weights(Matrix::new(&w, W, k, k), 0, W, W, &mut panel);
        for destination in [Destination::Overwrite, Destination::Accumulate] {
            for n_columns in [W, W - 3] {
                let (mut out, mut expected) = (vec![3.0; R * W], vec![3.0; R * W]);
                let (steps, scales) = (&[0.5; R], &rounded::UNSCALED[..n_columns]);
                let tile = |out| Tile { out, row_stride: W, destination, steps, scales };
                P::multiply_tile::<R>(&mut tile(&mut out), &strip, &panel);
                tile(&mut expected).store(portable_products::<R, W>(&strip, &panel));
                // Where plain code rounds twice, instructions round once.
                assert!(out.iter().zip(&expected).all(|(out, expected)| (out - expected).abs() < 1e-3));
            }
        }
    }
}
