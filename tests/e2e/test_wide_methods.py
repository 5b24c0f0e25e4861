"""Wide ResNets train by every method on real digits, resume bit for bit, and are exported as what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fixtures.commands import floats_edge
from fixtures.rtx import assert_rtx_can_mark
from fixtures.training import StopAfterAnEpoch

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.manifest import Precision
from floats_edge.data import Splits
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.evaluation.parity import GATES
from floats_edge.evaluation.robustness import evaluate
from floats_edge.method.layers import ConditionedNorm
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.torch import run_predictor, trained_network, trained_predictor
from floats_edge.training.loop import Observer, train

pytestmark = pytest.mark.usefixtures("one_thread")

WIDE = ("model.name=wrn-16-8", "model.arguments.width=1", "train.epochs=2")
"""Stages of 8, 16 and 32 channels."""
CHANNEL = (*WIDE, "model.arguments.width=2", "sparsity={pattern: channel, density: 0.5, multiple: 1}")
METHODS = {
    "float": WIDE,
    "channel": CHANNEL,
    "pgd-at": (*WIDE, "method=pgd-at", "sparsity.density=1"),
    "standard": (*WIDE, "method=standard", "sparsity.density=1"),
    "oat": (*WIDE, "method=oat", "sparsity.density=1", "evaluate.lambdas=[0,0.2,1]"),
}


@pytest.mark.parametrize("method", METHODS)
def test_resume_is_bit_for_bit(
    method: str, digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path
) -> None:
    recipe = override_recipe(digits_recipe, METHODS[method])
    whole = train(recipe, few, tmp_path / "whole", silent)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, tmp_path / "resumed", StopAfterAnEpoch())
    torch.manual_seed(4321)
    resumed = train(recipe, few, tmp_path / "resumed", silent, resume=True)
    for one, other in ((resumed.weights(), whole.weights()), (resumed.state(), whole.state())):
        assert one.keys() == other.keys()
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)
    network = trained_predictor(resumed)
    results = evaluate(network, network, few.validation, (0.0, 1.0), recipe.evaluate.attack, 0)
    assert [result.lam for result in results] == [0.0, 1.0]


@pytest.fixture(scope="module")
def run(
    digits_recipe: Recipe, digits: Splits, silent: Observer, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    """A sparse FLOAT network."""
    recipe = override_recipe(digits_recipe, (*WIDE, "data.train_images=700"))
    splits = replace(digits, train=digits.train.first(700))
    return train(recipe, splits, tmp_path_factory.mktemp("wide") / "run", silent)


@pytest.fixture(scope="module")
def bound(run: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run.path, tmp_path_factory.mktemp("wide-bundle") / "bound", ExportRequest())


def test_it_learns_with_masks_on_what_is_multiplied_alone(run: TrainingRun, bound: Bundle) -> None:
    epoch = run.checkpoint.history[-1]
    assert epoch.clean_accuracy > 60
    assert bound.manifest.density == pytest.approx(epoch.density) == pytest.approx(0.3, abs=0.001)
    for layer in bound.manifest.layers:
        assert (len(layer.shape) == 1) == layer.name.endswith("norm")
        if len(layer.shape) == 1:
            assert layer.nonzeros == layer.shape[0]


def test_a_scale_is_what_batchnorm_does_at_either_end(run: TrainingRun, bound: Bundle) -> None:
    trained = trained_network(run)
    norm = trained.network.get_submodule("blocks.1.norm")
    assert isinstance(norm, ConditionedNorm)
    x = torch.rand(2, 8, 3, 3)
    for lam in (0.0, 1.0):
        weights = bundle_weights(bound).at(lam)
        scale, shift = (
            torch.from_numpy(weights[f"blocks.1.norm.{kind}"]).view(-1, 1, 1) for kind in ("weight", "bias")
        )
        with trained.knob.at(lam):
            torch.testing.assert_close(x * scale + shift, norm(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        (["--lambda", "0.3"], "int8"),
        (["--lambda", "0", "--lambda", "1"], "fp16"),
        (["--lambda", "runtime"], "bf16"),
        (["--switch", "input"], "fp32"),
    ],
    ids=["fixed", "bank", "bound", "input"],
)
def test_every_mode_is_exported_within_its_gate_and_built(
    rtx: None, bound: Bundle, tmp_path: Path, options: list[str], precision: Precision
) -> None:
    floats_edge("export", bound.path, "-o", tmp_path / "bundle", *options, "--precision", precision, "--trt")
    manifest = open_bundle(tmp_path / "bundle").manifest
    agreement, error, _ = GATES[precision]
    assert manifest.mismatch is None
    assert all(parity.top1_agreement >= agreement and parity.max_error <= error for parity in manifest.parity)
    assert len(manifest.engines) == len(manifest.graphs)
    if precision == "int8":
        graph = onnx.load(tmp_path / "bundle" / "model.onnx").graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for layer in manifest.layers:
            wanted = onnx.TensorProto.INT8 if len(layer.shape) == 4 else onnx.TensorProto.FLOAT
            assert types[f"{layer.name}.weight"] == wanted, layer.name


def test_scales_can_be_refitted(rtx: None, bound: Bundle, tmp_path: Path) -> None:
    floats_edge("export", bound.path, "-o", tmp_path / "bundle", "--switch", "refit")
    varying = bundle_weights(open_bundle(tmp_path / "bundle")).varying
    assert {"norm.weight", "norm.bias", "blocks.1.norm.weight"} <= set(varying)
    assert_rtx_can_mark(tmp_path / "bundle")


def test_cut_channels_are_removed_from_every_layer(
    digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path
) -> None:
    run = train(override_recipe(digits_recipe, CHANNEL), few, tmp_path / "run", silent)
    bundle = export(run.path, tmp_path / "bundle", ExportRequest())
    shapes = {layer.name: (layer.shape, layer.drawn) for layer in bundle.manifest.layers}
    assert shapes["stem"] == ((1, 1, 3, 3), (2, 1, 3, 3))
    assert shapes["blocks.2.norm"] == ((8,), (16,))
    assert shapes["blocks.2.shortcut"] == ((16, 8, 1, 1), (32, 16, 1, 1))
    images = few.validation.as_float()
    masked = run_predictor(run)
    with open_predictor(bundle, "ort-cpu", 0.0) as engine:
        for lam in (0.0, 0.3, 1.0):
            for predictor in (masked, engine):
                predictor.set_lambda(lam)
            np.testing.assert_allclose(engine.predict(images), masked.predict(images), atol=1e-5, rtol=1e-5)
    floats_edge("verify", bundle.path, "--images", "10", "--queries", "5")


def test_verify_finds_the_network_that_was_trained(bound: Bundle) -> None:
    assert "Verified: " in floats_edge("verify", bound.path, "--images", "20", "--queries", "20")
