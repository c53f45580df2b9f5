//! The few operations that decide the speed of a model, fused for the CPU and for NVIDIA GPUs (`cuda.rs`), each with a reference path
//! of stock candle operations beside it ([`reference`]) for the tests.
//!
//! Feature maps are [batch, height, width, channels] throughout, so that a map is also [batch, tokens, channels] without
//! moving data. Weights of linear layers are [out, in] as checkpoints store them. On the CPU all tensors are f32; on a GPU all
//! tensors of an operation are f32, f16 or bf16.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod attention;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod attention_amx;
mod attention_int16;
mod bf16;
mod channel_attention;
mod conv;
pub mod cpu_features;
#[cfg(feature = "cuda")]
mod cuda;
mod int16;
mod int8;
mod linear;
mod math;
mod matmul;
mod packed;
mod quantized;
pub mod reference;
mod rounded;

use std::ops::Range;

use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};
pub use packed::{PackedMatrix, Precision};
pub use quantized::{QuantizedMatrix, linear_q8};
use rayon::prelude::*;

// What runs on devices other than the CPU. Without the feature there are none.
#[cfg(feature = "cuda")]
use cuda as gpu;
#[cfg(not(feature = "cuda"))]
use reference as gpu;

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

/// Which keys a query may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    /// In row `b` of the batch the first `n[b]` keys: the rest is padding.
    First(Vec<usize>),
    /// Query `i` sees keys `0..=offset + i`: decoding, after `offset` earlier tokens.
    Causal {
        /// Number of keys before the first query's own.
        offset: usize,
    },
}

/// `activation(x w^T + bias) + residual`; x [.., in], w [out, in], bias [out], residual like the output [.., out].
pub fn linear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => linear::linear(x, w, bias, activation, residual),
        _ => gpu::linear(x, w, bias, activation, residual),
    }
}

/// [`linear`] on the CPU with the rows `rows` of a weight that was laid out before; bias [rows], output [.., rows].
pub fn linear_packed(
    x: &Tensor,
    w: &PackedMatrix,
    rows: &Range<usize>,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    linear::linear_packed(x, w, rows, bias, activation, residual)
}

/// `x + fc2(activation(fc1(norm(x))))` on the CPU: what transformers do between attentions, without ever holding the whole
/// hidden layer. x [.., n]; without `norm`, x goes into the first layer as it is.
pub fn feed_forward(
    x: &Tensor,
    norm: Option<&LayerNormWeights<'_>>,
    layers: &PackedFeedForward<'_>,
) -> Result<Tensor> {
    linear::feed_forward(x, norm, layers)
}

/// Two linear layers with an activation between them.
#[derive(Clone, Copy)]
pub struct PackedFeedForward<'a> {
    /// Between the layers.
    pub activation: Activation,
    /// [hidden, n]
    pub w1: &'a PackedMatrix,
    /// [hidden]
    pub b1: &'a Tensor,
    /// [n, hidden]
    pub w2: &'a PackedMatrix,
    /// [n]
    pub b2: &'a Tensor,
}

/// A layer normalization's weights.
#[derive(Clone, Copy)]
pub struct LayerNormWeights<'a> {
    /// [channels]
    pub weight: &'a Tensor,
    /// [channels]
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f32,
}

/// Layer normalization over the last axis; weight and bias [channels].
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => linear::layer_norm(x, weight, bias, eps),
        _ => gpu::layer_norm(x, weight, bias, eps),
    }
}

/// Convolution with zero padding; x [B, H, W, I], w [O, kernel * kernel * I] (row-major over y, x, channel), bias [O].
pub fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => conv::conv2d(x, w, bias, conv),
        _ => gpu::conv2d(x, w, bias, conv),
    }
}

/// [`conv2d`] on the CPU with a kernel that was laid out before.
pub fn conv2d_packed(x: &Tensor, w: &PackedMatrix, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    conv::conv2d_packed(x, w, bias, conv)
}

/// Shape of a square convolution.
#[derive(Debug, Clone, Copy)]
pub struct Conv2d {
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
}

impl Conv2d {
    /// Output length along an axis of `n` inputs; 0 when the kernel does not fit.
    pub fn output_len(&self, n: usize) -> usize {
        (n + 2 * self.padding).checked_sub(self.kernel).map_or(0, |room| room / self.stride + 1)
    }
}

