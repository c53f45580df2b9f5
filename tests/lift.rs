//! Lifting held against scenes whose geometry is known exactly.

#![allow(clippy::unwrap_used, reason = "a scene that cannot be made fails the test")]
#![allow(clippy::needless_range_loop, reason = "neighboring pixels are read by index")]

use language_grounding::camera::PinholeCamera;
use language_grounding::detection::BoundingBox2d;
use language_grounding::image::{DepthImage, RgbImage, RgbdFrame};
use language_grounding::lift::{
    ApproachAxis, FrameGeometry, Gripper, LiftError, LiftOptions, LiftedObject, Place, PlaceRelation,
    PlaceRequest, PoseSource, SupportPlane, why_no_grasp,
};
use language_grounding::scene::{FIRST_HELD_OUT_SEED, Scene, SceneConfig};
use nalgebra::{Isometry3, Point2, Point3, Rotation3, Translation3, UnitQuaternion, Vector3};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const FOCAL: f64 = 580.0;

/// A table (world z = 0) with solids on it and a camera that looks down on them.
struct Table {
    camera: PinholeCamera,
    world_from_camera: Isometry3<f64>,
    solids: Vec<Solid>,
}

enum Solid {
    Box { world_from_box: Isometry3<f64>, size_m: Vector3<f64> },
    Sphere { center_in_world: Point3<f64>, radius_m: f64 },
}

struct Seen {
    depth_m: Vec<f32>,
    /// Index of the solid + 1, 0 for the table.
    id: Vec<usize>,
}

impl Table {
    fn new(pitch_deg: f64, distance_m: f64, solids: Vec<Solid>) -> Self {
        let k = [FOCAL, 0.0, 319.5, 0.0, FOCAL, 239.5, 0.0, 0.0, 1.0];
        let (sin, cos) = pitch_deg.to_radians().sin_cos();
        // Optical axes in the world: x right, y down the image, z into the scene, looking along +y and down.
        let rotation = Rotation3::from_matrix_unchecked(nalgebra::Matrix3::from_columns(&[
            Vector3::x(),
            Vector3::new(0.0, -sin, -cos),
            Vector3::new(0.0, cos, -sin),
        ]));
        let eye = Translation3::new(0.0, -cos * distance_m, sin * distance_m);
        Self {
            camera: PinholeCamera::from_k(WIDTH, HEIGHT, &k).unwrap(),
            world_from_camera: Isometry3::from_parts(eye, UnitQuaternion::from_rotation_matrix(&rotation)),
            solids,
        }
    }

    fn render(&self) -> Seen {
        let (mut depth_m, mut id) = (Vec::new(), Vec::new());
        let origin = self.world_from_camera * Point3::origin();
        for v in 0..HEIGHT {
            for u in 0..WIDTH {
                // Scaled so that z = 1: the distance along it is the depth.
                let ray = self.world_from_camera
                    * self.camera.ray(Point2::new(f64::from(u), f64::from(v))).unwrap();
                let table = if ray.z < 0.0 { -origin.z / ray.z } else { f64::INFINITY };
                let mut nearest = (if table < 5.0 { table } else { f64::INFINITY }, 0);
                for (idx, solid) in self.solids.iter().enumerate() {
                    if let Some(depth) = solid.hit(&origin, &ray)
                        && depth < nearest.0
                    {
                        nearest = (depth, idx + 1);
                    }
                }
                depth_m.push(nearest.0 as f32);
                id.push(nearest.1);
            }
        }
        Seen { depth_m, id }
    }

    fn frame(&self, depth_m: Vec<f32>) -> RgbdFrame {
        RgbdFrame {
            key: 0,
            image: RgbImage::new(WIDTH, HEIGHT),
            depth: Some(DepthImage::from_meters(WIDTH, HEIGHT, depth_m).unwrap()),
            camera: Some(self.camera),
            frame_id: "camera_optical".to_owned(),
            stamp_ns: 0,
        }
    }
}

