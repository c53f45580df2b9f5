//! Matrix products. `packed.rs` is on top and chooses; each kernel has a file of its own below it.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
pub(crate) mod bf16;
pub(crate) mod f32;
mod int8;
pub(crate) mod micro_kernel;
pub(crate) mod output;
mod packed;
mod quantized;

pub use packed::{PackedMatrix, Precision};
