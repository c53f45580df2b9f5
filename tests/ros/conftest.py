"""The programs under test, real DDS, and rclpy on the other side. Every test has its own ROS domain."""

import atexit
import functools
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("LG_BIN_DIR", ROOT / "target" / "release"))
NODE = "/language_grounding"
# A scene that no model was trained on; the words are for objects it holds once, and for one it does not hold.
SCENE = json.loads((Path(__file__).parent / "scene.json").read_text())
# Only the publisher of large best-effort images needs it.
CAMERA_ENVIRONMENT = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_shm.xml")}
os.environ.update(CAMERA_ENVIRONMENT, ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")

# The shipped checkpoint, once there is one. Most tests are about everything but the model: they give the node the boxes of
# the scene's ground truth (`model: given:FILE`), so that they fail for no fault of a checkpoint's.
SHIPPED_MODEL = ROOT / "models" / "florence2_tiny_tabletop"

_domains = itertools.count(100 + os.getpid() % 60)


@functools.cache
def given_model():
    """A file with the boxes of everything in the scene."""
    environment = dict(os.environ, ROS_DOMAIN_ID="98")
    player = subprocess.Popen(
        [BIN / "scene_player", "--generate", str(SCENE["seed"])], env=environment, text=True, stdout=subprocess.PIPE)
    truth = json.loads(next(line for line in player.stdout if line.startswith("{")))
    player.kill()
    player.wait()
    boxes = [{"phrase": it["phrase"], "bbox": it["bbox"], "score": 0.9} for it in truth["objects"] if it["bbox"]]
    return write_given(boxes)


def write_given(boxes):
    """A model that offers these boxes."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(boxes, file)
    atexit.register(os.unlink, file.name)
    return f"given:{file.name}"


class World:
    """A ROS domain with an rclpy node in it and the programs started for a test."""

    def __init__(self, domain):
        self.domain = domain
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("test", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.programs = []

    def start(self, program, *arguments, **options):
        environment = dict(os.environ, ROS_DOMAIN_ID=str(self.domain))
        process = subprocess.Popen(
            [str(BIN / program), *map(str, arguments)], env=environment, text=True, **options)
        self.programs.append(process)
        return process

    def start_node(self, wait=True, ros_arguments=(), **parameters):
        """The node, by default once it is active."""
        parameters = {"model": given_model(), **parameters}
        arguments = ["--ros-args", *ros_arguments]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
        process = self.start("grounding_node", *arguments)
        if wait:
            self.wait_for_state("active")
        return process

    def start_camera(self, seed=SCENE["seed"], *arguments):
        """A simulated camera; returns its ground truth."""
        player = self.start("scene_player", "--generate", seed, *arguments, stdout=subprocess.PIPE)
        # Fast DDS writes its own warnings to standard output.
        return json.loads(next(line for line in player.stdout if line.startswith("{")))

    def spin_until(self, condition, timeout=20.0, what="what was waited for"):
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"{what} did not come within {timeout} s"
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)

    def listen(self, message_type, topic, qos=10):
        """A list that fills with what comes on a topic."""
        heard = []
        subscription = self.node.create_subscription(message_type, topic, heard.append, qos)
        if subscription.get_publisher_count() > 0:
            self.spin(0.3)  # as in `publisher`
            heard.clear()
        return heard

    def publisher(self, message_type, topic, qos=10, wait=True):
        publisher = self.node.create_publisher(message_type, topic, qos)
        if wait:
            self.spin_until(lambda: publisher.get_subscription_count() > 0, what=f"a subscriber of {topic}")
            # The other side may not know this publisher yet, and drops what it sends until then.
            self.spin(0.5)
        return publisher

    def call(self, service_type, name, request, timeout=20.0):
        client = self.node.create_client(service_type, name)
        self.spin_until(client.service_is_ready, timeout, f"service {name}")
        future = client.call_async(request)
        self.spin_until(future.done, timeout, f"the answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def state(self):
        from lifecycle_msgs.srv import GetState
        return self.call(GetState, f"{NODE}/get_state", GetState.Request()).current_state.label

    def wait_for_state(self, label, timeout=40.0):
        deadline = time.monotonic() + timeout
        while self.state() != label:
            assert time.monotonic() < deadline, f"the node is not {label} after {timeout} s but {self.state()}"
            self.spin(0.05)

    def ground(self, instruction, timeout=20.0):
        from language_grounding.srv import Ground
        return self.call(Ground, f"{NODE}/ground", Ground.Request(instruction=instruction), timeout).result

    def close(self):
        for process in self.programs:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.programs:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def world():
    it = World(next(_domains))
    yield it
    it.close()


@pytest.fixture(scope="module")
def running():
    """One camera and one active node for all tests of a module that only ask questions."""
    it = World(next(_domains))
    it.truth = it.start_camera()
    it.start_node(target_frame="world")
    yield it
    it.close()


def stamp_ns(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(area) - width * height)


def box_of(found):
    return [found.bbox.x_min, found.bbox.y_min, found.bbox.x_max, found.bbox.y_max]


def object_of(truth, phrase):
    """The one object of a scene that a phrase names."""
    (only,) = [it for it in truth["objects"] if it["phrase"] == phrase and it["bbox"]]
    return only
