//! The program on a random checkpoint: `ground task` with every task, and `ground --batch`, on images of random content and of
//! every size (1x1 to 4000x3000).
//!
//! `EVERY_TASK_IMAGES=1000 cargo test --release --no-default-features --test every_task -- --nocapture` runs more images than
//! the usual few.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod parity_support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use language_grounding::model::candle::florence2::processor::Task;
use parity_support::{Random, headless_dir};
use serde_json::{Value, json};

#[test]
fn ground_runs_every_task_on_images_of_every_size() {
    let n_images = std::env::var("EVERY_TASK_IMAGES").map_or(6, |n| n.parse().unwrap());
    let dir = headless_dir("every_task");
    let mut random = Random(3);
    let (mut n_answers, mut n_refused, mut queries) = (0, 0, String::new());
    for index in 0..n_images {
        let (image, path) = (random.image(index), dir.join(format!("{index}.png")));
        image.save(&path).unwrap();
        let (width, height) = image.dimensions();
        for task in Task::all() {
            let mut command = ground(&dir);
            command.args(["task", "--model"]).arg(&dir).args(["--task", task.name(), "--image"]).arg(&path);
            if let Some(text) = random.text(task, width, height) {
                command.args(["--text", &text]);
            }
            command.args(["--beams", if index % 2 == 0 { "1" } else { "3" }]);
            let output = command.output().unwrap();
            if refused(&output) {
                n_refused += 1;
                continue;
            }
            let what = format!("{} of {width}x{height}", task.name());
            let answer: Value = serde_json::from_slice(&succeeded(&output, &what).stdout).unwrap();
            let len = |key: &str| answer[key].as_array().unwrap_or_else(|| panic!("{what}: no {key}")).len();
            assert_eq!(len("log_probs") + 1, len("token_ids"), "{what}");
            assert!(!answer["parsed"].is_null(), "{what}");
            n_answers += 1;
        }
        let line =
            json!({"id": index, "image": format!("{index}.png"), "instruction": "pick up the red cup"});
        writeln!(queries, "{line}").unwrap();
    }
    std::fs::write(dir.join("queries.jsonl"), queries).unwrap();
    let output = ground(&dir)
        .arg("--model")
        .arg(&dir)
        .args(["--batch", "queries.jsonl", "--output", "results.jsonl"])
        .output()
        .unwrap();
    succeeded(&output, "batch");
    let results = std::fs::read_to_string(dir.join("results.jsonl")).unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len() as u64, n_images);
    for result in results {
        assert_ne!(result["status"], "ERROR", "{result}");
    }
    println!("{n_answers} answers, {n_refused} texts refused as too long, on {n_images} images");
    assert!(n_answers > 10 * n_refused);
    std::fs::remove_dir_all(dir).unwrap();
}

fn ground(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ground"));
    command.current_dir(dir);
    command
}

/// Long words in the few positions of a small model.
fn refused(output: &Output) -> bool {
    output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("shorter")
}

#[track_caller]
fn succeeded<'a>(output: &'a Output, what: &str) -> &'a Output {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}: {errors}", output.status);
    output
}
