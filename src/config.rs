//! Parameters: what a person wrote ([`RawConfig`]) to what the program may use ([`Config`]).
//!
//! Every parameter is declared once, in the table below: name, type, default, unit, range and description.
//! The ROS rim declares its parameters from [`PARAMETERS`], the YAML file is read into the same struct, and a live change
//! goes the same way: set the value in a copy of the [`RawConfig`], make a [`Config`] of it, or refuse with the reason.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::image::DepthUnit;
use crate::instruction::Vocabulary;
use crate::lift::{ApproachAxis, Gripper, LiftOptions};
use crate::model::{Decode, Florence2Options, ModelOptions, Quantize};
use crate::options::{PhraseThresholds, PipelineOptions, SecondLook, TargetBounds, Thresholds, Workspace};
use crate::register::Registration;
use crate::yaml;

/// A parameter's value as ROS and YAML know it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum ParameterValue {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

/// What a value may be, inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ParameterRange {
    Any,
    Integer { min: i64, max: i64 },
    Float { min: f64, max: f64 },
    Choice(&'static [&'static str]),
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// With the next request.
    Live,
    /// Never: it is read once, at start.
    ReadOnly,
}

/// The declaration of one parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// As in `ros2 param` and the YAML file.
    pub name: &'static str,
    /// SI unit, empty where there is none.
    pub unit: &'static str,
    /// What it may be.
    pub range: ParameterRange,
    /// When a change takes effect.
    pub change: Change,
    /// One sentence or two.
    pub description: &'static str,
    default: fn() -> ParameterValue,
}

impl Parameter {
    /// The value without a file.
    pub fn default(&self) -> ParameterValue {
        (self.default)()
    }
}

trait Value: Sized {
    const KIND: &'static str;
    fn into_value(self) -> ParameterValue;
    fn from_value(value: ParameterValue) -> Option<Self>;
}

macro_rules! impl_value {
    ($type:ty, $variant:ident, $kind:literal) => {
        impl Value for $type {
            const KIND: &'static str = $kind;
            fn into_value(self) -> ParameterValue {
                ParameterValue::$variant(self)
            }
            fn from_value(value: ParameterValue) -> Option<Self> {
                match value {
                    ParameterValue::$variant(it) => Some(it),
                    _ => None,
                }
            }
        }
    };
}

impl_value!(bool, Bool, "a boolean");
impl_value!(i64, Integer, "an integer");
impl_value!(f64, Float, "a floating-point number (write 1.0, not 1)");
impl_value!(String, Text, "a string");

