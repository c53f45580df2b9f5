//! Linear layers, feed-forward blocks and layer normalization on the CPU.

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use super::math::{gelu, layer_norm_row, quick_gelu, vectorized};
use super::matmul::{
    Destination, Matrix, PanelValues, Panels, multiply_panels, pack_panels, panels_len, tile,
};
use super::packed::{PER_CACHE_LINE, PackedMatrix, to_cache_line};
use super::{Activation, LayerNormWeights, PackedFeedForward, for_each_chunk, with_slices};

/// Most rows per task.
const MAX_ROWS_PER_TASK: usize = 96;
/// Up to this many rows (a decoding step) the threads share the columns, not the rows.
pub(super) const FEW_ROWS: usize = 16;
/// Columns per task then.
pub(super) const COLUMNS_PER_TASK: usize = 256;
/// Below this many multiply-adds a product with few rows stays on one thread: it is over before another wakes.
const MIN_PARALLEL_WORK_FEW_ROWS: usize = 1 << 21;

/// What is done to a product `x w^T` on its way out.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// Of the output's columns.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
    /// Like the output.
    pub(super) residual: Option<&'a [f32]>,
}

/// With weights that change from call to call: they are laid out first.
pub(super) fn linear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n_out, n_in) = w.dims2()?;
    with_slices([w], |[w]| {
        with_panels(w, n_out, n_in, |panels| linear_with(x, panels, &(0..n_out), bias, activation, residual))
    })
}

/// The outputs `rows` (rows of w) only.
pub(super) fn linear_packed(
    x: &Tensor,
    w: &PackedMatrix,
    rows: &Range<usize>,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    linear_with(x, w.panels(), rows, bias, activation, residual)
}

fn linear_with(
    x: &Tensor,
    panels: Panels<'_>,
    rows: &Range<usize>,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == panels.k && rows.end <= panels.n => *last = rows.len(),
        _ => bail!("linear: {:?} does not fit rows {rows:?} of [{}, {}]", x.dims(), panels.n, panels.k),
    }
    if residual.is_some_and(|it| it.dims() != shape.as_slice())
        || bias.is_some_and(|it| it.dims() != [rows.len()])
    {
        bail!("linear: bias or residual do not fit the output {shape:?}");
    }
    let mut out = vec![0.0; shape.iter().product()];
    // Absent operands become x: a slice is needed, and it is not read.
    with_slices([x, bias.unwrap_or(x), residual.unwrap_or(x)], |[x, bias_values, residual_values]| {
        let finish = Finish {
            bias: bias.is_some().then_some(bias_values),
            activation,
            residual: residual.is_some().then_some(residual_values),
        };
        apply(&mut out, x, panels, rows, finish);
        Ok(())
    })?;
    Tensor::from_vec(out, shape, x.device())
}

