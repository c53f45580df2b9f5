//! Products whose operands are rounded to bfloat16 and whose sums are f32: twice the multiply-adds per instruction on
//! processors with AVX512_BF16 and hundreds of times as many on those with AMX, half the memory for weights on all.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use pulp::bytemuck::cast_slice_mut;
use pulp::{Simd, WithSimd};

use super::linear::with_scratch;
use super::math::arch;
use super::matmul::{Matrix, Target, multiply_strips, tile};
use super::rounded::RoundedPanels;

/// Columns of a panel of pairs.
pub(super) fn panel_columns() -> usize {
    #[cfg(target_arch = "x86_64")]
    if instructions::are_there() {
        return instructions::WIDTH;
    }
    tile().columns
}

/// [`super::matmul::multiply_panels`] with panels of pairs; on CPUs without instructions for them these are widened.
pub(super) fn multiply(target: Target<'_>, scale: f32, a: Matrix<'_>, b: RoundedPanels<'_>, block: usize) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if a.rows() >= super::amx::MIN_ROWS && super::amx::is_there() {
        return super::amx::multiply(target, scale, a, b, block);
    }
    #[cfg(target_arch = "x86_64")]
    if instructions::are_there() {
        return instructions::multiply(target, scale, a, b, block);
    }
    multiply_widened(target, scale, a, b, block);
}

fn multiply_widened(target: Target<'_>, scale: f32, a: Matrix<'_>, b: RoundedPanels<'_>, block: usize) {
    let RoundedPanels { numbers: panels, n, .. } = b;
    let pairs = a.columns().div_ceil(2);
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
pub(super) fn round(value: f32) -> u32 {
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
        interleave_row(a.row(first + i), scale, i, width, out);
    }
}

#[inline(always)]
fn interleave_row(row: &[f32], scale: f32, i: usize, width: usize, out: &mut [u32]) {
    let (pairs, rest) = row.as_chunks::<2>();
    for (out, [low, high]) in out.chunks_exact_mut(width).zip(pairs) {
        out[i] = round(low * scale) | round(high * scale) << 16;
    }
    if let [last] = rest {
        out[pairs.len() * width + i] = round(last * scale);
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
    use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps};

    use pulp::bytemuck::cast;

    use super::super::matmul::{Matrix, Target};
    use super::super::rounded::{self, RoundedPanels, RoundedProduct, Tile, prefetch_panel};

    /// Two registers.
    pub(super) const WIDTH: usize = 32;

    pub(super) fn multiply(
        target: Target<'_>,
        scale: f32,
        a: Matrix<'_>,
        b: RoundedPanels<'_>,
        block: usize,
    ) {
        rounded::multiply::<Bf16>(target, scale, a, b, block);
    }

    struct Bf16;

    impl RoundedProduct for Bf16 {
        const WIDTH: usize = WIDTH;
        /// With two registers for each of these rows, two for a panel and one for a strip, 27 of 32 are in use.
        const STRIP_ROWS: usize = 12;
        /// All: panels come from the second-level cache in time; to add sums up where they go would take longer.
        const LINES_PER_BLOCK: usize = usize::MAX;

        #[inline(always)]
        fn interleave_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) -> f32 {
            super::interleave_row(row, 1.0, i, width, out);
            1.0
        }

        fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
            assert!(are_there());
            // SAFETY: the instructions that it is compiled for are there.
            #[expect(unsafe_code, reason = "a function for some processors only, after asking this one")]
            unsafe {
                multiply_tile::<R>(tile, strip, panel);
            }
        }
    }

    pub(super) fn are_there() -> bool {
        super::super::cpu_features::has_avx512_bf16()
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for (strip, panel) in strip.as_chunks::<R>().0.iter().zip(panel.as_chunks::<WIDTH>().0) {
            prefetch_panel::<R>(panel);
            let panel: [__m512bh; 2] = cast(*panel);
            for (sums, pair) in sums.iter_mut().zip(strip) {
                let pair: __m512bh = cast(_mm512_set1_epi32(pair.cast_signed()));
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, panel[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, panel[1]);
            }
        }
        tile.store(sums.iter().map(|row| cast::<_, [f32; WIDTH]>(*row)));
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

    type Product = fn(Target<'_>, f32, Matrix<'_>, RoundedPanels<'_>, usize);

    #[test]
    fn products_are_those_of_rounded_operands_with_and_without_instructions() {
        for (m, k, n) in [(1, 1, 1), (3, 7, 5), (13, 20, 70), (200, 33, 64), (70, 64, 96), (64, 150, 41)] {
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
            let check = |got: &[f32], before: f32, scale: f32| {
                for i in 0..m {
                    for j in 0..n {
                        let dot: f32 = (0..k).map(|t| rounded(a[i * k + t]) * rounded(w[j * k + t])).sum();
                        let (got, expected) = (got[i * n + j], before + scale * dot);
                        assert!((got - expected).abs() < 1e-4, "{m}x{k}x{n} at {i},{j}: {got}, {expected}");
                    }
                }
            };
            let mut products: Vec<(Product, usize)> =
                vec![(multiply, panel_columns()), (multiply_widened, tile().columns)];
            // What `multiply` leaves to others on this machine.
            #[cfg(target_arch = "x86_64")]
            if instructions::are_there() {
                products.push((instructions::multiply, panel_columns()));
            }
            for (multiply, width) in products {
                for (destination, before, scale) in [
                    (Destination::Accumulate, 1.0, 1.0),
                    (Destination::Accumulate, 1.0, 0.5),
                    (Destination::Overwrite, 0.0, 1.0),
                    (Destination::Overwrite, 0.0, 0.5),
                ] {
                    let mut out = vec![1.0; m * n];
                    let panels = RoundedPanels { numbers: &panels(width), scales: None, n };
                    let target = Target { out: &mut out, row_stride: n, destination };
                    multiply(target, scale, a_view, panels, 64);
                    check(&out, before, scale);
                }
            }
        }
    }
}
