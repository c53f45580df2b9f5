//! How work is shared between the threads of rayon's pool.

use rayon::prelude::*;

/// Below this many multiply-adds a kernel stays on one thread: waking another costs more.
const MIN_PARALLEL_WORK: usize = 1 << 17;

/// Calls `f(index, chunk)` for consecutive chunks of `out`, on all threads if `work`, in multiply-adds, is worth it.
pub(crate) fn for_each_chunk(
    out: &mut [f32],
    chunk_len: usize,
    work: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    if out.is_empty() {
        return;
    }
    if work < MIN_PARALLEL_WORK || out.len() <= chunk_len {
        out.chunks_mut(chunk_len).enumerate().for_each(|(i, chunk)| f(i, chunk));
    } else {
        out.par_chunks_mut(chunk_len).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}
