//! Linear layers, feed-forward blocks and layer normalization.

use std::ops::Range;

use crate::gemm::PackedMatrix;
use crate::gemm::f32;
use crate::gemm::output::{Output, Store};
use crate::math::{gelu, layer_norm_row, quick_gelu};
use crate::matrix::MatrixView;
use crate::parallel::for_each_chunk;
use crate::scratch::with_scratch;
use crate::simd::vectorized;

/// Most rows of x in a task.
const MAX_ROWS_PER_TASK: usize = 96;
/// Up to this many rows of x, as in a decoding step, threads share the outputs, so that each reads a part of the weight.
const FEW_ROWS: usize = 16;
/// Outputs in a task then; a multiple of every micro-panel.
const OUTPUTS_PER_TASK: usize = 256;
/// Below this many multiply-adds a product with few rows stays on one thread: it is over before another wakes.
const MIN_PARALLEL_WORK_FEW_ROWS: usize = 1 << 21;
/// Values in a task of what is done to each value.
const VALUES_PER_TASK: usize = 1 << 15;
/// Hidden values of a feed-forward block in f32 that are in memory at a time.
const MAX_HIDDEN_VALUES: usize = 1 << 22;

/// What a linear layer applies to its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// GELU in its exact form, x * Phi(x).
    Gelu,
    /// CLIP's approximation of it, x * sigmoid(1.702 x).
    QuickGelu,
}

impl Activation {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Gelu => gelu(values),
            Self::QuickGelu => quick_gelu(values),
        }
    }
}

