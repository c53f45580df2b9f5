//! A result to the messages that tell of it.

use nalgebra::{Isometry3, Matrix6};
use r2r::geometry_msgs::msg::{
    Point, Pose, PoseArray, PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped, Quaternion, Vector3,
};
use r2r::language_grounding::msg as lg;
use r2r::sensor_msgs::msg::Image;
use r2r::std_msgs::msg::{ColorRGBA, Header};
use r2r::vision_msgs::msg as vision;
use r2r::visualization_msgs::msg::{Marker, MarkerArray};

use super::time_from_nanos;
use crate::detection::BoundingBox2d;
use crate::engine::outcome::{Outcome, TargetFrame};
use crate::image::RgbImage;
use crate::instruction::RelationKind;
use crate::lift::{LiftedObject, Place, PoseSource};
use crate::result::{GroundedObject, Status};
use crate::transform::rotate_covariance;

/// The status as in the message.
pub fn status_code(status: Status) -> u8 {
    use lg::GroundingResult as Message;
    match status {
        Status::Found => Message::FOUND as u8,
        Status::NotFound => Message::NOT_FOUND as u8,
        Status::Ambiguous => Message::AMBIGUOUS as u8,
        Status::NoDepth => Message::NO_DEPTH as u8,
        Status::NoTransform => Message::NO_TRANSFORM as u8,
        Status::Stale => Message::STALE as u8,
        Status::BadInstruction => Message::BAD_INSTRUCTION as u8,
        Status::Blocked => Message::BLOCKED as u8,
        Status::Error => Message::ERROR as u8,
    }
}

impl Outcome {
    /// The whole result.
    pub fn result(&self) -> lg::GroundingResult {
        let result = &self.result;
        let (missing, missing_phrase) = match result.ambiguity.as_ref().and_then(|it| it.unmet.clone()) {
            Some((unmet, phrase)) => (unmet.name().to_owned(), phrase),
            None => (String::new(), String::new()),
        };
        let doubtful = result.ambiguity.as_ref().map(|it| it.ids(&result.candidates)).unwrap_or_default();
        let is_question = result.status == Status::Ambiguous;
        let nearest = if is_question { String::new() } else { doubtful.first().cloned().unwrap_or_default() };
        let meant = |it: &GroundedObject| self.object(it, WithMask::Yes);
        lg::GroundingResult {
            header: self.image_header(),
            instruction_id: self.instruction_id.clone(),
            instruction: result.instruction.clone(),
            status: status_code(result.status),
            message: result.message.clone(),
            choices: if is_question { doubtful } else { Vec::new() },
            missing,
            missing_phrase,
            nearest,
            action: result.action.clone(),
            targets: result.targets.iter().map(meant).collect(),
            has_destination: result.destination.is_some(),
            destination_relation: result.destination_relation.map_or("", RelationKind::name).to_owned(),
            destination: result.destination.as_ref().map(meant).unwrap_or_default(),
            steps: (0..result.steps.len()).map(|step_idx| self.step(step_idx)).collect(),
            candidates: result.candidates.iter().map(|it| self.object(it, WithMask::No)).collect(),
            warnings: result.warnings.clone(),
            model: result.model.clone(),
            latency_ms: named_values(&self.latency_ms),
        }
    }

