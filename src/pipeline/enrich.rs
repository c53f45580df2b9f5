//! What is told of the objects that are meant: poses, grasps, a place to put them, captions.

use super::candidates::Lifter;
use crate::detection::Detection2d;
use crate::instruction::RelationKind;
use crate::lift::{self, FrameGeometry, LiftError, PlaceRelation, PlaceRequest};
use crate::model::{Captioner, KeyedImage, ModelError};
use crate::options::PipelineOptions;
use crate::result::StepResult;

/// Lifts what is meant. Most of it was lifted among the candidates already, unless its score was under the threshold or depth
/// failed it.
pub(super) fn lift_meant(
    answer: &mut StepResult,
    lifter: &Lifter<'_>,
    options: &PipelineOptions,
) -> Result<(), LiftError> {
    if !options.use_depth && !lifter.knows_plane() {
        return Ok(());
    }
    let mut no_depth = Ok(());
    let meant = answer.targets.iter_mut().chain(&mut answer.destination).chain(&mut answer.tool);
    for object in meant {
        if object.lifted.is_some() {
            continue;
        }
        match lifter.lift(&Detection2d::new(object.phrase.clone(), object.bbox, 1.0)) {
            Ok(lifted) => object.lifted = Some(lifted),
            Err(LiftError::NotInUse) => {}
            Err(error) => no_depth = no_depth.and(Err(error)),
        }
    }
    no_depth
}

/// Grasps for the targets and a place at the destination.
pub(super) fn plan(answer: &mut StepResult, geometry: &FrameGeometry<'_>, options: &PipelineOptions) {
    for object in &mut answer.targets {
        if let Some(lifted) = &object.lifted {
            object.grasps = geometry.grasps(lifted, &options.gripper);
            if object.grasps.is_empty() {
                object.no_grasps_reason = lift::why_no_grasp(lifted, &options.gripper);
            }
        }
    }
    let Some(relation) = answer.destination_relation.and_then(place_relation) else { return };
    let target = answer.targets.first().and_then(|it| it.lifted.as_ref());
    answer.place = match (answer.destination.as_ref().map(|it| it.lifted.as_ref()), target) {
        (Some(Some(destination)), _) => {
            let radius_m = target.map_or(0.03, |it| 0.5 * it.size_m.x);
            geometry.place(destination, &PlaceRequest { relation, radius_m, gap_m: answer.distance_m })
        }
        // "10 cm to the left": from where it is.
        (None, Some(target)) => answer.distance_m.and_then(|it| geometry.moved(target, relation, it)),
        _ => None,
    };
}

/// The place a relation to a destination speaks of, as far as it names one.
fn place_relation(relation: RelationKind) -> Option<PlaceRelation> {
    match relation {
        RelationKind::On | RelationKind::Above | RelationKind::To => Some(PlaceRelation::On),
        RelationKind::AtCenterOf => Some(PlaceRelation::Within(0.0, 0.0)),
        RelationKind::AtLeftOf => Some(PlaceRelation::Within(-0.7, 0.0)),
        RelationKind::AtRightOf => Some(PlaceRelation::Within(0.7, 0.0)),
        // The edge that the viewer reaches first.
        RelationKind::AtFrontOf | RelationKind::AtEdgeOf => Some(PlaceRelation::Within(0.0, -0.7)),
        RelationKind::AtBackOf => Some(PlaceRelation::Within(0.0, 0.7)),
        RelationKind::In => Some(PlaceRelation::In),
        RelationKind::LeftOf => Some(PlaceRelation::LeftOf),
        RelationKind::RightOf => Some(PlaceRelation::RightOf),
        RelationKind::InFrontOf => Some(PlaceRelation::InFrontOf),
        RelationKind::Behind => Some(PlaceRelation::Behind),
        RelationKind::NextTo | RelationKind::Near => Some(PlaceRelation::NextTo),
        _ => None,
    }
}

/// Lets the model say what the targets and the destination show.
pub(super) fn caption(
    answer: &mut StepResult,
    captioner: &mut dyn Captioner,
    image: KeyedImage<'_>,
) -> Result<(), ModelError> {
    for object in answer.targets.iter_mut().chain(&mut answer.destination) {
        object.caption = captioner.caption(image, Some(object.bbox))?;
    }
    Ok(())
}
