"""What a user gets for a mistake or a mishap: one paragraph with a remedy, and nothing lost or half-written."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun, open_run, save_run
from floats_edge.cli.main import cli
from floats_edge.data import load_data
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import dump_recipe, override_recipe
from floats_edge.training.loop import Observer, train

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = [
    "-o",
    "train.epochs=1",
    "-o",
    "data.preprocessing.size=8",
    "-o",
    "model.arguments.width=4",
    "-o",
    "data.train_images=128",
]
"""Options of a short training, for what is to fail late."""


def floats_edge(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def assert_told(result: Result, *wanted: str) -> None:
    """An expected failure: exit code 1, ``Error: …`` and ``Remedy: …`` in one line each, and no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    error, remedy = result.stderr[result.stderr.index("Error: ") :].splitlines()
    assert remedy.startswith("Remedy: ")
    assert len(remedy) > len("Remedy: ") + 5
    assert "Traceback" not in result.output
    for word in wanted:
        assert word in f"{error}\n{remedy}"


def assert_misused(result: Result, *wanted: str) -> None:
    """A command line that click refuses: exit code 2, and a message that names the option and what it takes."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for word in ("Error: ", *wanted):
        assert word in result.stderr


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(digits_run: TrainingRun, tmp_path: Path) -> Path:
    """A copy of a run, to be damaged."""
    return Path(shutil.copytree(digits_run.path, tmp_path / "run"))


@pytest.fixture
def bundle(bundles: Callable[..., Bundle], tmp_path: Path) -> Path:
    """A copy of a bundle in mode ``bound``, to be damaged."""
    return Path(shutil.copytree(bundles("bound").path, tmp_path / "bundle"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


class TestRecipe:
    def test_unknown_key(self, out: Path) -> None:
        result = floats_edge("train", "quickstart", "-o", "train.epoch=1", "--out", out)
        assert_told(result, "train.epoch", "did you mean 'epochs'?")
        assert not out.exists()

    def test_unknown_recipe(self, out: Path) -> None:
        assert_told(floats_edge("train", "quikstart", "--out", out), "quikstart", "quickstart")

    def test_not_a_number(self, out: Path) -> None:
        assert_told(floats_edge("train", "quickstart", "-o", "train.lr=.nan", "--out", out), "train.lr")

    def test_8_bit_epsilon(self, out: Path) -> None:
        assert_told(floats_edge("train", "quickstart", "-o", "attack.epsilon=8", "--out", out), "8/255")

    def test_lambda_outside(self, out: Path) -> None:
        result = floats_edge("train", "quickstart", "-o", "evaluate.lambdas=[0, 1.5]", "--out", out)
        assert_told(result, "evaluate.lambdas.1")

    def test_file_that_is_not_yaml(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "bad.yaml").write_text("name: [x\ntrain: }\n")
        assert_told(floats_edge("train", tmp_path / "bad.yaml", "--out", out), "bad.yaml", "YAML")

    def test_batch_larger_than_the_data(self, out: Path) -> None:
        result = floats_edge("train", "quickstart", *QUICK, "-o", "train.batch_size=5000", "--out", out)
        assert_told(result, "5000", "train.batch_size")
        assert not out.exists()

    def test_density_that_leaves_nothing(self, out: Path) -> None:
        result = floats_edge("train", "quickstart", *QUICK, "-o", "sparsity.density=0.0001", "--out", out)
        assert_told(result, "density", "sparsity.density")
        assert not out.exists()

    @pytest.mark.parametrize("density", ["0", "1.5", "-0.1"])
    def test_density_that_is_none(self, density: str, out: Path) -> None:
        result = floats_edge("train", "quickstart", *QUICK, "-o", f"sparsity.density={density}", "--out", out)
        assert_told(result, "sparsity.density", "than")
        assert not out.exists()

    def test_a_network_that_there_is_not(self, out: Path) -> None:
        result = floats_edge("train", "quickstart", *QUICK, "-o", "model.name=resnet9", "--out", out)
        assert_told(result, "no network 'resnet9'", "resnet8")
        assert not out.exists()

    def test_code_that_was_not_allowed(self, out: Path) -> None:
        options = ("-o", "model={source: python, name: antigravity:fly}")
        result = floats_edge("train", "quickstart", *QUICK, *options, "--out", out)
        assert_told(result, "only if you allow it", "--allow-code")
        assert not out.exists()

    def test_learning_rate_that_diverges(self, out: Path) -> None:
        result = floats_edge("train", "quickstart", *QUICK, "-o", "train.lr=1e15", "-o", "train.warmup=0", "--out", out)
        assert_told(result, "diverged", "train.lr")


class TestDestroyedNetwork:
    """Weights as an older version may have left them."""

    @pytest.fixture
    def run(self, digits_run: TrainingRun, tmp_path: Path) -> Path:
        checkpoint, weights = digits_run.checkpoint, digits_run.weights()
        weights["stem.weight.theta"] = weights["stem.weight.theta"] * np.float32(1e38)
        destroyed = save_run(
            tmp_path / "run",
            checkpoint.recipe,
            checkpoint.images,
            checkpoint.labels,
            checkpoint.history,
            weights,
            digits_run.state(),
        )
        return destroyed.path

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_export_names_the_weights(self, precision: str, run: Path, out: Path) -> None:
        result = floats_edge("export", run, "--precision", precision, "-o", out)
        assert_told(result, "weights are no numbers, or far too large. Nothing was exported", "train.lr")
        assert "fp32" not in result.stderr
        assert not out.exists()

    def test_evaluate_states_no_accuracy(self, run: Path, out: Path) -> None:
        result = floats_edge("evaluate", run, "--device", "cpu", "--images", "8", "-o", out)
        assert_told(result, "logits that are no numbers", "train.lr")
        assert not out.exists()


class TestAttack:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--epsilon", "8"], "write 8/255"),
            (["--epsilon", "0"], "greater than 0"),
            (["--epsilon", "large"], "epsilon"),
            (["--attack", "autoattack", "--steps", "7"], "autoattack takes no steps, restarts or loss"),
        ],
    )
    def test_that_cannot_be(self, options: list[str], message: str, run: Path, out: Path) -> None:
        result = floats_edge("evaluate", run, *options, "--device", "cpu", "-o", out)
        assert_told(result, message, "correct --attack, --epsilon")
        assert not out.exists()


class TestLambda:
    @pytest.mark.parametrize("lam", ["1.5", "-0.1", "nan", "inf", "half"])
    @pytest.mark.parametrize("command", ["evaluate", "export", "profile"])
    def test_that_is_none(self, command: str, lam: str, bundle: Path, out: Path) -> None:
        before = tree(bundle)
        assert_misused(floats_edge(command, bundle, f"--lambda={lam}", "-o", out), "--lambda", lam, "from 0")
        assert not out.exists()
        assert tree(bundle) == before

    def test_that_is_not_served(self, bundles: Callable[..., Bundle], out: Path) -> None:
        result = floats_edge("evaluate", bundles("fixed").path, "--lambda", "0.5", "--device", "cpu", "-o", out)
        assert_told(result, "serves lambda 0.3, not 0.5", "--lambda runtime")
        assert not out.exists()

    def test_runtime_and_a_value(self, bundle: Path, out: Path) -> None:
        assert_misused(floats_edge("export", bundle, "--lambda", "runtime", "--lambda", "1", "-o", out), "runtime")


class TestData:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Two classes of real image files."""
        rng = np.random.default_rng(0)
        for split in ("train", "test"):
            for name in ("ant", "bee"):
                (tmp_path / "images" / split / name).mkdir(parents=True)
                for i in range(40):
                    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
        return tmp_path / "images"

    @staticmethod
    def train(folder: Path, out: Path) -> Result:
        options = (
            "data.dataset=folder",
            "train.epochs=1",
            "train.batch_size=16",
            "model.arguments.width=4",
            "data.preprocessing.size=8",
        )
        words = [word for option in options for word in ("-o", option)]
        return floats_edge("train", "quickstart", *words, "--data-dir", folder, "--out", out, "--device", "cpu")

    def test_folder_is_fine(self, folder: Path, out: Path) -> None:
        assert self.train(folder, out).exit_code == 0
        open_run(out)

    def test_missing(self, tmp_path: Path, out: Path) -> None:
        assert_told(self.train(tmp_path / "nowhere", out), "nowhere", "train/<class>")
        assert not out.exists()

    def test_empty_class(self, folder: Path, out: Path) -> None:
        for file in (folder / "train" / "bee").iterdir():
            file.unlink()
        assert_told(self.train(folder, out), "bee", "holds no image")
        assert not out.exists()

    def test_corrupt_image(self, folder: Path, out: Path) -> None:
        file = folder / "train" / "bee" / "7.png"
        file.write_bytes(file.read_bytes()[:60])
        assert_told(self.train(folder, out), "7.png", "cannot be read")
        assert not out.exists()

    def test_resumed_on_other_images(self, folder: Path, out: Path) -> None:
        assert self.train(folder, out).exit_code == 0
        before = tree(out)
        for file in (folder / "train" / "ant").iterdir():
            Image.new("RGB", (8, 8)).save(file)
        recipe = shutil.copy(out / "recipe.yaml", out.parent)
        result = floats_edge("train", recipe, "--data-dir", folder, "--out", out, "--resume")
        assert_told(result, "other images", "--data-dir")
        assert tree(out) == before