    /// One step; the first one's objects are those of the result, which tracking may have named.
    fn step(&self, step_idx: usize) -> lg::GroundingStep {
        let step = &self.result.steps[step_idx];
        let (targets, destination) = match step_idx {
            0 => (&self.result.targets, &self.result.destination),
            _ => (&step.targets, &step.destination),
        };
        let object = |it: &GroundedObject| self.object(it, WithMask::No);
        let place = step.place.as_ref().zip(self.target_from_camera.as_ref());
        lg::GroundingStep {
            action: step.action.clone(),
            status: status_code(step.status),
            message: step.message.clone(),
            targets: targets.iter().map(object).collect(),
            has_destination: destination.is_some(),
            destination_relation: step.destination_relation.map_or("", RelationKind::name).to_owned(),
            destination: destination.as_ref().map(object).unwrap_or_default(),
            has_place: place.is_some(),
            place: place
                .map(|(place, target)| PoseStamped {
                    header: self.pose_header(target),
                    pose: pose(&(target.target_from_camera * place.place_in_camera)),
                })
                .unwrap_or_default(),
            has_tool: step.tool.is_some(),
            tool: step.tool.as_ref().map(object).unwrap_or_default(),
            manner: step.manner.clone(),
            has_rotation: step.rotation.is_some(),
            rotation_degrees: step.rotation.map_or(0.0, |it| it.degrees),
            has_distance: step.distance_m.is_some(),
            distance: step.distance_m.unwrap_or_default(),
        }
    }

    /// The pose of an object, only when the request was FOUND and the object lifted.
    pub fn pose_stamped(&self, object: Option<&GroundedObject>) -> Option<PoseStamped> {
        let target = self.target_from_camera.as_ref()?;
        let lifted = object?.lifted.as_ref()?;
        (self.result.status == Status::Found).then(|| PoseStamped {
            header: self.pose_header(target),
            pose: pose(&(target.target_from_camera * lifted.object_in_camera)),
        })
    }

    /// Ways to take the first target, best first; only when the request was FOUND. Empty when none fits the gripper.
    pub fn grasp_candidates(&self) -> Option<PoseArray> {
        let target = self.target_from_camera.as_ref().filter(|_| self.result.status == Status::Found)?;
        let grasps = &self.result.targets.first()?.grasps;
        let poses = grasps.iter().map(|it| pose(&(target.target_from_camera * it.grasp_in_camera))).collect();
        Some(PoseArray { header: self.pose_header(target), poses })
    }

    /// The free place at the destination, only when the request was FOUND and one is seen.
    pub fn place_pose(&self) -> Option<PoseStamped> {
        let target = self.target_from_camera.as_ref().filter(|_| self.result.status == Status::Found)?;
        let place = self.result.place.as_ref()?;
        Some(PoseStamped {
            header: self.pose_header(target),
            pose: pose(&(target.target_from_camera * place.place_in_camera)),
        })
    }

    /// All candidates in the image; boxes in pixel edges, so that the whole image is (0, 0, width, height).
    pub fn detections_2d(&self) -> vision::Detection2DArray {
        let header = self.image_header();
        let detections = self
            .result
            .candidates
            .iter()
            .map(|object| {
                let (x, y) = object.bbox.center();
                vision::Detection2D {
                    header: header.clone(),
                    results: vec![hypothesis(object, PoseWithCovariance::default())],
                    bbox: vision::BoundingBox2D {
                        center: vision::Pose2D { position: vision::Point2D { x, y }, theta: 0.0 },
                        size_x: object.bbox.width(),
                        size_y: object.bbox.height(),
                    },
                    id: object.id.clone(),
                }
            })
            .collect();
        vision::Detection2DArray { header, detections }
    }

    /// All candidates that were lifted.
    pub fn detections_3d(&self) -> vision::Detection3DArray {
        let Some(target) = &self.target_from_camera else {
            return vision::Detection3DArray { header: self.image_header(), detections: Vec::new() };
        };
        let header = self.pose_header(target);
        let lifted = |object: &GroundedObject| {
            let lifted = object.lifted.as_ref()?;
            let pose = pose_with_covariance(lifted, target);
            Some(vision::Detection3D {
                header: header.clone(),
                bbox: vision::BoundingBox3D { center: pose.pose.clone(), size: vector(&lifted.size_m) },
                results: vec![hypothesis(object, pose)],
                id: object.id.clone(),
            })
        };
        let detections = self.result.candidates.iter().filter_map(lifted).collect();
        vision::Detection3DArray { header, detections }
    }

