//! The layers that all networks here are made of, over the kernels.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::kernels::{
    Activation, Conv2d, LayerNormWeights, PackedFeedForward, PackedMatrix, Precision, conv2d, conv2d_packed,
    feed_forward, layer_norm, linear, linear_packed, pack,
};
use super::loading::Weights;
use crate::model::ModelError;

type Result<T> = std::result::Result<T, ModelError>;

/// A linear layer's matrix [out, in].
pub(super) enum Matrix {
    /// As the checkpoint has it.
    Dense(Tensor),
    /// Packed for products, on the CPU.
    Packed(PackedMatrix),
}

impl Matrix {
    /// In the precision in which the checkpoint is loaded.
    pub(super) fn new(w: &Weights<'_>, weight: Tensor) -> Result<Self> {
        if !is_packable(&weight) {
            return Ok(Self::Dense(weight));
        }
        Ok(Self::Packed(pack(&weight, w.precision())?))
    }

    /// `activation(x w^T + bias) + residual`
    pub(super) fn apply(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(w) => linear(x, w, bias, activation, residual),
            Self::Packed(w) => linear_packed(x, w, &(0..w.dims().0), bias, activation, residual),
        }
    }

    /// `x w^T + bias` with some rows of w.
    pub(super) fn apply_rows(
        &self,
        x: &Tensor,
        rows: Range<usize>,
        bias: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(w) => linear(x, &w.narrow(0, rows.start, rows.len())?, bias, Activation::None, None),
            Self::Packed(w) => linear_packed(x, w, &rows, bias, Activation::None, None),
        }
    }
}

/// Weights on a GPU stay as they are, and so do those of a checkpoint of shapes without values.
fn is_packable(weight: &Tensor) -> bool {
    weight.device().is_cpu() && weight.is_contiguous()
}

/// A convolution with zero padding over maps [B, H, W, in].
pub(super) struct Convolution {
    kernel: Kernel,
    bias: Tensor,
    conv: Conv2d,
}

/// [out, kernel * kernel * in]
enum Kernel {
    Dense(Tensor),
    Packed(PackedMatrix),
}

impl Convolution {
    /// With a weight as checkpoints have it, [out, in, kernel, kernel], and a bias [out].
    pub(super) fn new(w: &Weights<'_>, weight: &Tensor, bias: Tensor, conv: Conv2d) -> Result<Self> {
        let n_out = weight.dim(0)?;
        let channels_last = weight.permute((0, 2, 3, 1))?.reshape((n_out, ()))?.contiguous()?;
        let kernel = if is_packable(weight) {
            Kernel::Packed(pack(&channels_last, w.precision())?)
        } else {
            Kernel::Dense(channels_last)
        };
        Ok(Self { kernel, bias, conv })
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match &self.kernel {
            Kernel::Dense(w) => conv2d(x, w, &self.bias, self.conv),
            Kernel::Packed(w) => conv2d_packed(x, w, &self.bias, self.conv),
        }
    }
}

/// A linear layer.
pub(super) struct Linear {
    pub(super) weight: Matrix,
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// `weight` and `bias` at `w`.
    pub(super) fn new(w: &Weights<'_>, n_in: usize, n_out: usize) -> Result<Self> {
        Ok(Self { bias: Some(w.get("bias", &[n_out])?), ..Self::without_bias(w, n_in, n_out)? })
    }

    /// `weight` at `w`.
    pub(super) fn without_bias(w: &Weights<'_>, n_in: usize, n_out: usize) -> Result<Self> {
        Ok(Self { weight: Matrix::new(w, w.get("weight", &[n_out, n_in])?)?, bias: None })
    }

    /// The precision of the attention on the CPU that takes this layer's outputs.
    pub(super) fn precision(&self) -> Precision {
        match &self.weight {
            Matrix::Packed(w) => w.precision(),
            Matrix::Dense(_) => Precision::F32,
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_act(x, Activation::None)
    }

    /// `activation(self(x))`
    pub(super) fn forward_act(&self, x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        self.weight.apply(x, self.bias.as_ref(), activation, None)
    }

    /// `residual + self(x)`
    pub(super) fn forward_residual(&self, residual: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        self.weight.apply(x, self.bias.as_ref(), Activation::None, Some(residual))
    }
}

/// Layer normalization over the last axis.
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// `weight` and `bias` at `w`; `eps` is added to the variance.
    pub(super) fn new(w: &Weights<'_>, n: usize, eps: f32) -> Result<Self> {
        Ok(Self { weight: w.get("weight", &[n])?, bias: w.get("bias", &[n])?, eps })
    }

    /// The type in which the model computes.
    pub(super) fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// `x + fc2(activation(fc1(norm(x))))`, fused where the matrices are packed.
pub(super) fn feed_forward_of(
    (fc1, fc2): (&Linear, &Linear),
    activation: Activation,
    x: &Tensor,
    norm: Option<&LayerNorm>,
) -> candle_core::Result<Tensor> {
    let (
        Linear { weight: Matrix::Packed(w1), bias: Some(b1) },
        Linear { weight: Matrix::Packed(w2), bias: Some(b2) },
    ) = (fc1, fc2)
    else {
        let hidden = match norm {
            Some(norm) => fc1.forward_act(&norm.forward(x)?, activation)?,
            None => fc1.forward_act(x, activation)?,
        };
        return fc2.forward_residual(x, &hidden);
    };
    let norm = norm.map(|it| LayerNormWeights { weight: &it.weight, bias: &it.bias, eps: it.eps });
    feed_forward(x, norm.as_ref(), &PackedFeedForward { activation, w1, b1, w2, b2 })
}
