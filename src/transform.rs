//! The TF tree at a time: where frames were relative to each other when an image was taken.
//!
//! Wraps the `transforms` crate (strict, interpolating, no clock) in the core's types and in errors that tell a person
//! which frames are missing and which are known.

use std::collections::BTreeMap;
use std::time::Duration;

use nalgebra::{Isometry3, Matrix6, Quaternion, Translation3, UnitQuaternion};
use transforms::Registry;
use transforms::errors::RegistryError;
use transforms::geometry::{Quaternion as TreeQuaternion, Transform, Vector3};
use transforms::time::{Stamp, Timestamp};

/// Longest list of known frames in an error.
const MAX_FRAMES_NAMED: usize = 12;
/// A rotation whose norm differs from 1 by more is not one that rounding made.
const MAX_NORM_ERROR: f64 = 0.01;
/// Publishers of the same edge may be apart by so much; an edge whose stamp goes back by more shows that time did.
const MAX_DISORDER_NS: i64 = 100_000_000;
/// So many stamps in a row under an edge's newest show that time stepped back, however little.
const MAX_BEHIND: u32 = 2;
/// A frame that comes back to an earlier parent so soon has two publishers.
const DISPUTE_NS: i64 = 1_000_000_000;

/// When a transform holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransformStamp {
    /// At all times.
    Static,
    /// At this time, nanoseconds.
    At(i64),
}

/// One edge of the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct StampedTransform {
    /// TF's `header.frame_id`.
    pub parent: String,
    /// TF's `child_frame_id`.
    pub child: String,
    /// Meters.
    pub parent_from_child: Isometry3<f64>,
    /// When it holds.
    pub stamp: TransformStamp,
}

/// Why a transform is not there, or was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TransformError {
    /// Nobody has told of a frame.
    #[error(
        "expected a transform to {target:?} from {source_frame:?}, but TF has no frame {missing:?}; it has {known}"
    )]
    UnknownFrame {
        /// Frame asked for.
        target: String,
        /// Frame started from.
        source_frame: String,
        /// The one that is missing.
        missing: String,
        /// All frames, sorted.
        known: String,
    },
    /// Both are there, in trees that do not touch.
    #[error(
        "expected a transform to {target:?} from {source_frame:?}, but TF does not connect them; \
         their trees have the roots {target_root:?} and {source_root:?}"
    )]
    Disconnected {
        /// Frame asked for.
        target: String,
        /// Frame started from.
        source_frame: String,
        /// Topmost frame over the target.
        target_root: String,
        /// Topmost frame over the source.
        source_root: String,
    },
    /// Connected, but not at that time.
    #[error(
        "expected a transform to {target:?} from {source_frame:?} at {stamp_secs:.3} s, \
         but TF knows {frame:?} {covered}"
    )]
    NotAtTime {
        /// Frame asked for.
        target: String,
        /// Frame started from.
        source_frame: String,
        /// Time asked for, seconds.
        stamp_secs: f64,
        /// The edge that does not reach.
        frame: String,
        /// What it covers, in words.
        covered: String,
    },
    /// Publishers that contradict each other; the newest word holds.
    #[error(
        "TF puts {child:?} both in {parent:?} and in {other_parent:?}: a frame has one parent, stop one of the publishers"
    )]
    TwoParents {
        /// TF's `child_frame_id`.
        child: String,
        /// TF's `header.frame_id`, now.
        parent: String,
        /// And before.
        other_parent: String,
    },
    /// A transform that cannot be part of a tree.
    #[error("transform of {child:?} in {parent:?} refused: {problem}")]
    Refused {
        /// TF's `header.frame_id`.
        parent: String,
        /// TF's `child_frame_id`.
        child: String,
        /// Expected, got.
        problem: String,
    },
}

/// Frames with their history.
#[derive(Debug)]
pub struct TransformTree {
    registry: Registry<Timestamp>,
    /// By child.
    edges: BTreeMap<String, Edge>,
}

/// The newest that is known of an edge.
#[derive(Debug)]
struct Edge {
    parent: String,
    moves: bool,
    /// `None` for a static one.
    newest_ns: Option<i64>,
    /// Stamps under `newest_ns` that came in a row.
    n_behind: u32,
    /// The parent before this one, and the stamp when it changed.
    former: Option<(String, Option<i64>)>,
}

impl TransformTree {
    /// An empty tree that keeps `max_age` of history.
    pub fn new(max_age: Duration) -> Self {
        Self { registry: Registry::with_max_age(max_age), edges: BTreeMap::new() }
    }

