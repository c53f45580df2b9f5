//! All topics an outcome is told on.

use nalgebra::Isometry3;
use r2r::geometry_msgs::msg::{PoseArray, PoseStamped};
use r2r::language_grounding::msg::GroundingResult;
use r2r::sensor_msgs::msg::Image;
use r2r::std_msgs::msg::{Header, String as Text};
use r2r::vision_msgs::msg::{Detection2DArray, Detection3DArray};
use r2r::visualization_msgs::msg::MarkerArray;
use r2r::{Publisher, QosProfile};

use super::messages::{MarkerBoard, image_message, pose};
use super::time_from_nanos;
use crate::annotate;
use crate::engine::outcome::{Outcome, TargetFate};
use crate::engine::ports::ResultSink;
use crate::image::RgbdFrame;
use crate::result::Status;

/// The node's output topics.
pub struct ResultPublisher {
    result: Publisher<GroundingResult>,
    target_pose: Publisher<PoseStamped>,
    destination_pose: Publisher<PoseStamped>,
    grasp_candidates: Publisher<PoseArray>,
    place_pose: Publisher<PoseStamped>,
    detections: Publisher<Detection2DArray>,
    detections_3d: Publisher<Detection3DArray>,
    caption: Publisher<Text>,
    markers: Publisher<MarkerArray>,
    annotated: Publisher<Image>,
    board: MarkerBoard,
    /// Stamp of the last pose of a tracked target.
    tracked_ns: Option<i64>,
}

impl ResultPublisher {
    /// Makes the publishers.
    pub fn new(node: &mut r2r::Node) -> r2r::Result<Self> {
        let qos = QosProfile::default;
        Ok(Self {
            result: node.create_publisher("~/result", qos())?,
            target_pose: node.create_publisher("~/target_pose", qos())?,
            destination_pose: node.create_publisher("~/destination_pose", qos())?,
            grasp_candidates: node.create_publisher("~/grasp_candidates", qos())?,
            place_pose: node.create_publisher("~/place_pose", qos())?,
            detections: node.create_publisher("~/detections", qos())?,
            detections_3d: node.create_publisher("~/detections_3d", qos())?,
            caption: node.create_publisher("~/caption", qos())?,
            markers: node.create_publisher("~/markers", qos())?,
            annotated: node.create_publisher("~/annotated", QosProfile::sensor_data())?,
            board: MarkerBoard::default(),
            tracked_ns: None,
        })
    }

    fn try_publish(&mut self, outcome: &Outcome, frame: Option<&RgbdFrame>) -> r2r::Result<()> {
        // Poses and detections first: whoever waits for the result finds them there.
        // Those who follow the target never go back in time.
        let is_news = match outcome.fate {
            TargetFate::Unknown => true,
            TargetFate::Followed => self.tracked_ns.is_none_or(|it| it < outcome.result.stamp_ns),
            TargetFate::Lost => false,
        };
        if let Some(pose) = outcome.pose_stamped(outcome.result.targets.first()).filter(|_| is_news) {
            self.target_pose.publish(&pose)?;
        }
        if outcome.result.status == Status::Stale {
            self.tracked_ns = None;
        }
        if let Some(pose) = outcome.pose_stamped(outcome.result.destination.as_ref()) {
            self.destination_pose.publish(&pose)?;
        }
        if let Some(grasps) = outcome.grasp_candidates() {
            self.grasp_candidates.publish(&grasps)?;
        }
        if let Some(place) = outcome.place_pose() {
            self.place_pose.publish(&place)?;
        }
        if let Some(frame) = frame {
            self.detections.publish(&outcome.detections_2d())?;
            self.detections_3d.publish(&outcome.detections_3d())?;
            if let Some(data) = outcome.caption() {
                self.caption.publish(&Text { data })?;
            }
            // Drawing and sending a picture nobody looks at would cost more than all the rest.
            if self.annotated.get_inter_process_subscription_count()? > 0 {
                let header = Header {
                    stamp: time_from_nanos(outcome.result.stamp_ns),
                    frame_id: outcome.result.frame_id.clone(),
                };
                let drawn = annotate::draw(&frame.image, &outcome.result, frame.camera.as_ref());
                self.annotated.publish(&image_message(drawn, header))?;
            }
        }
        self.markers.publish(&self.board.show(outcome))?;
        self.result.publish(&outcome.result())
    }
}

impl ResultSink for ResultPublisher {
    fn publish(&mut self, outcome: &Outcome, frame: Option<&RgbdFrame>) {
        match self.try_publish(outcome, frame) {
            // The node is gone: the program is about to end.
            Ok(()) | Err(r2r::Error::RCL_RET_PUBLISHER_INVALID) => {}
            Err(error) => tracing::error!("cannot publish the result of {}: {error}", outcome.instruction_id),
        }
    }

    fn publish_target_pose(&mut self, stamp_ns: i64, frame_id: &str, target_from_object: &Isometry3<f64>) {
        self.tracked_ns = Some(stamp_ns);
        let header = Header { stamp: time_from_nanos(stamp_ns), frame_id: frame_id.to_owned() };
        // Fails only when the node is gone.
        self.target_pose.publish(&PoseStamped { header, pose: pose(target_from_object) }).ok();
    }

    fn clear_markers(&mut self) {
        // Fails only when the node is gone.
        self.markers.publish(&self.board.clear()).ok();
    }
}
