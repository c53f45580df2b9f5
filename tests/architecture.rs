//! What each part must not know (the crate's documentation says why), found by reading the sources.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The parts that are values in, values out.
const PURE: &[&str] = &[
    "annotate",
    "camera",
    "color",
    "candidate",
    "config",
    "detection",
    "dialogue",
    "image",
    "instruction",
    "lift",
    "options",
    "pipeline",
    "register",
    "report",
    "request",
    "resolve",
    "result",
    "scene",
    "score",
    "track",
    "transform",
    "viewpoint",
    "yaml",
];

/// What a pure part never names: ROS, tensors, the async runtime, threads, the clock, files.
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
    "fs",
];

#[test]
fn pure_parts_know_no_ros_tensors_threads_clock_or_files() {
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
fn no_modules_import_each_other_in_a_circle() {
    let modules = Modules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let circles = modules.circles();
    assert!(circles.is_empty(), "modules that import each other:\n{}", circles.join("\n"));
}

#[test]
fn circles_are_found_through_groups_and_reexports() {
    let circles = |files: &[(&str, &str)]| {
        Modules::new(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
            .circles()
    };
    let straight =
        [("a.rs", "use crate::b::B;"), ("b.rs", "// use crate::a::A;"), ("c.rs", "use crate::{a, b};")];
    assert_eq!(circles(&straight), [""; 0]);
    let around = [
        ("a.rs", "use crate::{c::{self, C}, d};"),
        ("b.rs", "fn f() { crate::a::f() }"),
        ("c.rs", "use crate::b::*;"),
    ];
    assert_eq!(circles(&around), ["src: a, b, c (a.rs -> c, b.rs -> a, c.rs -> b)"]);
    // A folder's children see each other through what their parent has named.
    let inside = [
        ("p/mod.rs", "mod a;\nmod b;\npub use self::b::B;\nuse self::a::A;"),
        ("p/a.rs", "use super::B;"),
        ("p/b.rs", "use super::A;"),
    ];
    assert_eq!(circles(&inside), ["src/p: a, b (p/a.rs -> b, p/b.rs -> a)"]);
    // What tests import is no part of the house.
    let tested = [
        ("a.rs", "use crate::b;"),
        ("b.rs", "#[cfg(test)]\nmod tests {\n use crate::a;\n}"),
        ("b/tests.rs", "use crate::a;"),
    ];
    assert_eq!(circles(&tested), [""; 0]);
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

/// The library's modules, by their paths (`["lift", "plane"]`), and which files name which.
struct Modules {
    /// By module: its file and the absolute paths that stand in its code.
    paths: BTreeMap<Vec<String>, Vec<(String, Vec<String>)>>,
    /// By module and name: what a `use` there makes of it.
    names: BTreeMap<Vec<String>, Vec<String>>,
}

impl Modules {
    fn read(root: &Path) -> Self {
        let files = rust_files(root).into_iter().map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root).unwrap().to_owned(), text)
        });
        Self::new(files.collect())
    }

    /// From files below `src`; those of programs and of tests are left out.
    fn new(files: Vec<(PathBuf, String)>) -> Self {
        let mut modules = Self { paths: BTreeMap::new(), names: BTreeMap::new() };
        for (file, text) in files {
            let mut module: Vec<String> =
                file.with_extension("").iter().map(|it| it.to_string_lossy().into_owned()).collect();
            if module.iter().any(|it| it == "tests") || module[0] == "bin" || module == ["lib"] {
                continue;
            }
            module.pop_if(|it| it == "mod");
            let text: String = text.lines().map(|line| code(line).to_owned() + "\n").collect();
            let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let mut found = Vec::new();
            for (path, name) in paths_of(text) {
                let Some(path) = absolute(&module, &path) else { continue };
                if let Some(name) = name {
                    modules.names.insert([module.clone(), vec![name]].concat(), path.clone());
                }
                found.push((file.display().to_string(), path));
            }
            modules.paths.entry(module).or_default().extend(found);
        }
        modules
    }

    /// One line for each set of sibling modules that reach each other.
    fn circles(&self) -> Vec<String> {
        let parents: BTreeSet<&[String]> = self.paths.keys().map(|it| &it[..it.len() - 1]).collect();
        parents.into_iter().flat_map(|parent| self.circles_in(parent)).collect()
    }

    fn circles_in(&self, parent: &[String]) -> Vec<String> {
        let depth = parent.len();
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut places = BTreeSet::new();
        for (module, paths) in self.paths.iter().filter(|it| it.0.len() > depth && it.0.starts_with(parent)) {
            let from = module[depth].as_str();
            for (file, path) in paths {
                let Some(target) = self.sibling(parent, path).filter(|it| *it != from) else { continue };
                edges.entry(from).or_default().insert(target);
                places.insert((from, target, file.as_str()));
            }
        }
        let reach: BTreeMap<&str, BTreeSet<&str>> =
            edges.keys().map(|from| (*from, reachable(from, &edges))).collect();
        let mut circles = BTreeSet::new();
        for (from, reached) in reach.iter().filter(|(from, reached)| reached.contains(*from)) {
            let is_together = |it: &&&str| reach.get(**it).is_some_and(|back| back.contains(from));
            circles.insert(reached.iter().filter(is_together).copied().collect::<Vec<_>>());
        }
        let at = [&["src".to_owned()], parent].concat().join("/");
        let line = |circle: Vec<&str>| {
            let inside = places.iter().filter(|it| circle.contains(&it.0) && circle.contains(&it.1));
            let inside: Vec<String> = inside.map(|(_, to, file)| format!("{file} -> {to}")).collect();
            format!("{at}: {} ({})", circle.join(", "), inside.join(", "))
        };
        circles.into_iter().map(line).collect()
    }

    /// The child of `parent` that a path leads into, through what modules on the way have imported.
    fn sibling(&self, parent: &[String], path: &[String]) -> Option<&str> {
        let mut path = path.to_vec();
        // A chain of imports is short; more steps would be imports in a ring.
        for _ in 0..8 {
            let child = path.get(parent.len()).filter(|_| path.starts_with(parent));
            let known = child.and_then(|child| {
                let mut modules = self.paths.keys().filter(|it| it.starts_with(parent));
                modules.find_map(|it| it.get(parent.len()).filter(|it| *it == child))
            });
            if let Some(child) = known {
                return Some(child);
            }
            let through = (1..=path.len()).find_map(|n| Some((n, self.names.get(&path[..n])?)));
            let (n, target) = through?;
            path = [target.as_slice(), &path[n..]].concat();
        }
        None
    }
}

