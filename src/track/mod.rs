//! Objects followed from frame to frame: ids that stay, poses between the model's answers, and a plain word when one is lost.
//!
//! A pose holds until the depth image says otherwise: points of the surface, where they were last, are held against what is
//! measured there. An object that moves is lifted again near its last place; one that is hidden keeps its pose for a short
//! while; one that is neither is lost. Whatever a model finds again is the object of old only where no other could be meant: two
//! alike that were hidden together for long enough to change places are both lost, because nobody can tell.
//!
//! Poses are kept in a reference frame of the caller's, so that cameras may move.

mod sight;

use std::collections::VecDeque;

use nalgebra::{Isometry3, Point3, Translation3, UnitQuaternion, Vector3};

use self::sight::{Evidence, Look};
use crate::lift::{FrameGeometry, LiftedObject, PoseSource};

/// How far a thing that is moved may get per second, meters: hands and grippers at work.
const MAX_SPEED_M_S: f64 = 0.5;
/// How far two looks at a thing that did not move may be apart, meters.
const SLACK_M: f64 = 0.03;
/// Nothing is where the object was: for so long it may still turn up, nanoseconds.
const GONE_NS: i64 = 200_000_000;
/// A lost object is remembered, lest another be taken for it, nanoseconds.
const REMEMBERED_NS: i64 = 5_000_000_000;
/// After a longer time without a frame, nothing has been seen, nanoseconds.
const MAX_GAP_NS: i64 = 350_000_000;
/// More objects are not followed.
const MAX_TRACKS: usize = 16;
/// How many surface points stand for an object.
const N_POINTS: usize = 250;
/// Poses are remembered for an answer about a frame in the past.
const MAX_PAST: usize = 256;
/// How the pose of a thing that stands still may wander, meters per square root of a second.
const WANDER_M: f64 = 0.01;

/// A moment of the camera.
#[derive(Debug, Clone, Copy)]
pub struct TrackedFrame<'a> {
    /// Acquisition time, nanoseconds.
    pub stamp_ns: i64,
    /// Where the camera's optical frame was, in the frame that poses are kept in.
    pub reference_from_camera: Isometry3<f64>,
    /// Depth and camera of that moment, with the planes in view.
    pub geometry: &'a FrameGeometry<'a>,
}

/// The objects that are followed from frame to frame.
#[derive(Debug, Default)]
pub struct Tracker {
    tracks: Vec<Track>,
    /// Id of the object that is meant.
    target: Option<String>,
    n_ids: u64,
}

/// What came of a frame.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Followed {
    /// The target's pose in the reference frame; `None` without a target, or where it is not believed to be any more.
    pub target_pose: Option<Isometry3<f64>>,
    /// The target was lost in this frame: why, as one sentence.
    pub lost: Option<String>,
}

/// Whether an object is where its pose says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It is seen there.
    Seen,
    /// Something is in front, or there is no depth.
    Hidden,
    /// What is behind it is seen.
    Gone,
    /// It was hidden for too long, or may be another one: it is not followed any more.
    Lost,
}

#[derive(Debug)]
struct Track {
    id: String,
    phrase: String,
    reference_from_object: Isometry3<f64>,
    variance_m2: f64,
    size_m: Vector3<f64>,
    /// Points of its surface in the object's frame, meters.
    surface: Vec<Point3<f64>>,
    sight: Sight,
    /// Nothing hides more than a little of it.
    is_in_the_open: bool,
    /// When it was last seen.
    seen_ns: i64,
    /// Acquisition time of the frame that this state is of, nanoseconds.
    stamp_ns: i64,
    past: VecDeque<Past>,
}

#[derive(Debug, Clone, Copy)]
struct Past {
    stamp_ns: i64,
    seen_ns: i64,
    is_in_the_open: bool,
    position: Point3<f64>,
}

/// A place that is taken.
struct Claim {
    track: usize,
    position: Point3<f64>,
}

impl Tracker {
    /// Forgets everything but how many ids were given.
    pub fn forget(&mut self) {
        *self = Self { n_ids: self.n_ids, ..Self::default() };
    }

    /// Whether there is anything to follow.
    pub fn is_empty(&self) -> bool {
        self.tracks.iter().all(|it| it.sight == Sight::Lost)
    }

