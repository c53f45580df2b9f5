//! The objects of the standing instruction followed at the rate of the camera, beside the model's own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nalgebra::Isometry3;
use tokio::sync::watch;

use super::depth::DepthRegistrar;
use super::diagnostics::Monitor;
use super::inputs::{Inputs, PairedMessages};
use super::lifecycle::State;
use super::outcome::{Outcome, TargetFate};
use super::publish::ResultPublisher;
use super::transforms::TransformListener;
use crate::camera::PinholeCamera;
use crate::config::Config;
use crate::image::{DepthImage, RgbdFrame};
use crate::lift::{FrameGeometry, LiftedObject, SupportPlane};
use crate::result::Status;
use crate::track::{Followed, TrackedFrame, Tracker};

/// Frames kept while the model looks at one; of more, every second is dropped.
const MAX_KEPT: usize = 48;
/// A stamp that is older than the newest by more is of a clock that jumped back.
const CLOCK_JUMP_NS: i64 = 500_000_000;

/// What is followed. Clones share it.
#[derive(Clone, Default)]
pub struct Tracking {
    shared: Arc<Mutex<Shared>>,
}

/// What following needs of the node.
pub struct Surroundings {
    /// The camera.
    pub inputs: Inputs,
    /// TF.
    pub transforms: TransformListener,
    /// Depth of the color camera.
    pub depth: DepthRegistrar,
    /// Parameters.
    pub config: watch::Receiver<Arc<Config>>,
    /// Of the node.
    pub state: watch::Receiver<State>,
    /// Where poses go.
    pub publisher: Arc<Mutex<ResultPublisher>>,
    /// Health.
    pub monitor: Monitor,
}

/// What is followed, and for which words.
#[derive(Default)]
pub struct Shared {
    /// Id and text of the standing instruction.
    instruction: Option<(String, String)>,
    tracker: Tracker,
    /// The frame that poses are kept in.
    reference: String,
    /// In that frame.
    planes: Vec<SupportPlane>,
    /// Frames since that which the model looks at: new objects go through them.
    kept: VecDeque<Kept>,
    /// Stamp of that frame.
    looked_at_ns: i64,
    newest_pose_ns: i64,
    /// Stamp of the newest frame.
    newest_ns: Option<i64>,
}

/// What must be told with an outcome, lest it be misunderstood.
#[derive(Default)]
pub struct Around {
    /// The target is another one now.
    pub before: Option<Outcome>,
    /// The target has been lost since.
    pub after: Option<Outcome>,
}

struct Kept {
    stamp_ns: i64,
    reference_from_camera: Isometry3<f64>,
    depth: DepthImage,
    camera: PinholeCamera,
}

impl Tracking {
    /// Follows for as long as the node lives.
    pub async fn run(self, around: Surroundings) {
        let mut news = around.inputs.news();
        let mut last_sequence = 0;
        while news.changed().await.is_ok() {
            news.mark_unchanged();
            let config = Arc::clone(&around.config.borrow());
            if !config.track || *around.state.borrow() != State::Active || self.lock().instruction.is_none() {
                continue;
            }
            let newest = around.inputs.newest(config.stamp_tolerance).0;
            if let Some(paired) = newest.filter(|it| it.sequence != last_sequence) {
                last_sequence = paired.sequence;
                self.follow(&paired, &config, &around).await;
            }
        }
    }

    /// Other words hold from now on; `None`: none do.
    pub fn begin(&self, instruction: Option<(String, String)>) {
        let mut shared = self.lock();
        if instruction.is_none() {
            *shared = Shared { tracker: std::mem::take(&mut shared.tracker), ..Shared::default() };
            shared.tracker.forget();
        }
        shared.tracker.aim(&[]);
        shared.instruction = instruction;
    }

    /// The model is about to look at a frame.
    pub fn look_at(&self, stamp_ns: i64) {
        let mut shared = self.lock();
        shared.looked_at_ns = stamp_ns;
        shared.kept.retain(|it| stamp_ns < it.stamp_ns);
    }

