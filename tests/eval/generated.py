#!/usr/bin/env python3
"""Scores `ground --batch` on generated scenes.

    scene_dataset --queries --seeds 900001000..900001500 --out DIR
    ground --batch DIR/queries.jsonl --output DIR/results.jsonl
    tests/eval/generated.py DIR

Objects that color and kind name alone, and one absent color and kind a scene. `best box` is right when the candidate with the
highest score has IoU >= 0.5, whatever its score; `FOUND` when the verdict and the box are right.
"""

import json
import math
import statistics
import sys
from pathlib import Path


def main():
    directory = Path(sys.argv[1])
    queries = [json.loads(line) for line in (directory / "queries.jsonl").open()]
    results = [json.loads(line) for line in (directory / "results.jsonl").open()]
    assert [it["id"] for it in queries] == [it["id"] for it in results]
    best, found, rejected, surface, center, ground_ms = [], [], [], [], [], []
    for query, result in zip(queries, results):
        truth = query["truth"]
        assert result["status"] != "ERROR", result
        ground_ms.append(result["latency_ms"]["ground"])
        if truth is None:
            rejected.append(result["status"] == "NOT_FOUND")
            continue
        candidates = sorted(result["candidates"], key=lambda it: -it["score"])
        best.append(bool(candidates) and iou(candidates[0]["bbox"], truth["bbox"]) >= 0.5)
        targets = result["targets"]
        found.append(result["status"] == "FOUND" and iou(targets[0]["bbox"], truth["bbox"]) >= 0.5)
        if found[-1]:
            surface.append(math.dist(targets[0]["position_m"], truth["surface_centroid"]))
            center.append(math.dist(targets[0]["body_center_m"], truth["center"]))
    print(f"scenes                         {len({it['image'] for it in queries})}")
    print(f"color+kind, best box           {percent(best)}")
    print(f"color+kind, FOUND              {percent(found)}")
    print(f"absent color+kind, NOT_FOUND   {percent(rejected)}")
    print(f"visible surface centroid       {quantiles(surface, 1e3)} mm off")
    print(f"body center                    {quantiles(center, 1e3)} mm off")
    print(f"model call                     {quantiles(ground_ms, 1)} ms")


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((it[2] - it[0]) * (it[3] - it[1]) for it in (a, b))
    return width * height / (area - width * height)


def percent(flags):
    return f"{100 * sum(flags) / len(flags):.1f} % (n = {len(flags)})"


def quantiles(values, scale):
    deciles = statistics.quantiles([it * scale for it in values], n=10)
    return f"p50 {statistics.median(values) * scale:.1f}, p90 {deciles[8]:.1f} (n = {len(values)})"


if __name__ == "__main__":
    main()
