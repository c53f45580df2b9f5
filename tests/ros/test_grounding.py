"""Right object, right place, right labels: the node against scenes whose answers are known."""

import math
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from language_grounding.msg import GroundingResult
from language_grounding.srv import Describe, Ground
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from conftest import NODE, SCENE, box_of, iou, object_of, stamp_ns

PRESENT, OTHER, ABSENT = SCENE["present"], SCENE["other"], SCENE["absent"]


def test_right_box_frame_stamp_and_pose(running):
    results = running.listen(GroundingResult, f"{NODE}/result")
    poses = running.listen(PoseStamped, f"{NODE}/target_pose")
    boxes_2d = running.listen(Detection2DArray, f"{NODE}/detections")
    boxes_3d = running.listen(Detection3DArray, f"{NODE}/detections_3d")
    markers = running.listen(MarkerArray, f"{NODE}/markers")
    images = running.listen(Image, "image", qos_profile_sensor_data)
    running.spin_until(lambda: images, what="an image of the camera")
    running.spin(0.5)

    result = running.ground(f"pick up the {PRESENT}")
    truth = object_of(running.truth, PRESENT)
    assert result.status == GroundingResult.FOUND, result.message
    assert result.action == "pick_up"
    assert result.header.frame_id == running.truth["frame_id"]
    (target,) = result.targets
    assert target.phrase == PRESENT
    assert iou(box_of(target), truth["bbox"]) >= 0.5
    assert target.has_pose and target.pose.header.frame_id == "world"
    assert target.pose.header.stamp == result.header.stamp
    seen = (target.surface_centroid.x, target.surface_centroid.y, target.surface_centroid.z)
    assert math.dist(seen, truth["surface_centroid_in_world"]) < 0.03
    at = target.pose.pose.pose.position
    assert math.dist((at.x, at.y, at.z), truth["center_in_world"]) < 0.05
    turn = target.pose.pose.pose.orientation
    # Upright: the object's z axis is the world's.
    assert 1 - 2 * (turn.x**2 + turn.y**2) > 0.95
    covariance = target.pose.pose.covariance
    assert all(covariance[7 * i] > 0 for i in range(6))
    assert target.mask.width == running.truth["width"] and max(target.mask.data) == 255

    running.spin_until(lambda: results and poses and boxes_2d and boxes_3d and markers, what="all topics of a result")
    assert results[-1].instruction_id == result.instruction_id
    assert any(it.header.stamp == result.header.stamp for it in images), "the stamp is not one the camera sent"
    assert poses[-1].header == target.pose.header
    assert any(it.results[0].hypothesis.class_id == PRESENT and it.id == target.id for it in boxes_2d[-1].detections)
    assert all(0 <= it.results[0].hypothesis.score <= 1 for it in boxes_2d[-1].detections)
    assert boxes_3d[-1].header.frame_id == "world" and target.id in [it.id for it in boxes_3d[-1].detections]
    # A grasp is drawn only where one fits the gripper.
    assert {it.ns for it in markers[-1].markers if it.action == Marker.ADD} - {"target/grasp"} == {
        "target/box", "target/axes", "target/label", "target/uncertainty", "target/plane"}


def test_absent_object_is_not_found_and_has_no_pose(running):
    poses = running.listen(PoseStamped, f"{NODE}/target_pose")
    markers = running.listen(MarkerArray, f"{NODE}/markers")
    assert running.ground(f"pick up the {PRESENT}").status == GroundingResult.FOUND
    running.spin_until(lambda: markers and poses)
    n_poses, n_markers = len(poses), len(markers)
    result = running.ground(f"pick up the {ABSENT}")
    assert result.status == GroundingResult.NOT_FOUND, result.message
    assert not result.targets and result.message
    running.spin_until(lambda: len(markers) > n_markers)
    assert {it.action for it in markers[-1].markers} == {Marker.DELETE}, "the old markers are still shown"
    assert len(poses) == n_poses


def test_describe(running):
    answer = running.call(Describe, f"{NODE}/describe", Describe.Request())
    # A model without captions says so; one with captions says something.
    assert answer.success == bool(answer.text) and (answer.success or answer.message)
    if answer.success:
        assert answer.header.frame_id == running.truth["frame_id"] and answer.model


def test_annotated_image_only_while_someone_listens(running):
    result = running.ground(f"pick up the {PRESENT}")
    drawn = running.listen(Image, f"{NODE}/annotated", qos_profile_sensor_data)
    running.spin(1.0)
    assert not drawn
    running.spin_until(lambda: running.ground(f"pick up the {PRESENT}") and drawn, what="an annotated image")
    assert (drawn[-1].width, drawn[-1].height) == (running.truth["width"], running.truth["height"])
    assert drawn[-1].header.frame_id == result.header.frame_id


