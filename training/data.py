"""Shards written by `scene_dataset`, `libero_scenes.py` and `free_scenes.py`, as training targets on the model's grid of cells."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

import shards
from text import COLORS, FURNISHED, KINDS, MATERIALS, PRIMITIVES

BACKGROUND, IGNORE = -1, -2
INPUT = 320  # columns and rows that the model sees
# An object that shows less than this is neither taught nor asked: share of its outline, pixels, smaller side in pixels of the input.
VISIBLE_FRACTION, VISIBLE_PIXELS, SIDE = 0.33, 50, 7


class Scenes:
    """All shards of a directory: `things[i]` are the objects of scene i that are seen at all."""

    def __init__(self, directory, limit=None):
        self.size = INPUT
        manifest = Path(directory, "manifest.json")  # of the models, where there are any
        models = json.loads(manifest.read_text())["models"] if manifest.exists() else []
        self.models = {it["name"]: it for it in models}
        # Kinds that can be in a scene.
        self.kinds = PRIMITIVES + sorted({it["kind"] for it in models} - set(PRIMITIVES)) + FURNISHED * bool(models)
        self.sources, self.things, self.where, self.rooms = [], [], [], []
        for path in sorted(Path(directory).glob("*.jsonl")):
            if limit and len(self.things) >= limit:
                break
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            self.sources.append(Packed(path, rows) if path.with_suffix(".pack").exists() else Raw(path, len(rows)))
            for i, row in enumerate(rows):
                things = self._things(row["objects"], self.sources[-1].pixels)
                if any(it["eligible"] for it in things):
                    self.where.append((len(self.sources) - 1, i, row["seed"]))
                    self.things.append(things)
                    self.rooms.append(row.get("room"))

    def __len__(self):
        return len(self.things)

    def picture(self, i):
        """As it was rendered, in a camera's shape."""
        source, row, _ = self.where[i]
        return self.sources[source].picture(row)

    def image(self, i):
        """u8 [INPUT, INPUT, 3]: squeezed to a square, as the model sees a camera's picture."""
        return window(self.picture(i), (0, 0, 1, 1))

    def mask(self, i):
        source, row, _ = self.where[i]
        return self.sources[source].mask(row)

    def seed(self, i):
        return self.where[i][2]

    def _things(self, objects, pixels):
        things = []
        for index, it in enumerate(objects):
            if it["visible_pixels"] > 0 and it["bbox"] is not None:
                thing = dict(**self._what(it), bbox=it["bbox"], mask=index + 1, fraction=it["visible_fraction"],
                             area=it["visible_pixels"] / pixels, distance=it.get("distance"))
                if it.get("model"):
                    thing["model"] = it["model"]["name"]
                things.append(judged(thing))
                assert thing["kind"] in KINDS and thing["color"] in (None, *COLORS), thing
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


class Raw:
    """A shard of square arrays."""

    def __init__(self, path, n):
        self.pixels = path.with_suffix(".mask").stat().st_size // n
        side = math.isqrt(self.pixels)
        self.pictures = np.memmap(path.with_suffix(".rgb"), np.uint8, "r", shape=(n, side, side, 3))
        self.masks = np.memmap(path.with_suffix(".mask"), np.uint8, "r", shape=(n, side, side))

    def picture(self, row):
        return Image.fromarray(self.pictures[row])

    def mask(self, row):
        return np.asarray(self.masks[row])


class Packed:
    """A shard of shards.py."""

    pixels = 640 * 480

    def __init__(self, path, rows):
        self.pack, self.at = path.with_suffix(".pack"), [(it["picture"], it["mask"]) for it in rows]

    def picture(self, row):
        with self.pack.open("rb") as pack:
            return shards.read(pack, self.at[row][0]).convert("RGB")

    def mask(self, row):
        with self.pack.open("rb") as pack:
            return np.asarray(shards.read(pack, self.at[row][1]))


def window(picture, box):
    """The part of a picture in `box` (x0, y0, x1, y1 in [0, 1]) as the model's input."""
    w, h = picture.size
    if (w, h) == (INPUT, INPUT) and tuple(box) == (0, 0, 1, 1):
        return np.asarray(picture)
    part = (box[0] * w, box[1] * h, box[2] * w, box[3] * h)
    return np.asarray(picture.resize((INPUT, INPUT), Image.Resampling.BICUBIC, part))


def mask_window(mask, box, side):
    """Likewise of a mask, on side x side points."""
    h, w = mask.shape
    at = (np.arange(side) + 0.5) / side
    rows, columns = (box[1] + at * (box[3] - box[1])) * h, (box[0] + at * (box[2] - box[0])) * w
    return mask[np.ix_(rows.astype(int), columns.astype(int))]


def judged(thing):
    """With `eligible`: whether enough of it is seen to be taught and asked for."""
    thing["eligible"] = (
        thing["fraction"] >= VISIBLE_FRACTION
        and thing["area"] * INPUT**2 >= VISIBLE_PIXELS
        and small_side(thing["bbox"]) * INPUT >= SIDE
    )
    return thing


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


def cropped(things, window):
    """Things in a window (x0, y0, x1, y1) of the image (all in [0, 1]); what it cuts by half or more is no longer asked for."""
    x0, y0, x1, y1 = window
    kept = []
    for it in things:
        box = [(v - o) / side for v, o, side in zip(it["bbox"], (x0, y0, x0, y0), (x1 - x0, y1 - y0) * 2)]
        seen = [min(1.0, max(0.0, v)) for v in box]
        if seen[2] > seen[0] and seen[3] > seen[1]:
            share = (seen[2] - seen[0]) * (seen[3] - seen[1]) / ((box[2] - box[0]) * (box[3] - box[1]))
            area = it["area"] * share / ((x1 - x0) * (y1 - y0))
            cut = judged({**it, "bbox": seen, "area": area})
            kept.append({**cut, "eligible": cut["eligible"] and share > 0.5})
    return kept
