//! A depth message to depth of the color camera: as it came where it is registered, else by the depth camera's intrinsics and TF.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::camera::{ConvertError, DepthMessage};
use super::inputs::CameraFrame;
use super::queue::Kept;
use super::transforms::Transforms;
use crate::camera::PinholeCamera;
use crate::config::Config;
use crate::image::{DepthImage, DepthUnit};
use crate::register::{DepthCamera, Origin, RegistrationError, Source, origin};
use crate::transform::TransformError;

/// Pairs whose depth is remembered: the engine and the tracker ask for the same ones, at most a few frames apart.
const MAX_REMEMBERED: usize = 4;

/// Brings depth to the color camera, once for each pair of images. Clones share what is worked out.
#[derive(Clone)]
pub struct DepthRegistrar {
    transforms: Transforms,
    /// Of the last depth image that was not registered.
    depth_camera: Arc<Mutex<Option<Arc<DepthCamera>>>>,
    remembered: Arc<Mutex<VecDeque<Remembered>>>,
}

/// What there is for a color image beside its pixels.
#[derive(Debug, Default)]
pub struct ColorDepth {
    /// Registered to the color image.
    pub depth: Option<DepthImage>,
    /// Of the color image.
    pub camera: Option<PinholeCamera>,
    /// The frame that depth was measured in, where the node registered it.
    pub registered_from: Option<String>,
    /// Why depth or intrinsics are missing although they came.
    pub refusals: Vec<DepthRefusal>,
}

/// Why depth or intrinsics that came cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DepthRefusal {
    /// A message makes no sense.
    #[error("{0}")]
    Message(#[from] ConvertError),
    /// The intrinsics of the depth camera make no sense.
    #[error("of the depth camera: {0}")]
    DepthCamera(ConvertError),
    /// Where the depth was measured is not known.
    #[error("{0}")]
    Origin(#[from] RegistrationError),
    /// Where it is to be brought is not known.
    #[error("depth must be registered to the color image, whose camera_info is missing: is it publishing?")]
    NoColorCamera,
    /// TF does not say how the cameras stand to each other.
    #[error("depth cannot be registered to the color image: {0}")]
    Transform(#[from] TransformError),
}

/// Depth of the color camera, and the frame it was measured in where that is another.
type Registered = (DepthImage, Option<String>);

/// What the depth of a pair rests on.
#[derive(Clone, Copy, PartialEq)]
struct PairKey {
    color: u64,
    depth: u64,
    color_camera: Option<PinholeCamera>,
    unit: DepthUnit,
    has_depth_camera: bool,
}

struct Remembered {
    key: PairKey,
    registered: Arc<OnceCell<Registered>>,
}

impl DepthRegistrar {
    /// With extrinsics from `transforms`.
    pub fn new(transforms: Transforms) -> Self {
        Self { transforms, depth_camera: Arc::default(), remembered: Arc::default() }
    }

    /// Depth and camera of a frame whose color image is of `color_size` (width, height) pixels.
    pub async fn of_frame(&self, frame: &CameraFrame, color_size: (u32, u32), config: &Config) -> ColorDepth {
        let mut found = ColorDepth::default();
        let info = frame.camera_info.as_ref();
        match info.map(|it| it.message.camera(color_size, frame.rectified.color)).transpose() {
            Ok(camera) => found.camera = camera,
            Err(error) => found.refusals.push(error.into()),
        }
        let Some(depth) = &frame.images.depth else { return found };
        let cell = self.cell_of(PairKey {
            color: frame.sequence(),
            depth: depth.sequence,
            color_camera: found.camera,
            unit: config.depth_unit,
            has_depth_camera: frame.depth_camera_info.is_some(),
        });
        // Whoever asks meanwhile waits here. What failed is tried again: the transform may have come.
        let registered =
            cell.get_or_try_init(|| self.registered(frame, depth, color_size, found.camera.as_ref(), config));
        let registered = registered.await;
        // Whoever waited for it has been woken on this very thread, and would not run before this task rests.
        tokio::task::yield_now().await;
        match registered {
            Ok((depth, from)) => {
                (found.depth, found.registered_from) = (Some(depth.clone()), from.clone());
            }
            Err(refusal) => found.refusals.push(refusal),
        }
        found
    }

    fn cell_of(&self, key: PairKey) -> Arc<OnceCell<Registered>> {
        let mut remembered = self.remembered.lock();
        if let Some(known) = remembered.iter().find(|it| it.key == key) {
            return Arc::clone(&known.registered);
        }
        let registered = Arc::new(OnceCell::new());
        remembered.push_back(Remembered { key, registered: Arc::clone(&registered) });
        if remembered.len() > MAX_REMEMBERED {
            remembered.pop_front();
        }
        registered
    }

    async fn registered(
        &self,
        frame: &CameraFrame,
        message: &Kept<Arc<dyn DepthMessage>>,
        color_size: (u32, u32),
        color_camera: Option<&PinholeCamera>,
        config: &Config,
    ) -> Result<Registered, DepthRefusal> {
        let depth = message.message.depth(config.depth_unit)?;
        let color_frame = frame.header().frame_id.as_str();
        let depth_size = (depth.width(), depth.height());
        let depth_info = frame.depth_camera_info.as_ref();
        let depth_camera =
            depth_info.map(|it| it.message.camera(depth_size, frame.rectified.depth)).transpose();
        let info_frame = frame.camera_info.as_ref().map_or("", |it| it.header.frame_id.as_str());
        let depth_info_frame = depth_info.map_or("", |it| it.header.frame_id.as_str());
        let color = Source {
            frame_id: color_frame,
            size: color_size,
            camera: color_camera.map(|it| (info_frame, it)),
        };
        let source = Source {
            frame_id: &message.header.frame_id,
            size: depth_size,
            camera: depth_camera.as_ref().ok().and_then(Option::as_ref).map(|it| (depth_info_frame, it)),
        };
        let (depth_frame, depth_camera) = match origin(config.depth_registration, &color, &source) {
            Ok(Origin::Color) => return Ok((depth, None)),
            Ok(Origin::Elsewhere { frame_id, camera }) => (frame_id, camera),
            Err(error) => return Err(depth_camera.err().map_or(error.into(), DepthRefusal::DepthCamera)),
        };
        let color_camera = color_camera.ok_or(DepthRefusal::NoColorCamera)?;
        let stamp_ns = frame.header().stamp_ns;
        let color_from_depth = self
            .transforms
            .target_from_source(color_frame, &depth_frame, stamp_ns, config.transform_timeout)
            .await?;
        let depth_camera = self.rays_of(depth_camera);
        Ok((depth_camera.register(&depth, color_camera, &color_from_depth), Some(depth_frame)))
    }

    /// The rays of a depth camera, worked out anew only when it changes.
    fn rays_of(&self, camera: PinholeCamera) -> Arc<DepthCamera> {
        let mut known = self.depth_camera.lock();
        match &*known {
            Some(it) if *it.camera() == camera => Arc::clone(it),
            _ => Arc::clone(known.insert(Arc::new(DepthCamera::new(camera)))),
        }
    }
}