class TestCheckpoint:
    def test_none(self, tmp_path: Path, out: Path) -> None:
        for command in ("evaluate", "export"):
            assert_told(floats_edge(command, tmp_path / "no", "-o", out), "no", "floats-edge train")
        assert not out.exists()

    @pytest.mark.parametrize("command", ["evaluate", "export"])
    @pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "swapped", "garbage", "another model"])
    def test_damaged(self, command: str, damage: str, run: Path, out: Path) -> None:
        weights = run / open_run(run).checkpoint.weights
        data = weights.read_bytes()
        if damage == "truncated":
            weights.write_bytes(data[:-100])
        elif damage == "altered":
            weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif damage == "missing":
            weights.unlink()
        elif damage == "swapped":
            shutil.copy(run / open_run(run).checkpoint.state, weights)
        elif damage == "garbage":
            (run / "checkpoint.json").write_text("{]")
        else:
            content = json.loads((run / "checkpoint.json").read_text())
            content["recipe"]["model"]["arguments"]["width"] = 16
            (run / "checkpoint.json").write_text(json.dumps(content))
        before = tree(run)
        assert_told(floats_edge(command, run, "-o", out), str(run), "train it again")
        assert not out.exists()
        assert tree(run) == before

    def test_trained_twice(self, run: Path) -> None:
        before = tree(run)
        assert_told(floats_edge("train", "quickstart", *QUICK, "--out", run), "already holds a run", "--resume")
        assert_told(
            floats_edge("train", "quickstart", *QUICK, "--out", run, "--resume"), "another recipe", "recipe.yaml"
        )
        assert tree(run) == before


