//! Color and depth images as the core sees them.

pub mod bayer;
pub mod compressed;
pub mod encoding;
pub mod rvl;
pub mod yuv;

use std::sync::Arc;

pub use ::image::RgbImage;

use crate::camera::PinholeCamera;

/// A depth image: meters along the camera's z axis (REP 118), NaN where nothing was measured. Clones share the values.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthImage {
    width: u32,
    height: u32,
    /// Row-major, `width * height` values; finite and positive, or NaN.
    depth_m: Arc<Vec<f32>>,
}

/// What a depth value of 1 is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum DepthUnit {
    /// A millimeter in whole numbers (16UC1), a meter in fractions (32FC1): REP 118.
    #[default]
    ByEncoding,
    /// So many meters, whatever the encoding.
    Meters(f32),
}

impl DepthUnit {
    /// From the parameter `depth_scale`: 0 is by encoding.
    pub fn from_scale(scale: f64) -> Self {
        if scale > 0.0 { Self::Meters(scale as f32) } else { Self::ByEncoding }
    }

    fn of_integers(self) -> f32 {
        match self {
            Self::ByEncoding => 1e-3,
            Self::Meters(scale) => scale,
        }
    }
}

/// Why a depth image could not be made.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DepthImageError {
    /// The number of values does not match the size.
    #[error("expected {width}x{height} = {expected} depth values, got {got}")]
    Length {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// width * height.
        expected: usize,
        /// Values given.
        got: usize,
    },
}

impl DepthImage {
    /// From meters, row-major. Everything that is not finite and positive becomes NaN.
    pub fn from_meters(width: u32, height: u32, mut depth_m: Vec<f32>) -> Result<Self, DepthImageError> {
        let expected = width as usize * height as usize;
        if depth_m.len() != expected {
            return Err(DepthImageError::Length { width, height, expected, got: depth_m.len() });
        }
        for depth in &mut depth_m {
            if !(depth.is_finite() && *depth > 0.0) {
                *depth = f32::NAN;
            }
        }
        Ok(Self { width, height, depth_m: Arc::new(depth_m) })
    }

    /// From whole numbers (16UC1, 0 = none), row-major: millimeters, unless `unit` says otherwise.
    pub fn from_integers(
        width: u32,
        height: u32,
        values: &[u16],
        unit: DepthUnit,
    ) -> Result<Self, DepthImageError> {
        let scale = unit.of_integers();
        Self::from_meters(width, height, values.iter().map(|&it| f32::from(it) * scale).collect())
    }

    /// From fractions (32FC1; not finite or not positive = none), row-major: meters, unless `unit` says otherwise.
    pub fn from_floats(
        width: u32,
        height: u32,
        mut values: Vec<f32>,
        unit: DepthUnit,
    ) -> Result<Self, DepthImageError> {
        if let DepthUnit::Meters(scale) = unit {
            values.iter_mut().for_each(|it| *it *= scale);
        }
        Self::from_meters(width, height, values)
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Depth at column `u`, row `v` in meters; `None` outside the image and where nothing was measured.
    pub fn get(&self, u: u32, v: u32) -> Option<f32> {
        if u >= self.width || v >= self.height {
            return None;
        }
        let depth = self.depth_m[v as usize * self.width as usize + u as usize];
        depth.is_finite().then_some(depth)
    }

    /// All values, row-major, NaN where nothing was measured.
    pub fn as_slice(&self) -> &[f32] {
        &self.depth_m
    }
}

/// One moment of an RGB-D camera.
#[derive(Debug, Clone)]
pub struct RgbdFrame {
    /// Tells frames apart: models cache an image's features under this key, so a new image needs a new key.
    pub key: u64,
    /// The color image, 8 bits per channel.
    pub image: RgbImage,
    /// Depth registered to the color image (same viewpoint and size), if there is any.
    pub depth: Option<DepthImage>,
    /// Intrinsics of the color image, if known.
    pub camera: Option<PinholeCamera>,
    /// The camera's optical frame (REP 103: x right, y down, z forward).
    pub frame_id: String,
    /// Acquisition time of the color image, nanoseconds.
    pub stamp_ns: i64,
}
