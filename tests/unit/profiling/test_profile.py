from functools import partial
from pathlib import Path

import pytest
from fixtures.predictors import Broken, Sleeping, crashing, refusing
from fixtures.tiny_bundle import write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import ArtifactError, BackendError, LambdaError
from floats_edge.profiling.bench import Timing
from floats_edge.profiling.profile import profile_bundle
from floats_edge.runtime.backends import open_predictor

BRIEF = Timing(warmup_s=0.01, duration_s=0.02, minimum=5)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", None)


def test_every_backend_at_every_batch_size(bundle: Bundle) -> None:
    steps: list[str] = []
    openers = {"sleeping": Sleeping, "ort-cpu": partial(open_predictor, bundle, "ort-cpu", 0.3)}
    record = profile_bundle(bundle, openers, (1, 4), BRIEF, progress=steps.append)
    expected = [("sleeping", 1), ("sleeping", 4), ("ort-cpu", 1), ("ort-cpu", 4)]
    assert [(run.backend, run.batch) for run in record.runs] == expected
    assert steps == [f"{backend}, batch {batch}" for backend, batch in expected]
    assert [run.lam for run in record.runs] == [0.5, 0.5, 0.3, 0.3]
    assert all(run.set_lambda_ms is not None and run.set_lambda_ms.n >= 20 for run in record.runs)
    assert record.skipped == {}


def test_size_is_what_stands_on_disk(bundle: Bundle) -> None:
    size = profile_bundle(bundle, {"sleeping": Sleeping}, (1,), BRIEF).size
    assert size["ONNX graphs"].value == (bundle.path / "model.onnx").stat().st_size
    assert size["weights"].value == (bundle.path / "weights.safetensors").stat().st_size
    files = [path for path in bundle.path.iterdir() if path.name != "manifest.json"]
    assert size["whole bundle"].value == sum(path.stat().st_size for path in files)
    assert "TensorRT engines" not in size


def test_failing_backends_are_skipped_with_their_reason(bundle: Bundle) -> None:
    openers = {"broken": Broken, "refusing": refusing, "crashing": crashing, "sleeping": Sleeping}
    record = profile_bundle(bundle, openers, (1,), BRIEF, unavailable={"trt": "no device"})
    assert [run.backend for run in record.runs] == ["sleeping"]
    assert list(record.skipped) == ["trt", "broken, batch 1", "refusing, batch 1", "crashing, batch 1"]
    assert record.skipped["trt"] == "no device"
    assert "RuntimeError: kernel 7 is missing" in record.skipped["broken, batch 1"]
    assert "no such device" in record.skipped["refusing, batch 1"]
    assert "SIGSEGV" in record.skipped["crashing, batch 1"]


def test_nothing_measured_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"trt: no device; broken, batch 1: RuntimeError: kernel 7"):
        profile_bundle(bundle, {"broken": Broken}, (1,), BRIEF, unavailable={"trt": "no device"})


def test_lambda_that_is_not_served_is_the_user_s_error(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "fixed", (0.3,))
    with pytest.raises(LambdaError, match=r"serves lambda 0\.3, not 0\.5"):
        profile_bundle(bundle, {"ort-cpu": partial(open_predictor, bundle, "ort-cpu", 0.5)}, (1,), BRIEF)


def test_tampered_bundle_is_not_measured(bundle: Bundle) -> None:
    graph = bundle.path / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        profile_bundle(bundle, {"ort-cpu": partial(open_predictor, bundle, "ort-cpu", 0.5)}, (1,), BRIEF)
