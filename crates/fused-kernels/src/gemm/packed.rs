//! Weight matrices in the form in which products read them, made once when a model is loaded, and the choice of a kernel.

use std::ops::Range;

use rayon::prelude::*;

use super::output::Output;
use super::{bf16, f32, int8};
use crate::cpu_features;
use crate::matrix::MatrixView;
use crate::scratch::AlignedVec;
use crate::simd::vectorized;

/// How the numbers of a weight matrix are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// In f32.
    F32,
    /// As bfloat16; products round their other operand too, and sum in f32.
    Bf16,
    /// As 8-bit integers in blocks of 128 along a row, each block with a scale. Products quantize their other operand likewise, and sum
    /// exactly inside a block.
    Int8,
}

impl Precision {
    /// The fastest on this processor, for models that can do with less than f32: bf16 with AMX, int8 without.
    pub fn fastest() -> Self {
        if cpu_features::has_amx_bf16() { Self::Bf16 } else { Self::Int8 }
    }

    /// Whether this processor has instructions for it. Int8 runs everywhere, bf16 with AVX512_BF16 or AMX.
    pub fn is_supported(self) -> bool {
        match self {
            Self::F32 | Self::Int8 => true,
            Self::Bf16 => cpu_features::has_avx512_bf16(),
        }
    }
}

/// Rows of A that are quantized at a time: few enough to stay in a core's second-level cache while all of B passes.
pub(crate) const ROWS_PER_BLOCK: usize = 96;

/// A weight matrix [out, in], which products use transposed.
pub struct PackedMatrix {
    n_out: usize,
    n_in: usize,
    values: Values,
}

enum Values {
    /// [out, in]
    F32(AlignedVec<f32>),
    /// Micro-panels of pairs of bfloat16, [out / NR, in / 2, NR].
    Bf16(AlignedVec<u32>),
    /// Micro-panels of blocks of 8-bit integers.
    Int8(AlignedVec<u32>),
}

impl PackedMatrix {
    /// Copies a weight [`n_out`, `n_in`] to `precision`.
    ///
    /// # Panics
    /// If the slice is not as long as that, or the processor has no instructions for the precision (see [`Precision::is_supported`]).
    pub fn new(weight: &[f32], n_out: usize, n_in: usize, precision: Precision) -> Self {
        assert_eq!(weight.len(), n_out * n_in, "a weight of [{n_out}, {n_in}]");
        assert!(precision.is_supported(), "this processor has no instructions for {precision:?}");
        let weight = MatrixView::new(weight, n_out, n_in, n_in);
        let values = match precision {
            Precision::F32 => {
                let mut values = AlignedVec::new(n_out * n_in);
                values.as_mut_slice().copy_from_slice(weight.data());
                Values::F32(values)
            }
            Precision::Bf16 => Values::Bf16(pack(weight, bf16::NR, bf16::lines(n_in), |first, n, panel| {
                vectorized!(bf16::pack(weight, first, n, bf16::NR, 1.0, panel));
            })),
            Precision::Int8 => {
                let nr = int8::nr();
                Values::Int8(pack(weight, nr, int8::b_lines(n_in), |first, n, panel| {
                    int8::pack_b(weight, first, n, nr, panel);
                }))
            }
        };
        Self { n_out, n_in, values }
    }

    /// [out, in]
    pub fn dims(&self) -> (usize, usize) {
        (self.n_out, self.n_in)
    }

    /// How its numbers are kept.
    pub fn precision(&self) -> Precision {
        match self.values {
            Values::F32(_) => Precision::F32,
            Values::Bf16(_) => Precision::Bf16,
            Values::Int8(_) => Precision::Int8,
        }
    }

