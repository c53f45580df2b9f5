//! Eyes for language: a camera image and an instruction in, the referred object's box, caption and target pose out.
//!
//! Words are read without a model, and held against whatever detector's boxes:
//!
//! ```
//! use language_grounding::candidate::Candidate;
//! use language_grounding::detection::{BoundingBox2d, Detection2d};
//! use language_grounding::instruction::{Vocabulary, parse};
//! use language_grounding::resolve::{Resolution, ResolveOptions, resolve_instruction};
//!
//! let instruction = parse("pick up the mug to the left of the plate", &Vocabulary::default())?;
//! assert_eq!(instruction.queries(), ["mug", "plate"]);
//!
//! // What a detector saw, in pixels: a plate between two mugs.
//! let seen = |phrase: &str, [x0, y0, x1, y1]: [f64; 4]| Candidate {
//!     detection: Detection2d::new(phrase, BoundingBox2d { x0, y0, x1, y1 }, 0.9),
//!     position_in_camera: None,
//!     size_m: None,
//!     body: None,
//! };
//! let candidates = [
//!     seen("mug", [420.0, 200.0, 480.0, 270.0]),
//!     seen("plate", [250.0, 210.0, 370.0, 270.0]),
//!     seen("mug", [100.0, 200.0, 160.0, 270.0]),
//! ];
//! let meant = resolve_instruction(&instruction, &candidates, &ResolveOptions::default());
//! assert!(matches!(&meant.targets[0], Resolution::Found { indices, .. } if *indices == [2]));
//! # Ok::<(), language_grounding::instruction::ParseError>(())
//! ```
//!
//! [`pipeline::run_text`] does this and all the rest for an image, with a [`model::Model`].
//!
//! The modules in reading order; each line of the second list says what a part must *not* know
//! (`tests/architecture.rs` holds them to it).
//!
//! * [`image`], [`camera`], [`color`], [`detection`], [`viewpoint`]: the values everything passes around. [`yaml`]: its reader.
//! * [`instruction`]: text to a typed instruction.
//! * [`model`]: models by role (finds, describes, answers, verifies) behind small traits, and the registry that loads them; a model's
//!   own thread; checkpoints.
//! * [`score`]: named parts to one calibrated score; other models put beside one for the parts that they add.
//! * [`lift`]: a box and registered depth to a pose, a size and a covariance.
//! * [`track`]: objects followed from frame to frame. [`register`]: depth of another camera to the color camera's.
//! * [`transform`]: the TF tree at a time.
//! * [`candidate`], [`request`], [`result`], [`options`]: what all of the following speak of: what may be meant, what is asked,
//!   what comes of it, and what a person chose.
//! * [`resolve`]: which candidate the words mean.
//! * [`pipeline`]: ground, resolve, lift, caption. [`report`]: its result as JSON. [`annotate`]: drawing it.
//! * [`dialogue`]: what words mean after what was said before.
//! * [`config`]: what a person wrote to what the program may use. [`config_files`]: the files it names.
//! * [`scene`]: ray-cast RGB-D tabletop scenes with exact answers.
//! * [`engine`]: what the node does with its time: requests, frames, TF and tracking, without ROS.
//! * `ros`: the ROS 2 rim (feature `ros`).
//!
//! Modules import what stands above them in this list, never below: there is no circle.
//!
//! Invariants of absence:
//!
//! * only `ros` and the ROS binaries name r2r; only `model/candle` names candle;
//! * `instruction`, `image`, `camera`, `color`, `detection`, `viewpoint`, `candidate`, `request`, `result`, `options`, `resolve`, `lift`,
//!   `annotate`, `transform`, `dialogue`, `pipeline`, `report`, `config`, `register`, `scene`, `score`, `track` and `yaml` know no ROS,
//!   tensors, threads, async runtime, clock or files.

pub mod annotate;
pub mod camera;
pub mod candidate;
pub mod color;
pub mod config;
pub mod config_files;
pub mod detection;
pub mod dialogue;
pub mod engine;
pub mod image;
pub mod instruction;
pub mod lift;
pub mod model;
pub mod options;
pub mod pipeline;
pub mod register;
pub mod report;
pub mod request;
pub mod resolve;
pub mod result;
pub mod scene;
pub mod score;
pub mod track;
pub mod transform;
pub mod viewpoint;
pub mod yaml;

#[cfg(feature = "ros")]
pub mod ros;
