//! The message types we may have built ourselves are upstream's: DDS refuses to talk across different type hashes.
//!
//! The constants are what vision_msgs 4.1.1 and tf2_msgs (Jazzy) have when built from their own sources.

#![allow(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]
#![cfg(feature = "ros")]

use std::path::{Path, PathBuf};
use std::{env, fs};

const UPSTREAM: &[(&str, &str)] = &[
    ("tf2_msgs/msg/TFMessage", "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"),
    (
        "vision_msgs/msg/BoundingBox2D",
        "RIHS01_008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    ),
    (
        "vision_msgs/msg/BoundingBox3D",
        "RIHS01_bbb73a65c163d7f9bb29009c7bde9f7faa576bd2d23299c4511d19230dab4698",
    ),
    (
        "vision_msgs/msg/Detection2D",
        "RIHS01_0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    ),
    (
        "vision_msgs/msg/Detection2DArray",
        "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    ),
    (
        "vision_msgs/msg/Detection3D",
        "RIHS01_ddd703be132ab0b69d33121f1bb034132bfbb3b0ac5f9fb1516005ba1c8a265b",
    ),
    (
        "vision_msgs/msg/Detection3DArray",
        "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    ),
    (
        "vision_msgs/msg/ObjectHypothesis",
        "RIHS01_51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    ),
    (
        "vision_msgs/msg/ObjectHypothesisWithPose",
        "RIHS01_41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    ),
    ("vision_msgs/msg/Point2D", "RIHS01_eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247"),
    ("vision_msgs/msg/Pose2D", "RIHS01_b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648"),
];

#[test]
fn types_have_the_hashes_of_upstream() {
    let mut wrong = Vec::new();
    for (name, expected) in UPSTREAM {
        let got = type_hash(name);
        if got != *expected {
            wrong.push(format!("{name}: expected {expected}, got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The hash of a type such as "tf2_msgs/msg/TFMessage", from the description installed with it.
fn type_hash(name: &str) -> String {
    let path = description(name);
    let text = fs::read_to_string(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let hashes = json["type_hashes"].as_array().unwrap();
    let own = hashes.iter().find(|entry| entry["type_name"] == name);
    let own = own.unwrap_or_else(|| panic!("{} has no hash of {name}", path.display()));
    own["hash_string"].as_str().unwrap().to_owned()
}

/// Where the sourced ROS has the description of a type.
fn description(name: &str) -> PathBuf {
    let prefixes = env::var("AMENT_PREFIX_PATH").expect("a ROS 2 is sourced when feature ros is on");
    prefixes
        .split(':')
        .map(|prefix| Path::new(prefix).join("share").join(name).with_extension("json"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name}.json in {prefixes}"))
}