/// One row per parameter: `name: type = default, unit, range, change, description`.
macro_rules! parameters {
    ($($name:ident: $type:ty = $default:expr, $unit:literal, $range:expr, $change:ident, $description:literal;)*) => {
        /// The parameters as written, unchecked. [`Config`] is made of it.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[allow(rustdoc::broken_intra_doc_links, reason = "the descriptions are plain text: owner/name[@revision]")]
        pub struct RawConfig {
            $(#[doc = $description] pub $name: $type,)*
        }

        impl Default for RawConfig {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// All parameters, in the order of the YAML file.
        pub const PARAMETERS: &[Parameter] = &[
            $(Parameter {
                name: stringify!($name),
                unit: $unit,
                range: $range,
                change: Change::$change,
                description: $description,
                default: || Value::into_value({ let it: $type = $default; it }),
            },)*
        ];

        impl RawConfig {
            /// The value of a parameter; `None` for an unknown name.
            pub fn get(&self, name: &str) -> Option<ParameterValue> {
                match name {
                    $(stringify!($name) => Some(self.$name.clone().into_value()),)*
                    _ => None,
                }
            }

            /// Sets a parameter; its range is checked when a [`Config`] is made.
            pub fn set(&mut self, name: &str, value: ParameterValue) -> Result<(), ConfigError> {
                match name {
                    $(stringify!($name) => {
                        let got = value.to_string();
                        self.$name = <$type>::from_value(value).ok_or(ConfigError::Type {
                            name: stringify!($name),
                            expected: <$type>::KIND,
                            got,
                        })?;
                    })*
                    _ => return Err(ConfigError::Unknown { name: name.to_owned() }),
                }
                Ok(())
            }
        }
    };
}

use Change::ReadOnly;
use ParameterRange::{Any, Choice, Float, Integer};

parameters! {
    model: String = "florence2_tiny_tabletop".to_owned(), "", Any, ReadOnly,
        "Model directory, name of a shipped model, or owner/name[@revision] on the Hugging Face hub.";
    device: String = "auto".to_owned(), "", Any, ReadOnly,
        "Where the model runs: auto, cpu, cuda or cuda:N.";
    decode: String = "beam".to_owned(), "", Choice(&["beam", "greedy"]), ReadOnly,
        "How the model writes: beam (as many as its generation_config.json says) or greedy (one: faster).";
    ban_repeated_locations: bool = true, "", Any, ReadOnly,
        "The ban of repeated runs of tokens holds for coordinates too, as in the reference. It shifts a box by a bin where three coordinates in a row came before.";
    limit_to_locations: bool = false, "", Any, ReadOnly,
        "A generative model may answer with boxes of the asked phrase only: faster, and always at least one box. When false it may say anything, as in the reference.";
    verifier: String = String::new(), "", Any, ReadOnly,
        "Directory or name of a second model (CLIP or SigLIP) that compares each box with the phrase and with distractors: the score part contrastive_margin. Empty: none.";
    second_model: String = String::new(), "", Any, ReadOnly,
        "Directory or name of a second model that finds boxes by itself (OWLv2 or Florence-2): the score part agreement says how well it agrees with each box. Empty: none.";
    second_look: String = "auto".to_owned(), "", Choice(SecondLook::NAMES), Live,
        "Whether parts of the picture are looked at again, larger, for phrases of which the first look was not sure: never, auto (by models whose input is small, for which it is cheap) or always. Finds small things; a NOT_FOUND takes up to nine looks.";
    check_colors: bool = true, "", Any, Live,
        "Compare a candidate's own pixels with the color asked for, and count it as absent (missing: attribute) where they refute it. Off for cameras without true colors.";
    quantize: String = "none".to_owned(), "", Choice(Quantize::NAMES), ReadOnly,
        "Keep weights smaller and compute faster, with slightly different results (Florence-2, OWLv2). auto: the fastest of the others on this machine; bf16: half the memory, for processors with AVX512_BF16 or AMX, and GPUs; int8: a quarter of the memory, for every processor, further from the exact results; f16: half the memory, for GPUs.";
    image_transport: String = "raw".to_owned(), "", Choice(&["raw", "compressed"]), ReadOnly,
        "How color images come: sensor_msgs/Image on `image`, or sensor_msgs/CompressedImage on `image/compressed`.";
    depth_transport: String = "raw".to_owned(), "", Choice(&["raw", "compressedDepth"]), ReadOnly,
        "How depth images come: sensor_msgs/Image on `depth`, or sensor_msgs/CompressedImage on `depth/compressedDepth`.";
    use_depth: bool = true, "", Any, ReadOnly,
        "Subscribe to depth and lift targets to poses. When false, results are 2D only and FOUND needs no depth.";
    depth_registration: String = "auto".to_owned(), "", Choice(&["auto", "registered", "register"]), ReadOnly,
        "Whether depth images are registered to the color image (same viewpoint and size): registered (believed, whatever their frame_id), register (the node does it, with the depth camera's own camera_info and TF), or auto: by their frame_id and size.";
    target_frame: String = String::new(), "", Any, Live,
        "TF frame in which poses are published; empty: the camera's optical frame.";
    transform_timeout_secs: f64 = 0.2, "s", Float { min: 0.0, max: 10.0 }, Live,
        "How long to wait for a transform at the image's stamp before the result says NO_TRANSFORM.";
    transform_cache_secs: f64 = 10.0, "s", Float { min: 0.1, max: 600.0 }, ReadOnly,
        "How much transform history is kept.";
    stamp_tolerance_secs: f64 = 0.02, "s", Float { min: 0.0, max: 1.0 }, Live,
        "Largest difference between the stamps of a color and a depth image that belong together.";
    max_frame_age_secs: f64 = 1.0, "s", Float { min: 0.01, max: 3600.0 }, Live,
        "A frame older than this when a request is served gives STALE instead of an answer about the past.";
    max_rate_hz: f64 = 0.0, "Hz", Float { min: 0.0, max: 1000.0 }, Live,
        "At most so many answers per second to the standing instruction; 0: as many as the model manages.";
    score_threshold: f64 = 0.5, "", Float { min: 0.0, max: 1.0 }, Live,
        "Detections under this score count as absent.";
    ambiguity_margin: f64 = 0.2, "", Float { min: 0.0, max: 1.0 }, Live,
        "Candidates whose fits to the words differ by less are not told apart: the result is AMBIGUOUS.";
    per_phrase: String = String::new(), "", Any, Live,
        "What holds for single phrases (as results name them) instead of score_threshold and ambiguity_margin, as YAML: {red mug: {score_threshold: 0.3, ambiguity_margin: 0.1}}.";
    viewpoint: String = "camera".to_owned(), "", Choice(&["camera", "robot", "target_frame"]), Live,
        "From where left, right, front and back are told: the camera, the robot (robot_frame) or target_frame. Frames are taken with x forward and y left, those named *_optical_frame with z forward and x right.";
    robot_frame: String = "base_link".to_owned(), "", Any, Live,
        "TF frame of the robot's body, for the viewpoint robot.";
    vocabulary: String = String::new(), "", Any, Live,
        "File of words that adds to the built-in vocabulary, in the form of config/vocabulary.yaml: verbs, synonyms, relations. Empty: none.";
    score_weights: String = String::new(), "", Any, ReadOnly,
        "File of weights (by `ground calibrate`) that make one calibrated score of a box's score parts. Empty: the model's own score.";
    dialogue_window_secs: f64 = 30.0, "s", Float { min: 0.0, max: 3600.0 }, ReadOnly,
        "For so long after a result, words such as \"the left one\", \"the other one\" or \"yes\" answer its question or correct it. 0: every instruction stands for itself.";
    max_candidates: i64 = 32, "", Integer { min: 1, max: 1000 }, Live,
        "At most so many candidates per phrase, best first, are considered and published.";
    caption_targets: bool = true, "", Any, Live,
        "Let the model describe each target. Costs one decoding per target.";
    depth_scale: f64 = 0.0, "m", Float { min: 0.0, max: 1000.0 }, Live,
        "Meters per unit of depth values: 0.001 where 32FC1 holds millimeters, 0.0001 or 0.00025 for cameras whose 16UC1 is finer than millimeters. 0: by encoding, millimeters in 16UC1 and meters in 32FC1.";
    min_depth_m: f64 = 0.05, "m", Float { min: 0.0, max: 100.0 }, Live,
        "Depth under this is taken for missing.";
    max_depth_m: f64 = 10.0, "m", Float { min: 0.01, max: 1000.0 }, Live,
        "Depth over this is taken for missing.";
    min_object_points: i64 = 20, "", Integer { min: 1, max: 1_000_000 }, Live,
        "An object with fewer depth pixels gets no pose but NO_DEPTH.";
    image_rectified: String = "auto".to_owned(), "", Choice(&["auto", "yes", "no"]), ReadOnly,
        "Whether the image is rectified (P of camera_info holds) or not (K and D hold); auto: when its topic's name contains `rect`.";
    gravity_frame: String = String::new(), "", Any, Live,
        "TF frame whose z axis points up, such as base_link or odom. Empty: that of target_frame, robot_frame or a usual frame (map, odom, world) as far as TF has them and no large surface in view contradicts it; else up is told from the surface that things stand on.";
    plane_frame: String = String::new(), "", Any, Live,
        "TF frame whose x-y plane is the surface that things stand on: objects without depth are placed there. Empty: no such frame.";
    plane_memory_frame: String = String::new(), "", Any, Live,
        "TF frame in which furniture stands still, such as map or odom: the surface last seen with depth is remembered there for a minute, for images without depth. Empty: it is not remembered.";
    track: bool = true, "", Any, Live,
        "Follow the objects of the standing instruction from image to image by their depth: target_pose comes with every pair of images, and ids stay. Services and actions are never tracked.";
    track_timeout_secs: f64 = 1.0, "s", Float { min: 0.05, max: 10.0 }, Live,
        "A tracked object that is hidden for longer is lost: one result says STALE, and no more poses of it come.";
    workspace_frame: String = String::new(), "", Any, Live,
        "TF frame of workspace_min and workspace_max. Empty: that of target_frame, else the camera's optical frame.";
    workspace_min: String = String::new(), "", Any, Live,
        "Least x, y and z of a target in workspace_frame, in meters, as 0.2, -0.5, -0.05: what lies outside is NOT_FOUND with missing reach, but may be a landmark. Needs workspace_max. Empty: no bounds.";
    workspace_max: String = String::new(), "", Any, Live,
        "Greatest x, y and z of a target in workspace_frame, in meters. Needs workspace_min. Empty: no bounds.";
    min_object_size_m: f64 = 0.0, "m", Float { min: 0.0, max: 100.0 }, Live,
        "A thing whose longest side is shorter is no target: NOT_FOUND with missing size. 0: any.";
    max_object_size_m: f64 = 0.0, "m", Float { min: 0.0, max: 100.0 }, Live,
        "A thing whose longest side is longer is no target: NOT_FOUND with missing size. 0: any.";
    gripper_max_opening_m: f64 = 0.08, "m", Float { min: 0.001, max: 1.0 }, Live,
        "Largest distance between the fingers of the gripper that grasp candidates are for.";
    gripper_finger_depth_m: f64 = 0.045, "m", Float { min: 0.001, max: 1.0 }, Live,
        "How far its fingers reach beyond its palm.";
    gripper_approach_axis: String = "z".to_owned(), "", Choice(&["x", "z"]), Live,
        "Axis of a grasp's frame that points from the gripper to the object; the fingers close along y.";
    depth_noise_m: f64 = 0.0015, "m", Float { min: 0.0, max: 0.5 }, Live,
        "Standard deviation of the camera's depth at 1 m; it grows with the square of the distance.";
}

/// Made once: every change of a parameter makes a configuration.
static BUILT_IN_VOCABULARY: LazyLock<Arc<Vocabulary>> = LazyLock::new(Arc::default);

/// How color images come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ImageTransport {
    Raw,
    Compressed,
}

/// How depth images come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DepthTransport {
    Raw,
    CompressedDepth,
}

