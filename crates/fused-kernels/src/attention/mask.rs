//! Which keys a query may attend to.

#![expect(
    clippy::inline_always,
    reason = "only inlined code is compiled for the instruction set of its caller"
)]

/// Which keys a query may attend to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttentionMask {
    /// In row `b` of the batch the first `n[b]` keys: the rest is padding.
    Lengths(Vec<usize>),
    /// Query `i` attends to keys `0..=offset + i`: decoding, after `offset` earlier tokens.
    Causal {
        /// Number of keys before the first query's own.
        offset: usize,
    },
}

impl AttentionMask {
    /// Whether it fits a batch of `n_queries` queries and `n_keys` keys, and leaves every query at least one key.
    pub fn fits(&self, batch: usize, n_queries: usize, n_keys: usize) -> bool {
        match self {
            Self::Lengths(n) => n.len() == batch && n.iter().all(|n| (1..=n_keys).contains(n)),
            Self::Causal { offset } => offset + n_queries <= n_keys,
        }
    }

    /// How many keys a query attends to: the first ones.
    pub fn n_visible(&self, row: usize, query: usize) -> usize {
        match self {
            Self::Lengths(n) => n[row],
            Self::Causal { offset } => offset + query + 1,
        }
    }
}

/// Gives keys that a query may not attend to no weight in its softmax; scores [keys, width] of `n` queries from `first` on.
#[inline(always)]
pub(crate) fn apply_mask(
    scores: &mut [f32],
    width: usize,
    first: usize,
    n: usize,
    n_visible: impl Fn(usize) -> usize,
) {
    for query in 0..n {
        for scores in scores.chunks_exact_mut(width).skip(n_visible(first + query)) {
            scores[query] = f32::MIN;
        }
    }
}
