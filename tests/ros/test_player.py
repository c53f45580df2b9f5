"""The simulated camera and the bag player: what a real camera would publish."""

import os
import subprocess
from pathlib import Path

import numpy
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from conftest import BIN, SCENE, stamp_ns

BAGS = sorted((Path(__file__).resolve().parents[1] / "data" / "bags").glob("*/*.mcap"))
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def camera_topics(world):
    return (world.listen(Image, "image", qos_profile_sensor_data), world.listen(Image, "depth", qos_profile_sensor_data),
            world.listen(CameraInfo, "camera_info", qos_profile_sensor_data), world.listen(TFMessage, "/tf_static", LATCHED))


@pytest.mark.parametrize("encoding, scale", [("16UC1", 1e-3), ("32FC1", 1.0)])
def test_simulated_camera_agrees_with_its_ground_truth(world, encoding, scale):
    images, depths, infos, transforms = camera_topics(world)
    truth = world.start_camera(SCENE["seed"], "--width", 320, "--height", 240, "--depth-encoding", encoding, "--rate", 20)
    world.spin_until(lambda: len(images) > 20 and len(depths) > 20 and infos and transforms)
    image, depth, info = images[-1], depths[-1], infos[-1]
    assert (image.width, image.height, image.encoding) == (320, 240, "rgb8")
    assert (depth.width, depth.height, depth.encoding) == (320, 240, encoding)
    assert list(info.k) == pytest.approx(truth["k"])
    transform = transforms[-1].transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("world", truth["frame_id"])
    stamps = [stamp_ns(it.header.stamp) for it in images]
    assert 0.7 < (stamps[-1] - stamps[0]) * 1e-9 / ((len(stamps) - 1) / 20) < 1.5
    values = numpy.frombuffer(depth.data, numpy.uint16 if scale != 1.0 else numpy.float32).reshape(240, 320) * scale
    for thing in truth["objects"]:
        if thing["bbox"] and thing["visible_fraction"] > 0.9:
            x0, y0, x1, y1 = (round(it) for it in thing["bbox"])
            nearest = numpy.nanmin(values[y0:y1, x0:x1])
            assert abs(nearest - thing["surface_centroid_in_camera"][2]) < 0.15, thing["phrase"]


@pytest.mark.parametrize("bag", BAGS, ids=lambda it: it.stem)
def test_bags_play_in_a_loop_with_fresh_stamps(world, bag):
    images, depths, infos, transforms = camera_topics(world)
    world.start("scene_player", "--bag", bag)
    world.spin_until(lambda: len(images) >= 8 and depths and infos and transforms, what="two rounds of the bag")
    now = world.node.get_clock().now().nanoseconds
    stamps = [stamp_ns(it.header.stamp) for it in images]
    assert stamps == sorted(stamps) and abs(now - stamps[-1]) < 2e9
    assert {stamp_ns(it.header.stamp) for it in depths} & set(stamps)
    assert images[-1].header.frame_id == infos[-1].header.frame_id == transforms[-1].transforms[0].child_frame_id


def test_there_are_bags():
    assert len(BAGS) >= 2
    assert all(it.stat().st_size < 2_000_000 and (it.parent / "metadata.yaml").exists() for it in BAGS)


@pytest.mark.parametrize("arguments, says", [
    ([], "--generate"),
    (["--generate", "1", "--rate", "0"], "positive rate"),
    (["--bag", __file__], "not a rosbag2 MCAP file"),
    (["--bag", "/no/such.mcap"], "cannot read /no/such.mcap"),
])
def test_bad_arguments_end_the_player_with_a_sentence(arguments, says):
    environment = dict(os.environ, ROS_DOMAIN_ID="99")
    done = subprocess.run([BIN / "scene_player", *arguments], check=False, env=environment, capture_output=True, text=True, timeout=10)
    assert done.returncode != 0 and says in done.stderr, done.stderr
