#!/usr/bin/env python3
"""Scores `ground --batch` against the truth in its questions: `make eval` runs it over all sets there are.

    score.py SET... [--out DIR]        DIR receives metrics.json and index.html with the worst failures

A SET is a folder of `queries.jsonl` and `results.jsonl`; a query carries `type`, `phrase` and `truth` (null: nothing in the image bears
the phrase; else `bbox`, and in generated scenes `surface_centroid` and `center` in the camera frame, meters). Sets are made by
`scene_dataset --queries` (generated scenes), `training/evaluate.py --write` (the same with household models, and phrases that name
several things: `truths` in place of `truth`) and `libero.py nouns` (LIBERO frames). Only the standard library is used.

The best box is the candidate of the highest score, whatever that score. `Acc@0.5`: it has IoU >= 0.5 with the truth. `found`: the verdict
is FOUND and its box has. `accepted`: the score of the best box of something absent is 0.5 or more. The calibration error (ECE, ten
bins) compares the score of the best box with the share of boxes that are right, over present and absent phrases together.
"""

import argparse
import html
import json
import math
import os
import statistics
from collections import defaultdict
from pathlib import Path

THRESHOLD, BINS, WORST = 0.5, 10, 24


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    metrics, page = {}, []
    for directory in args.sets:
        answers = read(directory)
        metrics[directory.name] = measure(answers)
        show(directory.name, metrics[directory.name])
        if args.out:
            page += [f"<h2>{html.escape(directory.name)}</h2>", *pictures(directory, answers, args.out)]
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        (args.out / "index.html").write_text("\n".join([STYLE, *page]) + "\n")
        print(f"{args.out / 'metrics.json'} and {args.out / 'index.html'} written")


def read(directory):
    """Queries with `best` (bbox and score, or None), `right` (None for absent phrases), `found`, `result`."""
    queries, results = ([json.loads(it) for it in (directory / f"{name}.jsonl").open()] for name in ("queries", "results"))
    assert [it["id"] for it in queries] == [it["id"] for it in results], f"{directory}: queries and results do not match"
    for query, result in zip(queries, results):
        assert result["status"] != "ERROR", result
        truth = query.get("truth")
        query["result"] = result
        # Of a missing "red mug", the candidates tell of other mugs too.
        asked = [it for it in result["candidates"] if it["phrase"] == query["phrase"]]
        query["best"] = max(asked, key=lambda it: it["score"], default=None)
        query["score"] = query["best"]["score"] if query["best"] else 0.0
        fits = lambda it: truth is not None and iou(it["bbox"], truth["bbox"]) >= 0.5
        if "truths" in query:
            query["hits"], query["offered"] = matched(asked, query["truths"])
            continue
        query["right"] = None if truth is None else query["best"] is not None and fits(query["best"])
        query["found"] = result["status"] == "FOUND" and fits(result["targets"][0])
    return queries


def matched(candidates, truths):
    """How many of `truths` the boxes over the threshold find, and how many boxes those are."""
    offered, left = [it["bbox"] for it in candidates if it["score"] >= THRESHOLD], [it["bbox"] for it in truths]
    for bbox in offered:
        best = max(left, key=lambda it: iou(bbox, it), default=None)
        if best is not None and iou(bbox, best) >= 0.5:
            left.remove(best)
    return len(truths) - len(left), len(offered)


def measure(answers):
    several, answers = [it for it in answers if "truths" in it], [it for it in answers if "truths" not in it]
    by_type = defaultdict(list)
    for it in answers:
        by_type[it["type"]].append(it)
    present = [it for it in answers if it["right"] is not None]
    absent = [it for it in answers if it["right"] is None]
    report = dict(images=len({it["image"] for it in answers}), types={})
    for name, its in [*sorted(by_type.items()), ("all present", present), ("all absent", absent)]:
        row = dict(n=len(its))
        if its and its[0]["right"] is not None:
            row |= {"Acc@0.5": share(it["right"] for it in its), "found": share(it["found"] for it in its)}
        elif its:
            row["accepted"] = share(it["score"] >= THRESHOLD for it in its)
            row["not found"] = share(it["result"]["status"] == "NOT_FOUND" for it in its)
        report["types"][name] = row
    if several:
        hits = sum(it["hits"] for it in several)
        report["types"]["several"] = {
            "n": len(several), "recall": round(hits / sum(len(it["truths"]) for it in several), 4),
            "precision": round(hits / max(1, sum(it["offered"] for it in several)), 4)}
    report["ece"], report["reliability"] = reliability(answers)
    for key in ("surface_centroid", "center"):
        place = dict(surface_centroid="position_m", center="body_center_m")[key]
        located = [it for it in present if it["found"] and key in it["truth"] and place in it["result"]["targets"][0]]
        errors = [1e3 * math.dist(it["result"]["targets"][0][place], it["truth"][key]) for it in located]
        if len(errors) > 1:
            report[f"{key} off, mm"] = deciles(errors)
    times = [it["result"]["latency_ms"]["ground"] for it in answers if "ground" in it["result"].get("latency_ms", {})]
    if len(times) > 1:
        report["model call, ms"] = deciles(times)
    return report


