#!/usr/bin/env python3
"""Write docs/parameters.md from config/grounding.yaml.

Usage: parameters_doc.py [--check]

With --check nothing is written; it fails where the page is not what would be written.
"""

import itertools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCE = ROOT / "config" / "grounding.yaml"
PAGE = ROOT / "docs" / "parameters.md"
HEAD = """# Parameters

<!-- Written by scripts/parameters_doc.py from config/grounding.yaml; do not edit. -->

The node declares all of these with their types, ranges and descriptions (`ros2 param describe`); `ground config` prints them as a file, and
`ground --config FILE` takes the same file as the node. Each is declared once, in `src/config.rs`.
A change is checked together with all other values. It is refused with a reason, or holds from the next request on; those marked *start* are
read once.

| parameter | default | range | |
|---|---|---|---|
"""


def main(arguments):
    """Write the page, or hold it against what would be written."""
    rows = list(parameters(SOURCE.read_text(encoding="utf-8").splitlines()))
    page = HEAD + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)
    if arguments == ["--check"]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
            sys.exit("docs/parameters.md is not that of config/grounding.yaml: run scripts/parameters_doc.py")
    elif arguments:
        sys.exit(__doc__)
    else:
        PAGE.write_text(page, encoding="utf-8")


def parameters(lines):
    """A row for each parameter: a comment `DESCRIPTION [UNIT; RANGE; read at start]` and `NAME: DEFAULT` under it."""
    for comment, line in itertools.pairwise(lines):
        value = re.fullmatch(r"    ([\w.]+): (.+)", line)
        if value is None:
            continue
        name, default = value.groups()
        description, notes = re.fullmatch(r"    # (.+?)(?: \[([^\[\]]*)\])?", comment).groups()
        # Brackets may belong to the description: "owner/name[@revision]".
        notes = [] if notes is None else notes.split("; ")
        if "read at start" in notes:
            notes.remove("read at start")
            description = f"*start*. {description}"
        yield f"`{name}`", "empty" if default == '""' else f"`{default.strip(chr(34))}`", ", ".join(notes), description


if __name__ == "__main__":
    main(sys.argv[1:])
