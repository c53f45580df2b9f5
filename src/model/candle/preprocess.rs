//! Images to model input, by the model's own `preprocessor_config.json`.
//!
//! Resizing follows Pillow's `Image.resize(BICUBIC)` to the last bit: antialiased (the filter widens when shrinking),
//! a = -0.5, 22-bit fixed-point weights, horizontal pass first, each pass rounded to 8 bits
//! (`src/libImaging/Resample.c`). That is what `CLIPImageProcessor` with Pillow does for Florence-2. Pillow 13 runs the
//! vertical pass first for some portrait images; its values then differ from these by 1 or 2 of 255.

use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

use super::loading::{checkpoint_error, read_json};
use crate::image::RgbImage;
use crate::model::ModelError;

/// Resize to a fixed size, scale to [0, 1], normalize.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// Rows of the input.
    pub height: u32,
    /// Columns of the input.
    pub width: u32,
    rescale_factor: f64,
    mean: [f64; 3],
    std: [f64; 3],
    /// Tokens that the processor's prompt reserves for the image, when the file says so.
    pub image_seq_length: Option<usize>,
}

/// What the model sees, and where that is in the source image.
pub struct ModelInput {
    /// [1, height, width, 3]
    pub pixels: Tensor,
    /// Source pixels that one input pixel stands for, along x and y. Edges fall on edges: the aspect is not kept.
    pub source_px_per_input_px: [f64; 2],
}

impl ModelInput {
    /// A point of the input in pixels of the source image.
    pub fn to_source(&self, x: f64, y: f64) -> (f64, f64) {
        (x * self.source_px_per_input_px[0], y * self.source_px_per_input_px[1])
    }
}

#[derive(Deserialize)]
struct RawConfig {
    size: Size,
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
    do_center_crop: Option<bool>,
    resample: Option<u32>,
    rescale_factor: Option<f64>,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    image_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct Size {
    height: u32,
    width: u32,
}

fn yes() -> bool {
    true
}

/// Pillow's number of the bicubic filter.
const BICUBIC: u32 = 3;
const MAX_SIDE: u32 = 4096;

impl ImageProcessor {
    /// Reads `preprocessor_config.json` of a model directory, or the `image_processor` of `processor_config.json`, where newer
    /// versions of transformers write it.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct Processor {
            image_processor: RawConfig,
        }
        let (mut path, newer) = (dir.join("preprocessor_config.json"), dir.join("processor_config.json"));
        let raw: RawConfig = if !path.is_file() && newer.is_file() {
            path = newer;
            read_json::<Processor>(&path)?.image_processor
        } else {
            read_json(&path)?
        };
        let problem = |problem: &str| Err(checkpoint_error(&path, problem));
        if !(raw.do_resize && raw.do_rescale && raw.do_normalize) || raw.do_center_crop == Some(true) {
            return problem("expected do_resize, do_rescale and do_normalize, and no do_center_crop");
        }
        if raw.resample.is_some_and(|filter| filter != BICUBIC) {
            return problem("expected resample 3 (bicubic)");
        }
        let side = 1..=MAX_SIDE;
        if !side.contains(&raw.size.height) || !side.contains(&raw.size.width) {
            return problem("expected a size of 1 to 4096 pixels");
        }
        let rescale_factor = raw.rescale_factor.unwrap_or(1.0 / 255.0);
        if raw.image_std.iter().any(|std| !std.is_finite() || *std <= 0.0)
            || raw.image_mean.iter().any(|mean| !mean.is_finite())
            || !rescale_factor.is_finite()
        {
            return problem("expected finite image_mean and rescale_factor and positive image_std");
        }
        Ok(Self {
            height: raw.size.height,
            width: raw.size.width,
            rescale_factor,
            mean: raw.image_mean,
            std: raw.image_std,
            image_seq_length: raw.image_seq_length,
        })
    }

    /// [`Self::process`] with the way back to the source image.
    pub fn process_with_map(&self, image: &RgbImage, device: &Device) -> Result<ModelInput, ModelError> {
        let (width, height) = image.dimensions();
        let scale = [f64::from(width) / f64::from(self.width), f64::from(height) / f64::from(self.height)];
        Ok(ModelInput { pixels: self.process(image, device)?, source_px_per_input_px: scale })
    }

    /// Model input [1, height, width, 3] (channels last).
    pub fn process(&self, image: &RgbImage, device: &Device) -> Result<Tensor, ModelError> {
        let resized = resize_bicubic(image, self.width, self.height)?;
        // Each of the 256 values of each channel is normalized once.
        let tables: [Vec<f32>; 3] = std::array::from_fn(|channel| {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            (0..256).map(|value| ((f64::from(value) * self.rescale_factor - mean) / std) as f32).collect()
        });
        let mut values = Vec::with_capacity(resized.len());
        for pixel in resized.chunks_exact(3) {
            values.extend(tables.iter().zip(pixel).map(|(table, &value)| table[usize::from(value)]));
        }
        Ok(Tensor::from_vec(values, (1, self.height as usize, self.width as usize, 3), device)?)
    }
}

