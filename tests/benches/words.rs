//! Time of the words: reading one instruction, and resolving it over 50 candidates with positions and bodies. One thread.
//!
//!     cargo bench --no-default-features --bench words

use std::hint::black_box;
use std::time::Instant;

use language_grounding::candidate::{Body, Candidate};
use language_grounding::detection::{BoundingBox2d, Detection2d};
use language_grounding::instruction::{Vocabulary, parse};
use language_grounding::resolve::{ResolveOptions, resolve_instruction};
use nalgebra::{Isometry3, Point3, Vector3};

const SENTENCES: [&str; 4] = [
    "pick up the red mug",
    "put the second mug from the left between the plate and the bowl",
    "stack the mug closest to the plate on the mug behind the bowl",
    "please pick up both mugs to the left of the plate on the tray and put them in the back compartment of the caddy",
];
const ROUNDS: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vocabulary = Vocabulary::default();
    let options = ResolveOptions::default();
    let phrases = ["mug", "plate", "bowl", "red mug", "tray", "caddy", "back compartment"];
    let candidates: Vec<Candidate> = (0..50_u32)
        .map(|it| {
            let (column, row) = (f64::from(it % 10), f64::from(it / 10));
            let (x, y) = (60.0 * column, 90.0 * row);
            let bbox = BoundingBox2d { x0: x, y0: y, x1: x + 40.0, y1: y + 50.0 };
            Candidate {
                detection: Detection2d::new(phrases[it as usize % phrases.len()], bbox, 0.9),
                position_in_camera: Some(Point3::new(0.1 * column, 0.02 * row, 0.8 + 0.1 * row)),
                size_m: Some(Vector3::repeat(0.07)),
                body: Some(Body {
                    pose_in_camera: Isometry3::translation(0.1 * column, 0.02 * row, 0.8 + 0.1 * row),
                    size_m: Vector3::repeat(0.07),
                    unseen_below_m: 0.0,
                    is_top_closed: false,
                }),
            }
        })
        .collect();
    for text in SENTENCES {
        let (mut parse_us, mut resolve_us) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let instruction = parse(black_box(text), &vocabulary)?;
            parse_us.push(start.elapsed().as_secs_f64() * 1e6);
            let start = Instant::now();
            black_box(resolve_instruction(&instruction, &candidates, &options));
            resolve_us.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let at = |values: &mut Vec<f64>, share: f64| {
            values.sort_by(f64::total_cmp);
            values[((values.len() - 1) as f64 * share) as usize]
        };
        println!(
            "parse p50 {:>6.1} us, p95 {:>6.1}; resolve p50 {:>6.1} us, p95 {:>6.1}: {text}",
            at(&mut parse_us, 0.5),
            at(&mut parse_us, 0.95),
            at(&mut resolve_us, 0.5),
            at(&mut resolve_us, 0.95)
        );
    }
    Ok(())
}
