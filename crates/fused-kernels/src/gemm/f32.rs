//! Products in f32. Large ones are the `gemm` crate's, which no kernel of ours was faster than (see the README); for the few rows of a
//! decoding step there is a loop that reads the weights once.

use super::output::{Output, Store};
use crate::matrix::MatrixView;
use crate::simd::vectorized;

/// `out = a b` or `out += a b` on up to `n_threads` threads.
pub(crate) fn gemm(mut out: Output<'_>, a: MatrixView<'_>, b: MatrixView<'_>, n_threads: usize) {
    assert_eq!(a.n_columns(), b.n_rows(), "inner dimensions differ");
    let (m, k, n) = (a.n_rows(), a.n_columns(), b.n_columns());
    if !out.prepare(m, k, n) {
        return;
    }
    let parallelism =
        if n_threads > 1 { gemm::Parallelism::Rayon(n_threads) } else { gemm::Parallelism::None };
    let (a_rows, a_columns) = a.strides();
    let (b_rows, b_columns) = b.strides();
    // SAFETY: `MatrixView` keeps its elements inside its slice, `prepare` those of the product inside of `out`, which is borrowed
    // mutably and so overlaps neither.
    #[expect(unsafe_code, reason = "the crate takes pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            out.store == Store::Accumulate,
            a.data().as_ptr(),
            a_columns as isize,
            a_rows as isize,
            b.data().as_ptr(),
            b_columns as isize,
            b_rows as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Rows of x for which a row of the weight is read at once.
const ROWS_AT_ONCE: usize = 4;

/// `out = x w^T` for a few rows of x and a weight [out, in]; reads the weight once.
pub(crate) fn multiply_few_rows(mut out: Output<'_>, x: MatrixView<'_>, w: MatrixView<'_>) {
    if !out.prepare(x.n_rows(), x.n_columns(), w.n_rows()) {
        return;
    }
    vectorized!({
        for first in (0..x.n_rows()).step_by(ROWS_AT_ONCE) {
            let rows = &mut out.data[first * out.row_stride..];
            match x.n_rows() - first {
                1 => multiply_rows::<1>(rows, out.row_stride, x, first, w),
                2 => multiply_rows::<2>(rows, out.row_stride, x, first, w),
                3 => multiply_rows::<3>(rows, out.row_stride, x, first, w),
                _ => multiply_rows::<ROWS_AT_ONCE>(rows, out.row_stride, x, first, w),
            }
        }
    });
}

#[inline(always)]
fn multiply_rows<const R: usize>(
    out: &mut [f32],
    row_stride: usize,
    x: MatrixView<'_>,
    first: usize,
    w: MatrixView<'_>,
) {
    const LANES: usize = 32;
    let x: [(&[[f32; LANES]], &[f32]); R] = std::array::from_fn(|i| x.row(first + i).as_chunks());
    for j in 0..w.n_rows() {
        let (w_chunks, w_rest) = w.row(j).as_chunks::<LANES>();
        let mut sums = [[0.0; LANES]; R];
        for (t, w) in w_chunks.iter().enumerate() {
            for (sums, x) in sums.iter_mut().zip(&x) {
                for ((sum, w), x) in sums.iter_mut().zip(w).zip(&x.0[t]) {
                    *sum += w * x;
                }
            }
        }
        for (i, (sums, x)) in sums.iter().zip(&x).enumerate() {
            let rest: f32 = w_rest.iter().zip(x.1).map(|(w, x)| w * x).sum();
            out[i * row_stride + j] = sums.iter().sum::<f32>() + rest;
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
            let a = MatrixView::new(&data, m, k, a_stride);
            let b = MatrixView::new(&data[50..], k, n, b_stride);
            let mut out = vec![1.0; m * out_stride];
            gemm(Output { data: &mut out, row_stride: out_stride, store: Store::Accumulate }, a, b, 1);
            for i in 0..m {
                for j in 0..out_stride {
                    let dot: f32 = (0..k).map(|t| data[i * a_stride + t] * data[50 + t * b_stride + j]).sum();
                    let expected = if j < n { 1.0 + dot } else { 1.0 };
                    let got = out[i * out_stride + j];
                    assert!((got - expected).abs() < 1e-4, "{m}x{k}x{n} at {i},{j}: {got}, not {expected}");
                }
            }
            let mut transposed = vec![f32::NAN; n * m];
            gemm(Output::overwrite(&mut transposed, m), b.transposed(), a.transposed(), 1);
            for i in 0..m {
                for j in 0..n {
                    assert!((transposed[j * m + i] + 1.0 - out[i * out_stride + j]).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn products_with_few_rows_match_the_definition() {
        let data: Vec<f32> = (0..9000).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect();
        for (m, k, n) in [(1, 1, 1), (2, 31, 3), (3, 64, 40), (5, 70, 33), (9, 40, 2)] {
            let (x, w) = (MatrixView::new(&data, m, k, k), MatrixView::new(&data[7..], n, k, k));
            let mut out = vec![f32::NAN; m * n];
            multiply_few_rows(Output::overwrite(&mut out, n), x, w);
            for i in 0..m {
                for j in 0..n {
                    let dot: f32 = x.row(i).iter().zip(w.row(j)).map(|(x, w)| x * w).sum();
                    assert!((out[i * n + j] - dot).abs() < 1e-3, "{m}x{k}x{n} at {i},{j}");
                }
            }
        }
    }
}
