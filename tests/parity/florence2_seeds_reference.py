"""Answers of transformers about 120 more images, for tests/parity_florence2.rs: greedy and three beams.

    python tests/parity/florence2_seeds_reference.py     # reads tests/data/parity/florence2/, writes seeds.json there

Uses the tiny checkpoint that florence2_reference.py made. Made with transformers 5.23.0, torch 2.15.0.
"""

import json

import torch

from florence2_reference import OUT, make_image, preprocess
from florence2_scores_reference import Reference

SEEDS = range(20, 140)
OPTIONS = dict(forced_bos_token_id=0, forced_eos_token_id=2, no_repeat_ngram_size=3, max_new_tokens=24)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    tower = Reference().tower
    prompts = [it["prompt"] for it in json.loads((OUT / "cases.json").read_text())["tokenized"]]
    cases = []
    for seed in SEEDS:
        width, height, prompt = 31 + 7 * seed % 400, 29 + 11 * seed % 300, prompts[seed % len(prompts)]
        pixels = preprocess(make_image(width, height, seed))
        case = {"width": width, "height": height, "seed": seed, "prompt": prompt}
        for name, extra in [("greedy", dict(num_beams=1)), ("beams", dict(num_beams=3, early_stopping=True))]:
            ids = tower.generate(pixels, prompt, **OPTIONS, **extra).sequences[0].tolist()
            while ids[-1] == 1:  # padding after the end
                ids.pop()
            case[name] = ids
        cases.append(case)
    (OUT / "seeds.json").write_text(json.dumps(cases, separators=(",", ":")))
    print(f"{len(cases)} images, {len({tuple(it['greedy']) for it in cases})} distinct greedy answers, "
          f"{sum(it['greedy'] != it['beams'] for it in cases)} where beams differ")


if __name__ == "__main__":
    main()
