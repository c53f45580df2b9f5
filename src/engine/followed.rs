//! What is followed of the standing instruction, and for which words; pure.

use std::collections::VecDeque;

use nalgebra::{Isometry3, Unit, Vector3};

use super::camera::FrameHeader;
use super::outcome::{Outcome, TargetFate};
use crate::camera::PinholeCamera;
use crate::config::Config;
use crate::image::{DepthImage, RgbdFrame};
use crate::lift::{FrameGeometry, LiftedObject, SupportPlane};
use crate::result::Status;
use crate::track::{Followed, TrackedFrame, Tracker};

/// Frames kept while the model looks at one; of more, every second is dropped.
const MAX_KEPT: usize = 48;

/// What is followed, and for which words.
#[derive(Default)]
pub struct FollowedObjects {
    /// Id and text of the standing instruction.
    instruction: Option<(String, String)>,
    tracker: Tracker,
    /// The frame that poses are kept in.
    reference: String,
    /// The planes that things stand on, in the reference frame.
    planes: Vec<SupportPlane>,
    /// Up in that frame, where it was known.
    up: Option<Unit<Vector3<f64>>>,
    /// Frames since that which the model looks at: new objects go through them.
    kept: VecDeque<DepthFrame>,
    /// Stamp of that frame.
    looked_at_ns: i64,
    newest_pose_ns: i64,
    /// Stamp of the newest frame.
    newest_ns: Option<i64>,
    /// The clock stepped back since the model began to look.
    has_stepped_back: bool,
}

/// What must be published with an outcome so that it is understood.
#[derive(Default)]
pub struct Around {
    /// The target is another one now.
    pub before: Option<Outcome>,
    /// The target has been lost since.
    pub after: Option<Outcome>,
}

/// A depth image with where its camera was.
pub struct DepthFrame {
    /// Acquisition time, nanoseconds.
    pub stamp_ns: i64,
    /// The camera in the frame that poses are kept in.
    pub reference_from_camera: Isometry3<f64>,
    /// Registered to the color image, of the camera's size.
    pub depth: DepthImage,
    /// Of the color image.
    pub camera: PinholeCamera,
}

impl FollowedObjects {
    /// Whether there are words to follow objects for.
    pub fn is_wanted(&self) -> bool {
        self.instruction.is_some()
    }

    /// Other words hold from now on; `None`: none do.
    pub fn begin(&mut self, instruction: Option<(String, String)>) {
        if instruction.is_none() {
            *self = Self { tracker: std::mem::take(&mut self.tracker), ..Self::default() };
            self.tracker.forget();
        }
        self.tracker.aim(&[]);
        self.instruction = instruction;
    }

    /// The model is about to look at a frame.
    pub fn look_at(&mut self, stamp_ns: i64) {
        self.looked_at_ns = stamp_ns;
        self.has_stepped_back = false;
        self.kept.retain(|it| stamp_ns < it.stamp_ns);
    }

    /// Follows the objects into a new frame. Returns what is to be published of it: that the target was lost, or its new pose.
    pub fn follow(
        &mut self,
        frame: DepthFrame,
        camera_frame: &str,
        reference: &str,
        config: &Config,
    ) -> (Option<Outcome>, Option<Isometry3<f64>>) {
        let stamp_ns = frame.stamp_ns;
        let Followed { target_pose, lost } = self.follow_all(frame, reference, config);
        let lost = lost.and_then(|why| self.stale(why, stamp_ns, camera_frame));
        let pose = target_pose.filter(|_| self.newest_pose_ns < stamp_ns);
        if pose.is_some() {
            self.newest_pose_ns = stamp_ns;
        }
        (lost, pose)
    }

    /// What was found in a frame: gives what is followed its ids, and follows it from there through the frames since. Returns what
    /// must be told before and after this outcome.
    pub fn record(&mut self, outcome: &mut Outcome, frame: Option<&RgbdFrame>, config: &Config) -> Around {
        let stamp_ns = outcome.result.stamp_ns;
        let seen = frame.and_then(|it| Some((it, it.depth.as_ref()?, it.camera?)));
        let (Some((frame, depth, camera)), Some(target)) = (seen, outcome.target_from_camera.clone()) else {
            self.tracker.aim_at_nothing(stamp_ns);
            return Around::default();
        };
        if self.has_stepped_back {
            self.tracker.aim(&[]);
            return Around::default();
        }
        if target.frame_id != self.reference {
            self.start_over(&target.frame_id);
        }
        let (planes, up) = (&outcome.result.planes, outcome.result.up_in_camera);
        let geometry = FrameGeometry::after_with_up(depth, camera, &config.pipeline.lift, planes, up);
        let reference_from_camera = target.target_from_camera;
        let ids =
            self.observe(outcome, &TrackedFrame { stamp_ns, reference_from_camera, geometry: &geometry });
        let mut around = Around::default();
        if outcome.result.status == Status::Found && !ids.is_empty() {
            let changed = self.tracker.aim(&ids);
            around.before = changed.and_then(|it| self.stale(it, stamp_ns, &frame.frame_id));
            outcome.fate =
                if self.tracker.target().is_some() { TargetFate::Followed } else { TargetFate::Lost };
        } else {
            self.tracker.aim_at_nothing(stamp_ns);
        }
        self.up = outcome.result.up_in_camera.map(|it| reference_from_camera.rotation * it);
        self.planes = outcome.result.planes.iter().map(|it| it.seen_from(&reference_from_camera)).collect();
        for kept in std::mem::take(&mut self.kept) {
            if stamp_ns < kept.stamp_ns && self.tracker.is_behind(kept.stamp_ns) {
                let lost = self.go_through(&kept, config).lost;
                if let Some(why) = lost {
                    outcome.fate = TargetFate::Lost;
                    around.after = self.stale(why, kept.stamp_ns, &frame.frame_id);
                }
            }
        }
        around
    }

