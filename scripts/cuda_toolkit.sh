#!/usr/bin/env bash
# Makes a CUDA toolkit for building `--features cuda` on a machine that has none, and no GPU either (Linux x86_64).
#
#   scripts/cuda_toolkit.sh && source build/cuda/env.sh
#   cargo build --release --no-default-features --features cuda
#
# NVIDIA's own wheels of the 13.0 toolkit (1.2 GB) go into build/cuda, or into the folder given as the argument. 13.0 because
# drivers of the 580 series refuse what a newer compiler makes. LG_CUDA_CAP is the GPU's compute capability: 90 is an H100 (the
# default), 89 an RTX 40, 87 an Orin, 120 an RTX 50. The folder can be deleted at any time.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$root/build/cuda}
readonly root dir

main() {
  mkdir -p "$dir"
  "${LG_PYTHON:-python3}" -m venv "$dir/venv"
  "$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    nvidia-{cuda-nvcc,cuda-runtime,cuda-cccl,cuda-crt,cuda-nvrtc,nvvm,cublas}'==13.0.*' nvidia-curand
  toolkit=$(echo "$dir"/venv/lib/python3.*/site-packages/nvidia/cu13)
  name_libraries
  make_driver_stub
  write_environment
  "$toolkit/bin/nvcc" --version | tail -n 2
  echo "source $dir/env.sh"
}

# Wheels have no names without a version, which linkers look for.
name_libraries() {
  local lib
  for lib in "$toolkit"/lib/lib*.so.[0-9]*; do
    ln -sf "$(basename "$lib")" "${lib%%.so.*}.so"
  done
  ln -sfn lib "$toolkit/lib64"
}

# No wheel holds the driver's library. For linking, its names are enough; where there is a GPU, the driver brings the real one.
# A program that runs against the stub is told so by every call: 34 is CUDA_ERROR_STUB_LIBRARY.
make_driver_stub() {
  mkdir -p "$dir/stub"
  grep -oE '\bcu[A-Z][A-Za-z0-9_]*' "$toolkit/include/cuda.h" | sort -u |
    sed 's/.*/int &(void) { return 34; }/' >"$dir/stub/cuda.c"
  gcc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$dir/stub/libcuda.so" "$dir/stub/cuda.c"
  ln -sf libcuda.so "$dir/stub/libcuda.so.1"
}

write_environment() {
  cat >"$dir/env.sh" <<END
export CUDA_HOME="$toolkit" CUDA_PATH="$toolkit" CUDA_ROOT="$toolkit" CUDA_TOOLKIT_ROOT_DIR="$toolkit"
export CUDA_COMPUTE_CAP="\${LG_CUDA_CAP:-90}"
export PATH="$toolkit/bin:\$PATH"
export LIBRARY_PATH="$toolkit/lib:$dir/stub\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
# Only for machines without these libraries: a real driver's libcuda.so.1 must come before the stub's.
export LG_CUDA_LIBRARIES="$toolkit/lib:$dir/stub"
END
}

main
