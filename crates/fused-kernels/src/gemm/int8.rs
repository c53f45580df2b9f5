//! Products of 8-bit integers with a scale for each block of 128 values along a row: a quarter of the memory of f32.
//!
//! Quantization is symmetric; that of A happens at run time. Products inside a block are summed exactly in i32, the blocks' sums in f32.
//! The instructions multiply unsigned bytes with signed ones, so a weight is kept with 128 added to it, and the sums of a block begin
//! with the negative of what that adds.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `vectorized`"
)]

use super::output::Output;
use super::quantized::{self, MicroKernel, Tile, prefetch_ahead};
use crate::cpu_features;
use crate::math::ROUND_TO_INT;
use crate::matrix::MatrixView;
use crate::simd::vectorized;

/// Values that share a scale.
const BLOCK: usize = 128;
/// Lines of a block, four values in each number.
const QUADS: usize = BLOCK / 4;
/// Lines of a block of packed A: what its sums begin with, its scales, its values.
const A_LINES: usize = QUADS + 2;
/// Lines of a block of packed B: its scales, its values.
const B_LINES: usize = QUADS + 1;
/// The largest magnitude of a quantized value.
const LARGEST: f32 = 127.0;
/// What is added to weights, which makes them unsigned.
const OFFSET: u32 = 128;

/// Columns of a micro-panel of B on this processor.
pub(crate) fn nr() -> usize {
    #[cfg(target_arch = "x86_64")]
    if cpu_features::has_avx512_vnni() {
        return Avx512Vnni::NR;
    }
    Narrow::NR
}

/// Lines of a micro-panel of A with inner dimension `k`.
fn a_lines(k: usize) -> usize {
    k.div_ceil(BLOCK) * A_LINES
}

/// Lines of a micro-panel of B with inner dimension `k`.
pub(crate) fn b_lines(k: usize) -> usize {
    k.div_ceil(BLOCK) * B_LINES
}

/// `out = a b` or `out += a b` with the micro-panels of B; quantizes `rows_per_block` rows of A at a time.
pub(crate) fn gemm(out: Output<'_>, a: MatrixView<'_>, b: &[u32], n: usize, rows_per_block: usize) {
    #[cfg(target_arch = "x86_64")]
    if cpu_features::has_avx512_vnni() {
        return quantized::gemm::<Avx512Vnni>(out, a, b, n, rows_per_block);
    }
    quantized::gemm::<Narrow>(out, a, b, n, rows_per_block);
}

/// Quantizes rows `first .. first + n` of a weight [out, in] to a micro-panel of B that is `width` wide.
pub(crate) fn pack_b(weight: MatrixView<'_>, first: usize, n: usize, width: usize, out: &mut [u32]) {
    vectorized!({
        out.fill(0);
        for i in 0..n {
            let blocks = out.chunks_exact_mut(B_LINES * width);
            for (values, out) in weight.row(first + i).chunks(BLOCK).zip(blocks) {
                let values = pad(values);
                let (inverse_scale, scale) = inverse_scale_and_scale(largest_magnitude(&values));
                let (scales, quads) = out.split_at_mut(width);
                scales[i] = scale.to_bits();
                quantize(&values, inverse_scale, OFFSET, i, width, quads);
            }
        }
    });
}

/// Quantizes a row of A into place `i` of each line of a micro-panel that is `width` wide.
#[inline(always)]
fn pack_a_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) {
    for (values, out) in row.chunks(BLOCK).zip(out.chunks_exact_mut(A_LINES * width)) {
        let values = pad(values);
        // The scale leaves room for the sum of two neighbors: without VNNI, their products with weights of up to 255 are added in 16
        // bits, which must not overflow.
        let mut sums = [0.0; BLOCK / 2];
        for (sum, [low, high]) in sums.iter_mut().zip(values.as_chunks::<2>().0) {
            *sum = low + high;
        }
        let largest = largest_magnitude(&values).max(largest_magnitude(&sums));
        let (inverse_scale, scale) = inverse_scale_and_scale(largest);
        let (starts, scales_and_quads) = out.split_at_mut(width);
        let (scales, quads) = scales_and_quads.split_at_mut(width);
        scales[i] = scale.to_bits();
        let sum = quantize(&values, inverse_scale, 0, i, width, quads);
        starts[i] = OFFSET.wrapping_mul(sum).wrapping_neg();
    }
}

