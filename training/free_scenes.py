"""Household objects in any arrangement, anywhere: `MUJOCO_GL=osmesa python free_scenes.py ASSETS OUT --views N [--split SPLIT]`.

So that a model learns things and not scenes, nothing here goes with anything: any of the models of meshes.py stand, lie, are stacked
and are hidden on floors, tables and furniture of any texture, under any light, 0.4 to 2.2 m from cameras of 36 to 72 degrees. What may
be painted often is, in any of eleven colors. Training draws its own floors, tables and walls. The left-out splits draw half of their
views so, with textures that training lacks, and half in robosuite's rooms, which no training drew. Shards are those of shards.py.

ASSETS is the folder that meshes.py reads. Needs `mujoco`, `numpy`, `pillow` and the Debian package libosmesa6.
Credits: those of meshes.py.
"""

import argparse
import colorsys
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image

import meshes
import shards
import splits
from text import COLORS

WIDTH, HEIGHT = 640, 480
TRIANGLES = 80_000  # of one model
SHOWN, HIDDEN = 1, 5  # groups of geoms
ARENAS = "robosuite/models/assets/arenas"
# Where things may stand in robosuite's rooms: middle x, y, height, half sides.
STANDS = dict(table_arena=[(0, 0, 0.8, 0.4, 0.4), (1.2, 0, 0, 0.7, 1.2)], pegs_arena=[(0, 0, 0.8, 0.4, 0.4)],
              bins_arena=[(0.1, -0.25, 0.82, 0.19, 0.24), (0.1, 0.28, 0.82, 0.19, 0.24)], empty_arena=[(0, 0, 0, 1.0, 1.0)])
ON_SIDES = {"ketchup", "milk", "orange_juice", "alphabet_soup", "tomato_sauce", "soda_can", "cookies", "macaroni", "popcorn", "cereal",
            "bbq_sauce", "salad_dressing", "new_salad_dressing", "wine_bottle", "butter", "cream_cheese", "chocolate_pudding",
            "porcelain_mug", "red_coffee_mug", "white_yellow_mug"}
HOLDERS = {"basket": 0.01, "tray": 0.01, "white_storage_box": 0.01, "rimmed_plate": 0.012, "patterned_bowl": 0.012, "white_bowl": 0.012,
           "frying_pan": 0.012, "black_book": None, "yellow_book": None}  # height of their floor; None: on top
# Hue in degrees, saturation, value: shades that people call by this name, those of src/scene/things.rs.
SHADES = dict(red=((-7, 6), (0.8, 1), (0.6, 0.95)), green=((98, 150), (0.55, 0.95), (0.38, 0.8)), blue=((208, 238), (0.65, 1), (0.45, 0.95)),
              yellow=((49, 59), (0.75, 1), (0.85, 1)), orange=((21, 31), (0.85, 1), (0.88, 1)), purple=((266, 288), (0.5, 0.9), (0.4, 0.75)),
              pink=((325, 345), (0.32, 0.6), (0.88, 1)), white=((0, 360), (0, 0.05), (0.92, 1)), black=((0, 360), (0, 0.2), (0.04, 0.13)),
              brown=((18, 30), (0.55, 0.75), (0.25, 0.43)), gray=((0, 360), (0, 0.06), (0.42, 0.6)))


@dataclass
class Thing:
    name: str
    body: int
    geoms: np.ndarray
    materials: np.ndarray  # its own, of each geom
    tints: np.ndarray  # RGBA of those materials
    corners: np.ndarray  # of its box, and its middle, in its own frame
    paint: int  # material
    painted: str = None