    /// The matrix itself, where it is kept in f32.
    pub(crate) fn as_f32(&self) -> Option<MatrixView<'_>> {
        match &self.values {
            Values::F32(values) => Some(MatrixView::new(values.as_slice(), self.n_out, self.n_in, self.n_in)),
            _ => None,
        }
    }

    /// Output rows that a product can begin at are multiples of this.
    pub(crate) fn row_alignment(&self) -> usize {
        match self.values {
            Values::F32(_) => 1,
            Values::Bf16(_) => bf16::NR,
            Values::Int8(_) => int8::nr(),
        }
    }

    /// `out = x w^T` or `out += x w^T` on this thread, with the rows `rows` of w, from a multiple of [`Self::row_alignment`] on.
    pub(crate) fn multiply(&self, mut out: Output<'_>, x: MatrixView<'_>, rows: Range<usize>) {
        let (k, n) = (self.n_in, rows.len());
        assert!(x.n_columns() == k && rows.end <= self.n_out, "inner dimensions differ");
        if !out.prepare(x.n_rows(), k, n) {
            return;
        }
        let align = self.row_alignment();
        assert!(rows.start.is_multiple_of(align));
        let block = x.n_rows().min(ROWS_PER_BLOCK);
        let panels = |lines: usize| rows.start * lines..(rows.start + n.next_multiple_of(align)) * lines;
        match &self.values {
            Values::F32(values) => {
                let w = MatrixView::new(values.as_slice(), self.n_out, k, k);
                f32::gemm(out, x, w.rows(rows).transposed(), 1);
            }
            Values::Bf16(values) => {
                let b = &values.as_slice()[panels(bf16::lines(k))];
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                if x.n_rows() >= super::amx::MIN_ROWS && cpu_features::has_amx_bf16() {
                    return super::amx::gemm(out, x, b, n, block);
                }
                #[cfg(target_arch = "x86_64")]
                super::quantized::gemm::<super::avx512_bf16::Avx512Bf16>(out, x, b, n, block);
                #[cfg(not(target_arch = "x86_64"))]
                unreachable!("`new` made no such matrix: {b:?}");
            }
            Values::Int8(values) => {
                int8::gemm(out, x, &values.as_slice()[panels(int8::b_lines(k))], n, block);
            }
        }
    }
}

/// Micro-panels [out / `nr`, `lines`, `nr`], of which `f(first row, rows, panel)` makes each.
fn pack(
    weight: MatrixView<'_>,
    nr: usize,
    lines: usize,
    f: impl Fn(usize, usize, &mut [u32]) + Sync,
) -> AlignedVec<u32> {
    let n_out = weight.n_rows();
    let mut values = AlignedVec::new(n_out.next_multiple_of(nr) * lines);
    values.as_mut_slice().par_chunks_mut((nr * lines).max(1)).enumerate().for_each(|(index, panel)| {
        f(index * nr, nr.min(n_out - index * nr), panel);
    });
    values
}