/// Parameters whose ranges and combinations were checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Model directory, shipped name, or `owner/name[@revision]` on the hub.
    pub model: String,
    /// How the model is loaded and run.
    pub model_options: ModelOptions,
    /// How color images come.
    pub image_transport: ImageTransport,
    /// How depth images come.
    pub depth_transport: DepthTransport,
    /// What depth values are in.
    pub depth_unit: DepthUnit,
    /// Whether depth comes registered to the color image.
    pub depth_registration: Registration,
    /// Frame of published poses; `None`: the camera's optical frame.
    pub target_frame: Option<String>,
    /// Bounded wait for a transform.
    pub transform_timeout: Duration,
    /// How much transform history is kept.
    pub transform_cache: Duration,
    /// Largest color-depth stamp difference.
    pub stamp_tolerance: Duration,
    /// Older frames are STALE.
    pub max_frame_age: Duration,
    /// Shortest time between answers to the standing instruction.
    pub min_period: Duration,
    /// The file of words that adds to the built-in ones; `None`: none.
    pub vocabulary_file: Option<PathBuf>,
    /// The words of the grammar. Those built in until whoever may read files has read [`Config::vocabulary_file`].
    pub vocabulary: Arc<Vocabulary>,
    /// The file of what makes a score of its parts, for [`PipelineOptions::score_weights`]; `None`: none.
    pub score_weights_file: Option<PathBuf>,
    /// For how long after a result words are read as an answer to it.
    pub dialogue_window: Duration,
    /// The way from words to poses. The score weights are `None` until whoever may read files has read theirs.
    pub pipeline: PipelineOptions,
    /// Frame whose sides "left" and "behind" are; `None`: the camera's.
    pub viewpoint_frame: Option<String>,
    /// Whether the image is rectified; `None`: told by its topic's name.
    pub is_image_rectified: Option<bool>,
    /// Frame of the robot's body: up is taken from it where nothing else tells.
    pub robot_frame: String,
    /// Frame whose z axis points up.
    pub gravity_frame: Option<String>,
    /// Frame whose x-y plane things stand on.
    pub plane_frame: Option<String>,
    /// Frame in which the support plane is remembered.
    pub plane_memory_frame: Option<String>,
    /// Whether the objects of the standing instruction are followed from image to image.
    pub track: bool,
    /// Hidden for longer, a tracked object is lost.
    pub track_timeout: Duration,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum ConfigError {
    #[error("there is no parameter {name:?}; see `ros2 param list` or config/grounding.yaml")]
    Unknown { name: String },
    #[error("parameter {name} must be {expected}, got {got}")]
    Type { name: &'static str, expected: &'static str, got: String },
    #[error("parameter {name} must be {expected}, got {got}")]
    Range { name: String, expected: String, got: String },
    #[error("{0}")]
    Conflict(String),
    #[error("cannot read the configuration: {0}")]
    Syntax(String),
}

