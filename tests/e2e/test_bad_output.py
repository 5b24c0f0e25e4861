"""Results that cannot be written, and trainings that are stopped: nothing is lost or half-written."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.commands import QUICK, assert_misused, assert_told, invoke, tree

from floats_edge.artifacts.checkpoint import open_run
from floats_edge.data import load_data
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import dump_recipe, override_recipe
from floats_edge.training.loop import Observer, train

pytestmark = pytest.mark.usefixtures("one_thread")


class TestOutput:
    @pytest.mark.parametrize("command", ["train", "evaluate", "export"])
    def test_that_cannot_be_written(self, command: str, bundle: Path, tmp_path: Path) -> None:
        """Below a regular file not even root can write."""
        (tmp_path / "file").write_text("mine")
        words = {
            "train": ["quickstart", *QUICK, "--out"],
            "evaluate": [bundle, "--images", "20", "--steps", "1", "-o"],
            "export": [bundle, "--lambda", "0.3", "-o"],
        }
        before = tree(tmp_path)
        assert_told(invoke(command, *words[command], tmp_path / "file" / "out"), "file/out", "--out")
        assert tree(tmp_path) == before

    def test_that_is_something_else(self, bundle: Path, run: Path, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
        before = tree(tmp_path)
        for target in (run, tmp_path / "photos", tmp_path):
            assert_told(invoke("export", bundle, "--lambda", "0.3", "-o", target), "will not be replaced")
        assert_misused(invoke("evaluate", bundle, "-o", tmp_path), "is a directory")
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("command", ["train", "evaluate", "export"])
    def test_full_disk(
        self,
        command: str,
        bundle: Path,
        run: Path,
        digits_recipe: Recipe,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What is written over stays: a bundle, an evaluation, and the checkpoint of a run that is resumed."""
        longer = override_recipe(digits_recipe, ("train.epochs=3",))
        content = json.loads((run / "checkpoint.json").read_text())
        content["recipe"]["train"]["epochs"] = 3
        (run / "checkpoint.json").write_text(json.dumps(content))
        (tmp_path / "longer.yaml").write_text(dump_recipe(longer))
        (tmp_path / "evaluation.json").write_text("old")
        words = {
            "train": [tmp_path / "longer.yaml", "--out", run, "--resume"],
            "evaluate": [bundle, "--images", "20", "--steps", "1", "-o", tmp_path / "evaluation.json"],
            "export": [bundle, "--lambda", "0.3", "-o", bundle],
        }
        before = tree(tmp_path)

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert_told(invoke(command, *words[command]), "No space left on device", "make room")
        assert tree(tmp_path) == before

    def test_a_bundle_that_is_replaced_is_told(self, bundle: Path, tmp_path: Path) -> None:
        words = ("export", bundle, "--lambda", "0.3", "-o", tmp_path / "out")
        assert "in place of" not in invoke(*words).output
        assert "(fixed, fp32), in place of the bundle that was there" in invoke(*words).output

    def test_a_closed_pipe_loses_no_measurement(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def closed(*_: object) -> None:
            raise BrokenPipeError

        monkeypatch.setattr("floats_edge.report.console.print_records", closed)
        out = tmp_path / "profile.json"
        invoke("profile", bundle, "--backend", "ort-cpu", "--warmup", "0.01", "--duration", "0.02", "-o", out)
        assert json.loads(out.read_text())["runs"]


class TestStopped:
    """A real signal to a real training process, as soon as its first epoch is saved."""

    @pytest.fixture
    def recipe(self, digits_recipe: Recipe) -> Recipe:
        return override_recipe(digits_recipe, ("train.epochs=5", "model.arguments.width=4", "data.train_images=480"))

    @staticmethod
    def stop(recipe: Recipe, run: Path, by: signal.Signals) -> tuple[int, str]:
        """Exit code and stderr of the training."""
        file = run.with_name("recipe.yaml")
        file.write_text(dump_recipe(recipe))
        program = "import torch; torch.set_num_threads(1); from floats_edge.cli.main import main; main()"
        command = [sys.executable, "-c", program, "train", file, "--out", run, "--device", "cpu"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 120
            while not (run / "checkpoint.json").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            process.send_signal(by)
            _, stderr = process.communicate(timeout=60)
        assert "Traceback" not in stderr
        assert 1 <= len(open_run(run).checkpoint.history) < 5, "it was to be stopped in its midst"
        return process.returncode, stderr

    @pytest.mark.usefixtures("interruptible")
    def test_by_ctrl_c(self, recipe: Recipe, tmp_path: Path) -> None:
        code, stderr = self.stop(recipe, tmp_path / "run", signal.SIGINT)
        assert code == 130
        assert "Interrupted" in stderr
        assert not [name for name in tree(tmp_path) if "partial" in name]

    def test_by_kill_it_goes_on_as_if_it_had_not(self, recipe: Recipe, silent: Observer, tmp_path: Path) -> None:
        self.stop(recipe, tmp_path / "run", signal.SIGKILL)
        splits = load_data(recipe.data, recipe.seed)
        resumed = train(recipe, splits, tmp_path / "run", silent, resume=True)
        whole = train(recipe, splits, tmp_path / "whole", silent)
        for name, tensor in whole.weights().items():
            assert resumed.weights()[name].tobytes() == tensor.tobytes(), name
