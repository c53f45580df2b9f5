//! Products whose operands are rounded to bfloat16 and whose sums are f32: twice the multiply-adds per instruction on
//! processors with AVX512_BF16, half the memory for weights on all.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use pulp::bytemuck::cast_slice_mut;
use pulp::{Simd, WithSimd};

use super::linear::with_scratch;
use super::math::arch;
use super::matmul::{Matrix, Target, multiply_strips, tile};

/// Columns of a panel of pairs.
pub(super) fn panel_columns() -> usize {
    #[cfg(target_arch = "x86_64")]
    if instructions::are_there() {
        return instructions::WIDTH;
    }
    tile().columns
}

/// [`super::matmul::multiply_panels`] with panels of pairs; on CPUs without instructions for them these are widened.
pub(super) fn multiply(
    target: Target<'_>,
    scale: f32,
    a: Matrix<'_>,
    panels: &[u32],
    n: usize,
    block: usize,
) {
    let pairs = a.columns().div_ceil(2);
    #[cfg(target_arch = "x86_64")]
    if instructions::are_there() {
        return with_scratch(block * pairs, |strips| {
            instructions::multiply(target, scale, a, panels, n, block, cast_slice_mut(strips));
        });
    }
    with_scratch(block * pairs + (block + tile().columns) * 2 * pairs, |scratch| {
        let (packed, rest) = scratch.split_at_mut(block * pairs);
        let (strips, panel) = rest.split_at_mut(block * 2 * pairs);
        arch().dispatch(Widened {
            target,
            scale,
            a,
            panels,
            n,
            packed: cast_slice_mut(packed),
            strips,
            panel,
        });
    });
}

/// Rounds to the nearest bfloat16, and to the even one of two as near; its bits. Infinity and NaN stay what they are or become each
/// other.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

/// Rows `first .. first + n` beside each other in pairs: row `first + i`, columns `2 p` and `2 p + 1` go to the low and the
/// high half of `out[p * width + i]`.
#[inline(always)]
pub(super) fn interleave_pairs(
    a: Matrix<'_>,
    first: usize,
    n: usize,
    width: usize,
    scale: f32,
    out: &mut [u32],
) {
    assert!(n <= width && out.len() == width * a.columns().div_ceil(2));
    if n < width {
        out.fill(0);
    }
    for i in 0..n {
        let (pairs, rest) = a.row(first + i).as_chunks::<2>();
        for (out, [low, high]) in out.chunks_exact_mut(width).zip(pairs) {
            out[i] = round(low * scale) | round(high * scale) << 16;
        }
        if let [last] = rest {
            out[pairs.len() * width + i] = round(last * scale);
        }
    }
}

#[inline(always)]
fn interleave_strips(a: Matrix<'_>, first: usize, strip_rows: usize, scale: f32, out: &mut [u32]) {
    let pairs = a.columns().div_ceil(2);
    for (strip, out) in out.chunks_mut(strip_rows * pairs).enumerate() {
        let n = out.len() / pairs;
        interleave_pairs(a, first + strip * strip_rows, n, n, scale, out);
    }
}

/// `[pairs, width]` to `[2 pairs, width]`.
#[inline(always)]
fn widen(pairs: &[u32], width: usize, out: &mut [f32]) {
    for (pairs, out) in pairs.chunks_exact(width).zip(out.chunks_exact_mut(2 * width)) {
        let (low, high) = out.split_at_mut(width);
        for ((low, high), pair) in low.iter_mut().zip(high).zip(pairs) {
            *low = f32::from_bits(pair << 16);
            *high = f32::from_bits(pair & 0xffff_0000);
        }
    }
}

struct Widened<'a> {
    target: Target<'a>,
    scale: f32,
    a: Matrix<'a>,
    panels: &'a [u32],
    n: usize,
    packed: &'a mut [u32],
    strips: &'a mut [f32],
    panel: &'a mut [f32],
}

