#!/usr/bin/env bash
# reproduce.sh OUT [MINUTES_VISION MINUTES_JOINT [MESHES]]: scenes, training, export, calibration and figures, in OUT.
# With MESHES, a folder made by meshes.py, seven of ten scenes are furnished with its models.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
vision=${2:-30} joint=${3:-45}
meshes=()
[ $# -lt 4 ] || meshes=(--meshes "$(cd "$4" && pwd)")
root=$(cd "$(dirname "$0")/.." && pwd)
export OMP_NUM_THREADS=1

cd "$root"
for seeds in train:0..20000 held_out:900000000..900002000; do
  cargo run --release --no-default-features --bin scene_dataset -- \
    --seeds "${seeds#*:}" --out "$out/${seeds%%:*}" --shard 500 "${meshes[@]}"
done
cd "$root/training"
python train.py --data "$out/train" --out "$out/run" --stage vision --minutes "$vision"
python train.py --data "$out/train" --out "$out/run" --stage joint --detach --init "$out/run/vision.pt" --minutes "$joint"
python export.py "$out/run/joint.pt" "$out/run/tokenizer.json" "$out/checkpoint"
python evaluate.py "$out/checkpoint" "$out/held_out" --seeds 900000000..900001000 --texts 0 --calibrate
python evaluate.py "$out/checkpoint" "$out/held_out" --seeds 900001000..900002000 --report "$out/checkpoint/metrics.json"
