//! What the ROS package's files say about each other: package.xml, CMakeLists.txt, Cargo.toml, .cargo/config.toml.

#![expect(clippy::unwrap_used, reason = "a file that lacks what it must have fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rosidl packages among the dependencies; the others hold libraries.
const LIBRARIES: &[&str] = &["rcl", "rcl_action"];

#[test]
fn cmake_builds_every_interface_there_is() {
    let cmake = read("CMakeLists.txt");
    let listed: BTreeSet<String> =
        block(&cmake, "set(interfaces").into_iter().filter(|word| word.contains('/')).collect();
    let mut present = BTreeSet::new();
    for kind in ["msg", "srv", "action"] {
        for entry in fs::read_dir(root().join(kind)).unwrap() {
            present.insert(format!("{kind}/{}", entry.unwrap().file_name().display()));
        }
    }
    assert_eq!(listed, present, "CMakeLists.txt's interfaces (left) and the files (right)");
}

#[test]
fn cmake_finds_what_package_xml_depends_on() {
    let found: BTreeSet<String> = block(&read("CMakeLists.txt"), "set(interface_dependencies")
        .into_iter()
        .chain(block(&read("cmake/cargo_node.cmake"), "foreach(package"))
        .collect();
    assert_eq!(found, dependencies(), "find_package (left) and package.xml's <depend> (right)");
}

#[test]
fn bindings_are_generated_for_every_message_package() {
    let config = read(".cargo/config.toml");
    let filter = config.split('"').nth(1).unwrap();
    let bound: BTreeSet<String> = filter.split(';').map(str::to_owned).collect();
    let mut needed = dependencies();
    needed.retain(|package| !LIBRARIES.contains(&package.as_str()));
    needed.insert("language_grounding".to_owned());
    assert_eq!(bound, needed, "IDL_PACKAGE_FILTER (left) and package.xml's <depend> (right)");
}

#[test]
fn package_and_crate_have_one_version_and_one_name() {
    let xml = read("package.xml");
    assert_eq!(element(&xml, "version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(element(&xml, "name"), env!("CARGO_PKG_NAME"));
}

#[test]
fn installed_programs_and_folders_exist() {
    let cmake = read("cmake/cargo_node.cmake");
    for program in block(&cmake, "set(programs") {
        let source = format!("src/bin/{program}");
        assert!(
            root().join(format!("{source}.rs")).is_file() || root().join(&source).is_dir(),
            "CMake installs {program}, but there is no {source}.rs"
        );
    }
    let folders = block(&cmake, "install(DIRECTORY");
    let folders: Vec<_> = folders.iter().take_while(|word| *word != "DESTINATION").collect();
    assert!(!folders.is_empty());
    for folder in folders {
        assert!(root().join(folder).is_dir(), "CMake installs {folder}/, which does not exist");
    }
}

#[test]
fn colcon_runs_tests_and_package_xml_names_what_they_need() {
    let cmake = read("CMakeLists.txt");
    let (_, guarded) = cmake.split_once("if(BUILD_TESTING)").expect("CMakeLists.txt adds no tests");
    assert!(
        guarded.contains("include(cmake/tests.cmake)"),
        "tests.cmake is not included under BUILD_TESTING"
    );
    let tests = read("cmake/tests.cmake");
    let needed = elements(&read("package.xml"), "test_depend");
    for package in tests.split("find_package(").skip(1).map(|rest| rest.split_whitespace().next().unwrap()) {
        assert!(needed.contains(package), "cmake/tests.cmake finds {package}, which is no <test_depend>");
    }
    for test in tests.split("ament_add_pytest_test(").skip(1) {
        let path = test.split_whitespace().nth(1).unwrap();
        assert!(root().join(path).is_file(), "cmake/tests.cmake runs {path}, which does not exist");
    }
    assert!(tests.contains("ament_add_test(cargo_test"), "the Rust tests are not run");
}

#[test]
fn what_the_ros_tests_import_is_depended_on() {
    // Of Python itself, of pip, and of the tests' own folder.
    const OTHER: &[&str] = &["PIL", "camera", "conftest", "numpy", "pytest", "language_grounding"];
    const STANDARD: &[&str] = &[
        "array",
        "atexit",
        "collections",
        "contextlib",
        "functools",
        "hashlib",
        "http",
        "io",
        "itertools",
        "json",
        "math",
        "os",
        "pathlib",
        "re",
        "shutil",
        "signal",
        "socket",
        "struct",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "xml",
        "zlib",
    ];
    let mut known = dependencies();
    known.extend(elements(&read("package.xml"), "test_depend"));
    known.extend(OTHER.iter().chain(STANDARD).map(|it| (*it).to_owned()));
    for entry in fs::read_dir(root().join("tests/ros")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "py") {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim_start();
            let Some(rest) = line.strip_prefix("import ").or_else(|| line.strip_prefix("from ")) else {
                continue;
            };
            let package = rest.split([' ', '.', ',']).next().unwrap();
            assert!(
                known.contains(package),
                "{}: {package} is not depended on in package.xml",
                path.display()
            );
        }
    }
}

#[test]
fn make_and_the_ci_workflow_run_what_they_say() {
    let workflow = read(".github/workflows/ci.yml");
    for command in [".ci/run", "make demo"] {
        assert!(workflow.contains(&format!("run: {command}\n")), "the CI workflow does not run {command}");
    }
    assert!(read(".ci/run").contains("exec make test"), ".ci/run does not run make test");
    let makefile = read("Makefile");
    for script in ["lint_python.sh", "parameters_doc.py --check", "check_licenses.py"] {
        assert!(
            makefile.contains(&format!("@scripts/{script}\n")),
            "make lint does not run scripts/{script}"
        );
    }
}

/// The words between `start` and its closing parenthesis.
fn block(text: &str, start: &str) -> Vec<String> {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    let (inside, _) = rest.split_once(')').unwrap();
    inside.split_whitespace().map(str::to_owned).collect()
}

/// The packages that package.xml names in `<depend>`.
fn dependencies() -> BTreeSet<String> {
    elements(&read("package.xml"), "depend")
}

/// The texts of all elements of that name.
fn elements(xml: &str, name: &str) -> BTreeSet<String> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&start).skip(1).map(|rest| rest.split_once(&end).unwrap().0.to_owned()).collect()
}

/// The text of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split_once(&format!("</{name}>")).unwrap().0
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