impl Solid {
    fn hit(&self, origin: &Point3<f64>, ray: &Vector3<f64>) -> Option<f64> {
        match self {
            Self::Box { world_from_box, size_m } => {
                let (origin, ray) = (
                    world_from_box.inverse_transform_point(origin),
                    world_from_box.inverse_transform_vector(ray),
                );
                let (mut near, mut far) = (0.0_f64, f64::INFINITY);
                for axis in 0..3 {
                    let half = 0.5 * size_m[axis];
                    let (a, b) = ((-half - origin[axis]) / ray[axis], (half - origin[axis]) / ray[axis]);
                    near = near.max(a.min(b));
                    far = far.min(a.max(b));
                }
                (near <= far && 0.0 < near).then_some(near)
            }
            Self::Sphere { center_in_world, radius_m } => {
                let to_center = center_in_world - origin;
                let (a, b) = (ray.norm_squared(), ray.dot(&to_center));
                let discriminant = b * b - a * (to_center.norm_squared() - radius_m * radius_m);
                (0.0 <= discriminant).then(|| (b - discriminant.sqrt()) / a).filter(|it| 0.0 < *it)
            }
        }
    }
}

impl Seen {
    fn bbox(&self, solid_idx: usize) -> BoundingBox2d {
        let (mut x0, mut y0, mut x1, mut y1) = (f64::MAX, f64::MAX, 0.0_f64, 0.0_f64);
        for (idx, _) in self.id.iter().enumerate().filter(|(_, id)| **id == solid_idx + 1) {
            let (u, v) = (f64::from(idx as u32 % WIDTH), f64::from(idx as u32 / WIDTH));
            (x0, y0, x1, y1) = (x0.min(u), y0.min(v), x1.max(u + 1.0), y1.max(v + 1.0));
        }
        BoundingBox2d { x0, y0, x1, y1 }
    }

    fn centroid(&self, table: &Table, solid_idx: usize) -> Point3<f64> {
        let mut sum = Vector3::zeros();
        let mut n = 0.0;
        for (idx, _) in self.id.iter().enumerate().filter(|(_, id)| **id == solid_idx + 1) {
            let pixel = Point2::new(f64::from(idx as u32 % WIDTH), f64::from(idx as u32 / WIDTH));
            sum += table.camera.unproject(pixel, f64::from(self.depth_m[idx])).unwrap().coords;
            n += 1.0;
        }
        Point3::from(sum / n)
    }
}

fn upright_box(x: f64, y: f64, base_m: f64, yaw_deg: f64, size_m: [f64; 3]) -> Solid {
    let center = Translation3::new(x, y, base_m + 0.5 * size_m[2]);
    let yaw = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), yaw_deg.to_radians());
    Solid::Box { world_from_box: Isometry3::from_parts(center, yaw), size_m: Vector3::from(size_m) }
}

fn sphere(x: f64, y: f64, radius_m: f64) -> Solid {
    Solid::Sphere { center_in_world: Point3::new(x, y, radius_m), radius_m }
}

fn lift(table: &Table, depth_m: Vec<f32>, bbox: &BoundingBox2d) -> Result<LiftedObject, LiftError> {
    let frame = table.frame(depth_m);
    let options = LiftOptions::default();
    FrameGeometry::new(&frame, &options)?.lift("thing", bbox)
}

/// Lifts the first solid and holds position, size and the up direction against the truth.
#[track_caller]
fn check(table: &Table, seen: &Seen, depth_m: Vec<f32>) -> LiftedObject {
    let lifted = lift(table, depth_m, &seen.bbox(0)).unwrap();
    let (center, size_m) = match &table.solids[0] {
        Solid::Box { world_from_box, size_m } => (world_from_box * Point3::origin(), *size_m),
        Solid::Sphere { center_in_world, radius_m } => (*center_in_world, Vector3::repeat(2.0 * radius_m)),
    };
    let center = table.world_from_camera.inverse_transform_point(&center);
    let body_error_m = (lifted.body_center - center).norm();
    let surface_error_m = (lifted.surface_centroid - seen.centroid(table, 0)).norm();
    assert!(body_error_m < 0.01, "body center off by {body_error_m:.4} m, size {:?}", lifted.size_m);
    assert!(surface_error_m < 0.01, "surface centroid off by {surface_error_m:.4} m");
    for axis in 0..3 {
        let share = lifted.size_m[axis] / size_m[axis];
        assert!((0.9..=1.1).contains(&share), "size {:?}, expected {size_m:?}", lifted.size_m);
    }
    let up = table.world_from_camera * (lifted.object_in_camera * Vector3::z());
    assert!(up.z > 0.999, "up is {up:?}");
    lifted
}

