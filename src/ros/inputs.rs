//! The camera as the node knows it: the newest messages of each topic, paired by stamp, and how often they come.
//!
//! r2r keeps eleven messages and drops the newest when a reader is slow. So every topic has a task that does nothing but
//! move what arrives into a slot where the newest wins; nothing is converted before it is asked for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use r2r::sensor_msgs::msg::{CameraInfo, CompressedImage, Image};
use r2r::std_msgs::msg::Header;
use r2r::{QosProfile, WrappedTypesupport};
use tokio::sync::watch;

use super::remap::Remapping;
use super::{convert, nanos_from_time};
use crate::config::{Config, DepthTransport, ImageTransport};
use crate::image::RgbImage;
use crate::register::Registration;

/// Color images kept while their depth image is on its way, and depth images for the color images to come.
const KEPT_IMAGES: usize = 8;

/// A topic that was silent for this long has started anew: its other topics may still be about to be discovered.
const RESTART_GAP: Duration = Duration::from_secs(1);

/// An image as it came.
#[derive(Debug, Clone)]
pub enum ImageMessage {
    /// Pixels.
    Raw(Arc<Image>),
    /// JPEG or PNG.
    Compressed(Arc<CompressedImage>),
}

/// One color image with the depth image and the intrinsics that belong to it, as they came.
#[derive(Debug, Clone)]
pub struct PairedMessages {
    /// Counts color images: a new image, a new number.
    pub sequence: u64,
    /// Color.
    pub image: ImageMessage,
    /// Depth within the stamp tolerance, if there is any.
    pub depth: Option<ImageMessage>,
    /// The newest intrinsics.
    pub camera_info: Option<Arc<CameraInfo>>,
    /// The newest intrinsics of the depth image, where it has a topic of its own for them.
    pub depth_camera_info: Option<Arc<CameraInfo>>,
    /// The depth image is labeled with a frame of its own, and the intrinsics for that have not come.
    pub lacks_depth_camera: bool,
    /// Whether the color image is rectified.
    pub is_rectified: bool,
    /// Whether the depth image is.
    pub is_depth_rectified: bool,
    /// Depth stamp minus color stamp, nanoseconds; `None` without depth.
    pub depth_offset_ns: Option<i64>,
    /// When the color image arrived.
    pub arrived: Instant,
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

/// What is known of one topic.
#[derive(Debug, Clone)]
pub struct InputStats {
    /// The role it plays.
    pub role: Role,
    /// Full name.
    pub topic: String,
    /// The message type subscribed to.
    pub message_type: &'static str,
    /// Messages since the start.
    pub n_received: u64,
    /// When the last one arrived.
    pub last_arrival: Option<Instant>,
    /// When the first one arrived after the start, or after a silence of [`RESTART_GAP`].
    pub stream_start: Option<Instant>,
    /// Its stamp, nanoseconds.
    pub last_stamp_ns: Option<i64>,
}

/// The camera's topics.
#[derive(Clone)]
pub struct Inputs {
    shared: Arc<Mutex<Shared>>,
    news: watch::Receiver<u64>,
    is_rectified: bool,
    is_depth_rectified: bool,
}

#[derive(Default)]
struct Shared {
    stats: Vec<InputStats>,
    images: VecDeque<(u64, i64, Instant, ImageMessage)>,
    depths: VecDeque<(i64, ImageMessage)>,
    camera_info: Option<Arc<CameraInfo>>,
    depth_camera_info: Option<Arc<CameraInfo>>,
    n_images: u64,
}

/// A stamped message of the camera.
trait CameraMessage: WrappedTypesupport + Send + 'static {
    const TYPE: &'static str;
    fn header(&self) -> &Header;
    /// The slot for it.
    fn store(self, role: Role, shared: &mut Shared);
}

