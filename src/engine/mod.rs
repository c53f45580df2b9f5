//! What the node does with its time: requests one after the other, each on the newest image, each with exactly one result.
//!
//! Needs an async runtime, and nothing of ROS: messages, TF, the clock and the topics come in and go out through the small types of
//! [`camera`], [`transforms`] and [`ports`], so that all of it is tested without a network. In the order of a request's way:
//!
//! * [`calls`]: what services and actions ask. [`scheduler`]: which request is next. [`conversation`]: what its words mean.
//! * [`camera`], [`queue`], [`inputs`]: the camera's messages, paired by stamp. [`frames`]: the pair to look at, and how long to
//!   wait for it. [`depth`]: its depth, brought to the color image.
//! * [`clock`], [`transforms`], [`context`]: what time it is, and what TF knows at the stamp of a frame.
//! * [`answer`]: one request on one frame to an [`outcome`]. [`refusal`]: why there is less.
//! * [`tracking`]: the objects of the standing instruction between the model's answers.
//! * [`monitor`], [`input_health`]: what is counted, and what is wrong with the inputs.

pub mod answer;
pub mod calls;
pub mod camera;
pub mod clock;
pub mod context;
pub mod conversation;
pub mod depth;
pub mod followed;
pub mod frames;
pub mod input_health;
pub mod inputs;
pub mod monitor;
pub mod outcome;
pub mod ports;
pub mod queue;
pub mod refusal;
pub mod scheduler;
pub mod state;
pub mod tracking;
pub mod transforms;

#[cfg(test)]
mod tests;
