//! Convolutions on the CPU, channels last.

use candle_core::{Result, Tensor, bail};

use super::linear::{with_panels, with_scratch};
use super::math::vectorized;
use super::matmul::{Destination, Matrix, Panels, multiply_panels};
use super::packed::PackedMatrix;
use super::{Conv2d, for_each_chunk, with_slices};

/// Patches that a task gathers, at least: with fewer, reading the kernel would cost more than the products.
const MIN_PATCHES_PER_TASK: usize = 96;

/// With a kernel that is laid out first.
pub(super) fn conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    let (n_out, patch_len) = w.dims2()?;
    with_slices([w], |[w]| with_panels(w, n_out, patch_len, |w| conv2d_with(x, w, bias, conv)))
}

pub(super) fn conv2d_packed(x: &Tensor, w: &PackedMatrix, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    conv2d_with(x, w.panels(), bias, conv)
}

/// Gathers the patches of a few output rows and multiplies them with the kernel, task by task.
fn conv2d_with(x: &Tensor, w: Panels<'_>, bias: &Tensor, conv: Conv2d) -> Result<Tensor> {
    let (batch, height, width, n_in) = x.dims4()?;
    let (n_out, patch_len) = (w.n, w.k);
    if patch_len != conv.kernel * conv.kernel * n_in || bias.dims() != [n_out] {
        bail!("conv2d: kernel [{n_out}, {patch_len}] and bias {:?} do not fit {n_in} channels", bias.dims());
    }
    let (out_height, out_width) = (conv.output_len(height), conv.output_len(width));
    let mut out = vec![0.0; batch * out_height * out_width * n_out];
    let work = out.len() * patch_len;
    let image_len = height * width * n_in;
    let rows_per_task = MIN_PATCHES_PER_TASK.div_ceil(out_width.max(1));
    let row_len = (out_width * n_out).max(1);
    with_slices([x, bias], |[x, bias]| {
        for_each_chunk(&mut out, rows_per_task * row_len, work, |task, out| {
            let n_patches = out.len() / n_out;
            with_scratch(n_patches * patch_len, |patches| {
                patches.fill(0.0);
                for (i, patches) in patches.chunks_exact_mut(out_width * patch_len).enumerate() {
                    let row = task * rows_per_task + i;
                    let image = &x[row / out_height * image_len..][..image_len];
                    gather(image, (height, width, n_in), row % out_height, conv, patches);
                }
                out.chunks_exact_mut(n_out).for_each(|row| row.copy_from_slice(bias));
                let patches = Matrix::new(patches, n_patches, patch_len, patch_len);
                multiply_panels(out, n_out, Destination::Accumulate, 1.0, patches, w);
            });
        });
        Ok(())
    })?;
    Tensor::from_vec(out, (batch, out_height, out_width, n_out), x.device())
}

/// The patches of one output row of an image; what lies outside of it stays as it is.
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

/// Channels handled at once; their sums stay in registers.
const BLOCK: usize = 32;

pub(super) fn depthwise_3x3_residual(x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (_batch, height, width, channels) = x.dims4()?;
    if w.dims() != [9, channels] || bias.dims() != [channels] {
        bail!("depthwise: kernel {:?} and bias {:?} do not fit {channels} channels", w.dims(), bias.dims());
    }
    let mut out = vec![0.0; x.elem_count()];
    let row_len = width * channels;
    with_slices([x, w, bias], |[x, w, bias]| {
        for_each_chunk(&mut out, row_len.max(1), 10 * x.len(), |row, out| {
            let (image, y) = (row / height, row % height);
            let image = &x[image * height * row_len..][..height * row_len];
            vectorized!(depthwise_row(image, y, height, width, channels, w, bias, out));
        });
        Ok(())
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
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
