//! Matrix products over slices, in safe code that is compiled for each instruction set and chosen at run time.
//!
//! Both operands are first laid out the way the inner loop reads them: the left one in strips of a few rows, the right one
//! in panels of a few columns, each with its inner dimension outermost. A strip times a panel stays in registers. The
//! panels of a weight never change: [`super::PackedMatrix`] makes them once.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use std::sync::OnceLock;

use pulp::{Simd, WithSimd};

use super::linear::with_scratch;
use super::math::{arch, vectorized};
use super::rounded::RoundedPanels;
use super::{bf16, int8, int16};

/// Rows of the left matrix that are laid out at a time: its strips stay in a core's cache while all panels pass.
const ROWS_PER_BLOCK: usize = 96;

/// A read-only matrix in a slice, with strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows lie `row_stride` elements apart, each contiguous.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * row_stride + columns <= data.len(), "matrix reaches past its slice");
        }
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed matrix; no data moves.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Some of its rows; of a matrix that is not transposed.
    pub(super) fn some_rows(self, rows: std::ops::Range<usize>) -> Self {
        Self::new(&self.data[rows.start * self.row_stride..], rows.len(), self.columns, self.row_stride)
    }

    /// Some of its columns; of a matrix that is not transposed.
    pub(super) fn some_columns(self, columns: std::ops::Range<usize>) -> Self {
        Self::new(&self.data[columns.start..], self.rows, columns.len(), self.row_stride)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// One row of a matrix that is not transposed.
    #[inline(always)]
    pub(super) fn row(&self, index: usize) -> &'a [f32] {
        assert!(self.column_stride == 1 && index < self.rows, "rows are contiguous");
        &self.data[index * self.row_stride..][..self.columns]
    }

    /// Rows `first .. first + n` beside each other: row `first + i`, column `t` goes to `out[t * width + i]`, times `scale`;
    /// zeros for i from n to `width`. Called inside of `dispatch`.
    #[inline(always)]
    pub(super) fn interleave(&self, first: usize, n: usize, width: usize, scale: f32, out: &mut [f32]) {
        assert!(first + n <= self.rows && n <= width && out.len() == width * self.columns);
        if n < width {
            out.fill(0.0);
        }
        if self.column_stride == 1 {
            for i in 0..n {
                let row = &self.data[(first + i) * self.row_stride..][..self.columns];
                for (out, value) in out.chunks_exact_mut(width).zip(row) {
                    out[i] = value * scale;
                }
            }
        } else {
            // One of the strides is 1.
            for (t, out) in out.chunks_exact_mut(width).enumerate() {
                let values = &self.data[t * self.column_stride + first..][..n];
                for (out, value) in out.iter_mut().zip(values) {
                    *out = value * scale;
                }
            }
        }
    }
}

/// What becomes of the values that the destination holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// They are replaced.
    Overwrite,
    /// The product is added to them.
    Accumulate,
}

/// Rows of a strip and columns of a panel: what the registers of an instruction set hold.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// This machine's.
pub(super) fn tile() -> Tile {
    struct Ask;
    impl WithSimd for Ask {
        type Output = Tile;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Tile {
            Tile { rows: strip_rows::<S>(), columns: panel_columns::<S>() }
        }
    }
    static TILE: OnceLock<Tile> = OnceLock::new();
    *TILE.get_or_init(|| arch().dispatch(Ask))
}

#[inline(always)]
pub(super) const fn panel_columns<S: Simd>() -> usize {
    2 * S::F32_LANES
}

/// With two registers for a row, two for the panel and one for the strip: of 32 registers, or of AVX2's 16.
#[inline(always)]
pub(super) const fn strip_rows<S: Simd>() -> usize {
    if S::F32_LANES == 8 { 6 } else { 12 }
}

/// The right operand of products, `[k, n]`, in panels.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub(super) values: PanelValues<'a>,
    pub(super) k: usize,
    pub(super) n: usize,
}

