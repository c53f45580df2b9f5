"""Frames: depth of another camera, planes and gravity from TF, transforms that are late, gone or moving, grasps and places."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray, PoseStamped
from language_grounding.msg import GroundedObject, GroundingResult
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from camera import CENTER, DEPTH_K, DEPTH_SIZE, SIZE, Camera, K, beside, looking, position, render, rotation, seconds, transform
from conftest import NODE, SCENE, object_of, write_given

DEPTH_TOPICS = ("-r", "depth:=/depth_camera/depth")


@pytest.fixture
def camera(world):
    it = Camera(world)
    it.say_where(transform("table", "color", it.table_from_camera), transform("color", "infrared", beside()))
    return it


def apart(camera):
    """Depth by a coarser camera of its own, beside the color camera."""
    camera.depth, _ = render(camera.table_from_camera @ beside(), DEPTH_K, DEPTH_SIZE)
    camera.depth_frame_id, camera.depth_k = "infrared", DEPTH_K


def test_depth_of_another_camera_is_registered(world):
    camera = Camera(world, depth_topic="depth_camera/depth")
    camera.say_where(transform("table", "color", camera.table_from_camera), transform("color", "infrared", beside()))
    apart(camera)
    world.start_node(model=camera.given(), target_frame="table", ros_arguments=DEPTH_TOPICS)
    diagnostics = world.listen(DiagnosticArray, "/diagnostics")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    assert np.linalg.norm(position(result.targets[0]) - CENTER) < 0.008, position(result.targets[0])
    said = world.spin_until(lambda: [it.value for status in (diagnostics[-1].status if diagnostics else [])
                                     for it in status.values if it.key == "depth registered by the node from"])
    assert said == ["infrared"]
    # Its place is not known: no pose, and a sentence that names both frames.
    camera.depth_frame_id = "elsewhere"
    world.spin(1.2)
    result = world.ground("the block")
    assert result.status == GroundingResult.NO_DEPTH and "elsewhere" in result.message, result.message


def test_depth_may_come_compressed(world, camera):
    camera.is_depth_compressed = True
    world.start_node(model=camera.given(), target_frame="table", depth_transport="compressedDepth")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    assert np.linalg.norm(position(result.targets[0]) - CENTER) < 0.008, position(result.targets[0])


def test_an_image_may_be_a_binned_part_of_what_the_camera_sees(world, camera):
    # Of 800x600 pixels, 640x480 from (40, 20), every two by two as one: what is published is as before.
    whole = np.array([[2 * K[0, 0], 0, 2 * K[0, 2] + 40], [0, 2 * K[1, 1], 2 * K[1, 2] + 20], [0, 0, 1]])
    camera.whole = dict(
        width=800, height=600, k=[float(it) for it in whole.flatten()], binning_x=2, binning_y=2,
        roi=RegionOfInterest(x_offset=40, y_offset=20, width=640, height=480))
    world.start_node(model=camera.given(), target_frame="table")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    assert np.linalg.norm(position(result.targets[0]) - CENTER) < 0.008, position(result.targets[0])


def test_depth_that_is_a_little_late_is_paired_and_reported(world, camera):
    camera.depth_delay_secs = 0.015
    world.start_node(model=camera.given(), target_frame="table")
    diagnostics = world.listen(DiagnosticArray, "/diagnostics")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND and result.targets[0].has_pose, result.message
    said = world.spin_until(lambda: [it.value for status in (diagnostics[-1].status if diagnostics else [])
                                     for it in status.values if it.key == "depth stamp minus color stamp (ms)"])
    assert said == ["15.0"]


def test_depth_from_another_frame_is_never_taken_for_registered(world, camera):
    camera.depth_frame_id = "infrared"
    world.start_node(model=camera.given(), target_frame="table")
    result = world.ground("the block")
    assert result.status == GroundingResult.NO_DEPTH, result.message
    assert not result.targets[0].has_pose
    for says in ["color", "infrared", "depth_registration", "depth_camera_info"]:
        assert says in result.message, result.message


def test_depth_that_is_only_labeled_otherwise(world, camera):
    camera.depth_frame_id = "infrared"
    world.start_node(model=camera.given(), target_frame="table", depth_registration="registered")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    assert np.linalg.norm(position(result.targets[0]) - CENTER) < 0.008


def test_without_depth_the_plane_frame_tells_where_it_stands(world, camera):
    camera.depth = None
    world.start_node(model=camera.given(), target_frame="table", plane_frame="table")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    (target,) = result.targets
    assert target.pose_source == GroundedObject.SOURCE_SUPPORT_PLANE and target.num_depth_points == 0
    error = position(target) - CENTER
    covariance = np.array(target.pose.pose.covariance).reshape(6, 6)[:3, :3]
    assert np.linalg.norm(error) < 0.04, error
    assert error @ np.linalg.inv(covariance) @ error < 11.3, "outside of the 99 % ellipsoid"


def test_a_plane_seen_before_is_remembered_and_less_sure(world, camera):
    world.start_node(model=camera.given(), target_frame="table", plane_memory_frame="table")
    with_depth = world.ground("the block").targets[0]
    assert with_depth.pose_source == GroundedObject.SOURCE_DEPTH
    camera.depth = None
    world.spin(1.2)
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    (target,) = result.targets
    assert target.pose_source == GroundedObject.SOURCE_SUPPORT_PLANE
    assert np.linalg.norm(position(target) - CENTER) < 0.04
    assert sum(target.pose.pose.covariance[it] for it in (0, 7, 14)) > sum(
        with_depth.pose.pose.covariance[it] for it in (0, 7, 14))


def test_gravity_frame_says_what_is_up(world, camera):
    # A camera held so askew that the table is no floor to its eyes.
    roll = np.eye(4)
    roll[:2, :2] = [[0, 1], [-1, 0]]
    camera.table_from_camera = looking(50.0) @ roll
    camera.depth, camera.is_block = render(camera.table_from_camera)
    camera.say_where(transform("table", "color", camera.table_from_camera))
    world.start_node(model=camera.given(), target_frame="table", gravity_frame="table")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    (target,) = result.targets
    assert rotation(target.pose.pose.pose)[2, 2] > 0.999
    assert np.linalg.norm(position(target) - CENTER) < 0.008, position(target)
    assert abs(target.size.z - SIZE[2]) < 0.006


class Moving:
    """/tf of a table that moves before the camera at 1 m/s and 1 rad/s: as good as the other way round."""

    def __init__(self, world, late_secs=0.0):
        self.publisher = world.node.create_publisher(TFMessage, "/tf", 100)
        self.node, self.late_secs = world.node, late_secs
        self.start = seconds(world.node.get_clock().now().to_msg())
        self.waiting = []
        self.timer = world.node.create_timer(0.02, self.tell)

    def map_from_table(self, secs):
        turned = secs - self.start
        pose = np.eye(4)
        pose[:2, :2] = [[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]]
        pose[:3, 3] = turned, 0.2, 0.1
        return pose

    def tell(self):
        stamp = self.node.get_clock().now().to_msg()
        self.waiting.append(stamp)
        while self.waiting and seconds(self.waiting[0]) <= seconds(stamp) - self.late_secs:
            told = self.waiting.pop(0)
            self.publisher.publish(TFMessage(transforms=[transform(
                "map", "table", self.map_from_table(seconds(told)), told)]))


def test_a_moving_camera_is_where_it_was_when_it_looked(world, camera):
    moving = Moving(world)
    world.start_node(model=camera.given(), target_frame="map", transform_timeout_secs=0.5)
    world.spin_until(lambda: world.ground("the block").status == GroundingResult.FOUND)
    seen_in_table = surface_centroid(camera)
    for _ in range(10):
        result = world.ground("the block")
        assert result.status == GroundingResult.FOUND, result.message
        map_from_table = moving.map_from_table(seconds(result.header.stamp))
        (target,) = result.targets
        at = target.surface_centroid
        error = np.linalg.norm([at.x, at.y, at.z] - (map_from_table @ seen_in_table)[:3])
        assert error < 0.002, f"{1e3 * error:.2f} mm"
        # The body's center is an estimate: its own error comes on top.
        assert np.linalg.norm(position(target) - (map_from_table @ [*CENTER, 1])[:3]) < 0.008


def surface_centroid(camera):
    """Mean of the points of the block that the camera sees, in the frame "table"."""
    v, u = np.nonzero(camera.is_block)
    z = camera.depth[v, u]
    points = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z, np.ones_like(z)])
    return camera.table_from_camera @ points.mean(1)


def test_a_transform_that_is_late_is_waited_for_and_no_longer_than_told(world, camera):
    moving = Moving(world, late_secs=0.25)
    world.start_node(model=camera.given(), target_frame="map", transform_timeout_secs=1.0)
    result = world.spin_until(lambda: (it := world.ground("the block")).status == GroundingResult.FOUND and it)
    expected = moving.map_from_table(seconds(result.header.stamp)) @ [*CENTER, 1]
    assert np.linalg.norm(position(result.targets[0]) - expected[:3]) < 0.01
    short = Parameter("transform_timeout_secs", value=0.05).to_parameter_msg()
    answer = world.call(SetParameters, f"{NODE}/set_parameters", SetParameters.Request(parameters=[short]))
    assert answer.results[0].successful
    result = world.ground("the block")
    assert result.status == GroundingResult.NO_TRANSFORM and "from" in result.message, result.message
    assert not result.targets[0].has_pose and result.targets[0].bbox.x_max > 0


def test_a_transform_beyond_the_cache_is_not_made_up(world, camera):
    Moving(world)
    # By the time the model has answered, the image's stamp is older than all that is kept.
    world.start_node(model=camera.given(delay_ms=600), target_frame="map", transform_cache_secs=0.2)
    world.spin(0.5)
    result = world.ground("the block")
    assert result.status == GroundingResult.NO_TRANSFORM, result.message
    assert "table" in result.message and not result.targets[0].has_pose


def test_a_clock_that_jumps_back_is_followed(world):
    camera = Camera(world)
    camera.say_where(transform("table", "color", camera.table_from_camera))
    camera.sim_secs = 5000.0
    publisher = world.node.create_publisher(TFMessage, "/tf", 100)

    def tell():
        stamp = GroundingResult().header.stamp
        stamp.sec, stamp.nanosec = divmod(int(camera.sim_secs * 1e9), 10**9)
        publisher.publish(TFMessage(transforms=[transform("map", "table", np.eye(4), stamp)]))
    world.node.create_timer(0.03, tell)
    world.start_node(model=camera.given(), target_frame="map", use_sim_time=True)
    poses = world.listen(PoseStamped, f"{NODE}/target_pose")
    world.publisher(String, "instruction").publish(String(data="pick up the block"))
    world.spin_until(lambda: len(poses) > 5, what="poses")
    # The bag starts over: everything goes on by itself.
    camera.sim_secs = 1000.0
    world.spin_until(lambda: any(seconds(it.header.stamp) < 2000 for it in poses), what="poses after the jump")
    fresh = [it for it in poses if seconds(it.header.stamp) < 2000]
    at = fresh[-1].pose.position
    assert np.linalg.norm(np.array([at.x, at.y, at.z]) - CENTER) < 0.01
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND and seconds(result.header.stamp) < 2000, result.message


def test_grasps_and_places_are_told_in_the_target_frame(world):
    truth = world.start_camera()
    boxes = [{"phrase": it["phrase"], "bbox": it["bbox"], "score": 0.9} for it in truth["objects"] if it["bbox"]]
    world.start_node(model=write_given(boxes), target_frame="world", gripper_max_opening_m=0.15)
    grasps = world.listen(PoseArray, f"{NODE}/grasp_candidates")
    places = world.listen(PoseStamped, f"{NODE}/place_pose")
    what, where = object_of(truth, SCENE["present"]), object_of(truth, SCENE["other"])
    result = world.ground(f"put the {what['phrase']} to the right of the {where['phrase']}")
    assert result.status == GroundingResult.FOUND, result.message
    world.spin_until(lambda: grasps and places, what="grasps and a place")
    assert grasps[-1].header == places[-1].header == result.targets[0].pose.header
    assert grasps[-1].header.frame_id == "world"
    best = grasps[-1].poses[0]
    at = np.array([best.position.x, best.position.y, best.position.z])
    assert np.linalg.norm(at[:2] - what["center_in_world"][:2]) < 0.03 and 0 < at[2] < 0.3
    turn = rotation(best)
    # The approach axis, z, points down or away from the camera, never up.
    assert turn[2, 2] < 0.2 and np.linalg.det(turn) > 0.99
    assert list(result.targets[0].grasp_scores) == sorted(result.targets[0].grasp_scores, reverse=True)
    place = places[-1].pose
    assert abs(place.position.z) < 0.02, "on the table"
    right = np.array([place.position.x, place.position.y]) - where["center_in_world"][:2]
    camera_right = looking_right(truth)
    assert right @ camera_right > 0.5 * where["size_m"][0], "to the right, beyond its edge"


def looking_right(truth):
    """The camera's right in the world, leveled."""
    class Pose:
        pass
    pose, pose.orientation = Pose(), Pose()
    q = truth["world_from_camera"]["orientation_xyzw"]
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = q
    axis = rotation(pose)[:2, 0]
    return axis / np.linalg.norm(axis)


