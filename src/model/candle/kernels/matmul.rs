//! Matrix products over slices: a bounds-checked front of the `gemm` crate, which candle uses too.

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

    /// `n` of its rows, from row `first` on; of a matrix that is not transposed.
    pub(super) fn rows(self, first: usize, n: usize) -> Self {
        Self::new(&self.data[first * self.row_stride..], n, self.columns, self.row_stride)
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
}

/// What becomes of the values that the destination holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// They are replaced.
    Overwrite,
    /// The product is added to them.
    Accumulate,
}

/// `out = scale * a b`, or `out += scale * a b`; `out` is row-major with rows `out_row_stride` elements apart.
/// Runs on `n_threads` threads of the current rayon pool.
pub(super) fn multiply(
    out: &mut [f32],
    out_row_stride: usize,
    destination: Destination,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    n_threads: usize,
) {
    assert_eq!(a.columns, b.rows, "inner dimensions differ");
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * out_row_stride + n <= out.len(), "product reaches past its slice");
    assert!(n <= out_row_stride || m == 1, "rows of the product overlap");
    let parallelism =
        if n_threads > 1 { gemm::Parallelism::Rayon(n_threads) } else { gemm::Parallelism::None };
    // SAFETY: gemm reads a at i * row_stride + j * column_stride for i < m, j < k and b likewise, both inside their
    // slices by the check in `Matrix::new` (transposing swaps the bounds with the strides), and writes `out` at
    // i * out_row_stride + j for i < m, j < n, inside and disjoint by the checks above; `out` is borrowed mutably, so
    // it overlaps neither. Strides of slices fit in isize.
    #[expect(unsafe_code, reason = "gemm's interface is pointers and strides; checked above")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_row_stride as isize,
            destination == Destination::Accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_match_the_definition_for_every_stride() {
        let data: Vec<f32> = (0..200).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect();
        for (m, k, n, a_stride, b_stride, out_stride) in [
            (1, 1, 1, 1, 1, 1),
            (3, 5, 4, 5, 4, 4),
            (3, 5, 4, 9, 7, 6),
            (1, 13, 8, 13, 8, 8),
            (7, 2, 1, 2, 1, 3),
        ] {
            let a = Matrix::new(&data, m, k, a_stride);
            let b = Matrix::new(&data[50..], k, n, b_stride);
            let mut out = vec![1.0; m * out_stride];
            multiply(&mut out, out_stride, Destination::Accumulate, 0.5, a, b, 1);
            for i in 0..m {
                for j in 0..n {
                    let dot: f32 = (0..k).map(|t| data[i * a_stride + t] * data[50 + t * b_stride + j]).sum();
                    let got = out[i * out_stride + j];
                    assert!((got - (1.0 + 0.5 * dot)).abs() < 1e-4, "{m}x{k}x{n} at {i},{j}: {got}");
                }
            }
            let mut transposed = vec![f32::NAN; n * m];
            multiply(&mut transposed, m, Destination::Overwrite, 0.5, b.transposed(), a.transposed(), 1);
            for i in 0..m {
                for j in 0..n {
                    assert!((transposed[j * m + i] + 1.0 - out[i * out_stride + j]).abs() < 1e-4);
                }
            }
        }
    }
}