    /// What is shown of the first target; `None` when nothing was captioned.
    pub fn caption(&self) -> Option<String> {
        let caption = &self.result.targets.first()?.caption;
        (!caption.is_empty()).then(|| caption.clone())
    }

    fn object(&self, object: &GroundedObject, with_mask: WithMask) -> lg::GroundedObject {
        let BoundingBox2d { x0, y0, x1, y1 } = object.bbox;
        let mut message = lg::GroundedObject {
            id: object.id.clone(),
            phrase: object.phrase.clone(),
            caption: object.caption.clone(),
            score: object.score as f32,
            score_parts: named_values(&object.score_parts),
            bbox: lg::BoundingBox2D { x_min: x0, y_min: y0, x_max: x1, y_max: y1 },
            ..Default::default()
        };
        let Some(lifted) = &object.lifted else { return message };
        message.num_depth_points = u32::try_from(lifted.n_points).unwrap_or(u32::MAX);
        message.valid_depth_ratio = lifted.valid_depth_ratio as f32;
        message.pose_source = match lifted.source {
            PoseSource::Depth => lg::GroundedObject::SOURCE_DEPTH as u8,
            PoseSource::SupportPlane => lg::GroundedObject::SOURCE_SUPPORT_PLANE as u8,
        };
        message.truncated = lifted.is_truncated;
        message.back_completed = lifted.is_back_completed;
        message.plane_residual = lifted.plane_residual_m.unwrap_or(0.0) as f32;
        if with_mask == WithMask::Yes && lifted.source == PoseSource::Depth {
            let (width, height) = self.image_size;
            message.mask = Image {
                header: self.image_header(),
                width,
                height,
                encoding: "mono8".to_owned(),
                step: width,
                data: lifted.mask.to_mono8(width, height),
                ..Default::default()
            };
        }
        if let Some(target) = &self.target_from_camera {
            let centroid = target.target_from_camera * lifted.surface_centroid;
            message.has_pose = true;
            message.pose = PoseWithCovarianceStamped {
                header: self.pose_header(target),
                pose: pose_with_covariance(lifted, target),
            };
            message.grasps = object
                .grasps
                .iter()
                .map(|it| pose(&(target.target_from_camera * it.grasp_in_camera)))
                .collect();
            message.grasp_scores = object.grasps.iter().map(|it| it.score as f32).collect();
            message.grasp_openings = object.grasps.iter().map(|it| it.opening_m as f32).collect();
            message.grasp_top_down = object.grasps.iter().map(|it| it.is_top_down).collect();
            message.no_grasps_reason.clone_from(&object.no_grasps_reason);
            message.size = vector(&lifted.size_m);
            message.surface_centroid = Point { x: centroid.x, y: centroid.y, z: centroid.z };
        }
        message
    }

    fn image_header(&self) -> Header {
        Header { stamp: time_from_nanos(self.result.stamp_ns), frame_id: self.result.frame_id.clone() }
    }

    fn pose_header(&self, target: &TargetFrame) -> Header {
        Header { stamp: time_from_nanos(self.result.stamp_ns), frame_id: target.frame_id.clone() }
    }
}

/// The markers of the targets and the destination, and the removal of those that are gone.
#[derive(Debug, Default)]
pub struct MarkerBoard {
    /// (namespace, id) and the header they were last shown with.
    shown: Vec<(String, i32, Header)>,
}

impl MarkerBoard {
    /// What to publish so that viewers show this outcome and nothing older.
    pub fn show(&mut self, outcome: &Outcome) -> MarkerArray {
        let mut markers = Vec::new();
        if let Some(target) = &outcome.target_from_camera {
            let header = outcome.pose_header(target);
            let found = outcome.result.status == Status::Found;
            for (id, object) in outcome.result.targets.iter().enumerate().filter(|_| found) {
                markers.extend(object_markers(object, "target", id as i32, &header, target));
            }
            if let Some(object) = outcome.result.destination.as_ref().filter(|_| found) {
                markers.extend(object_markers(object, "destination", 0, &header, target));
            }
            if let Some(place) = outcome.result.place.as_ref().filter(|_| found) {
                markers.push(place_marker(place, &header, target));
            }
        }
        let mut all = self.removals(&markers);
        self.shown = markers.iter().map(|it| (it.ns.clone(), it.id, it.header.clone())).collect();
        all.append(&mut markers);
        MarkerArray { markers: all }
    }

