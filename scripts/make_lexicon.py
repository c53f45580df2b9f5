#!/usr/bin/env python3
"""Makes config/english_words.txt from Debian's packages wamerican and wamerican-small (SCOWL) and wordnet-base.

usage: make_lexicon.py FOLDER  (with the unpacked usr/share/dict and usr/share/wordnet of all packages)

A line is a word in lower case and what it may be. `V`: more often a verb than anything else, counted over WordNet's tagged
texts, or over its senses where these have no count. `v`: a verb as well. `r`: a rare verb that never has an object.
`m`: the name of somebody or something. `n`: a noun or
an adjective only. `-`: neither is known.
`took =take` gives the plain form of an irregular verb; `knock over V` is a verb with its particle. A `+` behind it: a word
that is not among the most frequent, so no slip is taken for it.
"""

import pathlib
import re
import sys
from collections import Counter

FOLDER = pathlib.Path(sys.argv[1])
WORDNET = FOLDER / "usr/share/wordnet"
KINDS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}


def senses() -> tuple[Counter, Counter]:
    """Senses and counted uses by (word, kind)."""
    number, uses = Counter(), Counter()
    for kind, name in [("n", "noun"), ("v", "verb"), ("a", "adj")]:
        for line in (WORDNET / f"index.{name}").read_text().splitlines():
            if not line.startswith(" "):
                fields = line.split()
                number[fields[0], kind] = int(fields[2])
    for line in (WORDNET / "cntlist.rev").read_text().splitlines():
        key, _, count = line.split()
        word, rest = key.split("%")
        uses[word, KINDS[rest[0]]] += int(count)
    return number, uses


PARTICLES = ["up", "down", "off", "out", "over", "away", "apart", "together", "aside", "in", "on", "back", "around"]


def with_objects() -> set[str]:
    """Verbs that have an object in at least one sense (WordNet's frames 8 to 11, 14 to 21, 24 to 26, 30, 31)."""
    frames = {*range(8, 12), *range(14, 22), 24, 25, 26, 30, 31}
    found = set()
    for line in (WORDNET / "data.verb").read_text().splitlines():
        fields = line.split("|")[0].split()
        if line.startswith(" ") or len(fields) < 4:
            continue
        words = [fields[4 + 2 * idx].lower() for idx in range(int(fields[3], 16))]
        for plus, frame, word in zip(fields, fields[1:], fields[2:]):
            if plus == "+" and frame.isdigit() and len(frame) == 2 and int(frame) in frames:
                number = int(word, 16)
                found |= {words[number - 1]} if 0 < number <= len(words) else set(words)
    return found


def flag(word: str, number: Counter, uses: Counter, transitive: set[str]) -> str:
    verb, other = uses[word, "v"], uses[word, "n"] + uses[word, "a"]
    if verb + other == 0:
        verb, other = number[word, "v"], number[word, "n"] + number[word, "a"]
    if number[word, "v"] == 0:
        return "n" if other else "-"
    if uses[word, "v"] == 0 and number[word, "a"] == 0 and word not in transitive:
        return "r"
    return "V" if verb > other else "v"


def main() -> None:
    number, uses = senses()
    is_plain = re.compile("[a-z]+").fullmatch
    frequent, all_words = (
        set(filter(is_plain, (FOLDER / "usr/share/dict" / name).read_text().split()))
        for name in ("american-english-small", "american-english")
    )
    # Names are no slips either: "Teddy".
    names = {it.lower() for it in (FOLDER / "usr/share/dict/american-english").read_text().split() if it.isascii() and it.isalpha()}
    words = frequent | all_words | names
    words |= {word for word, kind in uses if kind == "v" and is_plain(word)}
    transitive = with_objects()
    entries = {word: flag(word, number, uses, transitive) for word in words}
    entries |= {word: "m" for word in names - frequent - all_words if number[word, "v"] == 0}
    for line in (WORDNET / "verb.exc").read_text().splitlines():
        form, base = line.split()[:2]
        is_other = any(number[form, kind] for kind in "vna")
        if form in words and base in words and form != base and not is_other:
            entries[form] = f"={base}"
    for phrase, kind in number:
        verb, _, particle = phrase.partition("_")
        if kind == "v" and particle in PARTICLES and verb in words:
            entries[f"{verb} {particle}"] = "V"
    lines = [
        f"{word} {flag}" + ("" if word in frequent or " " in word else "+") for word, flag in sorted(entries.items())
    ]
    pathlib.Path("config/english_words.txt").write_text("\n".join(lines) + "\n")


main()