#[test]
fn boxes_on_a_table() {
    for (pitch_deg, distance_m, yaw_deg) in [(35.0, 0.7, 20.0), (50.0, 1.0, -30.0), (65.0, 1.4, 70.0)] {
        let table = Table::new(
            pitch_deg,
            distance_m,
            vec![upright_box(0.05, 0.02, 0.0, yaw_deg, [0.16, 0.08, 0.07])],
        );
        let seen = table.render();
        let lifted = check(&table, &seen, seen.depth_m.clone());
        let long_axis = table.world_from_camera * (lifted.object_in_camera * Vector3::x());
        let yaw_error = (long_axis.y.atan2(long_axis.x).to_degrees() - yaw_deg).rem_euclid(180.0);
        let yaw_error = yaw_error.min(180.0 - yaw_error);
        assert!(yaw_error < 3.0, "yaw off by {yaw_error:.2} degrees");
        assert_eq!(lifted.n_points, lifted.mask.count());
    }
}

#[test]
fn a_sphere_is_completed_behind() {
    for pitch_deg in [15.0, 25.0, 35.0, 60.0] {
        let table = Table::new(pitch_deg, 0.8, vec![sphere(-0.04, 0.03, 0.045)]);
        let seen = table.render();
        check(&table, &seen, seen.depth_m.clone());
    }
}

#[test]
fn an_occluder_in_front_and_a_thing_behind_are_not_the_object() {
    let table = Table::new(
        40.0,
        0.9,
        vec![
            upright_box(0.0, 0.0, 0.0, 0.0, [0.12, 0.08, 0.10]),
            // A post in front, over the whole height of the object, and a wall behind it.
            upright_box(0.0, -0.25, 0.0, 0.0, [0.015, 0.015, 0.30]),
            upright_box(0.0, 0.25, 0.0, 0.0, [0.6, 0.02, 0.3]),
        ],
    );
    let seen = table.render();
    assert!(seen.id.contains(&2) && seen.id.contains(&3));
    check(&table, &seen, seen.depth_m.clone());
}

/// A can of which an occluder hides the lower part, seen at a pitch.
fn half_hidden(pitch_deg: f64, occluder_m: [f64; 3], gap_m: f64, base_m: f64) -> (Table, Seen) {
    let can = upright_box(0.0, 0.0, base_m, 20.0, [0.066, 0.066, 0.083]);
    let y = -0.045 - gap_m - 0.5 * occluder_m[1];
    let table = Table::new(pitch_deg, 0.8, vec![can, upright_box(0.0, y, 0.0, 0.0, occluder_m)]);
    let seen = table.render();
    (table, seen)
}

