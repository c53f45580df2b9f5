//! Parse, ground, resolve, verify, lift: no threads, ROS or clock.
