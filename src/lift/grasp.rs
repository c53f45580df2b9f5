//! Where a parallel gripper could take an object: from above and from the side, scored.
//!
//! A grasp is the pose of the point between the fingertips: the fingers close along its y axis, and it is approached along the
//! axis that [`Gripper::approach_axis`] names: z, as flanges and most `tool0` frames (the default), or x.

use std::f64::consts::PI;

use nalgebra::{Isometry3, Matrix3, Point3, Rotation3, Translation3, Unit, UnitQuaternion, Vector3};

use super::{FrameGeometry, LiftedObject};

/// Which axis of a grasp's frame points from the gripper to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApproachAxis {
    /// x points to the object, the fingers close along y.
    X,
    /// z points to the object, the fingers close along y.
    Z,
}

/// A parallel gripper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gripper {
    /// Largest distance between the fingers, meters.
    pub max_opening_m: f64,
    /// How far the fingers reach beyond the palm, meters.
    pub finger_depth_m: f64,
    /// Which axis points to the object.
    pub approach_axis: ApproachAxis,
}

impl Default for Gripper {
    /// About the size of those on common research arms.
    fn default() -> Self {
        Self { max_opening_m: 0.08, finger_depth_m: 0.045, approach_axis: ApproachAxis::Z }
    }
}

/// One way to take an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Grasp {
    /// Pose of the point between the fingertips in the camera's optical frame.
    pub grasp_in_camera: Isometry3<f64>,
    /// Where the gripper comes along, optical frame.
    pub approach_in_camera: Unit<Vector3<f64>>,
    /// In [0, 1]: room left in the opening, room for the fingers, reach, how sure the pose is. Higher is better.
    pub score: f64,
    /// What must fit between the fingers, meters.
    pub opening_m: f64,
    /// From above, else from the side.
    pub is_top_down: bool,
}

impl Grasp {
    /// The fingers as a line to draw: from one tip over the palm to the other; optical frame.
    pub fn outline(&self) -> [Point3<f64>; 4] {
        // Drawn somewhat wider than closed, and short: a gripper's own shape is not known.
        let half = 0.5 * self.opening_m + 0.005;
        let back = self.approach_in_camera.scale(-0.04);
        let tip = |y: f64| self.grasp_in_camera * Point3::new(0.0, y, 0.0);
        [tip(-half), tip(-half) + back, tip(half) + back, tip(half)]
    }
}

/// At most so many are offered.
const MAX_GRASPS: usize = 12;
/// Room that must be left in the opening on both sides together, meters.
const MIN_ROOM_M: f64 = 0.006;
/// How much larger than estimated a thing may well be, as a share of its size.
const SIZE_ERROR: f64 = 0.1;
/// Fingertips stay this far over the support, meters.
const OVER_SUPPORT_M: f64 = 0.005;
/// A gripper from the side needs this much height for its own body, meters.
const HALF_PALM_M: f64 = 0.025;
/// Thickness and half breadth of a finger, meters.
const FINGER_M: f64 = 0.012;

impl FrameGeometry<'_> {
    /// Ways to take a lifted object, best first; none when it is too large for the gripper. Places where the depth image shows
    /// something else in the way of a finger are left out.
    pub fn grasps(&self, object: &LiftedObject, gripper: &Gripper) -> Vec<Grasp> {
        let up = object.object_in_camera * Vector3::z_axis();
        let search = GraspSearch {
            object,
            gripper,
            obstacles: self.obstacles(object),
            up,
            near: toward_viewer(&object.body_center, &up),
            is_round: object.is_back_completed || (object.size_m.x - object.size_m.y).abs() < 1e-9,
            lowness: 1.0 / (1.0 + (object.size_m.z / 0.25).powi(2)),
        };
        let ways = [search.ways_from_above(), search.ways_over_rim(), search.ways_from_side()].concat();
        let mut grasps: Vec<Grasp> = ways.iter().filter_map(|it| search.scored(it)).collect();
        grasps.sort_by(|a, b| b.score.total_cmp(&a.score));
        grasps.truncate(MAX_GRASPS);
        grasps
    }

    /// Points around the object that are neither on it nor on what it stands on.
    fn obstacles(&self, object: &LiftedObject) -> Vec<Point3<f64>> {
        let mask = &object.mask;
        let support_m =
            object.body_center.coords.dot(&(object.object_in_camera * Vector3::z())) - 0.5 * object.size_m.z;
        let up = object.object_in_camera * Vector3::z();
        let mut points = Vec::new();
        // The window around the box holds all that is near; every other pixel is enough.
        for v in (mask.y0..mask.y0 + mask.height).step_by(2) {
            for u in (mask.x0..mask.x0 + mask.width).step_by(2) {
                let is_near_mask = [(0, 0), (3, 0), (0, 3)].iter().any(|(du, dv)| {
                    mask.contains(u + du, v + dv)
                        || mask.contains(u.saturating_sub(*du), v.saturating_sub(*dv))
                });
                if !is_near_mask && let Some(point) = self.point(u, v) {
                    let height_m = up.dot(&point.coords) - support_m;
                    if 0.01 + 3.0 * self.noise_m(point.z) < height_m {
                        points.push(point);
                    }
                }
            }
        }
        points
    }
}

