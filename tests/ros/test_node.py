"""The node as a citizen of ROS: parameters, lifecycle, action, logs, signals."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
import rclpy.action
from action_msgs.msg import GoalStatus
from language_grounding.action import Find
from language_grounding.msg import GroundingResult
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions
from rcl_interfaces.msg import Log, Parameter, ParameterEvent, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters, SetParametersAtomically
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from conftest import NODE, SCENE

PRESENT, ABSENT = SCENE["present"], SCENE["absent"]


def double(name, value):
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value))


def text(name, value):
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))


def set_parameters(world, *parameters):
    request = SetParameters.Request(parameters=list(parameters))
    return world.call(SetParameters, f"{NODE}/set_parameters", request).results


def get_double(world, name):
    request = GetParameters.Request(names=[name])
    return world.call(GetParameters, f"{NODE}/get_parameters", request).values[0].double_value


def test_parameters_are_declared_with_ranges_and_descriptions(running):
    names = running.call(ListParameters, f"{NODE}/list_parameters", ListParameters.Request()).result.names
    assert {"model", "target_frame", "score_threshold", "use_sim_time"} <= set(names)
    request = DescribeParameters.Request(names=names)
    described = running.call(DescribeParameters, f"{NODE}/describe_parameters", request).descriptors
    assert [it.name for it in described] == list(names) and all(it.description for it in described)
    (threshold,) = [it for it in described if it.name == "score_threshold"]
    assert (threshold.floating_point_range[0].from_value, threshold.floating_point_range[0].to_value) == (0.0, 1.0)
    assert [it.read_only for it in described if it.name == "model"] == [True]


@pytest.mark.parametrize("parameter, says", [
    (double("score_threshold", 1.5), "from 0 to 1"),
    (double("score_threshold", float("nan")), "got NaN"),
    (text("score_threshold", "high"), "expected a double"),
    (double("min_depth_m", 50.0), "max_depth_m"),
    (text("model", "/elsewhere"), "when the node starts"),
    (double("no_such_parameter", 1.0), "no_such_parameter"),
])
def test_bad_parameters_are_refused_with_a_reason(running, parameter, says):
    before = get_double(running, "score_threshold")
    (result,) = set_parameters(running, parameter)
    assert not result.successful and says in result.reason, result.reason
    assert get_double(running, "score_threshold") == before


def test_parameters_take_effect_with_the_next_request_and_together(running):
    events = running.listen(ParameterEvent, "/parameter_events", 100)
    running.spin(0.5)
    assert running.ground(f"the {PRESENT}").status == GroundingResult.FOUND
    (result,) = set_parameters(running, double("score_threshold", 1.0))
    assert result.successful
    assert running.ground(f"the {PRESENT}").status == GroundingResult.NOT_FOUND
    request = SetParametersAtomically.Request(
        parameters=[double("score_threshold", 0.5), double("max_depth_m", -1.0)])
    answer = running.call(SetParametersAtomically, f"{NODE}/set_parameters_atomically", request).result
    assert not answer.successful and get_double(running, "score_threshold") == 1.0
    assert set_parameters(running, double("score_threshold", 0.5))[0].successful
    assert running.ground(f"the {PRESENT}").status == GroundingResult.FOUND
    mine = [it for it in events if it.node == NODE]
    assert [it.changed_parameters[0].value.double_value for it in mine] == [1.0, 0.5]


def test_services_answer_while_the_model_runs(running):
    say = running.publisher(String, "instruction")
    say.publish(String(data=f"the {PRESENT}"))
    running.spin(0.5)
    slowest = 0.0
    for _ in range(10):
        asked = time.monotonic()
        get_double(running, "score_threshold")
        slowest = max(slowest, time.monotonic() - asked)
    say.publish(String(data=""))
    running.spin(0.3)
    assert slowest < 2.0


def find(world, instruction, seconds):
    client = rclpy.action.ActionClient(world.node, Find, f"{NODE}/find")
    world.spin_until(client.server_is_ready, what="the action server")
    goal = Find.Goal(instruction=instruction)
    goal.timeout.sec = seconds
    feedback = []
    accepted = client.send_goal_async(goal, lambda it: feedback.append(it.feedback))
    world.spin_until(accepted.done, what="the goal's acceptance")
    return accepted.result(), feedback


def test_find_tells_what_it_saw(running):
    goal, feedback = find(running, f"pick up the {PRESENT}", 20)
    done = goal.get_result_async()
    running.spin_until(done.done, 30, "the search to end")
    assert done.result().status == GoalStatus.STATUS_SUCCEEDED
    assert done.result().result.result.status == GroundingResult.FOUND

    # (A search that succeeds at once can be over before the client's feedback topic is matched; this one goes on for two seconds.)
    goal, feedback = find(running, f"pick up the {ABSENT}", 2)
    done = goal.get_result_async()
    running.spin_until(done.done, 30, "the search to end")
    assert done.result().status == GoalStatus.STATUS_SUCCEEDED, "that it is not there is an answer"
    assert done.result().result.result.status == GroundingResult.NOT_FOUND
    assert feedback[-1].images_tried >= 1 and feedback[-1].status == GroundingResult.NOT_FOUND

    goal, _ = find(running, f"pick up the {ABSENT}", 60)
    done = goal.get_result_async()
    running.spin(1.0)
    canceled = goal.cancel_goal_async()
    running.spin_until(canceled.done, what="the cancellation")
    assert canceled.result().goals_canceling
    running.spin_until(done.done, what="the canceled search to end")
    assert done.result().status == GoalStatus.STATUS_CANCELED
    assert done.result().result.result.status == GroundingResult.NOT_FOUND, "the last answer comes with it"

    goal, _ = find(running, "?!", 20)
    done = goal.get_result_async()
    running.spin_until(done.done, 30, "the search to end")
    assert done.result().status == GoalStatus.STATUS_ABORTED
    assert done.result().result.result.status == GroundingResult.BAD_INSTRUCTION


def change_state(world, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return world.call(ChangeState, f"{NODE}/change_state", request, 60.0).success


def test_lifecycle(world):
    world.start_camera()
    events = world.listen(TransitionEvent, f"{NODE}/transition_event")
    world.start_node(wait=False, autostart=False)
    world.wait_for_state("unconfigured")
    assert world.ground(f"the {PRESENT}").status == GroundingResult.BLOCKED
    assert not change_state(world, Transition.TRANSITION_ACTIVATE)
    assert change_state(world, Transition.TRANSITION_CONFIGURE) and world.state() == "inactive"
    assert world.ground(f"the {PRESENT}").status == GroundingResult.BLOCKED
    transitions = world.call(
        GetAvailableTransitions, f"{NODE}/get_available_transitions", GetAvailableTransitions.Request())
    assert {it.transition.label for it in transitions.available_transitions} == {"activate", "cleanup", "shutdown"}
    assert change_state(world, Transition.TRANSITION_ACTIVATE) and world.state() == "active"
    assert world.ground(f"the {PRESENT}").status == GroundingResult.FOUND
    assert change_state(world, Transition.TRANSITION_DEACTIVATE)
    assert change_state(world, Transition.TRANSITION_CLEANUP) and world.state() == "unconfigured"
    assert change_state(world, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN) and world.state() == "finalized"
    assert {"configuring", "inactive", "active", "finalized"} <= {it.goal_state.label for it in events}


def catches(pid, number):
    """Whether a process has a handler for a signal."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["SigCgt"], 16) >> (number - 1) & 1 == 1


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["at once", "loading", "unconfigured", "active", "working"])
def test_a_signal_ends_the_node_with_code_0(world, stop, when):
    if when == "working":
        world.start_camera()
    process = world.start_node(wait=when in ("active", "working"), autostart=when != "unconfigured")
    if when == "unconfigured":
        world.wait_for_state("unconfigured")
    elif when == "loading":
        time.sleep(0.3)
    elif when == "at once":
        # Until main() runs, the kernel's defaults hold: the loader's time is not the program's.
        world.spin_until(lambda: catches(process.pid, stop))
    elif when == "working":
        say = world.publisher(String, "instruction")
        say.publish(String(data=f"the {PRESENT}"))
        world.spin(0.5)
    process.send_signal(stop)
    assert process.wait(timeout=10) == 0


