//! The loops around micro-kernels whose operands are quantized: a 32-bit number holds two bfloat16 or four 8-bit values of a row, and
//! one instruction multiplies them with as many of a column and adds the products up.
//!
//! Micro-panels are as in f32, one line of MR or NR numbers after the other along the inner dimension.

use pulp::bytemuck::cast_slice_mut;

use super::output::{Output, Store};
use crate::matrix::MatrixView;
use crate::scratch::with_scratch;
use crate::simd::{prefetch, prefetch_after, vectorized};

/// Panels of A that pass while the next panel of B is fetched. With fewer, only its beginning is: more at a time would delay what is
/// needed now.
const PANELS_PER_FETCH: usize = 16;
/// So few rows use a panel of B up faster than the processor's own prefetching follows.
const FEW_ROWS: usize = 4;
/// How far ahead of them is fetched.
const BYTES_AHEAD: usize = 4096;

/// A quantization and the instructions that multiply it.
pub(crate) trait MicroKernel {
    /// Rows of a micro-panel of A, at most 12.
    const MR: usize;
    /// Columns of a micro-panel of B, at most 32.
    const NR: usize;

    /// Lines of a micro-panel of A with inner dimension `k`.
    fn a_lines(k: usize) -> usize;

    /// Lines of a micro-panel of B with inner dimension `k`.
    fn b_lines(k: usize) -> usize;

    /// Quantizes a row into place `i` of each line of a micro-panel of A that is `width` wide.
    fn pack_a_row(row: &[f32], i: usize, width: usize, panel: &mut [u32]);

    /// Multiplies a micro-panel of A with `R` rows and one of B.
    fn multiply<const R: usize>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]);
}

/// `out = a b` or `out += a b` with the micro-panels of B; packs `rows_per_block` rows of A at a time.
pub(crate) fn gemm<K: MicroKernel>(
    mut out: Output<'_>,
    a: MatrixView<'_>,
    b: &[u32],
    n: usize,
    rows_per_block: usize,
) {
    let k = a.n_columns();
    let (a_lines, b_lines) = (K::a_lines(k), K::b_lines(k));
    with_scratch(rows_per_block * a_lines, |scratch| {
        let packed_a: &mut [u32] = cast_slice_mut(scratch);
        for first in (0..a.n_rows()).step_by(rows_per_block) {
            let n_rows = rows_per_block.min(a.n_rows() - first);
            let packed_a = &mut packed_a[..n_rows * a_lines];
            vectorized!({
                for (index, panel) in packed_a.chunks_mut(K::MR * a_lines).enumerate() {
                    let width = panel.len() / a_lines;
                    for i in 0..width {
                        K::pack_a_row(a.row(first + index * K::MR + i), i, width, panel);
                    }
                }
            });
            multiply_block::<K>(&mut out, first, packed_a, a_lines, b, b_lines, n);
        }
    });
}

/// A block of packed rows of A times all of B, to rows `first ..` of `out`.
fn multiply_block<K: MicroKernel>(
    out: &mut Output<'_>,
    first: usize,
    packed_a: &[u32],
    a_lines: usize,
    b: &[u32],
    b_lines: usize,
    n: usize,
) {
    let b_panels = b.chunks_exact(K::NR * b_lines);
    let next_panels = b_panels.clone().skip(1).chain([&[][..]]);
    for (index, (b_panel, next_panel)) in b_panels.zip(next_panels).enumerate() {
        let column = index * K::NR;
        let mut to_fetch = next_panel.chunks(next_panel.len().div_ceil(PANELS_PER_FETCH).max(1));
        for (i, a_panel) in packed_a.chunks(K::MR * a_lines).enumerate() {
            let mut tile = Tile {
                out: &mut out.data[(first + i * K::MR) * out.row_stride + column..],
                row_stride: out.row_stride,
                store: out.store,
                n_rows: a_panel.len() / a_lines,
                n_columns: K::NR.min(n - column),
            };
            prefetch(to_fetch.next().unwrap_or_default());
            tile.prefetch();
            multiply_tile::<K>(&mut tile, a_panel, b_panel);
        }
    }
}

fn multiply_tile<K: MicroKernel>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]) {
    match tile.n_rows {
        1 => K::multiply::<1>(tile, a, b),
        2 => K::multiply::<2>(tile, a, b),
        3 => K::multiply::<3>(tile, a, b),
        4 => K::multiply::<4>(tile, a, b),
        5 => K::multiply::<5>(tile, a, b),
        6 => K::multiply::<6>(tile, a, b),
        7 => K::multiply::<7>(tile, a, b),
        8 => K::multiply::<8>(tile, a, b),
        9 => K::multiply::<9>(tile, a, b),
        10 => K::multiply::<10>(tile, a, b),
        11 => K::multiply::<11>(tile, a, b),
        _ => K::multiply::<12>(tile, a, b),
    }
}

/// A micro-kernel calls this with each line of a micro-panel of B that it multiplies with `R` rows.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of an inner loop")]
pub(crate) fn prefetch_ahead<const R: usize>(line: &[u32]) {
    if R <= FEW_ROWS {
        prefetch_after::<BYTES_AHEAD, _>(line);
    }
}

/// Where the product of two micro-panels is written.
pub(crate) struct Tile<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) row_stride: usize,
    pub(crate) store: Store,
    pub(crate) n_rows: usize,
    /// At the right edge fewer than a micro-panel of B has.
    pub(crate) n_columns: usize,
}

impl Tile<'_> {
    fn prefetch(&self) {
        for i in 0..self.n_rows {
            prefetch(&self.out[i * self.row_stride..][..self.n_columns]);
        }
    }

    /// Writes rows of the product, of `W` columns at most.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled for the instruction set of the micro-kernel")]
    pub(crate) fn store<const W: usize>(&mut self, rows: impl IntoIterator<Item = [f32; W]>) {
        for (i, row) in rows.into_iter().take(self.n_rows).enumerate() {
            let out = &mut self.out[i * self.row_stride..];
            match out.first_chunk_mut::<W>() {
                // A length that the compiler knows.
                Some(out) if self.n_columns == W => store_row(out, &row, self.store),
                _ => store_row(&mut out[..self.n_columns], &row, self.store),
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled for the instruction set of the micro-kernel")]
fn store_row(out: &mut [f32], row: &[f32], store: Store) {
    match store {
        Store::Overwrite => out.iter_mut().zip(row).for_each(|(out, value)| *out = *value),
        Store::Accumulate => out.iter_mut().zip(row).for_each(|(out, value)| *out += value),
    }
}
