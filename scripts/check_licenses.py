#!/usr/bin/env python3
"""Hold the license of every crate in use against the list in deny.toml, as `cargo deny check licenses` does.

Usage: check_licenses.py

Looks at what the default features use on Linux x86_64; nothing has to be installed.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main():
    """Fail with every crate whose license is not allowed."""
    block = re.search(r"^allow = \[(.*?)\]", (ROOT / "deny.toml").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    allowed = set(re.findall(r'"([^"]+)"', block.group(1)))
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.check_output(command, cwd=ROOT))
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    crates = [it for it in metadata["packages"] if it["id"] in used]
    refused = [it for it in crates if not is_allowed(it["license"] or "", allowed)]
    for crate in refused:
        print(f"{crate['name']} {crate['version']}: {crate['license'] or 'no license'} is not among deny.toml's", file=sys.stderr)
    if refused:
        sys.exit(1)
    print(f"licenses of {len(crates)} crates are permissive")


def is_allowed(expression, allowed):
    """Whether an SPDX expression can be met: OR needs one side, AND both; a slash is an old OR."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            # Both sides must be read, whatever the first one says.
            value = both() or value
        return value

    def both():
        value = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = single() and value
        return value

    def single():
        if not tokens:
            return False
        name = tokens.pop(0)
        if name == "(":
            value = either()
            return bool(tokens) and tokens.pop(0) == ")" and value
        while len(tokens) > 1 and tokens[0] == "WITH":
            name = " ".join([name, tokens.pop(0), tokens.pop(0)])
        return name in allowed

    return either() and not tokens


if __name__ == "__main__":
    main()
