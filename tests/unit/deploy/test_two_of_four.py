"""2:4 sparsity of exported networks, on real masks and on lines of TensorRT's log as its users have posted them."""

import dataclasses

import fixtures.tiny_bundle as tiny
import numpy as np
import pytest
from fixtures.tiny_bundle import build_engines, write_bundle
from hypothesis import given
from hypothesis import strategies as st

from floats_edge.deploy.engine_request import EngineOptions
from floats_edge.deploy.two_of_four import holds_two_of_four, sparse_layers, sparse_tactics

LAYERS = ("classifier",)
NEW = (
    "INFO (Sparsity) Found {} layer(s) eligible to use sparse tactics{}\n"
    "INFO (Sparsity) Chose {} layer(s) using sparse tactics\n"
)
OLD = (
    "INFO (Sparsity) Layers eligible for sparse math: conv1, conv2 + relu, conv3\n"
    "INFO (Sparsity) TRT inference plan picked sparse implementation for layers:{}\n"
)


@given(st.integers(1, 3), st.integers(1, 12), st.sampled_from([(), (3, 3), (1, 1)]), st.integers(0, 2**32 - 1))
def test_it_agrees_with_the_masks_of_training(out, channels, kernel, seed):
    torch = pytest.importorskip("torch")
    from floats_edge.method.semi_structured import is_two_of_four, random_mask

    shape, generator = (out, channels, *kernel), torch.Generator().manual_seed(seed)
    mask = random_mask(shape, generator)
    dense = torch.rand(shape, generator=generator) < 0.6
    for weight in (mask, dense, mask & dense):
        assert holds_two_of_four(weight.numpy()) == is_two_of_four(weight)


@pytest.fixture
def two_of_four(monkeypatch):
    """The tiny network, its classifier with two of every four inputs; the stem reads three channels: never eligible."""
    layers = tiny.affine_layers()

    def sparse(damage=lambda layer: layer):
        keep = np.tile([True, False, False, True], 2)[None, :].repeat(tiny.CLASSES, axis=0)
        layer = layers["classifier"]
        masked = dataclasses.replace(
            layer, theta=layer.theta * keep, mask=keep, noise=np.where(keep, layer.noise, 0).astype(np.float32)
        )
        monkeypatch.setattr(tiny, "affine_layers", lambda *_: layers | {"classifier": damage(masked)})

    sparse()
    return sparse


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_constants_that_hold_it_are_found_at_every_precision(two_of_four, tmp_path, precision):
    bundle = write_bundle(tmp_path, (0.0, 1.0), precision)
    assert [sparse_layers(bundle, graph) for graph in bundle.manifest.graphs] == [LAYERS, LAYERS]


@pytest.mark.parametrize(("mode", "found"), [("refit", LAYERS), ("bound", ()), ("input", ())])
def test_weights_that_are_inputs_are_not_constants(two_of_four, tmp_path, mode, found):
    bundle = write_bundle(tmp_path, None, "fp16", mode)
    assert sparse_layers(bundle, bundle.manifest.graphs[0]) == found


def test_a_refitted_layer_must_hold_it_at_every_lambda_and_not_by_chance_at_0(two_of_four, tmp_path):
    def dense_mask(layer):
        """Outside the old mask theta stays 0, as of weights just grown: there lambda = 0 alone holds the pattern."""
        noise = np.random.default_rng(3).normal(size=layer.mask.shape).astype(np.float32)
        return dataclasses.replace(layer, mask=np.ones_like(layer.mask), noise=noise)

    two_of_four(dense_mask)
    bundle = write_bundle(tmp_path / "refit", None, "fp32", "refit")
    assert sparse_layers(bundle, bundle.manifest.graphs[0]) == ()
    fixed = write_bundle(tmp_path / "fixed", (0.0,), "fp32")
    assert sparse_layers(fixed, fixed.manifest.graphs[0]) == LAYERS


@pytest.mark.parametrize(
    ("log", "eligible", "chosen"),
    [
        (NEW.format(39, "", 0), 39, 0),
        (NEW.format(2, ": conv1, conv2", 1), 2, 1),
        (NEW.format(1, "", 1) + "\n" + NEW.format(5, "", 3), 5, 3),
        (OLD.format(""), 3, 0),
        (OLD.format(" conv1, conv3"), 3, 2),
    ],
)
def test_tensorrt_tells_how_many_layers_it_runs_sparsely(log, eligible, chosen):
    tactics = sparse_tactics(LAYERS, f"INFO building\n{log}\nINFO done")
    assert (tactics.eligible, tactics.chosen, tactics.unknown) == (eligible, chosen, None)


def test_what_is_not_told_is_null_with_a_reason():
    silent, dense = sparse_tactics(LAYERS, "INFO done"), sparse_tactics((), NEW.format(1, "", 1))
    for tactics, reason in ((silent, "the builder's log does not say"), (dense, "no layer's weights are constants")):
        assert (tactics.eligible, tactics.chosen) == (None, None)
        assert reason in (tactics.unknown or "")


def test_only_sparse_weights_are_announced_and_the_manifest_tells(two_of_four, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tiny.__file__).replace("tiny_bundle.py", "fake_gpu"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_TENSORRT_LOG", NEW.format(1, "", 0))
    sparse = build_engines(write_bundle(tmp_path / "sparse", (0.5,), "fp16"), EngineOptions())
    bound = build_engines(write_bundle(tmp_path / "bound", None, "fp16"), EngineOptions())
    for bundle, flag, counts in ((sparse, True, (LAYERS, 1, 0)), (bound, False, ((), None, None))):
        (engine,) = bundle.manifest.engines
        tactics = engine.sparse
        assert (b"SPARSE_WEIGHTS" in bundle.read(engine.file.replace(".plan", ".log"))) == flag
        assert tactics is not None
        assert (tactics.layers, tactics.eligible, tactics.chosen) == counts
