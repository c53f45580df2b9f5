"""A question asked back is answered over the same topic or service, and the answer keeps what was asked."""

import pytest
from language_grounding.msg import GroundingResult as R
from std_msgs.msg import String

from conftest import NODE, write_given

LEFT, RIGHT = [100, 200, 160, 260], [400, 200, 460, 260]


@pytest.fixture
def two_mugs(world):
    boxes = [{"phrase": "mug", "bbox": box, "score": 0.9} for box in (LEFT, RIGHT)]
    world.start_node(model=write_given(boxes), use_depth=False, caption_targets=False)
    world.start_camera()
    world.spin(1.0)
    return world


def x_min(result):
    assert result.status == R.FOUND, result.message
    return [round(it.bbox.x_min) for it in result.targets]


def test_topic_question_answer_and_correction(two_mugs):
    results = two_mugs.listen(R, f"{NODE}/result")
    said = two_mugs.publisher(String, "instruction")

    def say(text):
        said.publish(String(data=text))
        return two_mugs.spin_until(
            lambda: next((it for it in results if it.instruction == text), None), what=f"the result of {text!r}")

    asked = say("pick up the mug")
    assert asked.status == R.AMBIGUOUS and asked.message == "2 mugs: the left one or the right one?"
    assert len(asked.choices) == 2 and set(asked.choices) <= {it.id for it in asked.candidates}
    assert not asked.targets and not asked.nearest
    answer = say("the left one")
    assert x_min(answer) == [LEFT[0]] and answer.action == "pick_up"
    # It stays answered, image after image.
    n = len(results)
    two_mugs.spin_until(lambda: len(results) > n + 3)
    assert all(x_min(it) == [LEFT[0]] for it in results[n:])
    other = say("the other one")
    assert x_min(other) == [RIGHT[0]] and other.action == "pick_up"


def test_service_answers_do_not_mix_with_the_topic(two_mugs):
    said = two_mugs.publisher(String, "instruction")
    results = two_mugs.listen(R, f"{NODE}/result")
    assert two_mugs.ground("push the mug").status == R.AMBIGUOUS
    said.publish(String(data="the right one"))
    two_mugs.spin_until(lambda: any(it.instruction == "the right one" for it in results))
    assert next(it for it in results if it.instruction == "the right one").action == "find"
    answer = two_mugs.ground("the right one")
    assert x_min(answer) == [RIGHT[0]] and answer.action == "push"


def test_what_is_missing_and_yes(two_mugs):
    absent = two_mugs.ground("pick up the banana")
    assert (absent.status, absent.missing, absent.missing_phrase, absent.nearest) == (R.NOT_FOUND, "object", "banana", "")
    wrong_color = two_mugs.ground("pick up the green mug")
    assert (wrong_color.status, wrong_color.missing, wrong_color.missing_phrase) == (R.NOT_FOUND, "attribute", "green mug")
    assert wrong_color.nearest in {it.id for it in wrong_color.candidates}
    assert two_mugs.ground("yes").status == R.AMBIGUOUS
    unclear = two_mugs.ground("yes")
    assert unclear.status == R.BAD_INSTRUCTION and "does not say which" in unclear.message
    assert x_min(two_mugs.ground("both")) == [LEFT[0], RIGHT[0]]