class Stage:
    """One room with a choice of models, and everything that can be changed about it."""

    def __init__(self, assets, parts, rng, split, arena=None):
        self.rng, self.split, self.arena = rng, split, arena
        spec = mujoco.MjSpec.from_file(str(assets / ARENAS / f"{arena}.xml")) if arena else mujoco.MjSpec()
        self.room = arena or "free"
        if arena is None:
            self._build_room(spec, assets)
        spec.visual.global_.offwidth, spec.visual.global_.offheight, spec.visual.quality.offsamples = WIDTH, HEIGHT, 4
        if arena is None:
            spec.stat.extent, spec.stat.center = 1.5, [0, 0, 0.5]  # of the shadows
            spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20
        spec.visual.quality.shadowsize = 2048
        spec.worldbody.add_camera(name="eye")
        objects = [it for it in parts if role(it) == "object"]
        large = [it for it in parts if role(it) == "furniture"]
        arms = [it for it in parts if role(it) == "arm"]
        own = [it for it in objects + large if it in splits.VALIDATION_MODELS + splits.TEST_MODELS]
        chosen = list(rng.choice(objects, 16, replace=False)) + list(rng.choice(large, 5, replace=False)) + [rng.choice(arms)]
        chosen += [it for it in own if it not in chosen]
        chosen += list(rng.choice([it for it in chosen if role(it) == "object"], 4))  # twins
        for i, name in enumerate(chosen):
            add_model(spec, f"{i}", str(name), parts[name])
        self.m = m = spec.compile()
        m.geom_sameframe[m.geom_bodyid == 0] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE  # they will be moved
        self.d = mujoco.MjData(m)
        mujoco.mj_kinematics(m, self.d)
        self.things = [self._thing(f"{i}", str(name), parts[name]) for i, name in enumerate(chosen)]
        self.owner = np.full(m.ngeom, -1)
        for i, it in enumerate(self.things):
            self.owner[it.geoms] = i
        self.camera = m.camera("eye").id
        self.base = dict(light_pos=m.light_pos.copy(), light_dir=m.light_dir.copy(), light_diffuse=m.light_diffuse.copy(),
                         ambient=m.vis.headlight.ambient.copy(), diffuse=m.vis.headlight.diffuse.copy())
        self.option = mujoco.MjvOption()
        self.option.sitegroup[:] = 0
        self.scene = mujoco.MjvScene(m, maxgeom=3000)
        self.view = mujoco.MjvCamera()
        self.view.type, self.view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, self.camera
        self.gl = mujoco.GLContext(WIDTH, HEIGHT)
        self.gl.make_current()
        self.context = mujoco.MjrContext(m, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.context)

    def close(self):
        self.context.free()
        self.gl.free()

    def _build_room(self, spec, assets):
        rng = self.rng
        files = [*(assets / meshes.LIBERO / "textures").glob("*.png"), *(assets / meshes.ROBOSUITE / "textures").glob("*.png")]
        objects = {"bread", "can", "cereal", "lemon", "soda", "glass"}
        files = {it.stem: it for it in files if it.stem not in objects}
        names = [files[it] for it in sorted(splits.textures(self.split, files))]
        chosen = [names[i] for i in rng.choice(len(names), min(12, len(names)), replace=False)]
        self.surfaces = []
        for i in range(24):
            if i < len(chosen):
                image = Image.open(chosen[i]).convert("RGB")
                image.thumbnail((512, 512))
                pixels = np.asarray(image)
            else:
                pixels = pattern(rng)
            add_texture(spec, f"surface{i}", pixels)
            material = spec.add_material(name=f"surface{i}", texuniform=True, reflectance=0.0)
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f"surface{i}"
            material.specular, material.shininess = float(rng.choice([0.0, 0.0, 0.2, 0.5])), 0.3
        world = spec.worldbody
        plane, box = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX
        for name, kind in (("floor", plane), ("table", box), ("leg", box), ("wall0", box), ("wall1", box)):
            world.add_geom(name=name, type=kind, size=[6, 6, 0.1] if kind == plane else [1, 1, 0.02], group=SHOWN,
                           material="surface0", contype=0, conaffinity=0)
        for i in range(2):
            world.add_light(name=f"light{i}", pos=[0, 0, 3], dir=[0, 0, -1], castshadow=i == 0, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)

    def _thing(self, prefix, name, parts):
        m = self.m
        body = m.body(f"thing{prefix}").id
        geoms = np.flatnonzero(m.geom_bodyid == body)
        every = np.concatenate([p["vertices"] for p in parts])
        low, high = every.min(0), every.max(0)
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        materials = m.geom_matid[geoms].copy()
        return Thing(name, body, geoms, materials, m.mat_rgba[materials].copy(), corners, m.material(f"paint{prefix}").id)

    # -- arranging

    def arrange(self):
        rng, m, d = self.rng, self.m, self.d
        for it in self.things:
            m.geom_group[it.geoms] = HIDDEN
        x, y, z, a, b = self._dress_room()
        shown, boxes = [], []
        middle = np.array([x, y, z]) + [rng.uniform(-0.3, 0.3) * a, rng.uniform(-0.3, 0.3) * b, 0]
        spread = min(rng.uniform(0.18, 0.6), max(a, b))
        few = rng.random() < 0.3
        small = [it for it in self.things if role(it.name) == "object"]
        large = [it for it in self.things if role(it.name) == "furniture"]
        own = splits.VALIDATION_MODELS + splits.TEST_MODELS
        # A left-out model is in every other scene of its split.
        first = [it for it in small + large if it.name in own and rng.random() < 0.5]
        n_large, n_small = int(rng.choice([0, 0, 1, 1, 2, 3])), int(rng.integers(1, 4) if few else rng.integers(4, 13))
        if self.arena == "bins_arena":
            n_large = 0
        draw = lambda its, n: [its[i] for i in rng.permutation(len(its))[:n] if its[i] not in first]
        for it in first + draw(large, n_large) + draw(small, n_small):
            if self._place(it, middle, spread, (x, y, z, a, b), boxes):
                shown.append(it)
        arm = [it for it in self.things if role(it.name) == "arm"][0]  # noqa: RUF015
        if rng.random() < 0.25 and self.arena != "bins_arena":
            azimuth = rng.uniform(0, 2 * math.pi)
            away = rng.uniform(0.45, 0.8) + spread * 0.3
            at = np.array([middle[0] + away * math.cos(azimuth), middle[1] + away * math.sin(azimuth), z])
            self._set(arm, at, yaw_quat(azimuth + math.pi + rng.normal(0, 0.3)))
            low, high = self._box(arm)
            if not any((low < h).all() and (l < high).all() for _, l, h in boxes):  # noqa: E741
                self._show(arm)
                shown.append(arm)
        for it in shown:
            self._dye(it)
        self._light()
        mujoco.mj_kinematics(m, d)
        mujoco.mj_camlight(m, d)
        self.middle = middle
        return shown

    def _dress_room(self):
        """Where things may stand: middle x, y, height, half sides."""
        rng, m = self.rng, self.m
        if self.arena:
            every = STANDS[self.arena]
            return every[rng.integers(len(every))]
        geom = lambda name: m.geom(name)
        for name in ("floor", "table", "leg", "wall0", "wall1"):
            g = geom(name)
            g.matid = m.material(f"surface{rng.integers(24)}").id
        for i in range(24):
            m.mat_texrepeat[m.material(f"surface{i}").id] = math.exp(rng.uniform(math.log(0.5), math.log(6)))
            m.mat_rgba[m.material(f"surface{i}").id] = [*(rng.uniform(0.6, 1.0) * rng.uniform(0.9, 1.0, 3)), 1]
        on_table = rng.random() < 0.6
        height = rng.uniform(0.35, 1.0) if on_table else 0.0
        a, b = (rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.9)) if on_table else (1.2, 1.2)
        solid = on_table and rng.random() < 0.35
        self.walls = rng.random(2)
        for name, size, pos in (("table", [a, b, 0.02], [0, 0, height - 0.02]),
                                ("leg", [a * 0.95, b * 0.95, height / 2] if solid else [0.05, 0.05, height / 2], [0, 0, height / 2 - 0.02])):
            geom(name).size, geom(name).pos = np.maximum(size, 0.01), pos
            geom(name).group = SHOWN if on_table else HIDDEN
        for i in range(2):
            g, far = geom(f"wall{i}"), rng.uniform(0.05, 2.0) + (a, b)[i]
            g.size = [0.02, 5, rng.uniform(0.4, 1.5)] if i == 0 else [5, 0.02, rng.uniform(0.4, 1.5)]
            g.pos = [far * rng.choice([-1, 1]), 0, g.size[2]] if i == 0 else [0, far * rng.choice([-1, 1]), g.size[2]]
        return 0.0, 0.0, height, a, b

    def _place(self, it, middle, spread, stand, boxes):
        """Puts it somewhere free, now and then in or on another thing, or leaning in its shadow; false where there is no room."""
        rng = self.rng
        x, y, z, a, b = stand
        turn = yaw_quat(rng.uniform(-math.pi, math.pi) if role(it.name) == "object" or rng.random() < 0.3 else
                        math.pi / 2 * rng.integers(4) + rng.normal(0, 0.2))
        if it.name in ON_SIDES and rng.random() < 0.22:
            side, tipped = rng.choice([0, 1]), np.zeros(4)
            half = math.pi / 4 * rng.choice([-1, 1])
            mujoco.mju_mulQuat(tipped, turn, np.array([math.cos(half), math.sin(half) * (side == 0), math.sin(half) * (side == 1), 0]))
            turn = tipped
        self._set(it, np.zeros(3), turn)
        low, high = self._box(it)
        center, half = (low + high) / 2, (high - low) / 2
        for attempt in range(25):
            base = None
            holders = [box for box in boxes if box[0].name in HOLDERS or options(box[0].name).get("top") or options(box[0].name).get("floor")]
            if role(it.name) == "object" and holders and attempt < 6 and rng.random() < 0.4:
                other, l, h = holders[rng.integers(len(holders))]  # noqa: E741
                room = (h - l)[:2] / 2 - half[:2] * 0.9
                if (room < 0).any():
                    continue
                floor = HOLDERS.get(other.name, options(other.name).get("floor"))
                base = h[2] if floor is None else l[2] + floor
                xy = (h + l)[:2] / 2 + rng.uniform(-0.7, 0.7, 2) * room
                l2, h2 = np.array([*(xy - half[:2]), base + 0.004]), np.array([*(xy + half[:2]), base + 2 * half[2]])
                if any((l2 < h3).all() and (l3 < h2).all() for o, l3, h3 in boxes if o is not other):
                    continue
            else:
                xy = middle[:2] + rng.normal(0, spread, 2) * 0.7
                if (np.abs(xy - [x, y]) + half[:2] * 0.8 > [a, b]).any():
                    continue
                base, gap = z, rng.choice([0.0, 0.01, 0.03])
                l2, h2 = np.array([*(xy - half[:2] - gap), z]), np.array([*(xy + half[:2] + gap), z + 2 * half[2]])
                if any((l2 < h3).all() and (l3 < h2).all() for _, l3, h3 in boxes):
                    continue
            self._set(it, np.array([*(xy - center[:2]), base - low[2] + 0.0005]), turn)
            self._show(it)
            boxes.append((it, *self._box(it)))
            return True
        return False

    def _set(self, it, pos, quat):
        self.m.body_pos[it.body], self.m.body_quat[it.body] = pos, quat

    def _box(self, it):
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, self.m.body_quat[it.body])
        points = it.corners @ turn.reshape(3, 3).T + self.m.body_pos[it.body]
        return points.min(0), points.max(0)

    def _show(self, it):
        self.m.geom_group[it.geoms] = SHOWN

    def _dye(self, it):
        """Its own look under a slight tint, or a paint that gives it another color."""
        rng, m = self.rng, self.m
        it.painted = None
        if options(it.name).get("paint") and rng.random() < 0.5:
            it.painted = str(rng.choice(COLORS))
            hue, saturation, value = (rng.uniform(*span) for span in SHADES[it.painted])
            m.mat_rgba[it.paint] = [*colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value), 1]
            m.mat_specular[it.paint], m.mat_shininess[it.paint] = rng.choice([0.0, 0.2, 0.6]), rng.uniform(0.1, 0.8)
            m.geom_matid[it.geoms] = it.paint
        else:
            m.geom_matid[it.geoms] = it.materials
            m.mat_rgba[it.materials] = it.tints * [*(rng.uniform(0.8, 1.0) * rng.uniform(0.94, 1.0, 3)), 1]

    def _light(self):
        rng, m, base = self.rng, self.m, self.base
        for key in ("light_pos", "light_dir", "light_diffuse"):
            getattr(m, key)[:] = base[key]
        m.vis.headlight.ambient[:], m.vis.headlight.diffuse[:] = base["ambient"], base["diffuse"]
        if self.arena:
            if rng.random() < 0.5:
                m.light_diffuse[:] *= rng.uniform(0.6, 1.2)
                m.vis.headlight.ambient[:] *= rng.uniform(0.6, 1.5)
            return
        for i in range(m.nlight):
            toward = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), -1])
            m.light_dir[i] = toward / np.linalg.norm(toward)
            m.light_pos[i] = -toward * rng.uniform(2, 3.5)
            m.light_diffuse[i] = rng.uniform(0.2, 0.9) * (1, 0.5)[i] * rng.uniform(0.9, 1.1, 3)
        m.vis.headlight.ambient[:] = rng.uniform(0.15, 0.5)
        m.vis.headlight.diffuse[:] = rng.uniform(0.15, 0.5)

    # -- cameras and pictures

    def aim(self, shown):
        rng, m, d = self.rng, self.m, self.d
        target = self.middle + [rng.normal(0, 0.1), rng.normal(0, 0.1), rng.uniform(0, 0.12)]
        if shown and rng.random() < 0.5:
            target = np.mean(self._box(shown[rng.integers(len(shown))]), 0) + rng.normal(0, 0.06, 3)
        azimuth = rng.uniform(-math.pi, math.pi)
        pitch = math.radians(rng.uniform(15, 60) if rng.random() < 0.75 else rng.uniform(55, 88))
        distance = math.exp(rng.uniform(math.log(0.4), math.log(2.2)))
        away = np.array([math.cos(pitch) * math.cos(azimuth), math.cos(pitch) * math.sin(azimuth), math.sin(pitch)])
        right = np.cross([0, 0, 1], away)
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(away, right), away], 1)
        roll = rng.normal(0, math.radians(4))
        turn = turn @ np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
        d.cam_xpos[self.camera], d.cam_xmat[self.camera] = target + distance * away, turn.ravel()
        if not self.arena:
            for i in range(2):  # no wall between camera and things
                g, at = m.geom(f"wall{i}"), d.cam_xpos[self.camera][i]
                behind = at * np.sign(g.pos[i]) > abs(g.pos[i]) - 0.03
                g.group = HIDDEN if behind or self.walls[i] < 0.4 else SHOWN
        m.cam_fovy[self.camera] = rng.uniform(36, 62)

    def _render(self, group, segment, width=WIDTH, height=HEIGHT):
        self.option.geomgroup[:] = 0
        self.option.geomgroup[group] = 1
        mujoco.mjv_updateScene(self.m, self.d, self.option, None, self.view, mujoco.mjtCatBit.mjCAT_ALL.value, self.scene)
        flags = self.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT.value] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR.value] = segment
        flags[mujoco.mjtRndFlag.mjRND_SHADOW.value] = not segment
        where = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(where, self.scene, self.context)
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, where, self.context)
        return pixels[::-1]

    def labels(self, shown):
        ids = self._render(SHOWN, True).astype(np.int32) @ [1, 256, 65536]
        table = np.zeros(self.scene.ngeom + 2, np.uint8)
        order = {self.things.index(it): i + 1 for i, it in enumerate(shown)}
        for it in self.scene.geoms[: self.scene.ngeom]:
            if it.objtype == mujoco.mjtObj.mjOBJ_GEOM.value and it.segid >= 0 and it.objid >= 0:
                table[it.segid + 1] = order.get(int(self.owner[it.objid]), 0)
        return table[np.minimum(ids, self.scene.ngeom + 1)]

    def alone(self, it):
        self.m.geom_group[it.geoms] = 3
        pixels = self._render(3, True, WIDTH // 2, HEIGHT // 2)
        self.m.geom_group[it.geoms] = SHOWN
        return pixels.any(2).mean()

    def shoot(self, shown, seed):
        """Picture, mask and truth of a view that shows something, or None."""
        for _ in range(6):
            self.aim(shown)
            mask = self.labels(shown)
            counts = np.bincount(mask.ravel(), minlength=len(shown) + 1)[1:]
            if (counts > 150).any() and counts.max() < 0.6 * mask.size:
                break
        else:
            return None
        boxes = [box(mask == i + 1) if counts[i] else None for i in range(len(shown))]
        objects, eye = [], self.d.cam_xpos[self.camera]
        for i, it in enumerate(shown):
            fraction = 0.0
            if counts[i]:
                touched = any(j != i and boxes[j] and overlap(boxes[i], boxes[j]) for j in range(len(shown)))
                fraction = min(1.0, counts[i] / mask.size / max(self.alone(it), 1e-9)) if touched else 1.0
            _, kind, color, _ = meshes.MODELS[it.name]
            distance = float(np.linalg.norm(np.mean(self._box(it), 0) - eye))
            objects.append(dict(model=dict(name=it.name, paint=it.painted), kind=kind, color=color, bbox=boxes[i],
                                visible_fraction=round(float(fraction), 4), visible_pixels=int(counts[i]), distance=round(distance, 3)))
        fovy = round(float(self.m.cam_fovy[self.camera]), 2)
        return self._render(SHOWN, False), mask, dict(seed=seed, room=self.room, fovy=fovy, objects=objects)


def role(name):
    return options(name).get("role", "object")


def options(name):
    return meshes.MODELS[name][3]


def yaw_quat(yaw):
    return np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])


