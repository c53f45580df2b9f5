//! Products of operands that are rounded to 16 or 8 bits: one number holds two or four values of a row, and one instruction multiplies
//! them with as many of a column and adds all.
//!
//! Laid out as [`super::matmul`] does, in strips and panels, whose lines hold one number for each row. Where numbers are pairs, row `i`,
//! columns `2 p` and `2 p + 1` are the low and the high half of number `i` of line `p`.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of its caller"
)]

use pulp::bytemuck::cast_slice_mut;

use super::linear::with_scratch;
use super::math::{prefetch, prefetch_after, vectorized};
use super::matmul::{Destination, Matrix, Target};

/// Strips that pass while the next panel is fetched. Fewer fetch only its beginning: more at a time would hold up what is wanted now.
const STRIPS_PER_FETCH: usize = 16;
/// So few rows use a panel up faster than the processor alone asks for what comes next.
const FEW_ROWS: usize = 4;
/// How far ahead it is asked for then.
const BYTES_AHEAD: usize = 4096;
/// Of columns that have no scales.
pub(super) const UNSCALED: [f32; 32] = [1.0; 32];

/// A rounding and the instructions for it.
pub(super) trait RoundedProduct {
    /// Columns of a panel.
    const WIDTH: usize;
    /// Rows of a strip, at most 12.
    const STRIP_ROWS: usize;
    /// Lines of a panel that are multiplied at a time.
    const LINES_PER_BLOCK: usize;

    /// Lines of a strip of so many columns.
    fn strip_lines(columns: usize) -> usize {
        columns.div_ceil(2)
    }

    /// Lines of a panel of so many rows. Of blocks of a strip and of a panel, if there are several, each needs as many.
    fn panel_lines(rows: usize) -> usize {
        rows.div_ceil(2)
    }

    /// Rounds a row into place `i` of `width`, beside the others of its strip. Returns what a step is worth.
    fn interleave_row(row: &[f32], i: usize, width: usize, out: &mut [u32]) -> f32;

    /// One strip of `R` rows times one panel.
    fn multiply_tile<const R: usize>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]);
}

/// The right operand: panels of its `n` columns, and their scales, 1 if absent.
#[derive(Clone, Copy)]
pub(super) struct RoundedPanels<'a> {
    pub(super) numbers: &'a [u32],
    pub(super) scales: Option<&'a [f32]>,
    pub(super) n: usize,
}

/// [`super::matmul::multiply_panels`] with panels of rounded values; `block` rows at a time.
pub(super) fn multiply<P: RoundedProduct>(
    mut target: Target<'_>,
    scale: f32,
    a: Matrix<'_>,
    b: RoundedPanels<'_>,
    block: usize,
) {
    let lines = P::strip_lines(a.columns());
    with_scratch(block * (lines + 1), |scratch| {
        let (strips, steps) = scratch.split_at_mut(block * lines);
        let strips: &mut [u32] = cast_slice_mut(strips);
        for first in (0..a.rows()).step_by(block) {
            let rows = block.min(a.rows() - first);
            let (strips, steps) = (&mut strips[..rows * lines], &mut steps[..rows]);
            interleave_strips::<P>(a, first, scale, strips, steps);
            multiply_strips::<P>(&mut target, first, strips, steps, b, a.columns());
        }
    });
}

/// Rows `first ..` in strips, as many as there are `steps`, and what the steps of each are worth, times `scale`.
pub(super) fn interleave_strips<P: RoundedProduct>(
    a: Matrix<'_>,
    first: usize,
    scale: f32,
    out: &mut [u32],
    steps: &mut [f32],
) {
    let lines = P::strip_lines(a.columns());
    vectorized!({
        for (i, strip) in out.chunks_mut(P::STRIP_ROWS * lines).enumerate() {
            let n = strip.len() / lines;
            for j in 0..n {
                let row = i * P::STRIP_ROWS + j;
                steps[row] = scale * P::interleave_row(a.row(first + row), j, n, strip);
            }
        }
    });
}