#[test]
fn what_hides_the_foot_of_a_thing_does_not_make_it_hang() {
    let (mut wrong, mut n_checked) = (Vec::new(), 0);
    for pitch_deg in [15.0, 25.0, 35.0, 45.0] {
        for height_m in [0.03, 0.05, 0.065, 0.08, 0.1, 0.13] {
            for (width_m, gap_m) in [(0.12, 0.03), (0.12, 0.08), (0.3, 0.05), (0.08, 0.15)] {
                let (table, seen) = half_hidden(pitch_deg, [width_m, 0.04, height_m], gap_m, 0.0);
                if seen.id.iter().filter(|it| **it == 1).count() < 200 {
                    continue;
                }
                let lifted = lift(&table, seen.depth_m.clone(), &seen.bbox(0)).unwrap();
                n_checked += 1;
                let center = table.world_from_camera * lifted.body_center;
                let error_m = center.z - 0.0415;
                let up = table.world_from_camera.inverse_transform_vector(&Vector3::z());
                let position = lifted.covariance.fixed_view::<3, 3>(0, 0).into_owned();
                let sigma_m = up.dot(&(position * up)).sqrt();
                let is_right = error_m.abs() < 0.008 && (lifted.size_m.z - 0.083).abs() < 0.012;
                if !is_right || 3.0 * sigma_m < error_m.abs() {
                    wrong.push(format!(
                        "pitch {pitch_deg}, occluder {width_m} x {height_m} {gap_m} before it: size {:.3?}, z off by {error_m:.4}, sigma {sigma_m:.4}",
                        lifted.size_m.as_slice()
                    ));
                }
            }
        }
    }
    assert!(40 < n_checked, "{n_checked}");
    assert!(wrong.is_empty(), "{} of {n_checked}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_hides_a_foot_may_hide_a_pedestal_too() {
    for (pitch_deg, base_m) in [(25.0, 0.02), (25.0, 0.035), (35.0, 0.03), (45.0, 0.02)] {
        let (table, seen) = half_hidden(pitch_deg, [0.2, 0.04, base_m + 0.05], 0.03, base_m);
        let lifted = lift(&table, seen.depth_m.clone(), &seen.bbox(0)).unwrap();
        let error_m = (table.world_from_camera * lifted.body_center).z - base_m - 0.0415;
        let up = table.world_from_camera.inverse_transform_vector(&Vector3::z());
        let sigma_m = up.dot(&(lifted.covariance.fixed_view::<3, 3>(0, 0) * up)).sqrt();
        assert!(error_m.abs() < 3.0 * sigma_m, "pitch {pitch_deg}: off by {error_m:.4}, sigma {sigma_m:.4}");
    }
}

#[test]
fn an_object_on_another_is_cut_off_its_support() {
    let table = Table::new(
        45.0,
        0.9,
        vec![
            upright_box(0.0, 0.02, 0.03, 15.0, [0.08, 0.06, 0.07]),
            upright_box(0.0, 0.02, 0.0, 0.0, [0.30, 0.22, 0.03]),
        ],
    );
    let seen = table.render();
    let lifted = lift(&table, seen.depth_m.clone(), &seen.bbox(0)).unwrap();
    let error_m = (lifted.surface_centroid - seen.centroid(&table, 0)).norm();
    assert!(error_m < 0.01, "surface centroid off by {error_m:.4} m");
}

#[test]
fn sensor_noise_holes_and_flying_pixels() {
    let table = Table::new(45.0, 0.9, vec![upright_box(0.0, 0.0, 0.0, 30.0, [0.14, 0.07, 0.09])]);
    let seen = table.render();
    let mut depth_m = seen.depth_m.clone();
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    for idx in 0..depth_m.len() {
        let gauss = (0..12).map(|_| random()).sum::<f64>() - 6.0;
        let z = f64::from(seen.depth_m[idx]);
        let right = seen.depth_m.get(idx + 1).map_or(z, |it| f64::from(*it));
        let z = if (right - z).abs() > 0.02 && random() < 0.5 { 0.5 * (z + right) } else { z };
        let noisy_mm = ((z + 0.0015 * z * z * gauss) * 1e3).round();
        depth_m[idx] = if random() < 0.1 { f32::NAN } else { (noisy_mm * 1e-3) as f32 };
    }
    let lifted = check(&table, &seen, depth_m);
    assert!((0.8..0.95).contains(&lifted.valid_depth_ratio), "{}", lifted.valid_depth_ratio);
}

#[test]
fn the_same_scene_twice_as_far_lifts_twice_as_far() {
    let near = Table::new(45.0, 0.7, vec![upright_box(0.0, 0.0, 0.0, 30.0, [0.10, 0.06, 0.08])]);
    let far = Table::new(45.0, 1.4, vec![upright_box(0.0, 0.0, 0.0, 30.0, [0.20, 0.12, 0.16])]);
    let (near_seen, far_seen) = (near.render(), far.render());
    let a = check(&near, &near_seen, near_seen.depth_m.clone());
    let b = check(&far, &far_seen, far_seen.depth_m.clone());
    let error_m = (b.body_center.coords - 2.0 * a.body_center.coords).norm();
    assert!(error_m < 0.005, "off by {error_m:.4} m");
}

/// The first solid lifted, with the frame's geometry.
fn with_first<R>(table: &Table, then: impl FnOnce(&FrameGeometry<'_>, &LiftedObject) -> R) -> R {
    let seen = table.render();
    let frame = table.frame(seen.depth_m.clone());
    let options = LiftOptions::default();
    let geometry = FrameGeometry::new(&frame, &options).unwrap();
    let lifted = geometry.lift("thing", &seen.bbox(0)).unwrap();
    then(&geometry, &lifted)
}

#[test]
fn grasps_close_across_the_short_side_and_come_from_above_or_the_viewer() {
    let table = Table::new(45.0, 0.9, vec![upright_box(0.05, 0.0, 0.0, 30.0, [0.16, 0.05, 0.06])]);
    for approach_axis in [ApproachAxis::X, ApproachAxis::Z] {
        let gripper = Gripper { approach_axis, ..Gripper::default() };
        let grasps = with_first(&table, |geometry, lifted| geometry.grasps(lifted, &gripper));
        assert!(grasps.iter().is_sorted_by(|a, b| a.score >= b.score));
        let best = &grasps[0];
        assert!(best.is_top_down && (0.5..=1.0).contains(&best.score), "{best:?}");
        let world = |axis: Vector3<f64>| table.world_from_camera * (best.grasp_in_camera * axis);
        let approach = if approach_axis == ApproachAxis::X { Vector3::x() } else { Vector3::z() };
        assert!(world(approach).z < -0.99, "comes from above along its approach axis");
        let closing = world(Vector3::y());
        let short = Vector3::new(-0.5, 30.0_f64.to_radians().cos(), 0.0);
        assert!(closing.dot(&short).abs() > 0.99, "closes along {closing}");
        let at = table.world_from_camera * (best.grasp_in_camera * Point3::origin());
        assert!((at - Point3::new(0.05, 0.0, at.z)).norm() < 0.006 && (0.005..0.055).contains(&at.z), "{at}");
        assert!(grasps.iter().all(|it| it.opening_m < gripper.max_opening_m));
        // The long side fits no gripper.
        assert!(grasps.iter().all(|it| it.opening_m < 0.1));
        let sides = grasps.iter().filter(|it| !it.is_top_down);
        for side in sides {
            let from = table.world_from_camera * side.approach_in_camera.into_inner();
            assert!(from.y > 0.0 && from.z.abs() < 0.05, "comes from the viewer's side: {from}");
        }
    }
}

#[test]
fn a_thing_too_wide_is_not_offered_and_a_neighbor_blocks_a_finger() {
    let wide = Table::new(45.0, 0.9, vec![upright_box(0.0, 0.0, 0.0, 0.0, [0.2, 0.15, 0.06])]);
    assert!(with_first(&wide, |geometry, lifted| geometry.grasps(lifted, &Gripper::default())).is_empty());

    let thing = || upright_box(0.0, 0.0, 0.0, 0.0, [0.05, 0.05, 0.06]);
    let closes_along_x = |solids: Vec<Solid>| {
        let table = Table::new(60.0, 0.9, solids);
        with_first(&table, |geometry, lifted| {
            let grasps = geometry.grasps(lifted, &Gripper::default());
            grasps.iter().filter(|it| it.is_top_down).any(|it| {
                let closing = table.world_from_camera * (it.grasp_in_camera * Vector3::y());
                closing.x.abs() > 0.9
            })
        })
    };
    assert!(closes_along_x(vec![thing()]));
    let neighbor = upright_box(0.05, 0.0, 0.0, 0.0, [0.03, 0.05, 0.07]);
    assert!(!closes_along_x(vec![thing(), neighbor]), "a finger would hit the neighbor");
}

#[test]
fn no_grasp_has_a_reason() {
    let why = |size_m: [f64; 3]| {
        let table = Table::new(50.0, 0.9, vec![upright_box(0.0, 0.0, 0.0, 0.0, size_m)]);
        let gripper = Gripper::default();
        with_first(&table, |geometry, lifted| {
            assert_eq!(geometry.grasps(lifted, &gripper).is_empty(), 0.08 < size_m[1], "{size_m:?}");
            why_no_grasp(lifted, &gripper)
        })
    };
    let wide = why([0.2, 0.15, 0.06]);
    assert!(wide.contains("0.15") && wide.contains("0.080 m") && wide.contains("no rim"), "{wide}");
    assert!(why([0.1, 0.05, 0.06]).contains("in the way"));
}

#[test]
fn places_are_free_and_where_the_words_say() {
    let check = |solids: Vec<Solid>, relation: PlaceRelation| -> Option<(Point3<f64>, Place)> {
        let table = Table::new(50.0, 0.9, solids);
        with_first(&table, |geometry, lifted| {
            geometry.place(lifted, &PlaceRequest { relation, radius_m: 0.03, gap_m: None })
        })
        .map(|it| (table.world_from_camera * (it.place_in_camera * Point3::origin()), it))
    };
    let tray = || upright_box(0.0, 0.0, 0.0, 0.0, [0.24, 0.16, 0.03]);
    let (at, place) = check(vec![tray()], PlaceRelation::On).unwrap();
    assert!((at - Point3::new(0.0, 0.0, 0.03)).norm() < 0.015, "{at}");
    assert!((0.055..0.09).contains(&place.clearance_m), "{place:?}");
    // Something stands on its right half.
    let (at, place) =
        check(vec![tray(), upright_box(0.07, 0.0, 0.03, 0.0, [0.06, 0.12, 0.05])], PlaceRelation::On)
            .unwrap();
    assert!(at.x < -0.01 && (at.z - 0.03).abs() < 0.005, "{at}");
    assert!(at.x - place.clearance_m > -0.13 && at.x + place.clearance_m < 0.05, "{at} {place:?}");
    let (at, _) = check(vec![tray()], PlaceRelation::RightOf).unwrap();
    assert!(at.x > 0.12 + 0.03 && at.z.abs() < 0.006, "{at}");
    let (at, _) = check(vec![tray()], PlaceRelation::InFrontOf).unwrap();
    assert!(at.y < -0.08 - 0.03 && at.z.abs() < 0.006, "{at}");
    // The right is taken, all along.
    let wall = upright_box(0.32, 0.0, 0.0, 0.0, [0.34, 0.3, 0.1]);
    assert_eq!(check(vec![tray(), wall], PlaceRelation::RightOf), None);
}

/// Four walls and a floor on the table, open at the top, turned about the middle.
fn open_box(yaw_deg: f64, size_m: [f64; 3]) -> Vec<Solid> {
    const WALL_M: f64 = 0.008;
    let [length, width, height] = size_m;
    let yaw = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), yaw_deg.to_radians());
    let (x, y) = (0.5 * (length - WALL_M), 0.5 * (width - WALL_M));
    let sides = [
        ([x, 0.0], [WALL_M, width, height]),
        ([-x, 0.0], [WALL_M, width, height]),
        ([0.0, y], [length, WALL_M, height]),
        ([0.0, -y], [length, WALL_M, height]),
        ([0.0, 0.0], [length, width, WALL_M]),
    ];
    let solid = |(at, size): ([f64; 2], [f64; 3])| {
        let at = yaw * Vector3::new(at[0], at[1], 0.5 * size[2]);
        Solid::Box {
            world_from_box: Isometry3::from_parts(Translation3::from(at), yaw),
            size_m: Vector3::from(size),
        }
    };
    sides.map(solid).into()
}

