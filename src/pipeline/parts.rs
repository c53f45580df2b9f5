//! Parts of what was seen that the model has no box for: placed within their whole, and said to be.
//!
//! Of drawers, compartments, shelves and doors there are several in a row, so "the top drawer of the cabinet" lies in the upper half of
//! the cabinet, whether it has two drawers or five, and "the left compartment" in the left half. That half is the answer: it holds the part,
//! its score has the part [`resolve::OF_WHOLE`], and the message says so. How high one drawer is, the geometry of the whole does not tell,
//! so the second drawer from the top is not placed. Nor are handles, knobs and lids: they may be anywhere on the whole.

use nalgebra::{Point3, Translation3, Unit, Vector3};

use super::candidates::Lifter;
use crate::detection::BoundingBox2d;
use crate::instruction::{Instruction, ObjectReference, OrderBy};
use crate::lift::{FrameGeometry, LiftedObject, ObjectMask};
use crate::options::PipelineOptions;
use crate::resolve;
use crate::result::GroundedObject;
use crate::viewpoint::ViewAxes;

/// Parts that stand in a row on their whole.
const IN_A_ROW: [&str; 13] = [
    "drawer",
    "compartment",
    "shelf",
    "layer",
    "level",
    "section",
    "slot",
    "tier",
    "rack",
    "door",
    "burner",
    "bin",
    "cubby",
];

/// Adds the parts that `instruction` names and the model has no box for, where the half they lie in can be told.
pub(super) fn add(
    objects: &mut Vec<GroundedObject>,
    instruction: &Instruction,
    lifter: &Lifter<'_>,
    options: &PipelineOptions,
) {
    let Some(geometry) = lifter.geometry() else { return };
    let is_sure = |it: &GroundedObject| {
        f64::from(options.thresholds.threshold_of(&it.phrase)) <= it.score && it.lifted.is_some()
    };
    for reference in instruction.references() {
        let (Some(whole), Some(by)) = (&reference.whole, side_of(reference)) else { continue };
        let (phrase, whole) = (reference.query(), whole.query());
        let is_seen = |whole: &GroundedObject| {
            let inside = |it: &GroundedObject| resolve::share_inside(&it.bbox, &whole.bbox) >= 0.5;
            objects.iter().any(|it| it.phrase == phrase && is_sure(it) && inside(it))
        };
        let wholes = objects.iter().filter(|it| it.phrase == whole && is_sure(it) && !is_seen(it));
        let placed: Vec<GroundedObject> =
            wholes.filter_map(|it| placed_within(it, &phrase, by, geometry, &lifter.view())).collect();
        objects.extend(placed);
    }
}

/// By what the words tell a part from the others in its row, if it is the first of them.
fn side_of(reference: &ObjectReference) -> Option<OrderBy> {
    let [order] = reference.orders[..] else { return None };
    let is_side = matches!(
        order.by,
        OrderBy::Highest
            | OrderBy::Lowest
            | OrderBy::Leftmost
            | OrderBy::Rightmost
            | OrderBy::Nearest
            | OrderBy::Farthest
    );
    let is_in_a_row = IN_A_ROW.contains(&reference.noun.rsplit(' ').next().unwrap_or_default());
    (is_side && order.rank == 1 && is_in_a_row).then_some(order.by)
}

