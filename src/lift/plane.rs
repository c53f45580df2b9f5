//! The horizontal planes that things stand on, estimated once per frame by RANSAC (Fischler and Bolles 1981).

use nalgebra::{Isometry3, Matrix3, Point3, SymmetricEigen, Unit, Vector3};

/// A horizontal surface. Heights above it are along `normal`, which points away from gravity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SupportPlane {
    /// Up, in the camera's optical frame.
    pub normal: Unit<Vector3<f64>>,
    /// Height of the camera above the plane, meters.
    pub camera_height_m: f64,
    /// Root mean square distance of its points from it, meters.
    pub residual_m: f64,
    /// Standard deviation of its height right below the camera, meters.
    pub height_sigma_m: f64,
    /// Standard deviation of its slope, radians.
    pub tilt_sigma: f64,
}

impl SupportPlane {
    /// Height of a point (optical frame) above the plane, meters; negative below.
    pub fn height_m(&self, point_in_camera: &Point3<f64>) -> f64 {
        self.normal.dot(&point_in_camera.coords) + self.camera_height_m
    }

    /// The same plane from another place. `there_from_here` takes points of the frame it is in to the other.
    #[must_use]
    pub fn seen_from(&self, there_from_here: &Isometry3<f64>) -> Self {
        let normal = there_from_here.rotation * self.normal;
        let camera_height_m = self.camera_height_m - normal.dot(&there_from_here.translation.vector);
        Self { normal, camera_height_m, ..*self }
    }
}

const N_HYPOTHESES: usize = 160;
const MAX_PLANES: usize = 3;
/// A plane must hold at least this share of the frame's points.
const MIN_SHARE: f64 = 0.03;
/// The first of them at least this share, where up is only assumed.
const MIN_FIRST_SHARE: f64 = 0.08;
/// A surface of this share that contradicts an assumed up outweighs it.
const MIN_CONTRADICTION_SHARE: f64 = 0.25;
/// How far a plane's normal may be from a known up direction: cos 15 degrees.
const MIN_COS_TO_UP: f64 = 0.966;
/// How far further planes may be from the first: cos 3 degrees.
const MIN_COS_PARALLEL: f64 = 0.9986;
/// Things on a surface are mostly lower than this, meters.
const THING_HEIGHT_M: f64 = 0.25;
/// A surface that does not face the image's top is this much less likely to be the one that things stand on: most cameras are upright.
const ODD_ROLL: f64 = 0.5;

/// What is known of up before the planes are looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum UpHint {
    /// Measured: planes are held against it.
    Certain(Unit<Vector3<f64>>),
    /// The z axis of a frame that usually points up: a large surface may say otherwise.
    Assumed(Unit<Vector3<f64>>),
    /// Nothing.
    None,
}

/// The surfaces that things stand on.
#[derive(Debug, Clone, Default)]
pub(super) struct Supports {
    /// Horizontal, most points first.
    pub(super) planes: Vec<SupportPlane>,
    /// Another direction that may be up, and how likely it is, under 0.5: a large surface that stands across the planes.
    pub(super) rival: Option<(Unit<Vector3<f64>>, f64)>,
    /// The hint contradicts what is seen, and was not followed.
    pub(super) is_hint_refused: bool,
}

impl Supports {
    fn of(planes: Vec<SupportPlane>) -> Self {
        Self { planes, ..Self::default() }
    }
}

/// The horizontal planes among `points`. `tolerance_m` says how far from a plane its points may be; `guesses` are planes of the frame
/// before, taken up where they still hold, which is much cheaper than to search.
///
/// Where up is unknown, the surface that things stand on is: the one with most points and with most of what is no large surface close
/// above it. The image's own top only weighs in, so that a camera may be rolled.
pub(super) fn support_planes(
    points: &[Point3<f64>],
    hint: UpHint,
    tolerance_m: impl Fn(f64) -> f64,
    guesses: &[SupportPlane],
) -> Supports {
    let n_all = points.len();
    let mut planes: Vec<SupportPlane> = Vec::new();
    let mut rest = if guesses.is_empty() { Vec::new() } else { points.to_vec() };
    for guess in guesses {
        let (plane, n_inliers) =
            refined(&rest, &tolerance_m, *guess, |it| MIN_COS_PARALLEL <= it.dot(&guess.normal));
        if !is_enough(n_inliers, n_all, MIN_SHARE) {
            break;
        }
        rest.retain(|it| 2.0 * tolerance_m(it.z) < plane.height_m(it).abs());
        planes.push(plane);
    }
    if !planes.is_empty() {
        return Supports::of(planes);
    }
    match hint {
        UpHint::Certain(up) => Supports::of(level_planes(points, &tolerance_m, &up, MIN_SHARE)),
        UpHint::Assumed(up) => {
            let level = level_planes(points, &tolerance_m, &up, MIN_FIRST_SHARE);
            if !level.is_empty() {
                return Supports::of(level);
            }
            let seen = dominant_planes(points, &tolerance_m, MIN_CONTRADICTION_SHARE);
            let is_hint_refused = !seen.planes.is_empty();
            Supports { is_hint_refused, ..seen }
        }
        UpHint::None => dominant_planes(points, &tolerance_m, MIN_SHARE),
    }
}

