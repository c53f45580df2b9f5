#!/usr/bin/env bash
# leave_out.sh HOME STEP: the training that leaves rooms, models, textures and words out (splits.py). HOME is setup.sh's folder.
#
#   render          the scenes of all splits, in HOME/data; it may run beside train, which takes in what appears
#   train           until it is stopped; the same command goes on. Its last weights are HOME/run/state.pt. UNTIL=N ends it at step N
#   export          HOME/run/state.pt as a checkpoint in HOME/checkpoint, its score calibrated on the validation split
#   judge NAME=MODEL ...    the figures of checkpoints on the test split (SPLIT=validation: on that)
#
# PAUSE names a file that makes the training wait while it exists.
set -euo pipefail
home=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
data=$home/data
export MUJOCO_GL=osmesa OMP_NUM_THREADS=1 LP_NUM_THREADS=1 RAYON_NUM_THREADS=1
cd "$root/training"
python=$home/venv/bin/python

# Views that are there already are not drawn again: a folder that has its last shard is done.
rooms() { [ -e "$data/$1/done" ] || { "$home/sim/bin/python" libero_scenes.py "$data/$1" "${@:2}" && touch "$data/$1/done"; }; }
free() { [ -e "$data/$1/done" ] || { "$python" free_scenes.py "$home/assets" "$data/$1" "${@:2}" && touch "$data/$1/done"; }; }

case $2 in
render)
  mkdir -p "$data"
  rooms rooms_validation --split validation --views 240 --per-build 80 --shard 80 --own 0.7
  rooms rooms_test --split test --views 480 --per-build 60 --shard 60 --own 0.7
  free free_validation --split validation --views 240 --per-build 30 --shard 60
  free free_test --split test --views 480 --per-build 30 --shard 60
  rooms rooms_train --views 5580 --per-build 100 --shard 100 & one=$!
  free free_train --views 13500 & other=$!
  ../target/release/scene_dataset --meshes "$home/meshes" --size 320 --seeds 1100000..1104000 --out "$data/cast_train" --shard 100
  wait $one; wait $other
  ;;
train)
  exec "$python" train.py --data "$data/rooms_train=0.35" "$data/free_train=0.45" "$data/cast_train=0.2" \
    --validation "$data/rooms_validation" "$data/free_validation" --out "$home/run" --init ../models/florence2_tiny_tabletop \
    --threads "${THREADS:-1}" ${UNTIL:+--until "$UNTIL"} ${PAUSE:+--pause "$PAUSE"}
  ;;
export)
  "$python" export.py "$home/run/state.pt" "$home/run/tokenizer.json" "$home/checkpoint"
  "$python" evaluate.py "$home/checkpoint" "$data/rooms_validation=0..999999999" "$data/free_validation=0..999999999" --calibrate
  ;;
judge)
  split=${SPLIT:-test}
  for it in "${@:3}"; do
    out=$home/judged/$split/${it%%=*}
    [ -e "$out/queries.jsonl" ] || "$python" leave_out.py write "$split" "$out" "$data/rooms_$split" "$data/free_$split"
    (cd "$root" && RAYON_NUM_THREADS=2 target/release/ground --model "${it#*=}" --batch "$out/queries.jsonl" --output "$out/results.jsonl")
    outs+=("$out")
  done
  "$python" leave_out.py score "${outs[@]}"
  ;;
*)
  sed -n 's/^# //p' "$0"
  exit 2
  ;;
esac
