"""A stranger's files cannot ask for more memory than is allowed, and are told so before it is taken."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.checkpoint import TrainingRun, open_run
from floats_edge.artifacts.memory import MAX_BYTES
from floats_edge.cli.main import cli
from floats_edge.errors import ArtifactError

TERABYTE = 2**40


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """A process that takes a terabyte fails: without this, the system may promise it and kill the process later."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture
def bound(bundles: Callable[..., Bundle], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles("bound").path, tmp_path / "bundle"))


def change(path: Path, edit: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_a_sparse_file_of_a_terabyte_that_the_manifest_states_is_refused(bound: Path) -> None:
    for name in ("model.onnx", "weights.safetensors", "golden.safetensors"):
        before = (bound / "manifest.json").read_text()
        size = (bound / name).stat().st_size
        os.truncate(bound / name, TERABYTE)
        change(bound / "manifest.json", lambda manifest, name=name: manifest["files"][name].update(bytes=TERABYTE))
        with pytest.raises(ArtifactError, match=r"asks for 1,048,5.. MiB of memory, and 4,096 are allowed") as caught:
            open_bundle(bound)
        assert MAX_BYTES in caught.value.fix
        os.truncate(bound / name, size)
        (bound / "manifest.json").write_text(before)


def test_so_is_a_terabyte_of_an_engine_when_it_is_read(bound: Path) -> None:
    (bound / "other.plan").touch()
    os.truncate(bound / "other.plan", TERABYTE)
    change(
        bound / "manifest.json",
        lambda manifest: manifest["files"].update({"other.plan": {"bytes": TERABYTE, "sha256": "0" * 64}}),
    )
    with pytest.raises(ArtifactError, match="asks for 1,048,576 MiB"):
        open_bundle(bound).files.verify()


def test_so_are_the_weights_of_a_run(digits_run: TrainingRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(digits_run.path, tmp_path / "run"))
    weights = digits_run.checkpoint.weights
    os.truncate(folder / weights, TERABYTE)
    change(folder / "checkpoint.json", lambda checkpoint: checkpoint["files"][weights].update(bytes=TERABYTE))
    with pytest.raises(ArtifactError, match="asks for 1,048,576 MiB"):
        open_run(folder).weights()


def test_weights_that_no_file_holds_are_refused(bound: Path) -> None:
    """A mask of zeros: one bit for each of 2^31 weights, none of which is stored."""

    def claim(manifest: Any) -> None:
        manifest["layers"][1].update(shape=[2**16, 2**15, 1, 1], nonzeros=0)

    change(bound / "manifest.json", claim)
    with pytest.raises(ArtifactError, match=r"asks for 131,0.. MiB of memory"):
        open_bundle(bound)


def test_a_manifest_of_a_terabyte_is_refused(bound: Path) -> None:
    os.truncate(bound / "manifest.json", TERABYTE)
    with pytest.raises(ArtifactError, match=r"manifest\.json is larger than any"):
        open_bundle(bound)


def test_how_much_is_allowed_can_be_set(bound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BYTES, "1000")
    with pytest.raises(ArtifactError, match="0 are allowed"):
        open_bundle(bound)
    monkeypatch.setenv(MAX_BYTES, str(2**30))
    open_bundle(bound)
    monkeypatch.setenv(MAX_BYTES, "1 GB")
    with pytest.raises(ArtifactError, match="is '1 GB', no number of bytes"):
        open_bundle(bound)


def test_the_command_says_so_when_memory_runs_out(bound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("floats_edge.artifacts.files.sha256", exhausted)
    result = CliRunner().invoke(cli, ["inspect", str(bound)])
    assert result.exit_code == 1
    assert "Error: there is not enough memory.\nRemedy: " in result.output
