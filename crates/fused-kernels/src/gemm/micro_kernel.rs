//! The f32 micro-kernel of attention, in safe code that is compiled for each instruction set and chosen at run time.
//!
//! Both operands are packed the way it reads them (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication"): A in
//! micro-panels [k, MR] of a few rows, B in micro-panels [k, NR] of a few columns. The product of two micro-panels stays in registers.
//! What attention multiplies is small and in cache; for everything larger in f32 there is `f32.rs`.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `dispatch`"
)]

use std::sync::OnceLock;

use pulp::{Simd, WithSimd};

use super::output::{Output, Store};
use crate::cpu_features::arch;
use crate::matrix::MatrixView;

/// NR on this processor.
pub(crate) fn panel_width() -> usize {
    struct Ask;
    impl WithSimd for Ask {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            nr::<S>()
        }
    }
    static WIDTH: OnceLock<usize> = OnceLock::new();
    *WIDTH.get_or_init(|| arch().dispatch(Ask))
}

/// Columns of a micro-panel of B: two registers.
#[inline(always)]
pub(crate) const fn nr<S: Simd>() -> usize {
    2 * S::F32_LANES
}

/// Rows of a micro-panel of A: two registers for each row, two for a line of B and one for a value of A fill 15 of AVX2's 16 registers, 27 of AVX-512's 32.
#[inline(always)]
pub(crate) const fn mr<S: Simd>() -> usize {
    if S::F32_LANES == 8 { 6 } else { 12 }
}

/// Length of a packed B of shape [k, n].
pub(crate) fn packed_b_len(k: usize, n: usize) -> usize {
    n.next_multiple_of(panel_width()) * k
}

/// Packs B, given as its transpose [n, k].
#[inline(always)]
pub(crate) fn pack_b(transposed: MatrixView<'_>, packed: &mut [f32]) {
    let nr = panel_width();
    let (k, n) = (transposed.n_columns(), transposed.n_rows());
    for (index, panel) in packed.chunks_exact_mut(nr * k).enumerate() {
        let first = index * nr;
        transposed.pack(first, nr.min(n - first), nr, 1.0, panel);
    }
}

/// Packs rows `first ..` of A, as many as `packed` has room for; the last micro-panel is as wide as its rows.
#[inline(always)]
pub(crate) fn pack_a(a: MatrixView<'_>, first: usize, mr: usize, packed: &mut [f32]) {
    let k = a.n_columns();
    for (index, panel) in packed.chunks_mut(mr * k).enumerate() {
        let width = panel.len() / k;
        a.pack(first + index * mr, width, width, 1.0, panel);
    }
}

/// Packed rows of A times one micro-panel of B, to `out` from (row, column) on.
#[inline(always)]
pub(crate) fn multiply_panel<S: Simd>(
    simd: S,
    out: &mut Output<'_>,
    (row, column): (usize, usize),
    n_columns: usize,
    packed_a: &[f32],
    b_panel: &[f32],
    k: usize,
) {
    for (i, a_panel) in packed_a.chunks(mr::<S>() * k).enumerate() {
        let row = row + i * mr::<S>();
        let mut tile = Tile {
            out: &mut out.data[row * out.row_stride + column..],
            row_stride: out.row_stride,
            n_columns,
            store: out.store,
        };
        // The compiler drops the arms above an instruction set's MR.
        match a_panel.len() / k {
            1 => micro_kernel::<S, 1>(simd, &mut tile, a_panel, b_panel),
            2 => micro_kernel::<S, 2>(simd, &mut tile, a_panel, b_panel),
            3 => micro_kernel::<S, 3>(simd, &mut tile, a_panel, b_panel),
            4 => micro_kernel::<S, 4>(simd, &mut tile, a_panel, b_panel),
            5 => micro_kernel::<S, 5>(simd, &mut tile, a_panel, b_panel),
            6 => micro_kernel::<S, 6>(simd, &mut tile, a_panel, b_panel),
            7 => micro_kernel::<S, 7>(simd, &mut tile, a_panel, b_panel),
            8 => micro_kernel::<S, 8>(simd, &mut tile, a_panel, b_panel),
            9 => micro_kernel::<S, 9>(simd, &mut tile, a_panel, b_panel),
            10 => micro_kernel::<S, 10>(simd, &mut tile, a_panel, b_panel),
            11 => micro_kernel::<S, 11>(simd, &mut tile, a_panel, b_panel),
            _ => micro_kernel::<S, 12>(simd, &mut tile, a_panel, b_panel),
        }
    }
}

