"""Shards of compressed pictures: `NAME.pack` holds JPEGs and PNG masks one after the other, `NAME.jsonl` one scene a line.

A line says where in the pack its picture and mask are (`picture`, `mask`: first byte and count), and what the shards of
`scene_dataset` say (see data.py). Pictures keep a camera's shape of 640x480; masks are u8, 0 = room, object index + 1.
"""

import io
import json

import numpy as np
from PIL import Image


def write(out, name, rows, quality=93):
    """Rows are (picture, mask, line); the `.jsonl` appears last and whole, so a reader never sees half a shard."""
    lines, blobs, at = [], [], 0
    for picture, mask, line in rows:
        line = dict(line)
        for key, array, options in (("picture", picture, dict(format="JPEG", quality=quality)), ("mask", mask, dict(format="PNG"))):
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(array)).save(buffer, **options)
            blobs.append(buffer.getvalue())
            line[key] = [at, len(blobs[-1])]
            at += len(blobs[-1])
        lines.append(json.dumps(line) + "\n")
    (out / f"{name}.pack").write_bytes(b"".join(blobs))
    part = out / f"{name}.part"
    part.write_text("".join(lines))
    part.rename(out / f"{name}.jsonl")


def read(pack, where):
    """The picture or mask at (first byte, count) of an open pack."""
    pack.seek(where[0])
    return Image.open(io.BytesIO(pack.read(where[1])))