impl WithSimd for Widened<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mut target, scale, a, panels, n, packed, strips, panel } = self;
        let (pairs, tile) = (a.columns().div_ceil(2), tile());
        let rows_per_block = packed.len() / pairs;
        for first in (0..a.rows()).step_by(rows_per_block) {
            let rows = rows_per_block.min(a.rows() - first);
            let packed = &mut packed[..rows * pairs];
            interleave_strips(a, first, tile.rows, scale, packed);
            let strips = &mut strips[..rows * 2 * pairs];
            for (packed, wide) in
                packed.chunks(tile.rows * pairs).zip(strips.chunks_mut(tile.rows * 2 * pairs))
            {
                widen(packed, packed.len() / pairs, wide);
            }
            for (index, values) in panels.chunks_exact(tile.columns * pairs).enumerate() {
                widen(values, tile.columns, panel);
                let column = index * tile.columns;
                let n_columns = tile.columns.min(n - column);
                multiply_strips(simd, &mut target, first, column, n_columns, strips, panel, 2 * pairs);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    };
    use std::mem::transmute;

    use super::super::matmul::{Destination, Matrix, Target};
    use super::interleave_strips;

    /// Two registers.
    pub(super) const WIDTH: usize = 32;
    /// With two registers for each of these rows, two for a panel and one for a strip, 27 of 32 are in use.
    const STRIP_ROWS: usize = 12;

    pub(super) fn are_there() -> bool {
        std::arch::is_x86_feature_detected!("avx512bf16") && std::arch::is_x86_feature_detected!("avx512f")
    }

    pub(super) fn multiply(
        target: Target<'_>,
        scale: f32,
        a: Matrix<'_>,
        panels: &[u32],
        n: usize,
        block: usize,
        strips: &mut [u32],
    ) {
        assert!(are_there());
        // SAFETY: the instructions that it is compiled for are there.
        #[expect(unsafe_code, reason = "a function for some processors only, after asking this one")]
        unsafe {
            multiply_blocks(target, scale, a, panels, n, block, strips);
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn multiply_blocks(
        target: Target<'_>,
        scale: f32,
        a: Matrix<'_>,
        panels: &[u32],
        n: usize,
        block: usize,
        strips: &mut [u32],
    ) {
        let pairs = a.columns().div_ceil(2);
        let Target { out, row_stride, destination } = target;
        for first in (0..a.rows()).step_by(block) {
            let strips = &mut strips[..block.min(a.rows() - first) * pairs];
            interleave_strips(a, first, STRIP_ROWS, scale, strips);
            for (index, panel) in panels.chunks_exact(WIDTH * pairs).enumerate() {
                let column = index * WIDTH;
                for (i, strip) in strips.chunks(STRIP_ROWS * pairs).enumerate() {
                    let start = (first + i * STRIP_ROWS) * row_stride + column;
                    let mut target = Target { out: &mut out[start..], row_stride, destination };
                    let n = WIDTH.min(n - column);
                    match strip.len() / pairs {
                        1 => multiply_tile::<1>(&mut target, n, strip, panel),
                        2 => multiply_tile::<2>(&mut target, n, strip, panel),
                        3 => multiply_tile::<3>(&mut target, n, strip, panel),
                        4 => multiply_tile::<4>(&mut target, n, strip, panel),
                        5 => multiply_tile::<5>(&mut target, n, strip, panel),
                        6 => multiply_tile::<6>(&mut target, n, strip, panel),
                        7 => multiply_tile::<7>(&mut target, n, strip, panel),
                        8 => multiply_tile::<8>(&mut target, n, strip, panel),
                        9 => multiply_tile::<9>(&mut target, n, strip, panel),
                        10 => multiply_tile::<10>(&mut target, n, strip, panel),
                        11 => multiply_tile::<11>(&mut target, n, strip, panel),
                        _ => multiply_tile::<STRIP_ROWS>(&mut target, n, strip, panel),
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn multiply_tile<const R: usize>(
        target: &mut Target<'_>,
        n_columns: usize,
        strip: &[u32],
        panel: &[u32],
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let (strip, panel) = (strip.as_chunks::<R>().0, panel.as_chunks::<16>().0);
        for (strip, panel) in strip.iter().zip(panel.as_chunks::<2>().0) {
            let panel = [of_array(panel[0]), of_array(panel[1])];
            for (sums, pair) in sums.iter_mut().zip(strip) {
                let pair = of_integers(_mm512_set1_epi32(pair.cast_signed()));
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, panel[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, panel[1]);
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            let out = &mut target.out[i * target.row_stride..][..n_columns];
            for (out, sum) in out.iter_mut().zip(to_array(sums)) {
                match target.destination {
                    Destination::Overwrite => *out = sum,
                    Destination::Accumulate => *out += sum,
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "another name for the same bits")]
    fn of_array(pairs: [u32; 16]) -> __m512bh {
        // SAFETY: 64 bytes both, of which any are a value.
        unsafe { transmute(pairs) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "another name for the same bits")]
    fn of_integers(pairs: __m512i) -> __m512bh {
        // SAFETY: as above.
        unsafe { transmute(pairs) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "another name for the same bits")]
    fn to_array(sums: [__m512; 2]) -> [f32; WIDTH] {
        // SAFETY: 128 bytes both, of which any are a value.
        unsafe { transmute(sums) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::candle::kernels::matmul::Destination;

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

    fn all_of(out: &mut [f32], n: usize) -> Target<'_> {
        Target { out, row_stride: n, destination: Destination::Accumulate }
    }

    #[test]
    fn products_are_those_of_rounded_operands_with_and_without_instructions() {
        for (m, k, n) in [(1, 1, 1), (3, 7, 5), (13, 20, 70), (200, 33, 64)] {
            let values = |len: usize, seed: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 30.0 - 1.7).collect()
            };
            let (a, w) = (values(m * k, 1), values(n * k, 5));
            let a_view = Matrix::new(&a, m, k, k);
            let panels = |width: usize| {
                let mut panels = vec![0; n.next_multiple_of(width) * k.div_ceil(2)];
                for (panel, out) in panels.chunks_exact_mut(width * k.div_ceil(2)).enumerate() {
                    let rows = width.min(n - panel * width);
                    interleave_pairs(Matrix::new(&w, n, k, k), panel * width, rows, width, 1.0, out);
                }
                panels
            };
            let rounded = |value: f32| half::bf16::from_f32(value).to_f32();
            let check = |got: &[f32]| {
                for i in 0..m {
                    for j in 0..n {
                        let dot: f32 = (0..k).map(|t| rounded(a[i * k + t]) * rounded(w[j * k + t])).sum();
                        assert!((got[i * n + j] - 1.0 - dot).abs() < 1e-4, "{m}x{k}x{n} at {i},{j}");
                    }
                }
            };
            let mut out = vec![1.0; m * n];
            multiply(all_of(&mut out, n), 1.0, a_view, &panels(panel_columns()), n, 24);
            check(&out);
            let mut out = vec![1.0; m * n];
            let (pairs, width) = (k.div_ceil(2), tile().columns);
            let (mut packed, mut strips, mut panel) =
                (vec![0; 24 * pairs], vec![0.0; 48 * pairs], vec![0.0; width * 2 * pairs]);
            arch().dispatch(Widened {
                target: all_of(&mut out, n),
                scale: 1.0,
                a: a_view,
                panels: &panels(width),
                n,
                packed: &mut packed,
                strips: &mut strips,
                panel: &mut panel,
            });
            check(&out);
        }
    }
}
