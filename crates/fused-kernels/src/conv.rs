//! Convolutions, channels last.

use crate::gemm::PackedMatrix;
use crate::linear::{Activation, Epilogue, linear, linear_unpacked};
use crate::parallel::for_each_chunk;
use crate::scratch::with_scratch;
use crate::simd::vectorized;

/// Values of gathered patches that are in memory at a time, about.
const MAX_PATCH_VALUES: usize = 1 << 21;

/// The shape of a square convolution with zero padding.
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

/// A convolution; x [batch, height, width, in], w [out, kernel * kernel * in] (row-major over y, x, channel), bias `[out]`, result
/// [batch, output height, output width, out].
///
/// # Panics
/// If lengths do not fit.
pub fn conv2d(
    out: &mut [f32],
    x: &[f32],
    [height, width, n_in]: [usize; 3],
    w: &PackedMatrix,
    bias: &[f32],
    conv: Conv2d,
) {
    let (n_out, patch_len) = w.dims();
    assert_eq!((patch_len, bias.len()), (conv.kernel * conv.kernel * n_in, n_out), "conv2d: kernel, bias");
    let epilogue = Epilogue { bias: Some(bias), activation: Activation::None, residual: None };
    im2col(out, x, [height, width, n_in], n_out, conv, |out, patches| {
        linear(out, patches, w, &(0..n_out), epilogue);
    });
}

/// [`conv2d`] with a kernel in f32 that changes from call to call.
///
/// # Panics
/// As [`conv2d`] does.
pub fn conv2d_unpacked(
    out: &mut [f32],
    x: &[f32],
    [height, width, n_in]: [usize; 3],
    w: &[f32],
    bias: &[f32],
    conv: Conv2d,
) {
    let (n_out, patch_len) = (bias.len(), conv.kernel * conv.kernel * n_in);
    assert_eq!(w.len(), n_out * patch_len, "conv2d: kernel, bias");
    let epilogue = Epilogue { bias: Some(bias), activation: Activation::None, residual: None };
    im2col(out, x, [height, width, n_in], n_out, conv, |out, patches| {
        linear_unpacked(out, patches, w, patch_len, epilogue);
    });
}

/// Gathers the patches of some output rows at a time, and has `multiply` make their outputs of them.
fn im2col(
    out: &mut [f32],
    x: &[f32],
    [height, width, n_in]: [usize; 3],
    n_out: usize,
    conv: Conv2d,
    multiply: impl Fn(&mut [f32], &[f32]),
) {
    let (out_height, out_width) = (conv.output_len(height), conv.output_len(width));
    if out.is_empty() || out_height * out_width == 0 {
        return;
    }
    let row_len = out_width * conv.kernel * conv.kernel * n_in;
    let image_len = height * width * n_in;
    let rows_at_once = (MAX_PATCH_VALUES / row_len.max(1)).max(1);
    for (block, out) in out.chunks_mut(rows_at_once * out_width * n_out).enumerate() {
        let n_rows = out.len() / (out_width * n_out);
        with_scratch(n_rows * row_len, |patches| {
            for_each_chunk(patches, row_len, n_rows * row_len, |i, patches| {
                patches.fill(0.0);
                let row = block * rows_at_once + i;
                let image = &x[row / out_height * image_len..][..image_len];
                gather(image, (height, width, n_in), row % out_height, conv, patches);
            });
            multiply(out, patches);
        });
    }
}

/// Gathers the patches of one output row of an image; places outside of the image are not written.
fn gather(
    image: &[f32],
    (height, width, n_in): (usize, usize, usize),
    out_y: usize,
    conv: Conv2d,
    patches: &mut [f32],
) {
    let row_len = conv.kernel * n_in;
    for (out_x, patch) in patches.chunks_exact_mut(conv.kernel * row_len).enumerate() {
        let (top, left) = (out_y * conv.stride, out_x * conv.stride);
        // The kernel's columns that lie inside the image.
        let first = conv.padding.saturating_sub(left).min(conv.kernel);
        let end = (width + conv.padding).saturating_sub(left).min(conv.kernel);
        if first >= end {
            continue;
        }
        for (ky, patch_row) in patch.chunks_exact_mut(row_len).enumerate() {
            let Some(y) = (top + ky).checked_sub(conv.padding).filter(|y| *y < height) else {
                continue;
            };
            let source = &image[(y * width + left + first - conv.padding) * n_in..];
            patch_row[first * n_in..end * n_in].copy_from_slice(&source[..(end - first) * n_in]);
        }
    }
}

/// Channels at a time; their sums stay in registers.
const BLOCK: usize = 32;

/// `out = x + depthwise_3x3(x) + bias` with zero padding 1; x [batch, height, width, channels], w [9, channels] (row-major over y, x),
/// bias `[channels]`.
///
/// # Panics
/// If lengths do not fit.
pub fn depthwise_3x3_residual(
    out: &mut [f32],
    x: &[f32],
    [height, width, channels]: [usize; 3],
    w: &[f32],
    bias: &[f32],
) {
    assert!(w.len() == 9 * channels && bias.len() == channels && out.len() == x.len(), "depthwise: shapes");
    let row_len = width * channels;
    for_each_chunk(out, row_len.max(1), 10 * x.len(), |row, out| {
        let (image, y) = (row / height, row % height);
        let image = &x[image * height * row_len..][..height * row_len];
        vectorized!(depthwise_row(image, y, height, width, channels, w, bias, out));
    });
}

/// One output row.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled for the instruction set of `vectorized`")]
#[expect(clippy::too_many_arguments, reason = "inner loop of one kernel")]
fn depthwise_row(
    image: &[f32],
    y: usize,
    height: usize,
    width: usize,
    channels: usize,
    w: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    let y_range = usize::from(y == 0)..(if y + 1 == height { 2 } else { 3 });
    for (x, out) in out.chunks_exact_mut(channels).enumerate() {
        let x_range = usize::from(x == 0)..(if x + 1 == width { 2 } else { 3 });
        let center = &image[(y * width + x) * channels..][..channels];
        let n_whole = channels / BLOCK * BLOCK;
        for c in (0..n_whole).step_by(BLOCK) {
            let mut sums = [0.0; BLOCK];
            for ((sum, bias), center) in sums.iter_mut().zip(&bias[c..c + BLOCK]).zip(&center[c..c + BLOCK]) {
                *sum = bias + center;
            }
            for ky in y_range.clone() {
                for kx in x_range.clone() {
                    let source = &image[((y + ky - 1) * width + x + kx - 1) * channels + c..][..BLOCK];
                    let taps = &w[(ky * 3 + kx) * channels + c..][..BLOCK];
                    for ((sum, source), tap) in sums.iter_mut().zip(source).zip(taps) {
                        *sum += source * tap;
                    }
                }
            }
            out[c..c + BLOCK].copy_from_slice(&sums);
        }
        for c in n_whole..channels {
            let mut sum = bias[c] + center[c];
            for ky in y_range.clone() {
                for kx in x_range.clone() {
                    sum += image[((y + ky - 1) * width + x + kx - 1) * channels + c]
                        * w[(ky * 3 + kx) * channels + c];
                }
            }
            out[c] = sum;
        }
    }
}