def test_diagnostics_tell_rates_and_latency(running):
    heard = running.listen(DiagnosticArray, "/diagnostics")
    running.ground(f"pick up the {PRESENT}")
    running.spin_until(lambda: len(heard) >= 3, what="diagnostics")
    by_name = {it.name.split(": ")[1]: it for it in heard[-1].status}
    inputs = {it.key: it.value for it in by_name["inputs"].values}
    assert by_name["inputs"].level == b"\0", by_name["inputs"].message
    assert 5 < float(inputs["image rate (Hz)"]) < 15
    assert inputs["camerainfo topic"] == "/camera_info"
    latency = {it.key: it.value for it in by_name["results"].values}
    assert float(latency["total p50 (ms)"]) > 0
    assert "ground p50 (ms)" in latency


def test_prompt_switched_under_load_never_mislabels(running):
    results = running.listen(GroundingResult, f"{NODE}/result", 100)
    boxes = running.listen(Detection2DArray, f"{NODE}/detections", 100)
    say = running.publisher(String, "instruction")
    said = []
    for number in range(12):
        phrase = [PRESENT, OTHER, ABSENT][number % 3]
        said.append(f"pick up the {phrase}")
        say.publish(String(data=said[-1]))
        running.spin(0.05 + 0.1 * (number % 4))
    last = said[-1]
    running.spin_until(lambda: results and results[-1].instruction == last and results[-1].status != GroundingResult.BLOCKED)
    say.publish(String(data=""))
    running.spin(0.5)
    by_id = {}
    for result in results:
        by_id.setdefault(result.instruction_id, set()).add(result.instruction)
        phrase = result.instruction.removeprefix("pick up the ")
        # Of what is missing, the candidates tell the kind as well.
        assert all(it.phrase == phrase for it in result.targets), result
        assert all(it.phrase in (phrase, phrase.split()[-1]) for it in result.candidates), result
        if result.status == GroundingResult.FOUND:
            truth = object_of(running.truth, phrase)
            assert iou(box_of(result.targets[0]), truth["bbox"]) >= 0.5
    assert all(len(texts) == 1 for texts in by_id.values()), "one id, two instructions"
    answered = {next(iter(texts)) for texts in by_id.values()}
    assert set(said) <= answered
    assert [next(iter(it)) for it in by_id.values() if next(iter(it))] == said, "an instruction without a result"
    # One image may have been asked about twice, by two instructions.
    asked = {}
    for result in results:
        asked.setdefault(stamp_ns(result.header.stamp), set()).add(result.instruction.removeprefix("pick up the "))
    for box in boxes:
        for detection in box.detections:
            assert detection.results[0].hypothesis.class_id in asked[stamp_ns(box.header.stamp)]


def test_newest_frame_wins(running):
    results = running.listen(GroundingResult, f"{NODE}/result", 100)
    say = running.publisher(String, "instruction")
    say.publish(String(data=f"pick up the {PRESENT}"))
    ages = []

    def take():
        while results:
            result = results.pop(0)
            if result.status == GroundingResult.FOUND:
                ages.append(time.time() - stamp_ns(result.header.stamp) * 1e-9)
        return len(ages) >= 10
    running.spin_until(take, what="ten answers to the standing instruction")
    say.publish(String(data=""))
    # One image period, one model call, and the way there and back.
    assert sorted(ages)[len(ages) // 2] < 1.5, ages


@pytest.mark.parametrize("reliability", [(), ("--reliable",)], ids=["best_effort", "reliable"])
def test_publisher_reliability(world, reliability):
    world.start_camera(SCENE["seed"], *reliability)
    world.start_node(target_frame="world")
    result = world.ground(f"pick up the {PRESENT}")
    assert result.status == GroundingResult.FOUND, result.message


def test_missing_transform_still_gives_the_box(world):
    truth = world.start_camera()
    world.start_node(target_frame="base_link", transform_timeout_secs=0.1)
    result = world.ground(f"pick up the {PRESENT}")
    assert result.status == GroundingResult.NO_TRANSFORM
    assert "base_link" in result.message and "world" in result.message
    assert iou(box_of(result.targets[0]), object_of(truth, PRESENT)["bbox"]) >= 0.5
    assert not result.targets[0].has_pose


def test_a_request_waits_for_the_first_image(world):
    world.start_node()
    client = world.node.create_client(Ground, f"{NODE}/ground")
    world.spin_until(client.service_is_ready)
    request = Ground.Request(instruction=f"the {PRESENT}")
    request.timeout.sec = 10
    future = client.call_async(request)
    world.spin(0.3)
    world.start_camera()
    world.spin_until(future.done)
    assert future.result().result.status == GroundingResult.FOUND, future.result().result.message
