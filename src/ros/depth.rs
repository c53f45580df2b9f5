//! A depth message to depth of the color camera: as it came where it is registered, else by the depth camera's intrinsics and TF.

use std::sync::{Arc, Mutex, PoisonError};

use super::convert;
use super::inputs::{ImageMessage, PairedMessages};
use super::transforms::TransformListener;
use crate::camera::PinholeCamera;
use crate::config::Config;
use crate::image::DepthImage;
use crate::register::{DepthCamera, Origin, Source, origin};

/// Brings depth to the color camera. Clones share what is worked out once per depth camera.
#[derive(Clone)]
pub struct DepthRegistrar {
    transforms: TransformListener,
    /// Of the last depth image that was not registered.
    depth_camera: Arc<Mutex<Option<Arc<DepthCamera>>>>,
}

/// What depth there is for a color image, and by which camera.
#[derive(Debug, Default)]
pub struct ColorDepth {
    /// Registered to the color image.
    pub depth: Option<DepthImage>,
    /// Of the color image.
    pub camera: Option<PinholeCamera>,
    /// The frame that depth was measured in, where the node registered it.
    pub registered_from: Option<String>,
    /// Why depth or intrinsics are missing although they came, one sentence each.
    pub refusals: Vec<String>,
}

impl DepthRegistrar {
    /// With extrinsics from `transforms`.
    pub fn new(transforms: TransformListener) -> Self {
        Self { transforms, depth_camera: Arc::default() }
    }

    /// Depth and camera of a pair whose color image is of `color_size` (width, height) pixels.
    pub async fn of_pair(
        &self,
        paired: &PairedMessages,
        color_size: (u32, u32),
        config: &Config,
    ) -> ColorDepth {
        let mut found = ColorDepth::default();
        let info = paired.camera_info.as_ref();
        match info.map(|it| convert::camera(it, color_size, paired.is_rectified)).transpose() {
            Ok(camera) => found.camera = camera,
            Err(error) => found.refusals.push(error.to_string()),
        }
        let Some(message) = &paired.depth else { return found };
        let converted = match message {
            ImageMessage::Raw(depth) => convert::depth_image(depth),
            ImageMessage::Compressed(depth) => convert::depth_image_from_compressed(depth),
        };
        let depth = match converted {
            Ok(depth) => depth,
            Err(error) => {
                found.refusals.push(error.to_string());
                return found;
            }
        };
        match self.registered(paired, message, depth, color_size, found.camera.as_ref(), config).await {
            Ok((depth, from)) => (found.depth, found.registered_from) = (Some(depth), from),
            Err(problem) => found.refusals.push(problem),
        }
        found
    }

    async fn registered(
        &self,
        paired: &PairedMessages,
        message: &ImageMessage,
        depth: DepthImage,
        color_size: (u32, u32),
        color_camera: Option<&PinholeCamera>,
        config: &Config,
    ) -> Result<(DepthImage, Option<String>), String> {
        let color_frame = paired.header().frame_id.as_str();
        let depth_size = (depth.width(), depth.height());
        let depth_info = paired.depth_camera_info.as_ref();
        let depth_camera = depth_info
            .map(|it| convert::camera(it, depth_size, paired.is_depth_rectified))
            .transpose()
            .map_err(|error| format!("of the depth camera: {error}"));
        let info_frame = paired.camera_info.as_ref().map_or("", |it| it.header.frame_id.as_str());
        let depth_info_frame = depth_info.map_or("", |it| it.header.frame_id.as_str());
        let color = Source {
            frame_id: color_frame,
            size: color_size,
            camera: color_camera.map(|it| (info_frame, it)),
        };
        let source = Source {
            frame_id: &message.header().frame_id,
            size: depth_size,
            camera: depth_camera.as_ref().ok().and_then(Option::as_ref).map(|it| (depth_info_frame, it)),
        };
        let from = match origin(config.depth_registration, &color, &source) {
            Ok(Origin::Color) => return Ok((depth, None)),
            Ok(Origin::Elsewhere { frame_id, camera }) => (frame_id, camera),
            Err(error) => return Err(depth_camera.err().unwrap_or_else(|| error.to_string())),
        };
        let (depth_frame, depth_camera) = from;
        let color_camera = color_camera.ok_or(
            "depth must be registered to the color image, whose camera_info is missing: is it publishing?",
        )?;
        let color_from_depth = self
            .transforms
            .target_from_source(color_frame, &depth_frame, paired.stamp_ns(), config.transform_timeout)
            .await
            .map_err(|error| format!("depth cannot be registered to the color image: {error}"))?;
        let depth_camera = self.rays_of(depth_camera);
        Ok((depth_camera.register(&depth, color_camera, &color_from_depth), Some(depth_frame)))
    }

    /// The rays of a depth camera, worked out anew only when it changes.
    fn rays_of(&self, camera: PinholeCamera) -> Arc<DepthCamera> {
        let mut known = self.depth_camera.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some(it) if *it.camera() == camera => Arc::clone(it),
            _ => Arc::clone(known.insert(Arc::new(DepthCamera::new(camera)))),
        }
    }
}