    /// Whether an object has not been followed up to a time.
    pub fn is_behind(&self, stamp_ns: i64) -> bool {
        self.tracks.iter().any(|it| it.sight != Sight::Lost && it.stamp_ns < stamp_ns)
    }

    /// Id of the object that is meant, while it is followed.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Where an object is in the reference frame, and whether it is seen there; `None` when it is not followed.
    pub fn pose(&self, id: &str) -> Option<(Isometry3<f64>, Sight)> {
        let track = self.tracks.iter().find(|it| it.id == id && it.sight != Sight::Lost)?;
        Some((track.reference_from_object, track.sight))
    }

    /// Takes in what a model found in `frame`, which may be some time ago: each with the phrase that it was looked for by.
    /// Returns their ids, those of old where they are the same objects; `None` for what is not followed.
    ///
    /// Frames that came after this one must be followed (again): objects that are new go through them.
    pub fn observe(
        &mut self,
        frame: &TrackedFrame<'_>,
        objects: &[(&str, &LiftedObject)],
    ) -> Vec<Option<String>> {
        let observed: Vec<Option<Observed<'_>>> =
            objects.iter().map(|(phrase, lifted)| Observed::new(phrase, lifted, frame)).collect();
        let matched = self.matches(&observed, frame.stamp_ns);
        let mut ids: Vec<Option<String>> = vec![None; observed.len()];
        // All that are known first: beginning new ones moves the others about.
        for (object, track) in matched.into_iter().enumerate() {
            if let (Some(it), Some(track)) = (&observed[object], track) {
                if self.tracks[track].sight != Sight::Lost {
                    self.tracks[track].correct(it, frame.stamp_ns);
                }
                ids[object] = Some(self.tracks[track].id.clone());
            }
        }
        for (id, it) in ids.iter_mut().zip(&observed) {
            *id = id.take().or_else(|| self.begin(it.as_ref()?, frame.stamp_ns));
        }
        ids
    }

    /// The words mean these objects now, best first; what has been lost since is none of them. The target stays the same as
    /// long as it is among them. Returns one sentence when it does not: whoever follows it must be told first.
    pub fn aim(&mut self, ids: &[String]) -> Option<String> {
        let old = self.target.take();
        let kept = old.clone().filter(|it| ids.contains(it));
        self.target = kept.or_else(|| ids.iter().find(|it| self.pose(it).is_some()).cloned());
        match (&old, &self.target) {
            (Some(old), Some(new)) if old != new => {
                Some(format!("{old} is no longer what the words mean: {new} is, and is followed from now on"))
            }
            _ => None,
        }
    }

    /// No object is meant any more, as seen at a time: a target of which something was hidden then is still waited for.
    pub fn aim_at_nothing(&mut self, stamp_ns: i64) {
        let target = self.target.as_ref().and_then(|id| self.tracks.iter().find(|it| it.id == *id));
        if target.is_none_or(|it| it.at(stamp_ns).is_none_or(|past| past.is_in_the_open)) {
            self.target = None;
        }
    }