impl Inputs {
    /// Subscribes as the configuration says.
    pub fn subscribe(node: &mut r2r::Node, names: &Remapping, config: &Config) -> r2r::Result<Self> {
        let (ring, news) = watch::channel(0);
        let is_rectified =
            config.is_image_rectified.unwrap_or_else(|| names.resolve("image").contains("rect"));
        let is_depth_rectified = names.resolve("depth").contains("rect");
        let inputs = Self { shared: Arc::default(), news, is_rectified, is_depth_rectified };
        let ring = Arc::new(ring);
        match config.image_transport {
            ImageTransport::Raw => inputs.topic::<Image>(node, Role::Image, names.resolve("image"), &ring)?,
            ImageTransport::Compressed => {
                inputs.topic::<CompressedImage>(
                    node,
                    Role::Image,
                    names.below("image", "compressed"),
                    &ring,
                )?;
            }
        }
        if config.pipeline.use_depth {
            match config.depth_transport {
                DepthTransport::Raw => {
                    inputs.topic::<Image>(node, Role::Depth, names.resolve("depth"), &ring)?;
                }
                DepthTransport::CompressedDepth => {
                    let topic = names.below("depth", "compressedDepth");
                    inputs.topic::<CompressedImage>(node, Role::Depth, topic, &ring)?;
                }
            }
        }
        if config.pipeline.use_depth || config.plane_frame.is_some() {
            inputs.topic::<CameraInfo>(node, Role::CameraInfo, names.camera_info(), &ring)?;
        }
        // Beside registered depth stands the camera_info of the color image, or the same once more.
        let depth_info = names.depth_camera_info();
        let may_need_it = config.pipeline.use_depth && config.depth_registration != Registration::Done;
        if may_need_it && depth_info != names.camera_info() {
            inputs.topic::<CameraInfo>(node, Role::DepthCameraInfo, depth_info, &ring)?;
        }
        Ok(inputs)
    }

    /// Changes with every message of the camera.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    /// What is known of each topic.
    pub fn stats(&self) -> Vec<InputStats> {
        self.lock().stats.clone()
    }

    /// The newest color image that has a depth image within `tolerance`, and the newest color image.
    pub fn newest(&self, tolerance: Duration) -> (Option<PairedMessages>, Option<PairedMessages>) {
        let shared = self.lock();
        let has_depth_info_topic = shared.stats.iter().any(|it| it.role == Role::DepthCameraInfo);
        let lacks_depth_camera = |image: &ImageMessage, depth: Option<&ImageMessage>| {
            let is_elsewhere = depth.is_some_and(|it| it.header().frame_id != image.header().frame_id);
            has_depth_info_topic && is_elsewhere && shared.depth_camera_info.is_none()
        };
        let paired = |(sequence, stamp, arrived, image): &(u64, i64, Instant, ImageMessage)| {
            let (depth_offset_ns, depth) = shared
                .depths
                .iter()
                .map(|(depth_stamp, depth)| (depth_stamp - stamp, depth))
                .min_by_key(|(offset, _)| offset.unsigned_abs())
                .filter(|(offset, _)| u128::from(offset.unsigned_abs()) <= tolerance.as_nanos())
                .unzip();
            PairedMessages {
                sequence: *sequence,
                image: image.clone(),
                depth: depth.cloned(),
                lacks_depth_camera: lacks_depth_camera(image, depth),
                depth_camera_info: shared.depth_camera_info.clone(),
                is_rectified: self.is_rectified,
                is_depth_rectified: self.is_depth_rectified,
                depth_offset_ns,
                camera_info: shared.camera_info.clone(),
                arrived: *arrived,
            }
        };
        let newest = shared.images.back().map(paired);
        let newest_with_depth = shared.images.iter().rev().map(paired).find(|it| it.depth.is_some());
        (newest_with_depth, newest)
    }