/// Whether a known up contradicts a large surface in view just as that of a frame with x forward and z up does that is taken for an
/// optical one (z forward, y down). `supports` is what was found with the hint.
pub(super) fn is_forward_x(
    points: &[Point3<f64>],
    hint: UpHint,
    tolerance_m: impl Fn(f64) -> f64,
    supports: &Supports,
) -> bool {
    let (UpHint::Certain(up) | UpHint::Assumed(up)) = hint else { return false };
    let turned = Unit::new_unchecked(Vector3::new(-up.y, -up.z, up.x));
    if supports.is_hint_refused {
        return supports.planes.first().is_some_and(|it| MIN_COS_TO_UP <= it.normal.dot(&turned));
    }
    supports.planes.is_empty()
        && !level_planes(points, &tolerance_m, &turned, MIN_CONTRADICTION_SHARE).is_empty()
}

fn is_enough(n_inliers: usize, n_all: usize, share: f64) -> bool {
    30 <= n_inliers && share * n_all as f64 <= n_inliers as f64
}

/// Planes across a known up direction, most points first.
fn level_planes(
    points: &[Point3<f64>],
    tolerance_m: &impl Fn(f64) -> f64,
    up: &Unit<Vector3<f64>>,
    first_share: f64,
) -> Vec<SupportPlane> {
    let mut rest = points.to_vec();
    let mut planes: Vec<SupportPlane> = Vec::new();
    while planes.len() < MAX_PLANES {
        let (axis, min_cos, share) = match planes.first() {
            Some(first) => (first.normal, MIN_COS_PARALLEL, MIN_SHARE),
            None => (*up, MIN_COS_TO_UP, first_share),
        };
        let found = best_plane(&rest, tolerance_m, |it| min_cos <= it.dot(&axis));
        let Some((plane, _)) = found.filter(|(_, n_inliers)| is_enough(*n_inliers, points.len(), share))
        else {
            break;
        };
        rest.retain(|it| 2.0 * tolerance_m(it.z) < plane.height_m(it).abs());
        planes.push(plane);
    }
    planes
}

/// Large planes of any direction, and of these the ones that things stand on.
fn dominant_planes(points: &[Point3<f64>], tolerance_m: &impl Fn(f64) -> f64, first_share: f64) -> Supports {
    let mut rest = points.to_vec();
    let mut found: Vec<(SupportPlane, usize)> = Vec::new();
    while found.len() <= MAX_PLANES {
        let share = if found.is_empty() { first_share } else { MIN_SHARE };
        let best = best_plane(&rest, tolerance_m, |_| true);
        let Some(best) = best.filter(|(_, n_inliers)| is_enough(*n_inliers, points.len(), share)) else {
            break;
        };
        rest.retain(|it| 2.0 * tolerance_m(it.z) < best.0.height_m(it).abs());
        found.push(best);
    }
    let mut directions: Vec<(SupportPlane, f64)> = found
        .iter()
        .map(|(plane, _)| {
            let parallel = || found.iter().filter(|it| MIN_COS_PARALLEL <= it.0.normal.dot(&plane.normal));
            let n_inliers: usize = parallel().map(|it| it.1).sum();
            let is_thing = |it: &&Point3<f64>| {
                parallel()
                    .any(|(plane, _)| (tolerance_m(it.z)..=THING_HEIGHT_M).contains(&plane.height_m(it)))
            };
            let n_things = rest.iter().filter(is_thing).count();
            // A few points at edges are no things.
            let share_of_things = (n_things as f64 + 5.0) / (rest.len() as f64 + 10.0);
            let is_upright = 0.25 <= -plane.normal.y || plane.normal.z <= -0.9;
            let prior = if is_upright { 1.0 } else { ODD_ROLL };
            (*plane, prior * n_inliers as f64 * share_of_things)
        })
        .collect();
    directions.sort_by(|a, b| b.1.total_cmp(&a.1));
    let Some((first, weight)) = directions.first().copied() else { return Supports::default() };
    let rival = directions
        .iter()
        .find(|it| it.0.normal.dot(&first.normal) < MIN_COS_TO_UP)
        .map(|(plane, its_weight)| (plane.normal, its_weight / (weight + its_weight)));
    let planes = level_planes(points, tolerance_m, &first.normal, MIN_SHARE);
    Supports { planes, rival, is_hint_refused: false }
}

