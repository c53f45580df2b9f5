//! Weight matrices laid out for products once, when they are loaded.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::math::vectorized;
use super::matmul::{Matrix, PanelValues, Panels, pack_panels, panels_len, tile};
use super::{bf16, int8, int16, with_slices};

/// How the numbers of a weight matrix are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    F32,
    /// Rounded to bfloat16; products round their other operand too, and sum in f32.
    Bf16,
    /// Rounded to 16-bit integers with one scale for each output; products do so with the rows of their other operand, and sum exactly
    /// before they scale.
    Int16,
    /// Rounded to 8-bit integers in blocks of 128 along a row, with one scale each; products do so with their other operand, and sum
    /// exactly inside a block.
    Int8,
}

/// A weight matrix [out, in] on the CPU, in the layout that products read.
pub struct PackedMatrix {
    n_out: usize,
    n_in: usize,
    values: Values,
}

enum Values {
    F32(Aligned<f32>),
    Bf16(Aligned<u32>),
    Int16(Aligned<u32>, Vec<f32>),
    Int8(Aligned<u32>),
}

impl PackedMatrix {
    /// Copies a weight [out, in].
    pub fn new(weight: &Tensor, precision: Precision) -> Result<Self> {
        let (n_out, n_in) = weight.dims2()?;
        let values =
            with_slices([weight], |[weight]| Ok(pack(Matrix::new(weight, n_out, n_in, n_in), precision)))?;
        Ok(Self { n_out, n_in, values })
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
            Values::Int16(..) => Precision::Int16,
            Values::Int8(_) => Precision::Int8,
        }
    }

    pub(super) fn panels(&self) -> Panels<'_> {
        let values = match &self.values {
            Values::F32(values) => PanelValues::F32(values.get()),
            Values::Bf16(values) => PanelValues::Bf16(values.get()),
            Values::Int16(values, scales) => PanelValues::Int16(values.get(), scales),
            Values::Int8(values) => PanelValues::Int8(values.get()),
        };
        Panels { values, k: self.n_in, n: self.n_out }
    }
}

fn pack(weight: Matrix<'_>, precision: Precision) -> Values {
    let (n_out, n_in) = (weight.rows(), weight.columns());
    let width = match precision {
        Precision::F32 => tile().columns,
        Precision::Bf16 => bf16::panel_columns(),
        Precision::Int16 => int16::panel_columns(),
        Precision::Int8 => int8::panel_columns(),
    };
    let rows = |panel: usize| panel * width..n_out.min((panel + 1) * width);
    match precision {
        Precision::F32 => {
            let mut values = Aligned::new(panels_len(n_in, n_out));
            values.get_mut().par_chunks_mut((width * n_in).max(1)).enumerate().for_each(|(panel, out)| {
                pack_panels(weight.some_rows(rows(panel)), out);
            });
            Values::F32(values)
        }
        Precision::Bf16 => {
            let pairs = n_in.div_ceil(2);
            let mut values = Aligned::new(n_out.next_multiple_of(width) * pairs);
            values.get_mut().par_chunks_mut((width * pairs).max(1)).enumerate().for_each(|(panel, out)| {
                let rows = rows(panel);
                vectorized!({
                    bf16::interleave_pairs(weight, rows.start, rows.len(), width, 1.0, out);
                });
            });
            Values::Bf16(values)
        }
        Precision::Int16 => {
            let pairs = n_in.div_ceil(2);
            let mut scales = vec![0.0; n_out.next_multiple_of(width)];
            let mut values = Aligned::new(scales.len() * pairs);
            let panels =
                values.get_mut().par_chunks_mut((width * pairs).max(1)).zip(scales.par_chunks_mut(width));
            panels.enumerate().for_each(|(panel, (values, scales))| {
                let rows = rows(panel);
                int16::interleave_weights(weight, rows.start, rows.len(), values, scales);
            });
            Values::Int16(values, scales)
        }
        Precision::Int8 => {
            let lines = int8::panel_lines(n_in);
            let mut values = Aligned::new(n_out.next_multiple_of(width) * lines);
            values.get_mut().par_chunks_mut((width * lines).max(1)).enumerate().for_each(|(panel, out)| {
                let rows = rows(panel);
                int8::interleave_weights(weight, rows.start, rows.len(), width, out);
            });
            Values::Int8(values)
        }
    }
}

/// Values of 4 bytes that begin a cache line: a register as long as one is then read from one.
struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Clone + Default> Aligned<T> {
    fn new(len: usize) -> Self {
        let values = vec![T::default(); len + PER_CACHE_LINE];
        let start = to_cache_line(&values);
        Self { values, start, len }
    }

    fn get(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }

    fn get_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }
}

/// Values of 4 bytes.
pub(super) const PER_CACHE_LINE: usize = 16;

/// How many of these lie before the first cache line that begins among them.
pub(super) fn to_cache_line<T>(values: &[T]) -> usize {
    const { assert!(size_of::<T>() == 4) };
    values.as_ptr().align_offset(4 * PER_CACHE_LINE)
}