/// What is done to a product `x w^T` on its way out: `activation(x w^T + bias) + residual`.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// One value for each output.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Activation,
    /// Of the output's shape; added last.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    /// Whether a product is added to what [`Self::initialize`] wrote.
    fn store(&self) -> Store {
        if self.bias.is_some() || self.residual.is_some() { Store::Accumulate } else { Store::Overwrite }
    }

    /// Writes what the product is added to, if anything.
    fn initialize(&self, out: &mut [f32], n_out: usize) {
        assert!(
            self.activation == Activation::None || self.residual.is_none(),
            "a residual is added after the activation; no caller needs both"
        );
        match (self.residual, self.bias) {
            (Some(residual), Some(bias)) => vectorized!({
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
    }

    /// The epilogue of some rows of the output.
    fn of_rows(&self, rows: Range<usize>, n_out: usize) -> Self {
        let residual = self.residual.map(|it| &it[rows.start * n_out..rows.end * n_out]);
        Self { residual, ..*self }
    }
}

/// `out = activation(x w^T + bias) + residual` with the rows `rows` of w; x [n, in], out and residual [n, rows], bias `[rows]`.
///
/// # Panics
/// If lengths do not fit, or an activation and a residual are both asked for.
pub fn linear(out: &mut [f32], x: &[f32], w: &PackedMatrix, rows: &Range<usize>, epilogue: Epilogue<'_>) {
    let (n_out, n_in) = (rows.len(), w.dims().1);
    if out.is_empty() {
        return;
    }
    let n = out.len() / n_out;
    assert_eq!((out.len(), x.len()), (n * n_out, n * n_in), "linear: x and out do not fit the weight");
    if n <= FEW_ROWS {
        linear_few_rows(out, MatrixView::new(x, n, n_in, n_in), w, rows, epilogue);
    } else if let Some(w) = w.as_f32() {
        linear_f32(out, x, w.rows(rows.clone()), epilogue);
    } else if n_out < w.dims().0 {
        linear_few_rows(out, MatrixView::new(x, n, n_in, n_in), w, rows, epilogue);
    } else {
        let rows_per_task = rows_per_task(n);
        for_each_chunk(out, rows_per_task * n_out, n * n_in * n_out, |i, out| {
            let rows = i * rows_per_task..i * rows_per_task + out.len() / n_out;
            let x = &x[rows.start * n_in..rows.end * n_in];
            linear_on_this_thread(out, x, w, epilogue.of_rows(rows, n_out));
        });
    }
}

/// [`linear`] with a weight [out, in] in f32 that changes from call to call.
///
/// # Panics
/// As [`linear`] does.
pub fn linear_unpacked(out: &mut [f32], x: &[f32], w: &[f32], n_in: usize, epilogue: Epilogue<'_>) {
    if out.is_empty() || n_in == 0 {
        return;
    }
    let n_out = w.len() / n_in;
    assert_eq!(x.len() * n_out, out.len() * n_in, "linear: x and out do not fit the weight");
    linear_f32(out, x, MatrixView::new(w, n_out, n_in, n_in), epilogue);
}

fn linear_f32(out: &mut [f32], x: &[f32], w: MatrixView<'_>, epilogue: Epilogue<'_>) {
    let (n_out, n_in) = (w.n_rows(), w.n_columns());
    let n = out.len() / n_out;
    let rows_per_task = (VALUES_PER_TASK / n_out).max(1);
    let store = epilogue.store();
    if store == Store::Accumulate {
        for_each_chunk(out, rows_per_task * n_out, n * n_out, |i, out| {
            let rows = i * rows_per_task..i * rows_per_task + out.len() / n_out;
            epilogue.of_rows(rows, n_out).initialize(out, n_out);
        });
    }
    let product = Output { data: &mut *out, row_stride: n_out, store };
    let x = MatrixView::new(x, n, n_in, n_in);
    f32::gemm(product, x, w.transposed(), rayon::current_num_threads());
    if epilogue.activation != Activation::None {
        // GELU costs some 30 multiply-adds.
        for_each_chunk(out, VALUES_PER_TASK, 30 * n * n_out, |_, out| epilogue.activation.apply(out));
    }
}

fn linear_on_this_thread(out: &mut [f32], x: &[f32], w: &PackedMatrix, epilogue: Epilogue<'_>) {
    let (n_out, n_in) = w.dims();
    epilogue.initialize(out, n_out);
    let x = MatrixView::new(x, out.len() / n_out, n_in, n_in);
    w.multiply(Output { data: &mut *out, row_stride: n_out, store: epilogue.store() }, x, 0..n_out);
    epilogue.activation.apply(out);
}

/// Threads share the outputs; tasks begin where a micro-panel does.
fn linear_few_rows(
    out: &mut [f32],
    x: MatrixView<'_>,
    w: &PackedMatrix,
    rows: &Range<usize>,
    epilogue: Epilogue<'_>,
) {
    let n = x.n_rows();
    let first = rows.start / w.row_alignment() * w.row_alignment();
    let n_outputs = rows.end - first;
    let work = n * x.n_columns() * n_outputs;
    let work = if work < MIN_PARALLEL_WORK_FEW_ROWS { 0 } else { work };
    let task_len = OUTPUTS_PER_TASK * n;
    with_scratch(n_outputs.div_ceil(OUTPUTS_PER_TASK) * task_len, |columns| {
        for_each_chunk(columns, task_len, work, |task, columns| {
            let start = first + task * OUTPUTS_PER_TASK;
            let outputs = start..(start + OUTPUTS_PER_TASK).min(rows.end);
            let product = Output::overwrite(columns, OUTPUTS_PER_TASK);
            match w.as_f32() {
                Some(w) if n <= FEW_ROWS => f32::multiply_few_rows(product, x, w.rows(outputs)),
                _ => w.multiply(product, x, outputs),
            }
        });
        for (task, columns) in columns.chunks_exact(task_len).enumerate() {
            let start = first + task * OUTPUTS_PER_TASK;
            let wanted = start.max(rows.start)..(start + OUTPUTS_PER_TASK).min(rows.end);
            for (row, values) in columns.chunks_exact(OUTPUTS_PER_TASK).enumerate() {
                let out = &mut out[row * rows.len()..][wanted.start - rows.start..wanted.end - rows.start];
                out.copy_from_slice(&values[wanted.start - start..wanted.end - start]);
            }
        }
    });
    if let Some(bias) = epilogue.bias {
        for out in out.chunks_exact_mut(rows.len()) {
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
    epilogue.activation.apply(out);
    if let Some(residual) = epilogue.residual {
        out.iter_mut().zip(residual).for_each(|(out, residual)| *out += residual);
    }
}

/// Shares rows between the threads evenly, in whole micro-panels of every kernel.
fn rows_per_task(n_rows: usize) -> usize {
    let n_tasks = n_rows.div_ceil(MAX_ROWS_PER_TASK).next_multiple_of(rayon::current_num_threads());
    n_rows.div_ceil(n_tasks).next_multiple_of(12)
}

/// Two linear layers with an activation between them.
#[derive(Clone, Copy)]
pub struct FeedForward<'a> {
    /// Between the layers.
    pub activation: Activation,
    /// [hidden, n]
    pub w1: &'a PackedMatrix,
    /// `[hidden]`
    pub b1: &'a [f32],
    /// [n, hidden]
    pub w2: &'a PackedMatrix,
    /// `[n]`
    pub b2: &'a [f32],
}

/// The weights of a layer normalization.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// `[channels]`
    pub weight: &'a [f32],
    /// `[channels]`
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm<'_> {
    fn apply(&self, out: &mut [f32], x: &[f32]) {
        let n = self.weight.len();
        vectorized!({
            for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                layer_norm_row(x, out, self.weight, self.bias, self.eps);
            }
        });
    }
}

/// `out = x + fc2(activation(fc1(norm(x))))`, what transformers do between attentions; x and out [tokens, n]. Without `norm`, x goes
/// into the first layer as it is. The whole hidden layer [tokens, hidden] is never in memory at once.
///
/// # Panics
/// If lengths do not fit.
pub fn feed_forward(out: &mut [f32], x: &[f32], norm: Option<LayerNorm<'_>>, layers: &FeedForward<'_>) {
    let (n_hidden, n) = layers.w1.dims();
    assert!(layers.w2.dims() == (n, n_hidden) && out.len() == x.len(), "feed_forward: weights do not fit");
    let n_rows = x.len() / n.max(1);
    // In f32 each layer shares its work between the threads; otherwise, and unless there are few rows, tasks of rows do.
    let threads_inside = n_rows <= FEW_ROWS || layers.w1.as_f32().is_some();
    let rows_per_task = if threads_inside {
        (MAX_HIDDEN_VALUES / n_hidden.max(1)).clamp(1, n_rows.max(1))
    } else {
        rows_per_task(n_rows)
    };
    let work = if threads_inside { 0 } else { 2 * n_rows * n * n_hidden };
    for_each_chunk(out, rows_per_task * n, work, |i, out| {
        let x = &x[i * rows_per_task * n..][..out.len()];
        let n_rows = out.len() / n;
        with_scratch(n_rows * (n + n_hidden), |scratch| {
            let (normed, hidden) = scratch.split_at_mut(n_rows * n);
            let input = match norm {
                Some(norm) if threads_inside => {
                    layer_norm(normed, x, norm);
                    &*normed
                }
                Some(norm) => {
                    norm.apply(normed, x);
                    &*normed
                }
                None => x,
            };
            let first = Epilogue { bias: Some(layers.b1), activation: layers.activation, residual: None };
            let second = Epilogue { bias: Some(layers.b2), activation: Activation::None, residual: Some(x) };
            if threads_inside {
                linear(hidden, input, layers.w1, &(0..n_hidden), first);
                linear(out, hidden, layers.w2, &(0..n), second);
            } else {
                linear_on_this_thread(hidden, input, layers.w1, first);
                linear_on_this_thread(out, hidden, layers.w2, second);
            }
        });
    });
}

/// `out = norm(x)` over rows of as many values as the norm has weights.
///
/// # Panics
/// If lengths do not fit.
pub fn layer_norm(out: &mut [f32], x: &[f32], norm: LayerNorm<'_>) {
    let n = norm.weight.len();
    assert!(norm.bias.len() == n && out.len() == x.len(), "layer_norm: weights do not fit");
    let values_per_task = (16_384 / n.max(1)).max(1) * n;
    // Some six passes over a row cost as much as that many multiply-adds for each value.
    for_each_chunk(out, values_per_task, 6 * x.len(), |i, out| {
        norm.apply(out, &x[i * values_per_task..][..out.len()]);
    });
}
