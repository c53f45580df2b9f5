//! The ROS 2 rim: conversions, topics, services, parameters; no maths.
