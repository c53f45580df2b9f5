//! A camera's messages as the engine sees them: converted only when they are asked for.

use std::fmt;

use crate::camera::{CameraError, PinholeCamera};
use crate::image::encoding::EncodingError;
use crate::image::{DepthImage, DepthImageError, DepthUnit, RgbImage};

/// When and in which frame something was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameHeader {
    /// Acquisition time, nanoseconds.
    pub stamp_ns: i64,
    /// The optical frame.
    pub frame_id: String,
}

/// A color image as it came.
pub trait ColorMessage: fmt::Debug + Send + Sync {
    /// Columns and rows, without a look at the pixels; `None` where it says none.
    fn size(&self) -> Option<(u32, u32)>;

    /// Its pixels.
    fn rgb(&self) -> Result<RgbImage, ConvertError>;
}

/// A depth image as it came.
pub trait DepthMessage: fmt::Debug + Send + Sync {
    /// Its pixels; `unit` is what its values are in.
    fn depth(&self, unit: DepthUnit) -> Result<DepthImage, ConvertError>;
}

/// Intrinsics as they came.
pub trait IntrinsicsMessage: fmt::Debug + Send + Sync {
    /// The camera of an image of `image_size` (width, height) pixels.
    fn camera(&self, image_size: (u32, u32), is_rectified: bool) -> Result<PinholeCamera, ConvertError>;
}

/// The topics of the camera, by the role they play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Color.
    Image,
    /// Depth.
    Depth,
    /// Intrinsics.
    CameraInfo,
    /// Intrinsics of a depth camera of its own: needed only where depth is not registered.
    DepthCameraInfo,
}

/// Why a camera message was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConvertError {
    /// A raw image that makes no sense.
    #[error(transparent)]
    Raw(#[from] EncodingError),
    /// Depth encoding that is not read.
    #[error(
        "expected depth as 16UC1 (millimeters) or 32FC1 (meters), got {got:?}: is the depth topic right?"
    )]
    DepthEncoding {
        /// As sent.
        got: String,
    },
    /// A compressed image that cannot be decoded.
    #[error("expected a JPEG or PNG image, got {format:?} that does not decode: {reason}")]
    Compressed {
        /// The message's format string.
        format: String,
        /// The decoder's words.
        reason: String,
    },
    /// A compressed depth image that cannot be decoded.
    #[error("expected depth as a 16-bit PNG or RVL, got {format:?} that does not decode: {reason}")]
    CompressedDepth {
        /// The message's format string.
        format: String,
        /// The decoder's words.
        reason: String,
    },
    /// Intrinsics for an image of another size.
    #[error(
        "expected camera_info for the image's {image_width}x{image_height} pixels, got {width}x{height}: \
         use the camera_info of the same stream"
    )]
    CameraSize {
        /// Of the image.
        image_width: u32,
        /// Of the image.
        image_height: u32,
        /// Of the intrinsics, after region of interest and binning.
        width: u32,
        /// Of the intrinsics, after region of interest and binning.
        height: u32,
    },
    /// Intrinsics that describe no camera.
    #[error("camera_info refused: {0}")]
    Camera(#[from] CameraError),
    /// Depth values that make no image.
    #[error(transparent)]
    Depth(#[from] DepthImageError),
}
