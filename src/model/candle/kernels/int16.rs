//! Products whose operands are rounded to 16-bit integers: twice the multiply-adds per instruction of f32 on processors with AVX2,
//! half the memory for weights on all.
//!
//! Each row of the weight and each row of what it is multiplied with has a scale of its own (symmetric quantization, the latter at
//! run time). Products of some columns are summed exactly in i32, these sums in f32.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use pulp::bytemuck::cast_slice_mut;

use super::linear::with_scratch;
use super::math::{prefetch, vectorized};
use super::matmul::{Destination, Matrix, Target};

/// Columns of a panel of pairs: two registers of AVX2.
pub(super) const WIDTH: usize = 16;
/// With two registers for each of these rows, two for a panel and one for a strip, 15 of 16 are in use.
const STRIP_ROWS: usize = 6;

/// Magnitudes of weights, and of what they are multiplied with, are at most these; the latter vary more.
const LARGEST_WEIGHT: f32 = 2047.0;
const LARGEST_INPUT: f32 = 8191.0;
/// So many pairs of products cannot overflow an i32: 128 * 2047 * 8191 < 2^31.
const PAIRS_PER_SUM: usize = 64;
/// Pairs that are multiplied at a time: those of a panel stay in the first-level cache while all strips pass.
const PAIRS_PER_BLOCK: usize = 256;
/// Strips that pass while the next panel is fetched. Fewer fetch only its beginning: more at a time would hold up what is wanted now.
const STRIPS_PER_FETCH: usize = 16;

/// Rows `first .. first + n` of a weight in pairs beside each other, and the scale of each: as [`super::bf16::interleave_pairs`].
pub(super) fn interleave_weights(
    weight: Matrix<'_>,
    first: usize,
    n: usize,
    pairs: &mut [u32],
    scales: &mut [f32],
) {
    vectorized(|| {
        pairs.fill(0);
        for (i, scale) in scales.iter_mut().take(n).enumerate() {
            *scale = interleave_row(weight.row(first + i), LARGEST_WEIGHT, i, WIDTH, pairs);
        }
    });
}

/// Rounds a row to integers up to `largest` into place `i` of `width`: columns `2 p` and `2 p + 1` become the low and the high
/// half of `out[p * width + i]`. Returns what a step is worth, NaN for a row with a value that is not finite.
#[inline(always)]
fn interleave_row(row: &[f32], largest: f32, i: usize, width: usize, out: &mut [u32]) -> f32 {
    // As integers, so that NaN is larger than every number.
    let magnitude = row.iter().fold(0, |magnitude, value| magnitude.max(value.to_bits() & 0x7fff_ffff));
    let step = f32::from_bits(magnitude) / largest;
    let steps = if step > 0.0 { 1.0 / step } else { 0.0 };
    // Where a step of f32 is 1, adding rounds, and the low bits are the integer.
    let round = |value: f32| (value * steps + 12_582_912.0).to_bits() & 0xffff;
    let (pairs, rest) = row.as_chunks::<2>();
    for (out, [low, high]) in out.chunks_exact_mut(width).zip(pairs) {
        out[i] = round(*low) | round(*high) << 16;
    }
    if let [last] = rest {
        out[pairs.len() * width + i] = round(*last);
    }
    if step.is_finite() { step } else { f32::NAN }
}

/// Rows `first ..` in strips, as many as `out` has room for, and what the steps of each are worth, times `scale`.
fn interleave_strips(a: Matrix<'_>, first: usize, scale: f32, out: &mut [u32], steps: &mut [f32]) {
    let pairs = a.columns().div_ceil(2);
    vectorized(|| {
        for (i, strip) in out.chunks_mut(STRIP_ROWS * pairs).enumerate() {
            let n = strip.len() / pairs;
            for j in 0..n {
                let row = i * STRIP_ROWS + j;
                steps[row] = scale * interleave_row(a.row(first + row), LARGEST_INPUT, j, n, strip);
            }
        }
    });
}