impl RawConfig {
    /// From a ROS 2 parameter file: the `ros__parameters` of its first node, missing ones at their defaults.
    pub fn from_ros_yaml(text: &str) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Node {
            #[serde(rename = "ros__parameters")]
            parameters: RawConfig,
        }
        let nodes: BTreeMap<String, Node> =
            yaml::read(text).map_err(|err| ConfigError::Syntax(err.to_string()))?;
        nodes.into_values().next().map(|it| it.parameters).ok_or_else(|| {
            ConfigError::Syntax("expected `NODE: ros__parameters: ...`, got no node".to_owned())
        })
    }

    /// As a ROS 2 parameter file with units, ranges and descriptions as comments.
    pub fn to_ros_yaml(&self) -> String {
        let mut text =
            String::from("# Parameters of grounding_node with their defaults.\n/**:\n  ros__parameters:\n");
        for parameter in PARAMETERS {
            let value = self.get(parameter.name).unwrap_or_else(|| parameter.default());
            let mut notes = Vec::new();
            if !parameter.unit.is_empty() {
                notes.push(parameter.unit.to_owned());
            }
            if parameter.range != Any {
                notes.push(parameter.range.to_string());
            }
            if parameter.change == ReadOnly {
                notes.push("read at start".to_owned());
            }
            let notes = if notes.is_empty() { String::new() } else { format!(" [{}]", notes.join("; ")) };
            text += &format!("    # {}{notes}\n    {}: {value}\n", parameter.description, parameter.name);
        }
        text
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::try_from(RawConfig::default()).expect("the defaults are in range, by test")
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        for parameter in PARAMETERS {
            if let Some(value) = raw.get(parameter.name) {
                parameter.range.check(parameter.name, &value)?;
            }
        }
        raw.check_together()?;
        let frame = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Ok(Self {
            model: raw.model.clone(),
            model_options: raw.model_options(),
            image_transport: match raw.image_transport.as_str() {
                "raw" => ImageTransport::Raw,
                _ => ImageTransport::Compressed,
            },
            depth_transport: match raw.depth_transport.as_str() {
                "raw" => DepthTransport::Raw,
                _ => DepthTransport::CompressedDepth,
            },
            depth_unit: DepthUnit::from_scale(raw.depth_scale),
            depth_registration: match raw.depth_registration.as_str() {
                "registered" => Registration::Done,
                "register" => Registration::Wanted,
                _ => Registration::Auto,
            },
            target_frame: frame(&raw.target_frame),
            transform_timeout: duration("transform_timeout_secs", raw.transform_timeout_secs)?,
            transform_cache: duration("transform_cache_secs", raw.transform_cache_secs)?,
            stamp_tolerance: duration("stamp_tolerance_secs", raw.stamp_tolerance_secs)?,
            max_frame_age: duration("max_frame_age_secs", raw.max_frame_age_secs)?,
            min_period: if raw.max_rate_hz > 0.0 {
                duration("max_rate_hz", 1.0 / raw.max_rate_hz)?
            } else {
                Duration::ZERO
            },
            vocabulary_file: frame(&raw.vocabulary).map(PathBuf::from),
            vocabulary: Arc::clone(&BUILT_IN_VOCABULARY),
            score_weights_file: frame(&raw.score_weights).map(PathBuf::from),
            dialogue_window: duration("dialogue_window_secs", raw.dialogue_window_secs)?,
            pipeline: raw.pipeline_options()?,
            viewpoint_frame: match raw.viewpoint.as_str() {
                "robot" => Some(raw.robot_frame.clone()),
                // Without a target frame poses are told in the camera's, and so are sides.
                "target_frame" => frame(&raw.target_frame),
                _ => None,
            },
            is_image_rectified: match raw.image_rectified.as_str() {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            },
            robot_frame: raw.robot_frame.clone(),
            gravity_frame: frame(&raw.gravity_frame),
            plane_frame: frame(&raw.plane_frame),
            plane_memory_frame: frame(&raw.plane_memory_frame),
            track: raw.track,
            track_timeout: duration("track_timeout_secs", raw.track_timeout_secs)?,
        })
    }
}