#[derive(Clone, Copy)]
pub(super) enum PanelValues<'a> {
    /// `[n / panel columns, k, panel columns]`
    F32(&'a [f32]),
    /// `[n / panel columns, k / 2, panel columns]` with those of `bf16`, two values of a column in each number.
    Bf16(&'a [u32]),
    /// Likewise with those of `int16`; beside them the scale of each column.
    Int16(&'a [u32], &'a [f32]),
    /// Those of `int8`, four values of a column in each number.
    Int8(&'a [u32]),
}

impl Panels<'_> {
    /// Columns of each panel.
    pub(super) fn width(&self) -> usize {
        match self.values {
            PanelValues::F32(_) => tile().columns,
            PanelValues::Bf16(_) => bf16::panel_columns(),
            PanelValues::Int16(..) => int16::panel_columns(),
            PanelValues::Int8(_) => int8::panel_columns(),
        }
    }

    /// Those of columns `first .. first + n`; `first` begins a panel.
    pub(super) fn columns(self, first: usize, n: usize) -> Self {
        let width = self.width();
        assert!(first.is_multiple_of(width) && first + n <= self.n);
        let (start, len, pairs) = (first, n.next_multiple_of(width), self.k.div_ceil(2));
        let values = match self.values {
            PanelValues::F32(values) => PanelValues::F32(&values[start * self.k..][..len * self.k]),
            PanelValues::Bf16(values) => PanelValues::Bf16(&values[start * pairs..][..len * pairs]),
            PanelValues::Int16(values, scales) => {
                PanelValues::Int16(&values[start * pairs..][..len * pairs], &scales[start..][..len])
            }
            PanelValues::Int8(values) => {
                let lines = int8::panel_lines(self.k);
                PanelValues::Int8(&values[start * lines..][..len * lines])
            }
        };
        Self { values, k: self.k, n }
    }
}

/// Length of the panels of a matrix `[k, n]` in f32.
pub(super) fn panels_len(k: usize, n: usize) -> usize {
    n.next_multiple_of(tile().columns) * k
}

/// Lays a matrix `[k, n]`, given transposed, out in panels.
pub(super) fn pack_panels(transposed: Matrix<'_>, out: &mut [f32]) {
    let width = tile().columns;
    let (k, n) = (transposed.columns, transposed.rows);
    assert_eq!(out.len(), panels_len(k, n));
    if k == 0 {
        return;
    }
    vectorized!({
        for (panel, out) in out.chunks_exact_mut(width * k).enumerate() {
            let first = panel * width;
            transposed.interleave(first, width.min(n - first), width, 1.0, out);
        }
    });
}

/// `out = scale * a b`, or `out += scale * a b`; `out` is row-major with rows `out_row_stride` elements apart. On this thread.
pub(super) fn multiply(
    out: &mut [f32],
    out_row_stride: usize,
    destination: Destination,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    assert_eq!(a.columns, b.rows, "inner dimensions differ");
    let (k, n) = (b.rows, b.columns);
    with_scratch(panels_len(k, n), |panels| {
        pack_panels(b.transposed(), panels);
        multiply_panels(
            out,
            out_row_stride,
            destination,
            scale,
            a,
            Panels { values: PanelValues::F32(panels), k, n },
        );
    });
}

/// [`multiply`] with a right operand that is laid out already.
pub(super) fn multiply_panels(
    out: &mut [f32],
    out_row_stride: usize,
    destination: Destination,
    scale: f32,
    a: Matrix<'_>,
    b: Panels<'_>,
) {
    assert_eq!(a.columns, b.k, "inner dimensions differ");
    if a.rows == 0 || b.n == 0 {
        return;
    }
    assert!((a.rows - 1) * out_row_stride + b.n <= out.len(), "product reaches past its slice");
    assert!(b.n <= out_row_stride || a.rows == 1, "rows of the product overlap");
    if b.k == 0 {
        if destination == Destination::Overwrite {
            out.chunks_mut(out_row_stride).take(a.rows).for_each(|row| row[..b.n].fill(0.0));
        }
        return;
    }
    let rows = a.rows.min(ROWS_PER_BLOCK.next_multiple_of(tile().rows));
    let target = Target { out, row_stride: out_row_stride, destination };
    match b.values {
        PanelValues::F32(panels) => with_scratch(rows * b.k, |strips| {
            arch().dispatch(Product { target, scale, a, panels, n: b.n, strips });
        }),
        PanelValues::Bf16(numbers) => {
            bf16::multiply(target, scale, a, RoundedPanels { numbers, scales: None, n: b.n }, rows);
        }
        PanelValues::Int16(numbers, scales) => {
            int16::multiply(target, scale, a, RoundedPanels { numbers, scales: Some(scales), n: b.n }, rows);
        }
        PanelValues::Int8(numbers) => {
            int8::multiply(target, scale, a, RoundedPanels { numbers, scales: None, n: b.n }, rows);
        }
    }
}

/// Rows `first ..` in strips, `[rows / strip rows, k, strip rows]`, the last one narrower; as many as `out` has room for.
#[inline(always)]
pub(super) fn interleave_strips(a: Matrix<'_>, first: usize, strip_rows: usize, scale: f32, out: &mut [f32]) {
    for (strip, out) in out.chunks_mut(strip_rows * a.columns).enumerate() {
        let n = out.len() / a.columns;
        a.interleave(first + strip * strip_rows, n, n, scale, out);
    }
}

/// Where a product goes.
pub(super) struct Target<'a> {
    pub(super) out: &'a mut [f32],
    pub(super) row_stride: usize,
    pub(super) destination: Destination,
}