/// All that is reached from a module, itself only by a way around.
fn reachable<'a>(from: &str, edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&str> = edges.get(from).into_iter().flatten().copied().collect();
    while let Some(next) = waiting.pop() {
        if reached.insert(next) {
            waiting.extend(edges.get(next).into_iter().flatten());
        }
    }
    reached
}

/// The paths in `text` that start at `crate`, `self` or `super`, groups written out; with the name that a `use` gives.
fn paths_of(text: &str) -> Vec<(Vec<String>, Option<String>)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut paths = Vec::new();
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let before = &text[..at];
            if before.ends_with(|c| is_word(c) || c == ':') {
                continue;
            }
            let is_use = before.trim_end().ends_with("use") || before.ends_with("use ");
            let rest = &text[at..];
            let end = if is_use { rest.find(';') } else { rest.find(|c| !is_word(c) && c != ':') };
            for path in written_out(&rest[..end.unwrap_or(rest.len())]) {
                let (path, alias) =
                    path.split_once(" as ").map_or((path.as_str(), None), |it| (it.0, Some(it.1)));
                let mut path: Vec<String> = path.split("::").map(|it| it.trim().to_owned()).collect();
                if path.last().is_some_and(|it| it == "self" || it == "*" || it.is_empty()) {
                    path.pop();
                }
                let name = alias.map(str::to_owned).or_else(|| path.last().cloned());
                paths.push((path, name.filter(|_| is_use)));
            }
        }
    }
    paths
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn written_out(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inside = rest.rsplit_once('}').map_or(rest, |it| it.0);
    let mut depth = 0;
    let branches = inside.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let branches = branches.filter(|it| !it.trim().is_empty()).flat_map(written_out);
    branches.map(|it| format!("{}{it}", head.trim())).collect()
}

/// A path as seen from the root of the crate; `None` where `super` leads out of it.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut found: Vec<String> = if path[0] == "crate" { Vec::new() } else { module.to_vec() };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => {
                found.pop()?;
            }
            _ => found.push(part.clone()),
        }
    }
    Some(found)
}