def pattern(rng):
    """A texture of 256 x 256: plain, checked, striped, speckled or cloudy, in two colors."""
    one = np.array(colorsys.hsv_to_rgb(rng.random(), rng.random() ** 2, rng.uniform(0.15, 1))) * 255
    other = np.clip(one * rng.uniform(0.4, 1.6) + rng.normal(0, 25, 3), 0, 255)
    y, x = np.mgrid[:256, :256] / 256
    draw = rng.integers(5)
    if draw == 0:
        mix = np.zeros((256, 256))
    elif draw == 1:
        n = rng.integers(2, 9)
        mix = ((x * n).astype(int) + (y * n).astype(int)) % 2
    elif draw == 2:
        mix = (np.sin(2 * math.pi * rng.integers(2, 12) * (x if rng.random() < 0.5 else y)) > rng.uniform(-0.5, 0.5)).astype(float)
    elif draw == 3:
        mix = rng.random((256, 256)) * rng.uniform(0.1, 1)
    else:
        mix = np.asarray(Image.fromarray((rng.random((8, 8)) * 255).astype(np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)) / 255
    pixels = one + (other - one) * mix[..., None] + rng.normal(0, rng.uniform(0, 8), (256, 256, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def add_texture(spec, name, pixels):
    h, w = pixels.shape[:2]
    texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=w, height=h, nchannel=3)
    texture.data = np.ascontiguousarray(pixels).tobytes()


def add_model(spec, prefix, name, parts):
    body = spec.worldbody.add_body(name=f"thing{prefix}")
    spec.add_material(name=f"paint{prefix}", rgba=[1, 1, 1, 1])
    for i, part in enumerate(parts):
        mesh = spec.add_mesh(name=f"mesh{prefix}_{i}", inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
        mesh.uservert, mesh.userface = part["vertices"].ravel().tolist(), part["faces"].ravel().tolist()
        material = spec.add_material(name=f"look{prefix}_{i}", rgba=[*part["color"][:3], 1], specular=0.3, shininess=0.3)
        if part["pixels"] is not None:
            mesh.usertexcoord, mesh.userfacetexcoord = part["uv"].ravel().tolist(), part["uv_faces"].ravel().tolist()
            add_texture(spec, f"picture{prefix}_{i}", part["pixels"])
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f"picture{prefix}_{i}"
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"mesh{prefix}_{i}", material=f"look{prefix}_{i}", group=SHOWN,
                      contype=0, conaffinity=0)


def model_parts(assets, name):
    """Meshes with looks of a model, standing on z = 0 around the z axis: see meshes.convert."""
    path, _, _, its = meshes.MODELS[name]
    found = []
    for corners, uv, color, texture, model in meshes.standing(assets / path, its, TRIANGLES):
        vertices, faces = np.unique(np.round(corners.reshape(-1, 3), 6), axis=0, return_inverse=True)
        faces = faces.reshape(-1, 3)
        whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
        part = dict(vertices=vertices, faces=faces[whole], color=np.array(color), pixels=None)
        if not whole.any() or (np.ptp(vertices, axis=0).min() < 1e-5 and len(vertices) < 4):
            continue
        if texture >= 0:
            image = meshes.texture_of(model, texture)
            if uv is None:
                part["color"] = np.append(np.asarray(image).reshape(-1, 3).mean(0) / 255, 1) * part["color"]
            else:
                image.thumbnail((512, 512), Image.Resampling.LANCZOS)
                its_uv, uv_faces = np.unique(np.round(uv.reshape(-1, 2), 6), axis=0, return_inverse=True)
                part |= dict(pixels=np.asarray(image), uv=its_uv, uv_faces=uv_faces.reshape(-1, 3)[whole])
        found.append(part)
    return found


def box(mask):
    x, y = (np.flatnonzero(mask.sum(axis) > 1) for axis in (0, 1))  # a lone pixel seen through a gap moves no edge
    if not (len(x) and len(y)):
        x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [round(float(it), 5) for it in (x[0] / WIDTH, y[0] / HEIGHT, (x[-1] + 1) / WIDTH, (y[-1] + 1) / HEIGHT)]


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--views", type=int, default=10000)
    parser.add_argument("--split", choices=splits.SPLITS, default="train")
    parser.add_argument("--per-build", type=int, default=150, help="views of one choice of models and textures")
    parser.add_argument("--first-build", type=int, default=0, help="to go on with a directory: builds made before")
    parser.add_argument("--shard", type=int, default=150)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = splits.models(args.split, meshes.MODELS)
    parts = {}
    for name in names:
        try:
            parts[name] = model_parts(args.assets, name)
        except Exception as error:  # one model fewer is no reason to have none
            print(f"{name}: left out: {error!r}", flush=True)
    models = [dict(name=it, kind=meshes.MODELS[it][1], color=meshes.MODELS[it][2], role=role(it),
                   **{k: options(it)[k] for k in ("label", "paint", "floor", "top") if k in options(it)}) for it in parts]
    (args.out / "manifest.json").write_text(json.dumps(dict(models=models, tables=[]), indent=1) + "\n")
    arenas = dict(train=[], validation=splits.VALIDATION_ARENAS, test=splits.TEST_ARENAS)[args.split]
    rows, done, build, start = [], 0, args.first_build, time.time()
    while done < args.views:
        seed = splits.FIRST_SEED[args.split] + 5_000_000 + build * args.per_build
        rng = np.random.default_rng(seed)
        arena = arenas[build // 2 % len(arenas)] if arenas and build % 2 else None
        build += 1
        stage = Stage(args.assets, parts, rng, args.split, arena)
        for k in range(args.per_build):
            if k % 2 == 0:
                shown = stage.arrange()
            row = stage.shoot(shown, seed + k) if shown else None
            if row is not None and done < args.views:
                rows.append(row)
                done += 1
        stage.close()
        while len(rows) >= args.shard or (rows and done >= args.views):
            shards.write(args.out, f"{rows[0][2]['seed']:09d}", rows[: args.shard])
            rows = rows[args.shard :]
        print(f"{stage.room}: {done} in {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
