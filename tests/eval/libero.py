#!/usr/bin/env python3
"""Measures `ground --batch` on a directory of LIBERO frames with ground truth.

The directory holds `frames.jsonl` (stem, task, instruction, instances, K, objects: name -> bbox, surface_centroid_cam, pos_cam)
and STEM.jpg, STEM_depth.png. What each task's sentence asks for stands in tests/data/libero_roles.jsonl.

    libero.py build DATASET OUT [--candidates] [--no-depth]   writes OUT/queries.jsonl and OUT/expected.jsonl
    ground --batch OUT/queries.jsonl --output OUT/results.jsonl [--model DIR]
    libero.py score OUT                                       prints the figures, and the ROC of present against absent objects

    libero.py compare DATASET OUT before=MODEL after=MODEL    all of this for each model: one table, a column each, and their ROCs;
                                                              `git worktree add DIR COMMIT` has an earlier model in DIR/models

    libero.py nouns DATASET OUT [--no-depth]                  the same for noun phrases alone: OUT/queries.jsonl for score.py, which
                                                              asks for every movable object in view that its name names alone

The score of a query is that of its best candidate for the phrase asked for, whatever the verdict; present are the targets that are in
the image, absent the ABSENT_PER_FRAME names per frame that nothing in it bears. A threshold accepts what scores as much or more.

A destination that is a part (the drawer of a cabinet, the compartment of a caddy) has no box of its own in these frames. Right is one that
bears the part's name, lies within the whole's box and has the score part "of_whole", which says that it was placed there, not seen; the
whole's box is wrong.

With --candidates the queries carry the ground-truth boxes under every name that is true of them, so that only the words and the
resolver are measured. Only the standard library is used.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROLES = Path(__file__).resolve().parent.parent / "data" / "libero_roles.jsonl"
ABSENT_PER_FRAME = 3
MIN_PIXELS = 200  # visible area of an object that is asked for by its noun

# What a person may call an instance of each kind, in LIBERO's own words.
NAMES = {
    "akita_black_bowl": ["black bowl", "bowl"],
    "alphabet_soup": ["alphabet soup"],
    "basket": ["basket"],
    "black_book": ["book", "black book"],
    "butter": ["butter"],
    "chefmate_8_frypan": ["frying pan"],
    "chocolate_pudding": ["chocolate pudding"],
    "cream_cheese": ["cream cheese", "cream cheese box"],
    "desk_caddy": ["caddy"],
    "flat_stove": ["stove"],
    "ketchup": ["ketchup"],
    "microwave": ["microwave"],
    "milk": ["milk"],
    "moka_pot": ["moka pot"],
    "new_salad_dressing": ["salad dressing"],
    "orange_juice": ["orange juice"],
    "plate": ["plate"],
    "porcelain_mug": ["white mug", "mug"],
    "red_coffee_mug": ["red mug", "mug"],
    "tomato_sauce": ["tomato sauce"],
    "white_bowl": ["white bowl", "bowl"],
    "white_cabinet": ["cabinet", "white cabinet"],
    "white_yellow_mug": ["yellow and white mug", "mug"],
    "wine_bottle": ["wine bottle"],
    "wine_rack": ["wine rack"],
    "wooden_cabinet": ["cabinet", "wooden cabinet"],
    "wooden_tray": ["tray"],
    "wooden_two_layer_shelf": ["shelf", "cabinet shelf", "cabinet"],
    "yellow_book": ["book", "yellow book"],
}


def kind_of(instance):
    return instance.rsplit("_", 1)[0]


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def build(arguments):
    dataset, out = Path(arguments.dataset), Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    roles = {role["task"]: role for role in read_lines(ROLES)}
    chance = random.Random(0)
    queries, expected = [], []
    for frame in read_lines(dataset / "frames.jsonl"):
        role = roles.get(frame["task"])
        if role is not None and role["sentence"] != frame["instruction"]:
            sys.exit(f"{ROLES}: task {frame['task']} is {frame['instruction']!r}, not {role['sentence']!r}")

        def add(suffix, instruction, **truth):
            query = {
                "id": frame["stem"] + suffix,
                "image": os.path.relpath(dataset / f"{frame['stem']}.jpg", out),
                "K": frame["K"],
                "instruction": instruction,
            }
            if not arguments.no_depth:
                query["depth"] = os.path.relpath(dataset / f"{frame['stem']}_depth.png", out)
            if arguments.candidates:
                query["candidates"] = [
                    {"phrase": name, "bbox": truth_of["bbox"], "score": 1.0}
                    for it, truth_of in frame["objects"].items()
                    for name in NAMES.get(kind_of(it), [])
                ]
            queries.append(query)
            expected.append({"id": query["id"], "instruction": instruction, **truth})

        if role is not None and role["clause"] == 0:
            like = [it for it in frame["objects"] if role["target"] in NAMES.get(kind_of(it), [])]
            add(
                "",
                frame["instruction"],
                target=frame["objects"].get(role["target_instance"]),
                destination=frame["objects"].get(role["destination_instance"]),
                several=len(like) > 1,
                # Of a drawer only the cabinet's box is known.
                part=None if role["destination"] in NAMES.get(kind_of(role["destination_instance"]), []) else role["destination"],
                phrase=role["target"],
            )
        for name_idx, name in enumerate(chance.sample(absent_names(frame), ABSENT_PER_FRAME)):
            add(f"_absent{name_idx}", f"pick up the {name}", absent=name, phrase=name)
    for path, lines in [("queries.jsonl", queries), ("expected.jsonl", expected)]:
        with open(out / path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    print(f"{len(queries)} queries in {out / 'queries.jsonl'}")


def nouns(arguments):
    dataset, out = Path(arguments.dataset), Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    queries = []
    for frame in read_lines(dataset / "frames.jsonl"):
        in_view = [it for it in frame["instances"] if frame["objects"].get(it, {}).get("pixels", 0) > 0]

        def add(suffix, kind_of_query, phrase, truth):
            query = {
                "id": frame["stem"] + suffix,
                "image": os.path.relpath(dataset / f"{frame['stem']}.jpg", out),
                "K": frame["K"],
                "instruction": f"pick up the {phrase}",
                "phrase": phrase,
                "type": kind_of_query,
                "truth": truth and {"bbox": truth["bbox"], "surface_centroid": truth["surface_centroid_cam"]},
            }
            if not arguments.no_depth:
                query["depth"] = os.path.relpath(dataset / f"{frame['stem']}_depth.png", out)
            queries.append(query)

        for it in in_view:
            truth = frame["objects"][it]
            name = NAMES.get(kind_of(it), [None])[0]
            if name is None or "pos_cam" not in truth or truth["pixels"] < MIN_PIXELS:
                continue
            if sum(name in NAMES.get(kind_of(other), []) for other in in_view) == 1:
                add("_" + it, name, name, truth)
        for index, name in enumerate(chance.sample(absent_names(frame), ABSENT_PER_FRAME)):
            add(f"_absent{index}", "absent", name, None)
    with open(out / "queries.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(it) + "\n" for it in queries)
    print(f"{len(queries)} queries in {out / 'queries.jsonl'}")


def absent_names(frame):
    """Names that nothing in the frame bears; "cabinet" and "shelf" are true of each other's kinds, mugs of unnamed color are mugs."""
    present = {name for it in frame["instances"] for name in NAMES.get(kind_of(it), [])}
    absent = sorted({name for names in NAMES.values() for name in names} - present)
    return [it for it in absent if not any(it in name or name in it for name in present)]


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area(a) + area(b) - width * height)


