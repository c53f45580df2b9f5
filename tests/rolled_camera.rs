//! Poses by a camera rolled about its optical axis, in 24 steps, at three pitches, with and without a known up.
//!
//! `cargo test --release --no-default-features --test rolled_camera -- --nocapture` prints the table.

#![allow(clippy::unwrap_used, reason = "a scene that cannot be made fails the test")]

mod trial_support;

use std::f64::consts::TAU;

use language_grounding::camera::PinholeCamera;
use language_grounding::detection::BoundingBox2d;
use language_grounding::image::{DepthImage, RgbImage, RgbdFrame};
use language_grounding::lift::{FrameContext, FrameGeometry, LiftOptions, LiftedObject};
use language_grounding::scene::{DepthSensor, FIRST_HELD_OUT_SEED, Kind, Scene, SceneConfig};
use nalgebra::{Isometry3, Matrix3, Point2, Point3, Rotation3, Translation3, Unit, UnitQuaternion, Vector3};

use self::trial_support::{CHI2_95, chi2, sensed};

const N_ROLLS: u32 = 24;
const PITCHES_DEG: [f64; 3] = [25.0, 45.0, 75.0];
const SIZE: (u32, u32) = (640, 480);
/// 99.9 % of a chi-squared distribution with three degrees of freedom.
const CHI2_999: f64 = 16.27;

/// What stands where: axis-aligned boxes of the world (z up), the table's top at z = 0.
struct Room {
    /// Low and high corner, meters.
    boxes: Vec<(Point3<f64>, Point3<f64>)>,
    block: Isometry3<f64>,
}

const BLOCK_M: [f64; 3] = [0.06, 0.045, 0.06];

impl Room {
    /// A block on a table that fills the view.
    fn bare() -> Self {
        Self::with(vec![(Point3::new(-5.0, -5.0, -0.1), Point3::new(5.0, 5.0, 0.0))])
    }

    /// A block on a table, with the floor below and a wall behind.
    fn furnished() -> Self {
        Self::with(vec![
            (Point3::new(-0.5, -0.4, -0.03), Point3::new(0.5, 0.35, 0.0)),
            (Point3::new(-3.0, -3.0, -0.85), Point3::new(3.0, 3.0, -0.75)),
            (Point3::new(-3.0, 0.7, -0.85), Point3::new(3.0, 0.8, 2.0)),
        ])
    }

    /// A block that hangs in the void.
    fn empty() -> Self {
        Self::with(Vec::new())
    }

    fn with(boxes: Vec<(Point3<f64>, Point3<f64>)>) -> Self {
        let block = Isometry3::from_parts(
            Translation3::new(0.04, 0.02, 0.03),
            UnitQuaternion::from_axis_angle(&Vector3::z_axis(), 0.35),
        );
        Self { boxes, block }
    }

    /// Depth of the nearest surface along a ray with z = 1 in the camera, and whether it is the block's.
    fn hit(&self, eye: &Point3<f64>, ray: &Vector3<f64>) -> (f64, bool) {
        let half = Vector3::from(BLOCK_M) * 0.5;
        let (eye_b, ray_b) =
            (self.block.inverse_transform_point(eye), self.block.inverse_transform_vector(ray));
        let block = slab(&eye_b, &ray_b, &Point3::from(-half), &Point3::from(half));
        let room = self.boxes.iter().filter_map(|(low, high)| slab(eye, ray, low, high));
        let room = room.fold(f64::INFINITY, f64::min);
        match block {
            Some(it) if it < room => (it, true),
            _ => (room, false),
        }
    }
}

fn slab(eye: &Point3<f64>, ray: &Vector3<f64>, low: &Point3<f64>, high: &Point3<f64>) -> Option<f64> {
    let (mut near, mut far) = (0.0_f64, f64::INFINITY);
    for axis in 0..3 {
        let (a, b) = ((low[axis] - eye[axis]) / ray[axis], (high[axis] - eye[axis]) / ray[axis]);
        (near, far) = (near.max(a.min(b)), far.min(a.max(b)));
    }
    (near <= far && 0.0 < near).then_some(near)
}

/// A camera 0.6 m from the world's origin that looks at it, `pitch` below the horizon, turned by `roll` about its axis.
fn world_from_camera(pitch_deg: f64, roll: f64) -> Isometry3<f64> {
    let (sin, cos) = pitch_deg.to_radians().sin_cos();
    let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[
        Vector3::x(),
        Vector3::new(0.0, -sin, -cos),
        Vector3::new(0.0, cos, -sin),
    ]));
    let roll = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), roll);
    let rotation = UnitQuaternion::from_rotation_matrix(&rotation) * roll;
    Isometry3::from_parts(Translation3::new(0.0, -0.6 * cos, 0.6 * sin), rotation)
}

