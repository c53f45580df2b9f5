"""Whole sentences over ROS: coordination, steps, what is left alone, manner and measures, words of the user's."""

import pytest
from language_grounding.msg import GroundingResult as R
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_msgs.msg import String

from conftest import NODE, write_given

BOXES = {
    "alphabet soup": [100, 200, 130, 250],
    "tomato sauce": [150, 200, 180, 250],
    "basket": [400, 180, 520, 280],
    "stove": [250, 60, 380, 140],
    "moka pot": [60, 100, 100, 160],
    "plate": [200, 300, 280, 340],
    "knife": [300, 300, 310, 360],
    "spoon": [330, 300, 342, 360],
    "table": [0, 50, 640, 450],
}
# One in the middle of the table, one in its corner.
BOWLS = [[295, 225, 345, 260], [20, 390, 70, 430]]


@pytest.fixture(scope="module")
def kitchen(request):
    import conftest
    world = conftest.World(next(conftest._domains))
    boxes = [{"phrase": phrase, "bbox": box, "score": 0.9} for phrase, box in BOXES.items()]
    boxes += [{"phrase": "black bowl", "bbox": box, "score": 0.9} for box in BOWLS]
    world.start_node(model=write_given(boxes), use_depth=False, caption_targets=False)
    world.start_camera()
    world.spin(1.0)
    yield world
    world.close()


def phrases(objects):
    return [it.phrase for it in objects]


def test_both_things_go_to_one_place(kitchen):
    result = kitchen.ground("put both the alphabet soup and the tomato sauce in the basket")
    assert result.status == R.FOUND, result.message
    assert phrases(result.targets) == ["alphabet soup", "tomato sauce"]
    assert result.destination.phrase == "basket" and result.destination_relation == "in"
    assert len(result.steps) == 1


def test_steps_are_grounded_one_by_one(kitchen):
    result = kitchen.ground("turn on the stove and put the moka pot on it")
    assert result.status == R.FOUND, result.message
    first, second = result.steps
    assert (first.action, phrases(first.targets), first.has_destination) == ("turn_on", ["stove"], False)
    assert (second.action, phrases(second.targets)) == ("put", ["moka pot"])
    assert (second.destination.phrase, second.destination_relation) == ("stove", "on")
    # The first step's objects are the result's.
    assert result.action == "turn_on" and phrases(result.targets) == ["stove"]
    assert [it.id for it in first.targets] == [it.id for it in result.targets]


def test_the_worst_step_is_the_results_status(kitchen):
    result = kitchen.ground("turn on the stove and put the kettle on it")
    assert result.status == R.NOT_FOUND and result.message.startswith("step 2 (put): no kettle seen")
    assert [it.status for it in result.steps] == [R.FOUND, R.NOT_FOUND]
    assert result.missing_phrase == "kettle" and phrases(result.targets) == ["stove"]


def test_a_place_on_the_table_tells_which_bowl(kitchen):
    result = kitchen.ground("pick up the black bowl from table center and place it on the plate")
    assert result.status == R.FOUND, result.message
    (bowl,) = result.targets
    assert bowl.bbox.x_min == BOWLS[0][0]
    assert result.action == "put" and result.destination.phrase == "plate"


def test_what_is_forbidden_is_left_alone(kitchen):
    result = kitchen.ground("don't touch the knife, take the spoon")
    assert result.status == R.FOUND, result.message
    assert (result.action, phrases(result.targets)) == ("pick_up", ["spoon"])
    refused = kitchen.ground("don't touch the knife")
    assert refused.status == R.BAD_INSTRUCTION and not refused.targets


def test_a_place_before_the_stove(kitchen):
    result = kitchen.ground("move the plate to the front of the stove")
    assert result.status == R.FOUND, result.message
    assert (phrases(result.targets), result.destination.phrase) == (["plate"], "stove")
    assert result.destination_relation == "in_front_of"


def test_manner_measure_and_turn_are_fields(kitchen):
    (step,) = kitchen.ground("gently move the plate 10 cm to the left").steps
    assert (step.manner, step.has_distance, step.destination_relation) == (["gently"], True, "left_of")
    assert step.distance == pytest.approx(0.1)
    (step,) = kitchen.ground("rotate the plate 90 degrees clockwise").steps
    assert step.has_rotation and step.rotation_degrees == -90 and not step.has_distance
    (step,) = kitchen.ground("wipe the plate with the spoon").steps
    assert step.action == "wipe" and step.has_tool and step.tool.phrase == "spoon"


def test_no_verb_becomes_another(kitchen):
    result = kitchen.ground("burn the plate")
    assert (result.status, result.action) == (R.FOUND, "burn")


def test_it_is_what_was_found(kitchen):
    assert kitchen.ground("find the moka pot").status == R.FOUND
    result = kitchen.ground("put it on the plate")
    assert result.status == R.FOUND, result.message
    assert (phrases(result.targets), result.destination.phrase) == (["moka pot"], "plate")


def test_questions_and_other_languages_say_so(kitchen):
    question = kitchen.ground("how many bowls are there")
    assert question.status == R.BAD_INSTRUCTION and "~/describe" in question.message
    spanish = kitchen.ground("toma el plato de la mesa")
    assert spanish.status == R.BAD_INSTRUCTION and "another language" in spanish.message


def test_stop_ends_the_standing_instruction_with_one_result(kitchen):
    results = kitchen.listen(R, f"{NODE}/result")
    said = kitchen.publisher(String, "instruction")
    said.publish(String(data="pick up the spoon"))
    kitchen.spin_until(lambda: any(it.instruction == "pick up the spoon" for it in results))
    said.publish(String(data="never mind"))
    stopped = kitchen.spin_until(lambda: next((it for it in results if it.instruction == "never mind"), None))
    assert stopped.status == R.BLOCKED and "stopped" in stopped.message and not stopped.targets
    n = len(results)
    kitchen.spin(1.0)
    assert len(results) == n, "results go on after stop"


def test_a_users_words_are_heard(kitchen, tmp_path):
    def set_vocabulary(path):
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=str(path))
        request = SetParameters.Request(parameters=[Parameter(name="vocabulary", value=value)])
        return kitchen.call(SetParameters, f"{NODE}/set_parameters", request).results[0]

    words = tmp_path / "words.yaml"
    words.write_text("actions: {pick_up: {verbs: [yoink]}}\n")
    assert kitchen.ground("yoink the spoon").action == "yoink"
    assert set_vocabulary(words).successful
    assert kitchen.ground("yoink the spoon").action == "pick_up"
    words.write_text("verbs: [yoink]\n")
    refused = set_vocabulary(words)
    assert not refused.successful and "unknown field" in refused.reason
    assert set_vocabulary("").successful
