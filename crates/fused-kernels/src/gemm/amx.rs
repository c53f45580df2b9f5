//! Products in bfloat16 with AMX, the tile registers of Intel's server processors since Sapphire Rapids: one instruction multiplies
//! [16, 32] with [32, 16]. (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.)
//!
//! A tile register holds 16 lines of 16 numbers, each a pair of bfloat16. For A a line is 16 pairs of a row, for B it is one pair of
//! each of 16 columns, which is how `bf16.rs` packs micro-panels of B.

use std::arch::asm;

use pulp::bytemuck::cast_slice_mut;

use super::bf16::{self, round_row};
use super::output::{Output, Store};
use super::quantized::Tile;
use crate::cpu_features;
use crate::matrix::MatrixView;
use crate::scratch::with_scratch;
use crate::simd::vectorized;

/// With fewer rows most of a tile register is idle, and AVX-512 is faster.
pub(crate) const MIN_ROWS: usize = 5;
/// Lines of a tile register, and numbers in a line.
const SIDE: usize = 16;
/// Rows of a panel of A: two tile registers, so that each of B's is used twice.
pub(crate) const MR: usize = 2 * SIDE;
/// Columns of a micro-panel of B.
pub(crate) const NR: usize = 2 * SIDE;
const _: () = assert!(NR == bf16::NR);

/// `out = a b` or `out += a b` with micro-panels of B in bfloat16; rounds `rows_per_block` rows of A at a time.
pub(crate) fn gemm(out: Output<'_>, a: MatrixView<'_>, b: &[u32], n: usize, rows_per_block: usize) {
    let Output { data, row_stride, store } = out;
    let row_len = row_len(a.n_columns());
    let a_panel_len = MR * row_len;
    with_scratch(rows_per_block.next_multiple_of(MR) * row_len, |scratch| {
        let rounded: &mut [u32] = cast_slice_mut(scratch);
        for first in (0..a.n_rows()).step_by(rows_per_block) {
            let n_rows = rows_per_block.min(a.n_rows() - first);
            vectorized!({
                for (i, out) in rounded.chunks_exact_mut(row_len).take(n_rows).enumerate() {
                    round_row(a.row(first + i), out);
                }
            });
            let a_panels = &rounded[..n_rows.div_ceil(MR) * a_panel_len];
            let registers = TileRegisters::configure();
            for (index, b_panel) in b.chunks_exact(NR * bf16::lines(a.n_columns())).enumerate() {
                let column = index * NR;
                let n_columns = NR.min(n - column);
                for (i, a_panel) in a_panels.chunks_exact(a_panel_len).enumerate() {
                    let row = i * MR;
                    let n_rows = MR.min(n_rows - row);
                    let data = &mut data[(first + row) * row_stride + column..];
                    if n_rows == MR && n_columns == NR {
                        registers.multiply(Output { data, row_stride, store }, a_panel, b_panel);
                        continue;
                    }
                    let mut sums = [[0.0; NR]; MR];
                    let whole = Output::overwrite(sums.as_flattened_mut(), NR);
                    registers.multiply(whole, a_panel, b_panel);
                    let mut tile = Tile { out: data, row_stride, store, n_rows, n_columns };
                    vectorized!(tile.store(sums));
                }
            }
        }
    });
}

/// Numbers in a rounded row of A with inner dimension `k`: pairs, with zeros that fill the last tile register.
pub(crate) fn row_len(k: usize) -> usize {
    bf16::lines(k).next_multiple_of(SIDE)
}

/// The tile registers of this thread, configured until this is dropped.
pub(crate) struct TileRegisters;