/// [`super::matmul::multiply_panels`] with panels of pairs and the scales of their columns; `block` rows at a time.
pub(super) fn multiply(
    target: Target<'_>,
    scale: f32,
    a: Matrix<'_>,
    panels: &[u32],
    scales: &[f32],
    n: usize,
    block: usize,
) {
    let pairs = a.columns().div_ceil(2);
    let Target { out, row_stride, destination } = target;
    with_scratch(block * (pairs + 1), |scratch| {
        let (strips, steps) = scratch.split_at_mut(block * pairs);
        let strips: &mut [u32] = cast_slice_mut(strips);
        for first in (0..a.rows()).step_by(block) {
            let rows = block.min(a.rows() - first);
            let strips = &mut strips[..rows * pairs];
            interleave_strips(a, first, scale, strips, steps);
            // In blocks that are equally long but for the last.
            let inner_len = pairs.div_ceil(pairs.div_ceil(PAIRS_PER_BLOCK));
            for start in (0..pairs).step_by(inner_len) {
                let inner = start..pairs.min(start + inner_len);
                let destination = if start == 0 { destination } else { Destination::Accumulate };
                let panels = panels
                    .chunks_exact(WIDTH * pairs)
                    .map(|panel| &panel[inner.start * WIDTH..inner.end * WIDTH]);
                let next_panels = panels.clone().skip(1).chain([&[][..]]);
                for (index, (panel, next_panel)) in panels.zip(next_panels).enumerate() {
                    let column = index * WIDTH;
                    let scales = &scales[column..][..WIDTH.min(n - column)];
                    let mut next_panel =
                        next_panel.chunks(next_panel.len().div_ceil(STRIPS_PER_FETCH).max(1));
                    for (i, strip) in strips.chunks(STRIP_ROWS * pairs).enumerate() {
                        let (row, n_rows) = (i * STRIP_ROWS, strip.len() / pairs);
                        let strip = &strip[inner.start * n_rows..inner.end * n_rows];
                        let mut tile = Tile {
                            out: &mut out[(first + row) * row_stride + column..],
                            row_stride,
                            destination,
                            steps: &steps[row..][..n_rows],
                            scales,
                        };
                        prefetch(next_panel.next().unwrap_or_default());
                        tile.prefetch();
                        match n_rows {
                            1 => multiply_tile::<1>(&mut tile, strip, panel),
                            2 => multiply_tile::<2>(&mut tile, strip, panel),
                            3 => multiply_tile::<3>(&mut tile, strip, panel),
                            4 => multiply_tile::<4>(&mut tile, strip, panel),
                            5 => multiply_tile::<5>(&mut tile, strip, panel),
                            _ => multiply_tile::<STRIP_ROWS>(&mut tile, strip, panel),
                        }
                    }
                }
            }
        }
    });
}

/// Where one strip times one panel goes.
struct Tile<'a> {
    out: &'a mut [f32],
    row_stride: usize,
    destination: Destination,
    /// What the steps of the strip's rows are worth.
    steps: &'a [f32],
    /// Of the panel's columns, fewer than it has at the right edge.
    scales: &'a [f32],
}

impl Tile<'_> {
    fn prefetch(&self) {
        for i in 0..self.steps.len() {
            prefetch(&self.out[i * self.row_stride..][..self.scales.len()]);
        }
    }

    fn store<const R: usize>(&mut self, sums: [[f32; WIDTH]; R]) {
        for (i, (sums, step)) in sums.iter().zip(self.steps).enumerate() {
            let out = &mut self.out[i * self.row_stride..][..self.scales.len()];
            for ((out, sum), scale) in out.iter_mut().zip(sums).zip(self.scales) {
                let value = sum * scale * step;
                match self.destination {
                    Destination::Overwrite => *out = value,
                    Destination::Accumulate => *out += value,
                }
            }
        }
    }
}