    /// Takes an edge in. A frame that comes with another parent than before moves there. When an edge's stamps go back, so did
    /// time (a simulation was reset, a bag starts over), and nothing that moved before holds any more.
    ///
    /// # Errors
    /// It cannot be part of a tree; or it was taken in, and contradicts what another publisher says.
    pub fn insert(&mut self, edge: &StampedTransform) -> Result<(), TransformError> {
        let (parent, child) = (bare(&edge.parent).to_owned(), bare(&edge.child).to_owned());
        let refused = |problem: String| TransformError::Refused {
            parent: edge.parent.clone(),
            child: edge.child.clone(),
            problem,
        };
        let transform = to_tree(&parent, &child, edge).map_err(refused)?;
        let stamp_ns = match edge.stamp {
            TransformStamp::Static => None,
            TransformStamp::At(stamp_ns) => Some(stamp_ns),
        };
        if self.shows_step_back(&child, stamp_ns) {
            self.forget_moving();
        }
        let known = self.edges.get(&child);
        let is_moved = known.is_some_and(|it| it.parent != parent || it.moves != stamp_ns.is_some());
        if is_moved {
            self.registry.remove_frame(&child);
        }
        let disputed = known.filter(|_| is_moved).and_then(|it| it.disputed_by(&parent, stamp_ns));
        let former = match known {
            Some(it) if it.parent != parent => Some((it.parent.clone(), stamp_ns)),
            Some(it) => it.former.clone(),
            None => None,
        };
        let newest_ns = known.filter(|_| !is_moved).and_then(|it| it.newest_ns).max(stamp_ns);
        let n_behind = known.map_or(0, |it| if stamp_ns < newest_ns { it.n_behind + 1 } else { 0 });
        if is_moved {
            // It is in the tree under its new parent, or nowhere.
            self.edges.remove(&child);
        }
        self.registry.add_transform(transform).map_err(|err| refused(err.to_string()))?;
        let moves = stamp_ns.is_some();
        self.edges.insert(child.clone(), Edge { parent: parent.clone(), moves, newest_ns, n_behind, former });
        disputed
            .map_or(Ok(()), |other_parent| Err(TransformError::TwoParents { child, parent, other_parent }))
    }

    /// Drops all that was said of moving frames: it was at another time than it says.
    pub fn forget_moving(&mut self) {
        let moving: Vec<String> =
            self.edges.iter().filter(|(_, it)| it.moves).map(|(child, _)| child.clone()).collect();
        for child in moving {
            self.registry.remove_frame(&child);
            self.edges.remove(&child);
        }
    }

    /// The transform that takes points of `source` to `target` at a time; interpolated, never extrapolated.
    pub fn target_from_source(
        &self,
        target: &str,
        source: &str,
        stamp_ns: i64,
    ) -> Result<Isometry3<f64>, TransformError> {
        let (target, source) = (bare(target), bare(source));
        for frame in [target, source] {
            if target != source && !self.knows(frame) {
                return Err(TransformError::UnknownFrame {
                    target: target.to_owned(),
                    source_frame: source.to_owned(),
                    missing: frame.to_owned(),
                    known: self.known_frames(),
                });
            }
        }
        let at = Timestamp::from_nanos(u64::try_from(stamp_ns).unwrap_or(0));
        let transform = self.registry.get_transform(target, source, at).map_err(|err| match err {
            RegistryError::NotFoundAt { frame, covered, .. } => TransformError::NotAtTime {
                target: target.to_owned(),
                source_frame: source.to_owned(),
                stamp_secs: stamp_ns as f64 * 1e-9,
                frame,
                covered: covered.map_or("at no time".to_owned(), |(from, to)| {
                    format!("from {:.3} s to {:.3} s", from.as_seconds_lossy(), to.as_seconds_lossy())
                }),
            },
            _ => TransformError::Disconnected {
                target: target.to_owned(),
                source_frame: source.to_owned(),
                target_root: self.root(target),
                source_root: self.root(source),
            },
        })?;
        let (translation, rotation) = (transform.translation(), transform.rotation());
        Ok(Isometry3::from_parts(
            Translation3::new(translation.x, translation.y, translation.z),
            UnitQuaternion::from_quaternion(Quaternion::new(rotation.w, rotation.x, rotation.y, rotation.z)),
        ))
    }

