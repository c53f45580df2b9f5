//! What is wrong with the inputs, in sentences that say what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use super::camera::Role;
use super::inputs::InputStats;

/// Who publishes on a topic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Publishers {
    /// Full names of the nodes, sorted.
    pub nodes: Vec<String>,
    /// The message types they publish, sorted, without repetition.
    pub types: Vec<String>,
    /// Whether some of them do not keep their last messages for late subscribers (durability volatile).
    pub any_volatile: bool,
}

/// What the graph looked like a moment ago: the watched topics by full name.
pub type GraphSnapshot = BTreeMap<String, Publishers>;

/// Why nothing (recent) comes on a topic, as one sentence; `None` when something does.
pub fn missing_input(stats: &InputStats, graph: &GraphSnapshot, max_age: Duration) -> Option<String> {
    let InputStats { topic, message_type, .. } = stats;
    let age = stats.last_arrival.map(|it| it.elapsed());
    if age.is_some_and(|age| age <= max_age) {
        return None;
    }
    // Intrinsics that do not change may be sent once.
    if age.is_some() && matches!(stats.role, Role::CameraInfo | Role::DepthCameraInfo) {
        return None;
    }
    let nobody = Publishers::default();
    let publishers = graph.get(topic).unwrap_or(&nobody);
    let who = publishers.nodes.join(", ");
    let fits = publishers.types.iter().any(|it| it == message_type);
    let remap = match stats.role {
        Role::Image => "image",
        Role::Depth => "depth",
        Role::DepthCameraInfo => "depth_camera_info",
        Role::CameraInfo => "camera_info",
    };
    Some(match (publishers.types.is_empty(), fits, age) {
        (true, _, None) => {
            format!("nobody publishes {topic} ({message_type}): remap `{remap}` to your camera's topic")
        }
        (true, _, Some(age)) => {
            format!(
                "{topic} has ended: its last message came {:.1} s ago and nobody publishes it any more",
                age.as_secs_f64()
            )
        }
        (false, false, _) => format!(
            "{topic} carries {}, expected {message_type} (published by {who}): check the remapping and the \
             image_transport and depth_transport parameters",
            publishers.types.join(" and ")
        ),
        (false, true, None) => format!(
            "{who} publishes {topic}, but nothing arrives: large images get lost in Fast DDS's default transport, start the \
             publisher with config/fastdds_shm.xml or reliable QoS"
        ),
        (false, true, Some(age)) => format!(
            "the last message on {topic} (published by {who}) came {:.1} s ago: is the camera paused?",
            age.as_secs_f64()
        ),
    })
}

/// Depth that comes, but at other times than color, in words.
pub fn unpaired_depth(offset_ns: i64, tolerance: Duration) -> String {
    let direction = if offset_ns < 0 { "before" } else { "after" };
    format!(
        "depth comes, but the nearest depth image is stamped {:.0} ms {direction} the color image: synchronize the camera's \
         streams, or raise stamp_tolerance_secs (now {}) if nothing moves",
        offset_ns.unsigned_abs() as f64 * 1e-6,
        tolerance.as_secs_f64()
    )
}

/// A stamp that cannot be right, in words.
pub fn clock_problem(topic: &str, age_secs: f64) -> String {
    let (amount, direction) = (age_secs.abs(), if age_secs < 0.0 { "in the future" } else { "in the past" });
    format!(
        "images on {topic} are stamped {amount:.1} s {direction}: check the camera's clock, its driver's header.stamp, \
         and use_sim_time"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_missing_input_is_told_with_its_remedy() {
        let stats = |arrived: Option<Instant>| InputStats {
            role: Role::Image,
            topic: "/cam/image".to_owned(),
            message_type: "sensor_msgs/msg/Image",
            n_received: 0,
            last_arrival: arrived,
            stream_start: None,
            last_stamp_ns: None,
        };
        let graph = |types: &[&str]| {
            let publishers = Publishers {
                nodes: vec!["/driver".to_owned()],
                types: types.iter().map(|it| (*it).to_owned()).collect(),
                any_volatile: true,
            };
            GraphSnapshot::from([("/cam/image".to_owned(), publishers)])
        };
        let long_ago = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
        let check = |arrived, graph: &GraphSnapshot, says: Option<&str>| match (
            missing_input(&stats(arrived), graph, Duration::from_secs(1)),
            says,
        ) {
            (None, None) => {}
            (Some(got), Some(expected)) => assert!(got.contains(expected), "{got:?} lacks {expected:?}"),
            (got, expected) => panic!("got {got:?}, expected {expected:?}"),
        };
        check(Some(Instant::now()), &graph(&["sensor_msgs/msg/Image"]), None);
        check(None, &GraphSnapshot::new(), Some("nobody publishes /cam/image"));
        check(None, &graph(&["sensor_msgs/msg/CompressedImage"]), Some("expected sensor_msgs/msg/Image"));
        check(None, &graph(&["sensor_msgs/msg/Image"]), Some("fastdds_shm.xml"));
        check(Some(long_ago), &graph(&["sensor_msgs/msg/Image"]), Some("7.0 s ago"));
        check(Some(long_ago), &GraphSnapshot::new(), Some("has ended"));
    }
}
