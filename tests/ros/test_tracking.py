"""Poses at the rate of the camera from a model that is slower, ids that stay, and a loss that is said."""

import numpy as np
from geometry_msgs.msg import PoseStamped
from language_grounding.msg import GroundingResult
from std_msgs.msg import String

from camera import CENTER, Camera, render, seconds, transform
from conftest import NODE


def start(world, delay_ms=500, rate=30.0, **parameters):
    camera = Camera(world, rate=rate)
    camera.say_where(transform("table", "color", camera.table_from_camera))
    world.start_node(model=camera.given(delay_ms=delay_ms), target_frame="table", **parameters)
    results = world.listen(GroundingResult, f"{NODE}/result", 50)
    poses = world.listen(PoseStamped, f"{NODE}/target_pose", 100)
    say = world.publisher(String, "instruction")
    return camera, results, poses, say


def test_poses_at_camera_rate_from_a_model_of_half_a_second(world):
    camera, results, poses, say = start(world)
    say.publish(String(data="pick up the block"))
    world.spin_until(lambda: poses, what="the first pose")
    world.spin(1.0)
    poses.clear()
    results.clear()
    n_sent = camera.n_sent
    world.spin(6.0)
    stamps = [seconds(it.header.stamp) for it in poses]
    rate = (len(stamps) - 1) / (stamps[-1] - stamps[0])
    print(f"{rate:.1f} poses/s, {(camera.n_sent - n_sent) / 6:.1f} images/s, {len(results) / 6:.1f} results/s")
    assert rate >= 25
    assert stamps == sorted(set(stamps)), "a pose goes back in time"
    assert len(results) <= 13
    assert len({it.targets[0].id for it in results}) == 1 and all(it.status == GroundingResult.FOUND for it in results)
    assert {it.header.frame_id for it in poses} == {"table"}
    at = np.array([[it.pose.position.x, it.pose.position.y, it.pose.position.z] for it in poses])
    assert np.linalg.norm(at - CENTER, axis=1).max() < 0.01


def test_a_loss_is_said_once_and_then_no_pose_comes(world):
    # The model is so slow that everything after its first answer is tracking.
    camera, results, poses, say = start(world, delay_ms=4000)
    say.publish(String(data="pick up the block"))
    world.spin_until(lambda: len(poses) > 10, what="tracked poses")
    poses.clear()
    camera.depth, _ = render(camera.table_from_camera, block=False)
    world.spin_until(lambda: any(it.status == GroundingResult.STALE for it in results), 3.0, "the loss")
    lost = next(it for it in results if it.status == GroundingResult.STALE)
    assert lost.instruction == "pick up the block" and "lost" in lost.message, lost.message
    assert lost.header.frame_id == "color"
    # Those of the block that was there; none of a time without it.
    last_block = seconds(lost.header.stamp) - 0.15
    poses = [it for it in poses if seconds(it.header.stamp) > last_block]
    world.spin(1.0)
    assert not poses
    assert sum(it.status == GroundingResult.STALE for it in results) == 1


def test_nothing_is_tracked_for_a_service_or_without_the_parameter(world):
    _, results, poses, say = start(world, delay_ms=100, track=False)
    world.ground("the block")
    world.spin(0.5)
    assert len(poses) == 1
    say.publish(String(data="pick up the block"))
    world.spin_until(lambda: len(results) > 4)
    say.publish(String(data=""))
    world.spin(0.5)
    n_found = sum(it.status == GroundingResult.FOUND for it in results)
    assert abs(len(poses) - n_found) <= 1
    # A target of the standing instruction is followed; that of a service is not.
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter
    track = Parameter("track", value=True).to_parameter_msg()
    assert world.call(SetParameters, f"{NODE}/set_parameters", SetParameters.Request(parameters=[track])).results[0].successful
    poses.clear()
    assert world.ground("the block").targets[0].id == "block_0"
    world.spin(0.5)
    assert len(poses) == 1