    /// All frames, sorted, in words.
    pub fn known_frames(&self) -> String {
        let mut frames: Vec<&str> =
            self.edges.iter().flat_map(|(child, it)| [child.as_str(), it.parent.as_str()]).collect();
        frames.sort_unstable();
        frames.dedup();
        let n_more = frames.len().saturating_sub(MAX_FRAMES_NAMED);
        frames.truncate(MAX_FRAMES_NAMED);
        match (frames.is_empty(), n_more) {
            (true, _) => "no frames at all: is anything publishing /tf and /tf_static?".to_owned(),
            (false, 0) => frames.join(", "),
            (false, n_more) => format!("{} and {n_more} more", frames.join(", ")),
        }
    }

    fn knows(&self, frame: &str) -> bool {
        self.edges.contains_key(frame) || self.edges.values().any(|it| it.parent == frame)
    }

    fn root(&self, frame: &str) -> String {
        // The registry admits no cycles.
        let mut root = frame;
        while let Some(edge) = self.edges.get(root) {
            root = &edge.parent;
        }
        root.to_owned()
    }

    fn shows_step_back(&self, child: &str, stamp_ns: Option<i64>) -> bool {
        let known = self.edges.get(child).and_then(|it| Some((it.newest_ns?, it.n_behind)));
        known.zip(stamp_ns).is_some_and(|((newest_ns, n_behind), stamp_ns)| {
            let back_ns = newest_ns.saturating_sub(stamp_ns);
            back_ns > MAX_DISORDER_NS || back_ns > 0 && n_behind + 1 >= MAX_BEHIND
        })
    }
}

impl Edge {
    /// The parent that another publisher gives this frame, if one seems to. Things that are taken along change parents too, but
    /// do not come back within a moment.
    fn disputed_by(&self, parent: &str, stamp_ns: Option<i64>) -> Option<String> {
        if self.parent == parent {
            return None;
        }
        let is_dispute = match (self.moves, stamp_ns, &self.former) {
            (false, None, _) => true,
            (_, _, Some((former, changed_ns))) if former == parent => {
                changed_ns.zip(stamp_ns).is_none_or(|(before, now)| now.saturating_sub(before) < DISPUTE_NS)
            }
            _ => false,
        };
        is_dispute.then(|| self.parent.clone())
    }
}

/// A covariance over (x, y, z, rotation about x, y, z) given along the axes of one frame, along the axes of another:
/// both 3x3 blocks turn with the axes (R C R^T), as `transformCovariance` of `tf2_geometry_msgs` does.
pub fn rotate_covariance(
    target_from_source: &UnitQuaternion<f64>,
    covariance_in_source: &Matrix6<f64>,
) -> Matrix6<f64> {
    let rotation = target_from_source.to_rotation_matrix();
    let mut both = Matrix6::zeros();
    both.fixed_view_mut::<3, 3>(0, 0).copy_from(rotation.matrix());
    both.fixed_view_mut::<3, 3>(3, 3).copy_from(rotation.matrix());
    both * covariance_in_source * both.transpose()
}

/// TF 2 names have no leading slash; those of older publishers may.
fn bare(frame: &str) -> &str {
    frame.strip_prefix('/').unwrap_or(frame)
}