impl RawConfig {
    /// What ranges of single parameters cannot say.
    fn check_together(&self) -> Result<(), ConfigError> {
        if self.max_depth_m <= self.min_depth_m {
            return Err(ConfigError::Conflict(format!(
                "min_depth_m must be less than max_depth_m, got {} and {}",
                self.min_depth_m, self.max_depth_m
            )));
        }
        let known_device = matches!(self.device.as_str(), "auto" | "cpu" | "cuda")
            || self.device.strip_prefix("cuda:").is_some_and(|it| it.parse::<u16>().is_ok());
        if !known_device {
            return Err(ConfigError::Range {
                name: "device".to_owned(),
                expected: "auto, cpu, cuda or cuda:N".to_owned(),
                got: format!("{:?}", self.device),
            });
        }
        if self.model.is_empty() {
            return Err(ConfigError::Range {
                name: "model".to_owned(),
                expected: "a directory, the name of a shipped model, or owner/name[@revision]".to_owned(),
                got: "an empty string".to_owned(),
            });
        }
        if self.viewpoint == "robot" && self.robot_frame.is_empty() {
            return Err(ConfigError::Conflict("viewpoint robot needs the name of robot_frame".to_owned()));
        }
        Ok(())
    }

    fn model_options(&self) -> ModelOptions {
        ModelOptions {
            device: self.device.clone(),
            quantize: Quantize::by_name(&self.quantize).unwrap_or(Quantize::None),
            florence2: Florence2Options {
                decode: if self.decode == "beam" { Decode::Beam } else { Decode::Greedy },
                ban_repeated_locations: self.ban_repeated_locations,
                limit_to_locations: self.limit_to_locations,
            },
            verifier: self.verifier.clone(),
            second_model: self.second_model.clone(),
        }
    }

