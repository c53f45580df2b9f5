//! The operations that decide the speed of a model, on tensors. On the CPU they are `fused_kernels`; on NVIDIA GPUs `cuda.rs`.
//! [`stock`] has each composed of candle's stock operations: what the tests compare with.
//!
//! Feature maps are [batch, height, width, channels] throughout, so that a map is also [batch, tokens, channels] without
//! moving data. Weights of linear layers are [out, in] as checkpoints store them. On the CPU all tensors are f32; on a GPU all
//! tensors of an operation are f32, f16 or bf16.

#[cfg(feature = "cuda")]
mod cuda;
pub mod stock;

use std::ops::Range;

use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};
pub use fused_kernels::{Activation, AttentionMask, Conv2d, PackedMatrix, Precision};
use fused_kernels::{AttentionShape, Epilogue, FeedForward, LayerNorm};

// What tensors on other devices than the CPU go to. A build without CUDA opens no other device (`device.rs`); stock operations, slow
// and right on every device that candle knows, keep the functions below total.
#[cfg(feature = "cuda")]
use cuda as other_devices;
#[cfg(not(feature = "cuda"))]
use stock as other_devices;

/// Packs a weight [out, in] on the CPU for products.
pub fn pack(weight: &Tensor, precision: Precision) -> Result<PackedMatrix> {
    let (n_out, n_in) = weight.dims2()?;
    with_slices([weight], |[weight]| Ok(PackedMatrix::new(weight, n_out, n_in, precision)))
}

/// `activation(x w^T + bias) + residual`; x [.., in], w [out, in], bias `[out]`, residual like the output [.., out].
pub fn linear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return other_devices::linear(x, w, bias, activation, residual);
    }
    let (n_out, n_in) = w.dims2()?;
    linear_with(x, (n_out, n_in), &(0..n_out), bias, activation, residual, |out, x, epilogue| {
        with_slices([w], |[w]| {
            fused_kernels::linear_unpacked(out, x, w, n_in, epilogue);
            Ok(())
        })
    })
}

/// [`linear`] on the CPU with the rows `rows` of a packed weight; bias `[rows]`, output [.., rows].
pub fn linear_packed(
    x: &Tensor,
    w: &PackedMatrix,
    rows: &Range<usize>,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    linear_with(x, w.dims(), rows, bias, activation, residual, |out, x, epilogue| {
        fused_kernels::linear(out, x, w, rows, epilogue);
        Ok(())
    })
}

/// Checks shapes, and has `run` fill the output.
fn linear_with(
    x: &Tensor,
    (n_out, n_in): (usize, usize),
    rows: &Range<usize>,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
    run: impl FnOnce(&mut [f32], &[f32], Epilogue<'_>) -> Result<()>,
) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == n_in && rows.end <= n_out => *last = rows.len(),
        _ => bail!("linear: {:?} does not fit rows {rows:?} of [{n_out}, {n_in}]", x.dims()),
    }
    if residual.is_some_and(|it| it.dims() != shape.as_slice())
        || bias.is_some_and(|it| it.dims() != [rows.len()])
    {
        bail!("linear: bias or residual do not fit the output {shape:?}");
    }
    let mut out = vec![0.0; shape.iter().product()];
    // Absent operands become x: a slice is needed, and it is not read.
    with_slices([x, bias.unwrap_or(x), residual.unwrap_or(x)], |[x, bias_values, residual_values]| {
        let epilogue = Epilogue {
            bias: bias.is_some().then_some(bias_values),
            activation,
            residual: residual.is_some().then_some(residual_values),
        };
        run(&mut out, x, epilogue)
    })?;
    Tensor::from_vec(out, shape, x.device())
}

