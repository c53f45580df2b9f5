//! Whose pixels are whose where things stand on, in or before each other.
//!
//! Alone, a box around a plate with a bowl on it is mostly bowl, and so is what is lifted from it. With the bowl's own pixels taken out, the
//! rest is the plate: where it is, how high, and how far it reaches under the bowl.

use crate::lift::{FrameGeometry, ObjectMask};
use crate::resolve;
use crate::result::GroundedObject;

/// Fewer shared pixels than this share of the smaller mask are its border.
const MIN_SHARED: f64 = 0.03;

/// Lifts those anew that took pixels of what stands on, in or before them.
pub(super) fn part(objects: &mut [GroundedObject], geometry: &FrameGeometry<'_>) {
    let parted: Vec<_> = (0..objects.len())
        .filter_map(|idx| {
            let base = &objects[idx];
            let mask = &base.lifted.as_ref()?.mask;
            let n_pixels = mask.count();
            let upper: Vec<&ObjectMask> = objects
                .iter()
                .filter(|it| is_upper(it, base))
                .filter_map(|it| it.lifted.as_ref().map(|it| &it.mask))
                .filter(|it| {
                    let least = (MIN_SHARED * n_pixels.min(it.count()) as f64).max(8.0);
                    least <= it.count_shared(mask) as f64
                })
                .collect();
            if upper.is_empty() {
                return None;
            }
            let lifted = geometry.lift_without(&base.phrase, &base.bbox, &upper).ok()?;
            Some((idx, lifted))
        })
        .collect();
    for (idx, lifted) in parted {
        objects[idx].lifted = Some(lifted);
    }
}

/// Whether pixels that both claim are those of `thing`: more of it is within the box of the other than of the other within its own, or
/// it ends above it in the image, as what stands on another does.
fn is_upper(thing: &GroundedObject, base: &GroundedObject) -> bool {
    let (a, b) = (&thing.bbox, &base.bbox);
    if resolve::is_one_box(&thing.phrase, a, &base.phrase, b) {
        return false;
    }
    let (of_thing, of_base) = (resolve::share_inside(a, b), resolve::share_inside(b, a));
    if (of_thing - of_base).abs() < 0.2 { a.y1 < b.y1 } else { of_base < of_thing }
}
