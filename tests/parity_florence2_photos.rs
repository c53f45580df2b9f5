//! Preprocessing of real photographs against the reference processor
//! (`tests/parity/florence2_photos_reference.py`): every byte of the resized image by its hash, and samples of the values.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use candle_core::Device;
use language_grounding::model::candle::loading::read_json;
use language_grounding::model::candle::preprocess::{ImageProcessor, resize_bicubic};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    sample: usize,
    images: Vec<ExpectedImage>,
}

#[derive(Deserialize)]
struct ExpectedImage {
    name: String,
    width: u32,
    height: u32,
    fnv1a: String,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

/// Values differ by the rounding of f32 only; bytes not at all, but where Pillow 13 takes the passes in the other order
/// (images taller than wide) by at most 2.
fn check(dir: &Path) {
    let expected: Expected = read_json(&dir.join("expected.json")).unwrap();
    let processor = ImageProcessor::open(dir).unwrap();
    for case in &expected.images {
        let image = image::open(dir.join(format!("{}.png", case.name))).unwrap().to_rgb8();
        assert_eq!(image.dimensions(), (case.width, case.height), "{}", case.name);
        let resized = resize_bicubic(&image, 768, 768).unwrap();
        let sampled = resized.iter().step_by(expected.sample);
        let worst = sampled.zip(&case.bytes).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let is_exact = fnv1a(&resized) == case.fnv1a;
        assert!(is_exact || (case.height > case.width && worst <= 2), "{} differs by {worst}", case.name);

        let input = processor.process_with_map(&image, &Device::Cpu).unwrap();
        let values: Vec<f32> = input.pixels.flatten_all().unwrap().to_vec1().unwrap();
        let sampled = values.iter().step_by(expected.sample);
        let difference = sampled.zip(&case.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let limit = if is_exact { 1e-6 } else { 0.04 };
        assert!(difference <= limit, "{}: values differ by {difference:e}", case.name);
        let (x, y) = input.to_source(384.0, 768.0);
        assert!((x - f64::from(case.width) / 2.0).abs() < 1e-9 && (y - f64::from(case.height)).abs() < 1e-9);
        let exact = if is_exact { "every byte equal" } else { "bytes within 2" };
        println!(
            "{:16} {:4}x{:4}: {exact}, values within {difference:.1e}",
            case.name, case.width, case.height
        );
    }
}

fn fnv1a(bytes: &[u8]) -> String {
    let step = |value: u64, byte: &u8| (value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[test]
fn crops_of_photographs_are_prepared_alike() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/photos"));
}

#[test]
#[ignore = "needs the photographs, see the first lines of the script"]
fn photographs_are_prepared_alike() {
    check(&PathBuf::from(std::env::var("FLORENCE2_PHOTOS").expect("FLORENCE2_PHOTOS=DIR")));
}
