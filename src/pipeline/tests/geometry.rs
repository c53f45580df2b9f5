//! What the pipeline makes of depth: whose pixels are whose, and parts within their wholes.

use nalgebra::{Isometry3, Point3, Rotation3, Translation3, UnitQuaternion, Vector3};

use super::{config, run_text};
use crate::camera::PinholeCamera;
use crate::config::RawConfig;
use crate::detection::{BoundingBox2d, Detection2d};
use crate::image::{DepthImage, RgbImage, RgbdFrame};
use crate::instruction::Vocabulary;
use crate::lift::{FrameContext, LiftOptions, LiftedObject, PoseFault};
use crate::model::precomputed::Precomputed;
use crate::options::PipelineOptions;
use crate::pipeline::run;
use crate::request::GroundingRequest;
use crate::resolve::OF_WHOLE;
use crate::result::{GroundingResult, Status};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;
const FOCAL: f64 = 300.0;

/// An upright box on a table: x right, y away, z up, meters.
struct Block {
    phrase: &'static str,
    low: Vector3<f64>,
    high: Vector3<f64>,
}

fn block(phrase: &'static str, foot: [f64; 3], size: [f64; 3]) -> Block {
    let (foot, size) = (Vector3::from(foot), Vector3::from(size));
    let half = Vector3::new(0.5 * size.x, 0.5 * size.y, 0.0);
    Block { phrase, low: foot - half, high: foot + half + Vector3::new(0.0, 0.0, size.z) }
}

/// A camera 0.8 m before the middle of the table and 0.8 m over it.
fn table_from_camera() -> Isometry3<f64> {
    let level = Rotation3::from_matrix_unchecked(nalgebra::Matrix3::new(
        1.0, 0.0, 0.0, //
        0.0, 0.0, 1.0, //
        0.0, -1.0, 0.0,
    ));
    let tilted = Rotation3::from_axis_angle(&Vector3::x_axis(), -45.0_f64.to_radians());
    let rotation = UnitQuaternion::from_rotation_matrix(&(tilted * level));
    Isometry3::from_parts(Translation3::new(0.0, -0.8, 0.8), rotation)
}

/// Depth of the blocks, and the boxes of what is seen of each.
fn look(blocks: &[Block]) -> (RgbdFrame, Vec<Detection2d>) {
    let table_from_camera = table_from_camera();
    let mut depth_m = Vec::new();
    let mut boxes: Vec<Option<BoundingBox2d>> = vec![None; blocks.len()];
    for (v, u) in (0..HEIGHT).flat_map(|v| (0..WIDTH).map(move |u| (v, u))) {
        let ray = Vector3::new((f64::from(u) - 160.0) / FOCAL, (f64::from(v) - 120.0) / FOCAL, 1.0);
        let (from, along) = (table_from_camera.translation.vector, table_from_camera.rotation * ray);
        let mut nearest = (-from.z / along.z, None);
        for (idx, block) in blocks.iter().enumerate() {
            let to = |side: &Vector3<f64>| (side - from).component_div(&along);
            let (a, b) = (to(&block.low), to(&block.high));
            let (enter, leave) = (a.inf(&b).max(), a.sup(&b).min());
            if enter <= leave && enter < nearest.0 {
                nearest = (enter, Some(idx));
            }
        }
        depth_m.push(nearest.0 as f32);
        if let Some(idx) = nearest.1 {
            let (x, y) = (f64::from(u), f64::from(v));
            let it = boxes[idx].get_or_insert(BoundingBox2d { x0: x, y0: y, x1: x, y1: y });
            *it = BoundingBox2d {
                x0: it.x0.min(x),
                y0: it.y0.min(y),
                x1: it.x1.max(x + 1.0),
                y1: it.y1.max(y + 1.0),
            };
        }
    }
    let frame = RgbdFrame {
        key: 0,
        image: RgbImage::new(WIDTH, HEIGHT),
        depth: Some(DepthImage::from_meters(WIDTH, HEIGHT, depth_m).unwrap()),
        camera: Some(
            PinholeCamera::from_k(WIDTH, HEIGHT, &[FOCAL, 0.0, 160.0, 0.0, FOCAL, 120.0, 0.0, 0.0, 1.0])
                .unwrap(),
        ),
        frame_id: "camera".to_owned(),
        stamp_ns: 0,
    };
    let detections =
        blocks.iter().zip(boxes).filter_map(|(block, bbox)| Some(Detection2d::new(block.phrase, bbox?, 0.9)));
    (frame, detections.collect())
}

fn ask(text: &str, blocks: &[Block]) -> GroundingResult {
    let (frame, detections) = look(blocks);
    let options = PipelineOptions { use_depth: true, ..config(RawConfig::default()) };
    run_text(&mut Precomputed::new(detections), &frame, text, &Vocabulary::default(), &options, &mut |_| {})
}

