//! What is no target because of where it is, or how large.

use nalgebra::{Isometry3, Point3};

use crate::lift::FrameContext;
use crate::options::TargetBounds;
use crate::resolve::Excluded;
use crate::result::{GroundedObject, UnmetConstraint};

/// The candidates that are no targets, with the reason. Of one without a pose nothing is known.
pub(super) fn excluded(
    candidates: &[GroundedObject],
    context: &FrameContext,
    bounds: &TargetBounds,
) -> Vec<Excluded> {
    let workspace_from_camera = context.workspace_from_camera.unwrap_or_else(Isometry3::identity);
    let is_excluded = |(idx, object): (usize, &GroundedObject)| {
        let lifted = object.lifted.as_ref()?;
        let at = workspace_from_camera * lifted.body_center;
        let (missing, why) = beyond(&at, lifted.size_m.max(), bounds)?;
        Some(Excluded { idx, missing, reason: format!("the {} seen {why}", object.phrase) })
    };
    candidates.iter().enumerate().filter_map(is_excluded).collect()
}

/// Which bound a thing at `at` (frame of the workspace) breaks whose longest side is `longest_m`.
fn beyond(at: &Point3<f64>, longest_m: f64, bounds: &TargetBounds) -> Option<(UnmetConstraint, String)> {
    if let Some(workspace) = &bounds.workspace {
        let is_inside = (0..3).all(|i| workspace.min_m[i] <= at[i] && at[i] <= workspace.max_m[i]);
        if !is_inside {
            let frame = workspace.frame.as_deref().map_or_else(String::new, |it| format!(" in {it}"));
            let why = format!(
                "is out of reach: at ({:.3}, {:.3}, {:.3}) m{frame}, the workspace is {:?} to {:?}",
                at.x, at.y, at.z, workspace.min_m, workspace.max_m
            );
            return Some((UnmetConstraint::Reach, why));
        }
    }
    let bound = if 0.0 < bounds.min_size_m && longest_m < bounds.min_size_m {
        format!("under {} m (min_object_size_m)", bounds.min_size_m)
    } else if 0.0 < bounds.max_size_m && bounds.max_size_m < longest_m {
        format!("over {} m (max_object_size_m)", bounds.max_size_m)
    } else {
        return None;
    };
    let why = format!(
        "at ({:.3}, {:.3}, {:.3}) m has a longest side of {longest_m:.3} m, {bound}",
        at.x, at.y, at.z
    );
    Some((UnmetConstraint::Size, why))
}