def set_text(world, name, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    (result,) = world.call(SetParameters, f"{NODE}/set_parameters", request).results
    assert result.successful, result.reason


def test_what_lies_out_of_the_workspace_is_no_target(world, camera):
    world.start_node(
        model=camera.given(), target_frame="table", workspace_min="-0.3, -0.3, -0.02", workspace_max="0.3, 0.3, 0.3")
    result = world.ground("the block")
    assert result.status == GroundingResult.FOUND, result.message
    set_text(world, "workspace_min", "0.1, -0.3, -0.02")
    result = world.ground("the block")
    assert result.status == GroundingResult.NOT_FOUND and result.missing == "reach", result.message
    assert "in table" in result.message and "(0.0" in result.message, result.message
    assert not result.targets
    # A frame that nobody knows: nothing is known to be in reach.
    set_text(world, "workspace_frame", "nowhere")
    result = world.ground("the block")
    assert result.status == GroundingResult.NO_TRANSFORM and "nowhere" in result.message, result.message


def test_an_image_frame_with_x_forward_is_warned_about(world):
    camera = Camera(world)
    body_from_optical = np.eye(4)
    body_from_optical[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    camera.say_where(transform("table", "color", camera.table_from_camera @ np.linalg.inv(body_from_optical)))
    world.start_node(model=camera.given(), target_frame="table")
    diagnostics = world.listen(DiagnosticArray, "/diagnostics")
    result = world.ground("the block")
    assert any("x forward" in it and "color" in it for it in result.warnings), result.warnings
    assert world.spin_until(lambda: any(
        "x forward" in status.message for status in (diagnostics[-1].status if diagnostics else [])))
