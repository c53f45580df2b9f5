//! What makes an answer less sure than it looks, in sentences.

use crate::lift::{FrameGeometry, UpSource};

/// What is doubtful about a frame's geometry.
pub(super) fn of_geometry(geometry: &FrameGeometry<'_>, frame_id: &str) -> Vec<String> {
    let mut all = Vec::new();
    if geometry.is_frame_forward_x() {
        let named = if frame_id.contains("optical") { "" } else { ", and is not named optical" };
        all.push(format!(
            "the image's frame {frame_id:?} seems to have x forward and z up{named}: the surface in view lies where TF puts it only then; \
             expected an optical frame (z forward, y down), so poses in other frames are turned by 90 degrees: give the image \
             the frame_id of the camera's optical frame"
        ));
    } else if geometry.is_assumed_up_refused() {
        all.push(
            "the z axis of the TF frame that up was taken from stands across the surfaces in view, so up is told by these: \
             set gravity_frame to a frame whose z axis points up"
                .to_owned(),
        );
    }
    if geometry.up_source() == UpSource::Unknown {
        all.push(
            "up is unknown: no surface that things stand on is in view and no TF frame tells gravity, so poses may stand in any \
             direction and their covariance allows for it; set gravity_frame to a frame whose z axis points up"
                .to_owned(),
        );
    } else if let Some((_, probability)) = geometry.rival_up() {
        all.push(format!(
            "up is taken from the surface that things seem to stand on, but another one across it is as large ({:.0} % likely); \
             covariances hold for both; set gravity_frame to a frame whose z axis points up",
            1e2 * probability
        ));
    }
    all
}