def test_a_model_that_does_not_load_is_told_and_leaves_the_node_alive(world):
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    logs = world.listen(Log, "/rosout", latched)
    world.start_node(wait=False, model="/no/such/model")
    world.spin_until(lambda: [it for it in logs if it.level == 40 and "/no/such/model" in it.msg], what="an error on /rosout")
    world.wait_for_state("unconfigured")
    result = world.ground(f"the {PRESENT}")
    assert result.status == GroundingResult.BLOCKED


@pytest.mark.parametrize("arguments, says", [
    (["-p", "score_threshold:=7.0"], "from 0 to 1"),
    (["-p", "image_transport:=carrier_pigeon"], "carrier_pigeon"),
    (["-r", "nonsense"], "arguments"),
])
def test_bad_arguments_end_the_node_with_a_sentence(world, arguments, says):
    process = world.start("grounding_node", "--ros-args", *arguments, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1 and says in errors, errors


def test_simulated_time(world):
    from rosgraph_msgs.msg import Clock
    clock = world.publisher(Clock, "/clock", wait=False)
    now = Clock()
    now.clock.sec = 1234
    ticking = world.node.create_timer(0.05, lambda: clock.publish(now))
    world.start_node(use_sim_time=True)
    # A camera on the wall clock is far in the future of a simulated 1234 s.
    world.start_camera()
    result = world.ground(f"the {PRESENT}")
    assert result.status == GroundingResult.STALE and "use_sim_time" in result.message, result.message
    # On the simulated clock it is current.
    world.programs[-1].terminate()
    world.start("scene_player", "--generate", SCENE["seed"], "--ros-args", "-p", "use_sim_time:=true")
    world.spin(2.0)
    result = world.ground(f"the {PRESENT}")
    world.node.destroy_timer(ticking)
    assert result.status == GroundingResult.FOUND, result.message
    assert result.header.stamp.sec == 1234