/// The place in what the solids are together, in the world, and how deep it is.
fn place_in(pitch_deg: f64, solids: Vec<Solid>) -> (Option<Point3<f64>>, f64) {
    let n_solids = solids.len();
    let table = Table::new(pitch_deg, 0.9, solids);
    let seen = table.render();
    let bbox = (0..n_solids).map(|it| seen.bbox(it)).filter(|it| it.x0 < it.x1).reduce(|a, b| {
        BoundingBox2d { x0: a.x0.min(b.x0), y0: a.y0.min(b.y0), x1: a.x1.max(b.x1), y1: a.y1.max(b.y1) }
    });
    let (frame, options) = (table.frame(seen.depth_m), LiftOptions::default());
    let geometry = FrameGeometry::new(&frame, &options).unwrap();
    let lifted = geometry.lift("thing", &bbox.unwrap()).unwrap();
    let request = PlaceRequest { relation: PlaceRelation::In, radius_m: 0.03, gap_m: None };
    let place = geometry.place(&lifted, &request);
    let in_world = |it: Place| table.world_from_camera * (it.place_in_camera * Point3::origin());
    (place.map(in_world), lifted.hollow_depth_m)
}

#[test]
fn in_a_vessel_is_over_the_middle_of_its_inside_from_every_slant() {
    let mut wrong = Vec::new();
    for pitch_deg in [25.0, 30.0, 40.0, 55.0, 75.0] {
        for size_m in [[0.17, 0.155, 0.2], [0.26, 0.2, 0.1], [0.13, 0.12, 0.07]] {
            for yaw_deg in [0.0, 25.0, 45.0] {
                let (at, depth_m) = place_in(pitch_deg, open_box(yaw_deg, size_m));
                let is_right = at.is_some_and(|it| {
                    let is_inside = 0.0 < it.z && it.z < size_m[2] - 0.012;
                    it.x.hypot(it.y) < 0.012 && is_inside && 0.0 < depth_m
                });
                if !is_right {
                    wrong.push(format!(
                        "{at:?} in {size_m:?} at {pitch_deg}, turned by {yaw_deg}: {depth_m:.3} deep"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_only_lower_beside_its_top_is_no_vessel() {
    for pitch_deg in [22.0, 40.0, 75.0] {
        let closed = upright_box(0.0, 0.0, 0.0, 20.0, [0.17, 0.155, 0.2]);
        let (at, depth_m) = place_in(pitch_deg, vec![closed]);
        assert!(depth_m == 0.0, "a closed box at {pitch_deg}: {depth_m}");
        assert!(at.is_none_or(|it| (it.z - 0.2).abs() < 0.01), "{at:?} at {pitch_deg}");
        let (_, depth_m) = place_in(pitch_deg, vec![sphere(0.0, 0.0, 0.06)]);
        assert!(depth_m == 0.0, "a ball at {pitch_deg}: {depth_m}");
        // A bottle: a neck on a body.
        let body = upright_box(0.0, 0.0, 0.0, 0.0, [0.08, 0.06, 0.12]);
        let neck = upright_box(0.0, 0.0, 0.12, 0.0, [0.03, 0.03, 0.05]);
        let (_, depth_m) = place_in(pitch_deg, vec![body, neck]);
        assert!(depth_m == 0.0, "a bottle at {pitch_deg}: {depth_m}");
    }
}

#[test]
fn glass_stands_where_its_box_meets_the_plane() {
    let table = Table::new(45.0, 0.9, vec![upright_box(0.05, 0.02, 0.0, 0.0, [0.07, 0.07, 0.12])]);
    let seen = table.render();
    let holes = seen.depth_m.iter().zip(&seen.id).map(|(z, id)| if *id == 0 { *z } else { f32::NAN });
    let lifted = lift(&table, holes.collect(), &seen.bbox(0)).unwrap();
    assert_eq!((lifted.source, lifted.n_points), (PoseSource::SupportPlane, 0));
    let center = table.world_from_camera * lifted.body_center;
    assert!((center - Point3::new(0.05, 0.02, 0.06)).norm() < 0.04, "{center}");
    assert!(lifted.covariance[(0, 0)] > 1e-6 && lifted.covariance[(2, 2)] > 2e-5, "it is less sure");
}

#[test]
fn no_depth_is_said_and_never_invented() {
    let table = Table::new(45.0, 0.9, vec![upright_box(0.0, 0.0, 0.0, 30.0, [0.14, 0.07, 0.09])]);
    let seen = table.render();
    let bbox = seen.bbox(0);
    for missing in [f32::NAN, f32::INFINITY, 0.0, -1.0, 50.0] {
        let error = lift(&table, vec![missing; seen.depth_m.len()], &bbox).unwrap_err();
        assert!(matches!(error, LiftError::TooFewPoints { n_points: 0, .. }), "{error:?}");
        assert!(error.to_string().starts_with("only 0 of"), "{error}");
    }
    let outside = BoundingBox2d { x0: 700.0, y0: 10.0, x1: 800.0, y1: 50.0 };
    assert!(lift(&table, seen.depth_m.clone(), &outside).is_err());
    let nothing = BoundingBox2d { x0: f64::NAN, y0: f64::NAN, x1: f64::NAN, y1: f64::NAN };
    assert!(lift(&table, seen.depth_m.clone(), &nothing).is_err());

    let options = LiftOptions::default();
    let mut frame = table.frame(seen.depth_m);
    frame.depth = Some(DepthImage::from_meters(320, 240, vec![1.0; 320 * 240]).unwrap());
    let error = FrameGeometry::new(&frame, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "depth is 320x240 but the image is 640x480: publish depth registered to the color image"
    );
    frame.depth = None;
    assert_eq!(FrameGeometry::new(&frame, &options).unwrap_err(), LiftError::NoDepthImage);
}

#[test]
fn rendered_scenes() {
    let mut surface_errors_m = Vec::new();
    let mut body_errors_m = Vec::new();
    for seed in FIRST_HELD_OUT_SEED..FIRST_HELD_OUT_SEED + 20 {
        let scene =
            Scene::generate(seed, &SceneConfig { samples: 1, ..SceneConfig::camera(320, 240) }).unwrap();
        let rendered = scene.render();
        let frame = rendered.frame("camera_optical", 0);
        let options = LiftOptions::default();
        let geometry = FrameGeometry::new(&frame, &options).unwrap();
        for object in rendered.objects.iter().filter(|it| it.visible_fraction > 0.8 && it.visible_pixels > 60)
        {
            let (Some(bbox), Some(centroid)) = (object.bbox, object.surface_centroid_in_camera) else {
                continue;
            };
            let lifted = geometry.lift(&object.phrase(), &bbox).unwrap();
            surface_errors_m.push((lifted.surface_centroid - centroid).norm());
            let center = rendered.world_from_camera.inverse_transform_point(&object.center_in_world);
            body_errors_m.push((lifted.body_center - center).norm());
            println!(
                "{seed} {:<14} surface {:5.1} mm body {:5.1} mm size {:.3?} true {:.3?}",
                object.phrase(),
                1e3 * (lifted.surface_centroid - centroid).norm(),
                1e3 * (lifted.body_center - center).norm(),
                lifted.size_m.as_slice(),
                object.size_m.as_slice()
            );
        }
    }
    let quantile = |values: &mut Vec<f64>, share: f64| {
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * share) as usize]
    };
    let surface = [0.5, 0.9].map(|it| quantile(&mut surface_errors_m, it));
    let body = [0.5, 0.9].map(|it| quantile(&mut body_errors_m, it));
    println!("n = {}: surface p50, p90 = {surface:.4?} m, body {body:.4?} m", surface_errors_m.len());
    assert!(surface_errors_m.len() > 40);
    assert!(surface[0] <= 0.003 && surface[1] <= 0.01, "{surface:?}");
    assert!(body[0] <= 0.01 && body[1] <= 0.03, "{body:?}");
}

#[test]
fn a_plane_of_the_frame_before_is_taken_up_where_it_holds() {
    let solids = || vec![upright_box(0.0, 0.0, 0.0, 30.0, [0.14, 0.07, 0.09])];
    let (before, now) = (Table::new(45.0, 0.9, solids()), Table::new(46.0, 0.89, solids()));
    let options = LiftOptions::default();
    let (frame_before, frame_now) = (before.frame(before.render().depth_m), now.frame(now.render().depth_m));
    let known = FrameGeometry::new(&frame_before, &options).unwrap().planes().to_vec();
    let depth = frame_now.depth.as_ref().unwrap();
    let wrong = SupportPlane { camera_height_m: known[0].camera_height_m - 0.3, ..known[0] };
    for guess in [known, vec![wrong], Vec::new()] {
        let planes = FrameGeometry::after(depth, now.camera, &options, &guess).planes().to_vec();
        let in_world = planes[0].seen_from(&now.world_from_camera);
        assert!(in_world.normal.z > 0.9999 && in_world.camera_height_m.abs() < 0.001, "{in_world:?}");
    }
}