/// One strip of `R` rows times one panel.
fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the instructions that it is compiled for are there.
        #[expect(unsafe_code, reason = "a function for some processors only, after asking this one")]
        return unsafe { instructions::multiply_tile::<R>(tile, strip, panel) };
    }
    tile.store(portable_products::<R>(strip, panel));
}

/// In steps of both.
fn portable_products<const R: usize>(strip: &[u32], panel: &[u32]) -> [[f32; WIDTH]; R] {
    let halves = |pair: u32| (i32::from(pair as i16), i32::from((pair >> 16) as i16));
    let mut totals = [[0.0; WIDTH]; R];
    for (strip, panel) in strip.chunks(PAIRS_PER_SUM * R).zip(panel.chunks(PAIRS_PER_SUM * WIDTH)) {
        let mut sums = [[0; WIDTH]; R];
        for (strip, panel) in strip.as_chunks::<R>().0.iter().zip(panel.as_chunks::<WIDTH>().0) {
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
mod instructions {
    use std::arch::x86_64::{
        __m256, __m256i, _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_madd_epi16,
        _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    };
    use std::mem::transmute;

    use super::{Destination, PAIRS_PER_SUM, Tile, WIDTH};

    #[target_feature(enable = "avx2")]
    pub(super) fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
        let sums = products::<R>(strip, panel);
        let Some(scales) = tile.scales.first_chunk::<WIDTH>() else {
            return tile.store(sums.map(|sums| to_array(sums)));
        };
        let scales = of_floats(*scales);
        for (i, (sums, step)) in sums.into_iter().zip(tile.steps).enumerate() {
            let out =
                tile.out[i * tile.row_stride..].first_chunk_mut().expect("a row is as wide as its panels");
            let step = _mm256_set1_ps(*step);
            let [low, high] = [0, 1].map(|i| _mm256_mul_ps(_mm256_mul_ps(sums[i], scales[i]), step));
            *out = to_array(match tile.destination {
                Destination::Overwrite => [low, high],
                Destination::Accumulate => {
                    let before = of_floats(*out);
                    [_mm256_add_ps(before[0], low), _mm256_add_ps(before[1], high)]
                }
            });
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn products<const R: usize>(strip: &[u32], panel: &[u32]) -> [[__m256; 2]; R] {
        let mut totals = [[_mm256_setzero_ps(); 2]; R];
        for (strip, panel) in strip.chunks(PAIRS_PER_SUM * R).zip(panel.chunks(PAIRS_PER_SUM * WIDTH)) {
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for (strip, panel) in strip.as_chunks::<R>().0.iter().zip(panel.as_chunks::<WIDTH>().0) {
                let panel = of_pairs(*panel);
                for (sums, pair) in sums.iter_mut().zip(strip) {
                    let pair = _mm256_set1_epi32(pair.cast_signed());
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(pair, panel[0]));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(pair, panel[1]));
                }
            }
            for (totals, sums) in totals.iter_mut().zip(sums) {
                totals[0] = _mm256_add_ps(totals[0], _mm256_cvtepi32_ps(sums[0]));
                totals[1] = _mm256_add_ps(totals[1], _mm256_cvtepi32_ps(sums[1]));
            }
        }
        totals
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "another name for the same bits")]
    fn of_pairs(pairs: [u32; WIDTH]) -> [__m256i; 2] {
        // SAFETY: 64 bytes both, of which any are a value.
        unsafe { transmute(pairs) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "another name for the same bits")]
    fn of_floats(values: [f32; WIDTH]) -> [__m256; 2] {
        // SAFETY: as above.
        unsafe { transmute(values) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    #[expect(unsafe_code, reason = "another name for the same bits")]
    fn to_array(sums: [__m256; 2]) -> [f32; WIDTH] {
        // SAFETY: as above.
        unsafe { transmute(sums) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 30.0 - 1.7).collect()
    }

    fn product(a: &[f32], w: &[f32], k: usize, scale: f32) -> Vec<f32> {
        let (m, n, pairs) = (a.len() / k, w.len() / k, k.div_ceil(2));
        let mut scales = vec![0.0; n.next_multiple_of(WIDTH)];
        let mut panels = vec![0; scales.len() * pairs];
        for (panel, (out, scales)) in
            panels.chunks_exact_mut(WIDTH * pairs).zip(scales.chunks_mut(WIDTH)).enumerate()
        {
            let rows = WIDTH.min(n - panel * WIDTH);
            interleave_weights(Matrix::new(w, n, k, k), panel * WIDTH, rows, out, scales);
        }
        let mut out = vec![1.0; m * n];
        let target = Target { out: &mut out, row_stride: n, destination: Destination::Accumulate };
        multiply(target, scale, Matrix::new(a, m, k, k), &panels, &scales, n, 24);
        out
    }

    #[test]
    fn products_are_near_those_of_f32() {
        for (m, k, n) in [(1, 1, 1), (3, 7, 5), (13, 20, 70), (200, 333, 64)] {
            let (a, w) = (values(m * k, 1), values(n * k, 5));
            let got = product(&a, &w, k, 0.5);
            // Half a step of each factor.
            let tolerance = 0.5 * k as f32 * 1.7 * 1.7 * (0.5 / LARGEST_WEIGHT + 0.5 / LARGEST_INPUT) + 1e-5;
            for i in 0..m {
                for j in 0..n {
                    let dot: f32 = (0..k).map(|t| a[i * k + t] * w[j * k + t]).sum();
                    assert!((got[i * n + j] - 1.0 - 0.5 * dot).abs() < tolerance, "{m}x{k}x{n} at {i},{j}");
                }
            }
        }
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        let k = 1000;
        for sign in [1.0, -1.0] {
            let got = product(&vec![3.0; k], &vec![sign * 2.0; k], k, 1.0);
            assert!((got[0] - 1.0 - sign * 6000.0).abs() < 0.01, "{}", got[0]);
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_not_finite_is_not_hidden() {
        assert_eq!(product(&[0.0; 8], &[0.0; 8], 8, 1.0), [1.0]);
        for bad in [f32::NAN, f32::INFINITY] {
            let got = product(&[1.0, bad, 1.0, 1.0, 1.0, 1.0], &[1.0, 2.0, 3.0], 3, 1.0);
            assert!(got[0].is_nan() && (got[1] - 7.0).abs() < 0.01, "{got:?}");
        }
    }

    #[test]
    fn instructions_give_what_plain_code_gives() {
        let of_integers = |len: usize, largest: i32, seed: i32| -> Vec<u32> {
            let value = |i: i32| (i.wrapping_mul(2_654_435) ^ seed) % largest;
            (0..len as i32)
                .map(|i| (value(2 * i) as u32 & 0xffff) | (value(2 * i + 1) as u32) << 16)
                .collect()
        };
        let pairs = 200;
        let strip = of_integers(STRIP_ROWS * pairs, 8191, 3);
        let panel = of_integers(WIDTH * pairs, 2047, 8);
        let scales: [f32; WIDTH] = std::array::from_fn(|i| 1.0 + i as f32 / 7.0);
        for destination in [Destination::Overwrite, Destination::Accumulate] {
            let (mut out, mut expected) = ([3.0; STRIP_ROWS * WIDTH], [3.0; STRIP_ROWS * WIDTH]);
            let steps: [f32; STRIP_ROWS] = std::array::from_fn(|i| 0.5 + i as f32 / 3.0);
            let tile = |out| Tile { out, row_stride: WIDTH, destination, steps: &steps, scales: &scales };
            multiply_tile::<STRIP_ROWS>(&mut tile(&mut out), &strip, &panel);
            tile(&mut expected).store(portable_products::<STRIP_ROWS>(&strip, &panel));
            assert_eq!(out, expected);
        }
    }
}
