//! American spelling, in everything that is written for people to read.
//!
//! What users may type is data and keeps every spelling: `config/vocabulary.yaml` and the sentences under `tests/data` are not read
//! here, and in the files that read words ([`READ_WORDS`]) whatever stands in double quotes is passed over.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files that are read, from the root of the package.
const WRITTEN: &[&str] = &[
    ".ci",
    ".github",
    "action",
    "cmake",
    "config",
    "crates",
    "docs",
    "launch",
    "msg",
    "scripts",
    "src",
    "srv",
    "tests",
    "training",
    "CHANGELOG.md",
    "CMakeLists.txt",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "package.xml",
    "ruff.toml",
];

/// What is data, by its path: words and sentences of users, tables, pictures, this list.
const DATA: &[&str] = &[
    "config/vocabulary.yaml",
    "config/english_words",
    "tests/data",
    "tests/ros_overlay",
    "tests/spelling.rs",
];

/// Sources whose double-quoted literals are words that users say.
const READ_WORDS: &[&str] = &[
    "src/score/color.rs",
    "src/dialogue",
    "src/instruction",
    "src/model",
    "src/resolve",
    "tests",
    "training",
];

/// Names of other libraries' functions.
const FOREIGN: &[&str] = &["is_cancelling"];

/// Endings of file names that hold text.
const TEXT: &[&str] = &[
    "action", "cmake", "cu", "md", "msg", "py", "rs", "sh", "srv", "svg", "toml", "txt", "xml", "yaml", "yml",
];

/// Beginnings of British forms, each with the American one. A word that begins so is refused.
const BRITISH: &[(&str, &str)] = &[
    ("acknowledgement", "acknowledgment"),
    ("aluminium", "aluminum"),
    ("analyse", "analyze"),
    ("armour", "armor"),
    ("artefact", "artifact"),
    ("behaviour", "behavior"),
    ("cancelled", "canceled"),
    ("cancelling", "canceling"),
    ("catalogue", "catalog"),
    ("centimetre", "centimeter"),
    ("centre", "center"),
    ("centring", "centering"),
    ("colour", "color"),
    ("defence", "defense"),
    ("endeavour", "endeavor"),
    ("favour", "favor"),
    ("fibre", "fiber"),
    ("flavour", "flavor"),
    ("fulfil ", "fulfill"),
    ("generalis", "generaliz"),
    ("grey", "gray"),
    ("harbour", "harbor"),
    ("honour", "honor"),
    ("initialis", "initializ"),
    ("judgement", "judgment"),
    ("kilometre", "kilometer"),
    ("labelled", "labeled"),
    ("labelling", "labeling"),
    ("labour", "labor"),
    ("levelled", "leveled"),
    ("licence", "license"),
    ("litre", "liter"),
    ("manoeuvre", "maneuver"),
    ("maximis", "maximiz"),
    ("metre", "meter"),
    ("millilitre", "milliliter"),
    ("millimetre", "millimeter"),
    ("minimis", "minimiz"),
    ("modelled", "modeled"),
    ("modelling", "modeling"),
    ("mould", "mold"),
    ("neighbour", "neighbor"),
    ("normalis", "normaliz"),
    ("odour", "odor"),
    ("optimis", "optimiz"),
    ("organis", "organiz"),
    ("parameteris", "parameteriz"),
    ("practise", "practice"),
    ("prioritis", "prioritiz"),
    ("programme ", "program"),
    ("quantis", "quantiz"),
    ("randomis", "randomiz"),
    ("realis", "realiz"),
    ("recognis", "recogniz"),
    ("rigour", "rigor"),
    ("sceptic", "skeptic"),
    ("serialis", "serializ"),
    ("signalled", "signaled"),
    ("specialis", "specializ"),
    ("standardis", "standardiz"),
    ("summaris", "summariz"),
    ("synchronis", "synchroniz"),
    ("theatre", "theater"),
    ("tokenis", "tokeniz"),
    ("travelled", "traveled"),
    ("travelling", "traveling"),
    ("tyre", "tire"),
    ("utilis", "utiliz"),
    ("vapour", "vapor"),
    ("vectoris", "vectoriz"),
    ("visualis", "visualiz"),
    ("whilst", "while"),
];

/// Words that begin like a British form and are American all the same.
const AMERICAN: &[&str] =
    &["optimism", "optimist", "optimistic", "organism", "realism", "realist", "realistic", "specialist"];

#[test]
fn text_is_in_american_spelling() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in WRITTEN.iter().flat_map(|it| text_files(&root.join(it))) {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if DATA.iter().any(|it| name.starts_with(it)) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|err| panic!("{name}: {err}"));
        let literals_are_data = READ_WORDS.iter().any(|it| name.starts_with(it));
        for (line, word, american) in british(&text, literals_are_data) {
            found.push(format!("{name}:{line}: {word:?}, write {american:?}"));
        }
    }
    assert!(found.is_empty(), "British spelling:\n{}", found.join("\n"));
}

#[test]
fn british_forms_are_found_in_text_and_names_and_not_in_words_of_users() {
    let found = |text: &str, literals_are_data: bool| british(text, literals_are_data).len();
    assert_eq!(found("/// Depth, metres.\nlet Colour = n_centres;", false), 3);
    assert_eq!(found("let depth_metres = colourOf(GREYSCALE);", true), 3);
    assert_eq!(found("a realistic organization, parameters, meters, centers", false), 0);
    assert_eq!(found("\"center\" | \"centre\" => 1, // the centre", true), 1);
    assert_eq!(found("\"center\" | \"centre\" => 1", false), 1);
    assert_eq!(found("say \"a \\\" grey\" or grey", true), 1);
}

/// Line numbers (from 1), British words and what they should be.
fn british(text: &str, literals_are_data: bool) -> Vec<(usize, String, &'static str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut line = if literals_are_data { without_literals(line) } else { line.to_owned() };
        for name in FOREIGN {
            line = line.replace(name, " ");
        }
        for word in words(&line) {
            // A blank ends the forms that are refused as whole words only.
            let whole = format!("{word} ");
            let form = BRITISH.iter().find(|(it, _)| whole.starts_with(it));
            if let Some((_, american)) = form.filter(|_| !AMERICAN.contains(&word.as_str())) {
                found.push((index + 1, word, *american));
            }
        }
    }
    found
}

/// The words of a line in lower case: `n_centres` and `ColourOf` are two each.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in line.chars() {
        if !c.is_alphabetic() || (was_lower && c.is_uppercase()) {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    words.retain(|it| !it.is_empty());
    words
}

/// A line without what stands between double quotes; `\"` ends nothing.
fn without_literals(line: &str) -> String {
    let mut kept = String::new();
    let (mut inside, mut escaped) = (false, false);
    for c in line.chars() {
        if c == '"' && !escaped {
            inside = !inside;
            kept.push(' ');
        } else if !inside {
            kept.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    kept
}

/// The text files at or below a path, none where there is nothing.
fn text_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        let name = path.file_name().unwrap().to_string_lossy();
        let ending = name.rsplit('.').next().unwrap_or_default();
        return if TEXT.contains(&ending) || !name.contains('.') {
            vec![path.to_owned()]
        } else {
            Vec::new()
        };
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten() {
        let entry = entry.unwrap().path();
        if entry.file_name().is_some_and(|it| it != "__pycache__") {
            files.extend(text_files(&entry));
        }
    }
    files.sort();
    files
}
