//! Eyes for language: a camera image and an instruction in, the referred object's box, caption and target pose out.
//!
//! The modules in reading order; each line of the second list says what a part must *not* know
//! (`tests/architecture.rs` holds them to it).
//!
//! * [`image`], [`camera`], [`detection`]: the values everything passes around.
//! * [`instruction`]: text to a typed instruction. [`resolve`]: which candidate the words mean.
//! * [`score`]: named parts to one calibrated score.
//! * [`lift`]: a box and registered depth to a pose, a size and a covariance. [`annotate`]: drawing a result.
//! * [`track`]: objects followed from frame to frame. [`register`]: depth of another camera to the color camera's.
//! * [`transform`], [`pairing`]: the TF tree at a time; colour and depth by stamp.
//! * [`config`]: what a person wrote to what the program may use.
//! * [`dialogue`]: what words mean after what was said before.
//! * [`pipeline`]: parse, ground, resolve, verify, lift. [`report`]: its result as JSON.
//! * [`scene`]: ray-cast RGB-D tabletop scenes with exact answers.
//! * [`model`]: grounding models behind one small trait; its own thread; checkpoints.
//! * `ros`: the ROS 2 rim (feature `ros`).
//!
//! Invariants of absence:
//!
//! * only `ros` and the ROS binaries name r2r; only `model/candle` names candle;
//! * `instruction`, `image`, `camera`, `detection`, `resolve`, `lift`, `annotate`, `transform`, `pairing`, `dialogue`, `pipeline`, `report`
//!   `register`, `scene`, `score` and `track` know no ROS, tensors, threads, async runtime or clock.

pub mod annotate;
pub mod camera;
pub mod config;
pub mod detection;
pub mod dialogue;
pub mod image;
pub mod instruction;
pub mod lift;
pub mod model;
pub mod pairing;
pub mod pipeline;
pub mod register;
pub mod report;
pub mod resolve;
pub mod scene;
pub mod score;
pub mod track;
pub mod transform;

#[cfg(feature = "ros")]
pub mod ros;
