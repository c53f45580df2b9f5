"""Plays a recorded camera (or simulates one), starts the grounding node, says a sentence, and tells what came of it.

Exits 0 when there was a result that can be trusted (FOUND with a pose, or NOT_FOUND and the like without one).
"""

import argparse
import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import rclpy
from geometry_msgs.msg import PoseStamped
from language_grounding.msg import GroundingResult
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

ROOT = Path(__file__).resolve().parent.parent
STATUS = {getattr(GroundingResult, name): name for name in (
    "FOUND", "NOT_FOUND", "AMBIGUOUS", "NO_DEPTH", "NO_TRANSFORM", "STALE", "BAD_INSTRUCTION", "BLOCKED", "ERROR")}
NODE = "/language_grounding"
# A scene of LIBERO-90, recorded; with `--seed` a generated tabletop instead.
BAG = ROOT / "tests/data/bags/red_mug_and_plate/red_mug_and_plate.mcap"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("say", nargs="?", default="pick up the red mug", help="the instruction")
    parser.add_argument("--bag", type=Path, default=BAG, help="the rosbag2 MCAP file to play")
    parser.add_argument("--seed", type=int, help="show the generated scene of this seed instead")
    parser.add_argument("--target-frame", default="world", help="frame of the poses")
    parser.add_argument("--model", help="model directory or name instead of the shipped one")
    parser.add_argument("--output", type=Path, default=ROOT / "output", help="folder of the annotated image")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for a result")
    arguments = parser.parse_args()

    programs = Programs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return demo(arguments, programs)
    finally:
        programs.stop()


def demo(arguments, programs):
    bin_dir = Path(os.environ["LG_BIN_DIR"])
    started = time.monotonic()
    node_arguments = ["-p", f"target_frame:={arguments.target_frame}"]
    if arguments.model:
        node_arguments += ["-p", f"model:={arguments.model}"]
    programs.start([bin_dir / "grounding_node", "--ros-args", *node_arguments])
    if arguments.seed is None:
        programs.start([bin_dir / "scene_player", "--bag", arguments.bag])
        beside = arguments.bag.with_name("truth.json")
        truth = json.loads(beside.read_text()) if beside.exists() else None
    else:
        player = programs.start(
            [bin_dir / "scene_player", "--generate", str(arguments.seed), "--rate", "10"], stdout=subprocess.PIPE)
        truth = json.loads(next(line for line in player.stdout if line.startswith(b"{")))

    rclpy.init()
    node = rclpy.create_node("demo")
    heard = {"results": [], "poses": [], "images": []}
    node.create_subscription(GroundingResult, f"{NODE}/result", heard["results"].append, 10)
    node.create_subscription(PoseStamped, f"{NODE}/target_pose", heard["poses"].append, 10)
    node.create_subscription(Image, f"{NODE}/annotated", heard["images"].append, qos_profile_sensor_data)
    say = node.create_publisher(String, "instruction", 10)
    deadline = time.monotonic() + arguments.timeout

    def spin_until(condition):
        while not condition():
            programs.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"no answer within {arguments.timeout:.0f} s: see the node's messages above")
            rclpy.spin_once(node, timeout_sec=0.05)

    spin_until(lambda: say.get_subscription_count() > 0 and node.count_publishers(f"{NODE}/result") > 0)
    # A node that has just gone may still be counted: what is not answered is said again.
    said = 0.0

    def say_again():
        nonlocal said
        if not heard["results"] and time.monotonic() - said > 0.5:
            said = time.monotonic()
            say.publish(String(data=arguments.say))

    def is_answer(result):
        # The camera and the model may need a moment longer than the sentence.
        return result.status not in (GroundingResult.STALE, GroundingResult.BLOCKED)

    def answered():
        say_again()
        return any(map(is_answer, heard["results"]))

    spin_until(answered)
    first_result = time.monotonic()
    result = next(filter(is_answer, heard["results"]))
    # Its picture and its pose are on their way, if there are any.
    grace = time.monotonic() + 1.0
    spin_until(lambda: time.monotonic() > grace
               or (any(it.header.stamp == result.header.stamp for it in heard["images"])
                   and (result.status != GroundingResult.FOUND or heard["poses"])))

    print(f"\ninstruction    {arguments.say}")
    print(f"status         {STATUS.get(result.status, result.status)}")
    print(f"message        {result.message}")
    for role, found in [("target", it) for it in result.targets] + [("destination", result.destination)] * result.has_destination:
        show(role, found, truth, arguments.target_frame)
    poses = [it for it in heard["poses"] if it.header.stamp == result.header.stamp]
    print(f"pose published {'yes, in ' + poses[0].header.frame_id if poses else 'no'}")
    print(f"model          {result.model}")
    print("latency        " + ", ".join(f"{it.name} {it.value:.1f} ms" for it in result.latency_ms))
    print(f"node start to first result: {first_result - started:.2f} s")
    images = [it for it in heard["images"] if it.header.stamp == result.header.stamp] or heard["images"][-1:]
    if images:
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / "demo.png"
        write_png(path, images[0])
        print(f"annotated image: {path}")
    node.destroy_node()
    rclpy.try_shutdown()

    found = result.status == GroundingResult.FOUND
    if found != bool(poses):
        print("a pose must be published exactly when the status is FOUND", file=sys.stderr)
        return 1
    return 1 if result.status == GroundingResult.ERROR else 0


