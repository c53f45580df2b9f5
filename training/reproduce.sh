#!/usr/bin/env bash
# reproduce.sh OUT MESHES [MINUTES [LIBERO]]: scenes, training, export, calibration and figures, in OUT.
# MESHES is a folder made by meshes.py; LIBERO, where given, one made by libero_scenes.py. RANKS=2 trains on two cores.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
meshes=$(cd "$2" && pwd)
minutes=${3:-150}
root=$(cd "$(dirname "$0")/.." && pwd)
data=("$out/train=0.55")
[ $# -lt 4 ] || data+=("$(cd "$4" && pwd)=0.45")
export OMP_NUM_THREADS=1

cd "$root"
for seeds in train:1000000..1010000 held_out:900000000..900000700 held_out:900001000..900001700; do
  cargo run --release --no-default-features --bin scene_dataset -- \
    --meshes "$meshes" --size 256 --seeds "${seeds#*:}" --out "$out/${seeds%%:*}" --shard 250
done
cd "$root/training"
python train.py --data "${data[@]}" --out "$out/run" --minutes "$minutes" --ranks "${RANKS:-1}"
mkdir -p "$out/run_decoder" && cp "$out/run/tokenizer.json" "$out/run_decoder"
python train.py --data "${data[@]}" --out "$out/run_decoder" --init "$out/run/state.pt" --only decoder --texts 1 --rate 5e-4 \
  --minutes $((minutes / 10))
python export.py "$out/run_decoder/state.pt" "$out/run/tokenizer.json" "$out/checkpoint"
python evaluate.py "$out/checkpoint" "$out/held_out=900000000..900000700" --calibrate
python evaluate.py "$out/checkpoint" "$out/held_out=900001000..900001700" --write "$out/generated"
cargo run --release --no-default-features --bin ground -- \
  --model "$out/checkpoint" --batch "$out/generated/queries.jsonl" --output "$out/generated/results.jsonl"
python ../tests/eval/score.py "$out/generated" --out "$out"
