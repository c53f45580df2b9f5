//! The operations of [`super`] composed of candle's stock ones, for tensors on any device: the oracle of the tests.

use candle_core::{D, Result, Tensor};

use super::{Activation, AttentionMask, Conv2d, NextToken};

/// See [`super::linear`].
pub fn linear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (n_out, n_in) = w.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = n_out;
    }
    let mut out = x.reshape(((), n_in))?.matmul(&w.t()?)?.reshape(shape)?;
    if let Some(bias) = bias {
        out = out.broadcast_add(bias)?;
    }
    out = match activation {
        Activation::None => out,
        Activation::Gelu => out.gelu_erf()?,
        Activation::QuickGelu => (&out * candle_nn::ops::sigmoid(&(&out * 1.702)?)?)?,
    };
    match residual {
        Some(residual) => out + residual,
        None => Ok(out),
    }
}

/// See [`super::layer_norm`].
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    candle_nn::ops::layer_norm_slow(x, weight, bias, eps)
}

/// See [`super::conv2d`].
pub fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    let n_in = x.dim(D::Minus1)?;
    let w = w.reshape(((), conv.kernel, conv.kernel, n_in))?.permute((0, 3, 1, 2))?.contiguous()?;
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    let out = x.conv2d(&w, conv.padding, conv.stride, 1, 1)?;
    out.permute((0, 2, 3, 1))?.contiguous()?.broadcast_add(bias)
}

/// See [`super::depthwise_3x3_residual`].
pub fn depthwise_3x3_residual(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    let padded = x.pad_with_zeros(1, 1, 1)?.pad_with_zeros(2, 1, 1)?;
    let mut out = x.broadcast_add(bias)?;
    for ky in 0..3 {
        for kx in 0..3 {
            let shifted = padded.narrow(1, ky, height)?.narrow(2, kx, width)?;
            out = (out + shifted.broadcast_mul(&w.get(ky * 3 + kx)?)?)?;
        }
    }
    Ok(out)
}

/// See [`super::attention`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, n_heads: usize, mask: &AttentionMask) -> Result<Tensor> {
    let (batch, n_queries, _) = q.dims3()?;
    let n_keys = k.dim(1)?;
    let added: Vec<f32> = (0..batch * n_queries * n_keys)
        .map(|i| {
            let (image, query, key) = (i / (n_queries * n_keys), i / n_keys % n_queries, i % n_keys);
            if key < mask.n_visible(image, query) { 0.0 } else { f32::NEG_INFINITY }
        })
        .collect();
    let added = Tensor::from_vec(added, (batch, 1, n_queries, n_keys), q.device())?.to_dtype(q.dtype())?;
    let heads = |x: &Tensor| -> Result<Tensor> {
        let (batch, n, channels) = x.dims3()?;
        x.reshape((batch, n, n_heads, channels / n_heads))?.transpose(1, 2)?.contiguous()
    };
    let out = attend(&heads(q)?, &heads(k)?, &heads(v)?, Some(&added))?;
    out.transpose(1, 2)?.contiguous()?.reshape(q.dims())
}

/// q, k, v [B, heads, N, d].
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let scale = 1.0 / (q.dim(D::Minus1)? as f64).sqrt();
    let mut scores = (q.matmul(&k.t()?)? * scale)?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    candle_nn::ops::softmax_last_dim(&scores)?.matmul(v)
}

/// See [`super::window_attention`].
pub fn window_attention(qkv: &Tensor, n_heads: usize, window: usize) -> Result<Tensor> {
    let (batch, height, width, three_channels) = qkv.dims4()?;
    let channels = three_channels / 3;
    let (n_down, n_across) = (height / window, width / window);
    // [B * windows, tokens, 3, heads, d]
    let windows = qkv
        .reshape((batch * n_down, window, n_across, window * three_channels))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((batch * n_down * n_across, window * window, 3, n_heads, channels / n_heads))?;
    let part = |i: usize| windows.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let out = attend(&part(0)?, &part(1)?, &part(2)?, None)?;
    out.transpose(1, 2)?
        .contiguous()?
        .reshape((batch * n_down, n_across, window, window * channels))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((batch, height, width, channels))
}

/// See [`super::channel_attention`].
pub fn channel_attention(qkv: &Tensor, n_groups: usize) -> Result<Tensor> {
    let (batch, n_tokens, three_channels) = qkv.dims3()?;
    let channels = three_channels / 3;
    // Channels take the place of tokens: [B, groups, d, N].
    let part = |i: usize| {
        qkv.narrow(2, i * channels, channels)?
            .reshape((batch, n_tokens, n_groups, channels / n_groups))?
            .permute((0, 2, 3, 1))?
            .contiguous()
    };
    let out = attend(&part(0)?, &part(1)?, &part(2)?, None)?;
    out.permute((0, 3, 1, 2))?.contiguous()?.reshape((batch, n_tokens, channels))
}

/// See [`super::next_token`]. It runs on the CPU, and is what other devices than NVIDIA GPUs have.
pub fn next_token(logits: &Tensor, rule: &NextToken<'_>) -> Result<Tensor> {
    let values: Vec<f32> = logits.to_vec1()?;
    let mut best = (rule.fallback, f32::NEG_INFINITY);
    for (id, &value) in (0u32..).zip(&values) {
        if value > best.1 && !rule.banned.contains(&id) {
            best = (id, value);
        }
    }
    let id = rule.forced.unwrap_or(best.0);
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = values.iter().map(|value| (value - largest).exp()).sum();
    let mut out = vec![id as f32, values[id as usize] - largest - total.ln()];
    out.extend_from_slice(&values[rule.copied.start as usize..rule.copied.end as usize]);
    Tensor::new(out, logits.device())
}
