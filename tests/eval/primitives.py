#!/usr/bin/env python3
"""Pictures of colored boxes, balls and cans on a table, by another renderer than the training's: `primitives.py OUT [--scenes N]`.

MuJoCo draws them (`pip install mujoco pillow`; without a display, MUJOCO_GL=osmesa and Debian's libosmesa6, or MUJOCO_GL=egl). Writes
OUT/NNN.png, 640x480, and OUT/queries.jsonl for `ground --batch` and score.py: of each scene every thing that its color and kind name
alone and of which at least half and 18 of 256 columns are seen, and one phrase that names nothing there.
Exits with 3 and a sentence where MuJoCo cannot be used.
"""

import argparse
import json
import math
import random
import sys
from pathlib import Path

WIDTH, HEIGHT = 640, 480
COLORS = {
    "red": (0.75, 0.08, 0.08), "green": (0.1, 0.55, 0.15), "blue": (0.1, 0.2, 0.75), "yellow": (0.9, 0.8, 0.1),
    "orange": (0.95, 0.45, 0.05), "purple": (0.45, 0.12, 0.6),
    "pink": (0.95, 0.5, 0.65), "white": (0.92, 0.92, 0.92), "black": (0.06, 0.06, 0.06),
    "brown": (0.4, 0.22, 0.1), "gray": (0.5, 0.5, 0.5),
}
KINDS = ("box", "ball", "can")
TABLES = ((0.6, 0.45, 0.3), (0.8, 0.78, 0.74), (0.35, 0.36, 0.38), (0.72, 0.62, 0.5))
MIN_SIDE = 18 / 256 * WIDTH


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=200)
    args = parser.parse_args()
    try:
        import mujoco
        from PIL import Image

        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception as error:  # of an import, or of whichever GL library is missing
        print(f"no MuJoCo pictures of primitives: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)
    args.out.mkdir(parents=True, exist_ok=True)
    n_queries = 0
    with (args.out / "queries.jsonl").open("w") as lines:
        for seed in range(args.scenes):
            rng = random.Random(seed)
            things = arranged(rng)
            model = mujoco.MjModel.from_xml_string(scene(rng, things))
            data = mujoco.MjData(model)
            mujoco.mj_forward(model, data)
            renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
            renderer.update_scene(data, "camera")
            Image.fromarray(renderer.render()).save(args.out / f"{seed:03}.png")
            whose = shown(mujoco, renderer, data)
            for it in things:
                it.update(seen(mujoco, renderer, model, data, whose, it["name"]))
            renderer.close()
            for index, (kind_of_query, phrase, truth) in enumerate(questions(rng, things)):
                lines.write(json.dumps(dict(
                    id=f"{seed:03}_{index}", image=f"{seed:03}.png", type=kind_of_query, phrase=phrase, instruction=phrase,
                    truth=truth and {"bbox": truth})) + "\n")
                n_queries += 1
    print(f"{n_queries} queries in {args.out / 'queries.jsonl'}")


def arranged(rng):
    """Things that do not touch: name, kind, color, place on the table and half sizes, meters."""
    things = []
    for _ in range(200):
        if len(things) == 6:
            break
        size = [rng.uniform(0.02, 0.045) for _ in range(3)]
        kind = rng.choice(KINDS)
        if kind == "can":
            size = [rng.uniform(0.025, 0.04), rng.uniform(0.045, 0.07)]
        x, y, reach = rng.uniform(-0.28, 0.28), rng.uniform(-0.2, 0.2), 1.42 * max(size[:2])
        if all(math.hypot(x - it["x"], y - it["y"]) > reach + it["reach"] for it in things):
            color = rng.choice(list(COLORS))
            things.append(dict(name=f"thing{len(things)}", kind=kind, color=color, x=x, y=y, reach=reach, size=size))
    return things


def scene(rng, things):
    azimuth, elevation, distance = rng.uniform(-math.pi, math.pi), math.radians(rng.uniform(25, 65)), rng.uniform(0.65, 1.1)
    away = [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    right = [-math.sin(azimuth), math.cos(azimuth), 0]
    up = [away[1] * right[2] - away[2] * right[1], away[2] * right[0] - away[0] * right[2], away[0] * right[1] - away[1] * right[0]]
    text = lambda values: " ".join(f"{it:.4f}" for it in values)
    geoms = []
    for it in things:
        kind, size = {"box": ("box", it["size"]), "ball": ("sphere", it["size"][:1]), "can": ("cylinder", it["size"])}[it["kind"]]
        height = size[-1]
        geoms.append(
            f'<body name="{it["name"]}" pos="{it["x"]:.4f} {it["y"]:.4f} {height:.4f}" euler="0 0 {rng.uniform(0, 180):.1f}">'
            f'<geom type="{kind}" size="{text(size)}" rgba="{text(COLORS[it["color"]])} 1"/></body>')
    return f"""<mujoco>
  <visual><global offwidth="{WIDTH}" offheight="{HEIGHT}" fovy="45"/><headlight ambient="0.35 0.35 0.35" diffuse="0.3 0.3 0.3"/></visual>
  <worldbody>
    <light pos="{text([rng.uniform(-1, 1), rng.uniform(-1, 1), 1.6])}" dir="0 0 -1" diffuse="0.5 0.5 0.5" castshadow="true"/>
    <camera name="camera" pos="{text([distance * it for it in away])}" xyaxes="{text(right + up)}"/>
    <geom type="box" size="0.6 0.5 0.02" pos="0 0 -0.02" rgba="{text(rng.choice(TABLES))} 1"/>
    <geom type="plane" size="5 5 0.1" pos="0 0 -0.7" rgba="0.45 0.45 0.5 1"/>
    {"".join(geoms)}
  </worldbody>
</mujoco>"""


def shown(mujoco, renderer, data):
    """Which geom each pixel shows, -1 where none."""
    renderer.enable_segmentation_rendering()
    renderer.update_scene(data, "camera")
    ids = renderer.render()
    ids[ids[..., 1] != int(mujoco.mjtObj.mjOBJ_GEOM)] = -1
    return ids[..., 0]


def seen(mujoco, renderer, model, data, whose, name):
    """The box of what is seen of a thing, and which share of it that is: it is drawn once more alone."""
    geom = int(model.body_geomadr[model.body(name).id])
    is_here = whose == geom
    if not is_here.any():
        return dict(bbox=None, share=0.0)
    others = [it for it in range(model.ngeom) if it != geom]
    colors = model.geom_rgba[others].copy()
    model.geom_rgba[others, 3] = 0
    alone = (shown(mujoco, renderer, data) == geom).sum()
    model.geom_rgba[others] = colors
    rows, columns = is_here.nonzero()
    bbox = [float(it) for it in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    return dict(bbox=bbox, share=float(is_here.sum() / max(1, alone)))


def questions(rng, things):
    """(type, phrase, box or None)"""
    names = [(it["color"], it["kind"]) for it in things]
    for it, name in zip(things, names):
        x0, y0, x1, y1 = it["bbox"] or [0] * 4
        is_whole = x0 > 0 and y0 > 0 and x1 < WIDTH and y1 < HEIGHT
        if names.count(name) == 1 and is_whole and it["share"] >= 0.5 and min(x1 - x0, y1 - y0) >= MIN_SIDE:
            yield "color+kind", f"{it['color']} {it['kind']}", it["bbox"]
    absent = [(color, kind) for color in COLORS for kind in KINDS if (color, kind) not in names]
    yield "absent: color and kind", " ".join(rng.choice(absent)), None


if __name__ == "__main__":
    main()