fn best_plane(
    points: &[Point3<f64>],
    tolerance_m: &impl Fn(f64) -> f64,
    accept: impl Fn(&Vector3<f64>) -> bool,
) -> Option<(SupportPlane, usize)> {
    if points.len() < 3 {
        return None;
    }
    let mut random = SplitMix(0x5eed);
    let mut best: Option<(SupportPlane, usize)> = None;
    for _ in 0..N_HYPOTHESES {
        let [a, b, c] = std::array::from_fn(|_| points[random.below(points.len())]);
        let Some(plane) = plane_through(a, (b - a).cross(&(c - a))).filter(|it| accept(&it.normal)) else {
            continue;
        };
        let n_inliers = points.iter().filter(|it| plane.height_m(it).abs() <= tolerance_m(it.z)).count();
        if best.is_none_or(|(_, n)| n < n_inliers) {
            best = Some((plane, n_inliers));
        }
    }
    let (plane, _) = best?;
    Some(refined(points, tolerance_m, plane, accept))
}

/// The plane fitted to the points near it, and how many those are.
fn refined(
    points: &[Point3<f64>],
    tolerance_m: &impl Fn(f64) -> f64,
    mut plane: SupportPlane,
    accept: impl Fn(&Vector3<f64>) -> bool,
) -> (SupportPlane, usize) {
    for _ in 0..3 {
        plane = fit(points.iter().filter(|it| plane.height_m(it).abs() <= tolerance_m(it.z)))
            .filter(|it| accept(&it.normal))
            .unwrap_or(plane);
    }
    let inliers = points.iter().filter(|it| plane.height_m(it).abs() <= tolerance_m(it.z));
    let (n_inliers, square) =
        inliers.fold((0_u32, 0.0), |(n, square), it| (n + 1, square + plane.height_m(it).powi(2)));
    plane.residual_m = (square / f64::from(n_inliers.max(1))).sqrt();
    // Errors of neighboring pixels hang together: far fewer independent ones than points.
    plane.height_sigma_m = plane.residual_m * (0.04 + 25.0 / f64::from(n_inliers.max(25))).sqrt();
    plane.tilt_sigma = plane.height_sigma_m / plane.camera_height_m.abs().max(0.1);
    (plane, n_inliers as usize)
}

/// Least squares, each point weighted by its precision: depth noise grows with the square of the distance.
fn fit<'a>(points: impl Iterator<Item = &'a Point3<f64>> + Clone) -> Option<SupportPlane> {
    let weight = |it: &Point3<f64>| 1.0 / it.z.powi(4);
    let (sum, total) = points
        .clone()
        .fold((Vector3::zeros(), 0.0), |(sum, total), it| (sum + weight(it) * it.coords, total + weight(it)));
    if total <= 0.0 {
        return None;
    }
    let mean = sum / total;
    let mut scatter = Matrix3::zeros();
    for point in points {
        let offset = point.coords - mean;
        scatter += weight(point) * offset * offset.transpose();
    }
    let eigen = SymmetricEigen::new(scatter);
    plane_through(Point3::from(mean), eigen.eigenvectors.column(eigen.eigenvalues.imin()).into_owned())
}

/// The plane through a point, its normal turned to the camera's side. A surface is never seen from behind.
fn plane_through(point: Point3<f64>, normal: Vector3<f64>) -> Option<SupportPlane> {
    let normal = Unit::try_new(normal, 1e-12)?;
    let normal = if 0.0 < normal.dot(&point.coords) { -normal } else { normal };
    Some(SupportPlane {
        normal,
        camera_height_m: -normal.dot(&point.coords),
        residual_m: 0.0,
        height_sigma_m: 0.0,
        tilt_sigma: 0.0,
    })
}

/// Steele, Lea and Flood 2014: small, and the same everywhere, so that a frame always gives the same planes.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