/// The half of the whole on one side.
fn placed_within(
    whole: &GroundedObject,
    phrase: &str,
    by: OrderBy,
    geometry: &FrameGeometry<'_>,
    view: &ViewAxes,
) -> Option<GroundedObject> {
    let of_whole = whole.lifted.as_ref()?;
    let towards = match by {
        OrderBy::Highest => geometry.up(),
        OrderBy::Lowest => -geometry.up(),
        OrderBy::Rightmost => view.right,
        OrderBy::Leftmost => -view.right,
        OrderBy::Farthest => view.forward,
        _ => -view.forward,
    };
    let half = half_towards(of_whole, &towards);
    let is_in_half = |it: &Point3<f64>| (it - half.body_center).dot(&half.axis).abs() <= 0.5 * half.length_m;
    let (mask, points) = seen_of(&of_whole.mask, geometry, &is_in_half)?;
    let center = points.iter().map(|it| it.coords).sum::<Vector3<f64>>() / points.len() as f64;
    let mut covariance = of_whole.covariance;
    // Anywhere in the half.
    let spread = half.length_m.powi(2) / 12.0 * half.axis.into_inner() * half.axis.transpose();
    let mut position = covariance.fixed_view_mut::<3, 3>(0, 0);
    position += spread;
    let mut object_in_camera = of_whole.object_in_camera;
    object_in_camera.translation = Translation3::from(half.body_center.coords);
    let lifted = LiftedObject {
        object_in_camera,
        surface_centroid: Point3::from(center),
        body_center: half.body_center,
        size_m: half.size_m,
        covariance,
        n_points: points.len(),
        mask,
        ..of_whole.clone()
    };
    let mut score_parts = whole.score_parts.clone();
    score_parts.push((resolve::OF_WHOLE.to_owned(), whole.score));
    Some(GroundedObject {
        id: format!("{}_of_{}", phrase.replace(' ', "_"), whole.id),
        phrase: phrase.to_owned(),
        caption: String::new(),
        score: whole.score,
        score_parts,
        bbox: outline(&lifted.mask)?,
        lifted: Some(lifted),
        grasps: Vec::new(),
        no_grasps_reason: String::new(),
    })
}

struct Half {
    body_center: Point3<f64>,
    size_m: Vector3<f64>,
    /// Of the body, which was halved along it.
    axis: Unit<Vector3<f64>>,
    length_m: f64,
}

/// The half of a body's box along the axis that runs most in a direction.
fn half_towards(whole: &LiftedObject, towards: &Unit<Vector3<f64>>) -> Half {
    let axes = [Vector3::x_axis(), Vector3::y_axis(), Vector3::z_axis()]
        .map(|it| whole.object_in_camera.rotation * it);
    let along = (0..3)
        .max_by(|&a, &b| axes[a].dot(towards).abs().total_cmp(&axes[b].dot(towards).abs()))
        .unwrap_or(2);
    let axis = if axes[along].dot(towards) < 0.0 { -axes[along] } else { axes[along] };
    let length_m = 0.5 * whole.size_m[along];
    let mut size_m = whole.size_m;
    size_m[along] = length_m;
    Half { body_center: whole.body_center + axis.scale(0.5 * length_m), size_m, axis, length_m }
}

/// The pixels of a mask whose points fit, and these points; `None` where there are too few.
fn seen_of(
    whole: &ObjectMask,
    geometry: &FrameGeometry<'_>,
    fits: &dyn Fn(&Point3<f64>) -> bool,
) -> Option<(ObjectMask, Vec<Point3<f64>>)> {
    let mut mask = ObjectMask { is_object: vec![false; whole.is_object.len()], ..whole.clone() };
    let mut points = Vec::new();
    for (idx, _) in whole.is_object.iter().enumerate().filter(|it| *it.1) {
        let (u, v) = (whole.x0 + idx as u32 % whole.width, whole.y0 + idx as u32 / whole.width);
        if let Some(point) = geometry.point(u, v).filter(|it| fits(it)) {
            mask.is_object[idx] = true;
            points.push(point);
        }
    }
    (points.len() >= 20).then_some((mask, points))
}

/// The box around a mask.
fn outline(mask: &ObjectMask) -> Option<BoundingBox2d> {
    let pixels = || mask.is_object.iter().enumerate().filter(|it| *it.1).map(|(idx, _)| idx as u32);
    let columns = || pixels().map(|it| it % mask.width);
    let (left, right) = (columns().min()?, columns().max()?);
    let (upper, lower) = (pixels().next()? / mask.width, pixels().next_back()? / mask.width);
    Some(BoundingBox2d {
        x0: f64::from(mask.x0 + left),
        y0: f64::from(mask.y0 + upper),
        x1: f64::from(mask.x0 + right + 1),
        y1: f64::from(mask.y0 + lower + 1),
    })
}
