//! A camera for machines without one: a generated scene, or a recorded bag in a loop, published as a driver would.

pub mod bag;
pub mod simulated;

use r2r::QosProfile;

/// Why a camera could not be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayerError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// As given.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// The file is no bag that can be played.
    #[error("{path} is not a rosbag2 MCAP file that can be played: {problem}")]
    Bag {
        /// As given.
        path: String,
        /// Expected, got.
        problem: String,
    },
    /// The scene cannot be made.
    #[error(transparent)]
    Scene(#[from] crate::scene::SceneError),
    /// A rate that is no rate.
    #[error("expected a positive rate, got {0}")]
    Rate(f64),
    /// ROS refused.
    #[error("ROS: {0}")]
    Ros(#[from] r2r::Error),
}

/// How images are published: as sensors do (best effort), or reliably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageReliability {
    /// Lost images are not sent again.
    BestEffort,
    /// Lost images are sent again.
    Reliable,
}

impl ImageReliability {
    fn qos(self) -> QosProfile {
        match self {
            Self::BestEffort => QosProfile::sensor_data(),
            Self::Reliable => QosProfile::default(),
        }
    }
}
