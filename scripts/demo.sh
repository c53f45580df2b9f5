#!/usr/bin/env bash
# The whole path on one machine: a simulated RGB-D camera, the node, a sentence, the object's pose.
# usage: scripts/demo.sh ["pick up the red mug"]      (with ROS 2 and the interfaces sourced; `make demo` does that)
set -euo pipefail
cd "$(dirname "$0")/.."
export LG_BIN_DIR=${LG_BIN_DIR:-$PWD/${CARGO_TARGET_DIR:-target}/release}
# Neither heard nor disturbed by other machines, nor by other ROS programs on this one.
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
export ROS_DOMAIN_ID=${LG_DEMO_DOMAIN_ID:-87}
# Fast DDS loses large best-effort images without it.
export FASTRTPS_DEFAULT_PROFILES_FILE=$PWD/config/fastdds_shm.xml
exec python3 scripts/demo.py "$@"
