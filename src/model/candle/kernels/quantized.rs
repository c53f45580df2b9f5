//! Linear layers with 8-bit weights on the CPU: a quarter of the memory of f32. Products with few rows (decoding) read the
//! weights as they are; those with many rows widen them first, which costs what the former save.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};

use super::linear::{COLUMNS_PER_TASK, FEW_ROWS, Finish, activate, apply_by_columns, with_scratch};
use super::math::{sum, vectorized};
use super::matmul::{Destination, Matrix, multiply};
use super::{Activation, for_each_chunk, with_slices};

/// Values that share a scale.
const BLOCK: usize = 32;

/// With more rows, the room for the products would be larger than what 8 bits save.
const ROWS_AT_A_TIME: usize = 2304;

/// A weight matrix [out, in] in Q8_0: blocks of 32 values along a row with one scale, as in ggml, the scales in f32.
pub struct QuantizedMatrix {
    n_out: usize,
    n_in: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
}

impl QuantizedMatrix {
    /// Whether a matrix with this many columns can be quantized.
    pub fn fits(n_in: usize) -> bool {
        n_in > 0 && n_in.is_multiple_of(BLOCK)
    }

    /// Rounds every block to 255 steps between plus and minus its largest magnitude.
    pub fn quantize(weight: &Tensor) -> Result<Self> {
        let (n_out, n_in) = weight.dims2()?;
        if !Self::fits(n_in) {
            bail!("quantize: {n_in} columns are not a multiple of {BLOCK}");
        }
        let (mut values, mut scales) =
            (Vec::with_capacity(n_out * n_in), Vec::with_capacity(n_out * n_in / BLOCK));
        with_slices([weight], |[weight]| {
            for block in weight.chunks_exact(BLOCK) {
                let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                let scale = largest / 127.0;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                values.extend(block.iter().map(|value| (value * inverse).round() as i8));
                scales.push(scale);
            }
            Ok(())
        })?;
        Ok(Self { n_out, n_in, values, scales })
    }

    /// [out, in]
    pub fn dims(&self) -> (usize, usize) {
        (self.n_out, self.n_in)
    }

    /// The rows `rows` as f32, into `out` [rows, in].
    fn widen(&self, rows: &Range<usize>, out: &mut [f32]) {
        let start = rows.start * self.n_in / BLOCK;
        let blocks = self.values[start * BLOCK..].chunks_exact(BLOCK).zip(&self.scales[start..]);
        vectorized!({
            for (out, (values, scale)) in out.chunks_exact_mut(BLOCK).zip(blocks.clone()) {
                for (out, value) in out.iter_mut().zip(values) {
                    *out = f32::from(*value) * scale;
                }
            }
        });
    }
}

/// `activation(x w^T + bias) + residual` with the rows `rows` of `w`; x [.., in], bias [rows], residual like the output
/// [.., rows].
pub fn linear_q8(
    x: &Tensor,
    w: &QuantizedMatrix,
    rows: &Range<usize>,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n_out, n_in) = (rows.len(), w.n_in);
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == n_in && rows.end <= w.n_out => *last = n_out,
        _ => bail!("linear_q8: {:?} does not fit rows {rows:?} of {:?}", x.dims(), w.dims()),
    }
    if residual.is_some_and(|it| it.dims() != shape.as_slice()) || bias.is_some_and(|it| it.dims() != [n_out])
    {
        bail!("linear_q8: bias or residual do not fit the output {shape:?}");
    }
    let mut out = vec![0.0; shape.iter().product()];
    // Absent operands become x: a slice is needed, and it is not read.
    with_slices([x, bias.unwrap_or(x), residual.unwrap_or(x)], |[x, bias_values, residual_values]| {
        let bias = bias.is_some().then_some(bias_values);
        let residual = residual.is_some().then_some(residual_values);
        if x.len() / n_in <= FEW_ROWS {
            multiply_few_rows(&mut out, x, w, rows, bias);
            activate(&mut out, activation);
            for (out, residual) in out.iter_mut().zip(residual.unwrap_or_default()) {
                *out += residual;
            }
        } else {
            for (i, out) in out.chunks_mut(ROWS_AT_A_TIME * n_out).enumerate() {
                let n_rows = out.len() / n_out;
                let x = &x[i * ROWS_AT_A_TIME * n_in..][..n_rows * n_in];
                let residual = residual.map(|it| &it[i * ROWS_AT_A_TIME * n_out..][..out.len()]);
                let x = Matrix::new(x, n_rows, n_in, n_in);
                let finish = Finish { bias, activation, residual };
                apply_by_columns(out, x, rows, 1, finish, |outputs, columns| {
                    with_scratch(outputs.len() * n_in, |wide| {
                        w.widen(&outputs, wide);
                        let w = Matrix::new(wide, outputs.len(), n_in, n_in).transposed();
                        multiply(columns, COLUMNS_PER_TASK, Destination::Overwrite, 1.0, x, w);
                    });
                });
            }
        }
        Ok(())
    })?;
    Tensor::from_vec(out, shape, &Device::Cpu)
}

/// Reads the weights once, as they are, for all rows of x.
fn multiply_few_rows(
    out: &mut [f32],
    x: &[f32],
    w: &QuantizedMatrix,
    rows: &Range<usize>,
    bias: Option<&[f32]>,
) {
    let (n_out, n_in) = (rows.len(), w.n_in);
    let n_rows = x.len() / n_in;
    // Columns of the output beside each other, so that threads can share them.
    let mut columns = vec![0.0; out.len()];
    let columns_per_task = 256;
    for_each_chunk(&mut columns, columns_per_task * n_rows, x.len() * n_out, |task, columns| {
        vectorized!({
            for (j, column) in columns.chunks_exact_mut(n_rows).enumerate() {
                let output = task * columns_per_task + j;
                let start = (rows.start + output) * n_in;
                let values = &w.values[start..start + n_in];
                let scales = &w.scales[start / BLOCK..(start + n_in) / BLOCK];
                for (value, x) in column.iter_mut().zip(x.chunks_exact(n_in)) {
                    *value = dot(values, scales, x) + bias.map_or(0.0, |bias| bias[output]);
                }
            }
        });
    });
    for (row, out) in out.chunks_exact_mut(n_out).enumerate() {
        for (out, column) in out.iter_mut().zip(columns.chunks_exact(n_rows)) {
            *out = column[row];
        }
    }
}

/// Inlined, so that it is compiled for the instruction set of `vectorized`.
#[inline(always)]
fn dot(values: &[i8], scales: &[f32], x: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut total = [0.0f32; LANES];
    for ((values, scale), x) in values.chunks_exact(BLOCK).zip(scales).zip(x.chunks_exact(BLOCK)) {
        let mut block = [0.0f32; LANES];
        for (values, x) in values.chunks_exact(LANES).zip(x.chunks_exact(LANES)) {
            for ((sum, value), x) in block.iter_mut().zip(values).zip(x) {
                *sum += f32::from(*value) * x;
            }
        }
        for (total, block) in total.iter_mut().zip(block) {
            *total += scale * block;
        }
    }
    sum(&total)
}
