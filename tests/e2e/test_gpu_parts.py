"""What the parts of ``tools/gpu`` compute, and what they make of it, as far as a CPU can try them."""

import json
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest
from fixtures.records import profile, run
from gpu_check import energy, kit, training, zeros
from gpu_check.engines import BATCHES, IN_PARTS, exported, prove
from gpu_check.small import write_images
from gpu_check.speed import Bench, measured, union
from gpu_check.switch import SIZES, switch
from gpu_check.told import CannotRunError, Told
from gpu_check.training import FIRST, _compare, trained, trained_alike

import floats_edge as fe
from floats_edge.deploy import export as stages
from floats_edge.errors import BackendError, FloatsError, ParityError
from floats_edge.profiling import compare, isolation, stage
from floats_edge.runtime.base import Host


@pytest.fixture
def told(tmp_path):
    return Told(tmp_path / "told.jsonl")


def findings(told: Told) -> list[dict]:
    lines = map(json.loads, told._file.read_text().splitlines())
    return [value for kind, value in lines if kind == "findings"]


def test_the_parts_of_a_change_of_lambda_are_timed(told):
    switch(told, "cpu")
    assert len(findings(told)) == 3 * len(SIZES)
    host, smaller_host = (f["value"] for f in findings(told) if f["what"].endswith("computed on the host"))
    assert host > smaller_host > 0


def test_losses_are_judged_by_the_first_step_and_by_the_worst(told):
    wanted = [2.0, 1.0]
    for found in ([2.0, 1.05], [2.1, 1.0], [2.0, 1.2]):
        _compare(told, "losses", found, wanted, FIRST)
    assert [f["verdict"] for f in findings(told)] == ["passed", "failed", "failed"]


def test_a_figure_that_is_no_number_is_a_failure(told):
    told.find("latency", "measured", "batch 1", float("nan"), "ms")
    assert [(f["verdict"], f["value"]) for f in findings(told)] == [("failed", None)]


def test_a_gate_that_fails_on_the_cpu_is_no_failure_of_a_gpu_and_an_engine_that_fails_is(
    told, bundles, tmp_path, monkeypatch
):
    def refuse(kind: type[FloatsError], engines: bool) -> None:
        real = stages.export

        def export(path, out, request, *rest):
            if request.trt == engines:
                raise kind("refused.", fix="none")
            return real(path, out, request, *rest)

        monkeypatch.setattr(fe, "export", export, raising=False)

    base = bundles("bound")
    refuse(ParityError, engines=False)
    assert exported(told, base, tmp_path / "a", "fixed", "fp32", True, None) is None
    refuse(BackendError, engines=True)
    assert exported(told, base, tmp_path / "b", "fixed", "fp32", True, None).path == tmp_path / "b"
    assert [f["verdict"] for f in findings(told)] == ["skipped", "failed"]
    assert findings(told)[1]["path"] in ("tensorrt", "tensorrt-rtx")


