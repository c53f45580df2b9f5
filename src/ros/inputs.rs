//! The camera's topics, subscribed as the configuration says.
//!
//! r2r keeps eleven messages and drops the newest when a reader is slow. So every topic has a task that does nothing but
//! put what arrives into the engine's feed, where the newest wins.

use std::sync::Arc;

use futures::StreamExt as _;
use r2r::sensor_msgs::msg::{CameraInfo, CompressedImage, Image};
use r2r::std_msgs::msg::Header;
use r2r::{QosProfile, WrappedTypesupport};

use super::nanos_from_time;
use super::remap::Remapping;
use crate::config::{Config, DepthTransport, ImageTransport};
use crate::engine::camera::{FrameHeader, Role};
use crate::engine::inputs::{CameraFeed, CameraInputs, CameraMessage, Rectified, camera_inputs};
use crate::register::Registration;

/// A stamped message of the camera.
trait Stamped: WrappedTypesupport + Send + 'static {
    const TYPE: &'static str;
    fn header(&self) -> &Header;
}

/// Subscribes to the camera's topics.
pub fn subscribe(node: &mut r2r::Node, names: &Remapping, config: &Config) -> r2r::Result<CameraInputs> {
    let (feed, inputs) = camera_inputs(Rectified {
        color: config.is_image_rectified.unwrap_or_else(|| names.resolve("image").contains("rect")),
        depth: names.resolve("depth").contains("rect"),
    });
    let mut topics = Topics { node, feed };
    match config.image_transport {
        ImageTransport::Raw => {
            topics.add::<Image>(Role::Image, names.resolve("image"), |it| CameraMessage::Color(it))?;
        }
        ImageTransport::Compressed => {
            let topic = names.below("image", "compressed");
            topics.add::<CompressedImage>(Role::Image, topic, |it| CameraMessage::Color(it))?;
        }
    }
    let use_depth = config.pipeline.use_depth;
    if use_depth {
        match config.depth_transport {
            DepthTransport::Raw => {
                topics.add::<Image>(Role::Depth, names.resolve("depth"), |it| CameraMessage::Depth(it))?;
            }
            DepthTransport::CompressedDepth => {
                let topic = names.below("depth", "compressedDepth");
                topics.add::<CompressedImage>(Role::Depth, topic, |it| CameraMessage::Depth(it))?;
            }
        }
    }
    if use_depth || config.plane_frame.is_some() {
        let topic = names.camera_info();
        topics.add::<CameraInfo>(Role::CameraInfo, topic, |it| CameraMessage::CameraInfo(it))?;
    }
    // Beside registered depth stands the camera_info of the color image, or the same once more.
    let depth_info = names.depth_camera_info();
    let may_need_it = use_depth && config.depth_registration != Registration::Done;
    if may_need_it && depth_info != names.camera_info() {
        topics
            .add::<CameraInfo>(Role::DepthCameraInfo, depth_info, |it| CameraMessage::DepthCameraInfo(it))?;
    }
    Ok(inputs)
}

struct Topics<'a> {
    node: &'a mut r2r::Node,
    feed: CameraFeed,
}

impl Topics<'_> {
    fn add<T: Stamped>(
        &mut self,
        role: Role,
        topic: String,
        as_message: fn(Arc<T>) -> CameraMessage,
    ) -> r2r::Result<()> {
        // The resolved name serves as is: no rule of ours names it again unless someone chains rules.
        self.listen(&topic, QosProfile::sensor_data().keep_last(1), as_message)?;
        if matches!(role, Role::CameraInfo | Role::DepthCameraInfo) {
            // Sent once and kept for those who come later. Such a subscription hears no other publisher, hence both.
            self.listen(&topic, QosProfile::default().keep_last(1).transient_local(), as_message)?;
        }
        self.feed.add_topic(role, topic, T::TYPE);
        Ok(())
    }

    fn listen<T: Stamped>(
        &mut self,
        topic: &str,
        qos: QosProfile,
        as_message: fn(Arc<T>) -> CameraMessage,
    ) -> r2r::Result<()> {
        let mut messages = self.node.subscribe::<T>(topic, qos)?;
        let feed = self.feed.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let header = header_of(message.header());
                feed.put(header, as_message(Arc::new(message)));
            }
        });
        Ok(())
    }
}

fn header_of(header: &Header) -> FrameHeader {
    FrameHeader { stamp_ns: nanos_from_time(&header.stamp), frame_id: header.frame_id.clone() }
}

impl Stamped for Image {
    const TYPE: &'static str = "sensor_msgs/msg/Image";

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Stamped for CompressedImage {
    const TYPE: &'static str = "sensor_msgs/msg/CompressedImage";

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Stamped for CameraInfo {
    const TYPE: &'static str = "sensor_msgs/msg/CameraInfo";

    fn header(&self) -> &Header {
        &self.header
    }
}