class TestBundle:
    @pytest.mark.parametrize("command", ["evaluate", "export", "profile", "inspect"])
    @pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "garbage", "link"])
    def test_damaged(self, command: str, damage: str, bundle: Path, out: Path) -> None:
        file = bundle / "weights.safetensors"
        data = file.read_bytes()
        if damage == "truncated":
            file.write_bytes(data[:-100])
        elif damage == "altered":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif damage == "missing":
            file.unlink()
        elif damage == "garbage":
            (bundle / "manifest.json").write_text("{]")
        else:
            shutil.move(file, bundle.parent / "elsewhere")
            file.symlink_to(bundle.parent / "elsewhere")
        before = tree(bundle)
        options = {
            "export": ["--lambda", "0.3"],
            "profile": ["--backend", "ort-cpu", "--duration", "0.1", "--warmup", "0"],
        }
        target = [] if command == "inspect" else ["-o", out]
        result = floats_edge(command, bundle, *options.get(command, []), *target)
        assert_told(result, str(bundle), "export it again")
        assert not out.exists()
        assert tree(bundle) == before


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
        assert_told(floats_edge(command, *words[command], tmp_path / "file" / "out"), "file/out", "--out")
        assert tree(tmp_path) == before

    def test_that_is_something_else(self, bundle: Path, run: Path, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
        before = tree(tmp_path)
        for target in (run, tmp_path / "photos", tmp_path):
            assert_told(floats_edge("export", bundle, "--lambda", "0.3", "-o", target), "will not be replaced")
        assert_misused(floats_edge("evaluate", bundle, "-o", tmp_path), "is a directory")
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
            assert_told(floats_edge(command, *words[command]), "No space left on device", "make room")
        assert tree(tmp_path) == before


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
