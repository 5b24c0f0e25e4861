import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from fixtures.predictors import Broken, Sleeping, Small, crashing, refusing
from fixtures.tiny_bundle import write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import ArtifactError, BackendError, LambdaError
from floats_edge.profiling import profile
from floats_edge.profiling.bench import Timing
from floats_edge.profiling.profile import Plan, profile_bundle
from floats_edge.profiling.telemetry.sensors import Sensor
from floats_edge.runtime.backends import open_predictor, open_traced
from floats_edge.runtime.base import Host
from floats_edge.runtime.ort import OrtPredictor

BRIEF = Timing(warmup_s=0.01, duration_s=0.02, minimum=5)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", None)


def test_every_backend_at_every_batch_size(bundle: Bundle) -> None:
    steps: list[str] = []
    openers = {"sleeping": Sleeping, "ort-cpu": partial(open_predictor, bundle, "ort-cpu", 0.3)}
    record = profile_bundle(bundle, Plan(openers, (1, 4), BRIEF), steps.append)
    expected = [("sleeping", 1), ("sleeping", 4), ("ort-cpu", 1), ("ort-cpu", 4)]
    assert [(run.backend, run.batch) for run in record.runs] == expected
    assert steps == ["idle power", *(f"{backend}, batch {batch}" for backend, batch in expected)]
    assert [run.lam for run in record.runs] == [0.5, 0.5, 0.3, 0.3]
    assert all(run.set_lambda_ms is not None and run.set_lambda_ms.n >= 20 for run in record.runs)
    assert record.skipped == {}


def test_size_is_what_stands_on_disk(bundle: Bundle) -> None:
    size = profile_bundle(bundle, Plan({"sleeping": Sleeping}, (1,), BRIEF)).size
    assert size["ONNX graphs"].value == (bundle.path / "model.onnx").stat().st_size
    assert size["weights"].value == (bundle.path / "weights.safetensors").stat().st_size
    files = [path for path in bundle.path.iterdir() if path.name != "manifest.json"]
    assert size["whole bundle"].value == sum(path.stat().st_size for path in files)
    assert "TensorRT engines" not in size


def test_failing_backends_are_skipped_with_their_reason(bundle: Bundle) -> None:
    openers = {"broken": Broken, "refusing": refusing, "crashing": crashing, "sleeping": Sleeping}
    record = profile_bundle(bundle, Plan(openers, (1, 2), BRIEF, unavailable={"trt": "no device"}))
    assert [run.backend for run in record.runs] == ["sleeping"] * 2
    assert list(record.skipped) == ["trt", "broken", "refusing", "crashing"]
    assert record.skipped["trt"] == "no device"
    assert "RuntimeError: kernel 7 is missing" in record.skipped["broken"]
    assert "no such device" in record.skipped["refusing"]
    assert "SIGSEGV" in record.skipped["crashing"]


def test_nothing_measured_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"trt: no device; broken: RuntimeError: kernel 7"):
        profile_bundle(bundle, Plan({"broken": Broken}, (1,), BRIEF, unavailable={"trt": "no device"}))


def test_lambda_that_is_not_served_is_the_user_s_error(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "fixed", (0.3,))
    with pytest.raises(LambdaError, match=r"serves lambda 0\.3, not 0\.5"):
        profile_bundle(bundle, Plan({"ort-cpu": partial(open_predictor, bundle, "ort-cpu", 0.5)}, (1,), BRIEF))


def test_tampered_bundle_is_not_measured(bundle: Bundle) -> None:
    graph = bundle.path / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        profile_bundle(bundle, Plan({"ort-cpu": partial(open_predictor, bundle, "ort-cpu", 0.5)}, (1,), BRIEF))


def test_a_backend_that_fails_at_one_batch_only_is_told_by_batch(bundle: Bundle) -> None:
    record = profile_bundle(bundle, Plan({"small": Small}, (1, 4), BRIEF))
    assert [run.batch for run in record.runs] == [1]
    assert list(record.skipped) == ["small, batch 4"]


