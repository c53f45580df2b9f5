"""Fits how a color word is read off pixels (src/score/color/table.rs), and its figures on what was not fitted.

    colors.py fit TABLE DIR [DIR ..]        shards of training splits
    colors.py judge TABLE DIR [DIR ..]    shards of left-out splits

Of every thing whose color one word names, the pixels of its visible mask (or of the ellipse in its box, where no mask is known) are named
by a multinomial logistic regression over CIELAB: [1, L, a, b, L2, a2, b2, La, Lb, ab], scaled. A word fits a thing by the share of
pixels with that name. Labels and shadows make pixels of a red thing that are not red, so shares are compared, never pixels.
"""

import random
import re
import sys
from pathlib import Path

import numpy as np

from data import Scenes
from text import COLORS

HEAD = """//! How likely a pixel is to be called each basic color: log-odds over quadratic terms of CIELAB, fitted by `training/colors.py`.

/// In the order of [`crate::color::Color`]; columns as [`super::terms`] gives them.
#[rustfmt::skip]
pub(super) const WEIGHTS: [[f64; 10]; 11] = [
"""
PER_THING, SCALE = 60, np.array([50.0, 50.0, 50.0])


def lab(rgb):
    """CIELAB of sRGB u8 [n, 3], D65."""
    xyz = linear(rgb) @ np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]).T
    t = xyz / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def features(rgb):
    light, a, b = (lab(rgb) / SCALE - [1.0, 0, 0]).T
    return np.stack([np.ones_like(a), light, a, b, light * light, a * a, b * b, light * a, light * b, a * b], 1)


def things(folders, use_mask, rng, limit=4000):
    """(color, pixels [n, 3], picture) of things of one color, in at most `limit` scenes of a folder."""
    for folder in folders:
        scenes = Scenes(folder)
        order = list(range(len(scenes)))
        rng.shuffle(order)
        for i in order[:limit]:
            its = [it for it in scenes.things[i] if it["color"] and it["eligible"] and it["kind"] != "robot arm"]
            if not its:
                continue
            picture, mask = np.asarray(scenes.picture(i)), scenes.mask(i)
            h, w = picture.shape[:2]
            for it in its:
                x0, y0, x1, y1 = it["bbox"][0] * w, it["bbox"][1] * h, it["bbox"][2] * w, it["bbox"][3] * h
                if use_mask:
                    where = mask == it["mask"]
                else:
                    y, x = np.mgrid[:h, :w] + 0.5
                    where = ((x - (x0 + x1) / 2) / (0.35 * (x1 - x0) + 1e-9)) ** 2 + ((y - (y0 + y1) / 2) / (0.35 * (y1 - y0) + 1e-9)) ** 2 <= 1
                pixels = picture[where]
                if len(pixels) >= 20:
                    yield it["color"], pixels[rng.sample(range(len(pixels)), min(400, len(pixels)))], picture


def fit(out, folders):
    rng = random.Random(1)
    x, y = [], []
    for color, pixels, _ in things(folders, True, rng, 2500):
        x.append(pixels[:PER_THING])
        y.append(np.full(len(x[-1]), COLORS.index(color)))
    n = [len(it) for it in x]
    x, y = features(np.concatenate(x)), np.concatenate(y)
    counts = np.bincount(y, minlength=len(COLORS))
    print(len(n), "things", dict(zip(COLORS, counts.tolist())))
    weight = (1 / np.maximum(counts, 1))[y]
    weight /= weight.sum()
    w = np.zeros((len(COLORS), x.shape[1]))
    m, v = np.zeros_like(w), np.zeros_like(w)
    rng = np.random.default_rng(0)
    for step in range(6000):
        b = rng.choice(len(x), 4096)
        z = x[b] @ w.T
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(b)), y[b]] -= 1
        g = (p * weight[b][:, None] * len(x)).T @ x[b] / len(b) + 1e-5 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= 0.05 * (1 - step / 6000) * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
    rows = "".join(f"    [{', '.join(f'{it:.3f}' for it in row)}], // {color}\n" for color, row in zip(COLORS, w))
    Path(out).write_text(HEAD + rows + "];\n")


def linear(rgb):
    c = rgb / 255.0
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def gains(picture):
    """The light's color by shades of gray (Finlayson and Trezzi 2004), of mean 1."""
    light = (linear(picture[::4, ::4].reshape(-1, 3)) ** 6).mean(0) ** (1 / 6)
    return light / light.mean()


def encoded(c):
    c = np.clip(c, 0, 1)
    return 255 * np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)


def fits(w, pixels, light):
    """Of each color, as a share of the most likely one: the better of the pixels as they are and in white light."""
    best = np.zeros(len(COLORS))
    for seen in (pixels, encoded(linear(pixels) / light)):
        z = features(seen) @ w.T
        p = np.exp(z - z.max(1, keepdims=True))
        shares = (p / p.sum(1, keepdims=True)).mean(0)
        best = np.maximum(best, shares / shares.max())
    return best


def judge(table, folders):
    w = np.array([re.findall(r"-?\d+\.\d+", row) for row in Path(table).read_text().splitlines() if row.startswith("    [")], float)
    for name, cast in dict(white=[1, 1, 1], warm=[1.3, 1, 0.6], cold=[0.75, 1, 1.3], dim=[0.35] * 3).items():
        for use_mask in (True, False):
            rng = random.Random(2)
            right, wrong = [], []
            for color, pixels, picture in things(folders, use_mask, rng):
                fit = fits(w, encoded(linear(pixels) * cast), gains(encoded(linear(picture) * cast)))
                right.append(fit[COLORS.index(color)])
                wrong += [fit[i] for i in range(len(COLORS)) if COLORS[i] != color]
            right, wrong = np.array(right), np.array(wrong)
            figures = ", ".join(f"at {t} {(right >= t).mean():.3f} and {(wrong >= t).mean():.3f}" for t in (0.1, 0.15, 0.2))
            print(f"{name} light, {'mask' if use_mask else 'ellipse'}, {len(right)} things: right kept and wrong accepted {figures}")


if __name__ == "__main__":
    dict(fit=fit, judge=judge)[sys.argv[1]](sys.argv[2], sys.argv[3:])
