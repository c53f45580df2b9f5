"""Left and right are the robot's where the parameters say so, through TF; without its transform they are not guessed."""

import pytest
from geometry_msgs.msg import Quaternion, Transform, TransformStamped
from language_grounding.msg import GroundingResult as R
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from conftest import write_given

CAMERA = "camera_color_optical_frame"
LEFT, RIGHT = [100, 200, 160, 260], [400, 200, 460, 260]
# x of the body looks into the camera, z is up in the image.
FACES_CAMERA = Quaternion(x=0.5, y=0.5, z=-0.5, w=0.5)
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def start(world, **parameters):
    boxes = [{"phrase": "mug", "bbox": box, "score": 0.9} for box in (LEFT, RIGHT)]
    world.start_node(model=write_given(boxes), use_depth=False, caption_targets=False, transform_timeout_secs=0.3, **parameters)
    world.start_camera()
    world.spin(1.0)


def place_robot(world, frame):
    stands = TransformStamped(
        header=Header(frame_id=CAMERA), child_frame_id=frame, transform=Transform(rotation=FACES_CAMERA))
    world.publisher(TFMessage, "/tf_static", LATCHED).publish(TFMessage(transforms=[stands]))
    world.spin(0.5)


def x_min(result):
    assert result.status == R.FOUND, result.message
    return [round(it.bbox.x_min) for it in result.targets]


@pytest.mark.parametrize("parameters, frame", [
    ({"viewpoint": "robot"}, "base_link"),
    ({"viewpoint": "robot", "robot_frame": "torso"}, "torso"),
    ({"viewpoint": "target_frame", "target_frame": "torso"}, "torso"),
])
def test_sides_are_those_of_the_viewpoint(world, parameters, frame):
    start(world, **parameters)
    place_robot(world, frame)
    assert x_min(world.ground("pick up the left mug")) == [RIGHT[0]]
    asked = world.ground("pick up the mug")
    assert asked.message == "2 mugs: the left one or the right one?"
    assert x_min(world.ground("the right one")) == [LEFT[0]]


def test_sides_of_the_camera_need_no_transform(world):
    start(world)
    assert x_min(world.ground("pick up the left mug")) == [LEFT[0]]


def test_without_the_transform_sides_are_not_guessed(world):
    start(world, viewpoint="robot")
    refused = world.ground("pick up the left mug")
    assert refused.status == R.NO_TRANSFORM, refused.message
    assert "base_link" in refused.message and CAMERA in refused.message
    assert not refused.targets
    # What names no side needs none.
    assert world.ground("pick up the mug").status == R.AMBIGUOUS
