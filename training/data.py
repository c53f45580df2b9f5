"""Shards written by `scene_dataset` and `libero_scenes.py`, as training targets on the model's grid of cells."""

import json
from pathlib import Path

import numpy as np

from text import COLORS, FURNISHED, KINDS, MATERIALS, PRIMITIVES

BACKGROUND, IGNORE = -1, -2
# An object that shows less than this is neither taught nor asked: share of its outline, pixels, smaller side in pixels.
VISIBLE_FRACTION, VISIBLE_PIXELS, SIDE = 0.33, 90, 8


class Scenes:
    """All shards of a directory: `things[i]` are the objects of scene i that are seen at all."""

    def __init__(self, directory, size=256, limit=None):
        self.size = size
        manifest = Path(directory, "manifest.json")  # of the models, where there are any
        models = json.loads(manifest.read_text())["models"] if manifest.exists() else []
        self.models = {it["name"]: it for it in models}
        # Kinds that can be in a scene.
        self.kinds = PRIMITIVES + sorted({it["kind"] for it in models} - set(PRIMITIVES)) + FURNISHED * bool(models)
        self.images, self.masks, self.things, self.where = [], [], [], []
        for path in sorted(Path(directory).glob("*.jsonl")):
            if limit and len(self.things) >= limit:
                break
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            shape = (len(rows), size, size)
            self.images.append(np.memmap(path.with_suffix(".rgb"), np.uint8, "r", shape=(*shape, 3)))
            self.masks.append(np.memmap(path.with_suffix(".mask"), np.uint8, "r", shape=shape))
            for i, row in enumerate(rows):
                things = self._things(row["objects"])
                if any(it["eligible"] for it in things):
                    self.where.append((len(self.images) - 1, i, row["seed"]))
                    self.things.append(things)

    def __len__(self):
        return len(self.things)

    def image(self, i):
        shard, row, _ = self.where[i]
        return self.images[shard][row]

    def mask(self, i):
        shard, row, _ = self.where[i]
        return self.masks[shard][row]

    def seed(self, i):
        return self.where[i][2]

    def _things(self, objects):
        things = []
        for index, it in enumerate(objects):
            if it["visible_pixels"] > 0 and it["bbox"] is not None:
                thing = dict(**self._what(it), bbox=it["bbox"], mask=index + 1)
                thing["eligible"] = (
                    it["visible_fraction"] >= VISIBLE_FRACTION
                    and it["visible_pixels"] >= VISIBLE_PIXELS
                    and small_side(it["bbox"]) * self.size >= SIDE
                )
                assert thing["kind"] in KINDS and thing["color"] in (None, *COLORS), thing
                things.append(thing)
        return things

    def _what(self, it):
        """Kind, color (None: no one word is right), label, a name true of this thing alone, and material (None: not known)."""
        if it.get("model") is None:
            return dict(kind=it["kind"], color=it["color"], label=None, material=None)
        model, paint = self.models[it["model"]["name"]], it["model"]["paint"]
        label = None if paint else model.get("label")
        material = next((name for name, models in MATERIALS.items() if model["name"] in models), None)
        if paint and material == "wooden":
            material = None
        return dict(kind=model["kind"], color=paint or model["color"], label=label, material=material)


def small_side(box):
    return min(box[2] - box[0], box[3] - box[1])


def cells_of(mask, things, grid):
    """Which object each cell shows: int8 [grid^2] of indices into `things`, BACKGROUND or IGNORE."""
    c = len(mask) // grid
    blocks = mask.reshape(grid, c, grid, c).transpose(0, 2, 1, 3).reshape(grid * grid, c * c)
    cells = np.full(grid * grid, BACKGROUND, np.int8)
    best = np.full(grid * grid, 0.2)
    shares = [(blocks == it["mask"]).mean(1) for it in things]
    for i, (it, share) in enumerate(zip(things, shares)):
        won = share > best
        cells[won] = i if it["eligible"] else IGNORE
        best[won] = share[won]
    for i, (it, share) in enumerate(zip(things, shares)):
        if it["eligible"] and not (cells == i).any():
            cells[share.argmax()] = i
    return cells


def flipped(things):
    return [{**it, "bbox": [1 - it["bbox"][2], it["bbox"][1], 1 - it["bbox"][0], it["bbox"][3]]} for it in things]


def cropped(things, x0, y0, side):
    """Things in a square window of the image (all in [0, 1]); what it cuts by half or more is no longer asked for."""
    kept = []
    for it in things:
        box = [(v - o) / side for v, o in zip(it["bbox"], (x0, y0, x0, y0))]
        seen = [min(1.0, max(0.0, v)) for v in box]
        if seen[2] > seen[0] and seen[3] > seen[1]:
            share = (seen[2] - seen[0]) * (seen[3] - seen[1]) / ((box[2] - box[0]) * (box[3] - box[1]))
            kept.append({**it, "bbox": seen, "eligible": it["eligible"] and share > 0.5})
    return kept
