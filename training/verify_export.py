"""Checks an export against the state it came from: `python verify_export.py STATE MODEL DATA [N]`.

Greedy text from transformers' `generate` on the fp16 files must equal greedy text of the fp32 training network, and
the dense head's boxes and logits must agree. Prints the counts; fails when more than one text in twenty differs.
"""

import random
import sys

import numpy as np
import torch

import text
from checkpoint import Checkpoint
from data import Scenes
from model import TinyFlorence, pad


@torch.no_grad()
def greedy(model, image, prompt, steps=96):
    features = model.project(model.vision(torch.as_tensor(image[None])))
    ids, mask = pad([model.ids(prompt)])
    out = [2, 0]
    while out[-1] != 2 or len(out) == 1:
        logits = model.text_logits(features, ids, mask, torch.tensor([out]))
        out.append(int(logits[0, -1].argmax()))
        if len(out) > steps:
            break
    return model.tokenizer.decode(out, skip_special_tokens=True).strip()


@torch.no_grad()
def main(state, directory, data, n=40):
    torch.set_num_threads(1)
    exported = Checkpoint(directory)
    model = TinyFlorence(exported.tokenizer).eval()
    model.load_state_dict(torch.load(state)["average"])
    scenes, rng, same, logit_error, box_error = Scenes(data, limit=500), random.Random(0), 0, 0.0, 0.0
    for _ in range(n):
        i = rng.randrange(len(scenes))
        image = np.array(scenes.image(i))
        prompt, _ = text.text_query(rng, scenes.things[i])
        written = "".join(
            part if isinstance(part, str) else "".join(f"<loc_{min(999, max(0, int(v * 1000)))}>" for v in part)
            for part in prompt
        )
        ours, theirs = greedy(model, image, prompt), exported.generate(image, written)
        same += ours == theirs
        if ours != theirs:
            print(f"{written!r}: training says {ours!r}, export says {theirs!r}")
        words = text.present_query(rng, scenes.things[i])["phrase"]
        ids, mask = pad([model.ids(words)])
        units, bias, box = model.grounding_head.cells(model.vision(torch.as_tensor(image[None])))
        logit = model.grounding_head.logits(units, bias, *model.phrases(ids, mask))
        seen = exported.look(image[None])
        other_logit, other_box = exported.logits(seen, [words]), exported.boxes(seen)
        logit_error = max(logit_error, float((logit - other_logit).abs().max()))
        box_error = max(box_error, float((box.clamp(0, 1) - other_box).abs().max()))
    print(f"{same}/{n} texts equal; largest difference of logits {logit_error:.4f}, of boxes {box_error:.5f}")
    sys.exit(same < 0.95 * n)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
