//! Linear layers and layer normalization on the CPU.

use candle_core::{Result, Tensor, bail};

use super::math::{gelu, layer_norm_row, quick_gelu, vectorized};
use super::matmul::{Destination, Matrix, multiply};
use super::{Activation, for_each_chunk, with_slices};

/// Rows per task: enough that packing the weights is a small part of a task's work, few enough to stay in cache.
const ROWS_PER_TASK: usize = 96;
/// Up to this many rows (a decoding step) the threads share the columns, not the rows.
const FEW_ROWS: usize = 16;
/// Below this many multiply-adds a product with few rows stays on one thread: it is over before another wakes.
const MIN_PARALLEL_WORK_FEW_ROWS: usize = 1 << 21;

pub(super) fn linear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n_out, n_in) = w.dims2()?;
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == n_in => *last = n_out,
        _ => bail!("linear: expected [.., {n_in}], got {:?}", x.dims()),
    }
    if residual.is_some_and(|residual| residual.dims() != shape.as_slice()) {
        bail!("linear: the residual's shape is not the output's {shape:?}");
    }
    let mut out = vec![0.0; shape.iter().product()];
    // Absent operands become x: a slice is needed, and it is not read.
    with_slices([x, w, bias.unwrap_or(x), residual.unwrap_or(x)], |[x, w, bias_values, residual_values]| {
        let bias = bias.is_some().then_some(bias_values);
        let residual = residual.is_some().then_some(residual_values);
        apply(&mut out, x, w, n_in, n_out, bias, activation, residual);
        Ok(())
    })?;
    Tensor::from_vec(out, shape, x.device())
}

#[expect(clippy::too_many_arguments, reason = "the operands of one fused operation")]
fn apply(
    out: &mut [f32],
    x: &[f32],
    w: &[f32],
    n_in: usize,
    n_out: usize,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
) {
    let n_rows = x.len().checked_div(n_in).unwrap_or(0);
    let work = n_rows * n_in * n_out;
    let task = |first_row: usize, out: &mut [f32], n_threads: usize| {
        let n_rows = out.len() / n_out;
        match (residual, bias) {
            (Some(residual), Some(bias)) => vectorized(|| {
                let residual = &residual[first_row * n_out..][..out.len()];
                for (out, residual) in out.chunks_exact_mut(n_out).zip(residual.chunks_exact(n_out)) {
                    for ((out, residual), bias) in out.iter_mut().zip(residual).zip(bias) {
                        *out = residual + bias;
                    }
                }
            }),
            (Some(residual), None) => out.copy_from_slice(&residual[first_row * n_out..][..out.len()]),
            (None, Some(bias)) => out.chunks_exact_mut(n_out).for_each(|row| row.copy_from_slice(bias)),
            (None, None) => {}
        }
        let destination = if residual.is_some() || bias.is_some() {
            Destination::Accumulate
        } else {
            Destination::Overwrite
        };
        let x = Matrix::new(&x[first_row * n_in..], n_rows, n_in, n_in);
        let w = Matrix::new(w, n_out, n_in, n_in);
        multiply(out, n_out, destination, 1.0, x, w.transposed(), n_threads);
        match activation {
            Activation::None => {}
            Activation::Gelu => vectorized(|| gelu(out)),
            Activation::QuickGelu => vectorized(|| quick_gelu(out)),
        }
    };
    assert!(
        activation == Activation::None || residual.is_none(),
        "a residual is added after the activation; no model here needs both"
    );
    if n_rows <= FEW_ROWS {
        let n_threads = if work < MIN_PARALLEL_WORK_FEW_ROWS { 1 } else { rayon::current_num_threads() };
        task(0, out, n_threads);
    } else if n_rows < 2 * ROWS_PER_TASK {
        let rows_per_task = n_rows.div_ceil(rayon::current_num_threads());
        for_each_chunk(out, rows_per_task * n_out, work, |i, out| task(i * rows_per_task, out, 1));
    } else {
        for_each_chunk(out, ROWS_PER_TASK * n_out, work, |i, out| task(i * ROWS_PER_TASK, out, 1));
    }
}

pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let n = weight.dims1()?;
    if x.dims().last() != Some(&n) || bias.dims() != [n] {
        bail!("layer_norm: expected [.., {n}], got {:?}", x.dims());
    }
    let mut out = vec![0.0; x.elem_count()];
    with_slices([x, weight, bias], |[x, weight, bias]| {
        let rows_per_task = (16_384 / n).max(1);
        // Some six passes over the row are worth as many multiply-adds.
        for_each_chunk(&mut out, rows_per_task * n, 6 * x.len(), |i, out| {
            let x = &x[i * rows_per_task * n..][..out.len()];
            vectorized(|| {
                for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                    layer_norm_row(x, out, weight, bias, eps);
                }
            });
        });
        Ok(())
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
}
