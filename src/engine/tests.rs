//! The engine with nothing of ROS: a camera, TF, a clock and a model in the test's hands.

mod requests;
mod waiting;
mod world;