    /// Nothing is published meanwhile: what is told under this lock comes before or after all of a frame's poses.
    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(&self, paired: &PairedMessages, config: &Config, around: &Surroundings) {
        let (camera_frame, stamp_ns) = (paired.header().frame_id.as_str(), paired.stamp_ns());
        let Some(color_size) = paired.color_size() else { return };
        let seen = around.depth.of_pair(paired, color_size, config).await;
        let (Some(depth), Some(camera)) = (seen.depth, seen.camera) else { return };
        if (depth.width(), depth.height()) != camera.size() {
            return;
        }
        let reference = config.target_frame.as_deref().unwrap_or(camera_frame);
        let located = around
            .transforms
            .target_from_source(reference, camera_frame, stamp_ns, config.transform_timeout)
            .await;
        // Without it there is no pose to tell; the result says why.
        let Ok(reference_from_camera) = located else { return };
        let kept = Kept { stamp_ns, reference_from_camera, depth, camera };
        let mut shared = self.lock();
        let followed = shared.follow(kept, reference, config);
        let mut publisher = around.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = followed.lost
            && let Some(outcome) = shared.stale(why, stamp_ns, camera_frame)
        {
            publisher.publish(&outcome, None);
            around.monitor.count(&outcome, Duration::ZERO);
        }
        if let Some(target_from_object) = followed.target_pose.filter(|_| shared.newest_pose_ns < stamp_ns) {
            shared.newest_pose_ns = stamp_ns;
            publisher.publish_target_pose(stamp_ns, &shared.reference, &target_from_object);
            around.monitor.count_tracked();
        }
    }
}

impl Shared {
    /// What was found in a frame: gives what is followed its ids, and follows it from there through the frames since. Returns what
    /// must be told before and after this outcome.
    pub fn heard(&mut self, outcome: &mut Outcome, frame: Option<&RgbdFrame>, config: &Config) -> Around {
        let stamp_ns = outcome.result.stamp_ns;
        let seen = frame.and_then(|it| Some((it, it.depth.as_ref()?, it.camera?)));
        let (Some((frame, depth, camera)), Some(target)) = (seen, outcome.target_from_camera.clone()) else {
            self.tracker.aim_at_nothing(stamp_ns);
            return Around::default();
        };
        if self.newest_ns.is_some_and(|it| it.saturating_add(CLOCK_JUMP_NS) < stamp_ns) {
            // The clock jumped back while the model looked.
            self.tracker.aim(&[]);
            return Around::default();
        }
        if target.frame_id != self.reference {
            self.start_over(&target.frame_id);
        }
        let geometry = FrameGeometry::after(depth, camera, &config.pipeline.lift, &outcome.result.planes);
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

    fn follow(&mut self, frame: Kept, reference: &str, config: &Config) -> Followed {
        if reference != self.reference {
            let lost = self.start_over(reference);
            return Followed { target_pose: None, lost };
        }
        let before = self.newest_ns.replace(frame.stamp_ns);
        if before.is_some_and(|it| frame.stamp_ns < it.saturating_sub(CLOCK_JUMP_NS)) {
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

    fn go_through(&mut self, frame: &Kept, config: &Config) -> Followed {
        let camera_from_reference = frame.reference_from_camera.inverse();
        let planes: Vec<SupportPlane> =
            self.planes.iter().map(|it| it.seen_from(&camera_from_reference)).collect();
        let geometry = FrameGeometry::after(&frame.depth, frame.camera, &config.pipeline.lift, &planes);
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
        self.newest_pose_ns = i64::MIN;
        self.looked_at_ns = i64::MIN;
        reference.clone_into(&mut self.reference);
        lost
    }

    /// A result that says so.
    fn stale(&self, why: String, stamp_ns: i64, camera_frame: &str) -> Option<Outcome> {
        let (id, text) = self.instruction.as_ref()?;
        let mut outcome = Outcome::refused(id, text, Status::Stale, why);
        outcome.result.stamp_ns = stamp_ns;
        camera_frame.clone_into(&mut outcome.result.frame_id);
        Some(outcome)
    }
}