def show(role, found, truth, target_frame):
    box = (found.bbox.x_min, found.bbox.y_min, found.bbox.x_max, found.bbox.y_max)
    print(f"{role:<14} {found.phrase!r}, score {found.score:.2f}" + (f", {found.caption!r}" if found.caption else ""))
    print(f"  box          ({box[0]:.1f}, {box[1]:.1f}) to ({box[2]:.1f}, {box[3]:.1f}) px")
    at = None
    if found.has_pose:
        at = found.pose.pose.pose.position
        turn = found.pose.pose.pose.orientation
        size = found.size
        print(f"  pose         ({at.x:.3f}, {at.y:.3f}, {at.z:.3f}) m, "
              f"quaternion xyzw ({turn.x:.3f}, {turn.y:.3f}, {turn.z:.3f}, {turn.w:.3f}) in {found.pose.header.frame_id}")
        print(f"  size         {size.x:.3f} x {size.y:.3f} x {size.z:.3f} m")
    objects = [it for it in (truth or {}).get("objects", []) if it["bbox"]]
    if not objects:
        return
    nearest = max(objects, key=lambda it: iou(box, it["bbox"]))
    line = f"  ground truth {nearest['phrase']!r}, box IoU {iou(box, nearest['bbox']):.2f}"
    if at and target_frame == truth["world_frame_id"]:
        if "center_in_world" in nearest:
            line += f", center off by {100 * math.dist((at.x, at.y, at.z), nearest['center_in_world']):.1f} cm"
        centroid = found.surface_centroid
        to_surface = math.dist((centroid.x, centroid.y, centroid.z), nearest["surface_centroid_in_world"])
        line += f", visible surface off by {100 * to_surface:.1f} cm"
    print(line)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(area) - width * height)


def write_png(path, image):
    """An rgb8 sensor_msgs/Image as a PNG file."""
    rows = bytes(image.data)
    raw = b"".join(b"\0" + rows[y * image.step:y * image.step + 3 * image.width] for y in range(image.height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


class Programs:
    """Child processes that never outlive the demo."""

    def __init__(self):
        self.running = []

    def start(self, command, **options):
        process = subprocess.Popen([str(it) for it in command], **options)
        self.running.append(process)
        return process

    def check(self):
        for process in self.running:
            if process.poll() is not None:
                raise SystemExit(f"{Path(process.args[0]).name} ended with code {process.returncode}: see above")

    def stop(self):
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.running:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
