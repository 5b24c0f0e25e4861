"""More images than an engine takes at once, on stand-ins whose streams run in any order that nobody forbids."""

import importlib
import random
import sys
from collections.abc import Callable

import numpy as np
import pytest
from fixtures.tiny_bundle import CLASSES, IMAGE_SHAPE, images, with_plans, write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import BackendError
from floats_edge.runtime.base import Host
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.trt import open_trt

PLAIN, GRAPH = Host(), Host(cuda_graph=True)
LAMBDAS = {"fixed": (0.3,), "bank": (0.0, 0.5, 1.0)}
ORDERS = (
    "copies up as late as may be",
    "copies up as early as may be",
    *(f"any order, {seed}" for seed in range(4)),
)


@pytest.fixture
def trt(binding, monkeypatch):
    """The stand-in of TensorRT, and of TensorRT-RTX, with one binding of CUDA."""
    module = importlib.import_module("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    return module


def chooser(order: str) -> Callable[[list[int]], int]:
    """Which of the streams that could go on does: the one that computes is the older one."""
    return {ORDERS[0]: min, ORDERS[1]: max}.get(order) or random.Random(order).choice


with_graphs = pytest.mark.parametrize("binding", ["cuda-python"], indirect=True)


def make(folder, mode: str = "bound", batch: tuple[int, int, int] = (1, 4, 8), **changes: object) -> Bundle:
    return with_plans(write_bundle(folder, LAMBDAS.get(mode), "fp32", mode), batch, **changes)


def assert_same(found, wanted):
    assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_read_before_it_is_there_or_overwritten_while_it_is_read(
    trt, fake_driver, monkeypatch, tmp_path, order
):
    monkeypatch.setattr(fake_driver, "choose", chooser(order))
    bundle = make(tmp_path / "bundle", batch=(4, 4, 8))
    with open_trt(bundle, 0.5) as predictor, open_ort(bundle, "ort-cpu", 0.5) as reference:
        for count in (9, 3, 43, 16, 8, 19):
            some = images(count)[::-1]
            assert_same(predictor.predict(some), reference.predict(some))


@pytest.mark.parametrize(
    ("flavour", "host"), [("tensorrt", PLAIN), ("tensorrt", GRAPH), ("tensorrt_rtx", PLAIN), ("tensorrt_rtx", GRAPH)]
)
@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input", "refit"])
@with_graphs
def test_so_it_is_in_every_mode_and_with_cuda_graphs(trt, fake_driver, monkeypatch, tmp_path, mode, flavour, host):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = make(tmp_path / "bundle", mode, flavour=flavour)
    lambdas = LAMBDAS.get(mode, (0.0, 0.3, 1.0))
    with open_trt(bundle, lambdas[0], host) as predictor, open_ort(bundle, "ort-cpu", lambdas[0]) as reference:
        for order, lam in zip(ORDERS, (*lambdas, *lambdas), strict=False):
            monkeypatch.setattr(fake_driver, "choose", chooser(order))
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            for count in (32, 3, 19, 43):
                assert_same(predictor.predict(images(count)), reference.predict(images(count)))


def test_the_next_part_is_on_its_way_before_one_has_been_computed(trt, fake_driver, monkeypatch, tmp_path):
    launched, stage = [], np.copyto
    with open_trt(make(tmp_path / "bundle"), 0.5) as predictor:

        def staged(to, source):
            if to.shape[1:] == IMAGE_SHAPE:
                launched.append(len(trt.LAUNCHES))
            stage(to, source)

        monkeypatch.setattr(np, "copyto", staged)
        predictor.predict(images(48))
    assert len(launched) == 6
    assert all(count < part for part, count in enumerate(launched) if part > 0)
    assert len(trt.LAUNCHES) == 6


@pytest.mark.parametrize("order", ORDERS)
def test_after_a_part_that_failed_all_is_as_before(trt, fake_driver, monkeypatch, tmp_path, order):
    monkeypatch.setattr(fake_driver, "choose", chooser(order))
    bundle = make(tmp_path / "bundle")
    execute, answers = trt.runtime.Context.execute_async_v3, iter([True, True, True, False])
    with open_trt(bundle, 0.5) as predictor, open_ort(bundle, "ort-cpu", 0.5) as reference:
        with monkeypatch.context() as patch:
            patch.setattr(trt.runtime.Context, "execute_async_v3", lambda *call: next(answers) and execute(*call))
            with pytest.raises(BackendError, match="failed to run"):
                predictor.predict(images(48))
        assert not any(fake_driver.queues.values()), "buffers are still in use, and the engine, which may go next"
        for count in (5, 43):
            some = images(count)[::-1]
            assert_same(predictor.predict(some), reference.predict(some))


# What it costs


def test_what_fits_needs_no_second_set_of_buffers_and_no_events(trt, fake_driver, monkeypatch, tmp_path):
    monkeypatch.setattr(fake_driver, "Event", None)
    with open_trt(make(tmp_path / "bundle"), 0.5) as predictor:
        before, streams = predictor.memory(), len(fake_driver.queues)
        for count in (0, 1, 8):
            predictor.predict(images(count))
        assert (predictor.memory(), len(fake_driver.queues)) == (before, streams)


def test_the_second_set_of_buffers_is_made_once_and_counted(trt, tmp_path):
    with open_trt(make(tmp_path / "bundle"), 0.5) as predictor:
        told = []
        for count in (8, 9, 48):
            predictor.predict(images(count))
            told.append(predictor.memory())
    for part in ("buffers on the GPU", "page-locked buffers"):
        first, second, third = (memory[part].value * 2**20 for memory in told)
        assert second - first == 4 * 8 * (np.prod(IMAGE_SHAPE) + CLASSES)
        assert third == second


def test_what_there_is_no_memory_for_takes_none(trt, fake_driver, monkeypatch, tmp_path):
    allocate, answers = fake_driver.mem_alloc, iter([True, False] * 3)

    def scarce(size):
        if next(answers):
            return allocate(size)
        raise fake_driver.Error("out of memory")

    with open_trt(make(tmp_path / "bundle"), 0.5) as predictor:

        def held():
            return (*map(len, (fake_driver.live, fake_driver.pinned, fake_driver.queues)), predictor.memory())

        before = held()
        with monkeypatch.context() as patch:
            patch.setattr(fake_driver, "mem_alloc", scarce)
            for _ in range(3):
                with pytest.raises(BackendError, match="out of memory"):
                    predictor.predict(images(9))
        assert held() == before
        assert len(predictor.predict(images(9))) == 9


@with_graphs
def test_each_set_of_buffers_has_a_graph_that_is_recorded_once_and_freed(trt, tmp_path):
    runtime = sys.modules["cuda.bindings.runtime"]
    with open_trt(make(tmp_path / "bundle"), 0.5, GRAPH) as predictor:
        for _ in range(3):
            predictor.predict(images(32))
        assert (len(trt.ENQUEUED), len(trt.LAUNCHES)) == (4, 12)  # of each set one that counts, one that is recorded
        assert len(runtime.executables) == 2
    assert (runtime.executables, runtime.events, runtime.streams) == ({}, set(), {})