/// A block, with zeros after the end of a row.
#[inline(always)]
fn pad(values: &[f32]) -> [f32; BLOCK] {
    match values.first_chunk() {
        Some(values) => *values,
        None => std::array::from_fn(|i| values.get(i).copied().unwrap_or_default()),
    }
}

/// The bits of the largest magnitude; compared as integers, so that NaN is larger than every number.
#[inline(always)]
fn largest_magnitude(values: &[f32]) -> u32 {
    values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff))
}

/// What values are multiplied with to quantize and to dequantize them; the latter is NaN if one of them is not finite.
#[inline(always)]
fn inverse_scale_and_scale(largest_magnitude: u32) -> (f32, f32) {
    let scale = f32::from_bits(largest_magnitude) / LARGEST;
    (if scale > 0.0 { 1.0 / scale } else { 0.0 }, if scale.is_finite() { scale } else { f32::NAN })
}

/// Quantizes a block, adds `offset`, and writes four values to number `i` of each line. Returns the sum of the integers without the
/// offset, in two's complement.
#[inline(always)]
fn quantize(
    values: &[f32; BLOCK],
    inverse_scale: f32,
    offset: u32,
    i: usize,
    width: usize,
    lines: &mut [u32],
) -> u32 {
    let (mut bytes, mut sum) = ([0u8; BLOCK], 0u32);
    for (byte, value) in bytes.iter_mut().zip(values) {
        let integer = (value * inverse_scale + ROUND_TO_INT).to_bits().wrapping_sub(ROUND_TO_INT.to_bits());
        sum = sum.wrapping_add(integer);
        *byte = integer.wrapping_add(offset) as u8;
    }
    for (line, quad) in lines.chunks_exact_mut(width).zip(bytes.as_chunks::<4>().0) {
        line[i] = u32::from_le_bytes(*quad);
    }
    sum
}

/// For processors with 256-bit registers (AVX2, AVX-VNNI), and in portable code for all others.
struct Narrow;

impl MicroKernel for Narrow {
    /// Two registers for each row are all but four of 16.
    const MR: usize = 6;
    /// Two registers.
    const NR: usize = 16;

    fn a_lines(k: usize) -> usize {
        a_lines(k)
    }

    fn b_lines(k: usize) -> usize {
        b_lines(k)
    }

    #[inline(always)]
    fn pack_a_row(row: &[f32], i: usize, width: usize, panel: &mut [u32]) {
        pack_a_row(row, i, width, panel);
    }

    fn multiply<const R: usize>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]) {
        #[cfg(target_arch = "x86_64")]
        if cpu_features::has_avx2() {
            // SAFETY: the processor has the instructions.
            #[expect(unsafe_code, reason = "functions for processors with these instructions only")]
            return unsafe {
                if cpu_features::has_avx_vnni() {
                    avx2::multiply_vnni::<R>(tile, a, b);
                } else {
                    avx2::multiply::<R>(tile, a, b);
                }
            };
        }
        tile.store(multiply_portable::<R, { Self::NR }>(a, b));
    }
}

/// For processors with `vpdpbusd` on 512-bit registers.
#[cfg(target_arch = "x86_64")]
struct Avx512Vnni;

#[cfg(target_arch = "x86_64")]
impl MicroKernel for Avx512Vnni {
    const MR: usize = 12;
    /// Two registers.
    const NR: usize = 32;

    fn a_lines(k: usize) -> usize {
        a_lines(k)
    }

    fn b_lines(k: usize) -> usize {
        b_lines(k)
    }

    #[inline(always)]
    fn pack_a_row(row: &[f32], i: usize, width: usize, panel: &mut [u32]) {
        pack_a_row(row, i, width, panel);
    }