/// Why [`FrameGeometry::grasps`] offers none for an object, as a sentence.
pub fn why_no_grasp(object: &LiftedObject, gripper: &Gripper) -> String {
    let narrowest_m = object.size_m.x.min(object.size_m.y);
    let opening_m = gripper.max_opening_m;
    if narrowest_m + MIN_ROOM_M <= opening_m {
        return format!(
            "something stands in the way of the fingers on every side where it is {narrowest_m:.3} m wide"
        );
    }
    let rim = if object.hollow_depth_m > 0.0 {
        ", and its rim is in the way of something"
    } else {
        ", and it shows no rim to take"
    };
    format!(
        "its narrowest side of {narrowest_m:.3} m does not fit between fingers that open {opening_m:.3} m (gripper_max_opening_m){rim}"
    )
}

/// One object and what decides where it can be taken; directions in the camera's frame.
struct GraspSearch<'a> {
    object: &'a LiftedObject,
    gripper: &'a Gripper,
    obstacles: Vec<Point3<f64>>,
    up: Unit<Vector3<f64>>,
    /// Horizontally to the viewer.
    near: Unit<Vector3<f64>>,
    is_round: bool,
    /// From 1 for flat things to 0 for tall ones.
    lowness: f64,
}

/// Where the fingers would go.
#[derive(Clone, Copy)]
struct Way {
    approach: Unit<Vector3<f64>>,
    closing: Unit<Vector3<f64>>,
    at: Point3<f64>,
    opening_m: f64,
    /// How easy a grasp of its kind is, from 0 to 1.
    ease: f64,
    is_top_down: bool,
}