/// Where the product of two micro-panels is written.
pub(crate) struct Tile<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) row_stride: usize,
    /// At the right edge fewer than NR.
    pub(crate) n_columns: usize,
    pub(crate) store: Store,
}

/// A micro-panel of A with `R` rows times a micro-panel of B.
#[inline(always)]
fn micro_kernel<S: Simd, const R: usize>(simd: S, tile: &mut Tile<'_>, a_panel: &[f32], b_panel: &[f32]) {
    let mut sums = [[simd.splat_f32s(0.0); 2]; R];
    let (a_lines, (b_lines, _)) = (a_panel.as_chunks::<R>().0, S::as_simd_f32s(b_panel));
    for (a, b) in a_lines.iter().zip(b_lines.as_chunks::<2>().0) {
        for (sums, value) in sums.iter_mut().zip(a) {
            let value = simd.splat_f32s(*value);
            sums[0] = simd.mul_add_e_f32s(value, b[0], sums[0]);
            sums[1] = simd.mul_add_e_f32s(value, b[1], sums[1]);
        }
    }
    store_tile(simd, tile, sums);
}

/// Writes the registers of a tile with `R` rows.
#[inline(always)]
pub(crate) fn store_tile<S: Simd, const R: usize>(simd: S, tile: &mut Tile<'_>, sums: [[S::f32s; 2]; R]) {
    let nr = nr::<S>();
    for (i, sums) in sums.into_iter().enumerate() {
        let out = &mut tile.out[i * tile.row_stride..][..tile.n_columns];
        if out.len() == nr {
            let (out, _) = S::as_mut_simd_f32s(out);
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = match tile.store {
                    Store::Overwrite => sum,
                    Store::Accumulate => simd.add_f32s(*out, sum),
                };
            }
        } else {
            // Room for the NR of every instruction set.
            let mut values = [0.0; 64];
            let (vectors, _) = S::as_mut_simd_f32s(&mut values[..nr]);
            vectors.copy_from_slice(&sums);
            for (out, value) in out.iter_mut().zip(values) {
                match tile.store {
                    Store::Overwrite => *out = value,
                    Store::Accumulate => *out += value,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processors without vector instructions run this.
    #[test]
    fn without_vector_instructions_the_product_is_the_same() {
        struct Run<'a>(MatrixView<'a>, MatrixView<'a>);
        impl WithSimd for Run<'_> {
            type Output = Vec<f32>;
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
                let Self(a, b) = self;
                let (nr, k, n) = (nr::<S>(), b.n_columns(), b.n_rows());
                let mut packed_b = vec![0.0; n.next_multiple_of(nr) * k];
                for (index, panel) in packed_b.chunks_exact_mut(nr * k).enumerate() {
                    b.pack(index * nr, nr.min(n - index * nr), nr, 1.0, panel);
                }
                let mut data = vec![0.0; a.n_rows() * n];
                let mut packed_a = vec![0.0; a.n_rows() * k];
                pack_a(a, 0, mr::<S>(), &mut packed_a);
                for (index, panel) in packed_b.chunks_exact(nr * k).enumerate() {
                    let n_columns = nr.min(n - index * nr);
                    let mut out = Output::overwrite(&mut data, n);
                    multiply_panel(simd, &mut out, (0, index * nr), n_columns, &packed_a, panel, k);
                }
                data
            }
        }
        let data: Vec<f32> = (0..4000).map(|i| ((i * 37 % 23) as f32 - 11.0) / 7.0).collect();
        let a = MatrixView::new(&data, 29, 21, 21);
        let b = MatrixView::new(&data, 40, 21, 21);
        let expected = pulp::Scalar.vectorize(Run(a, b));
        let exact =
            |i: usize, j: usize| -> f32 { (0..21).map(|t| data[i * 21 + t] * data[j * 21 + t]).sum() };
        assert!((expected[40 * 3 + 5] - exact(3, 5)).abs() < 1e-4);
        let best = arch().dispatch(Run(a, b));
        assert!(best.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