#[test]
fn what_stands_on_a_plate_is_no_part_of_the_plate() {
    let blocks = [
        block("plate", [0.0, 0.0, 0.0], [0.2, 0.2, 0.02]),
        block("mug", [0.0, 0.02, 0.02], [0.1, 0.1, 0.1]),
        block("mug", [0.25, 0.1, 0.0], [0.1, 0.1, 0.1]),
    ];
    let result = ask("the mug on the plate", &blocks);
    assert_eq!(result.status, Status::Found, "{}", result.message);
    assert!(result.targets[0].bbox.center().0 < 170.0, "{}", result.message);
    let plate =
        result.candidates.iter().find(|it| it.phrase == "plate").and_then(|it| it.lifted.as_ref()).unwrap();
    assert!(plate.size_m.z < 0.035, "the mug is not counted to it: {}", plate.size_m);
    assert!((plate.size_m.x - 0.2).abs() < 0.03, "{}", plate.size_m);
}

#[test]
fn an_image_frame_with_x_forward_is_told() {
    let blocks = [block("box", [0.0, 0.0, 0.0], [0.1, 0.08, 0.06])];
    let up_in_optical = table_from_camera().inverse_transform_vector(&Vector3::z());
    let up = |it: Vector3<f64>| Some(nalgebra::Unit::new_normalize(it));
    // The same direction by the axes of a frame with x forward, y left and z up.
    let forward_x = Vector3::new(up_in_optical.z, -up_in_optical.x, -up_in_optical.y);
    for (up_in_camera, is_told) in [(up(forward_x), true), (up(up_in_optical), false), (None, false)] {
        for is_up_assumed in [true, false] {
            let (frame, detections) = look(&blocks);
            let options = PipelineOptions { use_depth: true, ..config(RawConfig::default()) };
            let context = FrameContext { up_in_camera, is_up_assumed, ..FrameContext::default() };
            let request = GroundingRequest::parse("the box", &Vocabulary::default()).unwrap();
            let result =
                run(&mut Precomputed::new(detections), &frame, &context, &request, &options, &mut |_| {});
            let told = result.warnings.iter().any(|it| it.contains("x forward") && it.contains("\"camera\""));
            assert_eq!(told, is_told, "{up_in_camera:?} {is_up_assumed}: {:?}", result.warnings);
        }
    }
}

#[test]
fn no_pose_leaves_that_cannot_be() {
    let blocks = [block("box", [0.0, 0.0, 0.0], [0.1, 0.08, 0.06])];
    let whole = ask("the box", &blocks).targets.remove(0).lifted.unwrap();
    let options = LiftOptions::default();
    assert_eq!(whole.check(&options), Ok(()));
    let fault = |spoil: &dyn Fn(&mut LiftedObject)| {
        let mut it = whole.clone();
        spoil(&mut it);
        it.check(&options)
    };
    let nan = fault(&|it| it.object_in_camera.translation.x = f64::NAN);
    assert_eq!(nan, Err(PoseFault::NotFinite));
    assert_eq!(fault(&|it| it.size_m.y = f64::INFINITY), Err(PoseFault::NotFinite));
    assert_eq!(fault(&|it| it.covariance[(1, 4)] = f64::NAN), Err(PoseFault::NotFinite));
    let behind = fault(&|it| it.surface_centroid.z = -0.4);
    assert_eq!(behind, Err(PoseFault::BehindCamera { depth_m: -0.4 }));
    let far = fault(&|it| it.surface_centroid.z = 35.0);
    assert!(matches!(far, Err(PoseFault::OutOfRange { .. })), "{far:?}");
    for (row, column, value) in [(2, 2, -1e-6), (0, 0, 0.0), (0, 1, 1.0)] {
        let spoiled = fault(&|it| it.covariance[(row, column)] = value);
        assert_eq!(spoiled, Err(PoseFault::Covariance), "({row}, {column}) = {value}");
    }
    let indefinite = fault(&|it| (it.covariance[(0, 1)], it.covariance[(1, 0)]) = (1.0, 1.0));
    assert_eq!(indefinite, Err(PoseFault::Covariance));
}

/// The message, what is missing, and the places of the targets along the table, meters.
fn ask_within(text: &str, blocks: &[Block], set: impl Fn(&mut RawConfig)) -> (GroundingResult, Vec<f64>) {
    let mut raw = RawConfig { workspace_frame: "table".to_owned(), ..RawConfig::default() };
    set(&mut raw);
    let (frame, detections) = look(blocks);
    let options = PipelineOptions { use_depth: true, ..config(raw) };
    let request = GroundingRequest::parse(text, &Vocabulary::default()).unwrap();
    let context =
        FrameContext { workspace_from_camera: Some(table_from_camera()), ..FrameContext::default() };
    let mut model = Precomputed::new(detections);
    let result = run(&mut model, &frame, &context, &request, &options, &mut |_| {});
    let places = result.targets.iter().filter_map(|it| it.lifted.as_ref());
    let places = places.map(|it| (table_from_camera() * it.body_center).x).collect();
    (result, places)
}

