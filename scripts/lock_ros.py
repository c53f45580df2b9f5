#!/usr/bin/env python3
"""Write `ros_requirements.lock`: every wheel of `ros_requirements.in` and all it pulls in, with its version.

Usage: lock_ros.py PYTHON...

Resolves once with each interpreter given (3.10 to 3.14; pip installs nothing) and merges the answers: a package
that resolves alike everywhere gets one line, one that differs gets a line with a marker for each Python.
For development only; installing needs no more than the lock file.
"""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE / "ros_requirements.in"
LOCK = HERE / "ros_requirements.lock"


def main(interpreters: list[str]) -> None:
    """Resolve with every interpreter and write the lock file."""
    if not interpreters:
        sys.exit(__doc__)
    resolved = dict(sorted(map(resolve, interpreters)))
    pythons = list(resolved)
    lines = [
        "# Written by lock_ros.py from ros_requirements.in; do not edit.",
        "# Resolved with Python " + ", ".join(f"3.{minor}" for minor in pythons) + ".",
    ]
    for name in sorted({name for versions in resolved.values() for name in versions}):
        lines += pins(name, {minor: resolved[minor].get(name) for minor in pythons})
    LOCK.write_text("\n".join(lines) + "\n")
    print(f"{LOCK}: {len(lines) - 2} lines")


def resolve(python: str) -> tuple[int, dict[str, str]]:
    """The interpreter's minor version and what pip would install with it, name to version."""
    minor = int(subprocess.check_output([python, "-c", "import sys; print(sys.version_info.minor)"]))
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = json.loads(subprocess.check_output([*command, "--requirement", SOURCE]))
    return minor, {item["metadata"]["name"]: item["metadata"]["version"] for item in report["install"]}


def pins(name: str, versions: dict[int, str | None]) -> list[str]:
    """The lock lines of one package. The lowest and the highest Python resolved speak for those beyond."""
    if len(set(versions.values())) == 1:
        return [f"{name}=={next(iter(versions.values()))}"]
    lines = []
    pythons = sorted(versions)
    for version in dict.fromkeys(versions[minor] for minor in pythons):
        minors = [minor for minor in pythons if versions[minor] == version]
        markers = [f'python_version >= "3.{minors[0]}"'] if minors[0] > pythons[0] else []
        markers += [f'python_version < "3.{minors[-1] + 1}"'] if minors[-1] < pythons[-1] else []
        if version is not None:
            lines.append(f"{name}=={version} ; {' and '.join(markers)}")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