    fn multiply<const R: usize>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]) {
        assert!(cpu_features::has_avx512_vnni());
        // SAFETY: the processor has the instructions.
        #[expect(unsafe_code, reason = "a function for processors with these instructions only")]
        unsafe {
            avx512_vnni::multiply::<R>(tile, a, b);
        }
    }
}

/// The product of two micro-panels in code for every processor.
fn multiply_portable<const R: usize, const W: usize>(a: &[u32], b: &[u32]) -> [[f32; W]; R] {
    let mut totals = [[0.0; W]; R];
    let (a, b) = (blocks::<R, A_LINES>(a), blocks::<W, B_LINES>(b));
    for ([starts, a_scales, a @ ..], [b_scales, b @ ..]) in a.iter().zip(b) {
        let mut sums = starts.map(|start| [start.cast_signed(); W]);
        for (a, b) in a.iter().zip(b) {
            prefetch_ahead::<R>(b);
            for (sums, quad) in sums.iter_mut().zip(a) {
                let quad = quad.to_le_bytes().map(|value| i32::from(value.cast_signed()));
                for (sum, weights) in sums.iter_mut().zip(b) {
                    let products = quad.iter().zip(weights.to_le_bytes());
                    *sum += products.map(|(value, weight)| value * i32::from(weight)).sum::<i32>();
                }
            }
        }
        for ((totals, sums), a_scale) in totals.iter_mut().zip(sums).zip(a_scales) {
            for ((total, sum), b_scale) in totals.iter_mut().zip(sums).zip(b_scales) {
                *total += sum as f32 * (f32::from_bits(*b_scale) * f32::from_bits(*a_scale));
            }
        }
    }
    totals
}

/// A micro-panel of lines of `N` numbers as blocks of `LINES` lines.
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

    use super::{A_LINES, B_LINES, MicroKernel as _, Narrow, Tile, blocks, prefetch_ahead};

    const NR: usize = Narrow::NR;

    /// A micro-kernel in which `$add` adds the products of two registers of bytes to sums.
    macro_rules! micro_kernel {
        ($name:ident, $features:literal, |$sum:ident, $a:ident, $b:ident| $add:expr) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name<const R: usize>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]) {
                let mut totals = [[_mm256_setzero_ps(); 2]; R];
                let (a_blocks, b_blocks) = (blocks::<R, A_LINES>(a), blocks::<NR, B_LINES>(b));
                for ([starts, a_scales, a_lines @ ..], [b_scales, b_lines @ ..]) in
                    a_blocks.iter().zip(b_blocks)
                {
                    let mut sums = [[_mm256_setzero_si256(); 2]; R];
                    for (sums, start) in sums.iter_mut().zip(starts) {
                        *sums = [_mm256_set1_epi32(start.cast_signed()); 2];
                    }
                    for (a_line, b_line) in a_lines.iter().zip(b_lines) {
                        prefetch_ahead::<R>(b_line);
                        let b_line: [__m256i; 2] = cast(*b_line);
                        for (sums, quad) in sums.iter_mut().zip(a_line) {
                            let $b = _mm256_set1_epi32(quad.cast_signed());
                            for ($sum, $a) in sums.iter_mut().zip(b_line) {
                                *$sum = $add;
                            }
                        }
                    }
                    let b_scales: [__m256; 2] = cast(*b_scales);
                    for ((totals, sums), a_scale) in totals.iter_mut().zip(sums).zip(a_scales) {
                        let a_scale = _mm256_set1_ps(f32::from_bits(*a_scale));
                        for ((total, sum), b_scale) in totals.iter_mut().zip(sums).zip(b_scales) {
                            let scale = _mm256_mul_ps(b_scale, a_scale);
                            *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, *total);
                        }
                    }
                }
                tile.store(totals.iter().map(|row| cast::<_, [f32; NR]>(*row)));
            }
        };
    }

    micro_kernel!(multiply, "avx2,fma", |sum, a, b| {
        let sums_of_pairs = _mm256_maddubs_epi16(a, b);
        _mm256_add_epi32(*sum, _mm256_madd_epi16(sums_of_pairs, _mm256_set1_epi16(1)))
    });
    micro_kernel!(multiply_vnni, "avx2,fma,avxvnni", |sum, a, b| _mm256_dpbusd_avx_epi32(*sum, a, b));
}

