"""What a board is sent of floats-edge."""

import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from floats_edge.board.package import FROM_CHECKOUT, package_files, requirements, write_package
from floats_edge.errors import BoardError

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())


def test_a_checkout_is_sent_as_the_wheel_that_would_be_built_of_it() -> None:
    built = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {origin: f"floats_edge/{target}" for origin, target in FROM_CHECKOUT.items()} == built
    files = package_files()
    assert {"cli/main.py", "recipes/quickstart.yaml", "runtime/graph.json", "report/report.html.jinja"} <= files.keys()
    assert not [name for name in files if "__pycache__" in name or name.startswith("recipes/recipes")]


def test_an_installed_package_is_sent_as_it_is(tmp_path: Path) -> None:
    identity = write_package(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "foreign.yaml").write_text("not the package's")
    assert package_files(tmp_path / "floats_edge") == package_files()
    assert write_package(tmp_path / "again") == identity


def test_every_change_makes_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = package_files()
    monkeypatch.setattr("floats_edge.board.package.package_files", lambda: files | {"errors.py": b"# changed"})
    changed = write_package(tmp_path / "one")
    monkeypatch.undo()
    assert write_package(tmp_path / "two") != changed


def test_a_board_installs_the_core_and_with_a_gpu_its_extra_and_nothing_for_training() -> None:
    def names(texts: list[str]) -> set[str]:
        return {Requirement(text).name for text in texts}

    core, gpu = PROJECT["project"]["dependencies"], PROJECT["project"]["optional-dependencies"]["gpu"]
    assert names(requirements()) == names(core)
    assert names(requirements("gpu")) == names(gpu)
    assert not any(Requirement(text).marker for text in core + gpu)  # the desk could not judge them for a board


def test_a_marker_is_not_taken_for_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        'ours>=1; python_version >= "3"',
        'not_ours; python_version < "3"',
        'of_gpu; python_version >= "3" and extra == "gpu"',
        'of_train; extra == "train"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: texts)
    assert (requirements(), requirements("gpu")) == (["ours>=1"], ["of_gpu"])


def test_a_floats_edge_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    with pytest.raises(BoardError, match="pip install -e"):
        requirements()