fn missing(result: &GroundingResult) -> Option<&'static str> {
    Some(result.ambiguity.as_ref()?.unmet.as_ref()?.0.name())
}

#[test]
fn what_lies_out_of_the_workspace_is_a_landmark_but_no_target() {
    let workspace = |raw: &mut RawConfig| {
        raw.workspace_min = "-0.2, -0.3, -0.02".to_owned();
        raw.workspace_max = "[0.1, 0.3, 0.3]".to_owned();
    };
    let near = block("mug", [-0.1, 0.0, 0.0], [0.08, 0.08, 0.1]);
    let far = || block("mug", [0.25, 0.0, 0.0], [0.08, 0.08, 0.1]);
    let (result, _) = ask_within("the mug", &[far()], workspace);
    assert_eq!((result.status, missing(&result)), (Status::NotFound, Some("reach")), "{}", result.message);
    assert!(result.message.contains("at (0.2"), "{}", result.message);
    assert!(result.message.contains("in table"), "{}", result.message);
    // Without bounds there would be a question.
    let both = [near, far()];
    assert_eq!(ask_within("the mug", &both, |_| {}).0.status, Status::Ambiguous);
    let (result, places) = ask_within("the mug", &both, workspace);
    assert_eq!(result.status, Status::Found, "{}", result.message);
    assert!((places[0] + 0.1).abs() < 0.02, "{places:?}");
    // The words mean the one out of reach: the other is not taken for it.
    let (result, _) = ask_within("the right mug", &both, workspace);
    assert_eq!((result.status, missing(&result)), (Status::NotFound, Some("reach")), "{}", result.message);
    let beside =
        [block("mug", [0.0, 0.0, 0.0], [0.08, 0.08, 0.1]), block("plate", [0.2, 0.0, 0.0], [0.2, 0.2, 0.02])];
    let (result, _) = ask_within("the mug left of the plate", &beside, workspace);
    assert_eq!(result.status, Status::Found, "{}", result.message);
}

#[test]
fn what_is_no_size_for_a_target_is_none() {
    let blocks = [block("box", [0.0, 0.0, 0.0], [0.2, 0.15, 0.1])];
    for (least, most, expected) in
        [(0.0, 0.0, None), (0.1, 0.3, None), (0.3, 0.0, Some("size")), (0.0, 0.1, Some("size"))]
    {
        let (result, _) = ask_within("the box", &blocks, |raw| {
            (raw.min_object_size_m, raw.max_object_size_m) = (least, most);
        });
        assert_eq!(missing(&result), expected, "{least} {most}: {}", result.message);
    }
}

#[test]
fn a_drawer_is_placed_in_the_half_of_its_cabinet_and_said_to_be() {
    let cabinet = [block("cabinet", [0.0, 0.1, 0.0], [0.3, 0.2, 0.24])];
    let whole = ask("the cabinet", &cabinet).targets.remove(0);
    let up = |result: &GroundingResult| {
        (table_from_camera() * Point3::from(result.targets[0].lifted.as_ref().unwrap().body_center.coords)).z
    };
    for (text, height_m) in
        [("open the top drawer of the cabinet", 0.18), ("open the bottom drawer of the cabinet", 0.06)]
    {
        let result = ask(text, &cabinet);
        assert_eq!(result.status, Status::Found, "{text}: {}", result.message);
        let drawer = &result.targets[0];
        assert_eq!(drawer.phrase, "drawer");
        assert!(drawer.score_parts.iter().any(|it| it.0 == OF_WHOLE), "{drawer:?}");
        assert!(result.message.contains("placed within the cabinet that was seen"), "{}", result.message);
        assert!((up(&result) - height_m).abs() < 0.02, "{text}: {}", up(&result));
        let (a, b) = (&drawer.bbox, &whole.bbox);
        assert!(
            b.x0 <= a.x0 && b.y0 <= a.y0 && a.x1 <= b.x1 && a.y1 <= b.y1 && a.area() < 0.9 * b.area(),
            "{a:?} in {b:?}"
        );
    }
}

#[test]
fn parts_whose_place_the_whole_does_not_tell_are_refused() {
    let cabinet = [block("cabinet", [0.0, 0.1, 0.0], [0.3, 0.2, 0.24])];
    for text in [
        "pull the handle of the cabinet",
        "open the second drawer of the cabinet",
        "open the drawer of the cabinet",
    ] {
        let result = ask(text, &cabinet);
        assert_eq!(result.status, Status::NotFound, "{text}: {}", result.message);
        assert!(result.targets.is_empty());
    }
    // A drawer that the model has seen is the answer itself.
    let with_drawer = [
        block("cabinet", [0.0, 0.1, 0.0], [0.3, 0.2, 0.24]),
        block("drawer", [0.0, -0.02, 0.14], [0.28, 0.04, 0.08]),
    ];
    let result = ask("open the top drawer of the cabinet", &with_drawer);
    assert_eq!(result.status, Status::Found, "{}", result.message);
    assert!(result.targets[0].score_parts.iter().all(|it| it.0 != OF_WHOLE));
}