    /// Follows all objects into the next frame. One that is hidden is lost after `max_unseen_ns`. A frame
    /// before the last one is for new objects, which have not been followed through it.
    pub fn follow(&mut self, frame: &TrackedFrame<'_>, max_unseen_ns: i64) -> Followed {
        for track in self.tracks.iter_mut().filter(|it| MAX_GAP_NS < frame.stamp_ns - it.stamp_ns) {
            track.sight = if track.sight == Sight::Seen { Sight::Hidden } else { track.sight };
        }
        let lost_in_gap = self.give_up(frame.stamp_ns, i64::MAX);
        let camera_from_reference = frame.reference_from_camera.inverse();
        let mut claims = Vec::new();
        let mut evidences: Vec<(usize, Evidence)> = Vec::new();
        for (idx, track) in self.tracks.iter().enumerate().filter(|(_, it)| it.sight != Sight::Lost) {
            if track.stamp_ns < frame.stamp_ns {
                let camera_from_object = camera_from_reference * track.reference_from_object;
                evidences.push((idx, Evidence::weigh(frame.geometry, &camera_from_object, &track.surface)));
            } else if let Some(past) = track.at(frame.stamp_ns).filter(|it| it.seen_ns == it.stamp_ns) {
                claims.push(Claim { track: idx, position: past.position });
            }
        }
        // Those that are surely where they were take their places first.
        evidences.sort_by(|a, b| b.1.share_there().total_cmp(&a.1.share_there()));
        for (idx, evidence) in evidences {
            let track = &self.tracks[idx];
            let is_taken = |position: &Point3<f64>| {
                claims.iter().any(|claim| {
                    let other = &self.tracks[claim.track];
                    other.phrase == track.phrase && (claim.position - position).norm() < track.half_width_m()
                })
            };
            let is_nearest = |position: &Point3<f64>| {
                let own = (position - track.position()).norm();
                let alike = self.tracks.iter().enumerate();
                let mut alike = alike.filter(|(other, it)| {
                    *other != idx && it.phrase == track.phrase && it.sight != Sight::Lost
                });
                alike.all(|(_, it)| own < (position - it.position()).norm())
            };
            let is_target = self.target.as_ref() == Some(&track.id);
            let look = evidence.look(frame, track, is_target, &is_nearest);
            let is_in_the_open = evidence.is_in_the_open();
            let position = match &look {
                Look::Moved(lifted) => frame.reference_from_camera * lifted.body_center,
                Look::There | Look::Hidden | Look::Gone => track.position(),
            };
            let look = match look {
                Look::There | Look::Moved(_) if is_taken(&position) => Look::Hidden,
                look => look,
            };
            if matches!(look, Look::There | Look::Moved(_)) {
                claims.push(Claim { track: idx, position });
            }
            self.tracks[idx].advance(look, is_in_the_open, frame);
        }
        let lost = self.give_up(frame.stamp_ns, max_unseen_ns);
        let target = self.target.as_ref().and_then(|id| self.tracks.iter().find(|it| it.id == *id));
        let believed = target.filter(|it| matches!(it.sight, Sight::Seen | Sight::Hidden));
        Followed { target_pose: believed.map(|it| it.reference_from_object), lost: lost_in_gap.or(lost) }
    }

