#!/usr/bin/env python3
"""Measures positions of lifted objects on a directory of LIBERO frames with ground truth (see libero.py for its layout).

    libero_pose.py build DATASET OUT       writes OUT/queries.jsonl and OUT/expected.jsonl: one query per movable object, its true box given
    ground --batch OUT/queries.jsonl --output OUT/results.jsonl
    libero_pose.py score OUT [--worst N] [--pictures FILE.png]   prints the figures; draws the worst (with Pillow): the box, where the
        visible surface is (green) and where it is told to be (red)

`position_m` is the mean of the visible surface and is held against that. `body_center_m` is the middle of the box around the whole body;
the data tells the origin of each body's own frame instead. How far that is from the middle differs by kind and is fixed in the body, so
the error of the body center is told twice: against the origin, and about the kind's median offset (along the world's up for all, and
so blind to a constant bias in height, and only in height). Only the standard library is used.
"""

import argparse
import json
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path

MIN_PIXELS = 100


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def build(arguments):
    dataset, out = Path(arguments.dataset), Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    queries, expected = [], []
    for frame in read_lines(dataset / "frames.jsonl"):
        for name, truth in frame["objects"].items():
            if "pos_cam" not in truth or truth["pixels"] < MIN_PIXELS:
                continue
            query = {
                "id": f"{frame['stem']}/{name}",
                "image": os.path.relpath(dataset / f"{frame['stem']}.jpg", out),
                "depth": os.path.relpath(dataset / f"{frame['stem']}_depth.png", out),
                "K": frame["K"],
                "instruction": "pick up the box",
                "candidates": [{"phrase": "box", "bbox": truth["bbox"], "score": 1.0}],
            }
            queries.append(query)
            up = [frame["T_world_cam"][2][i] for i in range(3)]
            expected.append({"id": query["id"], "kind": name.rsplit("_", 1)[0], "up_in_camera": up, **truth})
    for path, lines in [("queries.jsonl", queries), ("expected.jsonl", expected)]:
        with open(out / path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    print(f"{len(queries)} queries in {out / 'queries.jsonl'}")


def distance(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b)) ** 0.5


def quantiles(errors):
    errors = sorted(errors)
    at = lambda share: 1e3 * errors[round((len(errors) - 1) * share)]
    return f"p50 {at(0.5):5.1f} mm, p90 {at(0.9):5.1f} mm, p99 {at(0.99):5.1f} mm (n={len(errors)})"


def score(arguments):
    out = Path(arguments.out)
    results = {it["id"]: it for it in read_lines(out / "results.jsonl")}
    rows, lost = [], []
    for truth in read_lines(out / "expected.jsonl"):
        result = results.get(truth["id"])
        if result is None:
            sys.exit(f"no result for {truth['id']}: was the batch run to its end?")
        if not result["targets"] or result["targets"][0].get("position_m") is None:
            lost.append(f"{truth['id']}: {result['status']} {result['message']}")
            continue
        rows.append((truth, result["targets"][0]))
    surface = [distance(it["position_m"], truth["surface_centroid_cam"]) for truth, it in rows]
    origin = [distance(it["body_center_m"], truth["pos_cam"]) for truth, it in rows]
    print(f"no pose                               {len(lost)} of {len(lost) + len(rows)}")
    print("surface centroid to its truth         " + quantiles(surface))
    print("body center to body origin            " + quantiles(origin))
    heights, sideways = defaultdict(list), []
    for truth, it in rows:
        offset = [p - q for p, q in zip(it["body_center_m"], truth["pos_cam"])]
        height = sum(p * q for p, q in zip(offset, truth["up_in_camera"]))
        heights[truth["kind"]].append(height)
        sideways.append((sum(p * p for p in offset) - height * height) ** 0.5)
    print("  horizontally                        " + quantiles(sideways))
    middle = {kind: statistics.median(values) for kind, values in heights.items()}
    rest = [abs(h - middle[kind]) for kind, values in heights.items() for h in values]
    print("  vertically, about the kind's median " + quantiles(rest))
    for kind in sorted(heights):
        mine = [s for (truth, _), s in zip(rows, sideways) if truth["kind"] == kind]
        print(
            f"    {kind:24} n {len(mine):3}: center {1e3 * middle[kind]:6.1f} mm above the origin, "
            f"sideways p50 {1e3 * statistics.median(mine):5.1f} mm, max {1e3 * max(mine):5.1f} mm"
        )
    for line in lost:
        print(line)
    worst = sorted(zip(surface, rows), key=lambda pair: -pair[0])[: arguments.worst]
    for error, (truth, it) in worst:
        print(f"worst: {truth['id']}: {1e3 * error:.1f} mm, {truth['pixels']} pixels, box {truth['bbox']}, size {it['size_m']}")
    if arguments.pictures:
        draw(worst, out, arguments.pictures)


def draw(rows, out, file):
    from PIL import Image, ImageDraw

    queries = {it["id"]: it for it in read_lines(out / "queries.jsonl")}
    side, tiles = 360, []
    for error, (truth, it) in rows:
        query = queries[truth["id"]]
        image = Image.open(out / query["image"]).convert("RGB")
        x0, y0, x1, y1 = truth["bbox"]
        reach = 0.8 * max(x1 - x0, y1 - y0, 40)
        left, top = (x0 + x1) / 2 - reach, (y0 + y1) / 2 - reach
        tile = image.crop(tuple(round(v) for v in (left, top, left + 2 * reach, top + 2 * reach))).resize((side, side))
        pen, scale = ImageDraw.Draw(tile), side / (2 * reach)
        place = lambda x, y: ((x - left) * scale, (y - top) * scale)
        pen.rectangle([*place(x0, y0), *place(x1, y1)], outline="yellow", width=2)
        k = query["K"]
        for (x, y, z), color in [(truth["surface_centroid_cam"], "lime"), (it["position_m"], "red")]:
            u, v = place(k[0][0] * x / z + k[0][2], k[1][1] * y / z + k[1][2])
            pen.ellipse([u - 5, v - 5, u + 5, v + 5], outline=color, width=3)
        pen.text((6, 6), f"{truth['id']}\n{1e3 * error:.1f} mm", fill="white", stroke_width=2, stroke_fill="black")
        tiles.append(tile)
    sheet = Image.new("RGB", (side * len(tiles), side))
    for column, tile in enumerate(tiles):
        sheet.paste(tile, (side * column, 0))
    sheet.save(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="write the batch file")
    command.add_argument("dataset")
    command.add_argument("out")
    command.set_defaults(run=build)
    command = commands.add_parser("score", help="print the figures of OUT/results.jsonl")
    command.add_argument("out")
    command.add_argument("--worst", type=int, default=5, help="how many of the worst to list")
    command.add_argument("--pictures", help="draw those in this file")
    command.set_defaults(run=score)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
