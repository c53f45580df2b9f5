//! The operations that decide the speed of vision-language models on a CPU, over slices of f32.
//!
//! Feature maps are [batch, height, width, channels], so that a map is also [batch, tokens, channels] without moving data. Weights
//! of linear layers are [out, in] as checkpoints store them. Work is shared between the threads of rayon's current pool.
//!
//! ```
//! use fused_kernels::{Activation, Epilogue, PackedMatrix, Precision, linear};
//!
//! let weight = PackedMatrix::new(&[1.0, 2.0, 3.0, 4.0], 2, 2, Precision::F32);
//! let epilogue = Epilogue { bias: Some(&[0.5, -10.0]), activation: Activation::None, residual: None };
//! let mut out = [0.0; 2];
//! linear(&mut out, &[1.0, 1.0], &weight, &(0..2), epilogue);
//! assert_eq!(out, [3.5, -3.0]);
//! ```
//!
//! Modules use only what stands before them: `cpu_features`, `simd`, `scratch`, `parallel`, `matrix` and `math`; `gemm` (a file for
//! each kernel, the choice between them on top); `linear`; `conv`, `attention` and `channel_attention`.

mod attention;
mod channel_attention;
mod conv;
pub mod cpu_features;
mod gemm;
mod linear;
mod math;
mod matrix;
mod parallel;
mod scratch;
mod simd;

pub use attention::{AttentionMask, AttentionShape, attention, window_attention};
pub use channel_attention::channel_attention;
pub use conv::{Conv2d, conv2d, conv2d_unpacked, depthwise_3x3_residual};
pub use gemm::{PackedMatrix, Precision};
pub use linear::{
    Activation, Epilogue, FeedForward, LayerNorm, feed_forward, layer_norm, linear, linear_unpacked,
};
