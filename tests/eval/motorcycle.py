#!/usr/bin/env python3
"""Lifts five hand-drawn boxes in a real photograph with measured depth: the Middlebury motorcycle that scikit-image ships.

    pip install scikit-image pillow
    motorcycle.py build OUT                writes the image, its depth from the ground-truth disparity, and OUT/queries.jsonl
    ground --batch OUT/queries.jsonl --output OUT/results.jsonl
    motorcycle.py score OUT

For each object a patch was picked by hand that surely lies on it. The centroid's distance must be that of the patch, within what the
object's own depth allows; the floor must come out as a plane.
"""

import argparse
import json
from pathlib import Path

# name, box, patch on the object (x0, y0, x1, y1), how far the centroid may be from the patch in depth (m)
OBJECTS = [
    ("headlight", (507, 121, 563, 190), (525, 145, 550, 170), 0.05),
    ("box on the shelf", (528, 28, 593, 100), (540, 45, 580, 90), 0.05),
    ("yellow bottle", (401, 50, 419, 93), (405, 62, 415, 85), 0.05),
    ("engine cover", (333, 298, 400, 355), (350, 315, 385, 345), 0.10),
    ("rear wheel", (121, 234, 283, 402), (127, 300, 138, 340), 0.15),
]
FOCAL, CX, CY, DOFFS, BASELINE_M = 994.978, 311.193, 254.877, 31.086, 0.193001


def build(out):
    import numpy
    import skimage.data
    from PIL import Image

    left, _, disparity = skimage.data.stereo_motorcycle()
    out.mkdir(parents=True, exist_ok=True)
    depth_m = FOCAL * BASELINE_M / (disparity + DOFFS)
    depth_mm = numpy.where(numpy.isfinite(disparity), numpy.rint(1e3 * depth_m), 0).astype(numpy.uint16)
    Image.fromarray(left).save(out / "image.png")
    Image.fromarray(depth_mm).save(out / "depth.png")
    k = [[FOCAL, 0, CX], [0, FOCAL, CY], [0, 0, 1]]
    with open(out / "queries.jsonl", "w", encoding="utf-8") as file:
        for name, box, _, _ in OBJECTS:
            candidates = [{"phrase": "box", "bbox": box, "score": 1.0}]
            query = {"id": name, "image": "image.png", "depth": "depth.png", "K": k}
            file.write(json.dumps({**query, "instruction": "pick up the box", "candidates": candidates}) + "\n")


def score(out):
    import numpy
    from PIL import Image

    depth_m = numpy.array(Image.open(out / "depth.png")) * 1e-3
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    results = {it["id"]: it for it in map(json.loads, lines)}
    n_wrong = 0
    for name, box, (x0, y0, x1, y1), tolerance_m in OBJECTS:
        result = results[name]
        if not result["targets"]:
            print(f"{name:18} {result['status']} {result['message']}")
            n_wrong += 1
            continue
        target = result["targets"][0]
        x, y, z = target["position_m"]
        patch = depth_m[y0:y1, x0:x1]
        truth_m = float(numpy.median(patch[patch > 0]))
        u, v = FOCAL * x / z + CX, FOCAL * y / z + CY
        is_right = abs(z - truth_m) <= tolerance_m and box[0] < u < box[2] and box[1] < v < box[3]
        n_wrong += not is_right
        residual = target["plane_residual_m"]
        plane = "no plane" if residual is None else f"floor within {1e3 * residual:.1f} mm"
        size = " x ".join(f"{1e3 * it:.0f}" for it in target["size_m"])
        print(
            f"{name:18} {'ok   ' if is_right else 'WRONG'} centroid at {z:.3f} m, patch at {truth_m:.3f} m, size {size} mm, "
            f"{target['n_points']} points, {plane}"
        )
    raise SystemExit(n_wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["build", "score"])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    (build if arguments.step == "build" else score)(arguments.out)


if __name__ == "__main__":
    main()