def test_an_engine_takes_every_batch_that_is_measured_at_once(told, bundles, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(fe, "export", lambda path, out, request, images: asked.append(request), raising=False)
    exported(told, bundles("bound"), tmp_path / "a", "fixed", "fp32", True, None)
    assert asked[-1].trt
    smallest, _, largest = asked[-1].engine.batch
    assert smallest <= min(BATCHES) < max(BATCHES) == largest < IN_PARTS


def test_profiles_of_cuda_graphs_stand_beside_those_without(told, bundles, monkeypatch):
    asked = []
    monkeypatch.setattr(isolation, "run_isolated", lambda *_: None)
    monkeypatch.setattr(fe, "profile", lambda path, request: asked.append(request) or profile(), raising=False)
    requests = [fe.ProfileRequest(host=Host(cuda_graph=graph)) for graph in (False, True)]
    prove(told, bundles("bound"), "trt", None, requests)
    assert [(request.backends, request.host.cuda_graph) for request in asked] == [(("trt",), False), (("trt",), True)]
    names = [f["what"] for f in findings(told) if f["what"].endswith("batch 1: latency, p50")]
    assert names == [f"bound fp32 on trt{graph}, batch 1: latency, p50" for graph in ("", ", CUDA graph")]


def test_images_per_second_of_parts_that_overlap_stand_against_those_of_one(told, bundles, monkeypatch):
    pace = {1: 100.0, 32: 1000.0, IN_PARTS: 1250.0}
    measured = profile(runs=tuple(run(batch, throughput=throughput) for batch, throughput in pace.items()))
    monkeypatch.setattr(isolation, "run_isolated", lambda *_: None)
    monkeypatch.setattr(fe, "profile", lambda *_: measured, raising=False)
    prove(told, bundles("bound"), "trt", None, [fe.ProfileRequest(batches=(*BATCHES, IN_PARTS))])
    (row,) = [f for f in findings(told) if f["what"] == "bound fp32 on trt: images/s in parts"]
    assert (row["verdict"], row["value"], row["unit"]) == ("measured", 1.25, "times")
    assert row["why"] == "batch 128 in overlapping parts against batch 32, which the engine takes at once"


def test_random_numbers_of_the_cpu_take_the_place_of_the_devices_own(tmp_path, one_thread, monkeypatch):
    monkeypatch.setattr(training, "SMALL", (*training.SMALL, "train.epochs=1"))
    images = write_images(tmp_path / "images")
    own, alike, again = (
        how(tmp_path / name, images, "cpu")
        for name, how in (("own", trained), ("alike", trained_alike), ("again", trained_alike))
    )
    assert alike == again
    assert own[0] != alike[0]
    assert own[0] == pytest.approx(alike[0], rel=0.1)


def test_steps_of_training_are_timed(one_thread):
    bench = Bench("small", ("model.name=resnet8", "model.arguments.width=8"), size=16, batch=8)
    pace = measured(bench, ("train.float32=ieee",), "cpu", rounds=2)
    assert pace.seconds > 0
    assert (pace.launches, pace.busy) == (None, None)


def test_kernels_that_overlap_count_once():
    assert union([(0, 2), (1, 3), (5, 6)]) == 4


@pytest.fixture
def card(monkeypatch):
    """The real NVML module with the answers of a GPU that takes ``card.watts``, and counts ``card.counted`` of them."""
    card = SimpleNamespace(watts=20.0, counted=1.0, joules=0.0, since=time.monotonic())

    def counter(_: object) -> int:
        now = time.monotonic()
        card.joules, card.since = card.joules + card.counted * card.watts * (now - card.since), now
        return round(1000 * card.joules)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetPowerUsage": lambda _: round(1000 * card.watts),
        "nvmlDeviceGetTotalEnergyConsumption": counter,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(energy, "SETTLE_S", 0.3)

    def load(seconds: float) -> None:
        counter(None)
        card.watts = card.under_load
        time.sleep(seconds)

    card.load, card.under_load = load, 200.0
    return card


@pytest.mark.parametrize(
    ("changes", "verdict", "ratio"),
    [({}, "passed", 1), ({"counted": 0.5}, "failed", 0.5), ({"under_load": 20.0}, "failed", 1)],
)
def test_the_counter_of_energy_must_grow_as_power_says_and_a_load_must_take_some(told, card, changes, verdict, ratio):
    vars(card).update(changes)
    energy.judge(told, *energy.watched(card.load, 0.5))
    *watts, found = findings(told)
    assert found["verdict"] == verdict
    assert found["value"] == pytest.approx(ratio, rel=0.05)
    idle = [20 * card.counted, 20]
    loaded = [card.under_load * card.counted, card.under_load]
    assert [f["value"] for f in watts] == pytest.approx(idle + loaded, rel=0.05)
    assert {f["path"] for f in findings(told)} == {"sensors"}


def test_a_gpu_without_a_counter_of_energy_is_not_judged(told, card, monkeypatch):
    def unsupported(_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", unsupported)
    energy.judge(told, *energy.watched(card.load, 0.3))
    assert [f["verdict"] for f in findings(told)] == ["unknown", "measured", "unknown", "measured", "unknown"]
    assert "Not Supported" in findings(told)[0]["why"]


@pytest.mark.usefixtures("rtx")
def test_2_4_is_set_against_a_dense_twin_and_the_ratio_is_told_as_it_is(told, monkeypatch):
    """On a CPU: TensorRT-RTX builds the engines, and ONNX Runtime takes their place, with times that are made up."""
    train, compare_speed = fe.train, stage.compare_speed
    for name, stand_in in {
        "need_driver": lambda: None,
        "need_cuda": lambda: None,
        "WIDE": ("model.arguments.width=8", "train.epochs=1"),
        "PRECISIONS": ("fp16",),
    }.items():
        monkeypatch.setattr(zeros, name, stand_in)
    monkeypatch.setattr(fe, "train", lambda *words, device, **more: train(*words, **more), raising=False)
    monkeypatch.setattr(isolation, "run_isolated", lambda *_: None)
    monkeypatch.setattr(
        stage, "compare_speed", lambda p, request: compare_speed(p, replace(request, backend="ort-cpu"))
    )

    def run_rounds(openers, *_):
        ms = [[1.25 + 0.01 * index if "2-4" in o.args[0].path.name else 1.0 for o in openers] for index in range(12)]
        return compare.Rounds((("ort-cpu", 0.3),) * 2, tuple(1e6 * np.transpose(ms)), np.array(ms), ((0, 1),))

    monkeypatch.setattr(compare, "run_rounds", run_rounds)
    zeros.zeros(told, False)
    dense, sparse, ratio = findings(told)
    assert (dense["what"], dense["value"]) == ("dense fp16: layers of 2:4", 0)
    assert (sparse["what"], sparse["value"]) == ("2-4 fp16: layers of 2:4", 9)
    assert (ratio["verdict"], ratio["value"]) == ("measured", pytest.approx(1.305))
    assert "interval 1.270 to 1.340, over 1 is slower; p50 1.3 and 1 ms" in ratio["why"]


def test_what_became_of_tests_in_cpp_is_told_one_by_one(told):
    report = """<?xml version="1.0" encoding="UTF-8"?>
        <testsuites><testsuite name="floats_rt_cuda_tests" errors="1" failures="1" tests="3">
          <testcase classname="test.cpp" name="whole" time="0.26252" status="run"/>
          <testcase classname="test.cpp" name="wrong" time="0.1" status="run">
            <failure message="0.5 is not correct" type="CHECK">CHECK( lam == 0.5 )</failure>
          </testcase>
          <testcase classname="test.cpp" name="broken" time="0.1" status="run">
            <error message="exception">
              CUDA failed to copy the images
            </error>
          </testcase>
        </testsuite></testsuites>"""
    kit.judge(told, report)
    told_of = [(f["what"], f["verdict"], f["why"], f["path"]) for f in findings(told)]
    assert told_of == [
        ("whole", "passed", "0.3 s", "floats-rt"),
        ("wrong", "failed", "CHECK( lam == 0.5 )", "floats-rt"),
        ("broken", "failed", "CUDA failed to copy the images", "floats-rt"),
    ]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake")
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("find_package(NoSuchThing REQUIRED)", CannotRunError),
        ("find_path(NO_SUCH_DIR no_such_header.h REQUIRED)", CannotRunError),
        ("add_executable(program no_such_file.cpp)", RuntimeError),
    ],
)
def test_a_fault_of_ours_is_not_told_as_what_a_machine_lacks(file, kind, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.22)\nproject(p LANGUAGES NONE)\n{file}\n"
    )
    said = kit.ran(["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build")])
    assert said.returncode
    assert type(kit.not_configured(said.stderr)) is kind