#[cfg(target_arch = "x86_64")]
mod avx512_vnni {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    };

    use pulp::bytemuck::cast;

    use super::{A_LINES, Avx512Vnni, B_LINES, MicroKernel as _, Tile, blocks, prefetch_ahead};

    const NR: usize = Avx512Vnni::NR;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn multiply<const R: usize>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]) {
        let mut totals = [[_mm512_setzero_ps(); 2]; R];
        let (a_blocks, b_blocks) = (blocks::<R, A_LINES>(a), blocks::<NR, B_LINES>(b));
        for ([starts, a_scales, a_lines @ ..], [b_scales, b_lines @ ..]) in a_blocks.iter().zip(b_blocks) {
            let mut sums = [[_mm512_setzero_si512(); 2]; R];
            for (sums, start) in sums.iter_mut().zip(starts) {
                *sums = [_mm512_set1_epi32(start.cast_signed()); 2];
            }
            for (a_line, b_line) in a_lines.iter().zip(b_lines) {
                prefetch_ahead::<R>(b_line);
                let b_line: [__m512i; 2] = cast(*b_line);
                for (sums, quad) in sums.iter_mut().zip(a_line) {
                    let quad = _mm512_set1_epi32(quad.cast_signed());
                    sums[0] = _mm512_dpbusd_epi32(sums[0], b_line[0], quad);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], b_line[1], quad);
                }
            }
            let b_scales: [__m512; 2] = cast(*b_scales);
            for ((totals, sums), a_scale) in totals.iter_mut().zip(sums).zip(a_scales) {
                let a_scale = _mm512_set1_ps(f32::from_bits(*a_scale));
                for ((total, sum), b_scale) in totals.iter_mut().zip(sums).zip(b_scales) {
                    let scale = _mm512_mul_ps(b_scale, a_scale);
                    *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, *total);
                }
            }
        }
        tile.store(totals.iter().map(|row| cast::<_, [f32; NR]>(*row)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Store;
    use super::*;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 30.0 - 1.7).collect()
    }

    #[test]
    fn instructions_give_what_plain_code_gives() {
        check_instructions::<Narrow, { Narrow::MR }, { Narrow::NR }>();
        #[cfg(target_arch = "x86_64")]
        if cpu_features::has_avx512_vnni() {
            check_instructions::<Avx512Vnni, { Avx512Vnni::MR }, { Avx512Vnni::NR }>();
        }
    }

    fn check_instructions<K: MicroKernel, const R: usize, const W: usize>() {
        let k = 700;
        let (a, w) = (values(R * k, 3), values(W * k, 8));
        let (mut packed_a, mut packed_b) = (vec![0; R * K::a_lines(k)], vec![0; W * K::b_lines(k)]);
        for (i, row) in a.chunks_exact(k).enumerate() {
            K::pack_a_row(row, i, R, &mut packed_a);
        }
        pack_b(MatrixView::new(&w, W, k, k), 0, W, W, &mut packed_b);
        for store in [Store::Overwrite, Store::Accumulate] {
            for n_columns in [W, W - 3] {
                let (mut out, mut expected) = (vec![3.0; R * W], vec![3.0; R * W]);
                let tile = |out| Tile { out, row_stride: W, store, n_rows: R, n_columns };
                K::multiply::<R>(&mut tile(&mut out), &packed_a, &packed_b);
                tile(&mut expected).store(multiply_portable::<R, W>(&packed_a, &packed_b));
                // Where plain code rounds twice, instructions round once.
                assert!(out.iter().zip(&expected).all(|(out, expected)| (out - expected).abs() < 1e-3));
            }
        }
    }
}
