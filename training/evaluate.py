"""Questions about held-out scenes: `python evaluate.py MODEL DIR=A..B [DIR=A..B ...]` with one of

    --calibrate     fits the score (Platt scaling of the best box of each question) and writes it to the model's config.json
    --write OUT     writes questions, images and truth for `ground --batch` and tests/eval/score.py, which measure the Rust program,
                    and OUT/scenes.jsonl for tests/eval/captions.py
    --texts N       prints how many of N generated texts of each type are right: the decoder alone, in transformers

DIR holds shards, A..B are seeds (B not included). Calibrate and measure on different seeds.
Asked for are things of at least 18 of 256 pixels on their smaller side, a third of which is seen.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import text
from checkpoint import Checkpoint, keep_apart, overlap
from data import Scenes, small_side

SIDE = 18 / 256  # of the image: smaller things are not asked for
CAPTIONED = 200  # images whose captions are judged


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", nargs="+", metavar="DIR=A..B")
    parser.add_argument("-n", type=int, default=300, help="questions of each type and folder")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--texts", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, answers = Checkpoint(args.model), []
    for it in args.data:
        folder, _, seeds = it.rpartition("=")
        first, end = map(int, seeds.split(".."))
        scenes, rng = Scenes(folder), random.Random(first)
        usable = [i for i in range(len(scenes)) if first <= scenes.seed(i) < end]
        assert usable, f"no scene of seeds {seeds} in {folder}"
        if args.write:
            write(args.write, scenes, usable, queries(rng, scenes, usable, args.n))
        elif args.texts:
            print(json.dumps(measure_texts(model, scenes, usable, args.texts, rng), indent=2))
        else:
            answers += ask(model, scenes, queries(rng, scenes, usable, args.n))
    if args.calibrate:
        calibrate(args.model, model, answers)


def large(thing):
    # To the instruction parser "robot" is whom it speaks for.
    return thing["eligible"] and small_side(thing["bbox"]) >= SIDE and thing["kind"] != "robot arm"


def queries(rng, scenes, usable, n):
    """Dicts with scene, type, phrase and the indices of all objects it fits; `certain` types have exactly one."""
    drawn = []

    def draw(kind_of_query, make):
        count = tries = 0
        while count < n and tries < 200 * n:
            tries += 1
            i = rng.choice(usable)
            made = make(scenes.things[i])
            if made is not None:
                # The instruction parser makes one of both, and results name that.
                phrase = made[0].replace("thing", "object")
                drawn.append(dict(scene=i, type=kind_of_query, phrase=phrase, targets=made[1]))
                count += 1

    def one(use_kind, use_color):
        def make(things):
            it = rng.choice(things)
            kind, color = it["kind"] if use_kind else None, it["color"] if use_color else None
            if use_color and (color is None or it["kind"] not in text.COLORED):
                return None
            found, unsure = text.matches(things, kind, color)
            if large(it) and len(found) == 1 and not unsure:
                return text.noun_phrase(rng, kind, color), found

        return make

    def several(things):
        it = rng.choice(things)
        kind, color = rng.choice([(it["kind"], None), (None, it["color"]), (it["kind"], it["color"])])
        if (kind, color) == (None, None) or (kind and color and kind not in text.COLORED):
            return None
        found, unsure = text.matches(things, kind, color)
        if len(found) > 1 and not unsure and all(large(things[j]) for j in found):
            return text.noun_phrase(rng, kind, color), found

    def absent(make_words):
        def make(things):
            it = rng.choice(things)
            words = make_words(it)
            if words and text.matches(things, *words) == ([], []):
                return text.noun_phrase(rng, *words), []

        return make

    draw("color+kind", one(True, True))
    draw("kind", one(True, False))
    draw("color", one(False, True))
    draw("several", several)
    draw("absent: wrong color", absent(lambda it: it["kind"] in text.COLORED and (it["kind"], rng.choice(text.COLORS))))
    draw("absent: wrong kind", absent(lambda it: it["color"] and (rng.choice([it for it in scenes.kinds if it in text.COLORED]), it["color"])))
    draw("absent: kind not there", absent(lambda it: (rng.choice(scenes.kinds), None)))
    draw("absent: unknown noun", lambda things: (rng.choice(text.NEVER_TRAINED), []))
    return drawn


def ask(model, scenes, drawn):
    """Adds `boxes`: (logit, box) after suppression, best first; at most 12."""
    by_scene = defaultdict(list)
    for q in drawn:
        by_scene[q["scene"]].append(q)
    for i, asked in by_scene.items():
        seen = model.look(np.asarray(scenes.image(i))[None])
        boxes = model.boxes(seen)[0]
        for q, logit in zip(asked, model.logits(seen, [q["phrase"] for q in asked])[0]):
            q["boxes"] = keep_apart(logit, model.score(logit), boxes, model.config["nms_iou"], 12)
            q["truth"] = [scenes.things[i][j]["bbox"] for j in q["targets"]]
    return drawn


def write(out, scenes, usable, drawn):
    out.mkdir(parents=True, exist_ok=True)
    for i in {q["scene"] for q in drawn} | set(usable[:CAPTIONED]):
        Image.fromarray(np.asarray(scenes.image(i))).save(out / f"{scenes.seed(i)}.png")
    pixels = lambda i, j: [v * scenes.size for v in scenes.things[i][j]["bbox"]]
    with (out / "queries.jsonl").open("w") as lines:
        for index, q in enumerate(drawn):
            boxes = [{"bbox": pixels(q["scene"], j)} for j in q["targets"]]
            truth = {"truths": boxes} if q["type"] == "several" else {"truth": boxes[0] if boxes else None}
            seed = scenes.seed(q["scene"])
            line = dict(id=f"{index}", image=f"{seed}.png", type=q["type"], phrase=q["phrase"], instruction=q["phrase"], **truth)
            lines.write(json.dumps(line) + "\n")
    with (out / "scenes.jsonl").open("w") as lines:
        for i in usable[:CAPTIONED]:
            # What is half hidden may be named or not.
            named = [dict(kind=it["kind"], color=it["color"] if it["kind"] in text.COLORED else None, must=large(it))
                     for it in scenes.things[i]]
            lines.write(json.dumps(dict(image=f"{scenes.seed(i)}.png", things=named)) + "\n")


def calibrate(directory, model, answers):
    """Platt scaling of the best box's logit to the chance that it is right (IoU >= 0.5): present and absent things weigh the same."""
    present = [q for q in answers if q["type"] in ("color+kind", "kind", "color")]
    absent = [q for q in answers if q["type"].startswith("absent: ") and "unknown" not in q["type"]]
    right = [overlap(q["boxes"][0][1], q["truth"][0]) >= 0.5 for q in present]
    x = torch.tensor([q["boxes"][0][0] for q in present + absent])
    y = torch.tensor([float(it) for it in right] + [0.0] * len(absent))
    weight = torch.tensor([0.5 / len(present)] * len(present) + [0.5 / len(absent)] * len(absent))
    scale, bias = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    fit = torch.optim.LBFGS([scale, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        fit.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(scale * x + bias, y, weight, reduction="sum")
        value.backward()
        return value

    fit.step(loss)
    model.config["calibration"] = {"scale": round(scale.item(), 4), "bias": round(bias.item(), 4)}
    path = Path(directory, "config.json")
    config = json.loads(path.read_text())
    config["grounding_head"]["calibration"] = model.config["calibration"]
    path.write_text(json.dumps(config, indent=2) + "\n")
    print(f"{model.config['calibration']}, fitted on {len(present)} questions for things that are there and {len(absent)} for others")


def measure_texts(model, scenes, usable, n, rng):
    """Exact matches of generated answers; for region descriptions also color and kind alone."""
    rows = defaultdict(list)
    for i in rng.sample(usable, min(n, len(usable))):
        image, things = np.asarray(scenes.image(i)), scenes.things[i]
        it = rng.choice([it for it in things if it["eligible"]])
        tokens = "".join(f"<loc_{min(999, max(0, int(v * 1000)))}>" for v in it["bbox"])
        said = model.generate(image, text.REGION.format(tokens))
        words = said.split()
        rows["region: exact"].append(said == text.describe(it))
        colored = it["color"] is not None and it["kind"] in text.COLORED
        if colored:
            rows["region: color"].append(bool(words) and words[0] == it["color"])
        rows["region: kind"].append(said.endswith(it["kind"]))
        if colored and text.matches(things, it["kind"], None) == ([things.index(it)], []):
            said = model.generate(image, f"What color is the {it['kind']}?")
            rows["question: color"].append(said == it["color"])
        said = model.generate(image, text.CAPTION)
        truth, parts = [text.describe(it) for it in things if it["eligible"]], said.replace(" and ", ", ").split(", ")
        named = [part.removeprefix("an ").removeprefix("a ").strip() for part in parts]
        rows["caption: named objects that are there"] += [name in truth for name in named]
    return {k: dict(share=round(sum(v) / len(v), 3), n=len(v)) for k, v in rows.items()}


if __name__ == "__main__":
    main()
