import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from floats_edge.artifacts.checkpoint import Checkpoint, TrainingRun, is_run, open_run, save_run
from floats_edge.errors import ArtifactError, OutputError
from floats_edge.recipe_file import load_recipe


@pytest.fixture
def folder(digits_run: TrainingRun, tmp_path: Path) -> Path:
    """A copy of a run of two epochs, to be damaged."""
    return Path(shutil.copytree(digits_run.path, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def save_again(folder: Path, epochs: int) -> TrainingRun:
    """The checkpoint in ``folder`` as if ``epochs`` epochs had been trained, its weights negated."""
    run = open_run(folder)
    old = run.checkpoint
    weights = {name: tensor if tensor.dtype == bool else -tensor for name, tensor in run.weights().items()}
    history = tuple(old.history[0].model_copy(update={"epoch": epoch + 1}) for epoch in range(epochs))
    return save_run(folder, old.recipe, old.images, old.labels, history, weights, run.state())


def test_files_of_a_run(folder: Path) -> None:
    assert sorted(contents(folder)) == [
        "checkpoint.json",
        "metrics.csv",
        "metrics.jsonl",
        "recipe.yaml",
        "state-0002.safetensors",
        "weights-0002.safetensors",
    ]


def test_opens_by_folder_and_by_file(digits_run: TrainingRun) -> None:
    for path in (digits_run.path, digits_run.path / "checkpoint.json"):
        run = open_run(path)
        assert run.checkpoint == digits_run.checkpoint
        assert run.path == digits_run.path
        assert run.weights_sha256 == digits_run.weights_sha256
        assert len(run.weights_sha256) == 64


def test_recipe_can_be_trained_again(digits_run: TrainingRun) -> None:
    assert load_recipe(digits_run.path / "recipe.yaml") == digits_run.checkpoint.recipe


def test_checkpoint_survives_json(digits_run: TrainingRun) -> None:
    checkpoint = digits_run.checkpoint
    assert Checkpoint.model_validate_json(checkpoint.model_dump_json()) == checkpoint


def test_metrics_hold_every_epoch(digits_run: TrainingRun) -> None:
    history = digits_run.checkpoint.history
    lines = [json.loads(line) for line in (digits_run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [epoch.model_dump(mode="json") for epoch in history]
    with (digits_run.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(history) == 2
    for row, epoch in zip(rows, history, strict=True):
        assert int(row["epoch"]) == epoch.epoch
        assert float(row["loss"]) == epoch.loss
        assert float(row["robust_accuracy"]) == epoch.robust_accuracy
        assert {key: float(row[f"alpha/{key}"]) for key in epoch.alpha} == epoch.alpha


def test_a_later_epoch_replaces_the_earlier(folder: Path) -> None:
    before = open_run(folder).weights()
    run = save_again(folder, epochs=3)
    assert sorted(name for name in contents(folder) if name.endswith("safetensors")) == [
        "state-0003.safetensors",
        "weights-0003.safetensors",
    ]
    assert open_run(folder).checkpoint == run.checkpoint
    np.testing.assert_array_equal(open_run(folder).weights()["head.weight.theta"], -before["head.weight.theta"])


def test_files_of_others_are_left_alone(folder: Path) -> None:
    for name in ("weights-of-my-own.safetensors", "state-of-affairs.safetensors", "notes.txt"):
        (folder / name).write_text("mine")
    save_again(folder, epochs=3)
    assert {"weights-of-my-own.safetensors", "state-of-affairs.safetensors", "notes.txt"} <= contents(folder).keys()


@pytest.mark.parametrize("failing", range(6))
def test_a_disk_that_fills_up_leaves_the_previous_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Whichever of the six files is the one that no longer fits."""
    before = open_run(folder)
    weights = before.weights()
    fsync, written = os.fsync, []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device"):
            save_again(folder, epochs=3)
    after = open_run(folder)
    assert after.checkpoint == before.checkpoint
    for name, tensor in after.weights().items():
        np.testing.assert_array_equal(tensor, weights[name])
    assert not [name for name in contents(folder) if "partial" in name]
    save_again(folder, epochs=3)
    assert len(contents(folder)) == 6, "what a failed attempt left is gone after the next"


@pytest.mark.parametrize("name", ["weights-0002.safetensors", "state-0002.safetensors"])
def test_damaged_tensor_file(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    run = open_run(folder)
    with pytest.raises(ArtifactError, match="was altered") as caught:
        (run.weights if name.startswith("weights") else run.state)()
    assert "train it again" in caught.value.fix
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match="truncated or altered"):
        open_run(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        open_run(folder)


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda c: c.update(weights="../weights.safetensors"), "inside the folder"),
        (lambda c: c.update(weights="weights-0009.safetensors"), "not listed"),
        (lambda c: c.update(history=[]), "history"),
        (lambda c: c["history"][0].update(loss=float("nan")), "loss"),
        (lambda c: c["recipe"]["train"].update(epochs=0), "epochs"),
        (lambda c: c["images"].update(std=[0]), "std"),
        (lambda c: c.update(schema_version=9), "schema_version"),
    ],
)
def test_invalid_checkpoint(folder: Path, edit: Callable[[dict[str, Any]], object], word: str) -> None:
    content = json.loads((folder / "checkpoint.json").read_text())
    edit(content)
    (folder / "checkpoint.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=rf"checkpoint\.json is not valid: .*{word}"):
        open_run(folder)


def test_no_run_at_all(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds no checkpoint\.json"):
        open_run(tmp_path)
    with pytest.raises(ArtifactError, match=r"^there is no .*nowhere\."):
        open_run(tmp_path / "nowhere")
