"""A ROS 2 package: whole, of a valid name, with the bundle as it was."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.manifest import Mode, Verdict
from floats_edge.errors import OutputError, ParityError
from floats_edge.packs.ros2 import pack_ros2


@pytest.mark.parametrize(
    ("mode", "lam"), [("fixed", "0.3"), ("bank", "0.0"), ("bound", "0.0"), ("input", "0.0"), ("refit", "0.0")]
)
def test_the_bundle_is_inside_and_starts_at_a_lambda_that_it_serves(
    mode: Mode, lam: str, tiny: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = tiny(mode)
    pack_ros2(bundle, tmp_path / "package", None)
    inside = open_bundle(tmp_path / "package" / "bundle")
    assert inside.manifest == bundle.manifest
    inside.files.verify()
    assert f"DEFAULT_LAMBDA={lam})" in (tmp_path / "package" / "CMakeLists.txt").read_text()


def test_names_are_filled_in_everywhere(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    pack_ros2(tiny("fixed"), tmp_path / "package", "my_animals")
    package = ElementTree.parse(tmp_path / "package" / "package.xml")
    assert package.findtext("name") == "my_animals"
    cmake = (tmp_path / "package" / "CMakeLists.txt").read_text()
    assert "project(my_animals " in cmake
    found = {line.partition("(")[2].split()[0] for line in cmake.splitlines() if line.startswith("find_package")}
    depends = {tag.text for tag in package.iter() if tag.tag.endswith("depend")}
    assert found - {"floats_rt"} == depends
    assert not [file for file in (tmp_path / "package").glob("*.*") if "@" in file.read_text().replace("@example", "")]


@pytest.mark.parametrize("name", ["Animals", "2cats", "my-animals", "my__animals", "a", "end_", "x; touch y"])
def test_a_name_that_ros_refuses_is_refused(name: str, tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot name a package of ROS"):
        pack_ros2(tiny("fixed"), tmp_path / "package", name)


def test_what_failed_verify_is_refused(
    tiny: Callable[..., Bundle], failed: Callable[..., Verdict], tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match="failed floats-edge verify"):
        pack_ros2(tiny("fixed", verdicts=(failed("ort-cpu", let_pass=False),)), tmp_path / "package", None)