def is_right(found, truth):
    return found is not None and found.get("bbox") is not None and iou(found["bbox"], truth["bbox"]) >= 0.5


def is_destination_right(found, truth):
    """A part that the model has no box for must be placed within its whole, bear the part's name and say that it was placed."""
    if truth.get("part") is None:
        return is_right(found, truth["destination"])
    if found is None or found["phrase"].split()[-1] != truth["part"].split()[-1] or "of_whole" not in found["score_parts"]:
        return False
    a, b = found["bbox"], truth["destination"]["bbox"]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width > 0 and height > 0 and width * height >= 0.9 * (a[2] - a[0]) * (a[3] - a[1])


def share(hits):
    return f"{100 * sum(hits) / len(hits):5.1f} % of {len(hits)}" if hits else "none asked"


def quantiles(values, unit, scale=1.0):
    if len(values) < 2:
        return "not measured"
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    return f"p50 {cuts[4] * scale:.1f} {unit}, p90 {cuts[8] * scale:.1f} {unit} (n={len(values)})"


def best_score(result, phrase):
    return max((it["score"] for it in result["candidates"] if it["phrase"] == phrase), default=0.0)


def roc(present, absent):
    """Lines of the ROC: AUROC, and what thresholds accept. `present` holds (score, whether the answer was right)."""
    if not present or not absent:
        return ["ROC: not measured, it needs present and absent objects"]
    scores = [it for it, _ in present]
    ahead = sum((a > b) + 0.5 * (a == b) for a in scores for b in absent) / (len(scores) * len(absent))
    lines = [
        f"AUROC {ahead:.3f}, {len(scores)} present, {len(absent)} absent",
        "threshold  absent accepted  present accepted  and FOUND right",
    ]

    def accepted(threshold):
        right = sum(is_right for it, is_right in present if it >= threshold)
        shares = [sum(it >= threshold for it in some) / len(some) for some in (absent, scores)] + [right / len(present)]
        return f"{threshold:9.3f}  {shares[0]:15.1%}  {shares[1]:16.1%}  {shares[2]:15.1%}"

    lines += [accepted(tenth / 10) for tenth in range(11)]
    # The lowest thresholds that accept so few of what is not there.
    for share_of_absent in (0.10, 0.05, 0.01):
        allowed = int(share_of_absent * len(absent))
        over = sorted(absent, reverse=True)[allowed]
        lines.append(accepted(math.nextafter(over, 2.0)) + f"  (at most {share_of_absent:.0%} of absent)")
    return lines


