//! Images to OWLv2's input: padded below and right to a square, resized, normalized.
//!
//! The oracle is transformers 5.23.0's `Owlv2ImageProcessorPil`, which follows the original implementation: values scaled
//! to [0, 1] and padded with 0, a Gaussian of sigma (factor - 1) / 2 when shrinking (`scipy.ndimage.gaussian_filter`,
//! cut off at 4 sigma, mirrored at the edges), then linear interpolation (`scipy.ndimage.zoom`, `order=1`,
//! `grid_mode=True`, mirrored). Values agree to 2e-6 before normalization. Its torch-backed sibling differs by up to some
//! hundredths at edges, in filter length and edge handling.

use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

use crate::detection::BoundingBox2d;
use crate::image::RgbImage;
use crate::model::ModelError;
use crate::model::candle::loading::{checkpoint_error, read_json};

/// CLIP's, which the reference takes when `preprocessor_config.json` names none.
const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// Pad, resize, normalize.
#[derive(Debug, Clone, PartialEq)]
pub struct SquareImageProcessor {
    /// Side of the input, pixels.
    pub side: usize,
    rescale_factor: f64,
    mean: [f64; 3],
    std: [f64; 3],
}

#[derive(Deserialize)]
struct RawConfig {
    size: Size,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_pad: Option<bool>,
    do_normalize: Option<bool>,
    do_center_crop: Option<bool>,
    rescale_factor: Option<f64>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

#[derive(Deserialize)]
struct Size {
    height: usize,
    width: usize,
}

impl SquareImageProcessor {
    /// Reads `preprocessor_config.json` of a model directory whose network takes images of `side` pixels.
    pub fn open(dir: &Path, side: usize) -> Result<Self, ModelError> {
        let path = dir.join("preprocessor_config.json");
        let raw: RawConfig = read_json(&path)?;
        let problem = |problem: String| Err(checkpoint_error(&path, problem));
        let steps = [raw.do_resize, raw.do_rescale, raw.do_pad, raw.do_normalize];
        if steps.contains(&Some(false)) || raw.do_center_crop == Some(true) {
            return problem(
                "expected do_resize, do_rescale, do_pad and do_normalize, and no do_center_crop".into(),
            );
        }
        if (raw.size.height, raw.size.width) != (side, side) {
            return problem(format!(
                "size: expected {side}x{side}, the image_size of config.json, got {}x{}",
                raw.size.width, raw.size.height
            ));
        }
        let (mean, std) = (raw.image_mean.unwrap_or(CLIP_MEAN), raw.image_std.unwrap_or(CLIP_STD));
        let rescale_factor = raw.rescale_factor.unwrap_or(1.0 / 255.0);
        if std.iter().any(|std| !std.is_finite() || *std <= 0.0)
            || mean.iter().any(|mean| !mean.is_finite())
            || !rescale_factor.is_finite()
        {
            return problem("expected finite image_mean and rescale_factor and positive image_std".into());
        }
        Ok(Self { side, rescale_factor, mean, std })
    }

    /// Model input [1, side, side, 3] (channels last).
    pub fn process(&self, image: &RgbImage, device: &Device) -> Result<Tensor, ModelError> {
        let mut values = resize_padded(image, self.side, self.rescale_factor as f32)?;
        let (scale, offset): ([f32; 3], [f32; 3]) = (
            std::array::from_fn(|c| (1.0 / self.std[c]) as f32),
            std::array::from_fn(|c| (self.mean[c] / self.std[c]) as f32),
        );
        for pixel in values.chunks_exact_mut(3) {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = *value * scale[c] - offset[c];
            }
        }
        Ok(Tensor::from_vec(values, (1, self.side, self.side, 3), device)?)
    }

    /// A box given as center and size in fractions of the padded square, in pixels of an image of this size. It may reach
    /// out of the image.
    pub fn to_pixels(
        &self,
        [center_x, center_y, width, height]: [f32; 4],
        image_size: (u32, u32),
    ) -> BoundingBox2d {
        let side = f64::from(image_size.0.max(image_size.1));
        let edge =
            |center: f32, size: f32, sign: f64| (f64::from(center) + sign * 0.5 * f64::from(size)) * side;
        BoundingBox2d {
            x0: edge(center_x, width, -1.0),
            y0: edge(center_y, height, -1.0),
            x1: edge(center_x, width, 1.0),
            y1: edge(center_y, height, 1.0),
        }
    }
}

