"""The pipeline on real CIFAR-10 images: it learns, exports in every mode and precision, and builds real engines."""

from pathlib import Path

import pytest
from fixtures.commands import floats_edge

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.artifacts.checkpoint import open_run
from floats_edge.artifacts.records import Evaluation, load_record
from floats_edge.deploy.tensorrt_engine import available_tensorrt


@pytest.fixture(scope="module")
def trained(cifar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cifar") / "run"
    small = ("data.dataset=folder", f"data.root={cifar_folder}", "data.train_images=6000", "train.epochs=3")
    options = [word for option in small for word in ("-o", option)]
    floats_edge("train", "cifar10-small", *options, "--out", out, "--device", "cpu")
    return out


def test_training_learns_from_real_images(trained: Path) -> None:
    history = open_run(trained).checkpoint.history
    assert history[-1].loss < history[0].loss
    assert history[-1].clean_accuracy > 20
    assert history[-1].robust_accuracy > 12
    assert history[-1].density == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("lambdas", [(), ("0.3",), ("0", "1")], ids=["bound", "fixed", "bank"])
def test_exports_agree_with_the_trained_network(
    trained: Path, tmp_path: Path, lambdas: tuple[str, ...], precision: str
) -> None:
    options = [word for lam in lambdas for word in ("--lambda", lam)]
    engine = ["--trt", "--batch", "1:4:8"] if available_tensorrt() else []
    floats_edge("export", trained, "-o", tmp_path / "bundle", "--precision", precision, *options, *engine)
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.precision == precision
    assert manifest.lam.mode == {0: "bound", 1: "fixed", 2: "bank"}[len(lambdas)]
    for parity in manifest.parity:
        assert parity.images == 512
        assert parity.top1_agreement >= (1 if precision == "fp32" else 0.995)
        assert parity.max_error <= (1e-4 if precision == "fp32" else 2e-2)
    if engine:
        assert len(manifest.engines) == len(manifest.graphs)
        assert all((tmp_path / "bundle" / plan.file).stat().st_size > 10_000 for plan in manifest.engines)


def test_a_bundle_scores_what_its_checkpoint_scores(trained: Path, tmp_path: Path) -> None:
    floats_edge("export", trained, "-o", tmp_path / "bundle")
    few = ("--images", 200, "--steps", 5, "--lambda", 0, "--lambda", 1, "--device", "cpu")
    floats_edge("evaluate", trained, *few, "-o", tmp_path / "checkpoint.json")
    floats_edge("evaluate", tmp_path / "bundle", *few, "-o", tmp_path / "bundle.json")
    one, other = (load_record(tmp_path / f"{kind}.json") for kind in ("checkpoint", "bundle"))
    assert isinstance(one, Evaluation)
    assert isinstance(other, Evaluation)
    for result, same in zip(one.results, other.results, strict=True):
        assert abs(result.clean.count - same.clean.count) <= 1
        assert abs(result.robust.count - same.robust.count) <= 2
        assert result.clean.count > result.robust.count