impl TileRegisters {
    /// Panics on processors without AMX.
    pub(crate) fn configure() -> Self {
        /// Palette 1: eight tile registers of 16 lines of 64 bytes.
        #[repr(align(64))]
        struct Configuration([u8; 64]);
        const CONFIGURATION: Configuration = {
            let mut bytes = [0; 64];
            bytes[0] = 1;
            let mut tile = 0;
            while tile < 8 {
                bytes[16 + 2 * tile] = 64;
                bytes[48 + tile] = SIDE as u8;
                tile += 1;
            }
            Configuration(bytes)
        };
        assert!(cpu_features::has_amx_bf16());
        // SAFETY: the processor has the registers, and the compiler uses none of them.
        #[expect(unsafe_code, reason = "instructions without stable intrinsics")]
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION.0, options(nostack, readonly, preserves_flags));
        }
        Self
    }

    /// Panels of A times one micro-panel of B, to `out` [rows of all panels, [`NR`]].
    pub(crate) fn multiply_panels(&self, out: &mut [f32], a_panels: &[u32], b_panel: &[u32]) {
        let a_panel_len = a_panels.len() / (out.len() / NR) * MR;
        for (out, a_panel) in out.chunks_exact_mut(MR * NR).zip(a_panels.chunks_exact(a_panel_len)) {
            self.multiply(Output::overwrite(out, NR), a_panel, b_panel);
        }
    }

    /// A panel of A times a micro-panel of B, to [[`MR`], [`NR`]]; rows of A are at least as long as the columns of B.
    #[expect(clippy::unused_self, reason = "proves that the registers are configured")]
    fn multiply(&self, out: Output<'_>, a_panel: &[u32], b_panel: &[u32]) {
        let Output { data, row_stride, store } = out;
        let row_len = a_panel.len() / MR;
        let (whole, rest) = b_panel.as_chunks::<{ SIDE * NR }>();
        assert!(data.len() >= (MR - 1) * row_stride + NR);
        assert!(row_len >= b_panel.len().div_ceil(SIDE * NR) * SIDE);
        let (above, below) = (data.as_mut_ptr(), data[SIDE * row_stride..].as_mut_ptr());
        // SAFETY: the asserts keep every tile inside its slice; the registers are configured while `self` lives.
        #[expect(unsafe_code, reason = "instructions without stable intrinsics")]
        unsafe {
            match store {
                Store::Overwrite => asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, nomem, preserves_flags)
                ),
                Store::Accumulate => asm!(
                    "tileloadd tmm0, [{above} + {stride}]",
                    "tileloadd tmm1, [{above} + {stride} + 64]",
                    "tileloadd tmm2, [{below} + {stride}]",
                    "tileloadd tmm3, [{below} + {stride} + 64]",
                    above = in(reg) above,
                    below = in(reg) below,
                    stride = in(reg) 4 * row_stride,
                    options(nostack, readonly, preserves_flags)
                ),
            }
            add_products(a_panel.as_ptr(), row_len, whole.as_ptr().cast(), whole.len());
            if !rest.is_empty() {
                let mut last = [0; SIDE * NR];
                last[..rest.len()].copy_from_slice(rest);
                add_products(a_panel[whole.len() * SIDE..].as_ptr(), row_len, last.as_ptr(), 1);
            }
            asm!(
                "tilestored [{above} + {stride}], tmm0",
                "tilestored [{above} + {stride} + 64], tmm1",
                "tilestored [{below} + {stride}], tmm2",
                "tilestored [{below} + {stride} + 64], tmm3",
                above = in(reg) above,
                below = in(reg) below,
                stride = in(reg) 4 * row_stride,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Drop for TileRegisters {
    fn drop(&mut self) {
        // SAFETY: they were configured.
        #[expect(unsafe_code, reason = "instructions without stable intrinsics")]
        unsafe {
            asm!("tilerelease", options(nostack, nomem, preserves_flags));
        }
    }
}

/// Adds the products of `n` pairs of tiles of A, above and below each other, with as many of B, beside each other, to `tmm0` to `tmm3`.
///
/// # Safety
/// The tiles lie in memory that may be read, and the tile registers are configured.
#[expect(unsafe_code, reason = "instructions without stable intrinsics")]
unsafe fn add_products(a: *const u32, row_len: usize, b: *const u32, n: usize) {
    if n == 0 {
        return;
    }
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{above} + {row_stride}]",
            "tileloadd tmm6, [{b} + {line_stride}]",
            "tileloadd tmm7, [{b} + {line_stride} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{below} + {row_stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {above}, 64",
            "add {below}, 64",
            "add {b}, 2048",
            "dec {n}",
            "jnz 2b",
            above = inout(reg) a => _,
            below = inout(reg) a.add(SIDE * row_len) => _,
            b = inout(reg) b => _,
            n = inout(reg) n => _,
            row_stride = in(reg) 4 * row_len,
            line_stride = in(reg) 4 * NR,
            options(nostack, readonly),
        );
    }
}