/// A product of all of one panel, in place of whatever is there.
#[inline(always)]
pub(super) fn whole_panel(out: &mut [f32], width: usize) -> Target<'_> {
    Target { out, row_stride: width, destination: Destination::Overwrite }
}

struct Product<'a> {
    target: Target<'a>,
    scale: f32,
    a: Matrix<'a>,
    panels: &'a [f32],
    n: usize,
    /// Room for the strips of one block of rows.
    strips: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mut target, scale, a, panels, n, strips } = self;
        let (k, width) = (a.columns, panel_columns::<S>());
        let rows_per_block = strips.len() / k;
        for first in (0..a.rows).step_by(rows_per_block) {
            let strips = &mut strips[..rows_per_block.min(a.rows - first) * k];
            interleave_strips(a, first, strip_rows::<S>(), scale, strips);
            for (panel, values) in panels.chunks_exact(width * k).enumerate() {
                let column = panel * width;
                multiply_strips(simd, &mut target, first, column, width.min(n - column), strips, values, k);
            }
        }
    }
}

/// All strips of some rows times one panel, to `target` from (`row`, `column`) on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "an inner loop")]
pub(super) fn multiply_strips<S: Simd>(
    simd: S,
    target: &mut Target<'_>,
    row: usize,
    column: usize,
    n_columns: usize,
    strips: &[f32],
    panel: &[f32],
    k: usize,
) {
    for (i, strip) in strips.chunks(strip_rows::<S>() * k).enumerate() {
        let row = row + i * strip_rows::<S>();
        let mut target = TileTarget {
            out: &mut target.out[row * target.row_stride + column..],
            row_stride: target.row_stride,
            n_columns,
            destination: target.destination,
        };
        // The compiler drops the arms that an instruction set's strips cannot reach.
        match strip.len() / k {
            1 => multiply_tile::<S, 1>(simd, &mut target, strip, panel),
            2 => multiply_tile::<S, 2>(simd, &mut target, strip, panel),
            3 => multiply_tile::<S, 3>(simd, &mut target, strip, panel),
            4 => multiply_tile::<S, 4>(simd, &mut target, strip, panel),
            5 => multiply_tile::<S, 5>(simd, &mut target, strip, panel),
            6 => multiply_tile::<S, 6>(simd, &mut target, strip, panel),
            7 => multiply_tile::<S, 7>(simd, &mut target, strip, panel),
            8 => multiply_tile::<S, 8>(simd, &mut target, strip, panel),
            9 => multiply_tile::<S, 9>(simd, &mut target, strip, panel),
            10 => multiply_tile::<S, 10>(simd, &mut target, strip, panel),
            11 => multiply_tile::<S, 11>(simd, &mut target, strip, panel),
            _ => multiply_tile::<S, 12>(simd, &mut target, strip, panel),
        }
    }
}

pub(super) struct TileTarget<'a> {
    pub(super) out: &'a mut [f32],
    pub(super) row_stride: usize,
    /// Fewer than a panel has at the right edge.
    pub(super) n_columns: usize,
    pub(super) destination: Destination,
}

/// One strip of `R` rows times one panel.
#[inline(always)]
fn multiply_tile<S: Simd, const R: usize>(
    simd: S,
    target: &mut TileTarget<'_>,
    strip: &[f32],
    panel: &[f32],
) {
    let mut sums = [[simd.splat_f32s(0.0); 2]; R];
    let (strip, (panel, _)) = (strip.as_chunks::<R>().0, S::as_simd_f32s(panel));
    for (strip, panel) in strip.iter().zip(panel.as_chunks::<2>().0) {
        for (sums, value) in sums.iter_mut().zip(strip) {
            let value = simd.splat_f32s(*value);
            sums[0] = simd.mul_add_e_f32s(value, panel[0], sums[0]);
            sums[1] = simd.mul_add_e_f32s(value, panel[1], sums[1]);
        }
    }
    store_tile(simd, target, sums);
}