def test_streams_and_threads(bundle: Bundle) -> None:
    opener = partial(open_predictor, bundle, "ort-cpu", 0.5, Host(threads=1))
    record = profile_bundle(bundle, Plan({"ort-cpu": opener}, (1,), BRIEF, streams=(1, 2)))
    assert [(run.streams, run.threads) for run in record.runs] == [(1, 1), (2, 1)]
    with opener() as predictor:
        assert isinstance(predictor, OrtPredictor)
        assert predictor._session.session.get_session_options().intra_op_num_threads == 1


def test_layers_are_traced_apart(bundle: Bundle) -> None:
    opener = partial(open_predictor, bundle, "ort-cpu", 0.5)
    tracer = partial(open_traced, bundle, "ort-cpu", 0.5, 1)
    plan = Plan({"ort-cpu": opener, "sleeping": Sleeping}, (1,), BRIEF, tracers={"ort-cpu": tracer})
    record = profile_bundle(bundle, plan)
    (trace,) = record.traces
    assert {"stem", "classifier"} <= {layer.name for layer in trace.layers}
    assert trace.peaks is not None
    (stem,) = (layer for layer in trace.layers if layer.name == "stem")
    assert (stem.gflops or 0) > 0
    assert 0 < (stem.attained or 0) < 20
    needed = record.runs[0].memory["weights"]
    assert needed.value == 4 * (8 * 27 + 5 * 8) / 2**20
    assert record.runs[0].memory["engine"].value is None


def test_conditions_are_sampled_over_every_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    watts = iter([2.0] * 11 + [5.0] * 10_000)  # a second of idle, then a load

    @contextmanager
    def two_sensors() -> Iterator[list[Sensor]]:
        yield [Sensor("power GPU", "W", "a meter", lambda: next(watts)), Sensor("GPU clock", "MHz", "x", lambda: 800.0)]

    monkeypatch.setattr(profile, "open_sensors", two_sensors)
    monkeypatch.setattr(profile, "IDLE_S", 0.95)
    (run,) = profile_bundle(bundle, Plan({"sleeping": Sleeping}, (1,), Timing(0.1, 1.5, 5))).runs
    clock = run.conditions["GPU clock"]
    assert (clock.before, clock.mean, clock.after) == (800, 800, 800)
    assert clock.n >= 5
    assert run.energy["power idle"].value == pytest.approx(2, abs=0.4)
    assert run.energy["power during"].value == pytest.approx(5, abs=0.4)
    energy, mean_s = run.energy["energy per inference"].value, run.latency_ms.mean / 1000
    assert energy == pytest.approx(3 * mean_s * 1000, rel=0.3)


def interrupting(step: str) -> None:
    if step == "sleeping, batch 4":
        raise KeyboardInterrupt


def test_interrupt_keeps_what_was_measured(bundle: Bundle) -> None:
    record = profile_bundle(bundle, Plan({"sleeping": Sleeping}, (1, 4), BRIEF), interrupting)
    assert [run.batch for run in record.runs] == [1]
    assert record.incomplete == "interrupted"


def test_interrupt_before_anything_was_measured_is_an_interrupt(bundle: Bundle) -> None:
    with pytest.raises(KeyboardInterrupt):
        profile_bundle(bundle, Plan({"sleeping": Sleeping}, (4,), BRIEF), interrupting)


def test_a_bundle_that_vanishes_midway_leaves_what_was_measured(bundle: Bundle) -> None:
    def vanishing(step: str) -> None:
        if step == "ort-cpu, batch 1":
            shutil.rmtree(bundle.path)

    openers = {"sleeping": Sleeping, "ort-cpu": partial(open_predictor, bundle, "ort-cpu", 0.5)}
    record = profile_bundle(bundle, Plan(openers, (1,), BRIEF), vanishing)
    assert [run.backend for run in record.runs] == ["sleeping"]
    assert record.incomplete is not None
    assert "cannot be read" in record.incomplete