/// Pillow's bicubic resize; rows of RGB.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> Result<Vec<u8>, ModelError> {
    resize(image, width, height, Filter::Bicubic)
}

/// Pillow's interpolations that model configurations name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 2 in Pillow's numbering.
    Bilinear,
    /// 3 in Pillow's numbering.
    Bicubic,
}

impl Filter {
    /// By Pillow's number.
    pub fn of_pillow(number: u32) -> Option<Self> {
        [None, None, Some(Self::Bilinear), Some(Self::Bicubic)].get(number as usize).copied().flatten()
    }

    /// Reach in pixels of the smaller scale.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => bicubic(x),
        }
    }
}

/// Pillow's resize; rows of RGB.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<Vec<u8>, ModelError> {
    let (source_width, source_height) = image.dimensions();
    if source_width == 0 || source_height == 0 {
        return Err(ModelError::Input(format!("the image is empty ({source_width}x{source_height} pixels)")));
    }
    let columns = Taps::new(source_width as usize, width as usize, filter);
    let rows = Taps::new(source_height as usize, height as usize, filter);
    let (source_row, row) = (source_width as usize * 3, width as usize * 3);
    let narrow = if source_width == width {
        image.as_raw().clone()
    } else {
        let mut narrow = vec![0; source_height as usize * row];
        narrow.par_chunks_exact_mut(row).zip(image.as_raw().par_chunks_exact(source_row)).for_each(
            |(out, source)| {
                for (x, out) in out.chunks_exact_mut(3).enumerate() {
                    let (first, weights) = columns.of(x);
                    let mut sums = [ROUNDING; 3];
                    for (pixel, weight) in source[first * 3..].chunks_exact(3).zip(weights) {
                        for (sum, &value) in sums.iter_mut().zip(pixel) {
                            *sum += i32::from(value) * weight;
                        }
                    }
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = to_u8(sum);
                    }
                }
            },
        );
        narrow
    };
    if source_height == height {
        return Ok(narrow);
    }
    let mut resized = vec![0; height as usize * row];
    resized.par_chunks_exact_mut(row).enumerate().for_each(|(y, out)| {
        let (first, weights) = rows.of(y);
        let mut sums = vec![ROUNDING; row];
        for (source, weight) in narrow[first * row..].chunks_exact(row).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(source) {
                *sum += i32::from(value) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = to_u8(sum);
        }
    });
    Ok(resized)
}

/// Bits after the point of a weight: 32 less the 8 of a value and 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const ROUNDING: i32 = 1 << (PRECISION_BITS - 1);

fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// For each output position the first input position and the weights from there on.
struct Taps {
    starts: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    fn new(n_in: usize, n_out: usize, filter: Filter) -> Self {
        let scale = n_in as f64 / n_out as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let mut taps = Self { starts: Vec::with_capacity(n_out), weights: Vec::new() };
        for i in 0..n_out {
            let center = (i as f64 + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(n_in as i64) as usize;
            let weights: Vec<f64> = (first..end)
                .map(|j| filter.weight((j as f64 - center + 0.5) * (1.0 / filter_scale)))
                .collect();
            let sum: f64 = weights.iter().sum();
            taps.starts.push((first, taps.weights.len()));
            taps.weights.extend(weights.iter().map(|weight| {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                // Half away from zero, as the reference rounds.
                (weight * f64::from(1 << PRECISION_BITS)).round() as i32
            }));
        }
        taps
    }

    fn of(&self, i: usize) -> (usize, &[i32]) {
        let (first, start) = self.starts[i];
        let end = self.starts.get(i + 1).map_or(self.weights.len(), |next| next.1);
        (first, &self.weights[start..end])
    }
}

/// Keys' cubic convolution kernel with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_images_stay_constant_at_every_size() {
        for (from, to) in [((1, 1), (7, 5)), ((13, 9), (4, 4)), ((640, 480), (192, 192)), ((5, 3000), (8, 8))]
        {
            let image = RgbImage::from_pixel(from.0, from.1, image::Rgb([7, 130, 251]));
            let resized = resize_bicubic(&image, to.0, to.1).unwrap();
            assert_eq!(resized.len() as u32, to.0 * to.1 * 3);
            assert!(resized.chunks_exact(3).all(|pixel| pixel == [7, 130, 251]), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn an_empty_image_is_refused() {
        assert!(matches!(resize_bicubic(&RgbImage::new(0, 4), 8, 8), Err(ModelError::Input(_))));
    }
}
