//! Products in bfloat16 with AMX, the matrix registers of Intel's server processors since Sapphire Rapids: one instruction multiplies
//! [16, 32] with [32, 16]. (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.)
//!
//! A tile register holds 16 lines of 16 numbers. Of the left operand a line is 16 pairs of a row, of the right one it is a pair of
//! each of 16 columns, as panels have them.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of `vectorized`"
)]

use std::arch::asm;
use std::sync::OnceLock;

use pulp::bytemuck::cast_slice_mut;

use super::bf16::{panel_columns, round};
use super::linear::with_scratch;
use super::math::vectorized;
use super::matmul::{Destination, Matrix, Target, whole_panel};
use super::rounded::{RoundedPanels, Tile, UNSCALED};

/// With fewer rows most of a tile would be idle.
pub(super) const MIN_ROWS: usize = 5;
/// Lines of a tile, and numbers in each.
const SIDE: usize = 16;
/// Two tiles each way: each is read once for two products.
pub(super) const STRIP_ROWS: usize = 2 * SIDE;
pub(super) const WIDTH: usize = 2 * SIDE;

/// Whether this machine has AMX for bfloat16 and the system lets this process use it.
pub(super) fn is_there() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| has_instructions() && is_permitted())
}

fn has_instructions() -> bool {
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    // Leaf 7 is there wherever AVX-512 is.
    if !super::cpu_features::allows_amx() || !super::cpu_features::has_avx512_bf16() {
        return false;
    }
    #[allow(unused_unsafe, unsafe_code, reason = "safe in newer versions of Rust only")]
    // SAFETY: every processor of 64 bits has the instruction.
    let leaf = unsafe { std::arch::x86_64::__cpuid_count(7, 0) };
    leaf.edx & BF16_AND_TILE == BF16_AND_TILE
}

/// Linux gives a process the registers when it asks for them (arch_prctl(2), Documentation/arch/x86/xstate.rst).
#[expect(unsafe_code, reason = "a system call that no library wraps")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: takes numbers and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// [`super::matmul::multiply_panels`] with panels of pairs in bfloat16; `block` rows at a time.
pub(super) fn multiply(target: Target<'_>, scale: f32, a: Matrix<'_>, b: RoundedPanels<'_>, block: usize) {
    assert_eq!(panel_columns(), WIDTH);
    let Target { out, row_stride, destination } = target;
    let pairs = a.columns().div_ceil(2);
    let row_len = row_len(a.columns());
    let strip_len = STRIP_ROWS * row_len;
    let steps = [scale; STRIP_ROWS];
    with_scratch(block.next_multiple_of(STRIP_ROWS) * row_len, |scratch| {
        let scratch: &mut [u32] = cast_slice_mut(scratch);
        for first in (0..a.rows()).step_by(block) {
            let n_rows = block.min(a.rows() - first);
            vectorized!({
                for (i, out) in scratch.chunks_exact_mut(row_len).take(n_rows).enumerate() {
                    round_row(a.row(first + i), out);
                }
            });
            let strips = &scratch[..n_rows.div_ceil(STRIP_ROWS) * strip_len];
            let registers = Registers::configure();
            for (index, panel) in b.numbers.chunks_exact(WIDTH * pairs).enumerate() {
                let column = index * WIDTH;
                let n_columns = WIDTH.min(b.n - column);
                for (i, strip) in strips.chunks_exact(strip_len).enumerate() {
                    let row = i * STRIP_ROWS;
                    let n_rows = STRIP_ROWS.min(n_rows - row);
                    let out = &mut out[(first + row) * row_stride + column..];
                    if scale == 1.0 && n_rows == STRIP_ROWS && n_columns == WIDTH {
                        registers.multiply(Target { out, row_stride, destination }, strip, panel);
                        continue;
                    }
                    let mut sums = [[0.0; WIDTH]; STRIP_ROWS];
                    registers.multiply(whole_panel(sums.as_flattened_mut(), WIDTH), strip, panel);
                    let (steps, scales) = (&steps[..n_rows], &UNSCALED[..n_columns]);
                    let mut tile = Tile { out, row_stride, destination, steps, scales };
                    vectorized!(tile.store(sums));
                }
            }
        }
    });
}

