//! The camera as the engine knows it: the newest messages of each topic, paired by stamp, and how often they come.
//!
//! A [`CameraFeed`] does nothing but put what arrives where the newest wins; nothing is converted before it is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::camera::{ColorMessage, DepthMessage, FrameHeader, IntrinsicsMessage, Role};
use super::queue::{FrameQueue, Pair};

/// A topic that was silent for this long has started anew: its other topics may still be about to be discovered.
const RESTART_GAP: Duration = Duration::from_secs(1);

/// Intrinsics with their frame.
#[derive(Debug, Clone)]
pub struct Intrinsics {
    /// Stamp and frame.
    pub header: FrameHeader,
    /// As they came.
    pub message: Arc<dyn IntrinsicsMessage>,
}

/// One color image with the depth image and the intrinsics that belong to it, as they came.
#[derive(Debug, Clone)]
pub struct CameraFrame {
    /// Color, and depth within the stamp tolerance, if there is any.
    pub images: Pair<Arc<dyn ColorMessage>, Arc<dyn DepthMessage>>,
    /// The newest intrinsics.
    pub camera_info: Option<Intrinsics>,
    /// The newest intrinsics of the depth image, where it has a topic of its own for them.
    pub depth_camera_info: Option<Intrinsics>,
    /// The depth image is labeled with a frame of its own, and the intrinsics for that have not come.
    pub lacks_depth_camera: bool,
    /// Which images are rectified.
    pub rectified: Rectified,
}

/// Which images are rectified.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rectified {
    /// The color image.
    pub color: bool,
    /// The depth image.
    pub depth: bool,
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
    /// When the first one arrived after the start, or after a silence of `RESTART_GAP`.
    pub stream_start: Option<Instant>,
    /// Its stamp, nanoseconds.
    pub last_stamp_ns: Option<i64>,
}

/// A message of one of the camera's topics.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the roles")]
pub enum CameraMessage {
    Color(Arc<dyn ColorMessage>),
    Depth(Arc<dyn DepthMessage>),
    CameraInfo(Arc<dyn IntrinsicsMessage>),
    DepthCameraInfo(Arc<dyn IntrinsicsMessage>),
}

/// Where the camera's messages go in. While there is one, more of them may come.
#[derive(Clone)]
pub struct CameraFeed {
    shared: Arc<Mutex<Shared>>,
    updates: Arc<watch::Sender<u64>>,
}

/// The camera's topics. Clones share them.
#[derive(Clone)]
pub struct CameraInputs {
    shared: Arc<Mutex<Shared>>,
    updates: watch::Receiver<u64>,
    rectified: Rectified,
}

#[derive(Default)]
struct Shared {
    stats: Vec<InputStats>,
    queue: FrameQueue<Arc<dyn ColorMessage>, Arc<dyn DepthMessage>>,
    camera_info: Option<Intrinsics>,
    depth_camera_info: Option<Intrinsics>,
}

/// A camera without topics yet.
pub fn camera_inputs(rectified: Rectified) -> (CameraFeed, CameraInputs) {
    let (updates, received) = watch::channel(0);
    let shared = Arc::<Mutex<Shared>>::default();
    let feed = CameraFeed { shared: Arc::clone(&shared), updates: Arc::new(updates) };
    (feed, CameraInputs { shared, updates: received, rectified })
}

impl CameraFeed {
    /// There is a topic of this role.
    pub fn add_topic(&self, role: Role, topic: String, message_type: &'static str) {
        self.shared.lock().stats.push(InputStats {
            role,
            topic,
            message_type,
            n_received: 0,
            last_arrival: None,
            stream_start: None,
            last_stamp_ns: None,
        });
    }

    /// A message arrived.
    pub fn put(&self, header: FrameHeader, message: CameraMessage) {
        self.shared.lock().put(header, message, Instant::now());
        self.updates.send_modify(|n| *n += 1);
    }
}

impl CameraInputs {
    /// Changes with every message of the camera; an error when no more can come.
    pub fn updates(&self) -> watch::Receiver<u64> {
        self.updates.clone()
    }

    /// What is known of each topic.
    pub fn stats(&self) -> Vec<InputStats> {
        self.shared.lock().stats.clone()
    }

    /// Stamp of the depth image nearest to the newest color image minus that image's, nanoseconds.
    pub fn nearest_depth_offset_ns(&self) -> Option<i64> {
        self.shared.lock().queue.nearest_offset_ns()
    }

    /// The newest color image, with what belongs to it as far as it is there.
    pub fn newest(&self, tolerance: Duration) -> Option<CameraFrame> {
        let shared = self.shared.lock();
        let images = shared.queue.newest(tolerance)?;
        Some(shared.frame(images, self.rectified))
    }

    /// The newest color image that has a depth image within `tolerance`.
    pub fn newest_with_depth(&self, tolerance: Duration) -> Option<CameraFrame> {
        let shared = self.shared.lock();
        let images = shared.queue.newest_with_depth(tolerance)?;
        Some(shared.frame(images, self.rectified))
    }
}

impl CameraFrame {
    /// Stamp and frame of the color image.
    pub fn header(&self) -> &FrameHeader {
        &self.images.color.header
    }

    /// Counts color images: a new image, a new number.
    pub fn sequence(&self) -> u64 {
        self.images.color.sequence
    }

    /// When the color image arrived.
    pub fn arrived(&self) -> Instant {
        self.images.color.arrived
    }
}

impl Shared {
    fn put(&mut self, header: FrameHeader, message: CameraMessage, now: Instant) {
        if let Some(stats) = self.stats.iter_mut().find(|it| it.role == message.role()) {
            if stats.last_arrival.is_none_or(|last| now - last >= RESTART_GAP) {
                stats.stream_start = Some(now);
            }
            stats.n_received += 1;
            stats.last_arrival = Some(now);
            stats.last_stamp_ns = Some(header.stamp_ns);
        }
        match message {
            CameraMessage::Color(message) => self.queue.push_color(header, now, message),
            CameraMessage::Depth(message) => self.queue.push_depth(header, now, message),
            CameraMessage::CameraInfo(message) => self.camera_info = Some(Intrinsics { header, message }),
            CameraMessage::DepthCameraInfo(message) => {
                self.depth_camera_info = Some(Intrinsics { header, message });
            }
        }
    }

    fn frame(
        &self,
        images: Pair<Arc<dyn ColorMessage>, Arc<dyn DepthMessage>>,
        rectified: Rectified,
    ) -> CameraFrame {
        let has_depth_info_topic = self.stats.iter().any(|it| it.role == Role::DepthCameraInfo);
        let color_frame = &images.color.header.frame_id;
        let is_elsewhere = images.depth.as_ref().is_some_and(|it| it.header.frame_id != *color_frame);
        CameraFrame {
            lacks_depth_camera: has_depth_info_topic && is_elsewhere && self.depth_camera_info.is_none(),
            images,
            camera_info: self.camera_info.clone(),
            depth_camera_info: self.depth_camera_info.clone(),
            rectified,
        }
    }
}

impl CameraMessage {
    fn role(&self) -> Role {
        match self {
            Self::Color(_) => Role::Image,
            Self::Depth(_) => Role::Depth,
            Self::CameraInfo(_) => Role::CameraInfo,
            Self::DepthCameraInfo(_) => Role::DepthCameraInfo,
        }
    }
}
