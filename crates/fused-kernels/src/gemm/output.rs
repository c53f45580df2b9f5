//! Where a product is written.

/// What happens to the values that are there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// They are replaced.
    Overwrite,
    /// The product is added to them.
    Accumulate,
}

/// A row-major matrix that receives a product.
pub(crate) struct Output<'a> {
    pub(crate) data: &'a mut [f32],
    /// Elements between the beginnings of two rows.
    pub(crate) row_stride: usize,
    pub(crate) store: Store,
}

impl<'a> Output<'a> {
    /// A contiguous matrix of `n_columns` columns whose values are replaced.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "used in inner loops")]
    pub(crate) fn overwrite(data: &'a mut [f32], n_columns: usize) -> Self {
        Output { data, row_stride: n_columns, store: Store::Overwrite }
    }

    /// Checks that a product [m, n] fits. Returns whether anything is left to multiply: the product of matrices with an empty inner
    /// dimension is zero, and is written here.
    pub(crate) fn prepare(&mut self, m: usize, k: usize, n: usize) -> bool {
        if m == 0 || n == 0 {
            return false;
        }
        assert!((m - 1) * self.row_stride + n <= self.data.len(), "product reaches past its slice");
        assert!(n <= self.row_stride || m == 1, "rows of the product overlap");
        if k == 0 && self.store == Store::Overwrite {
            self.data.chunks_mut(self.row_stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        k > 0
    }
}
