//! What the parity tests share: the tiny random checkpoint, images by formula, edited copies.

#![allow(dead_code, unused_imports, reason = "each test uses some of it")]

mod images;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use language_grounding::image::RgbImage;
use language_grounding::model::candle::florence2::processor::{Input, Task};
use language_grounding::model::candle::loading::read_json;
use language_grounding::model::{KeyedImage, Model, ModelError, RawTask};
use serde_json::Value;

pub(crate) use self::images::make_image;

pub(crate) fn fixture_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/florence2")
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

/// A copy of the fixture as a released checkpoint is: without a dense head, and not ours.
pub(crate) fn headless_dir(name: &str) -> PathBuf {
    model_dir(name, |dir| {
        edit_json(&dir.join("config.json"), |config| {
            config["grounding_head"] = Value::Null;
            config["synthetic"] = false.into();
        });
        edit_json(&dir.join("generation_config.json"), |config| {
            config["early_stopping"] = true.into();
            config["num_beams"] = 3.into();
        });
        let path = dir.join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        tensors.retain(|name, _| !name.starts_with("grounding_head."));
        candle_core::safetensors::save(&tensors, path).unwrap();
    })
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

/// Runs every task on images of random content and random size, 1x1 to 4000x3000, with `n_beams`; grounds and captions too.
/// Returns the number of calls.
pub(crate) fn run_all_tasks(model: &mut dyn Model, n_images: u64, seed: u64, n_beams: usize) -> usize {
    let tasks: Vec<Task> = Task::all().collect();
    let mut random = Random(seed);
    let mut n_calls = 0;
    for key in 0..n_images {
        let image = random.image(key);
        let (width, height) = image.dimensions();
        let image = KeyedImage::whole(key, &image);
        for task in &tasks {
            let text = random.text(*task, width, height);
            let task = RawTask { name: task.name(), text: text.as_deref(), n_beams, ..RawTask::default() };
            let output = model.raw_task(image, &task);
            match output {
                Ok(output) => assert_eq!(output.log_probs.len() + 1, output.token_ids.len()),
                // Long words and a short limit of tokens.
                Err(ModelError::Input(problem)) if problem.contains("shorter") => {}
                Err(error) => panic!("{} of {width}x{height}: {error}", task.name),
            }
            n_calls += 1;
        }
        let found = model.ground(image, &["red cup", "a green bottle"]).unwrap();
        for detection in found.iter().flatten() {
            let bbox = detection.bbox;
            assert!(
                bbox.x0 >= 0.0 && bbox.x1 <= f64::from(width) && bbox.y1 <= f64::from(height),
                "{bbox:?}"
            );
            assert!((0.0..=1.0).contains(&detection.score), "{}", detection.score);
        }
        model.caption(image, None).unwrap();
        n_calls += 2;
        eprintln!("{n_calls} calls on {} images", key + 1);
    }
    n_calls
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Sides spread over the orders of magnitude; the extremes come first.
    pub(crate) fn image(&mut self, index: u64) -> RgbImage {
        let (width, height) = match index {
            0 => (1, 1),
            1 => (4000, 3000),
            2 => (4000, 1),
            3 => (1, 3000),
            _ => (self.side(4000), self.side(3000)),
        };
        let noise = self.next();
        RgbImage::from_fn(width, height, |x, y| {
            let value = (u64::from(x) * 31 + u64::from(y) * 17 + noise).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            image::Rgb([(value >> 56) as u8, (value >> 48) as u8, (x / 3 + y / 5) as u8])
        })
    }

    /// What a task asks for.
    pub(crate) fn text(&mut self, task: Task, width: u32, height: u32) -> Option<String> {
        let words = ["red cup", "杯子 </s><loc_5>", "a", "the thing left of the\nother thing"];
        let (x, y) = (f64::from(width), f64::from(height));
        match task.input() {
            Input::None => None,
            Input::Words => Some(words[(self.next() % 4) as usize].to_owned()),
            Input::Region => Some(format!("{},{},{},{}", x * 0.1, y * 0.2, x * 0.9, y * 0.8)),
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// 1 to `largest`, evenly in the logarithm.
    fn side(&mut self, largest: u32) -> u32 {
        let share = (self.next() % 10_000) as f64 / 10_000.0;
        (f64::from(largest).powf(share) as u32).clamp(1, largest)
    }
}
