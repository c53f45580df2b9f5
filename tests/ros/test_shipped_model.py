"""The shipped checkpoint in the node: the demo scene, under the load of a real model."""

import math
import re
import subprocess
import sys

import pytest
from language_grounding.msg import GroundingResult
from std_msgs.msg import String

from conftest import NODE, ROOT, SCENE, SHIPPED_MODEL, World, _domains, box_of, iou, object_of

pytestmark = pytest.mark.skipif(not SHIPPED_MODEL.is_dir(), reason="no checkpoint is shipped yet")


@pytest.fixture(scope="module")
def shipped():
    it = World(next(_domains))
    it.truth = it.start_camera()
    it.start_node(target_frame="world", model="florence2_tiny_tabletop")
    yield it
    it.close()


def test_found_where_it_is(shipped):
    result = shipped.ground(f"pick up the {SCENE['present']}", 60)
    truth = object_of(shipped.truth, SCENE["present"])
    assert result.status == GroundingResult.FOUND, result.message
    assert iou(box_of(result.targets[0]), truth["bbox"]) >= 0.5
    seen = result.targets[0].surface_centroid
    assert math.dist((seen.x, seen.y, seen.z), truth["surface_centroid_in_world"]) < 0.03


def test_absent_is_not_found(shipped):
    assert shipped.ground(f"pick up the {SCENE['absent']}", 60).status == GroundingResult.NOT_FOUND


def test_switching_under_load_never_mislabels(shipped):
    results = shipped.listen(GroundingResult, f"{NODE}/result", 100)
    say = shipped.publisher(String, "instruction")
    said = [f"pick up the {SCENE[it]}" for it in ("present", "other", "absent", "present")]
    for text in said:
        say.publish(String(data=text))
        shipped.spin(0.3)
    shipped.spin_until(lambda: len({it.instruction_id for it in results}) >= len(said), 60)
    say.publish(String(data=""))
    shipped.spin(0.5)
    for result in results:
        phrase = result.instruction.removeprefix("pick up the ")
        assert all(it.phrase == phrase for it in result.targets)
        assert all(it.phrase in (phrase, phrase.split()[-1]) for it in result.candidates)


def demo(tmp_path, *arguments):
    command = ["bash", ROOT / "scripts" / "demo.sh", "--output", tmp_path, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    sys.stdout.write(done.stdout + done.stderr)
    assert done.returncode == 0
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    return done.stdout


@pytest.mark.parametrize("kind, status", [("present", "FOUND"), ("absent", "NOT_FOUND")])
def test_demo_of_a_generated_scene(kind, status, tmp_path):
    printed = demo(tmp_path, "--seed", SCENE["seed"], f"pick up the {SCENE[kind]}")
    assert f"status         {status}\n" in printed
    assert ("pose published yes" in printed) == (status == "FOUND")


def test_demo_of_the_recorded_scene(tmp_path):
    """The right mug of two, with its caption, where the recording's ground truth has it."""
    printed = demo(tmp_path)
    assert "status         FOUND\n" in printed and "pose published yes" in printed
    assert "'red mug', score" in printed and "'red cup'" in printed
    overlap, surface_cm = re.search(
        r"ground truth 'red coffee mug', box IoU ([\d.]+), visible surface off by ([\d.]+) cm", printed).groups()
    assert float(overlap) >= 0.5 and float(surface_cm) < 2.0
