"""Shards written by `scene_dataset`, as training targets on the model's grid of cells."""

import json
from pathlib import Path

import numpy as np

from text import COLORS, KINDS, PRIMITIVES

BACKGROUND, IGNORE = -1, -2


class Scenes:
    """All shards of a directory. `cells[i]` is [grid * grid] int8: object index, BACKGROUND or IGNORE."""

    def __init__(self, directory, size=192, grid=12, limit=None):
        self.size, self.grid = size, grid
        manifest = Path(directory, "manifest.json")  # of the models, where there are any
        models = json.loads(manifest.read_text())["models"] if manifest.exists() else []
        self.models = {it["name"]: it for it in models}
        self.kinds = PRIMITIVES + sorted({it["kind"] for it in models} - set(PRIMITIVES))  # that can be in a scene
        self.images, self.things, self.cells, self.where = [], [], [], []
        for path in sorted(Path(directory).glob("*.jsonl")):
            if limit and len(self.things) >= limit:
                break
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            shape = (len(rows), size, size)
            images = np.memmap(path.with_suffix(".rgb"), np.uint8, "r", shape=(*shape, 3))
            masks = np.memmap(path.with_suffix(".mask"), np.uint8, "r", shape=shape)
            cache = path.with_suffix(".cells.npy")
            things = [self._things(row["objects"]) for row in rows]
            if cache.exists():
                cells = np.load(cache)
            else:
                cells = np.stack([self._cells(np.asarray(m), t) for m, t in zip(masks, things)])
                np.save(cache, cells)
            for i, (row, its, its_cells) in enumerate(zip(rows, things, cells)):
                if any(it["eligible"] for it in its):
                    self.where.append((len(self.images), i, row["seed"]))
                    self.things.append(its)
                    self.cells.append(its_cells)
            self.images.append(images)

    def __len__(self):
        return len(self.things)

    def image(self, i):
        shard, row, _ = self.where[i]
        return self.images[shard][row]

    def seed(self, i):
        return self.where[i][2]

    def _things(self, objects):
        things = []
        for it in objects:
            box = it["bbox"]
            eligible = (
                box is not None
                and it["visible_fraction"] >= 0.33
                and it["visible_pixels"] >= 70
                and min(box[2] - box[0], box[3] - box[1]) * self.size >= 7
            )
            if it["visible_pixels"] > 0:
                thing = dict(**self._what(it), bbox=box, eligible=eligible)
                assert thing["kind"] in KINDS and thing["color"] in (None, *COLORS), thing
                things.append({**thing, "mask": objects.index(it) + 1})
        return things

    def _what(self, it):
        """Kind, color (None: no one word is right) and label, a name true of this thing alone."""
        if it.get("model") is None:
            return dict(kind=it["kind"], color=it["color"], label=None)
        model, paint = self.models[it["model"]["name"]], it["model"]["paint"]
        label = None if paint else model.get("label")
        return dict(kind=model["kind"], color=paint or model["color"], label=label)

    def _cells(self, mask, things):
        g, c = self.grid, self.size // self.grid
        blocks = mask.reshape(g, c, g, c).transpose(0, 2, 1, 3).reshape(g * g, c * c)
        cells = np.full(g * g, BACKGROUND, np.int8)
        best = np.full(g * g, 0.2)
        for i, it in enumerate(things):
            share = (blocks == it["mask"]).mean(1)
            won = share > best
            cells[won] = i if it["eligible"] else IGNORE
            best[won] = share[won]
        for i, it in enumerate(things):
            if it["eligible"] and not (cells == i).any():
                cells[(blocks == it["mask"]).mean(1).argmax()] = i
        return cells


def flipped(things):
    return [{**it, "bbox": [1 - it["bbox"][2], it["bbox"][1], 1 - it["bbox"][0], it["bbox"][3]]} for it in things]