    /// Which track each observed object is, if any.
    fn matches(&self, observed: &[Option<Observed<'_>>], stamp_ns: i64) -> Vec<Option<usize>> {
        let mut matched: Vec<Option<usize>> = vec![None; observed.len()];
        // (was unseen then, distance, track, object)
        let mut pairs: Vec<(bool, f64, usize, usize)> = Vec::new();
        for (idx, track) in self.tracks.iter().enumerate() {
            let Some(past) = track.at(stamp_ns) else { continue };
            let unseen_ns = stamp_ns - past.seen_ns;
            let is_unseen = past.seen_ns < past.stamp_ns || MAX_GAP_NS < unseen_ns;
            for (object, it) in observed.iter().enumerate() {
                let Some(it) = it.as_ref().filter(|it| it.phrase == track.phrase) else { continue };
                let distance = (it.position() - past.position).norm();
                let reach = track.half_width_m().max(SLACK_M) + MAX_SPEED_M_S * seconds(unseen_ns);
                if distance <= reach && (!is_unseen || track.is_as_large_as(&it.lifted.size_m)) {
                    pairs.push((is_unseen, distance, idx, object));
                }
            }
        }
        pairs.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut is_taken = vec![false; self.tracks.len()];
        for &(is_unseen, _, track, object) in &pairs {
            // One that was seen then, and was lost since, is meant; after its loss it is not known again.
            let is_lost = is_unseen && self.tracks[track].sight == Sight::Lost;
            if is_taken[track] || matched[object].is_some() || is_lost {
                continue;
            }
            // One that was out of sight is known again only where it could be no other.
            let is_rival = |it: &&(bool, f64, usize, usize)| {
                let is_other = (it.2 == track && it.3 != object) || (it.2 != track && it.3 == object);
                is_other && !is_taken[it.2] && matched[it.3].is_none()
            };
            if is_unseen && pairs.iter().any(|it| is_rival(&it)) {
                continue;
            }
            is_taken[track] = true;
            matched[object] = Some(track);
        }
        matched
    }

    fn begin(&mut self, observed: &Observed<'_>, stamp_ns: i64) -> Option<String> {
        let place = observed.position();
        // The same place: what was lost there is found, as something new.
        self.tracks.retain(|it| it.sight != Sight::Lost || SLACK_M < (it.position() - place).norm());
        if MAX_TRACKS <= self.tracks.iter().filter(|it| it.sight != Sight::Lost).count() {
            return None;
        }
        let id = format!("{}_t{}", observed.phrase.replace(' ', "_"), self.n_ids);
        self.n_ids += 1;
        let mut track = Track {
            id: id.clone(),
            phrase: observed.phrase.to_owned(),
            reference_from_object: observed.reference_from_object,
            variance_m2: observed.variance_m2(),
            size_m: observed.lifted.size_m,
            surface: observed.surface.clone(),
            sight: Sight::Seen,
            is_in_the_open: true,
            seen_ns: stamp_ns,
            stamp_ns,
            past: VecDeque::new(),
        };
        track.remember();
        self.tracks.push(track);
        Some(id)
    }

    /// Marks as lost what was out of sight for too long, and what may have changed places out of sight. Returns why, if
    /// the target is.
    fn give_up(&mut self, now_ns: i64, max_unseen_ns: i64) -> Option<String> {
        let mut reasons: Vec<(usize, String)> = Vec::new();
        for (idx, track) in self.tracks.iter().enumerate().filter(|(_, it)| it.sight != Sight::Lost) {
            let unseen_ns = now_ns - track.seen_ns;
            let limit_ns =
                if track.sight == Sight::Gone { max_unseen_ns.min(GONE_NS) } else { max_unseen_ns };
            if track.sight != Sight::Seen && limit_ns <= unseen_ns {
                let how = if track.sight == Sight::Gone { "is not where it was" } else { "is hidden" };
                reasons.push((
                    idx,
                    format!("{} was lost: it {how} since {:.1} s", track.id, seconds(unseen_ns)),
                ));
                continue;
            }
            let is_alike = |it: &&Track| {
                it.id != track.id
                    && it.phrase == track.phrase
                    && it.sight != Sight::Seen
                    && it.is_as_large_as(&track.size_m)
            };
            let changed = self.tracks.iter().filter(is_alike).find(|it| {
                let together_ns = now_ns - it.seen_ns.max(track.seen_ns);
                let apart_m = (it.position() - track.position()).norm();
                apart_m <= MAX_SPEED_M_S * seconds(together_ns)
            });
            if let Some(other) = changed.filter(|_| track.sight != Sight::Seen) {
                let why = format!(
                    "{} was lost: it was out of sight together with {}, and they may have changed places",
                    track.id, other.id
                );
                reasons.push((idx, why));
            }
        }
        let mut of_target = None;
        for (idx, why) in reasons {
            self.tracks[idx].sight = Sight::Lost;
            if self.target.as_ref() == Some(&self.tracks[idx].id) {
                self.target = None;
                of_target = Some(why);
            }
        }
        self.tracks.retain(|it| it.sight != Sight::Lost || now_ns - it.seen_ns < REMEMBERED_NS);
        of_target
    }
}

/// What a model found, as far as it can be followed.
struct Observed<'a> {
    phrase: &'a str,
    lifted: &'a LiftedObject,
    reference_from_object: Isometry3<f64>,
    surface: Vec<Point3<f64>>,
}

impl<'a> Observed<'a> {
    fn new(phrase: &'a str, lifted: &'a LiftedObject, frame: &TrackedFrame<'_>) -> Option<Self> {
        if lifted.source != PoseSource::Depth {
            return None;
        }
        let surface = sight::surface(frame.geometry, lifted);
        let reference_from_object = frame.reference_from_camera * lifted.object_in_camera;
        (!surface.is_empty()).then_some(Self { phrase, lifted, reference_from_object, surface })
    }

    fn position(&self) -> Point3<f64> {
        Point3::from(self.reference_from_object.translation.vector)
    }

    fn variance_m2(&self) -> f64 {
        variance_m2(self.lifted)
    }
}

impl Track {
    fn position(&self) -> Point3<f64> {
        Point3::from(self.reference_from_object.translation.vector)
    }

    fn half_width_m(&self) -> f64 {
        0.5 * self.size_m.x.min(self.size_m.y)
    }

    fn is_as_large_as(&self, size_m: &Vector3<f64>) -> bool {
        (self.size_m - size_m)
            .abs()
            .zip_fold(&self.size_m, true, |all, off, size| all && off <= 0.01 + 0.35 * size)
    }

    /// The state at a time; `None` from before it was known.
    fn at(&self, stamp_ns: i64) -> Option<Past> {
        self.past.iter().rev().find(|it| it.stamp_ns <= stamp_ns).copied()
    }