struct Trial {
    position_m: f64,
    z_deg: f64,
    /// Squared Mahalanobis distance of the true middle.
    chi2: f64,
    /// Of the true z axis, in the tilt's own standard deviations.
    z_sigmas: f64,
}

/// What a lifted object is worth, held against the truth in the camera's frame.
fn judged(lifted: &LiftedObject, center: &Point3<f64>, up: &Vector3<f64>) -> Trial {
    let error = lifted.body_center - center;
    let rotation: Matrix3<f64> = lifted.covariance.fixed_view::<3, 3>(3, 3).into_owned();
    let z = lifted.object_in_camera * Vector3::z();
    let angle = z.dot(up).clamp(-1.0, 1.0).acos();
    let axis = Unit::try_new(z.cross(up), 1e-9).unwrap_or(Vector3::x_axis());
    let sigma = axis.dot(&(rotation * axis.into_inner())).sqrt();
    Trial {
        position_m: error.norm(),
        z_deg: angle.to_degrees(),
        chi2: chi2(&lifted.covariance, &error),
        z_sigmas: angle / sigma,
    }
}

fn trial(room: &Room, pitch_deg: f64, roll_idx: u32, is_up_known: bool) -> Trial {
    let world_from_camera = world_from_camera(pitch_deg, TAU * f64::from(roll_idx) / f64::from(N_ROLLS));
    let k = [580.0, 0.0, 319.5, 0.0, 580.0, 239.5, 0.0, 0.0, 1.0];
    let camera = PinholeCamera::from_k(SIZE.0, SIZE.1, &k).unwrap();
    let eye = world_from_camera * Point3::origin();
    let (mut depth_m, mut bbox): (Vec<f32>, Option<BoundingBox2d>) = (Vec::new(), None);
    for v in 0..SIZE.1 {
        for u in 0..SIZE.0 {
            let (x, y) = (f64::from(u), f64::from(v));
            let (depth, is_block) =
                room.hit(&eye, &(world_from_camera * camera.ray(Point2::new(x, y)).unwrap()));
            depth_m.push(if depth < 4.0 { depth as f32 } else { f32::NAN });
            if is_block {
                let it = bbox.unwrap_or(BoundingBox2d { x0: x, y0: y, x1: x, y1: y });
                bbox = Some(BoundingBox2d {
                    x0: it.x0.min(x),
                    y0: it.y0.min(y),
                    x1: it.x1.max(x + 1.0),
                    y1: it.y1.max(y + 1.0),
                });
            }
        }
    }
    let depth = DepthImage::from_meters(SIZE.0, SIZE.1, depth_m).unwrap();
    let frame = RgbdFrame {
        key: 0,
        image: RgbImage::new(SIZE.0, SIZE.1),
        depth: Some(DepthSensor::default().measure(&depth, u64::from(roll_idx))),
        camera: Some(camera),
        frame_id: "camera_optical_frame".to_owned(),
        stamp_ns: 0,
    };
    let camera_from_world = world_from_camera.inverse();
    let up = camera_from_world * Vector3::z_axis();
    let context = FrameContext { up_in_camera: is_up_known.then_some(up), ..FrameContext::default() };
    let options = LiftOptions::default();
    let geometry = FrameGeometry::in_context(&frame, &options, &context).unwrap();
    let lifted = geometry.lift("block", &bbox.unwrap()).unwrap();
    judged(&lifted, &(camera_from_world * Point3::from(room.block.translation.vector)), &up)
}

struct Summary {
    worst_position_m: f64,
    worst_z_deg: f64,
    worst_z_sigmas: f64,
    /// Median, 95 % and the largest.
    chi2: [f64; 3],
    covered: f64,
}

