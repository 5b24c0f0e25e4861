"""TensorRT in every lambda mode at every precision, on a stand-in."""

import importlib
import json

import numpy as np
import onnx
import pytest
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, add_engine, affine_layers, images, write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Engine
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.tensorrt_library import host_platform
from floats_edge.runtime.trt import open_trt

LAMBDAS = (0.0, 0.3, 1.0, 0.0, 0.7)
VALUES = {"fixed": (0.3,), "bank": (0.0, 0.3, 1.0)}


def make(folder, mode: str, precision: str) -> Bundle:
    return write_bundle(folder, VALUES.get(mode), precision, mode)


@pytest.fixture
def trt(fake_driver):
    return importlib.import_module("tensorrt")


def with_engines(bundle: Bundle, refittable: tuple[str, ...] | None = None) -> Bundle:
    refits = bundle.manifest.lam.mode == "refit"
    header: list[object] = [1, 8]
    if refits:
        header.append(list(bundle_weights(bundle).varying if refittable is None else refittable))
    for graph in bundle.manifest.graphs:
        plan = json.dumps(header).encode() + b"\n" + bundle.read(graph.file)
        engine = Engine(
            file=f"{graph.file}.plan",
            lam=graph.lam,
            flavour="tensorrt",
            version="10.3.0",
            platform=host_platform(),
            targets=("sm_87",),
            precision=bundle.manifest.precision,
            batch=(1, 4, 8),
        )
        bundle = add_engine(bundle, engine, plan)
    return bundle


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_tensorrt_computes_what_onnx_runtime_does(trt, tmp_path, mode, precision):
    bundle = with_engines(make(tmp_path / "bundle", mode, precision))
    lambdas = VALUES.get(mode, LAMBDAS)
    with open_trt(bundle, lambdas[0]) as predictor, open_ort(bundle, "ort-cpu", lambdas[0]) as reference:
        for lam in (*lambdas, *lambdas):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            wanted = reference.predict(images(11))
            assert np.abs(predictor.predict(images(11)) - wanted).max() <= 1e-5 * np.ptp(wanted)


def test_refitting_keeps_the_mask(trt, tmp_path):
    with open_trt(with_engines(make(tmp_path / "bundle", "refit", "fp32")), 0.7) as predictor:
        model = predictor._engines[None].engine.model
        weight = next(t for t in model.graph.initializer if t.name == "stem.weight")
        assert np.array_equal(onnx.numpy_helper.to_array(weight) != 0, affine_layers()["stem"].mask)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("reject", "does not accept stem.bias at lambda 0.7"),
        ("forget", "it also wants stem.bias"),
        ("refit fails", "failed to refit the engine to lambda 0.7"),
    ],
)
def test_a_failed_refit_leaves_the_predictor_broken(trt, tmp_path, monkeypatch, behaviour, message):
    bundle = with_engines(make(tmp_path / "bundle", "refit", "fp32"))
    with open_trt(bundle, 0.3) as predictor:
        monkeypatch.setenv("FAKE_TENSORRT", behaviour)
        with pytest.raises(BackendError, match=message):
            predictor.set_lambda(0.7)
        monkeypatch.delenv("FAKE_TENSORRT")
        for use in (lambda: predictor.predict(images(1)), lambda: predictor.set_lambda(0.5)):
            with pytest.raises(BackendError, match="failed half-way") as caught:
                use()
            assert "open the bundle again" in caught.value.fix
        assert predictor.lam == 0.3


@pytest.mark.parametrize("marked", [("stem.weight",), ("stem.weight", "stem.bias", "classifier.weight", "extra")])
def test_an_engine_that_refits_other_weights_is_refused(trt, tmp_path, marked):
    bundle = with_engines(make(tmp_path / "bundle", "refit", "fp32"), marked)
    with pytest.raises(ArtifactError, match=r"cannot be refitted to another lambda: .*classifier.bias") as caught:
        open_trt(bundle, 0.3)
    assert "--trt" in caught.value.fix
