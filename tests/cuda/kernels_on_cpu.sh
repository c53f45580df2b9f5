#!/usr/bin/env bash
# Compiles and runs kernels_on_cpu.cpp, in f32 and bf16.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# C++ has no arrays whose size the launch decides.
sed -E 's/extern __shared__ float (\w+)\[\];/float *\1 = dynamic_shared;/' src/model/candle/kernels/cuda.cu >"$out/kernels.inc"
for type in FLOAT32 BFLOAT16; do
  echo "== $type"
  g++ -std=c++17 -O1 -w -D"$type" -D"KERNELS=\"$out/kernels.inc\"" "$@" tests/cuda/kernels_on_cpu.cpp -o "$out/kernels"
  "$out/kernels"
done