def measure(out):
    """Figures of OUT/results.jsonl by name, lines of the ROC, and the queries that went wrong."""
    results = {it["id"]: it for it in read_lines(out / "results.jsonl")}
    target, several, destination, absent = [], [], [], []
    surface_errors, origin_errors, latencies = [], [], []
    statuses = {"present": Counter(), "absent": Counter()}
    present_scores, absent_scores = [], []
    wrong = []
    for truth in read_lines(out / "expected.jsonl"):
        result = results.get(truth["id"])
        if result is None:
            sys.exit(f"no result for {truth['id']}: was the batch run to its end?")
        stages = result.get("latency_ms") or {}
        if stages:
            latencies.append(stages["total"] if "total" in stages else sum(stages.values()))
        best = best_score(result, truth["phrase"])
        if "absent" in truth:
            absent.append(result["status"] == "NOT_FOUND")
            statuses["absent"][result["status"]] += 1
            absent_scores.append(best)
            continue
        statuses["present"][result["status"]] += 1
        if truth["target"] is None or truth["destination"] is None:
            continue  # out of the image
        found = result["targets"][0] if result["targets"] else None
        target.append(is_right(found, truth["target"]))
        present_scores.append((best, target[-1]))
        if truth["several"]:
            several.append(target[-1])
        destination.append(is_destination_right(result["destination"], truth))
        if not (target[-1] and destination[-1]):
            wrong.append((truth, result, target[-1], destination[-1]))
        if target[-1] and found.get("position_m"):
            for errors, key in [(surface_errors, "surface_centroid_cam"), (origin_errors, "pos_cam")]:
                if key in truth["target"]:
                    errors.append(sum((a - b) ** 2 for a, b in zip(found["position_m"], truth["target"][key])) ** 0.5)
    figures = {
        "target right (IoU >= 0.5)": share(target),
        "  where several bear its name": share(several),
        "destination right (IoU >= 0.5)": share(destination),
        "absent objects rejected": share(absent),
        "position to visible surface": quantiles(surface_errors, "mm", 1e3),
        "position to body origin": quantiles(origin_errors, "mm", 1e3),
        "time per query": quantiles(latencies, "ms"),
        **{f"statuses, {name}": ", ".join(f"{k} {v}" for k, v in it.most_common()) for name, it in statuses.items()},
    }
    return figures, roc(present_scores, absent_scores), wrong


def score(arguments):
    figures, roc_lines, wrong = measure(Path(arguments.out))
    for name, figure in figures.items():
        print(f"{name:34} {figure}")
    print("\n" + "\n".join(roc_lines))
    if arguments.show_wrong:
        for truth, result, target_right, destination_right in wrong:
            print(f"{truth['id']}: {truth['instruction']}: {result['status']} {result['message']}", end="")
            print(f" [target {target_right}, destination {destination_right}]")


def compare(arguments):
    measured = {}
    for named in arguments.models:
        name, _, model = named.partition("=")
        if not model:
            sys.exit(f"expected NAME=MODEL, got {named!r}")
        out = Path(arguments.out) / name
        build(argparse.Namespace(dataset=arguments.dataset, out=out, candidates=False, no_depth=arguments.no_depth))
        batch = ["--batch", out / "queries.jsonl", "--output", out / "results.jsonl", "--model", model]
        subprocess.run([arguments.ground, *batch], check=True)
        measured[name] = measure(out)
    print("| |" + "".join(f" {name} |" for name in measured) + "\n|---|" + "---|" * len(measured))
    for figure in next(iter(measured.values()))[0]:
        print(f"| {figure.strip()} |" + "".join(f" {it[0][figure].strip()} |" for it in measured.values()))
    for name, (_, roc_lines, _) in measured.items():
        print(f"\n{name}\n" + "\n".join(roc_lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="write the batch file")
    command.add_argument("dataset")
    command.add_argument("out")
    command.add_argument("--candidates", action="store_true", help="ground-truth boxes instead of a model")
    command.add_argument("--no-depth", action="store_true", help="leave the depth images out")
    command.set_defaults(run=build)
    command = commands.add_parser("nouns", help="write a batch file of noun phrases for score.py")
    command.add_argument("dataset")
    command.add_argument("out")
    command.add_argument("--no-depth", action="store_true", help="leave the depth images out")
    command.set_defaults(run=nouns)
    command = commands.add_parser("score", help="print the figures of OUT/results.jsonl")
    command.add_argument("out")
    command.add_argument("--show-wrong", action="store_true", help="list every wrong answer")
    command.set_defaults(run=score)
    command = commands.add_parser("compare", help="build, run and score for several models, side by side")
    command.add_argument("dataset")
    command.add_argument("out")
    command.add_argument("models", nargs="+", metavar="NAME=MODEL")
    command.add_argument("--ground", default="target/release/ground", help="the program")
    command.add_argument("--no-depth", action="store_true", help="leave the depth images out")
    command.set_defaults(run=compare)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
