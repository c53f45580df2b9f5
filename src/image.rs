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

    /// From millimeters (16UC1, 0 = none), row-major.
    pub fn from_millimeters(width: u32, height: u32, depth_mm: &[u16]) -> Result<Self, DepthImageError> {
        Self::from_meters(width, height, depth_mm.iter().map(|&mm| f32::from(mm) * 1e-3).collect())
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
