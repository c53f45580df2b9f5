//! What the parity tests share: the tiny random checkpoint, images by formula, edited copies.

#![allow(
    dead_code,
    clippy::manual_midpoint,
    reason = "each test uses some of it; formulas as in the reference script"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use language_grounding::image::RgbImage;
use language_grounding::model::candle::loading::read_json;
use serde_json::Value;

pub(crate) fn fixture_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/florence2")
}

/// The formula of `make_image` in the reference script.
pub(crate) fn make_image(width: u32, height: u32, seed: i64) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (i64::from(x), i64::from(y));
        image::Rgb(std::array::from_fn(|c| {
            let c = c as i64;
            let wave = (x * (3 + seed % 5 + c) + y * (2 + seed % 7)) / 2;
            let blob = (x * x + y * y * (1 + c) + seed * 97) / (11 + 5 * c);
            let noise = ((x * 73_856_093) ^ (y * 19_349_663) ^ ((seed + c) * 83_492_791)) % 41;
            ((wave + blob % 120 + noise) % 256) as u8
        }))
    })
}

/// A copy of the fixture's model directory with some files replaced.
pub(crate) fn model_dir(name: &str, change: impl FnOnce(&Path)) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("florence2_parity_{}_{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for file in [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "model.safetensors",
    ] {
        std::fs::copy(fixture_dir().join(file), dir.join(file)).unwrap();
    }
    change(&dir);
    dir
}

pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = read_json(path).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// The tensors of `expected.safetensors` in `dir`.
pub(crate) fn expected(dir: &Path) -> BTreeMap<String, Tensor> {
    let path = dir.join("expected.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
}

/// Largest difference, relative to the largest expected value when that is above 1; infinite when something is not a number.
pub(crate) fn deviation(got: &Tensor, expected: &Tensor, name: &str) -> f32 {
    assert_eq!(got.dims(), expected.dims(), "{name}: shape");
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (got, expected) = (values(got), values(expected));
    let largest = expected.iter().fold(1.0, |largest: f32, value| largest.max(value.abs()));
    got.iter().zip(expected).fold(0.0, |worst: f32, (got, expected)| {
        let difference = (got - expected).abs() / largest;
        if difference.is_nan() { f32::INFINITY } else { worst.max(difference) }
    })
}
