//! One piece of code compiled for every instruction set, and prefetch hints.

use pulp::{Simd, WithSimd};

/// Evaluates an expression that is compiled for the widest vectors of this processor. What it calls must be `#[inline(always)]`.
///
/// It is a macro because a closure without that attribute may stay a function of its own, compiled for every processor.
macro_rules! vectorized {
    ($body:expr) => {
        $crate::cpu_features::arch().dispatch($crate::simd::Vectorized(
            #[inline(always)]
            || $body,
        ))
    };
}
pub(crate) use vectorized;

/// The closure is called as `FnMut`: the `FnOnce::call_once` of such a closure is one more function that may not be inlined.
pub(crate) struct Vectorized<F>(pub(crate) F);

impl<R, F: FnMut() -> R> WithSimd for Vectorized<F> {
    type Output = R;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled for the instruction set of the caller")]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Fetches values that will be needed into the second-level cache while other work goes on.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a few instructions")]
pub(crate) fn prefetch<T>(values: &[T]) {
    prefetch_after::<0, T>(values);
}

/// Fetches what lies `BYTES` after these values.
#[inline(always)]
pub(crate) fn prefetch_after<const BYTES: usize, T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        const CACHE_LINE: usize = 64;
        for line in values.chunks(CACHE_LINE / size_of::<T>()) {
            #[expect(unsafe_code, reason = "a hint by address")]
            // SAFETY: a prefetch reads and writes nothing that a program can see.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_byte_add(BYTES).cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