/// `x + fc2(activation(fc1(norm(x))))` on the CPU: what transformers do between attentions, without ever holding the whole
/// hidden layer. x [.., n]; without `norm`, x goes into the first layer as it is.
pub fn feed_forward(
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
    let mut out = vec![0.0; x.elem_count()];
    // An absent norm becomes x: slices are needed, and they are not read.
    let (norm_weight, norm_bias) = norm.map_or((x, x), |it| (it.weight, it.bias));
    with_slices([x, norm_weight, norm_bias, layers.b1, layers.b2], |[x, weight, bias, b1, b2]| {
        let norm = norm.map(|it| LayerNorm { weight, bias, eps: it.eps });
        let PackedFeedForward { activation, w1, w2, .. } = *layers;
        fused_kernels::feed_forward(&mut out, x, norm, &FeedForward { activation, w1, b1, w2, b2 });
        Ok(())
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
}

/// Two linear layers with an activation between them.
#[derive(Clone, Copy)]
pub struct PackedFeedForward<'a> {
    /// Between the layers.
    pub activation: Activation,
    /// [hidden, n]
    pub w1: &'a PackedMatrix,
    /// `[hidden]`
    pub b1: &'a Tensor,
    /// [n, hidden]
    pub w2: &'a PackedMatrix,
    /// `[n]`
    pub b2: &'a Tensor,
}

/// A layer normalization's weights.
#[derive(Clone, Copy)]
pub struct LayerNormWeights<'a> {
    /// `[channels]`
    pub weight: &'a Tensor,
    /// `[channels]`
    pub bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f32,
}

/// Layer normalization over the last axis; weight and bias `[channels]`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return other_devices::layer_norm(x, weight, bias, eps);
    }
    let n = weight.dims1()?;
    if x.dims().last() != Some(&n) || bias.dims() != [n] {
        bail!("layer_norm: expected [.., {n}], got {:?}", x.dims());
    }
    let mut out = vec![0.0; x.elem_count()];
    with_slices([x, weight, bias], |[x, weight, bias]| {
        fused_kernels::layer_norm(&mut out, x, LayerNorm { weight, bias, eps });
        Ok(())
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
}

/// Convolution with zero padding; x [B, H, W, I], w [O, kernel * kernel * I] (row-major over y, x, channel), bias `[O]`.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return other_devices::conv2d(x, w, bias, conv);
    }
    conv2d_with(x, w.dims2()?, bias, conv, |out, x, dims, bias| {
        with_slices([w], |[w]| {
            fused_kernels::conv2d_unpacked(out, x, dims, w, bias, conv);
            Ok(())
        })
    })
}

/// [`conv2d`] on the CPU with a packed kernel.
pub fn conv2d_packed(x: &Tensor, w: &PackedMatrix, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    conv2d_with(x, w.dims(), bias, conv, |out, x, dims, bias| {
        fused_kernels::conv2d(out, x, dims, w, bias, conv);
        Ok(())
    })
}

/// Checks shapes, and has `run` fill the output.
fn conv2d_with(
    x: &Tensor,
    (n_out, patch_len): (usize, usize),
    bias: &Tensor,
    conv: Conv2d,
    run: impl FnOnce(&mut [f32], &[f32], [usize; 3], &[f32]) -> Result<()>,
) -> Result<Tensor> {
    let (batch, height, width, n_in) = x.dims4()?;
    if patch_len != conv.kernel * conv.kernel * n_in || bias.dims() != [n_out] {
        bail!("conv2d: kernel [{n_out}, {patch_len}] and bias {:?} do not fit {n_in} channels", bias.dims());
    }
    let shape = (batch, conv.output_len(height), conv.output_len(width), n_out);
    let mut out = vec![0.0; shape.0 * shape.1 * shape.2 * shape.3];
    with_slices([x, bias], |[x, bias]| run(&mut out, x, [height, width, n_in], bias))?;
    Tensor::from_vec(out, shape, x.device())
}