    /// What to publish so that viewers show nothing.
    pub fn clear(&mut self) -> MarkerArray {
        let markers = self.removals(&[]);
        self.shown.clear();
        MarkerArray { markers }
    }

    fn removals(&self, kept: &[Marker]) -> Vec<Marker> {
        self.shown
            .iter()
            .filter(|(ns, id, _)| !kept.iter().any(|it| it.ns == *ns && it.id == *id))
            .map(|(ns, id, header)| Marker {
                header: header.clone(),
                ns: ns.clone(),
                id: *id,
                action: Marker::DELETE as i32,
                ..Default::default()
            })
            .collect()
    }
}

/// A drawn image as a message.
pub fn image_message(image: RgbImage, header: Header) -> Image {
    let (width, height) = image.dimensions();
    Image {
        header,
        width,
        height,
        encoding: "rgb8".to_owned(),
        step: width * 3,
        data: image.into_raw(),
        ..Default::default()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum WithMask {
    Yes,
    No,
}

/// An oriented box, its axes and a label.
fn object_markers(
    object: &GroundedObject,
    role: &str,
    id: i32,
    header: &Header,
    target: &TargetFrame,
) -> Vec<Marker> {
    let Some(lifted) = &object.lifted else { return Vec::new() };
    let object_in_target = target.target_from_camera * lifted.object_in_camera;
    let (red, green) = if role == "target" { (0.1, 0.9) } else { (0.9, 0.7) };
    let marker = |part: &str, kind: i64| Marker {
        header: header.clone(),
        ns: format!("{role}/{part}"),
        id,
        type_: kind as i32,
        action: Marker::ADD as i32,
        pose: pose(&object_in_target),
        color: ColorRGBA { r: red, g: green, b: 0.2, a: 0.45 },
        ..Default::default()
    };
    let mut cube = marker("box", Marker::CUBE as i64);
    cube.scale = vector(&lifted.size_m);

    let half_length = 0.6 * lifted.size_m.max();
    let mut axes = marker("axes", Marker::LINE_LIST as i64);
    axes.scale.x = 0.004;
    for axis in [nalgebra::Vector3::x(), nalgebra::Vector3::y(), nalgebra::Vector3::z()] {
        let end = axis * half_length;
        axes.points.extend([Point::default(), Point { x: end.x, y: end.y, z: end.z }]);
        let color = ColorRGBA { r: axis.x as f32, g: axis.y as f32, b: axis.z as f32, a: 1.0 };
        axes.colors.extend([color.clone(), color]);
    }
    axes.color.a = 1.0;

    let mut label = marker("label", Marker::TEXT_VIEW_FACING as i64);
    label.pose =
        pose(&(object_in_target * nalgebra::Translation3::new(0.0, 0.0, 0.5 * lifted.size_m.z + 0.03)));
    label.text = format!("{} {:.2}", object.phrase, object.score);
    label.scale.z = 0.03;
    label.color = ColorRGBA { r: 1.0, g: 1.0, b: 1.0, a: 1.0 };
    // One standard deviation of the center.
    let rotation = target.target_from_camera.rotation;
    let covariance = rotate_covariance(&rotation, &lifted.covariance);
    let mut ellipsoid = marker("uncertainty", Marker::SPHERE as i64);
    let spread = covariance.fixed_view::<3, 3>(0, 0).into_owned().symmetric_eigen();
    // An axis and its opposite are the same ellipsoid: turned so that they are right-handed.
    let axes_of_spread = spread.eigenvectors * spread.eigenvectors.determinant().signum();
    let deviations = spread.eigenvalues.map(|it| 2.0 * it.max(1e-8).sqrt());
    let turned = nalgebra::UnitQuaternion::from_rotation_matrix(&nalgebra::Rotation3::from_matrix_unchecked(
        axes_of_spread,
    ));
    ellipsoid.pose = pose(&Isometry3::from_parts(object_in_target.translation, turned));
    ellipsoid.scale = vector(&deviations);
    ellipsoid.color = ColorRGBA { r: 1.0, g: 0.9, b: 0.2, a: 0.8 };

    let mut markers = vec![cube, axes, label, ellipsoid];
    if let Some((footing, radius_m)) = lifted.footing() {
        let mut plane = marker("plane", Marker::CYLINDER as i64);
        plane.pose = pose(&(target.target_from_camera * footing));
        plane.scale = Vector3 { x: 2.0 * radius_m, y: 2.0 * radius_m, z: 0.001 };
        plane.color = ColorRGBA { r: 0.6, g: 0.6, b: 0.9, a: 0.35 };
        markers.push(plane);
    }
    if let Some(grasp) = object.grasps.first() {
        let mut fingers = marker("grasp", Marker::LINE_STRIP as i64);
        fingers.pose = pose(&target.target_from_camera);
        fingers.scale.x = 0.005;
        fingers.points = grasp.outline().map(|it| Point { x: it.x, y: it.y, z: it.z }).into();
        fingers.color = ColorRGBA { r: 1.0, g: 0.3, b: 0.85, a: 1.0 };
        markers.push(fingers);
    }
    markers
}

/// The disc that is free.
fn place_marker(place: &Place, header: &Header, target: &TargetFrame) -> Marker {
    let across = 2.0 * place.clearance_m;
    Marker {
        header: header.clone(),
        ns: "place/free".to_owned(),
        type_: Marker::CYLINDER as i32,
        action: Marker::ADD as i32,
        pose: pose(&(target.target_from_camera * place.place_in_camera)),
        scale: Vector3 { x: across, y: across, z: 0.004 },
        color: ColorRGBA { r: 0.2, g: 0.6, b: 1.0, a: 0.6 },
        ..Default::default()
    }
}

fn hypothesis(object: &GroundedObject, pose: PoseWithCovariance) -> vision::ObjectHypothesisWithPose {
    vision::ObjectHypothesisWithPose {
        hypothesis: vision::ObjectHypothesis {
            class_id: object.phrase.clone(),
            score: object.score.clamp(0.0, 1.0),
        },
        pose,
    }
}

fn pose_with_covariance(lifted: &LiftedObject, target: &TargetFrame) -> PoseWithCovariance {
    let rotation = target.target_from_camera.rotation;
    let covariance: Matrix6<f64> = rotate_covariance(&rotation, &lifted.covariance);
    PoseWithCovariance {
        pose: pose(&(target.target_from_camera * lifted.object_in_camera)),
        // Row-major in the message; nalgebra iterates by columns.
        covariance: covariance.transpose().iter().copied().collect(),
    }
}

/// A rigid transform as a message.
pub fn pose(isometry: &Isometry3<f64>) -> Pose {
    let position = isometry.translation.vector;
    let rotation = isometry.rotation.coords;
    Pose {
        position: Point { x: position.x, y: position.y, z: position.z },
        orientation: Quaternion { x: rotation.x, y: rotation.y, z: rotation.z, w: rotation.w },
    }
}

fn vector(v: &nalgebra::Vector3<f64>) -> Vector3 {
    Vector3 { x: v.x, y: v.y, z: v.z }
}

fn named_values(values: &[(String, f64)]) -> Vec<lg::NamedValue> {
    values.iter().map(|(name, value)| lg::NamedValue { name: name.clone(), value: *value }).collect()
}