#[inline(always)]
pub(super) fn store_tile<S: Simd, const R: usize>(
    simd: S,
    target: &mut TileTarget<'_>,
    sums: [[S::f32s; 2]; R],
) {
    let width = panel_columns::<S>();
    for (i, sums) in sums.into_iter().enumerate() {
        let out = &mut target.out[i * target.row_stride..][..target.n_columns];
        if out.len() == width {
            let (out, _) = S::as_mut_simd_f32s(out);
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = match target.destination {
                    Destination::Overwrite => sum,
                    Destination::Accumulate => simd.add_f32s(*out, sum),
                };
            }
        } else {
            // Twice the lanes of the widest instruction set.
            let mut values = [0.0; 64];
            let (vectors, _) = S::as_mut_simd_f32s(&mut values[..width]);
            vectors.copy_from_slice(&sums);
            for (out, value) in out.iter_mut().zip(values) {
                match target.destination {
                    Destination::Overwrite => *out = value,
                    Destination::Accumulate => *out += value,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_match_the_definition_for_every_stride_and_rest() {
        let data: Vec<f32> = (0..9000).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect();
        for (m, k, n, a_stride, b_stride, out_stride) in [
            (1, 1, 1, 1, 1, 1),
            (3, 5, 4, 5, 4, 4),
            (3, 5, 4, 9, 7, 6),
            (1, 13, 8, 13, 8, 8),
            (7, 2, 1, 2, 1, 3),
            (2, 0, 3, 0, 3, 3),
            (25, 9, 33, 10, 40, 35),
            (11, 30, 64, 30, 64, 64),
            (230, 7, 70, 7, 70, 71),
        ] {
            let a = Matrix::new(&data, m, k, a_stride);
            let b = Matrix::new(&data[50..], k, n, b_stride);
            let mut out = vec![1.0; m * out_stride];
            multiply(&mut out, out_stride, Destination::Accumulate, 0.5, a, b);
            for i in 0..m {
                for j in 0..out_stride {
                    let dot: f32 = (0..k).map(|t| data[i * a_stride + t] * data[50 + t * b_stride + j]).sum();
                    let expected = if j < n { 1.0 + 0.5 * dot } else { 1.0 };
                    let got = out[i * out_stride + j];
                    assert!((got - expected).abs() < 1e-4, "{m}x{k}x{n} at {i},{j}: {got}, not {expected}");
                }
            }
            let mut transposed = vec![f32::NAN; n * m];
            multiply(&mut transposed, m, Destination::Overwrite, 0.5, b.transposed(), a.transposed());
            for i in 0..m {
                for j in 0..n {
                    assert!((transposed[j * m + i] + 1.0 - out[i * out_stride + j]).abs() < 1e-4);
                }
            }
        }
    }

    /// What other machines run.
    #[test]
    fn without_vector_instructions_the_product_is_the_same() {
        struct Run<'a>(Matrix<'a>, Matrix<'a>);
        impl WithSimd for Run<'_> {
            type Output = Vec<f32>;
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
                let Self(a, b) = self;
                let width = panel_columns::<S>();
                let mut panels = vec![0.0; b.rows.next_multiple_of(width) * b.columns];
                for (panel, out) in panels.chunks_exact_mut(width * b.columns).enumerate() {
                    let n = width.min(b.rows - panel * width);
                    b.interleave(panel * width, n, width, 1.0, out);
                }
                let mut out = vec![0.0; a.rows * b.rows];
                let mut strips = vec![0.0; 24 * a.columns];
                let target =
                    Target { out: &mut out, row_stride: b.rows, destination: Destination::Overwrite };
                let product =
                    Product { target, scale: 1.0, a, panels: &panels, n: b.rows, strips: &mut strips };
                product.with_simd(simd);
                out
            }
        }
        let data: Vec<f32> = (0..4000).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect();
        let a = Matrix::new(&data, 29, 21, 21);
        let b = Matrix::new(&data, 40, 21, 21);
        let expected = pulp::Scalar.vectorize(Run(a, b));
        let exact =
            |i: usize, j: usize| -> f32 { (0..21).map(|t| data[i * 21 + t] * data[j * 21 + t]).sum() };
        assert!((expected[40 * 3 + 5] - exact(3, 5)).abs() < 1e-4);
        let best = arch().dispatch(Run(a, b));
        assert!(best.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
