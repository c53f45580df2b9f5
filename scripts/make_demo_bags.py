#!/usr/bin/env python3
"""Writes rosbag2 MCAP bags of single RGB-D moments, as an RGB-D camera driver would have recorded them.

usage: make_demo_bags.py DATASET OUT STEM=NAME [STEM=NAME ...]     (needs the packages rosbags, numpy and Pillow)

DATASET holds `frames.jsonl` and, for each STEM, `STEM.jpg` and `STEM_depth.png` (16-bit millimeters).
`scene_player --bag OUT/NAME/NAME.mcap` and `ros2 bag play OUT/NAME` play them.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

FRAME = "camera_color_optical_frame"
STAMP_NS = 1_700_000_000_000_000_000
TYPES = get_typestore(Stores.ROS2_JAZZY)


def main():
    dataset, out = Path(sys.argv[1]), Path(sys.argv[2])
    frames = {it["stem"]: it for it in map(json.loads, (dataset / "frames.jsonl").read_text().splitlines())}
    for pair in sys.argv[3:]:
        stem, name = pair.split("=")
        write(dataset, frames[stem], out / name)


def write(dataset, frame, path):
    shutil.rmtree(path, ignore_errors=True)
    color = numpy.asarray(Image.open(dataset / f"{frame['stem']}.jpg").convert("RGB"))
    depth = numpy.asarray(Image.open(dataset / f"{frame['stem']}_depth.png")).astype(numpy.uint16)
    k = numpy.array(frame["K"], float)
    message = TYPES.types
    header = message["std_msgs/msg/Header"](
        message["builtin_interfaces/msg/Time"](STAMP_NS // 10**9, STAMP_NS % 10**9), FRAME)
    height, width = depth.shape
    projection = numpy.hstack([k, numpy.zeros((3, 1))]).flatten()
    roi = message["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    image = message["sensor_msgs/msg/Image"]
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        def add(topic, type_name, value, qos=()):
            connection = writer.add_connection(topic, type_name, typestore=TYPES, offered_qos_profiles=qos)
            writer.write(connection, STAMP_NS, TYPES.serialize_cdr(value, type_name))

        add("/tf_static", "tf2_msgs/msg/TFMessage", message["tf2_msgs/msg/TFMessage"]([transform(frame, header)]),
            latched())
        add("/camera_info", "sensor_msgs/msg/CameraInfo", message["sensor_msgs/msg/CameraInfo"](
            header, height, width, "plumb_bob", numpy.zeros(5), k.flatten(), numpy.eye(3).flatten(), projection, 0, 0, roi))
        add("/depth", "sensor_msgs/msg/Image",
            image(header, height, width, "16UC1", 0, 2 * width, numpy.frombuffer(depth.tobytes(), numpy.uint8)))
        add("/image", "sensor_msgs/msg/Image", image(header, height, width, "rgb8", 0, 3 * width, color.flatten()))
    (path / "truth.json").write_text(json.dumps(truth(frame), indent=1) + "\n")


def truth(frame):
    """What the demo and the tests compare with."""
    world = numpy.array(frame["T_world_cam"])
    objects = []
    for name, it in frame["objects"].items():
        centroid = world @ [*it["surface_centroid_cam"], 1.0]
        objects.append({"phrase": name.rsplit("_", 1)[0].replace("_", " "), "bbox": it["bbox"],
                        "surface_centroid_in_world": [round(v, 4) for v in centroid[:3]]})
    return {"source": frame["stem"], "world_frame_id": "world", "objects": objects}


def latched():
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
    forever = QosTime(2147483647, 4294967295)
    return [Qos(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, forever, forever,
                QosLiveliness.AUTOMATIC, forever, False)]


def transform(frame, header):
    """The camera in the world."""
    message = TYPES.types
    matrix = numpy.array(frame["T_world_cam"])
    x, y, z, w = quaternion(matrix[:3, :3])
    world = message["std_msgs/msg/Header"](header.stamp, "world")
    return message["geometry_msgs/msg/TransformStamped"](
        world, FRAME,
        message["geometry_msgs/msg/Transform"](
            message["geometry_msgs/msg/Vector3"](*map(float, matrix[:3, 3])),
            message["geometry_msgs/msg/Quaternion"](x, y, z, w)))


def quaternion(rotation):
    """(x, y, z, w) of a rotation matrix: the eigenvector of Bar-Itzhack's symmetric 4 x 4 matrix (2000)."""
    r = rotation
    k = numpy.array([
        [r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
        [0, r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]],
        [0, 0, r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
        [0, 0, 0, r[0, 0] + r[1, 1] + r[2, 2]],
    ])
    values, vectors = numpy.linalg.eigh(k, UPLO="U")
    return (vectors[:, values.argmax()] * numpy.sign(vectors[3, values.argmax()] or 1)).tolist()


if __name__ == "__main__":
    main()
