//! What cannot be is not told: the last look at a result.

use crate::options::PipelineOptions;
use crate::result::{GroundedObject, Status, StepResult};

/// Takes the pose from what has none that can be.
pub(super) fn of_candidates(candidates: &mut [GroundedObject], options: &PipelineOptions) {
    for object in candidates {
        keep_possible(object, options);
    }
}

/// The same of what a step means; without its pose the step is [`Status::NoDepth`] with the reason.
pub(super) fn of_step(step: &mut StepResult, options: &PipelineOptions) {
    let mut faults = Vec::new();
    for object in step.targets.iter_mut().chain(&mut step.destination).chain(&mut step.tool) {
        faults.extend(keep_possible(object, options));
    }
    step.place = step.place.take().filter(crate::lift::Place::is_tellable);
    if !faults.is_empty() && step.status == Status::Found {
        step.status = Status::NoDepth;
        step.message = faults.join("; ");
        step.place = None;
    }
}

fn keep_possible(object: &mut GroundedObject, options: &PipelineOptions) -> Option<String> {
    object.grasps.retain(crate::lift::Grasp::is_tellable);
    let fault = object.lifted.as_ref()?.check(&options.lift).err()?;
    object.lifted = None;
    object.grasps.clear();
    Some(format!("{} has no pose: {fault}", object.phrase))
}