    fn topic<T: CameraMessage>(
        &self,
        node: &mut r2r::Node,
        role: Role,
        topic: String,
        ring: &Arc<watch::Sender<u64>>,
    ) -> r2r::Result<()> {
        // The resolved name serves as is: no rule of ours names it again unless someone chains rules.
        let messages = node.subscribe::<T>(&topic, QosProfile::sensor_data().keep_last(1))?;
        self.lock().stats.push(InputStats {
            role,
            topic,
            message_type: T::TYPE,
            n_received: 0,
            last_arrival: None,
            stream_start: None,
            last_stamp_ns: None,
        });
        tokio::spawn(store_all(messages, role, Arc::clone(&self.shared), Arc::clone(ring)));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PairedMessages {
    /// Stamp and frame of the color image.
    pub fn header(&self) -> &Header {
        self.image.header()
    }

    /// Stamp of the color image, nanoseconds.
    pub fn stamp_ns(&self) -> i64 {
        nanos_from_time(&self.header().stamp)
    }

    /// The color image.
    pub fn color(&self) -> Result<RgbImage, convert::ConvertError> {
        match &self.image {
            ImageMessage::Raw(image) => convert::rgb_image(image),
            ImageMessage::Compressed(image) => convert::rgb_image_from_compressed(image),
        }
    }

    /// Columns and rows of the color image, without a look at its pixels; `None` where it says none.
    pub fn color_size(&self) -> Option<(u32, u32)> {
        match &self.image {
            ImageMessage::Raw(image) => Some((image.width, image.height)),
            ImageMessage::Compressed(image) => convert::compressed_size(image),
        }
    }
}

impl ImageMessage {
    /// Stamp and frame.
    pub fn header(&self) -> &Header {
        match self {
            Self::Raw(image) => &image.header,
            Self::Compressed(image) => &image.header,
        }
    }
}

async fn store_all<T: CameraMessage>(
    mut messages: impl Stream<Item = T> + Unpin,
    role: Role,
    shared: Arc<Mutex<Shared>>,
    ring: Arc<watch::Sender<u64>>,
) {
    while let Some(message) = messages.next().await {
        {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let stamp_ns = nanos_from_time(&message.header().stamp);
            if let Some(stats) = shared.stats.iter_mut().find(|it| it.role == role) {
                let now = Instant::now();
                if stats.last_arrival.is_none_or(|last| now - last >= RESTART_GAP) {
                    stats.stream_start = Some(now);
                }
                stats.n_received += 1;
                stats.last_arrival = Some(now);
                stats.last_stamp_ns = Some(stamp_ns);
            }
            message.store(role, &mut shared);
        }
        ring.send_modify(|n| *n += 1);
    }
}

impl Shared {
    fn push(&mut self, role: Role, stamp_ns: i64, message: ImageMessage) {
        match role {
            Role::Image => {
                self.n_images += 1;
                self.images.push_back((self.n_images, stamp_ns, Instant::now(), message));
                if self.images.len() > KEPT_IMAGES {
                    self.images.pop_front();
                }
            }
            Role::Depth => {
                self.depths.push_back((stamp_ns, message));
                if self.depths.len() > KEPT_IMAGES {
                    self.depths.pop_front();
                }
            }
            Role::CameraInfo | Role::DepthCameraInfo => {}
        }
    }
}

impl CameraMessage for Image {
    const TYPE: &'static str = "sensor_msgs/msg/Image";

    fn header(&self) -> &Header {
        &self.header
    }

    fn store(self, role: Role, shared: &mut Shared) {
        shared.push(role, nanos_from_time(&self.header.stamp), ImageMessage::Raw(Arc::new(self)));
    }
}

impl CameraMessage for CompressedImage {
    const TYPE: &'static str = "sensor_msgs/msg/CompressedImage";

    fn header(&self) -> &Header {
        &self.header
    }

    fn store(self, role: Role, shared: &mut Shared) {
        shared.push(role, nanos_from_time(&self.header.stamp), ImageMessage::Compressed(Arc::new(self)));
    }
}

impl CameraMessage for CameraInfo {
    const TYPE: &'static str = "sensor_msgs/msg/CameraInfo";

    fn header(&self) -> &Header {
        &self.header
    }

    fn store(self, role: Role, shared: &mut Shared) {
        let slot = if role == Role::DepthCameraInfo {
            &mut shared.depth_camera_info
        } else {
            &mut shared.camera_info
        };
        *slot = Some(Arc::new(self));
    }
}
