"""Compiles the GPU kernels as the program does at run time, without a GPU: a check for machines that have none.

    python tests/cuda/compile_kernels.py LIBNVRTC [compute_75 ...]

LIBNVRTC is libnvrtc.so.13 of a toolkit (scripts/cuda_toolkit.sh makes one) or of PyTorch's packages. Prints the kernels found for
each type and architecture (sm_90 compiles to machine code and reports registers), or the compiler's errors.
"""

import ctypes
import re
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent.parent / "src/model/candle/kernels/cuda.cu"


def compile_for(nvrtc, source, architecture, defines):
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"cuda.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}".encode(), *defines]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))

    def text(name):
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{name}")(program, buffer)
        return buffer.raw

    log = text("ProgramLog").rstrip(b"\0").decode()
    return failed, log, b"" if failed else text("PTX")


def main():
    nvrtc = ctypes.CDLL(sys.argv[1])
    source = SOURCE.read_bytes()
    expected = set(re.findall(r'extern "C" __global__ void (\w+)\(', source.decode()))
    expected = {name for name in expected if not name.endswith("_")}
    expected |= {f"{kind}_{d}" for kind in ("attention", "window_attention") for d in (32, 64, 128)}
    for architecture in sys.argv[2:] or ["compute_75", "compute_87", "compute_90"]:
        for defines in [[], [b"--define-macro=FLOAT16"], [b"--define-macro=BFLOAT16"]]:
            failed, log, ptx = compile_for(nvrtc, source, architecture, defines)
            entries = set(re.findall(rb"\.entry (\w+)", ptx))
            if failed or log or {it.decode() for it in entries} != expected:
                sys.exit(f"{architecture} {defines}: {log or sorted(entries)}")
            print(architecture, *(it.decode() for it in defines), f"{len(entries)} kernels, {len(ptx)} bytes")


if __name__ == "__main__":
    main()
