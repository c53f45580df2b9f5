"""Florence-2 of full size on a GPU: this package against transformers (eager and SDPA), interleaved in one run.

    python tests/parity/florence2_full_size.py DIR                       # random weights, where PyTorch is
    cargo bench --no-default-features --features cuda --bench florence2_worker --no-run     # where cargo is; prints WORKER
    python tests/benches/florence2_cuda.py DIR WORKER [--dtype f16|bf16|f32] [--rounds 30] [--beams 1] [--json FILE]

WORKER may have been built on another machine: here, only PyTorch, transformers and the GPU are needed (its CUDA libraries are found
among PyTorch's packages). Every round gives each side a new image (from bytes to tokens and boxes, preprocessing included), then
another sentence about the same image; the same again with more tokens, and the difference is the time of a decoding step. Each call
ends with its tokens on the host, so nothing is left running on the GPU. Warm-up rounds are not counted.

Not run yet: it was written on a machine without a GPU.
"""

import argparse
import glob
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from florence2_vs_transformers import ROOT, TASKS, Side, answer

N_TOKENS = (20, 84)
WARM_UP = 3
TORCH_NAMES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}
QUANTIZE = {"f16": "f16", "bf16": "bf16", "f32": "none"}


def transformers_worker(directory, attention, dtype, device):
    sys.path.insert(0, str(ROOT / "tests/parity"))
    import torch
    from tokenizers import Tokenizer
    from transformers import Florence2ForConditionalGeneration

    from florence2_full_size import preprocess
    from florence2_reference import Tower, make_image

    torch.backends.cuda.matmul.allow_tf32 = False
    model = Florence2ForConditionalGeneration.from_pretrained(
        directory, dtype=getattr(torch, TORCH_NAMES[dtype]), attn_implementation=attention
    ).eval().to(device)
    tower = Tower(model, None, Tokenizer.from_file(f"{directory}/tokenizer.json"))
    tower.cells = lambda _pixels: 576
    answer(ready=True)
    for line in sys.stdin:
        key, n_beams, name, *_text = line.split()
        prompt = next(sentence for task, _, sentence in TASKS if task == name)
        image = make_image(640, 480, int(key))
        start = time.perf_counter()
        with torch.inference_mode():
            inputs = tower.inputs(preprocess(image).to(model.dtype), prompt)
            inputs = {name: value.to(device) for name, value in inputs.items()}
            ids = model.generate(**inputs, num_beams=int(n_beams), early_stopping=int(n_beams) > 1)[0].tolist()
        answer(wall_s=time.perf_counter() - start, ids=ids)


def with_tokens(directory, n_tokens, out):
    """The same checkpoint with another limit."""
    out.mkdir()
    for path in directory.resolve().iterdir():
        if path.name != "generation_config.json":
            (out / path.name).symlink_to(path)
    config = json.loads((directory / "generation_config.json").read_text())
    (out / "generation_config.json").write_text(json.dumps(config | {"max_new_tokens": n_tokens}))
    return str(out)


def cuda_libraries():
    """Of PyTorch's packages, for our worker."""
    folders = [folder for path in sys.path for folder in glob.glob(f"{path}/nvidia/*/lib")]
    return ":".join(folders + [os.environ.get("LD_LIBRARY_PATH", "")])


def ms(values):
    values = sorted(values)
    p95 = values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
    return {"median_ms": 1000 * statistics.median(values), "p95_ms": 1000 * p95}


def measure(pairs, rounds, n_beams):
    """Runs all sides round by round; `pairs` has two sides for each name: few tokens and many."""
    new, same, steps = {name: [] for name in pairs}, {name: [] for name in pairs}, {name: [] for name in pairs}
    for number in range(WARM_UP + rounds):
        for name, (few, many) in pairs.items():
            answers = [[side.run(number, n_beams, task, text) for task, text, _ in TASKS] for side in (few, many)]
            if number < WARM_UP:
                continue
            new[name].append(answers[0][0]["wall_s"])
            same[name].append(answers[0][1]["wall_s"])
            more = len(answers[1][1]["ids"]) - len(answers[0][1]["ids"])
            if more > 0:
                steps[name].append((answers[1][1]["wall_s"] - answers[0][1]["wall_s"]) / more)
        print(f"round {number + 1} of {WARM_UP + rounds}", file=sys.stderr)
    return {name: {"new image": ms(new[name]), "same image": ms(same[name]), "step": ms(steps[name]) if steps[name] else None,
                   "ids": few.last["ids"]} for name, (few, _) in pairs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("worker", type=Path, nargs="?")
    parser.add_argument("--dtype", choices=TORCH_NAMES, default="f16")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--device", default="cuda:0", help="cpu tries this script out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--attention", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attention:
        return transformers_worker(str(arguments.dir), arguments.attention, arguments.dtype, arguments.device)
    if not arguments.worker:
        parser.error("expected the path of the program florence2_worker")

    import torch

    gpu = "CPU"
    if arguments.device != "cpu":
        if not torch.cuda.is_available():
            sys.exit("PyTorch sees no GPU; --device cpu only tries this script out")
        gpu = torch.cuda.get_device_name(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        directories = [with_tokens(arguments.dir, n, Path(folder) / str(n)) for n in N_TOKENS]
        python = [sys.executable, str(Path(__file__).resolve())]
        options = ["--dtype", arguments.dtype, "--device", arguments.device]
        pairs = {
            f"transformers {attention}": [Side(attention, [*python, it, *options, "--attention", attention]) for it in directories]
            for attention in ("eager", "sdpa")
        }
        ours = [str(arguments.worker.resolve()), f"device={arguments.device}", f"quantize={QUANTIZE[arguments.dtype]}"]
        pairs["ours"] = [
            Side("ours", [ours[0], it, *ours[1:]], {"LD_LIBRARY_PATH": cuda_libraries()}) for it in directories
        ]
        results = measure(pairs, arguments.rounds, arguments.beams)

    setting = f"{arguments.dtype}, {arguments.beams} beam(s), {N_TOKENS[0]} tokens, {arguments.rounds} rounds"
    print(f"{gpu}, torch {torch.__version__}, {setting}")
    print(f"{'ms':24}{'new image':>12}{'p95':>9}{'same image':>12}{'p95':>9}{'step':>9}{'p95':>9}")
    for name, result in results.items():
        columns = [result[it] or {"median_ms": float("nan"), "p95_ms": float("nan")} for it in ("new image", "same image", "step")]
        print(f"{name:24}" + "".join(f"{it['median_ms']:{width}.2f}{it['p95_ms']:9.2f}" for it, width in zip(columns, (12, 12, 9))))
    theirs, ids = results["transformers eager"], results["ours"]["ids"]
    n_equal = next((i for i, (a, b) in enumerate(zip(ids, theirs["ids"])) if a != b), min(len(ids), len(theirs["ids"])))
    print(f"ours and eager say the same for the first {n_equal} of {len(theirs['ids'])} tokens of the last answer")
    if arguments.json:
        report = {"gpu": gpu, "dtype": arguments.dtype, "beams": arguments.beams, "results": results}
        arguments.json.write_text(json.dumps(report, indent=1))
    if arguments.dtype == "f32" and n_equal < len(theirs["ids"]):
        sys.exit("in f32 the tokens should be the same")


if __name__ == "__main__":
    main()