    fn workspace(&self) -> Result<Option<Workspace>, ConfigError> {
        let corner = |name: &str, text: &str| -> Result<Option<[f64; 3]>, ConfigError> {
            if text.trim().is_empty() {
                return Ok(None);
            }
            // ROS takes [0.2, -0.5, -0.05] on its command line for an array of numbers, so it is written without brackets.
            let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
            let read: Option<[f64; 3]> = yaml::read(&format!("[{bare}]")).ok();
            let finite = read.filter(|it| it.iter().all(|it| it.is_finite()));
            finite.map(Some).ok_or_else(|| ConfigError::Range {
                name: name.to_owned(),
                expected: "three numbers such as 0.2, -0.5, -0.05, or empty".to_owned(),
                got: format!("{text:?}"),
            })
        };
        let frame =
            [&self.workspace_frame, &self.target_frame].into_iter().find(|it| !it.is_empty()).cloned();
        let corners =
            (corner("workspace_min", &self.workspace_min)?, corner("workspace_max", &self.workspace_max)?);
        match corners {
            (None, None) => Ok(None),
            (Some(min_m), Some(max_m)) if (0..3).all(|it| min_m[it] < max_m[it]) => {
                Ok(Some(Workspace { frame, min_m, max_m }))
            }
            (Some(min_m), Some(max_m)) => Err(ConfigError::Conflict(format!(
                "workspace_min must be less than workspace_max in x, y and z, got {min_m:?} and {max_m:?}"
            ))),
            _ => Err(ConfigError::Conflict(
                "workspace_min and workspace_max are only of use together: set both, or none".to_owned(),
            )),
        }
    }

    fn pipeline_options(&self) -> Result<PipelineOptions, ConfigError> {
        Ok(PipelineOptions {
            use_depth: self.use_depth,
            second_look: SecondLook::by_name(&self.second_look).unwrap_or(SecondLook::Auto),
            check_colors: self.check_colors,
            max_candidates: self.max_candidates as usize,
            caption_targets: self.caption_targets,
            score_weights: None,
            thresholds: Arc::new(Thresholds {
                score: self.score_threshold as f32,
                ambiguity_margin: self.ambiguity_margin,
                per_phrase: read_per_phrase(&self.per_phrase)?,
            }),
            lift: LiftOptions {
                min_depth_m: self.min_depth_m,
                max_depth_m: self.max_depth_m,
                min_points: self.min_object_points as usize,
                depth_noise_m: self.depth_noise_m,
            },
            bounds: TargetBounds {
                workspace: self.workspace()?,
                min_size_m: self.min_object_size_m,
                max_size_m: self.max_object_size_m,
            },
            gripper: Gripper {
                max_opening_m: self.gripper_max_opening_m,
                finger_depth_m: self.gripper_finger_depth_m,
                approach_axis: match self.gripper_approach_axis.as_str() {
                    "x" => ApproachAxis::X,
                    _ => ApproachAxis::Z,
                },
            },
        })
    }
}

