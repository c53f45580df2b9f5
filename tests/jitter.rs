//! Poses under a box that is off by two pixels: how far they jump, held against their own covariance.
//!
//! `cargo test --release --no-default-features --test jitter -- --nocapture` prints the table and the worst cases.

#![allow(clippy::unwrap_used, reason = "a scene that cannot be made fails the test")]

mod trial_support;

use language_grounding::detection::BoundingBox2d;
use language_grounding::lift::{FrameGeometry, LiftOptions};
use language_grounding::scene::{FIRST_HELD_OUT_SEED, Kind, Scene, SceneConfig};
use nalgebra::Matrix6;

use self::trial_support::{chi2, offsets, quantile, sensed};

/// Pixels that an edge of a box may be off.
const JITTER_PX: f64 = 2.0;
const N_JITTERS: u64 = 12;

struct Jump {
    name: String,
    length_m: f64,
    /// In standard deviations of the pose, by whichever of the two poses is more sure of itself.
    sigmas: f64,
}

/// The jumps of the pose of one object, from that of its exact box to those of boxes around it.
fn jumps(geometry: &FrameGeometry<'_>, bbox: &BoundingBox2d, seed: u64, name: &str) -> Vec<Jump> {
    let mut offset = offsets(seed);
    let mut off = || JITTER_PX * offset();
    let first = geometry.lift(name, bbox).unwrap();
    let mut all = Vec::new();
    for _ in 0..N_JITTERS {
        let moved = BoundingBox2d {
            x0: bbox.x0 + off(),
            y0: bbox.y0 + off(),
            x1: bbox.x1 + off(),
            y1: bbox.y1 + off(),
        };
        let other = geometry.lift(name, &moved).unwrap();
        let jump = other.body_center - first.body_center;
        let distance = |covariance: &Matrix6<f64>| chi2(covariance, &jump).sqrt();
        // Whoever has one of the two answers must not be surprised by the other.
        let sigmas = distance(&first.covariance).max(distance(&other.covariance));
        all.push(Jump { name: name.to_owned(), length_m: jump.norm(), sigmas });
    }
    all
}

/// Median and worst jump in millimeters, median, 99 % and worst in standard deviations.
fn summarized(name: &str, jumps: &mut [Jump]) -> [f64; 5] {
    let mm = |share| 1e3 * quantile(jumps.iter().map(|it| it.length_m), share);
    let sigmas = |share| quantile(jumps.iter().map(|it| it.sigmas), share);
    let it = [mm(0.5), mm(1.0), sigmas(0.5), sigmas(0.99), sigmas(1.0)];
    println!("{name}: {} of {} over 3 sigma", n_over(jumps, 3.0), jumps.len());
    println!(
        "{name:<22} n {:5}  jump mm p50 {:4.1} p99 {:5.1} worst {:5.1}   sigma p50 {:4.2} p99 {:5.2} worst {:5.2}",
        jumps.len(),
        it[0],
        mm(0.99),
        it[1],
        it[2],
        it[3],
        it[4]
    );
    jumps.sort_by(|a, b| b.sigmas.total_cmp(&a.sigmas));
    for jump in jumps.iter().take(6) {
        println!("    {}: {:.1} mm, {:.1} sigma", jump.name, 1e3 * jump.length_m, jump.sigmas);
    }
    it
}

/// Jumps by more than so many standard deviations.
fn n_over(jumps: &[Jump], sigmas: f64) -> usize {
    jumps.iter().filter(|it| sigmas < it.sigmas).count()
}

#[test]
fn lone_objects_hardly_move_with_their_box() {
    let config = SceneConfig { samples: 0, ..SceneConfig::camera(640, 480) };
    let options = LiftOptions::default();
    let mut all = Vec::new();
    for index in 0..120_u64 {
        let kind = Kind::ALL[index as usize % Kind::ALL.len()];
        let seed = FIRST_HELD_OUT_SEED + 5000 + index;
        let distance_m = 0.5 + (index as f32 * 0.618_034).fract();
        let seen = Scene::lone(seed, kind, distance_m, &config).unwrap().render();
        let frame = sensed(&seen, seed);
        let geometry = FrameGeometry::new(&frame, &options).unwrap();
        let name = format!("{} of seed {index}", kind.name());
        all.extend(jumps(&geometry, &seen.objects[0].bbox.unwrap(), seed, &name));
    }
    let [p50_mm, worst_mm, _, p99, _] = summarized("lone objects", &mut all);
    assert!(p50_mm <= 1.0 && worst_mm <= 25.0, "{p50_mm} {worst_mm}");
    assert!(p99 <= 1.5, "{p99}");
    assert!(n_over(&all, 3.0) * 400 <= all.len(), "{}", n_over(&all, 3.0));
}

#[test]
fn objects_among_others_hardly_move_with_their_box() {
    let config = SceneConfig { samples: 0, ..SceneConfig::camera(640, 480) };
    let options = LiftOptions::default();
    let mut all = Vec::new();
    for index in 0..30_u64 {
        let seed = FIRST_HELD_OUT_SEED + 7000 + index;
        let seen = Scene::generate(seed, &config).unwrap().render();
        let frame = sensed(&seen, seed);
        let geometry = FrameGeometry::new(&frame, &options).unwrap();
        let whole = seen.objects.iter().filter(|it| 0.9 <= it.visible_fraction && 300 <= it.visible_pixels);
        for object in whole {
            let name = format!("{} of seed {index}", object.kind.name());
            all.extend(jumps(&geometry, &object.bbox.unwrap(), seed, &name));
        }
    }
    let [p50_mm, worst_mm, _, p99, _] = summarized("among others", &mut all);
    assert!(p50_mm <= 1.0 && worst_mm <= 30.0, "{p50_mm} {worst_mm}");
    assert!(p99 <= 2.0, "{p99}");
    assert!(n_over(&all, 3.0) * 200 <= all.len(), "{}", n_over(&all, 3.0));
}
