//! The micro-kernel of bfloat16 for processors with AVX512_BF16: `vdpbf16ps` multiplies 16 pairs and adds the products in f32.

use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps};

use pulp::bytemuck::cast;

use super::bf16;
use super::quantized::{MicroKernel, Tile, prefetch_ahead};
use crate::cpu_features;

pub(crate) struct Avx512Bf16;

impl MicroKernel for Avx512Bf16 {
    /// Two registers for each row, two for a line of B and one for a pair of A fill 27 of 32.
    const MR: usize = 12;
    const NR: usize = bf16::NR;

    fn a_lines(k: usize) -> usize {
        bf16::lines(k)
    }

    fn b_lines(k: usize) -> usize {
        bf16::lines(k)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled for the instruction set of its caller")]
    fn pack_a_row(row: &[f32], i: usize, width: usize, panel: &mut [u32]) {
        bf16::pack_row(row, 1.0, i, width, panel);
    }

    fn multiply<const R: usize>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]) {
        assert!(cpu_features::has_avx512_bf16());
        // SAFETY: the processor has the instructions.
        #[expect(unsafe_code, reason = "a function for processors with these instructions only")]
        unsafe {
            multiply::<R>(tile, a, b);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply<const R: usize>(tile: &mut Tile<'_>, a: &[u32], b: &[u32]) {
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for (a, b) in a.as_chunks::<R>().0.iter().zip(b.as_chunks::<{ bf16::NR }>().0) {
        prefetch_ahead::<R>(b);
        let b: [__m512bh; 2] = cast(*b);
        for (sums, pair) in sums.iter_mut().zip(a) {
            let pair: __m512bh = cast(_mm512_set1_epi32(pair.cast_signed()));
            sums[0] = _mm512_dpbf16_ps(sums[0], pair, b[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], pair, b[1]);
        }
    }
    tile.store(sums.iter().map(|row| cast::<_, [f32; bf16::NR]>(*row)));
}