/// All panels times strips of so many columns that go to `target` from row `first` on.
pub(super) fn multiply_strips<P: RoundedProduct>(
    target: &mut Target<'_>,
    first: usize,
    strips: &[u32],
    steps: &[f32],
    b: RoundedPanels<'_>,
    columns: usize,
) {
    let (strip_lines, panel_lines) = (P::strip_lines(columns), P::panel_lines(columns));
    let n_blocks = panel_lines.div_ceil(P::LINES_PER_BLOCK);
    for block in 0..n_blocks {
        // Equally long but for the last.
        let lines_of_block = |lines: usize| {
            let len = lines.div_ceil(n_blocks);
            block * len..lines.min((block + 1) * len)
        };
        let (of_strip, of_panel) = (lines_of_block(strip_lines), lines_of_block(panel_lines));
        let destination = if block == 0 { target.destination } else { Destination::Accumulate };
        let panels = b
            .numbers
            .chunks_exact(P::WIDTH * panel_lines)
            .map(|panel| &panel[of_panel.start * P::WIDTH..of_panel.end * P::WIDTH]);
        let next_panels = panels.clone().skip(1).chain([&[][..]]);
        for (index, (panel, next_panel)) in panels.zip(next_panels).enumerate() {
            let column = index * P::WIDTH;
            let n_columns = P::WIDTH.min(b.n - column);
            let scales = b.scales.map_or(&UNSCALED[..n_columns], |scales| &scales[column..][..n_columns]);
            let mut next_panel = next_panel.chunks(next_panel.len().div_ceil(STRIPS_PER_FETCH).max(1));
            for (i, strip) in strips.chunks(P::STRIP_ROWS * strip_lines).enumerate() {
                let (row, n_rows) = (i * P::STRIP_ROWS, strip.len() / strip_lines);
                let mut tile = Tile {
                    out: &mut target.out[(first + row) * target.row_stride + column..],
                    row_stride: target.row_stride,
                    destination,
                    steps: &steps[row..][..n_rows],
                    scales,
                };
                prefetch(next_panel.next().unwrap_or_default());
                tile.prefetch();
                multiply_any_tile::<P>(
                    &mut tile,
                    &strip[of_strip.start * n_rows..of_strip.end * n_rows],
                    panel,
                );
            }
        }
    }
}

fn multiply_any_tile<P: RoundedProduct>(tile: &mut Tile<'_>, strip: &[u32], panel: &[u32]) {
    match tile.steps.len() {
        1 => P::multiply_tile::<1>(tile, strip, panel),
        2 => P::multiply_tile::<2>(tile, strip, panel),
        3 => P::multiply_tile::<3>(tile, strip, panel),
        4 => P::multiply_tile::<4>(tile, strip, panel),
        5 => P::multiply_tile::<5>(tile, strip, panel),
        6 => P::multiply_tile::<6>(tile, strip, panel),
        7 => P::multiply_tile::<7>(tile, strip, panel),
        8 => P::multiply_tile::<8>(tile, strip, panel),
        9 => P::multiply_tile::<9>(tile, strip, panel),
        10 => P::multiply_tile::<10>(tile, strip, panel),
        11 => P::multiply_tile::<11>(tile, strip, panel),
        _ => P::multiply_tile::<12>(tile, strip, panel),
    }
}

/// As an integer: NaN is larger than every number.
#[inline(always)]
pub(super) fn largest_magnitude(values: &[f32]) -> u32 {
    values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff))
}

/// Of integers up to `largest`: steps per 1, and what a step is worth, NaN where a value is not finite.
#[inline(always)]
pub(super) fn steps_and_step(magnitude: u32, largest: f32) -> (f32, f32) {
    let step = f32::from_bits(magnitude) / largest;
    (if step > 0.0 { 1.0 / step } else { 0.0 }, if step.is_finite() { step } else { f32::NAN })
}

/// To be called with each line of a panel that is multiplied with `R` rows.
#[inline(always)]
pub(super) fn prefetch_panel<const R: usize>(line: &[u32]) {
    if R <= FEW_ROWS {
        prefetch_after::<BYTES_AHEAD, _>(line);
    }
}

/// Where one strip times one panel goes.
pub(super) struct Tile<'a> {
    pub(super) out: &'a mut [f32],
    pub(super) row_stride: usize,
    pub(super) destination: Destination,
    /// What the steps of the strip's rows are worth.
    pub(super) steps: &'a [f32],
    /// Of the panel's columns, fewer than it has at the right edge.
    pub(super) scales: &'a [f32],
}

impl Tile<'_> {
    fn prefetch(&self) {
        for i in 0..self.steps.len() {
            prefetch(&self.out[i * self.row_stride..][..self.scales.len()]);
        }
    }

    /// Rows of sums of products in steps of both operands.
    #[inline(always)]
    pub(super) fn store<const W: usize>(&mut self, sums: impl IntoIterator<Item = [f32; W]>) {
        for (i, (sums, step)) in sums.into_iter().zip(self.steps).enumerate() {
            let out = &mut self.out[i * self.row_stride..];
            match (out.first_chunk_mut::<W>(), self.scales.first_chunk::<W>()) {
                // Of a length that the compiler knows.
                (Some(out), Some(scales)) => store_row(out, &sums, scales, *step, self.destination),
                _ => store_row(out, &sums, self.scales, *step, self.destination),
            }
        }
    }
}

#[inline(always)]
fn store_row(out: &mut [f32], sums: &[f32], scales: &[f32], step: f32, destination: Destination) {
    let values = sums.iter().zip(scales).map(|(sum, scale)| sum * scale * step);
    match destination {
        Destination::Overwrite => out.iter_mut().zip(values).for_each(|(out, value)| *out = value),
        Destination::Accumulate => out.iter_mut().zip(values).for_each(|(out, value)| *out += value),
    }
}
