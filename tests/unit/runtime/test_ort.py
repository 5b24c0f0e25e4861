"""Real bundles on the real ONNX Runtime against the trained network in PyTorch."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError, BackendError, LambdaError
from floats_edge.runtime.backends import open_predictor, unavailable_reason
from floats_edge.runtime.base import Images
from floats_edge.runtime.torch import run_predictor

TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}
SERVED = {"bound": (0.0, 1.0, 0.37, 0.0), "fixed": (0.3,), "bank": (1.0, 0.0, 1.0)}


@pytest.fixture(scope="module")
def images(digits: Splits) -> Images:
    return digits.test.as_float(slice(64))


@pytest.mark.parametrize("mode", ["bound", "fixed", "bank"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_equals_the_trained_network(
    bundles: Callable[..., Bundle], digits_run: TrainingRun, images: Images, mode: str, precision: str
) -> None:
    """At every lambda served, there and back again."""
    reference = run_predictor(digits_run)
    with open_predictor(bundles(mode, precision), "ort-cpu", SERVED[mode][0]) as engine:
        for lam in SERVED[mode]:
            assert engine.set_lambda(lam) == lam == engine.lam
            reference.set_lambda(lam)
            logits, wanted = engine.predict(images), reference.predict(images)
            assert logits.dtype == np.float32
            assert logits.shape == (64, 10)
            assert np.abs(logits - wanted).max() / np.ptp(wanted) < TOLERANCE[precision]


@settings(max_examples=10)
@given(lam=st.floats(0, 1))
def test_bound_serves_any_lambda(
    bundles: Callable[..., Bundle], digits_run: TrainingRun, images: Images, lam: float
) -> None:
    reference = run_predictor(digits_run)
    reference.set_lambda(lam)
    with open_predictor(bundles("bound"), "ort-cpu", lam) as engine:
        assert engine.lam == lam
        np.testing.assert_allclose(engine.predict(images), reference.predict(images), rtol=1e-4, atol=1e-3)


def test_lambda_changes_the_answers(bundles: Callable[..., Bundle], images: Images) -> None:
    with open_predictor(bundles("bound"), "ort-cpu", 0.0) as engine:
        clean = engine.predict(images)
        engine.set_lambda(1.0)
        assert np.abs(engine.predict(images) - clean).max() > 0.1
        engine.set_lambda(0.0)
        np.testing.assert_array_equal(engine.predict(images), clean)


@pytest.mark.parametrize("mode", ["bound", "fixed", "bank"])
def test_any_number_of_images(bundles: Callable[..., Bundle], images: Images, mode: str) -> None:
    with open_predictor(bundles(mode), "ort-cpu", SERVED[mode][0]) as engine:
        together = engine.predict(images)
        for count in (1, 3, 64):
            np.testing.assert_allclose(engine.predict(images[:count]), together[:count], rtol=1e-3, atol=1e-4)


def test_results_do_not_change_under_the_callers_hands(bundles: Callable[..., Bundle], images: Images) -> None:
    with open_predictor(bundles("bound"), "ort-cpu", 0.0) as engine:
        first = engine.predict(images)
        kept = first.copy()
        engine.set_lambda(1.0)
        engine.predict(images[::-1])
        np.testing.assert_array_equal(first, kept)


def test_strided_images_are_read_rightly(bundles: Callable[..., Bundle], images: Images) -> None:
    strided = images.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    assert not strided.flags.c_contiguous
    with open_predictor(bundles("bound"), "ort-cpu", 0.0) as engine:
        np.testing.assert_array_equal(engine.predict(strided), engine.predict(images))


@pytest.mark.parametrize("mode", ["bound", "fixed", "bank"])
@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan"), float("inf")])
def test_no_lambda_at_all(bundles: Callable[..., Bundle], mode: str, lam: float, images: Images) -> None:
    with pytest.raises(LambdaError, match="must be a number"):
        open_predictor(bundles(mode), "ort-cpu", lam)
    with open_predictor(bundles(mode), "ort-cpu", SERVED[mode][0]) as engine:
        before = engine.predict(images)
        with pytest.raises(LambdaError):
            engine.set_lambda(lam)
        assert engine.lam == SERVED[mode][0]
        np.testing.assert_array_equal(engine.predict(images), before)


@pytest.mark.parametrize(("mode", "lam", "served"), [("fixed", 0.31, "0.3"), ("bank", 0.5, "0, 1")])
def test_a_lambda_that_is_not_served(bundles: Callable[..., Bundle], mode: str, lam: float, served: str) -> None:
    with open_predictor(bundles(mode), "ort-cpu", SERVED[mode][0]) as engine:
        with pytest.raises(LambdaError, match=f"serves lambda {served}, not {lam}") as caught:
            engine.set_lambda(lam)
        assert "--lambda runtime" in caught.value.fix
    with pytest.raises(LambdaError):
        open_predictor(bundles(mode), "ort-cpu", lam)


@pytest.mark.parametrize("mode", ["bound", "fixed"])
def test_images_of_another_kind(bundles: Callable[..., Bundle], images: Images, mode: str) -> None:
    with open_predictor(bundles(mode), "ort-cpu", SERVED[mode][0]) as engine:
        for wrong in (
            images[0],
            images[..., :-1],
            images.repeat(3, axis=1),
            images.astype(np.float64),
            (images * 255).astype(np.uint8),
        ):
            with pytest.raises(ArtifactError, match=r"float32 images of shape \[N, 1, 8, 8\]"):
                engine.predict(wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda x: x * 255, "from 0 to 255"), (lambda x: x - 1, "-1 to 0"), (lambda x: x * np.nan, "nan")],
)
def test_values_that_no_image_has(
    bundles: Callable[..., Bundle], images: Images, change: Callable[[Images], Images], said: str
) -> None:
    images = images / images.max()
    with open_predictor(bundles("fixed"), "ort-cpu", 0.3) as engine:
        with pytest.raises(ArtifactError, match=f"images in \\[0, 1\\], and these are .*{said}") as caught:
            engine.predict(change(images).astype(np.float32))
        assert "predict_images" in caught.value.fix
        assert engine.predict(images[:0]).shape == (0, 10)


def test_backends_that_are_not_here(bundles: Callable[..., Bundle]) -> None:
    assert unavailable_reason("ort-cpu") is None
    with pytest.raises(BackendError, match="no backend 'tpu'") as caught:
        open_predictor(bundles("bound"), "tpu", 0.0)
    assert "ort-cpu" in caught.value.fix


def test_a_graph_that_onnx_runtime_refuses(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    """Of the right hash, since it was bundled so, and nothing but a type wrong: the message is ours, no traceback."""
    folder = shutil.copytree(bundles("fixed").path, tmp_path / "bundle")
    model = onnx.load_model_from_string(bundles("fixed").read("model.onnx"))
    next(t for t in model.graph.initializer if t.name.endswith(".bias")).data_type = onnx.TensorProto.INT32
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_manifest(folder, bundles("fixed").manifest.model_copy(update={"files": file_entries(folder)}))
    with pytest.raises(BackendError, match="cannot load the graph"):
        open_predictor(open_bundle(folder), "ort-cpu", 0.3)