def reliability(answers):
    """Expected calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks") and its table."""
    rows, ece = [], 0.0
    for i in range(BINS):
        its = [it for it in answers if min(BINS - 1, int(it["score"] * BINS)) == i]
        if its:
            score, right = statistics.fmean(it["score"] for it in its), share(bool(it["right"]) for it in its)
            rows.append(dict(bin=[i / BINS, (i + 1) / BINS], n=len(its), score=round(score, 3), right=right))
            ece += len(its) / len(answers) * abs(score - right)
    return round(ece, 4), rows


def share(flags):
    flags = list(flags)
    return round(sum(flags) / len(flags), 4)


def deciles(values):
    return dict(p50=round(statistics.median(values), 1), p90=round(statistics.quantiles(values, n=10)[8], 1), n=len(values))


def show(name, report):
    print(f"== {name}: {report['images']} images")
    for kind_of_query, row in report["types"].items():
        figures = ", ".join(f"{k} {100 * v:.1f} %" for k, v in row.items() if k != "n")
        print(f"{kind_of_query:22} n = {row['n']:5}  {figures}")
    for key in ("surface_centroid off, mm", "center off, mm", "model call, ms"):
        if key in report:
            print(f"{key:22} n = {report[key]['n']:5}  p50 {report[key]['p50']}, p90 {report[key]['p90']}")
    print(f"calibration error (ECE) {report['ece']:.3f}; score and share right by bin:")
    for row in report["reliability"]:
        print(f"  {row['bin'][0]:.1f} to {row['bin'][1]:.1f}  n = {row['n']:5}  {row['score']:.2f}  {row['right']:.2f}")


STYLE = """<!doctype html><meta charset="utf-8"><title>Evaluation: worst failures</title>
<style>body{font:14px sans-serif;margin:2em}figure{display:inline-block;margin:4px;width:320px;vertical-align:top}
svg{width:320px;height:auto}.truth{stroke:#0c0}.best{stroke:#f00;stroke-dasharray:8 4}rect{fill:none;stroke-width:3}</style>
<h1>Worst failures</h1><p>Solid green: the truth. Dashed red: the best box.</p>"""


def pictures(directory, answers, out):
    """The surest wrong boxes, the least sure right ones, and the absent things most believed in, as figures over the images."""
    groups = {
        "surest wrong boxes": sorted((it for it in answers if it.get("right", True) is False), key=lambda it: -it["score"]),
        "right boxes with the lowest scores": sorted((it for it in answers if it.get("right")), key=lambda it: it["score"]),
        "absent things most believed in": sorted((it for it in answers if it.get("right", True) is None), key=lambda it: -it["score"]),
    }
    for title, its in groups.items():
        yield f"<h3>{title}</h3>"
        for it in its[:WORST]:
            where = os.path.relpath((directory / it["image"]).resolve(), out.resolve())
            boxes = [("truth", it["truth"]), ("best", it["best"])]
            drawn = "".join(rectangle(name, box["bbox"]) for name, box in boxes if box)
            text = html.escape(f"{it['phrase']} ({it['type']}): {it['score']:.2f}, {it['result']['status']}")
            yield (f'<figure><svg viewBox="0 0 640 480"><image href="{html.escape(where)}" width="640" height="480"/>{drawn}</svg>'
                   f"<figcaption>{text}</figcaption></figure>")


def rectangle(name, bbox):
    x0, y0, x1, y1 = bbox
    return f'<rect class="{name}" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>'


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((it[2] - it[0]) * (it[3] - it[1]) for it in (a, b))
    return width * height / (area - width * height)


if __name__ == "__main__":
    main()