impl ParameterRange {
    /// Whether a parameter's value is inside; the only place where that is checked.
    ///
    /// # Errors
    /// It is not: one sentence with the range and the value.
    pub fn check(self, name: &str, value: &ParameterValue) -> Result<(), ConfigError> {
        let is_inside = match (self, value) {
            (Any, ParameterValue::Float(it)) => it.is_finite(),
            (Any, _) => true,
            (Integer { min, max }, ParameterValue::Integer(it)) => (min..=max).contains(it),
            // NaN is in no range.
            (Float { min, max }, ParameterValue::Float(it)) => (min..=max).contains(it),
            (Choice(choices), ParameterValue::Text(it)) => choices.contains(&it.as_str()),
            _ => false,
        };
        if is_inside {
            return Ok(());
        }
        let mut expected = match self {
            Any => "a finite number".to_owned(),
            Integer { min, max } => format!("from {min} to {max}"),
            Float { min, max } => format!("from {min} to {max}"),
            Choice(choices) => choices.join(" or "),
        };
        if let ("quantize", ParameterValue::Text(it)) = (name, value)
            && let Some(replacement) = Quantize::replacement(it)
        {
            expected = format!("{expected} ({replacement})");
        }
        Err(ConfigError::Range { name: name.to_owned(), expected, got: value.to_string() })
    }
}

impl fmt::Display for ParameterRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Any => f.write_str("anything"),
            Integer { min, max } => write!(f, "{min} to {max}"),
            Float { min, max } => write!(f, "{min:?} to {max:?}"),
            Choice(choices) => f.write_str(&choices.join(" or ")),
        }
    }
}

/// As YAML writes it: floats always with a point, so that ROS takes them for doubles.
impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(it) => write!(f, "{it}"),
            Self::Integer(it) => write!(f, "{it}"),
            Self::Float(it) => write!(f, "{it:?}"),
            Self::Text(it) => write!(f, "{it:?}"),
        }
    }
}

fn read_per_phrase(text: &str) -> Result<BTreeMap<String, PhraseThresholds>, ConfigError> {
    let refused = |why: &str| ConfigError::Range {
        name: "per_phrase".to_owned(),
        expected: "YAML such as {red mug: {score_threshold: 0.3, ambiguity_margin: 0.1}}, numbers in [0, 1]"
            .to_owned(),
        got: format!("{text:?}{why}"),
    };
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let read: BTreeMap<String, PhraseThresholds> =
        yaml::read(text).map_err(|error| refused(&format!(": {error}")))?;
    let is_share = |it: f64| (0.0..=1.0).contains(&it);
    for (phrase, options) in &read {
        let threshold = options.score_threshold.map_or(0.0, f64::from);
        if !is_share(threshold) || !is_share(options.ambiguity_margin.unwrap_or(0.0)) {
            return Err(refused(&format!(": {phrase:?} is out of range")));
        }
    }
    Ok(read.into_iter().map(|(phrase, options)| (phrase.trim().to_lowercase(), options)).collect())
}

