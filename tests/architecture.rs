//! What each part must not know (the crate's documentation says why), found by reading the sources.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The parts that are values in, values out.
const PURE: &[&str] = &[
    "annotate",
    "camera",
    "detection",
    "dialogue",
    "image",
    "instruction",
    "lift",
    "pairing",
    "pipeline",
    "register",
    "report",
    "resolve",
    "scene",
    "score",
    "track",
    "transform",
];

/// What a pure part never names: ROS, tensors, the async runtime, threads, the clock.
const IMPURE_NAMES: &[&str] = &[
    "r2r",
    "candle_core",
    "candle_nn",
    "candle_transformers",
    "futures",
    "tokio",
    "rayon",
    "thread",
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
];

#[test]
fn pure_parts_know_no_ros_tensors_threads_or_clock() {
    for part in PURE {
        let sources = part_sources(part);
        assert!(!sources.is_empty(), "{part} is listed as pure, but src/ has no such module");
        check(&sources, IMPURE_NAMES);
    }
}

#[test]
fn only_the_ros_rim_names_r2r() {
    check(&sources_outside(&["src/ros", "src/bin/grounding_node.rs", "src/bin/scene_player.rs"]), &["r2r"]);
}

#[test]
fn only_the_candle_models_name_candle() {
    check(&sources_outside(&["src/model/candle"]), &["candle_core", "candle_nn", "candle_transformers"]);
}

#[test]
fn the_library_reports_errors_by_type() {
    check(&sources_outside(&["src/bin"]), &["anyhow"]);
}

#[test]
fn names_are_found_in_code_and_not_in_comments_or_longer_words() {
    let found = |text: &str| named(text, &["r2r", "Instant"]).len();
    assert_eq!(found("use r2r::Node;\nlet t = std::time::Instant::now();"), 2);
    assert_eq!(found("let my_r2r_like = tf_r2r(Instantaneous);"), 0);
    assert_eq!(found("//! no r2r here\nlet a = 1; // nor an Instant"), 0);
    assert_eq!(found("let url = \"http://r2r\";"), 1);
}

/// Fails with every place where one of `sources` names one of `names`.
#[track_caller]
fn check(sources: &[PathBuf], names: &[&str]) {
    let mut violations = Vec::new();
    for path in sources {
        let text = fs::read_to_string(path).unwrap();
        for (line, name) in named(&text, names) {
            violations.push(format!("{}:{line} names {name}", path.display()));
        }
    }
    assert!(violations.is_empty(), "not allowed there:\n{}", violations.join("\n"));
}

/// Line numbers (from 1) and names, for each of `names` that stands as a word of its own outside of comments.
fn named<'a>(text: &str, names: &[&'a str]) -> Vec<(usize, &'a str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = code(line).split(|c| !is_word(c)).collect();
        found.extend(names.iter().filter(|name| words.contains(name)).map(|name| (index + 1, *name)));
    }
    found
}

/// A line without its `//` comment; the `//` of a URL is none.
fn code(line: &str) -> &str {
    line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':')).map_or(line, |(at, _)| &line[..at])
}

/// The files of one module: `src/part.rs`, or all below `src/part/`.
fn part_sources(part: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let file = root.join(part).with_extension("rs");
    let mut sources = rust_files(&root.join(part));
    sources.extend(file.is_file().then_some(file));
    sources
}

/// All files of the crate but those below `excepted` (relative to the package); each of these must exist.
fn sources_outside(excepted: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let excepted: Vec<PathBuf> = excepted.iter().map(|path| root.join(path)).collect();
    for path in &excepted {
        assert!(path.exists(), "{} is an exception here, but does not exist", path.display());
    }
    let mut sources = rust_files(&root.join("src"));
    sources.retain(|path| !excepted.iter().any(|exception| path.starts_with(exception)));
    sources
}

/// Every Rust file below a folder, none when there is no such folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