impl GraspSearch<'_> {
    /// From above: the fingertips half way down, but no deeper than the fingers are long.
    fn ways_from_above(&self) -> Vec<Way> {
        let (size_m, height_m) = (self.object.size_m, self.object.size_m.z);
        let depth_m =
            (0.5 * height_m).min(self.gripper.finger_depth_m).min(height_m - OVER_SUPPORT_M).max(0.0);
        let at = self.object.body_center + self.up.scale(0.5 * height_m - depth_m);
        let turns: &[f64] = if self.is_round { &[0.0, 0.25, 0.5, 0.75] } else { &[0.0, 0.5] };
        let way = |turn: &f64| Way {
            approach: -self.up,
            closing: self.axis(turn * PI),
            at,
            opening_m: if self.is_round || *turn > 0.0 { size_m.y } else { size_m.x },
            ease: 0.6 + 0.4 * self.lowness,
            is_top_down: true,
        };
        turns.iter().map(way).collect()
    }

    /// Over the rim of a wide vessel, wherever that is seen best: at the near side.
    fn ways_over_rim(&self) -> Vec<Way> {
        let (object, up) = (self.object, self.up);
        let is_wide_vessel =
            object.hollow_depth_m > 0.0 && self.gripper.max_opening_m < object.size_m.y + MIN_ROOM_M;
        if !is_wide_vessel {
            return Vec::new();
        }
        let depth_m = self.gripper.finger_depth_m.min(0.7 * object.hollow_depth_m);
        let way = |turn: f64| {
            let outward = UnitQuaternion::from_axis_angle(&up, turn) * self.near;
            let rim = object.body_center
                + outward.scale(0.5 * object.size_m.y - 0.004)
                + up.scale(0.5 * object.size_m.z - depth_m);
            Way { approach: -up, closing: outward, at: rim, opening_m: 0.02, ease: 0.5, is_top_down: true }
        };
        [-0.5, 0.0, 0.5].map(way).to_vec()
    }

    /// From the side: tall things, over the support by the gripper's own half width.
    fn ways_from_side(&self) -> Vec<Way> {
        let (size_m, height_m) = (self.object.size_m, self.object.size_m.z);
        let is_tall = 2.0 * HALF_PALM_M <= height_m;
        if !is_tall {
            return Vec::new();
        }
        let raised = self.up.scale((0.1 * height_m).max(HALF_PALM_M - 0.5 * height_m));
        let way = |approach: Unit<Vector3<f64>>| {
            let closing = Unit::new_normalize(self.up.cross(&approach));
            let along_x = closing.dot(&self.axis(0.0)).abs();
            let facing = -approach.dot(&self.near);
            Way {
                approach,
                closing,
                at: self.object.body_center + raised,
                opening_m: if self.is_round || along_x < 0.5 { size_m.y } else { size_m.x },
                ease: (1.0 - 0.5 * self.lowness) * (0.6 + 0.4 * facing),
                is_top_down: false,
            }
        };
        self.approaches_from_viewer().into_iter().map(way).collect()
    }

    fn approaches_from_viewer(&self) -> Vec<Unit<Vector3<f64>>> {
        if self.is_round {
            return [-0.7, -0.35, 0.0, 0.35, 0.7]
                .map(|turn| UnitQuaternion::from_axis_angle(&self.up, turn) * -self.near)
                .to_vec();
        }
        let (x, y) = (self.axis(0.0), self.axis(0.5 * PI));
        [x, -x, y, -y].into_iter().filter(|it| it.dot(&self.near) < -0.3).collect()
    }

    /// A horizontal direction, by its angle from the object's x axis.
    fn axis(&self, turn: f64) -> Unit<Vector3<f64>> {
        let (sin, cos) = turn.sin_cos();
        self.object.object_in_camera * Unit::new_normalize(Vector3::new(cos, sin, 0.0))
    }

    /// `None` where the fingers do not open wide enough or something is in their way.
    fn scored(&self, way: &Way) -> Option<Grasp> {
        let Way { approach, closing, at, opening_m, ease, is_top_down } = *way;
        let gripper = self.gripper;
        let room = 1.0 - (opening_m + MIN_ROOM_M) / gripper.max_opening_m;
        if room < 0.0 || is_blocked(&self.obstacles, &at, &approach, &closing, opening_m, gripper) {
            return None;
        }
        // What neither pose nor size know may take up the room on both sides. What is left holds the error of the position, which is
        // taken for that of a plane point: its distance has a Rayleigh distribution.
        let position = self.object.covariance.fixed_view::<3, 3>(0, 0);
        let deviation_m = closing.dot(&(position * closing.into_inner())).max(1e-6).sqrt();
        let slack_m =
            0.5 * (gripper.max_opening_m - (1.0 + SIZE_ERROR) * opening_m - 0.5 * MIN_ROOM_M).max(0.0);
        let certainty = 1.0 - (-0.5 * (slack_m / deviation_m).powi(2)).exp();
        let score = (ease * (0.5 + 0.5 * room.sqrt()) * certainty).clamp(0.0, 1.0);
        let grasp_in_camera = pose(&at, &approach, &closing, gripper.approach_axis);
        Some(Grasp { grasp_in_camera, approach_in_camera: approach, score, opening_m, is_top_down })
    }
}

/// Horizontally from the object to the camera; any horizontal direction straight below it.
fn toward_viewer(center: &Point3<f64>, up: &Unit<Vector3<f64>>) -> Unit<Vector3<f64>> {
    let level = |it: Vector3<f64>| Unit::try_new(it - up.scale(up.dot(&it)), 1e-3);
    level(-center.coords).or_else(|| level(Vector3::y())).unwrap_or(Vector3::x_axis())
}

/// Whether a few points lie where a finger goes.
fn is_blocked(
    obstacles: &[Point3<f64>],
    at: &Point3<f64>,
    approach: &Unit<Vector3<f64>>,
    closing: &Unit<Vector3<f64>>,
    opening_m: f64,
    gripper: &Gripper,
) -> bool {
    let breadth = approach.cross(closing);
    let inner = 0.5 * opening_m;
    let is_in_finger = |point: &&Point3<f64>| {
        let offset = *point - at;
        let (across, along) = (closing.dot(&offset).abs(), approach.dot(&offset));
        (inner..=inner + 0.5 * MIN_ROOM_M + FINGER_M).contains(&across)
            && (-gripper.finger_depth_m..=0.0).contains(&along)
            && breadth.dot(&offset).abs() <= FINGER_M
    };
    4 <= obstacles.iter().filter(is_in_finger).take(4).count()
}

fn pose(
    at: &Point3<f64>,
    approach: &Unit<Vector3<f64>>,
    closing: &Unit<Vector3<f64>>,
    axis: ApproachAxis,
) -> Isometry3<f64> {
    let third = |a: &Unit<Vector3<f64>>, b: &Unit<Vector3<f64>>| a.cross(b);
    let columns = match axis {
        ApproachAxis::X => [approach.into_inner(), closing.into_inner(), third(approach, closing)],
        ApproachAxis::Z => [third(closing, approach), closing.into_inner(), approach.into_inner()],
    };
    let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&columns));
    Isometry3::from_parts(Translation3::from(at.coords), UnitQuaternion::from_rotation_matrix(&rotation))
}