    /// Observes what was lifted and names it in the outcome. Returns the ids of the targets.
    fn observe(&mut self, outcome: &mut Outcome, observed: &TrackedFrame<'_>) -> Vec<String> {
        let result = &mut outcome.result;
        let lifted: Vec<(usize, &LiftedObject)> = result
            .candidates
            .iter()
            .enumerate()
            .filter_map(|(idx, it)| Some((idx, it.lifted.as_ref()?)))
            .collect();
        let objects: Vec<(&str, &LiftedObject)> =
            lifted.iter().map(|(idx, it)| (result.candidates[*idx].phrase.as_str(), *it)).collect();
        let ids = self.tracker.observe(observed, &objects);
        let indices: Vec<usize> = lifted.iter().map(|it| it.0).collect();
        let mut names: Vec<(String, String)> = Vec::new();
        for (idx, id) in indices.into_iter().zip(ids) {
            if let Some(id) = id {
                names.push((std::mem::replace(&mut result.candidates[idx].id, id.clone()), id));
            }
        }
        let mut of_targets = Vec::new();
        for (place, object) in result.targets.iter_mut().chain(&mut result.destination).enumerate() {
            if let Some((_, id)) = names.iter().find(|(old, _)| *old == object.id) {
                object.id.clone_from(id);
                of_targets.push((place, id.clone()));
            }
        }
        let n_targets = result.targets.len();
        of_targets.into_iter().filter(|(place, _)| *place < n_targets).map(|it| it.1).collect()
    }

    fn follow_all(&mut self, frame: DepthFrame, reference: &str, config: &Config) -> Followed {
        if reference != self.reference {
            let lost = self.start_over(reference);
            return Followed { target_pose: None, lost };
        }
        let before = self.newest_ns.replace(frame.stamp_ns);
        if before.is_some_and(|it| frame.stamp_ns < it) {
            self.has_stepped_back = true;
            let lost = self.start_over(reference).map(|it| format!("{it}: the clock jumped back"));
            return Followed { target_pose: None, lost };
        }
        let followed =
            if self.tracker.is_empty() { Followed::default() } else { self.go_through(&frame, config) };
        if self.looked_at_ns < frame.stamp_ns {
            self.kept.push_back(frame);
        }
        if MAX_KEPT < self.kept.len() {
            let mut is_kept = false;
            self.kept.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        followed
    }

    fn go_through(&mut self, frame: &DepthFrame, config: &Config) -> Followed {
        let camera_from_reference = frame.reference_from_camera.inverse();
        let planes: Vec<SupportPlane> =
            self.planes.iter().map(|it| it.seen_from(&camera_from_reference)).collect();
        let up = self.up.map(|it| camera_from_reference.rotation * it);
        let geometry =
            FrameGeometry::after_with_up(&frame.depth, frame.camera, &config.pipeline.lift, &planes, up);
        let tracked = TrackedFrame {
            stamp_ns: frame.stamp_ns,
            reference_from_camera: frame.reference_from_camera,
            geometry: &geometry,
        };
        let max_unseen_ns = i64::try_from(config.track_timeout.as_nanos()).unwrap_or(i64::MAX);
        let followed = self.tracker.follow(&tracked, max_unseen_ns);
        self.planes = geometry.planes().iter().map(|it| it.seen_from(&frame.reference_from_camera)).collect();
        followed
    }

    /// Forgets all, in another frame or at another time. Returns what is to be said to those who follow the target.
    fn start_over(&mut self, reference: &str) -> Option<String> {
        let lost = self.tracker.target().map(|it| format!("{it} was lost"));
        self.tracker.forget();
        self.kept.clear();
        self.planes.clear();
        self.up = None;
        self.newest_pose_ns = i64::MIN;
        self.looked_at_ns = i64::MIN;
        reference.clone_into(&mut self.reference);
        lost
    }

    /// A result that says so.
    fn stale(&self, why: String, stamp_ns: i64, camera_frame: &str) -> Option<Outcome> {
        let (id, text) = self.instruction.as_ref()?;
        let header = FrameHeader { stamp_ns, frame_id: camera_frame.to_owned() };
        Some(Outcome::without_image(id, text, Status::Stale, why).at(&header))
    }
}
