"""Figures on what training left out: rooms, models, textures, cameras and words (splits.py).

    leave_out.py write SPLIT OUT DIR [DIR ..]     frames, questions and truth for `ground --batch OUT/queries.jsonl --output OUT/results.jsonl`
    leave_out.py score OUT [OUT ..]               tables of the answers, a column for each OUT

DIR holds shards that `libero_scenes.py` or `free_scenes.py` drew for SPLIT, `validation` or `test`. Asked is for everything that its kind,
or its color and kind, name alone, down to 7 pixels of the model's 320; and for four things in every frame that are not there: a kind that
is in a color that it has not, a kind that looks like one that is, any other kind, and a noun that was never taught. A thing is found when
the verdict is FOUND and the box has IoU >= 0.5 with the truth; something absent is accepted when the verdict is anything but NOT_FOUND.

`train.py` asks the same of its averaged weights while it runs: `curve`.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import text
from data import INPUT, Scenes, small_side
from splits import TEST_MODELS, VALIDATION_MODELS

SIZES = [(0, 16), (16, 32), (32, 64), (64, 1000)]  # pixels of the input, smaller side
DISTANCES = [(0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, 9.0)]
ABSENT = ["wrong color", "look-alike", "kind not there", "never taught"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("write")
    command.add_argument("split", choices=["validation", "test"])
    command.add_argument("out", type=Path)
    command.add_argument("folders", nargs="+")
    command.set_defaults(run=write)
    command = commands.add_parser("score")
    command.add_argument("outs", nargs="+", type=Path)
    command.set_defaults(run=score)
    args = parser.parse_args()
    args.run(args)


def questions(rng, things, kinds, words):
    """Dicts of type, phrase and the index of the thing it names, None where there is none."""
    asked = []
    unique = lambda kind, color: text.matches(things, kind, color)
    named = [j for j, it in enumerate(things) if it["eligible"] and it["kind"] != "robot arm"]
    rng.shuffle(named)
    for j in named[:6]:
        it = things[j]
        if unique(it["kind"], None) == ([j], []):
            asked.append(dict(type="noun", phrase=text.SYNONYMS[it["kind"]][0], thing=j))
    colored = [j for j in named if things[j]["kind"] in text.COLORED and things[j]["color"]]
    for j in colored[:3]:
        it = things[j]
        if unique(it["kind"], it["color"]) == ([j], []):
            asked.append(dict(type="color+noun", phrase=f"{it['color']} {text.SYNONYMS[it['kind']][0]}", thing=j))
    say = lambda kind, color=None: (color + " " if color else "") + text.SYNONYMS[kind][0]
    known = [it for it in kinds if it != "robot arm"]
    drawn = [text.wrong_color_query(rng, [it for it in things if it["eligible"]] or things), text.alike_query(rng, things, known)]
    for kind in rng.sample(known, 8):
        if text.matches(things, kind, None) == ([], []):
            drawn.append(dict(means=(kind, None)))
            break
    for name, query in zip(ABSENT, drawn):
        # What is there, but not of one color for all, may well have that color too.
        if query and text.matches(things, *query["means"][:2]) == ([], []):
            asked.append(dict(type=name, phrase=say(*query["means"][:2]), thing=None))
    asked.append(dict(type="never taught", phrase=rng.choice(words), thing=None))
    return asked


def write(args):
    args.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for folder in args.folders:
        scenes, rng = Scenes(folder), random.Random(folder.rstrip("/").rsplit("/", 1)[-1])
        for i in range(len(scenes)):
            picture, seed = scenes.picture(i), scenes.seed(i)
            picture.save(args.out / f"{seed}.png")
            w, h = picture.size
            for q in questions(rng, scenes.things[i], scenes.kinds, text.KEPT_WORDS[args.split]):
                it = None if q["thing"] is None else scenes.things[i][q["thing"]]
                truth = it and dict(bbox=[it["bbox"][0] * w, it["bbox"][1] * h, it["bbox"][2] * w, it["bbox"][3] * h])
                line = dict(id=f"{len(lines)}", image=f"{seed}.png", instruction=f"pick up the {q['phrase']}", phrase=q["phrase"], type=q["type"],
                            truth=truth, set=Path(folder).name, room=scenes.rooms[i])
                if it:
                    line |= dict(kind=it["kind"], model=it.get("model"), side=round(small_side(it["bbox"]) * INPUT, 1), distance=it["distance"])
                lines.append(json.dumps(line) + "\n")
    (args.out / "queries.jsonl").write_text("".join(lines))
    print(f"{len(lines)} questions in {args.out / 'queries.jsonl'}")


def score(args):
    columns = [figures(out) for out in args.outs]
    names = sorted({name for it in columns for name in it}, key=lambda name: [*columns[0]].index(name) if name in columns[0] else 999)
    print("| |" + "".join(f" {out.name} |" for out in args.outs) + "\n|---|" + "---|" * len(columns))
    for name in names:
        print(f"| {name} |" + "".join(f" {it.get(name, '')} |" for it in columns))


def figures(out):
    asked, answers = ([json.loads(it) for it in (out / f"{name}.jsonl").open()] for name in ("queries", "results"))
    assert [it["id"] for it in asked] == [it["id"] for it in answers], f"{out}: questions and answers do not match"
    groups = defaultdict(list)
    for q, answer in zip(asked, answers):
        if q["truth"] is None:
            groups[f"absent, {q['type']}: accepted"].append(answer["status"] != "NOT_FOUND")
            continue
        boxes = [it for it in answer["candidates"] if it["phrase"] == q["phrase"]]
        best = max(boxes, key=lambda it: it["score"], default=None)
        found = answer["status"] == "FOUND" and overlap(answer["targets"][0]["bbox"], q["truth"]["bbox"]) >= 0.5
        groups[f"{q['type']}: FOUND right"].append(found)
        groups[f"{q['type']}: best box right"].append(best is not None and overlap(best["bbox"], q["truth"]["bbox"]) >= 0.5)
        groups[f"{q['type']}: FOUND wrong"].append(answer["status"] == "FOUND" and not found)
        groups[f"{q['type']}: several offered"].append(answer["status"] == "AMBIGUOUS")
        if q["type"] == "noun":
            groups[f"noun, {q['set']}, {q['room']}: FOUND right"].append(found)
            for unit, value, spans in (("px of the input", q["side"], SIZES), ("m", q["distance"], DISTANCES)):
                if value is not None:
                    low, high = next(it for it in spans if it[0] <= value < it[1])
                    groups[f"noun, {low} to {high} {unit}: FOUND right"].append(found)
            groups[f"noun, {q['kind']}: FOUND right"].append(found)
            if q["model"] in VALIDATION_MODELS + TEST_MODELS:
                groups[f"noun, left-out model {q['model']}: FOUND right"].append(found)
    order = lambda name: (name.count(",") > 0 and not name.startswith("absent"), name)
    return {name: f"{100 * sum(groups[name]) / len(groups[name]):.1f} % of {len(groups[name])}" for name in sorted(groups, key=order)}


def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return 0.0 if w <= 0 or h <= 0 else w * h / (area(a) + area(b) - w * h)


def curve_questions(folders, n=100):
    """(image, things, questions) of n scenes of each folder."""
    drawn = []
    for folder in folders:
        scenes, rng = Scenes(folder), random.Random(5)
        for i in rng.sample(range(len(scenes)), min(n, len(scenes))):
            its = scenes.things[i]
            drawn.append((scenes.image(i), its, questions(rng, its, scenes.kinds, text.KEPT_WORDS["validation"])))
    return drawn


def curve(model, drawn):
    """Shares of right best boxes and of accepted absent things, at the threshold that accepts one absent thing in twenty."""
    import torch

    from model import pad

    present, absent = [], []
    with torch.no_grad():
        for image, things, asked in drawn:
            vision_map = model.vision(torch.as_tensor(image[None].copy()))
            units, bias, boxes = model.grounding_head.cells(vision_map)
            ids, mask = pad([model.ids(q["phrase"]) for q in asked])
            logits = model.grounding_head.logits(units, bias, *model.phrases(ids, mask))[0]
            for q, logit in zip(asked, logits):
                at = int(logit.argmax())
                if q["thing"] is None:
                    absent.append((float(logit[at]), q["type"]))
                else:
                    truth = things[q["thing"]]["bbox"]
                    is_right = overlap(boxes[0, at].clamp(0, 1).tolist(), truth) >= 0.5
                    present.append((float(logit[at]), is_right, q["type"], small_side(truth) * INPUT))
    threshold = sorted((it for it, _ in absent), reverse=True)[len(absent) // 20]
    share = lambda its: round(sum(its) / max(1, len(its)), 3)
    figures = dict(threshold=round(threshold, 2), n=len(present))
    for kind in ("noun", "color+noun"):
        figures[f"{kind} best"] = share([right for _, right, name, _ in present if name == kind])
        figures[f"{kind} found"] = share([right and logit > threshold for logit, right, name, _ in present if name == kind])
    for low, high in SIZES:
        figures[f"noun {low}-{high} px"] = share(
            [right and logit > threshold for logit, right, name, side in present if name == "noun" and low <= side < high])
    for kind in ABSENT:
        figures[f"{kind} accepted"] = share([logit > threshold for logit, name in absent if name == kind])
    return figures


if __name__ == "__main__":
    main()
