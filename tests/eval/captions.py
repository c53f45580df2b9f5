#!/usr/bin/env python3
"""Judges captions of generated scenes: `captions.py GROUND MODEL SET`, SET as `training/evaluate.py --write` makes it.

`GROUND --describe` is asked for every image of SET/scenes.jsonl. Recall: the share of things to be named (those not half hidden)
that the caption names; precision: the share of named things that are in the scene; F1 of both, for the kind alone, and over the kinds
that come in many colors for the color alone and for kind and color together. Only the standard library is used.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

NUMBERS = {word: n for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])}


def main():
    ground, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    colors = json.loads((Path(model) / "config.json").read_text())["grounding_head"]["names"]["colors"]
    kinds, colors_alone, colored = Counter(), Counter(), Counter()
    has_color = lambda it: it["color"] is not None
    for line in (folder / "scenes.jsonl").read_text().splitlines():
        scene = json.loads(line)
        command = [ground, "--model", model, "--image", str(folder / scene["image"]), "--describe"]
        said = named(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["text"], colors)
        count(kinds, said, scene["things"], lambda it: it["kind"], lambda _: True)
        count(colors_alone, said, scene["things"], lambda it: it["color"], has_color)
        count(colored, said, scene["things"], lambda it: (it["color"], it["kind"]), has_color)
    for name, counts in (("kind", kinds), ("color", colors_alone), ("kind and color", colored)):
        recall, precision = counts["named"] / counts["to name"], counts["true"] / max(1, counts["said"])
        f1 = 2 * recall * precision / max(1e-9, recall + precision)
        of_named, of_said = counts["to name"], counts["said"]
        print(f"{name:16} recall {100 * recall:.1f} % of {of_named}, precision {100 * precision:.1f} % of {of_said}, F1 {100 * f1:.1f} %")


def named(text, colors):
    """Things of "a red cup, two apples and a shelf"."""
    things = []
    for part in re.split(r", | and ", text):
        words = part.split()
        n = NUMBERS.get(words[0], 1)
        words = words[1:] if words[0] in ("a", "an", *NUMBERS) else words
        if n > 1:
            words[-1] = singular(words[-1])
        color = words[0] if words[0] in colors else None
        things += n * [dict(color=color, kind=" ".join(words[color is not None:]))]
    return things


def singular(noun):
    if noun == "shelves":
        return "shelf"
    return noun.removesuffix("es") if re.search("(x|s|sh|ch)es$", noun) else noun.removesuffix("s")


def count(counts, said, truth, key, counts_here):
    there = Counter(key(it) for it in truth if counts_here(it))
    must = Counter(key(it) for it in truth if counts_here(it) and it["must"])
    told = Counter(key(it) for it in said if counts_here(it))
    counts["named"] += sum((told & must).values())
    counts["to name"] += must.total()
    counts["true"] += sum((told & there).values())
    counts["said"] += told.total()


if __name__ == "__main__":
    main()