/// The image times `factor`, padded with 0 to a square and resized to `side`; rows of RGB.
pub fn resize_padded(image: &RgbImage, side: usize, factor: f32) -> Result<Vec<f32>, ModelError> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err(ModelError::Input(format!("the image is empty ({width}x{height} pixels)")));
    }
    // Both steps are linear and separable: along each axis, one weighted sum does both.
    let taps = Taps::new(width.max(height), side);
    let row = side * 3;
    let mut narrow = vec![0.0; height * row];
    narrow.par_chunks_exact_mut(row).zip(image.as_raw().par_chunks_exact(width * 3)).for_each(
        |(out, source)| {
            for (x, out) in out.chunks_exact_mut(3).enumerate() {
                let (first, weights) = taps.of(x);
                let inside = source.get(first * 3..).unwrap_or(&[]);
                for (pixel, weight) in inside.chunks_exact(3).zip(weights) {
                    for (out, &value) in out.iter_mut().zip(pixel) {
                        *out += f32::from(value) * factor * weight;
                    }
                }
            }
        },
    );
    let mut resized = vec![0.0; side * row];
    resized.par_chunks_exact_mut(row).enumerate().for_each(|(y, out)| {
        let (first, weights) = taps.of(y);
        let inside = narrow.get(first * row..).unwrap_or(&[]);
        for (source, weight) in inside.chunks_exact(row).zip(weights) {
            for (out, value) in out.iter_mut().zip(source) {
                *out += value * weight;
            }
        }
    });
    Ok(resized)
}

/// For each output position the first input position and the weights from there on.
struct Taps(Vec<(usize, Vec<f32>)>);

impl Taps {
    fn new(n_in: usize, n_out: usize) -> Self {
        let factor = n_in as f64 / n_out as f64;
        let gaussian = gaussian(((factor - 1.0) / 2.0).max(0.0));
        let radius = (gaussian.len() / 2) as i64;
        let mirrored = |index: i64| -> usize {
            // Around the first and the last position, neither of which is repeated.
            let period = 2 * (n_in as i64 - 1).max(1);
            let index = index.rem_euclid(period);
            (if n_in == 1 { 0 } else { index.min(period - index) }) as usize
        };
        let of_output = |i: usize| {
            let position = (i as f64 + 0.5) * factor - 0.5;
            let (below, fraction) = (position.floor() as i64, position - position.floor());
            let mut weights = std::collections::BTreeMap::<usize, f64>::new();
            for (neighbor, share) in [(below, 1.0 - fraction), (below + 1, fraction)] {
                if share == 0.0 {
                    continue;
                }
                // Interpolation mirrors first, then the filter around the mirrored position.
                let center = mirrored(neighbor) as i64;
                for (k, weight) in gaussian.iter().enumerate() {
                    *weights.entry(mirrored(center + k as i64 - radius)).or_default() += share * weight;
                }
            }
            let first = weights.keys().next().copied().unwrap_or(0);
            let end = weights.keys().next_back().map_or(first, |last| last + 1);
            (first, (first..end).map(|j| weights.get(&j).copied().unwrap_or(0.0) as f32).collect())
        };
        Self((0..n_out).map(of_output).collect())
    }

    fn of(&self, i: usize) -> (usize, &[f32]) {
        (self.0[i].0, &self.0[i].1)
    }
}

/// A normalized Gaussian cut off at 4 sigma; a single 1 for sigma 0.
fn gaussian(sigma: f64) -> Vec<f64> {
    // SciPy leaves an axis alone below this.
    if sigma <= 1e-15 {
        return vec![1.0];
    }
    let radius = (4.0 * sigma + 0.5) as i64;
    let weights: Vec<f64> =
        (-radius..=radius).map(|x| (-0.5 * (x * x) as f64 / (sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_size_add_up_to_one() {
        for (n_in, n_out) in [(1, 7), (2, 5), (5, 5), (64, 9), (1000, 3), (640, 960)] {
            let taps = Taps::new(n_in, n_out);
            for i in 0..n_out {
                let (first, weights) = taps.of(i);
                assert!(first + weights.len() <= n_in, "{n_in} to {n_out}");
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{n_in} to {n_out}");
            }
        }
    }

    #[test]
    fn boxes_are_fractions_of_the_padded_square() {
        let processor = SquareImageProcessor { side: 8, rescale_factor: 1.0, mean: [0.0; 3], std: [1.0; 3] };
        let bbox = processor.to_pixels([0.5, 0.25, 0.5, 0.25], (640, 480));
        assert_eq!(<[f64; 4]>::from(bbox), [160.0, 80.0, 480.0, 240.0]);
    }

    #[test]
    fn an_empty_image_is_refused() {
        assert!(matches!(resize_padded(&RgbImage::new(4, 0), 8, 1.0), Err(ModelError::Input(_))));
    }
}
