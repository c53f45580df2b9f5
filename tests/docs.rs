//! The documents held against what they speak of: examples, paths, links, names.

#![expect(clippy::unwrap_used, reason = "a document that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use language_grounding::config::PARAMETERS;
use language_grounding::instruction::{RelationKind, Vocabulary, parse};

/// Every example of docs/words.md reads as it says there.
#[test]
fn the_examples_of_words_md_read_as_they_say() {
    let page = read("docs/words.md");
    let extended = Vocabulary::from_yaml(&blocks(&page, "yaml").concat()).unwrap();
    for (kind, vocabulary) in [("readings", Vocabulary::default()), ("readings-with-words", extended)] {
        let examples = blocks(&page, kind).concat();
        assert!(!examples.is_empty(), "docs/words.md has no block of {kind}");
        for example in examples.lines() {
            let (text, expected) = example.split_once(" => ").expect("SENTENCE => READING");
            let reading = match parse(text, &vocabulary) {
                Ok(instruction) => instruction.to_string(),
                Err(error) => format!("! {}: {}", &text[error.span.clone()], error.message),
            };
            assert_eq!(reading, expected, "{text}");
        }
    }
}

#[test]
fn every_relation_is_told_of() {
    let page = read("docs/words.md");
    let vocabulary = read("config/vocabulary.yaml");
    let (_, relations) = vocabulary.split_once("\nrelations:\n").unwrap();
    let (relations, _) = relations.split_once("\n#").unwrap();
    let names = relations.lines().filter(|it| it.starts_with("  ") && !it.starts_with("   "));
    let names: Vec<&str> = names.map(|it| it.split(':').next().unwrap().trim().trim_matches('"')).collect();
    assert!(names.contains(&RelationKind::LeftOf.name()), "{names:?}");
    let list = page.lines().find(|it| it.starts_with("Relations are ")).unwrap();
    let listed: Vec<&str> = list.split(|it: char| !(it.is_alphabetic() || it == '_')).collect();
    for name in names {
        assert!(listed.contains(&name), "docs/words.md does not list the relation {name}");
    }
}

/// Each field and constant of a message, service or action is in backticks in docs/interfaces.md.
#[test]
fn every_field_of_an_interface_is_told_of() {
    let page = read("docs/interfaces.md");
    for folder in ["msg", "srv", "action"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines().filter(|it| !it.starts_with(['#', '-']) && !it.trim().is_empty()) {
                let name = line.split_whitespace().nth(1).unwrap();
                // Statuses are in README.md's table.
                let is_status = path.ends_with("GroundingResult.msg") && line.contains(" = ");
                let told = page.contains(&format!("`{name}`")) || (is_status && page.contains("#statuses"));
                assert!(told, "docs/interfaces.md does not tell of {name} of {}", path.display());
            }
        }
    }
}

#[test]
fn every_status_is_told_of() {
    let page = read("README.md");
    for line in
        read("msg/GroundingResult.msg").lines().filter(|it| it.starts_with("uint8 ") && it.contains('='))
    {
        let name = line.split_whitespace().nth(1).unwrap();
        assert!(name == "STATUS_UNSET" || page.contains(&format!("| {name} |")), "README.md lacks {name}");
    }
}

#[test]
fn every_parameter_is_told_of() {
    let page = read("docs/parameters.md");
    for parameter in PARAMETERS {
        let row = format!("| `{}` |", parameter.name);
        assert!(
            page.contains(&row),
            "docs/parameters.md lacks {}: run scripts/parameters_doc.py",
            parameter.name
        );
    }
}

#[test]
fn every_module_is_in_the_architecture() {
    let page = read("docs/architecture.md");
    for module in read("src/lib.rs").lines().filter_map(|it| it.strip_prefix("pub mod ")) {
        let name = module.trim_end_matches(';');
        assert!(page.contains(&format!("`{name}`")), "docs/architecture.md does not tell of {name}");
    }
}

#[test]
fn links_and_paths_lead_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.strip_prefix(root()).unwrap().display();
        for link in links(&text).into_iter().filter(|it| !it.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            if !target.exists() {
                dead.push(format!("{name}: {link}"));
            } else if !anchor.is_empty()
                && !anchors(&fs::read_to_string(&target).unwrap()).contains(&anchor.to_owned())
            {
                dead.push(format!("{name}: {link} (no such heading)"));
            }
        }
        for path in named_paths(&text) {
            if !root().join(path).exists() {
                dead.push(format!("{name}: `{path}`"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links and paths:\n{}", dead.join("\n"));
}

#[test]
fn links_paths_and_headings_are_found() {
    let text = "see [a](b.md#c) and ![d](e.png)\n# The `ground` program, part 2\n```\n[no](link)\n```\n`src/lib.rs` `src/*.rs` `cargo x`";
    assert_eq!(links(text), ["b.md#c", "e.png"]);
    assert_eq!(anchors(text), ["the-ground-program-part-2"]);
    assert_eq!(named_paths(text), ["src/lib.rs"]);
}

/// README.md, CONTRIBUTING.md, and all of docs.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|it| it.unwrap().path());
    let mut pages: Vec<PathBuf> = docs.filter(|it| it.extension().is_some_and(|it| it == "md")).collect();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|it| root().join(it)));
    pages
}

/// The lines of a page that are not in fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// The contents of the fenced blocks of one kind.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let parts = text.split("\n```").skip(1).step_by(2);
    parts.filter_map(|it| it.strip_prefix(kind)?.strip_prefix('\n')).map(|it| format!("{it}\n")).collect()
}

/// Where Markdown links lead.
fn links(text: &str) -> Vec<&str> {
    prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|it| it.split(')').next()).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|it| it.starts_with('#')).map(|it| it.trim_start_matches('#').trim());
    let kept = |it: char| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_');
    headings
        .map(|it| it.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// What stands in backticks and is a path from the package's root.
fn named_paths(text: &str) -> Vec<&str> {
    const FOLDERS: [&str; 9] =
        ["crates/", "src/", "tests/", "docs/", "config/", "msg/", "scripts/", "training/", "models/"];
    prose(text)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|it| it.split_whitespace().next())
        .filter(|it| FOLDERS.iter().any(|folder| it.starts_with(folder)) && !it.contains(['*', '<', '{']))
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