/// Hands `f` the panels of a weight [n_out, n_in].
pub(super) fn with_panels<R>(w: &[f32], n_out: usize, n_in: usize, f: impl FnOnce(Panels<'_>) -> R) -> R {
    with_scratch(panels_len(n_in, n_out), |values| {
        pack_panels(Matrix::new(w, n_out, n_in, n_in), values);
        f(Panels { values: PanelValues::F32(values), k: n_in, n: n_out })
    })
}

fn apply(out: &mut [f32], x: &[f32], w: Panels<'_>, rows: &Range<usize>, finish: Finish<'_>) {
    let n_out = rows.len();
    let n_rows = out.len().checked_div(n_out).unwrap_or(0);
    let work = n_rows * w.k * n_out;
    if n_rows <= FEW_ROWS || n_out < w.n {
        return apply_panels_by_columns(out, x, w, rows, finish);
    }
    let rows_per_task = rows_per_task(n_rows);
    for_each_chunk(out, rows_per_task * n_out, work, |i, out| {
        let x = &x[i * rows_per_task * w.k..][..out.len() / n_out * w.k];
        let residual = finish.residual.map(|it| &it[i * rows_per_task * n_out..][..out.len()]);
        apply_to_rows(out, x, w, Finish { residual, ..finish });
    });
}

/// On this thread, in place of whatever `out` holds.
fn apply_to_rows(out: &mut [f32], x: &[f32], w: Panels<'_>, finish: Finish<'_>) {
    assert!(
        finish.activation == Activation::None || finish.residual.is_none(),
        "a residual is added after the activation; no model here needs both"
    );
    match (finish.residual, finish.bias) {
        (Some(residual), Some(bias)) => vectorized!({
            for (out, residual) in out.chunks_exact_mut(w.n).zip(residual.chunks_exact(w.n)) {
                for ((out, residual), bias) in out.iter_mut().zip(residual).zip(bias) {
                    *out = residual + bias;
                }
            }
        }),
        (Some(residual), None) => out.copy_from_slice(residual),
        (None, Some(bias)) => out.chunks_exact_mut(w.n).for_each(|row| row.copy_from_slice(bias)),
        (None, None) => {}
    }
    let starts = finish.residual.is_some() || finish.bias.is_some();
    let destination = if starts { Destination::Accumulate } else { Destination::Overwrite };
    let x = Matrix::new(x, out.len() / w.n, w.k, w.k);
    multiply_panels(out, w.n, destination, 1.0, x, w);
    activate(out, finish.activation);
}

pub(super) fn activate(values: &mut [f32], activation: Activation) {
    match activation {
        Activation::None => {}
        Activation::Gelu => gelu(values),
        Activation::QuickGelu => quick_gelu(values),
    }
}

/// The threads share the columns: each reads a part of the weights, once.
fn apply_panels_by_columns(
    out: &mut [f32],
    x: &[f32],
    w: Panels<'_>,
    rows: &Range<usize>,
    finish: Finish<'_>,
) {
    let x = Matrix::new(x, x.len() / w.k.max(1), w.k, w.k);
    apply_by_columns(out, x, rows, w.width(), finish, |outputs, columns| {
        let w = w.columns(outputs.start, outputs.len());
        multiply_panels(columns, COLUMNS_PER_TASK, Destination::Overwrite, 1.0, x, w);
    });
}

/// With products made by `product(outputs, columns)`, which gets some of the weight's rows, from a multiple of `align` on (at first a few
/// more than are wanted), and where the outputs go, one row of `x` after the other, [`COLUMNS_PER_TASK`] apart.
pub(super) fn apply_by_columns(
    out: &mut [f32],
    x: Matrix<'_>,
    rows: &Range<usize>,
    align: usize,
    finish: Finish<'_>,
    product: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let first = rows.start / align * align;
    let n = rows.end - first;
    let n_tasks = n.div_ceil(COLUMNS_PER_TASK);
    let work = x.rows() * x.columns() * n;
    let work = if work < MIN_PARALLEL_WORK_FEW_ROWS { 0 } else { work };
    let task_len = COLUMNS_PER_TASK * x.rows();
    with_scratch(n_tasks * task_len, |columns| {
        for_each_chunk(columns, task_len, work, |task, columns| {
            let start = first + task * COLUMNS_PER_TASK;
            product(start..(start + COLUMNS_PER_TASK).min(rows.end), columns);
        });
        for (task, columns) in columns.chunks_exact(task_len).enumerate() {
            let start = first + task * COLUMNS_PER_TASK;
            let wanted = start.max(rows.start)..(start + COLUMNS_PER_TASK).min(rows.end);
            for (row, values) in columns.chunks_exact(COLUMNS_PER_TASK).enumerate() {
                let out = &mut out[row * rows.len()..][wanted.start - rows.start..wanted.end - rows.start];
                out.copy_from_slice(&values[wanted.start - start..wanted.end - start]);
            }
        }
    });
    if let Some(bias) = finish.bias {
        for out in out.chunks_exact_mut(rows.len()) {
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
    activate(out, finish.activation);
    if let Some(residual) = finish.residual {
        out.iter_mut().zip(residual).for_each(|(out, residual)| *out += residual);
    }
}

/// Shares rows between the threads evenly, in whole strips.
fn rows_per_task(n_rows: usize) -> usize {
    let n_tasks = n_rows.div_ceil(MAX_ROWS_PER_TASK).next_multiple_of(rayon::current_num_threads());
    n_rows.div_ceil(n_tasks).next_multiple_of(tile().rows)
}

pub(super) fn feed_forward(
    x: &Tensor,
    norm: Option<&LayerNormWeights<'_>>,
    layers: &PackedFeedForward<'_>,
) -> Result<Tensor> {
    let (n_hidden, n) = layers.w1.dims();
    let fits = layers.w2.dims() == (n, n_hidden) && layers.b1.dims() == [n_hidden] && layers.b2.dims() == [n];
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
    with_slices([x, norm_weight, norm_bias, layers.b1, layers.b2], |[x, norm_weight, norm_bias, b1, b2]| {
        let rows_per_task = if n_rows <= FEW_ROWS { n_rows.max(1) } else { rows_per_task(n_rows) };
        for_each_chunk(&mut out, rows_per_task * n, 2 * n_rows * n * n_hidden, |i, out| {
            let x = &x[i * rows_per_task * n..][..out.len()];
            let n_rows = out.len() / n;
            with_scratch(n_rows * (n + n_hidden), |scratch| {
                let (normed, hidden) = scratch.split_at_mut(n_rows * n);
                let input = match norm {
                    Some(norm) => {
                        vectorized!({
                            for (out, x) in normed.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                                layer_norm_row(x, out, norm_weight, norm_bias, norm.eps);
                            }
                        });
                        &*normed
                    }
                    None => x,
                };
                let first = Finish { bias: Some(b1), activation: layers.activation, residual: None };
                let second = Finish { bias: Some(b2), activation: Activation::None, residual: Some(x) };
                if n_rows <= FEW_ROWS {
                    apply_panels_by_columns(hidden, input, layers.w1.panels(), &(0..n_hidden), first);
                    apply_panels_by_columns(out, hidden, layers.w2.panels(), &(0..n), second);
                } else {
                    apply_to_rows(hidden, input, layers.w1.panels(), first);
                    apply_to_rows(out, hidden, layers.w2.panels(), second);
                }
            });
        });
        Ok(())
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
}

/// Hands `f` a buffer of this length that the thread keeps and that begins a cache line; its values are whatever was there.
pub(super) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        /// One for each depth of nesting.
        static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < len + PER_CACHE_LINE {
        buffer.resize(len + PER_CACHE_LINE, 0.0);
    }
    let start = to_cache_line(&buffer);
    let result = f(&mut buffer[start..][..len]);
    SCRATCH.with_borrow_mut(|kept| kept.push(buffer));
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
            vectorized!({
                for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                    layer_norm_row(x, out, weight, bias, eps);
                }
            });
        });
        Ok(())
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
}
