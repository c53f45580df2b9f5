"""Whatever comes in, one coded result goes out, and the node lives on."""

import array
import math

import pytest
from language_grounding.msg import GroundingResult as R
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from conftest import NODE, write_given

WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module")
def bare(request):
    """A node that uses every image at once, and a camera made of whatever a test publishes."""
    from conftest import World, _domains
    world = World(next(_domains))
    box = {"phrase": "red cup", "bbox": [16, 12, 48, 36], "score": 0.9}
    world.start_node(model=write_given([box]), min_object_points=1)
    world.image = world.publisher(Image, "image", qos_profile_sensor_data)
    world.depth = world.publisher(Image, "depth", qos_profile_sensor_data)
    world.info = world.publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
    yield world
    world.close()


def image(encoding="rgb8", width=WIDTH, height=HEIGHT, step=None, data=None):
    channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}.get(encoding, 3)
    message = Image(encoding=encoding, width=width, height=height)
    message.step = width * channels if step is None else step
    message.data = array.array("B", data if data is not None else bytes([120]) * (message.step * height))
    return message


def depth(value=1.0, width=WIDTH, height=HEIGHT):
    message = Image(encoding="32FC1", width=width, height=height, step=4 * width)
    message.data = array.array("B", array.array("f", [value] * (width * height)).tobytes())
    return message


def info(fx=60.0, width=WIDTH, height=HEIGHT):
    message = CameraInfo(width=width, height=height)
    message.k = [fx, 0.0, width / 2, 0.0, fx, height / 2, 0.0, 0.0, 1.0]
    return message


def ask(world, color, depth_image, camera_info, instruction="the red cup"):
    """The one result of one request while the camera sends these messages."""
    from language_grounding.srv import Ground
    client = world.node.create_client(Ground, f"{NODE}/ground")
    world.spin_until(client.service_is_ready)
    heard = world.listen(R, f"{NODE}/result", 10)
    world.spin_until(lambda: world.node.count_publishers(f"{NODE}/result") > 0)
    world.spin(0.2)

    def send():
        stamp = world.node.get_clock().now().to_msg()
        for publisher, message in ((world.info, camera_info), (world.depth, depth_image), (world.image, color)):
            if message is not None:
                message.header.stamp, message.header.frame_id = stamp, "camera"
                publisher.publish(message)
    for _ in range(3):
        send()
        world.spin(0.05)
    future = client.call_async(Ground.Request(instruction=instruction))
    timer = world.node.create_timer(0.1, send)
    world.spin_until(future.done, 30.0, "a result")
    world.node.destroy_timer(timer)
    world.node.destroy_client(client)
    world.spin(0.2)
    result = future.result().result
    assert [it.instruction_id for it in heard].count(result.instruction_id) == 1, "not exactly one result"
    assert result.message.strip(), "no sentence"
    for found in [*result.targets, *result.candidates]:
        if found.has_pose:
            at = found.pose.pose.pose.position
            assert all(map(math.isfinite, (at.x, at.y, at.z))) and at.z > 0
    return result


NO_POSE = {R.NO_DEPTH}


@pytest.mark.parametrize("color, depth_image, camera_info, statuses, says", [
    (image(width=0, height=0), depth(), info(), {R.ERROR}, "0x0"),
    (image(step=WIDTH * 3 - 1), depth(), info(), {R.ERROR}, "step"),
    (image(data=bytes(10)), depth(), info(), {R.ERROR}, "bytes"),
    (image(encoding="32FC3"), depth(), info(), {R.ERROR}, "rgb8"),
    (image(encoding="mono16"), depth(), info(), {R.ERROR}, "rgb8"),
    (image(), depth(), info(fx=0.0), NO_POSE, "calibrated"),
    (image(), depth(math.nan), info(), NO_POSE, "depth"),
    (image(), depth(math.inf), info(), NO_POSE, "depth"),
    (image(), depth(0.0), info(), NO_POSE, "depth"),
    (image(), depth(width=32, height=24), info(), NO_POSE, "32x24"),
    (image(), depth(), info(width=128), NO_POSE, "camera_info"),
    (image(), None, info(), NO_POSE, "depth"),
], ids=["empty", "step", "short", "float", "mono16", "uncalibrated", "nan", "inf", "zero", "depth_size", "info_size", "no_depth"])
def test_bad_camera(bare, color, depth_image, camera_info, statuses, says):
    if depth_image is None:
        # A pair of the test before would serve as long as it is not older than max_frame_age_secs.
        bare.spin(1.2)
    result = ask(bare, color, depth_image, camera_info)
    assert result.status in statuses, (result.status, result.message)
    assert says in result.message, result.message
    assert not any(it.has_pose for it in result.targets)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_good_encodings_are_looked_at(bare, encoding):
    result = ask(bare, image(encoding=encoding), depth(), info())
    assert result.status in (R.FOUND, R.NO_DEPTH), result.message
    assert len(result.targets) == 1


@pytest.mark.parametrize("instruction", ["", "   ", "?!", "x" * 100_000, "\N{SNOWMAN}" * 5], ids=[
    "empty", "blank", "punctuation", "100kB", "symbols"])
def test_bad_instructions(bare, instruction):
    result = ask(bare, image(), depth(), info(), instruction)
    assert result.status in (R.BAD_INSTRUCTION, R.NOT_FOUND, R.AMBIGUOUS, R.NO_DEPTH, R.FOUND)
    if len(instruction.strip()) != 5:
        assert result.status == R.BAD_INSTRUCTION, result.message


def test_standing_instruction_is_answered_once_when_it_is_bad(bare):
    heard = bare.listen(R, f"{NODE}/result", 10)
    say = bare.publisher(String, "instruction")
    bare.spin(0.3)
    say.publish(String(data="?!"))
    bare.spin_until(lambda: heard)
    bare.spin(1.5)
    assert [it.status for it in heard] == [R.BAD_INSTRUCTION]


def test_no_camera_is_never_silence(world):
    world.start_node()
    heard = world.listen(R, f"{NODE}/result", 10)
    say = world.publisher(String, "instruction")
    say.publish(String(data="the red cup"))
    world.spin_until(lambda: len(heard) >= 2, what="word that there is no image")
    assert {it.status for it in heard} == {R.STALE}
    assert "/image" in heard[-1].message


def test_old_images_are_stale(world):
    world.start_node()
    camera = world.publisher(Image, "image", qos_profile_sensor_data)
    message = image()
    message.header.stamp.sec = 1_000_000
    timer = world.node.create_timer(0.1, lambda: camera.publish(message))
    result = world.ground("the red cup")
    world.node.destroy_timer(timer)
    assert result.status == R.STALE and "stamped" in result.message, result.message
