//! A detection and registered depth to a pose, a size and a covariance in the optical frame.
