"""The package's own names: the stages as functions, each there when it is asked for and not before."""

import importlib
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import floats_edge as fe
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.profiling.bench import Timing
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe


@pytest.mark.parametrize("name", fe.__all__)
def test_every_name_is_there(name: str) -> None:
    assert callable(getattr(fe, name))
    assert getattr(fe, name).__doc__


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'deploy_everything'"):
        fe.deploy_everything  # noqa: B018


@pytest.mark.parametrize("package", ["artifacts", "compare", "data", "deploy", "evaluation", "profiling", "training"])
def test_no_package_hides_a_function(package: str) -> None:
    importlib.import_module(f"floats_edge.{package}")
    assert package not in fe.__all__
    assert all(callable(getattr(fe, name)) for name in fe.__all__)


@pytest.mark.parametrize(("given", "files"), [({}, False), ({"ORT_DISABLE_TELEMETRY": "0"}, True)])
def test_nothing_is_kept_or_sent_unless_the_user_wants_it(given: dict[str, str], files: bool, tmp_path: Path) -> None:
    if tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 29):
        pytest.skip("this ONNX Runtime keeps and sends nothing")
    home = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    program = "import floats_edge, onnxruntime"
    subprocess.run(
        [sys.executable, "-c", program], env={**home, "HOME": str(tmp_path), "XDG_CACHE_HOME": "", **given}, check=True
    )
    assert any(path.is_file() for path in tmp_path.rglob("*")) == files


def test_from_a_recipe_to_logits(digits_recipe: Recipe, digits: Splits, tmp_path: Path) -> None:
    recipe = override_recipe(digits_recipe, ("train.epochs=1", "data.train_images=256"))
    run = fe.train(recipe, str(tmp_path / "run"), options=("evaluate.images=20",))
    assert isinstance(run, TrainingRun)
    told: list[tuple[int, int]] = []
    request = fe.EvaluateRequest(lambdas=(0.0, 1.0), attack={"steps": 2})
    trained = fe.evaluate(run.path, request, progress=lambda done, total: told.append((done, total)))
    assert [result.lam for result in trained.results] == [0.0, 1.0]
    assert trained.attack.steps == 2
    assert sum(done for done, _ in told) == told[0][1] == 40
    bundle = fe.export(run.path, str(tmp_path / "bundle"))
    deployed = fe.evaluate(str(bundle.path), request)
    assert [result.clean for result in deployed.results] == [result.clean for result in trained.results]
    assert not fe.verify(str(bundle.path), fe.VerifyRequest("ort-cpu", images=10, queries=3, seed=0)).problems
    timing = Timing(warmup_s=0.01, duration_s=0.05)
    [measured] = fe.profile(str(bundle.path), fe.ProfileRequest(["ort-cpu"], lam=1.0, timing=timing)).runs
    assert (measured.backend, measured.lam) == ("ort-cpu", 1.0)
    images = digits.test.as_float(slice(4))
    with fe.load(bundle.path, lam=0.5) as network:
        assert network.labels == tuple(str(digit) for digit in range(10))
        assert repr(network) == "<OrtPredictor on ort-cpu at lambda 0.5>"
        robust = network.predict(images)
        network.set_lambda(0.0)
        assert not np.array_equal(network.predict(images), robust)


def test_what_can_be_completed_is_what_is_public() -> None:
    assert set(dir(fe)) == {*fe.__all__, "__version__"}
    assert all(hasattr(fe, name) for name in dir(fe))