fn to_tree(parent: &str, child: &str, edge: &StampedTransform) -> Result<Transform<Timestamp>, String> {
    let Isometry3 { rotation, translation } = edge.parent_from_child;
    let norm = rotation.coords.norm();
    if norm.is_nan() || (norm - 1.0).abs() > MAX_NORM_ERROR {
        return Err(format!("expected a rotation quaternion of norm 1, got norm {norm}"));
    }
    let quaternion = rotation.coords / norm;
    let stamp = match edge.stamp {
        TransformStamp::Static => Stamp::Static,
        TransformStamp::At(stamp_ns) => Stamp::At(Timestamp::from_nanos(
            u64::try_from(stamp_ns).map_err(|_| format!("expected a stamp after 1970, got {stamp_ns} ns"))?,
        )),
    };
    Transform::new(
        parent,
        child,
        Vector3::new(translation.x, translation.y, translation.z),
        TreeQuaternion::from_wxyz(quaternion.w, quaternion.x, quaternion.y, quaternion.z),
        stamp,
    )
    .map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use nalgebra::{Point3, Vector3 as Vector, Vector6};

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn edge(parent: &str, child: &str, x: f64, yaw: f64, stamp: TransformStamp) -> StampedTransform {
        let parent_from_child = Isometry3::new(Vector::new(x, 0.0, 0.0), Vector::z() * yaw);
        StampedTransform { parent: parent.to_owned(), child: child.to_owned(), parent_from_child, stamp }
    }

    fn tree(edges: &[StampedTransform]) -> TransformTree {
        let mut tree = TransformTree::new(Duration::from_secs(10));
        for edge in edges {
            tree.insert(edge).unwrap();
        }
        tree
    }

    #[test]
    fn moving_and_static_edges_compose_at_the_time_asked_for() {
        let tree = tree(&[
            edge("map", "base", 1.0, 0.0, TransformStamp::At(100 * SECOND)),
            edge("map", "base", 2.0, 0.0, TransformStamp::At(101 * SECOND)),
            edge("base", "/camera", 0.5, std::f64::consts::FRAC_PI_2, TransformStamp::Static),
        ]);
        let map_from_camera = tree.target_from_source("map", "camera", 100 * SECOND + SECOND / 2).unwrap();
        // One meter along the camera's x axis is one along the map's y axis.
        let point = map_from_camera * Point3::new(1.0, 0.0, 0.0);
        assert!((point - Point3::new(2.0, 1.0, 0.0)).norm() < 1e-9, "{point}");
        assert_eq!(tree.target_from_source("x", "x", 0).unwrap(), Isometry3::identity(), "a frame is itself");
    }

    #[test]
    fn a_moving_camera_is_where_it_was_at_the_stamp() {
        // 1 m/s along x and 1 rad/s about z, told at 50 Hz; looked up between.
        let pose_at = |secs: f64| Isometry3::new(Vector::new(secs, 0.0, 0.0), Vector::z() * secs);
        let mut tree = TransformTree::new(Duration::from_secs(10));
        for tick in 0..100 {
            let stamp = TransformStamp::At(100 * SECOND + tick * SECOND / 50);
            let parent_from_child = pose_at(tick as f64 / 50.0);
            let (parent, child) = ("map".to_owned(), "camera".to_owned());
            tree.insert(&StampedTransform { parent, child, parent_from_child, stamp }).unwrap();
        }
        let object_in_map = Point3::new(0.5, 1.0, 0.3);
        for millis in (3..1950).step_by(7) {
            let secs = millis as f64 * 1e-3;
            let seen = pose_at(secs).inverse() * object_in_map;
            let map_from_camera =
                tree.target_from_source("map", "camera", 100 * SECOND + millis * 1_000_000).unwrap();
            assert!((map_from_camera * seen - object_in_map).norm() < 0.002, "at {millis} ms");
        }
        // Neither extrapolated nor, beyond the cache, invented.
        assert!(tree.target_from_source("map", "camera", 103 * SECOND).is_err());
        assert!(tree.target_from_source("map", "camera", 99 * SECOND).is_err());
    }

    #[test]
    fn errors_name_the_frames() {
        let tree = tree(&[
            edge("map", "base", 1.0, 0.0, TransformStamp::At(100 * SECOND)),
            edge("world", "camera", 1.0, 0.0, TransformStamp::Static),
        ]);
        let check = |target: &str, source: &str, stamp_ns: i64, says: &[&str]| {
            let sentence = tree.target_from_source(target, source, stamp_ns).unwrap_err().to_string();
            for it in says {
                assert!(sentence.contains(it), "{sentence:?} lacks {it:?}");
            }
        };
        check("odom", "camera", 0, &["no frame \"odom\"", "base, camera, map, world"]);
        check("map", "lens", 0, &["no frame \"lens\""]);
        check("map", "camera", 100 * SECOND, &["does not connect", "\"map\" and \"world\""]);
        check("map", "base", 101 * SECOND, &["at 101.000 s", "from 100.000 s to 100.000 s"]);
        let empty = TransformTree::new(Duration::from_secs(1));
        let sentence = empty.target_from_source("a", "b", 0).unwrap_err().to_string();
        assert!(sentence.contains("/tf"), "{sentence}");
    }

    #[test]
    fn what_is_no_transform_is_refused() {
        let mut tree = TransformTree::new(Duration::from_secs(10));
        let mut bad = edge("a", "b", f64::NAN, 0.0, TransformStamp::Static);
        assert!(tree.insert(&bad).is_err());
        bad.parent_from_child.translation.x = 0.0;
        bad.parent_from_child.rotation = UnitQuaternion::new_unchecked(Quaternion::new(0.0, 0.0, 0.0, 0.0));
        assert!(tree.insert(&bad).unwrap_err().to_string().contains("norm 0"));
        assert!(tree.insert(&edge("a", "a", 0.0, 0.0, TransformStamp::Static)).is_err());
        assert!(tree.insert(&edge("a", "b", 0.0, 0.0, TransformStamp::At(-1))).is_err());
    }

    #[test]
    fn after_a_step_back_nothing_older_serves() {
        // Before the step the camera stood at 5 m, after it at 7 m; both were told for the same stamps.
        for (rate_hz, step_ns) in [(10, 5 * SECOND), (10, 40 * SECOND), (50, SECOND / 5), (50, SECOND / 12)] {
            let mut tree = tree(&[edge("base", "camera", 1.0, 0.0, TransformStamp::Static)]);
            let ticks = |from: i64, n: i64| (0..n).map(move |it| from + it * SECOND / rate_hz);
            for stamp_ns in ticks(100 * SECOND, 8 * rate_hz) {
                tree.insert(&edge("odom", "base", 5.0, 0.0, TransformStamp::At(stamp_ns))).unwrap();
                tree.insert(&edge("map", "odom", 0.0, 0.0, TransformStamp::At(stamp_ns))).unwrap();
            }
            let again = 108 * SECOND - step_ns;
            for (n, stamp_ns) in ticks(again, 3).enumerate() {
                tree.insert(&edge("odom", "base", 7.0, 0.0, TransformStamp::At(stamp_ns))).unwrap();
                if MAX_DISORDER_NS < step_ns || 0 < n {
                    let newest = tree.target_from_source("odom", "camera", stamp_ns).unwrap().translation.x;
                    assert!((newest - 8.0).abs() < 1e-12, "{step_ns} ns back: {newest}");
                    assert!(tree.target_from_source("odom", "camera", 107 * SECOND + 999_000_000).is_err());
                    assert!(tree.target_from_source("odom", "base", again - 1).is_err());
                    assert!(tree.target_from_source("map", "base", stamp_ns).is_err(), "of before the step");
                }
            }
        }
    }

    #[test]
    fn two_publishers_of_an_edge_are_no_step_back() {
        let mut tree = TransformTree::new(Duration::from_secs(10));
        for tick in 0..50 {
            for late in [0, 1] {
                let stamp = TransformStamp::At(100 * SECOND + (tick - late) * SECOND / 20);
                tree.insert(&edge("map", "base", 1.0, 0.0, stamp)).unwrap();
            }
        }
        assert!(tree.target_from_source("map", "base", 101 * SECOND).is_ok(), "history is kept");
        // An edge whose clock is another one disturbs nobody.
        tree.insert(&edge("map", "lamp", 1.0, 0.0, TransformStamp::At(SECOND))).unwrap();
        assert!(tree.target_from_source("map", "base", 101 * SECOND).is_ok());
    }

    #[test]
    fn frames_change_parents_and_have_one_at_a_time() {
        let moving =
            |parent: &str, secs: i64| edge(parent, "cup", 1.0, 0.0, TransformStamp::At(secs * SECOND));
        let mut tree = tree(&[moving("table", 100), edge("map", "lens", 0.0, 0.0, TransformStamp::Static)]);
        // Taken along, and put back.
        tree.insert(&moving("gripper", 101)).unwrap();
        assert!(tree.target_from_source("gripper", "cup", 101 * SECOND).is_ok());
        tree.insert(&moving("table", 105)).unwrap();
        let sentence = tree.insert(&moving("gripper", 105)).unwrap_err().to_string();
        assert!(sentence.contains("\"cup\" both in \"gripper\" and in \"table\""), "{sentence}");
        assert!(tree.target_from_source("gripper", "cup", 105 * SECOND).is_ok(), "the newest word holds");
        let again = edge("base", "lens", 0.0, 0.0, TransformStamp::Static);
        assert!(matches!(tree.insert(&again), Err(TransformError::TwoParents { .. })));
        assert_eq!(tree.insert(&again), Ok(()));
    }

    #[test]
    fn covariance_turns_with_the_axes() {
        let quarter = UnitQuaternion::from_axis_angle(&Vector::z_axis(), std::f64::consts::FRAC_PI_2);
        let along = Matrix6::from_diagonal(&Vector6::new(1.0, 4.0, 9.0, 0.1, 0.2, 0.3));
        let turned = rotate_covariance(&quarter, &along);
        let expected = Matrix6::from_diagonal(&Vector6::new(4.0, 1.0, 9.0, 0.2, 0.1, 0.3));
        assert!((turned - expected).norm() < 1e-12, "{turned}");
    }
}
