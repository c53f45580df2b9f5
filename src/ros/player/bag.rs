//! A rosbag2 MCAP file played in a loop with fresh stamps, so that a short recording serves as an endless camera.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mcap::{Message, MessageStream};
use r2r::sensor_msgs::msg::{CameraInfo, CompressedImage, Image};
use r2r::tf2_msgs::msg::TFMessage;
use r2r::{Publisher, QosProfile, WrappedTypesupport};

use super::{ImageReliability, PlayerError};
use crate::ros::{nanos_from_time, time_from_nanos};

/// The pause before the first message comes again when the bag holds too few to tell its rate.
const DEFAULT_PERIOD_NS: i64 = 100_000_000;

/// A bag and the publishers of the topics that are played.
pub struct BagPlayer {
    path: String,
    bytes: Vec<u8>,
    topics: BTreeMap<String, TopicPublisher>,
    /// Log time of the first message.
    start_ns: i64,
    /// From the first message to where it comes again.
    period_ns: i64,
}

/// Publishers by the message types a camera recording is made of.
enum TopicPublisher {
    Image(Publisher<Image>),
    CompressedImage(Publisher<CompressedImage>),
    CameraInfo(Publisher<CameraInfo>),
    Transforms(Publisher<TFMessage>),
}

impl BagPlayer {
    /// Reads the bag and makes a publisher for every topic it can play; the others are named in a warning.
    pub fn open(node: &mut r2r::Node, path: &Path, images: ImageReliability) -> Result<Self, PlayerError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| PlayerError::File { path: name.clone(), error })?;
        let bad = |problem: String| PlayerError::Bag { path: name.clone(), problem };
        let mut topics = BTreeMap::new();
        let mut skipped = BTreeSet::new();
        let mut image_times = Vec::new();
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for message in MessageStream::new(&bytes).map_err(|error| bad(error.to_string()))? {
            let message = message.map_err(|error| bad(error.to_string()))?;
            let at = message.log_time as i64;
            (first, last) = (first.min(at), last.max(at));
            let topic = &message.channel.topic;
            let message_type = message.channel.schema.as_ref().map_or("", |schema| schema.name.as_str());
            if message_type == "sensor_msgs/msg/Image" || message_type == "sensor_msgs/msg/CompressedImage" {
                image_times.push((topic.clone(), at));
            }
            if topics.contains_key(topic) || skipped.contains(topic) {
                continue;
            }
            if message.channel.message_encoding != "cdr" {
                return Err(bad(format!(
                    "expected cdr messages on {topic}, got {}",
                    message.channel.message_encoding
                )));
            }
            match publisher(node, topic, message_type, images)? {
                Some(publisher) => {
                    topics.insert(topic.clone(), publisher);
                }
                None => {
                    tracing::warn!("not played: {topic}, {message_type:?} is no camera message");
                    skipped.insert(topic.clone());
                }
            }
        }
        if topics.is_empty() {
            return Err(bad("expected camera messages, got none".to_owned()));
        }
        let period_ns = last - first + mean_interval(&image_times);
        Ok(Self { path: name, bytes, topics, start_ns: first, period_ns })
    }

    /// The topics that are played.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// Plays forever: `sleep_until(at_ns)` waits for a moment of the ROS clock and says whether to go on.
    /// Stamps move by as much as the whole recording does; `speed` 2 plays twice as fast.
    pub fn play(
        &self,
        start_ns: i64,
        speed: f64,
        mut sleep_until: impl FnMut(i64) -> bool,
    ) -> Result<(), PlayerError> {
        if !(speed.is_finite() && speed > 0.0) {
            return Err(PlayerError::Rate(speed));
        }
        let mut loop_start_ns = start_ns;
        loop {
            let messages = MessageStream::new(&self.bytes).map_err(|error| self.bad(&error))?;
            for message in messages {
                let message = message.map_err(|error| self.bad(&error))?;
                let into_loop_ns = ((message.log_time as i64 - self.start_ns) as f64 / speed) as i64;
                let at_ns = loop_start_ns + into_loop_ns;
                if !sleep_until(at_ns) {
                    return Ok(());
                }
                self.publish(&message, at_ns)?;
            }
            loop_start_ns += (self.period_ns as f64 / speed) as i64;
        }
    }

    fn publish(&self, message: &Message<'_>, at_ns: i64) -> Result<(), PlayerError> {
        let shift_ns = at_ns - message.log_time as i64;
        let shift = |stamp: &mut r2r::builtin_interfaces::msg::Time| {
            *stamp = time_from_nanos(nanos_from_time(stamp) + shift_ns);
        };
        match self.topics.get(&message.channel.topic) {
            Some(TopicPublisher::Image(publisher)) => {
                let mut image: Image = parse(message)?;
                shift(&mut image.header.stamp);
                publisher.publish(&image)?;
            }
            Some(TopicPublisher::CompressedImage(publisher)) => {
                let mut image: CompressedImage = parse(message)?;
                shift(&mut image.header.stamp);
                publisher.publish(&image)?;
            }
            Some(TopicPublisher::CameraInfo(publisher)) => {
                let mut info: CameraInfo = parse(message)?;
                shift(&mut info.header.stamp);
                publisher.publish(&info)?;
            }
            Some(TopicPublisher::Transforms(publisher)) => {
                let mut transforms: TFMessage = parse(message)?;
                transforms.transforms.iter_mut().for_each(|it| shift(&mut it.header.stamp));
                publisher.publish(&transforms)?;
            }
            None => {}
        }
        Ok(())
    }

    fn bad(&self, error: &mcap::McapError) -> PlayerError {
        PlayerError::Bag { path: self.path.clone(), problem: error.to_string() }
    }
}

fn publisher(
    node: &mut r2r::Node,
    topic: &str,
    message_type: &str,
    images: ImageReliability,
) -> Result<Option<TopicPublisher>, PlayerError> {
    Ok(Some(match message_type {
        "sensor_msgs/msg/Image" => TopicPublisher::Image(node.create_publisher(topic, images.qos())?),
        "sensor_msgs/msg/CompressedImage" => {
            TopicPublisher::CompressedImage(node.create_publisher(topic, images.qos())?)
        }
        "sensor_msgs/msg/CameraInfo" => {
            TopicPublisher::CameraInfo(node.create_publisher(topic, images.qos())?)
        }
        "tf2_msgs/msg/TFMessage" => {
            let qos = QosProfile::default().keep_last(100);
            let qos = if topic.ends_with("tf_static") { qos.transient_local() } else { qos };
            TopicPublisher::Transforms(node.create_publisher(topic, qos)?)
        }
        _ => return Ok(None),
    }))
}

fn parse<T: WrappedTypesupport + 'static>(message: &Message<'_>) -> Result<T, PlayerError> {
    Ok(T::from_serialized_bytes(&message.data)?)
}

/// The mean time between images of one topic, nanoseconds.
fn mean_interval(image_times: &[(String, i64)]) -> i64 {
    let Some((topic, first)) = image_times.first() else { return DEFAULT_PERIOD_NS };
    let of_topic: Vec<i64> = image_times.iter().filter(|(it, _)| it == topic).map(|(_, at)| *at).collect();
    let n_intervals = of_topic.len() as i64 - 1;
    match of_topic.last() {
        Some(last) if n_intervals > 0 && last > first => (last - first) / n_intervals,
        _ => DEFAULT_PERIOD_NS,
    }
}
