#!/usr/bin/env python3
"""OWLv2 at full base size: this code against transformers (f32, CPU), interleaved, on the same weights and images.

    python tests/parity/owlv2_reference.py --full-size DIR
    cargo build --release --no-default-features --bin ground
    python tests/benches/owlv2_vs_transformers.py DIR [--rounds 3] [--threads 2] [--also bf16]

An image costs what a batch of N + 1 images takes more than a batch of one, divided by N; transformers is timed around its
forward call, preprocessing included on both sides. CPU seconds are of all threads (user + system), so that other load on the machine
disturbs them less than it does the wall clock. Every image is new; the phrase is the same. `--also` adds ours with `--quantize`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "parity"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--also")
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)

    import numpy as np
    import torch
    from PIL import Image
    from tokenizers import Tokenizer
    from transformers import Owlv2ForObjectDetection
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    from florence2_reference import make_image
    from owlv2_reference import text_inputs

    torch.set_num_threads(arguments.threads)
    model = Owlv2ForObjectDetection.from_pretrained(arguments.model).eval()
    processor = Owlv2ImageProcessorPil(size={"height": 960, "width": 960})
    inputs = text_inputs(Tokenizer.from_file(str(arguments.model / "tokenizer.json")), ["a photo of a red cup"], 16)
    ground = Path(os.environ.get("LG_BIN_DIR", ROOT / "target" / "release")) / "ground"
    folder = Path(tempfile.mkdtemp())
    images = [Image.fromarray(make_image(640, 480, seed)) for seed in range(arguments.images + 1)]
    for i, image in enumerate(images):
        image.save(folder / f"{i}.png")

    def ours(n_images, quantize):
        lines = [json.dumps({"id": i, "image": f"{i}.png", "instruction": "the red cup"}) for i in range(n_images)]
        (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([ground, "--batch", folder / "queries.jsonl", "--output", folder / "out.jsonl", "--model", arguments.model,
                        "--device", "cpu", "--quantize", quantize], check=True, stderr=subprocess.DEVNULL)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
        answers = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
        assert len(answers) == n_images and all(it["status"] != "ERROR" for it in answers), answers
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    @torch.no_grad()
    def theirs():
        started, cpu = time.monotonic(), time.process_time()
        for image in images[1:]:
            pixels = torch.from_numpy(np.stack(processor(images=[image]).pixel_values))
            model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, pixel_values=pixels)
        return (time.monotonic() - started) / arguments.images, (time.process_time() - cpu) / arguments.images

    rows = {name: [] for name in ["transformers f32", "none"] + [arguments.also] * bool(arguments.also)}
    for _ in range(arguments.rounds):
        for name, values in rows.items():
            if name == "transformers f32":
                values.append(theirs())
            else:
                one, many = ours(1, name), ours(1 + arguments.images, name)
                values.append(tuple((b - a) / arguments.images for a, b in zip(one, many)))
            print(f"{name:20} wall {values[-1][0]:6.2f} s   CPU {values[-1][1]:6.2f} s an image", flush=True)
    median = {name: [statistics.median(it[k] for it in values) for k in (0, 1)] for name, values in rows.items()}
    print(f"medians of {arguments.rounds}:")
    for name, (wall, cpu) in median.items():
        ratios = [value / reference for value, reference in zip((wall, cpu), median["transformers f32"])]
        print(f"{name:20} wall {wall:6.2f} s ({ratios[0]:.2f})   CPU {cpu:6.2f} s ({ratios[1]:.2f} of transformers f32)")


if __name__ == "__main__":
    main()
