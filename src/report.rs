//! A result as JSON, by the contract of the command line.

use serde_json::{Map, Value, json};

use crate::instruction::RelationKind;
use crate::lift::{Place, PoseSource};
use crate::result::{GroundedObject, GroundingResult, Stage};

/// One line of a result file. `latency_ms` holds what the caller measured, by stage.
pub fn result_to_json(id: &Value, result: &GroundingResult, latency_ms: &[(Stage, f64)]) -> Value {
    let mut latencies = Map::new();
    for (stage, ms) in latency_ms {
        latencies.insert(stage.name().to_owned(), rounded(*ms, 3));
    }
    let total_ms: f64 = latency_ms.iter().map(|(_, ms)| ms).sum();
    latencies.insert("total".to_owned(), rounded(total_ms, 3));
    let destination = destination_to_json(result.destination.as_ref(), result.destination_relation);
    json!({
        "id": id,
        "status": result.status.name(),
        "message": result.message,
        "instruction": result.instruction,
        "action": result.action,
        "doubt": result.ambiguity.as_ref().map(|it| json!({
            "missing": it.unmet.as_ref().map(|(unmet, _)| unmet.name()),
            "phrase": it.unmet.as_ref().map(|(_, phrase)| phrase),
            "candidates": it.ids(&result.candidates),
        })),
        "targets": result.targets.iter().map(object_to_json).collect::<Vec<_>>(),
        "destination": destination,
        "place": result.place.as_ref().map(place_to_json),
        "steps": (0..result.steps.len()).map(|it| step_to_json(result, it)).collect::<Vec<_>>(),
        "candidates": result.candidates.iter().map(object_to_json).collect::<Vec<_>>(),
        "warnings": result.warnings,
        "model": result.model,
        "latency_ms": latencies,
    })
}

/// One step; the first one's objects are those of the result.
fn step_to_json(result: &GroundingResult, step_idx: usize) -> Value {
    let step = &result.steps[step_idx];
    let (targets, destination) = match step_idx {
        0 => (&result.targets, &result.destination),
        _ => (&step.targets, &step.destination),
    };
    json!({
        "action": step.action,
        "status": step.status.name(),
        "message": step.message,
        "targets": targets.iter().map(object_to_json).collect::<Vec<_>>(),
        "destination": destination_to_json(destination.as_ref(), step.destination_relation),
        "destination_relation": step.destination_relation.map(RelationKind::name),
        "place": step.place.as_ref().map(place_to_json),
        "tool": step.tool.as_ref().map(object_to_json),
        "manner": step.manner,
        "rotation": step.rotation,
        "offset_m": step.destination_relation.zip(step.distance_m).map(|(relation, distance)| json!({
            "direction": relation.name(),
            "distance": distance,
        })),
    })
}

fn destination_to_json(
    destination: Option<&GroundedObject>,
    relation: Option<RelationKind>,
) -> Option<Value> {
    let mut value = object_to_json(destination?);
    if let Some(relation) = relation {
        value["relation"] = json!(relation.name());
    }
    Some(value)
}

fn place_to_json(place: &Place) -> Value {
    json!({
        "position_m": place.place_in_camera.translation.vector.iter().map(|it| rounded(*it, 5)).collect::<Vec<_>>(),
        "clearance_m": rounded(place.clearance_m, 4),
    })
}

/// The line of an input that could not be used at all.
pub fn error_to_json(id: &Value, message: &str) -> Value {
    json!({
        "id": id,
        "status": "ERROR",
        "message": message,
        "action": "",
        "targets": [],
        "destination": null,
        "steps": [],
        "candidates": [],
        "latency_ms": {},
    })
}

/// Positions are in the camera's optical frame: `position_m` is the mean of the visible surface, `body_center_m` the middle
/// of the oriented box that `orientation_xyzw` and `size_m` describe. All null without usable depth.
fn object_to_json(object: &GroundedObject) -> Value {
    let lifted = object.lifted.as_ref();
    let meters = |values: &[f64]| -> Value { values.iter().map(|it| rounded(*it, 5)).collect() };
    json!({
        "id": object.id,
        "phrase": object.phrase,
        "bbox": <[f64; 4]>::from(object.bbox).iter().map(|it| rounded(*it, 2)).collect::<Vec<_>>(),
        "score": rounded(object.score, 4),
        "score_parts": object.score_parts.iter().map(|(name, value)| (name.clone(), rounded(*value, 4))).collect::<Map<_, _>>(),
        "position_m": lifted.map(|it| meters(it.surface_centroid.coords.as_slice())),
        "body_center_m": lifted.map(|it| meters(it.body_center.coords.as_slice())),
        "orientation_xyzw": lifted.map(|it| {
            let quaternion = it.object_in_camera.rotation.coords;
            quaternion.iter().map(|it| rounded(*it, 6)).collect::<Vec<_>>()
        }),
        "size_m": lifted.map(|it| meters(it.size_m.as_slice())),
        "standard_deviations": lifted.map(|it| {
            (0..6).map(|axis| rounded(it.covariance[(axis, axis)].sqrt(), 5)).collect::<Vec<_>>()
        }),
        "n_points": lifted.map(|it| it.n_points),
        "valid_depth_ratio": lifted.map(|it| rounded(it.valid_depth_ratio, 3)),
        "truncated": lifted.map(|it| it.is_truncated),
        "source": lifted.map(|it| if it.source == PoseSource::Depth { "depth" } else { "support_plane" }),
        "back_completed": lifted.map(|it| it.is_back_completed),
        "plane_residual_m": lifted.and_then(|it| it.plane_residual_m).map(|it| rounded(it, 5)),
        "caption": object.caption,
        "no_grasps_reason": object.no_grasps_reason,
        "grasps": object.grasps.iter().map(|it| json!({
            "position_m": meters(it.grasp_in_camera.translation.vector.as_slice()),
            "orientation_xyzw": it.grasp_in_camera.rotation.coords.iter().map(|it| rounded(*it, 6)).collect::<Vec<_>>(),
            "score": rounded(it.score, 3),
            "opening_m": rounded(it.opening_m, 4),
            "top_down": it.is_top_down,
        })).collect::<Vec<_>>(),
    })
}

/// Short numbers: nobody needs 17 digits of a pixel. JSON has no NaN; a value that is not finite becomes null.
fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}
