#!/usr/bin/env bash
# Checks the Python of scripts, tests and training with the ruff that lint_requirements.txt pins.
#
#   scripts/lint_python.sh [--fix]
#
# ruff is installed into build/lint once. LG_PYTHON names the Python to use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly requirements=scripts/lint_requirements.txt environment=build/lint
if ! cmp -s "$requirements" "$environment/requirements.txt"; then
  rm -rf "$environment"
  # The ROS prefix's packages must not be taken for this environment's.
  unset PYTHONPATH
  "${LG_PYTHON:-python3}" -m venv "$environment"
  "$environment/bin/python" -m pip install --disable-pip-version-check --quiet -r "$requirements" || {
    echo "lint_python: pip could not install ruff (see above): check the network connection and run this again." >&2
    exit 1
  }
  cp "$requirements" "$environment/requirements.txt"
fi
exec "$environment/bin/ruff" check "$@" .
