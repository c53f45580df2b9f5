//! Memory that begins a cache line: buffers that threads keep between calls, and owned vectors.

use std::cell::RefCell;

/// Values of 4 bytes in a cache line.
const PER_CACHE_LINE: usize = 16;

/// Lends `f` a buffer of `len` values that this thread keeps. It begins a cache line and holds whatever was there before.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        /// One buffer for each depth of nesting.
        static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < len + PER_CACHE_LINE {
        buffer.resize(len + PER_CACHE_LINE, 0.0);
    }
    let start = offset_of_cache_line(&buffer);
    let result = f(&mut buffer[start..][..len]);
    SCRATCH.with_borrow_mut(|kept| kept.push(buffer));
    result
}

/// A vector of 4-byte values that begins a cache line, so that no vector load crosses two of them.
pub(crate) struct AlignedVec<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Clone + Default> AlignedVec<T> {
    pub(crate) fn new(len: usize) -> Self {
        let values = vec![T::default(); len + PER_CACHE_LINE];
        let start = offset_of_cache_line(&values);
        Self { values, start, len }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }
}

/// The index of the first value that begins a cache line.
fn offset_of_cache_line<T>(values: &[T]) -> usize {
    const { assert!(size_of::<T>() == 4) };
    values.as_ptr().align_offset(4 * PER_CACHE_LINE)
}
