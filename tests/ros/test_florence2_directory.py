"""`model:` is a Florence-2 directory as the hub has them, without a dense head: the node finds and describes with it.

The checkpoint is the tiny random one of the parity tests: what it finds means nothing, that and how it is told does.
"""

import array
import json
import struct

import pytest
from language_grounding.msg import GroundingResult
from language_grounding.srv import Describe
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from conftest import NODE, ROOT, World, _domains, box_of

WIDTH, HEIGHT = 64, 48
FIXTURE = ROOT / "tests" / "data" / "parity" / "florence2"


def without_dense_head(folder):
    """A copy of the fixture as a released checkpoint is."""
    for name in ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"):
        (folder / name).write_bytes((FIXTURE / name).read_bytes())
    config = json.loads((FIXTURE / "config.json").read_text())
    del config["grounding_head"], config["synthetic"]
    (folder / "config.json").write_text(json.dumps(config))
    content = (FIXTURE / "model.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header, data = {}, b""
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__" and not name.startswith("grounding_head."):
            first, end = entry["data_offsets"]
            header[name] = entry | {"data_offsets": [len(data), len(data) + end - first]}
            data += content[start + first:start + end]
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def camera_image():
    """An image by formula, in which the random model puts a box for "red cup" that is one; elsewhere its edges are often swapped."""
    pixels = [((3 * x + 80) % 256, (5 * y + 34) % 256, (x * y + 58) % 256) for y in range(HEIGHT) for x in range(WIDTH)]
    message = Image(encoding="rgb8", width=WIDTH, height=HEIGHT, step=3 * WIDTH)
    message.data = array.array("B", (value for pixel in pixels for value in pixel))
    return message


@pytest.fixture(scope="module")
def florence2(tmp_path_factory):
    it = World(next(_domains))
    model = without_dense_head(tmp_path_factory.mktemp("florence2"))
    # A random model is sure of nothing, and its boxes have no color.
    it.start_node(model=model, score_threshold=0.0, limit_to_locations=True, use_depth=False, check_colors=False)
    images, message = it.publisher(Image, "image", qos_profile_sensor_data), camera_image()

    def send():
        message.header.stamp, message.header.frame_id = it.node.get_clock().now().to_msg(), "camera"
        images.publish(message)

    it.node.create_timer(0.1, send)
    it.spin(1.0)
    yield it
    it.close()


def test_it_finds_and_describes(florence2):
    captions = florence2.listen(String, f"{NODE}/caption")
    result = florence2.ground("pick up any red cup", 60)
    assert result.status == GroundingResult.FOUND, result.message
    (target,) = result.targets
    assert target.phrase == "red cup"
    # As `ground` has it.
    assert box_of(target) == pytest.approx([21.09, 15.82, 51.87, 38.90], abs=0.01)
    parts = {it.name: it.value for it in target.score_parts}
    assert {"location_mass", "location_log_prob", "phrase_log_prob", "x0_std_px"} <= set(parts)
    assert target.score == pytest.approx(parts["location_mass"], abs=1e-6)
    assert target.caption
    florence2.spin_until(lambda: captions, what="a caption")
    assert captions[-1].data == target.caption


def test_it_captions_and_answers_no_questions(florence2):
    caption = florence2.call(Describe, f"{NODE}/describe", Describe.Request(), 60)
    assert caption.success and caption.text, caption.message
    answer = florence2.call(Describe, f"{NODE}/describe", Describe.Request(question="what color is the cup?"), 60)
    assert not answer.success and "answer" in answer.message