fn duration(name: &'static str, secs: f64) -> Result<Duration, ConfigError> {
    Duration::try_from_secs_f64(secs).map_err(|err| ConfigError::Range {
        name: name.to_owned(),
        expected: "a time in seconds".to_owned(),
        got: format!("{secs} ({err})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yaml_file_holds_the_defaults() {
        let text = include_str!("../config/grounding.yaml");
        assert_eq!(RawConfig::from_ros_yaml(text).unwrap(), RawConfig::default());
        assert_eq!(
            text,
            RawConfig::default().to_ros_yaml(),
            "write it anew with `ground config > config/grounding.yaml`"
        );
    }

    #[test]
    fn defaults_are_in_range_and_names_are_distinct() {
        let config = Config::default();
        assert_eq!(config.min_period, Duration::ZERO);
        let mut names: Vec<&str> = PARAMETERS.iter().map(|it| it.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PARAMETERS.len());
        for parameter in PARAMETERS {
            assert!(!parameter.description.is_empty());
            assert_eq!(RawConfig::default().get(parameter.name), Some(parameter.default()));
        }
    }

    #[test]
    fn refusals_say_what_was_expected() {
        #[track_caller]
        fn check(name: &str, value: ParameterValue, expected: &str) {
            let mut raw = RawConfig::default();
            let error = raw.set(name, value).and_then(|()| Config::try_from(raw).map(drop)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        check(
            "score_threshold",
            ParameterValue::Float(1.5),
            "parameter score_threshold must be from 0 to 1, got 1.5",
        );
        check(
            "score_threshold",
            ParameterValue::Float(f64::NAN),
            "parameter score_threshold must be from 0 to 1, got NaN",
        );
        check(
            "score_threshold",
            ParameterValue::Integer(1),
            "parameter score_threshold must be a floating-point number (write 1.0, not 1), got 1",
        );
        check(
            "max_candidates",
            ParameterValue::Integer(0),
            "parameter max_candidates must be from 1 to 1000, got 0",
        );
        check(
            "image_transport",
            ParameterValue::Text("theora".to_owned()),
            "parameter image_transport must be raw or compressed, got \"theora\"",
        );
        check(
            "device",
            ParameterValue::Text("cuda:x".to_owned()),
            "parameter device must be auto, cpu, cuda or cuda:N, got \"cuda:x\"",
        );
        check(
            "max_depth_m",
            ParameterValue::Float(0.01),
            "min_depth_m must be less than max_depth_m, got 0.05 and 0.01",
        );
        check(
            "treshold",
            ParameterValue::Float(0.1),
            "there is no parameter \"treshold\"; see `ros2 param list` or config/grounding.yaml",
        );
    }

    #[test]
    fn phrases_have_options_of_their_own() {
        let read =
            |yaml: &str| Config::try_from(RawConfig { per_phrase: yaml.to_owned(), ..RawConfig::default() });
        let config = read("{Red Mug: {score_threshold: 0.25}, plate: {ambiguity_margin: 0.0}}").unwrap();
        let options = config.pipeline.thresholds;
        assert_eq!((options.threshold_of("red mug"), options.ambiguity_margin_of("red mug")), (0.25, 0.2));
        assert_eq!((options.threshold_of("plate"), options.ambiguity_margin_of("plate")), (0.5, 0.0));
        assert_eq!((options.threshold_of("mug"), options.ambiguity_margin_of("mug")), (0.5, 0.2));
        for (yaml, part) in [
            ("{mug: 0.3}", "invalid type"),
            ("{mug: {threshold: 0.3}}", "unknown field"),
            ("{mug: {score_threshold: 3.0}}", "\"mug\" is out of range"),
            ("{mug: {score_threshold: .nan}}", "\"mug\" is out of range"),
            ("mug", "parameter per_phrase must be YAML such as"),
        ] {
            let error = read(yaml).unwrap_err().to_string();
            assert!(error.contains(part), "{yaml}: {error}");
        }
    }

    #[test]
    fn a_viewpoint_is_a_frame() {
        let frame = |viewpoint: &str, target_frame: &str| {
            let raw = RawConfig {
                viewpoint: viewpoint.to_owned(),
                target_frame: target_frame.to_owned(),
                ..RawConfig::default()
            };
            Config::try_from(raw).unwrap().viewpoint_frame
        };
        assert_eq!(frame("camera", "map"), None);
        assert_eq!(frame("robot", "map").as_deref(), Some("base_link"));
        assert_eq!(frame("target_frame", "map").as_deref(), Some("map"));
        assert_eq!(frame("target_frame", ""), None);
        let nameless =
            RawConfig { viewpoint: "robot".to_owned(), robot_frame: String::new(), ..RawConfig::default() };
        assert!(Config::try_from(nameless).unwrap_err().to_string().contains("robot_frame"));
    }

    #[test]
    fn a_file_with_an_unknown_key_is_refused() {
        let error = RawConfig::from_ros_yaml("/**:\n  ros__parameters:\n    scoer: 1.0\n").unwrap_err();
        assert!(error.to_string().contains("scoer"), "{error}");
    }
}
