"""What a user gets for a run or a bundle that is damaged: one paragraph with a remedy, and nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures.commands import QUICK, assert_told, inflict, invoke, tree

from floats_edge.artifacts.checkpoint import TrainingRun, open_run, save_run

pytestmark = pytest.mark.usefixtures("one_thread")


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
        result = invoke("export", run, "--precision", precision, "-o", out)
        assert_told(result, "weights are no numbers, or far too large. Nothing was exported", "train.lr")
        assert "fp32" not in result.stderr
        assert not out.exists()

    def test_evaluate_states_no_accuracy(self, run: Path, out: Path) -> None:
        result = invoke("evaluate", run, "--device", "cpu", "--images", "8", "-o", out)
        assert_told(result, "logits that are no numbers", "train.lr")
        assert not out.exists()


class TestCheckpoint:
    def test_none(self, tmp_path: Path, out: Path) -> None:
        for command in ("evaluate", "export"):
            assert_told(invoke(command, tmp_path / "no", "-o", out), "no", "floats-edge train")
        assert not out.exists()

    @pytest.mark.parametrize("command", ["evaluate", "export"])
    @pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "swapped", "garbage", "another model"])
    def test_damaged(self, command: str, damage: str, run: Path, out: Path) -> None:
        weights = run / open_run(run).checkpoint.weights
        if damage == "swapped":
            shutil.copy(run / open_run(run).checkpoint.state, weights)
        elif damage == "garbage":
            (run / "checkpoint.json").write_text("{]")
        elif damage != "another model":
            inflict(damage, weights, run.parent / "elsewhere")
        else:
            content = json.loads((run / "checkpoint.json").read_text())
            content["recipe"]["model"]["arguments"]["width"] = 16
            (run / "checkpoint.json").write_text(json.dumps(content))
        before = tree(run)
        assert_told(invoke(command, run, "-o", out), str(run), "train it again")
        assert not out.exists()
        assert tree(run) == before

    def test_trained_twice(self, run: Path) -> None:
        before = tree(run)
        assert_told(invoke("train", "quickstart", *QUICK, "--out", run), "already holds a run", "--resume")
        assert_told(invoke("train", "quickstart", *QUICK, "--out", run, "--resume"), "another recipe", "recipe.yaml")
        assert tree(run) == before


class TestBundle:
    @pytest.mark.parametrize("command", ["evaluate", "export", "profile", "inspect"])
    @pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "garbage", "link"])
    def test_damaged(self, command: str, damage: str, bundle: Path, out: Path) -> None:
        file = bundle / "weights.safetensors"
        if damage == "garbage":
            (bundle / "manifest.json").write_text("{]")
        else:
            inflict(damage, file, bundle.parent / "elsewhere")
        before = tree(bundle)
        options = {
            "export": ["--lambda", "0.3"],
            "profile": ["--backend", "ort-cpu", "--duration", "0.1", "--warmup", "0"],
        }
        target = [] if command == "inspect" else ["-o", out]
        result = invoke(command, bundle, *options.get(command, []), *target)
        assert_told(result, str(bundle), "export it again")
        assert not out.exists()
        assert tree(bundle) == before