/// `x + depthwise_3x3(x)` with zero padding 1; x [B, H, W, C], w [9, C] (row-major over y, x), bias `[C]`.
pub fn depthwise_3x3_residual(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return other_devices::depthwise_3x3_residual(x, w, bias);
    }
    let (_batch, height, width, channels) = x.dims4()?;
    if w.dims() != [9, channels] || bias.dims() != [channels] {
        bail!("depthwise: kernel {:?} and bias {:?} do not fit {channels} channels", w.dims(), bias.dims());
    }
    let mut out = vec![0.0; x.elem_count()];
    with_slices([x, w, bias], |[x, w, bias]| {
        fused_kernels::depthwise_3x3_residual(&mut out, x, [height, width, channels], w, bias);
        Ok(())
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
}

/// Scaled dot-product attention, scale = 1 / sqrt(head size); q [B, Nq, C], k and v [B, Nk, C], channels grouped by
/// head; result [B, Nq, C]. On the CPU products are in bfloat16 where `precision` is and the processor is faster with it.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    n_heads: usize,
    mask: &AttentionMask,
    precision: Precision,
) -> Result<Tensor> {
    let (batch, n_queries, channels) = q.dims3()?;
    let (key_batch, n_keys, key_channels) = k.dims3()?;
    if k.dims() != v.dims()
        || (key_batch, key_channels) != (batch, channels)
        || !channels.is_multiple_of(n_heads)
    {
        bail!("attention: q {:?}, k {:?}, v {:?}, {n_heads} heads", q.dims(), k.dims(), v.dims());
    }
    if !q.device().is_cpu() {
        return other_devices::attention(q, k, v, n_heads, mask);
    }
    if !mask.fits(batch, n_queries, n_keys) {
        bail!("attention: {mask:?} does not fit {n_queries} queries and {n_keys} keys");
    }
    let shape = AttentionShape { batch, n_queries, n_keys, n_heads, head_dim: channels / n_heads };
    let mut out = vec![0.0; q.elem_count()];
    with_slices([q, k, v], |qkv| {
        fused_kernels::attention(&mut out, qkv, shape, mask, precision);
        Ok(())
    })?;
    Tensor::from_vec(out, q.dims(), q.device())
}

/// Attention inside non-overlapping square windows; qkv [B, H, W, 3C], H and W multiples of `window`; result [B, H, W, C].
pub fn window_attention(qkv: &Tensor, n_heads: usize, window: usize) -> Result<Tensor> {
    if !qkv.device().is_cpu() {
        return other_devices::window_attention(qkv, n_heads, window);
    }
    let (batch, height, width, three_channels) = qkv.dims4()?;
    let channels = three_channels / 3;
    if !three_channels.is_multiple_of(3 * n_heads)
        || !height.is_multiple_of(window)
        || !width.is_multiple_of(window)
    {
        bail!("window_attention: {:?} does not fit {n_heads} heads and windows of {window}", qkv.dims());
    }
    let mut out = vec![0.0; batch * height * width * channels];
    with_slices([qkv], |[qkv]| {
        fused_kernels::window_attention(&mut out, qkv, [height, width, channels], n_heads, window);
        Ok(())
    })?;
    Tensor::from_vec(out, (batch, height, width, channels), qkv.device())
}

/// Attention between the channels of a group, over all tokens, scale = 1 / sqrt(N); qkv [B, N, 3C]; result [B, N, C].
pub fn channel_attention(qkv: &Tensor, n_groups: usize) -> Result<Tensor> {
    if !qkv.device().is_cpu() {
        return other_devices::channel_attention(qkv, n_groups);
    }
    let (batch, n_tokens, three_channels) = qkv.dims3()?;
    if !three_channels.is_multiple_of(3 * n_groups) || n_tokens == 0 {
        bail!("channel_attention: {:?} does not fit {n_groups} groups", qkv.dims());
    }
    let channels = three_channels / 3;
    let mut out = vec![0.0; batch * n_tokens * channels];
    with_slices([qkv], |[qkv]| {
        fused_kernels::channel_attention(&mut out, qkv, n_tokens, channels, n_groups);
        Ok(())
    })?;
    Tensor::from_vec(out, (batch, n_tokens, channels), qkv.device())
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

/// The likeliest token by `rule`, the first of equals; logits `[vocabulary]` in f32. Result [2 + copied] in f32: the token (exact below
/// 2^24), its log-probability before the rule (not a number when any logit is none), the copied logits. So that on a GPU the
/// logits can stay there.
pub fn next_token(logits: &Tensor, rule: &NextToken<'_>) -> Result<Tensor> {
    match logits.device() {
        Device::Cpu => stock::next_token(logits, rule),
        _ => other_devices::next_token(logits, rule),
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