    fn remember(&mut self) {
        let (stamp_ns, seen_ns, is_in_the_open) = (self.stamp_ns, self.seen_ns, self.is_in_the_open);
        self.past.push_back(Past { stamp_ns, seen_ns, is_in_the_open, position: self.position() });
        if MAX_PAST < self.past.len() {
            self.past.pop_front();
        }
    }

    /// Takes in where a model and depth found it at a time in the past.
    fn correct(&mut self, observed: &Observed<'_>, stamp_ns: i64) {
        self.size_m = observed.lifted.size_m;
        self.surface.clone_from(&observed.surface);
        if self.sight == Sight::Seen
            && let Some(past) = self.at(stamp_ns)
        {
            // It may have moved since, and that is known: only the error of then is taken back.
            let error = observed.position() - past.position;
            let at = self.position() + error * self.gain(observed.variance_m2());
            self.turn_to(&observed.reference_from_object.rotation, observed.lifted, 0.5);
            self.reference_from_object.translation = Translation3::from(at.coords);
        } else {
            self.reference_from_object = observed.reference_from_object;
            self.variance_m2 = observed.variance_m2();
            self.sight = Sight::Seen;
            self.is_in_the_open = true;
            self.seen_ns = stamp_ns;
            self.stamp_ns = stamp_ns;
            self.past.retain(|it| it.stamp_ns < stamp_ns);
            self.remember();
        }
    }

    /// The state at a frame after what was seen in it.
    fn advance(&mut self, look: Look, is_in_the_open: bool, frame: &TrackedFrame<'_>) {
        self.is_in_the_open = is_in_the_open;
        self.variance_m2 += WANDER_M.powi(2) * seconds(frame.stamp_ns - self.stamp_ns);
        self.stamp_ns = frame.stamp_ns;
        match look {
            Look::There => self.sight = Sight::Seen,
            Look::Hidden => self.sight = Sight::Hidden,
            Look::Gone => self.sight = Sight::Gone,
            Look::Moved(lifted) => {
                self.sight = Sight::Seen;
                let measured = frame.reference_from_camera * lifted.object_in_camera;
                let error = measured.translation.vector - self.reference_from_object.translation.vector;
                let has_moved = 9.0 * (self.variance_m2 + variance_m2(&lifted)) < error.norm_squared();
                let gain = if has_moved { 1.0 } else { self.gain(variance_m2(&lifted)) };
                self.turn_to(&measured.rotation, &lifted, gain);
                self.reference_from_object.translation.vector += error * gain;
                self.surface = sight::surface(frame.geometry, &lifted);
                let object_from_measured = self.reference_from_object.inverse() * measured;
                for point in &mut self.surface {
                    *point = object_from_measured * *point;
                }
            }
        }
        if self.sight == Sight::Seen {
            self.seen_ns = frame.stamp_ns;
        }
        self.remember();
    }

    /// Share of an error that is taken back (Kalman's), and the variance after that.
    fn gain(&mut self, measured_m2: f64) -> f64 {
        let gain = self.variance_m2 / (self.variance_m2 + measured_m2).max(1e-12);
        self.variance_m2 *= 1.0 - gain;
        gain
    }

    /// Turns toward what was measured; a box turned by half is the same box, one with a square footprint by a quarter, and a
    /// round one by any angle.
    fn turn_to(&mut self, measured: &UnitQuaternion<f64>, lifted: &LiftedObject, gain: f64) {
        let n_turns = if lifted.size_m.x < 1.2 * lifted.size_m.y { 4 } else { 2 };
        if lifted.is_back_completed {
            return;
        }
        let alike = (0..n_turns).map(|it| {
            let turn = f64::from(it) * std::f64::consts::TAU / f64::from(n_turns);
            measured * UnitQuaternion::from_axis_angle(&Vector3::z_axis(), turn)
        });
        let now = self.reference_from_object.rotation;
        let nearest = alike.min_by(|a, b| now.angle_to(a).total_cmp(&now.angle_to(b)));
        if let Some(turned) = nearest.and_then(|it| now.try_slerp(&it, gain, 1e-9)) {
            self.reference_from_object.rotation = turned;
        }
    }
}

fn variance_m2(lifted: &LiftedObject) -> f64 {
    (0..3).map(|axis| lifted.covariance[(axis, axis)]).sum::<f64>() / 3.0
}

fn seconds(ns: i64) -> f64 {
    ns.max(0) as f64 * 1e-9
}
