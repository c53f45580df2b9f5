//! A read-only matrix in a slice, and the packing of its rows for a micro-kernel.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of its caller"
)]

use std::ops::Range;

/// A matrix with strides, both in elements; one of them is 1.
#[derive(Clone, Copy)]
pub(crate) struct MatrixView<'a> {
    data: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> MatrixView<'a> {
    /// A matrix whose rows are contiguous and begin `row_stride` elements apart.
    pub(crate) fn new(data: &'a [f32], n_rows: usize, n_columns: usize, row_stride: usize) -> Self {
        if n_rows > 0 && n_columns > 0 {
            assert!((n_rows - 1) * row_stride + n_columns <= data.len(), "matrix reaches past its slice");
        }
        Self { data, n_rows, n_columns, row_stride, column_stride: 1 }
    }

    /// The transposed matrix; no data moves.
    pub(crate) fn transposed(self) -> Self {
        Self {
            n_rows: self.n_columns,
            n_columns: self.n_rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Some rows of a matrix that is not transposed.
    pub(crate) fn rows(self, rows: Range<usize>) -> Self {
        Self::new(&self.data[rows.start * self.row_stride..], rows.len(), self.n_columns, self.row_stride)
    }

    /// Some columns of a matrix that is not transposed.
    pub(crate) fn columns(self, columns: Range<usize>) -> Self {
        Self::new(&self.data[columns.start..], self.n_rows, columns.len(), self.row_stride)
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(crate) fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// The slice that element (0, 0) begins.
    pub(crate) fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Elements between neighbors in a column, and in a row.
    pub(crate) fn strides(&self) -> (usize, usize) {
        (self.row_stride, self.column_stride)
    }

    /// One row of a matrix that is not transposed.
    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> &'a [f32] {
        assert!(self.column_stride == 1 && index < self.n_rows, "rows are contiguous");
        &self.data[index * self.row_stride..][..self.n_columns]
    }

    /// Packs rows `first .. first + n` as a micro-panel [columns, width], times `scale`; places from `n` to `width` become zero.
    #[inline(always)]
    pub(crate) fn pack(&self, first: usize, n: usize, width: usize, scale: f32, panel: &mut [f32]) {
        assert!(first + n <= self.n_rows && n <= width && panel.len() == width * self.n_columns);
        if n < width {
            panel.fill(0.0);
        }
        if self.column_stride == 1 {
            for i in 0..n {
                let row = &self.data[(first + i) * self.row_stride..][..self.n_columns];
                for (line, value) in panel.chunks_exact_mut(width).zip(row) {
                    line[i] = value * scale;
                }
            }
        } else {
            assert_eq!(self.row_stride, 1, "one of the strides is 1");
            for (t, line) in panel.chunks_exact_mut(width).enumerate() {
                let values = &self.data[t * self.column_stride + first..][..n];
                for (place, value) in line.iter_mut().zip(values) {
                    *place = value * scale;
                }
            }
        }
    }
}