fn summarized(name: &str, trials: &[Trial]) -> Summary {
    let worst = |of: &dyn Fn(&Trial) -> f64| trials.iter().map(of).fold(0.0, f64::max);
    let mut chi2: Vec<f64> = trials.iter().map(|it| it.chi2).collect();
    chi2.sort_by(f64::total_cmp);
    let at = |share: f64| chi2[((chi2.len() - 1) as f64 * share).round() as usize];
    let summary = Summary {
        worst_position_m: worst(&|it| it.position_m),
        worst_z_deg: worst(&|it| it.z_deg),
        worst_z_sigmas: worst(&|it| it.z_sigmas),
        chi2: [at(0.5), at(0.95), at(1.0)],
        covered: chi2.iter().filter(|it| **it <= CHI2_95).count() as f64 / chi2.len() as f64,
    };
    println!(
        "{name:<34} n {:3}  position worst {:5.1} mm  z worst {:5.1} deg ({:4.1} sigma)  chi2 p50 {:5.2} p95 {:5.2} max {:6.2}  in 95 %: {:.3}",
        trials.len(),
        1e3 * summary.worst_position_m,
        summary.worst_z_deg,
        summary.worst_z_sigmas,
        summary.chi2[0],
        summary.chi2[1],
        summary.chi2[2],
        summary.covered
    );
    summary
}

fn all(room: &Room, name: &str, is_up_known: bool) -> Summary {
    let trials: Vec<Trial> = PITCHES_DEG
        .iter()
        .flat_map(|pitch| (0..N_ROLLS).map(|roll| trial(room, *pitch, roll, is_up_known)))
        .collect();
    summarized(name, &trials)
}

#[test]
fn a_block_on_a_table_is_where_it_is_at_every_roll() {
    for (room, name) in [(Room::bare(), "table"), (Room::furnished(), "table, floor and wall")] {
        for is_up_known in [true, false] {
            let told = if is_up_known { "gravity known" } else { "pixels alone" };
            let it = all(&room, &format!("{name}, {told}"), is_up_known);
            assert!(it.worst_position_m <= 0.008, "{name}: {}", it.worst_position_m);
            assert!(it.worst_z_deg <= 3.0 && it.worst_z_sigmas <= 3.0, "{name}: {}", it.worst_z_deg);
            assert!(it.chi2[2] <= CHI2_999 && 0.9 <= it.covered, "{name}: {:?} {}", it.chi2, it.covered);
        }
    }
}

#[test]
fn where_up_is_unknown_the_covariance_says_so() {
    let known = all(&Room::empty(), "nothing around, gravity known", true);
    assert!(known.worst_z_deg <= 1.0 && known.chi2[2] <= CHI2_999, "{:?}", known.chi2);
    let unknown = all(&Room::empty(), "nothing around, pixels alone", false);
    assert!(unknown.chi2[2] <= CHI2_999 && 0.9 <= unknown.covered, "{:?}", unknown.chi2);
    assert!(unknown.worst_z_sigmas <= 3.0, "{}", unknown.worst_z_sigmas);
}

#[test]
fn every_kind_of_object_at_every_roll() {
    let config = SceneConfig { samples: 0, ..SceneConfig::camera(640, 480) };
    let options = LiftOptions::default();
    for is_up_known in [true, false] {
        let mut trials = Vec::new();
        for index in 0..96_u32 {
            let kind = Kind::ALL[index as usize % Kind::ALL.len()];
            let seed = FIRST_HELD_OUT_SEED + u64::from(index);
            let distance_m = 0.5 + (index as f32 * 0.618_034).fract();
            let roll = TAU * f64::from(index % N_ROLLS) / f64::from(N_ROLLS);
            let seen = Scene::lone(seed, kind, distance_m, &config).unwrap().rolled(roll).render();
            let frame = sensed(&seen, seed);
            let camera_from_world = seen.world_from_camera.inverse();
            let up = camera_from_world * Vector3::z_axis();
            let context = FrameContext { up_in_camera: is_up_known.then_some(up), ..FrameContext::default() };
            let geometry = FrameGeometry::in_context(&frame, &options, &context).unwrap();
            let object = &seen.objects[0];
            let lifted = geometry.lift("thing", &object.bbox.unwrap()).unwrap();
            trials.push(judged(&lifted, &(camera_from_world * object.center_in_world), &up));
        }
        let name = if is_up_known { "rendered, gravity known" } else { "rendered, pixels alone" };
        let it = summarized(name, &trials);
        // A wall that is larger than the table may be taken for it where nothing tells gravity; the covariance knows.
        let n_fallen = trials.iter().filter(|it| 3.0 < it.z_deg).count();
        assert!(n_fallen <= if is_up_known { 0 } else { 2 }, "{n_fallen}");
        assert!(it.worst_z_sigmas <= 3.0, "{}", it.worst_z_sigmas);
        assert!(0.9 <= it.covered, "{} {:?}", it.covered, it.chi2);
    }
}