/// Numbers in a strip's row of so many columns: pairs, with zeros that fill the last tile up.
pub(super) fn row_len(n_columns: usize) -> usize {
    n_columns.div_ceil(2).next_multiple_of(SIDE)
}

#[inline(always)]
pub(super) fn round_row(row: &[f32], out: &mut [u32]) {
    // The low half of a number is the first in memory.
    let (out, rest) = cast_slice_mut::<u32, u16>(out).split_at_mut(row.len());
    out.iter_mut().zip(row).for_each(|(out, value)| *out = round(*value) as u16);
    rest.fill(0);
}

/// This thread's tile registers, in use until this is dropped.
pub(super) struct Registers;

impl Registers {
    /// Where AMX [`is_there`].
    pub(super) fn configure() -> Self {
        /// Of palette 1: eight tiles of 16 lines of 64 bytes.
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
        assert!(is_there());
        // SAFETY: they are there; the compiler uses none of these registers.
        #[expect(unsafe_code, reason = "instructions that have no functions yet")]
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION.0, options(nostack, readonly, preserves_flags));
        }
        Self
    }

    /// Strips times one panel, to `out` [rows of all strips, [`WIDTH`]].
    pub(super) fn multiply_strips(&self, out: &mut [f32], strips: &[u32], panel: &[u32]) {
        let strip_len = strips.len() / (out.len() / WIDTH) * STRIP_ROWS;
        for (out, strip) in out.chunks_exact_mut(STRIP_ROWS * WIDTH).zip(strips.chunks_exact(strip_len)) {
            self.multiply(whole_panel(out, WIDTH), strip, panel);
        }
    }

    /// A whole strip times a panel to a whole tile; the strip's rows are at least as long as the panel.
    #[expect(clippy::unused_self, reason = "shows that they are configured")]
    fn multiply(&self, target: Target<'_>, strip: &[u32], panel: &[u32]) {
        let Target { out, row_stride, destination } = target;
        let row_len = strip.len() / STRIP_ROWS;
        let (whole, rest) = panel.as_chunks::<{ SIDE * WIDTH }>();
        assert!(out.len() >= (STRIP_ROWS - 1) * row_stride + WIDTH);
        assert!(row_len >= panel.len().div_ceil(SIDE * WIDTH) * SIDE);
        let (above, below) = (out.as_mut_ptr(), out[SIDE * row_stride..].as_mut_ptr());
        // SAFETY: the tiles lie inside of what was asserted; [`Registers`] are configured while `self` lives.
        #[expect(unsafe_code, reason = "instructions that have no functions yet")]
        unsafe {
            match destination {
                Destination::Overwrite => asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, nomem, preserves_flags)
                ),
                Destination::Accumulate => asm!(
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
            add_products(strip.as_ptr(), row_len, whole.as_ptr().cast(), whole.len());
            if !rest.is_empty() {
                let mut last = [0; SIDE * WIDTH];
                last[..rest.len()].copy_from_slice(rest);
                add_products(strip[whole.len() * SIDE..].as_ptr(), row_len, last.as_ptr(), 1);
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

impl Drop for Registers {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "instructions that have no functions yet")]
        // SAFETY: they were configured.
        unsafe {
            asm!("tilerelease", options(nostack, nomem, preserves_flags));
        }
    }
}

/// Adds `n` tiles of each half of a strip times as many of each half of a panel to the first four registers.
#[expect(unsafe_code, reason = "instructions that have no functions yet")]
unsafe fn add_products(strip: *const u32, row_len: usize, panel: *const u32, n: usize) {
    if n == 0 {
        return;
    }
    // SAFETY: promised by the caller.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{above} + {row_stride}]",
            "tileloadd tmm6, [{panel} + {line_stride}]",
            "tileloadd tmm7, [{panel} + {line_stride} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{below} + {row_stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {above}, 64",
            "add {below}, 64",
            "add {panel}, 2048",
            "dec {n}",
            "jnz 2b",
            above = inout(reg) strip => _,
            below = inout(reg) strip.add(SIDE * row_len) => _,
            panel = inout(reg) panel => _,
            n = inout(reg) n => _,
            row_stride = in(reg) 4 * row_len,
            line_stride = in(reg) 4 * WIDTH,
            options(nostack, readonly),
        );
    }
}
