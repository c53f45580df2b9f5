"""The launch files and the rviz file name only what exists."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "language_grounding"
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.xml"))
TAGS = {"launch", "arg", "node", "param", "remap", "env", "include", "group", "let"}
# Names the programs use for their topics, before any remapping.
TOPICS = {
    "grounding_node": {"image", "depth", "camera_info", "instruction"},
    "scene_player": {"image", "depth", "camera_info"},
}


def share_files(text):
    return re.findall(r"\$\(find-pkg-share " + PACKAGE + r"\)/([\w./]+)", text or "")


def parameter_names():
    yaml = (ROOT / "config" / "grounding.yaml").read_text()
    return set(re.findall(r"^    (\w+):", yaml, re.MULTILINE)) | {"use_sim_time", "autostart"}


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda it: it.name)
def test_launch_file(path):
    launch = ElementTree.parse(path).getroot()
    programs = set(re.findall(r"src/bin/(\w+)", " ".join(str(it) for it in (ROOT / "src/bin").iterdir())))
    declared = set()
    for element in launch.iter():
        assert element.tag in TAGS, f"unknown tag {element.tag}"
        for value in element.attrib.values():
            for name in re.findall(r"\$\(var (\w+)\)", value):
                assert name in declared, f"$(var {name}) is not declared before it is used"
            for file in share_files(value):
                assert (ROOT / file).is_file(), f"{file} does not exist"
        if element.tag == "arg" and "description" in element.attrib:
            declared.add(element.attrib["name"])
        elif element.tag == "arg":
            assert "value" in element.attrib, f"argument {element.attrib['name']} has no description"
    for node in launch.iter("node"):
        program = node.attrib["exec"]
        assert node.attrib["pkg"] == PACKAGE and program in programs, f"no program {program}"
        for remap in node.findall("remap"):
            assert remap.attrib["from"] in TOPICS[program], f"{program} has no topic {remap.attrib['from']}"
        for parameter in node.findall("param"):
            if "name" in parameter.attrib:
                assert parameter.attrib["name"] in parameter_names(), f"no parameter {parameter.attrib['name']}"
    for include in launch.iter("include"):
        (file,) = share_files(include.attrib["file"])
        known = {it.attrib["name"] for it in ElementTree.parse(ROOT / file).getroot().iter("arg")}
        given = {it.attrib["name"] for it in include.findall("arg")}
        assert given <= known, f"{file} has no argument {given - known}"


def test_topics_are_those_of_the_sources():
    sources = (ROOT / "src/ros").rglob("*.rs")
    text = "\n".join(it.read_text() for it in sources)
    for topic in set.union(*TOPICS.values()):
        assert f'"{topic}"' in text, f"no source names the topic {topic}"


def test_rviz_file_names_topics_of_the_node():
    rviz = (ROOT / "config" / "grounding.rviz").read_text()
    outputs = (ROOT / "src/ros/publish.rs").read_text()
    topics = re.findall(r"Value: (/\S+)", rviz)
    assert topics
    for topic in topics:
        name = topic.removeprefix(f"/{PACKAGE}/")
        assert f'"~/{name}"' in outputs or topic.startswith("/camera/"), topic
