"""Florence-2 of full size: this package against transformers (torch on the CPU, float32 and bfloat16), interleaved.

    python tests/parity/florence2_full_size.py DIR
    cargo bench --no-default-features --bench florence2_worker --no-run
    python tests/benches/florence2_vs_transformers.py DIR [--rounds 5] [--threads 2] [--skip-bfloat16] [--also OPTION=VALUE ...]

Every round runs each side once on a new image (preprocessing, vision, encoder, 20 greedy tokens) and once more with another
sentence about the same image, A/B/A/B. transformers has no cache of image features; its second time is that of the whole
call. Prints CPU-seconds and wall seconds per call, peak memory, and ratios. The sides must agree on the tokens (float32).
`--also quantize=bf16` adds a side of ours with options.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TASKS = [("CAPTION", None, "What does the image describe?"), ("OPEN_VOCABULARY_DETECTION", "red cup", "Locate red cup in the image.")]


def transformers_worker(directory, dtype, threads):
    sys.path.insert(0, str(ROOT / "tests/parity"))
    import torch
    from tokenizers import Tokenizer
    from transformers import Florence2ForConditionalGeneration

    from florence2_full_size import preprocess
    from florence2_reference import Tower, make_image

    torch.set_num_threads(threads)
    model = Florence2ForConditionalGeneration.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
    tower = Tower(model, None, Tokenizer.from_file(f"{directory}/tokenizer.json"))
    tower.cells = lambda _pixels: 576
    answer(ready=True, threads=torch.get_num_threads())
    for line in sys.stdin:
        key, n_beams, _task, *_text = line.split()
        prompt = next(sentence for task, _, sentence in TASKS if task == _task)
        image = make_image(640, 480, int(key))
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            inputs = tower.inputs(preprocess(image).to(model.dtype), prompt)
            ids = model.generate(**inputs, num_beams=int(n_beams), early_stopping=int(n_beams) > 1)[0].tolist()
        answer(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu, ids=ids)


def answer(**values):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(values | {"peak_rss_mb": peak}), flush=True)


class Side:
    def __init__(self, name, command, environment=None):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=os.environ | (environment or {}),
        )
        self.first, self.second, self.last, self.loaded = [], [], {}, self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended; run its command to see why: {self.process.args}")
        return json.loads(line)

    def run(self, key, n_beams, task, text):
        self.process.stdin.write(f"{key} {n_beams} {task}{' ' + text if text else ''}\n")
        self.process.stdin.flush()
        self.last = self.read()
        return self.last


def find_worker():
    command = ["cargo", "bench", "--offline", "--no-default-features", "--bench", "florence2_worker", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines()]
    return next(it["executable"] for it in messages if it.get("target", {}).get("name") == "florence2_worker" and it.get("executable"))


def row(name, calls, reference):
    cpu, wall = [it["cpu_s"] for it in calls], sorted(it["wall_s"] for it in calls)
    p95 = wall[min(len(wall) - 1, round(0.95 * (len(wall) - 1)))]
    median = statistics.median(cpu)
    ratios = "".join(f"{median / other:9.2f}" for other in reference)
    print(f"{name:40}{median:9.2f}{statistics.median(wall):9.2f}{p95:9.2f}{ratios}")
    return median


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-bfloat16", action="store_true", help="minutes per call on a CPU without bfloat16 instructions")
    parser.add_argument("--also", nargs="*", default=[], help="options of one more side of ours, such as quantize=bf16")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return transformers_worker(arguments.dir, arguments.worker, arguments.threads)

    directory = str(arguments.dir.resolve())
    threads = {"RAYON_NUM_THREADS": str(arguments.threads), "OMP_NUM_THREADS": str(arguments.threads)}
    python = [sys.executable, str(Path(__file__).resolve()), directory, "--threads", str(arguments.threads), "--worker"]
    worker = find_worker()
    theirs = [Side(f"transformers {dtype}", python + [dtype], threads)
              for dtype in ["float32"] + ["bfloat16"] * (not arguments.skip_bfloat16)]
    ours = [Side(" ".join(["ours", *options]), [worker, directory, *options], threads)
            for options in [[]] + [arguments.also] * bool(arguments.also)]
    sides = theirs + ours
    for number in range(arguments.rounds + 1):
        for side in sides:
            for calls, (task, text, _) in zip((side.first, side.second), TASKS):
                side.run(number, arguments.beams, task, text)
                if number:  # the first round warms up
                    calls.append(side.last)
        a, c = theirs[0].last["ids"], ours[0].last["ids"]
        if a != c:
            sys.exit(f"the sides disagree: {a} and {c}")
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)

    n = len(ours[0].last["ids"]) - 1
    print(f"{n} tokens, {arguments.beams} beam(s), {arguments.threads} threads, {arguments.rounds} rounds, medians")
    print(f"{'':40}{'CPU s':>9}{'wall s':>9}{'p95':>9}{'/ f32':>9}{'/ bf16':>9}")
    reference = []
    for side in theirs:
        reference.append(row(f"{side.name}, new image", side.first, reference))
    for side in ours:
        first = row(f"{side.name}, new image", side.first, reference)
        second = row(f"{side.name}, same image", side.second, reference)
        print(f"    second instruction on the same frame: {100 * second / first:.0f} % of the first")
    weights = sum(it.stat().st_size for it in arguments.dir.glob("*.safetensors") if it.name.startswith("model")) / 2**20
    for side in sides:
        print(f"peak memory {side.name}: {side.last['peak_rss_mb']:.0f} MB, weights file {weights:.0f} MB")
    print(f"bound 1.3 x weights + 300 MB = {1.3 * weights + 300:.0f} MB")


if __name__ == "__main__":
    main()
