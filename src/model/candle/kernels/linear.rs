//! Linear layers, feed-forward blocks and layer normalization on the CPU.

use std::cell::Cell;

use candle_core::{Result, Tensor, bail};

use super::math::{gelu, layer_norm_row, quick_gelu, vectorized};
use super::matmul::{Destination, Matrix, multiply};
use super::{Activation, FeedForwardWeights, LayerNormWeights, for_each_chunk, with_slices};

/// Most rows per task: enough that packing the weights, which every task does, is a small part of its work.
const MAX_ROWS_PER_TASK: usize = 288;
/// With fewer rows per task than this, packing costs more than another thread brings.
const MIN_ROWS_PER_TASK: usize = 48;
/// Up to this many rows (a decoding step) the threads share the columns, not the rows.
pub(super) const FEW_ROWS: usize = 16;
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
pub(super) fn apply(
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
    if n_rows <= FEW_ROWS {
        let n_threads = if work < MIN_PARALLEL_WORK_FEW_ROWS { 1 } else { rayon::current_num_threads() };
        apply_to_rows(out, x, w, n_in, n_out, bias, activation, residual, n_threads);
        return;
    }
    let rows_per_task = rows_per_task(n_rows);
    for_each_chunk(out, rows_per_task * n_out, work, |i, out| {
        let x = &x[i * rows_per_task * n_in..][..out.len() / n_out * n_in];
        let residual = residual.map(|it| &it[i * rows_per_task * n_out..][..out.len()]);
        apply_to_rows(out, x, w, n_in, n_out, bias, activation, residual, 1);
    });
}

/// The whole operation on all rows, in one product on `n_threads` threads.
#[expect(clippy::too_many_arguments, reason = "the operands of one fused operation")]
fn apply_to_rows(
    out: &mut [f32],
    x: &[f32],
    w: &[f32],
    n_in: usize,
    n_out: usize,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    n_threads: usize,
) {
    assert!(
        activation == Activation::None || residual.is_none(),
        "a residual is added after the activation; no model here needs both"
    );
    match (residual, bias) {
        (Some(residual), Some(bias)) => vectorized(|| {
            for (out, residual) in out.chunks_exact_mut(n_out).zip(residual.chunks_exact(n_out)) {
                for ((out, residual), bias) in out.iter_mut().zip(residual).zip(bias) {
                    *out = residual + bias;
                }
            }
        }),
        (Some(residual), None) => out.copy_from_slice(residual),
        (None, Some(bias)) => out.chunks_exact_mut(n_out).for_each(|row| row.copy_from_slice(bias)),
        (None, None) => {}
    }
    let destination =
        if residual.is_some() || bias.is_some() { Destination::Accumulate } else { Destination::Overwrite };
    let x = Matrix::new(x, out.len() / n_out, n_in, n_in);
    let w = Matrix::new(w, n_out, n_in, n_in);
    multiply(out, n_out, destination, 1.0, x, w.transposed(), n_threads);
    match activation {
        Activation::None => {}
        Activation::Gelu => vectorized(|| gelu(out)),
        Activation::QuickGelu => vectorized(|| quick_gelu(out)),
    }
}

/// Shares rows between the threads evenly.
fn rows_per_task(n_rows: usize) -> usize {
    let n_tasks = n_rows.div_ceil(MAX_ROWS_PER_TASK).next_multiple_of(rayon::current_num_threads());
    n_rows.div_ceil(n_tasks).max(MIN_ROWS_PER_TASK)
}

pub(super) fn feed_forward(
    x: &Tensor,
    norm: Option<&LayerNormWeights<'_>>,
    layers: &FeedForwardWeights<'_>,
) -> Result<Tensor> {
    let (n_hidden, n) = layers.w1.dims2()?;
    let fits = layers.w2.dims() == [n, n_hidden] && layers.b1.dims() == [n_hidden] && layers.b2.dims() == [n];
    if x.dims().last() != Some(&n)
        || !fits
        || norm.is_some_and(|it| it.weight.dims() != [n] || it.bias.dims() != [n])
    {
        bail!(
            "feed_forward: {:?} does not fit weights {:?} and {:?}",
            x.dims(),
            layers.w1.dims(),
            layers.w2.dims()
        );
    }
    let n_rows = x.elem_count() / n;
    let mut out = vec![0.0; x.elem_count()];
    // An absent norm becomes x: slices are needed, and they are not read.
    let (norm_weight, norm_bias) = norm.map_or((x, x), |it| (it.weight, it.bias));
    with_slices(
        [x, norm_weight, norm_bias, layers.w1, layers.b1, layers.w2, layers.b2],
        |[x, norm_weight, norm_bias, w1, b1, w2, b2]| {
            let rows_per_task = if n_rows <= FEW_ROWS { n_rows.max(1) } else { rows_per_task(n_rows) };
            for_each_chunk(&mut out, rows_per_task * n, 2 * n_rows * n * n_hidden, |i, out| {
                let x = &x[i * rows_per_task * n..][..out.len()];
                let n_rows = out.len() / n;
                with_scratch(n_rows * (n + n_hidden), |scratch| {
                    let (normed, hidden) = scratch.split_at_mut(n_rows * n);
                    let input = match norm {
                        Some(norm) => {
                            vectorized(|| {
                                for (out, x) in normed.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                                    layer_norm_row(x, out, norm_weight, norm_bias, norm.eps);
                                }
                            });
                            &*normed
                        }
                        None => x,
                    };
                    let n_threads = if n_rows > FEW_ROWS || n_rows * n * n_hidden < MIN_PARALLEL_WORK_FEW_ROWS
                    {
                        1
                    } else {
                        rayon::current_num_threads()
                    };
                    apply_to_rows(
                        hidden,
                        input,
                        w1,
                        n,
                        n_hidden,
                        Some(b1),
                        layers.activation,
                        None,
                        n_threads,
                    );
                    apply_to_rows(
                        out,
                        hidden,
                        w2,
                        n_hidden,
                        n,
                        Some(b2),
                        Activation::None,
                        Some(x),
                        n_threads,
                    );
                });
            });
            Ok(())
        },
    )?;
    Tensor::from_vec(out, x.dims(), x.device())
}

/// Hands `f` a buffer of this length that the thread keeps; its values are whatever was there.
pub(super) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let mut buffer = SCRATCH.take();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = f(&mut buffer[..len]);
    SCRATCH.set(buffer);
    result
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