#[cfg(test)]
mod tests {
    use super::super::output::Store;
    use super::*;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 30.0 - 1.7).collect()
    }

    /// `1 + x w^T`
    fn one_plus_product(precision: Precision, x: &[f32], w: &[f32], n_in: usize) -> Vec<f32> {
        let (rows, n_out) = (x.len() / n_in, w.len() / n_in);
        let w = PackedMatrix::new(w, n_out, n_in, precision);
        let mut data = vec![1.0; rows * n_out];
        let out = Output { data: &mut data, row_stride: n_out, store: Store::Accumulate };
        w.multiply(out, MatrixView::new(x, rows, n_in, n_in), 0..n_out);
        data
    }

    #[test]
    fn products_in_bfloat16_are_those_of_rounded_operands() {
        if !Precision::Bf16.is_supported() {
            return;
        }
        let rounded = |value: f32| half::bf16::from_f32(value).to_f32();
        for (m, k, n) in [(1, 1, 1), (3, 7, 5), (13, 20, 70), (200, 33, 64), (70, 64, 96), (64, 150, 41)] {
            let (a, w) = (values(m * k, 1), values(n * k, 5));
            let packed = PackedMatrix::new(&w, n, k, Precision::Bf16);
            let x = MatrixView::new(&a, m, k, k);
            let check = |got: &[f32], before: f32| {
                for i in 0..m {
                    for j in 0..n {
                        let dot: f32 = (0..k).map(|t| rounded(a[i * k + t]) * rounded(w[j * k + t])).sum();
                        let (got, expected) = (got[i * n + j], before + dot);
                        assert!((got - expected).abs() < 1e-4, "{m}x{k}x{n} at {i},{j}: {got}, {expected}");
                    }
                }
            };
            for (store, before) in [(Store::Accumulate, 1.0), (Store::Overwrite, 0.0)] {
                let mut data = vec![1.0; m * n];
                packed.multiply(Output { data: &mut data, row_stride: n, store }, x, 0..n);
                check(&data, before);
                // What AMX takes over where it exists.
                #[cfg(target_arch = "x86_64")]
                if let Values::Bf16(b) = &packed.values {
                    let mut data = vec![1.0; m * n];
                    let out = Output { data: &mut data, row_stride: n, store };
                    super::super::quantized::gemm::<super::super::avx512_bf16::Avx512Bf16>(
                        out,
                        x,
                        b.as_slice(),
                        n,
                        64.min(m),
                    );
                    check(&data, before);
                }
            }
        }
    }

    #[test]
    fn products_in_integers_are_near_those_of_f32() {
        // Half a step of each factor; the left one's may be twice as long.
        let half_steps = 0.5 / 127.0 + 1.0 / 127.0;
        for (m, k, n) in [(1, 1, 1), (3, 7, 5), (13, 20, 70), (200, 333, 64)] {
            let (x, w) = (values(m * k, 1), values(n * k, 5));
            let got = one_plus_product(Precision::Int8, &x, &w, k);
            let tolerance = k as f32 * 1.7 * 1.7 * half_steps + 1e-5;
            for i in 0..m {
                for j in 0..n {
                    let dot: f32 = (0..k).map(|t| x[i * k + t] * w[j * k + t]).sum();
                    let got = got[i * n + j];
                    assert!((got - 1.0 - dot).abs() < tolerance, "{m}x{k}x{n} at {i},{j}");
                }
            }
        }
    }

    #[test]
    fn the_largest_integers_do_not_overflow() {
        // With room for the sum of two, 3 is between two steps.
        for (x, w) in [(3.0, 2.0), (3.0, -2.0), (-3.0, 2.0), (-3.0, -2.0)] {
            let got = one_plus_product(Precision::Int8, &[x; 1000], &[w; 1000], 1000)[0];
            assert!((got - 1.0 - x * w * 1000.0).abs() < 60.0, "{got}");
        }
    }

    #[test]
    fn zeros_stay_zeros_in_integers_and_what_is_not_finite_is_not_hidden() {
        assert_eq!(one_plus_product(Precision::Int8, &[0.0; 8], &[0.0; 8], 8), [1.0]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let x = [1.0, bad, 1.0, 1.0, 1.0, 1.0];
            let got = one_plus_product(Precision::Int8, &x, &[1.0, 2.0, 3.0], 3);
            assert!(got[0].is_nan() && (got[1] - 7.0).abs() < 0.1, "{got:?}");
        }
    }

    /// Blocks of 128 values, of very different sizes but of whole steps: nothing is rounded.
    #[test]
    fn every_block_of_8_bits_has_its_own_scale() {
        let n_in = 3 * 128;
        let size = |i: usize| [1e-4, 1.0, 300.0][i / 128];
        let x: Vec<f32> =
            (0..n_in).map(|i| size(i) * if i % 128 == 0 { 127.0 } else { -((i % 5) as f32) }).collect();
        let w: Vec<f32> =
            (0..n_in).map(|i| if i % 128 == 0 { 127.0 } else { (i % 7) as f32 } / size(i)).collect();
        let exact: f32 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
        let got = one_plus_product(Precision::Int8, &x, &w, n_in)[0] - 1.0;
        assert!((got / exact - 1.0).abs() < 1e-5, "{got}, not {exact}");
    }
}