/// `x + depthwise_3x3(x)` with zero padding 1; x [B, H, W, C], w [9, C] (row-major over y, x), bias [C].
pub fn depthwise_3x3_residual(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => conv::depthwise_3x3_residual(x, w, bias),
        _ => gpu::depthwise_3x3_residual(x, w, bias),
    }
}

/// Scaled dot-product attention, scale = 1 / sqrt(head size); q [B, Nq, C], k and v [B, Nk, C], channels grouped by
/// head; result [B, Nq, C]. On the CPU products are rounded, to 16 bits, where that is faster with weights of this precision.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    n_heads: usize,
    visible: &Visible,
    precision: Precision,
) -> Result<Tensor> {
    let (batch, _, channels) = q.dims3()?;
    let (key_batch, _, key_channels) = k.dims3()?;
    if k.dims() != v.dims()
        || (key_batch, key_channels) != (batch, channels)
        || !channels.is_multiple_of(n_heads)
    {
        bail!("attention: q {:?}, k {:?}, v {:?}, {n_heads} heads", q.dims(), k.dims(), v.dims());
    }
    match q.device() {
        Device::Cpu => attention::attention(q, k, v, n_heads, visible, precision),
        _ => gpu::attention(q, k, v, n_heads, visible),
    }
}

/// Attention inside non-overlapping square windows; qkv [B, H, W, 3C], H and W multiples of `window`; result [B, H, W, C].
pub fn window_attention(qkv: &Tensor, n_heads: usize, window: usize) -> Result<Tensor> {
    match qkv.device() {
        Device::Cpu => attention::window_attention(qkv, n_heads, window),
        _ => gpu::window_attention(qkv, n_heads, window),
    }
}

/// Attention between the channels of a group, over all tokens, scale = 1 / sqrt(N); qkv [B, N, 3C]; result [B, N, C].
pub fn channel_attention(qkv: &Tensor, n_groups: usize) -> Result<Tensor> {
    match qkv.device() {
        Device::Cpu => channel_attention::channel_attention(qkv, n_groups),
        _ => gpu::channel_attention(qkv, n_groups),
    }
}

/// How greedy decoding takes its next token.
#[derive(Debug, Clone)]
pub struct NextToken<'a> {
    /// This one, whatever the logits say.
    pub forced: Option<u32>,
    /// None of these.
    pub banned: &'a [u32],
    /// This one, when no logit is above negative infinity.
    pub fallback: u32,
    /// Tokens whose logits are wanted too.
    pub copied: Range<u32>,
}

/// The likeliest token by `rule`, the first of equals; logits [vocabulary] in f32. Result [2 + copied] in f32: the token (exact below
/// 2^24), its log-probability before the rule (not a number when any logit is none), the copied logits. So that on a GPU the
/// logits can stay there.
pub fn next_token(logits: &Tensor, rule: &NextToken<'_>) -> Result<Tensor> {
    match logits.device() {
        Device::Cpu => reference::next_token(logits, rule),
        _ => gpu::next_token(logits, rule),
    }
}

/// Below this many multiply-adds a kernel stays on one thread: waking others costs more.
const MIN_PARALLEL_WORK: usize = 1 << 17;

/// Calls `f(index, chunk)` for consecutive chunks of `out`, on all threads when `work` (multiply-adds in all) is worth it.
fn for_each_chunk(out: &mut [f32], chunk_len: usize, work: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if out.is_empty() {
        return;
    }
    if work < MIN_PARALLEL_WORK || out.len() <= chunk_len {
        out.chunks_mut(chunk_len).enumerate().for_each(|(i, chunk)| f(i, chunk));
    } else {
        out.par_chunks_mut(chunk_len).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}

/// Hands the values of contiguous f32 CPU tensors to `f`.
fn with_slices<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> Result<R>,
) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("kernels need contiguous tensors")
        };
        match &**storage {
            Storage::Cpu(CpuStorage::F32(values)) => *slice = &values[start..end],
            _ => bail!("CPU kernels need f32 tensors on the CPU"),
        }
    }
    f(slices)
}

#[cfg(test)]
mod tests;
