import gc
import statistics
import threading

import numpy as np
import pytest
from fixtures.predictors import SLEEP_S, Sleeping

from floats_edge.errors import BackendError
from floats_edge.profiling.bench import (
    Timing,
    drift,
    measure_inference,
    measure_run,
    measure_switch,
    random_images,
    sample,
    summarise,
)

SHORT = Timing(warmup_s=0.02, duration_s=0.05, minimum=5)


def test_p50_agrees_with_an_independent_clock() -> None:
    predictor = Sleeping()
    times = measure_inference(predictor, random_images((1, 2, 2), 1), Timing(0, 0.5, 20))
    counted = predictor.inferences[-len(times) :]
    assert summarise(times).p50 == pytest.approx(1000 * statistics.median(counted), rel=0.05)
    assert summarise(times).minimum >= 1000 * SLEEP_S


def test_minimum_number_of_inferences_is_honoured() -> None:
    assert len(measure_inference(Sleeping(), random_images((1, 2, 2), 1), Timing(0, 0, 30))) == 30


def test_duration_is_honoured_when_the_minimum_is_soon_reached() -> None:
    times = measure_inference(Sleeping(), random_images((1, 2, 2), 1), Timing(0, 0.2, 1))
    assert times.sum() / 1e9 == pytest.approx(0.2, rel=0.2)


def test_warmup_goes_by_time_and_does_not_count() -> None:
    predictor = Sleeping()
    run = measure_run(lambda: predictor, 1, Timing(0.2, 0, 5)).run
    assert run.latency_ms.n == 5
    assert sum(predictor.inferences[:-5]) > 0.15


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_held_off_and_left_as_it_was(enabled: bool) -> None:
    seen = []
    (gc.enable if enabled else gc.disable)()
    try:
        sample(lambda: seen.append(gc.isenabled()), seconds=0, minimum=3)
        assert seen == [False] * 3
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_garbage_collection_comes_back_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        sample(lambda: 1 // 0, seconds=0, minimum=1)
    assert gc.isenabled()


def test_statistics_of_known_times() -> None:
    latency = summarise(np.arange(1, 101) * 1_000_000)
    assert latency.n == 100
    assert (latency.minimum, latency.maximum, latency.mean) == pytest.approx((1, 100, 50.5))
    assert (latency.p50, latency.p90, latency.p95, latency.p99) == pytest.approx((50.5, 90.1, 95.05, 99.01))
    assert latency.variation == pytest.approx(29.011492 / 50.5)
    assert latency.std == pytest.approx(29.011492)


def test_every_timed_switch_is_a_change_and_lambda_is_restored() -> None:
    predictor = Sleeping(lambdas=None, lam=0.5)
    times = measure_switch(predictor)
    assert times is not None
    assert len(times) >= 20
    assert times.min() >= SLEEP_S / 2 * 1e9
    assert set(predictor.switches) == {0.25, 0.75, 0.5}
    assert predictor.lam == 0.5


@pytest.mark.parametrize("lam", [0.25, 0.75])
def test_switches_start_from_any_lambda(lam: float) -> None:
    times = measure_switch(Sleeping(lambdas=None, lam=lam))
    assert times is not None
    assert times.min() >= SLEEP_S / 2 * 1e9


def test_switch_stays_among_the_lambdas_served() -> None:
    predictor = Sleeping(lambdas=(0.0, 0.3, 1.0), lam=0.3)
    assert measure_switch(predictor) is not None
    assert set(predictor.switches) <= {0.0, 0.3, 1.0}
    assert predictor.lam == 0.3


def test_one_lambda_has_no_switch() -> None:
    assert measure_switch(Sleeping(lambdas=(0.3,), lam=0.3)) is None


def test_run_of_a_batch() -> None:
    predictor = Sleeping()
    measured = measure_run(lambda: predictor, 4, SHORT)
    run = measured.run
    assert set(predictor.batches) == {4}
    assert (run.backend, run.batch, run.lam) == ("sleeping", 4, 0.5)
    assert run.throughput == pytest.approx(4 / (run.latency_ms.mean / 1000))
    assert run.first_inference_ms == pytest.approx(1000 * predictor.inferences[0], rel=0.2)
    assert run.set_lambda_ms is not None
    assert (measured.end_ns - measured.start_ns) / 1e9 == pytest.approx(
        sum(predictor.inferences[-run.latency_ms.n :]), rel=0.2
    )
    assert 0 <= measured.cpu_s < (measured.end_ns - measured.start_ns) / 1e9


def test_streams_run_at_the_same_time_each_with_a_predictor_of_its_own() -> None:
    predictors: list[Sleeping] = []

    def opener() -> Sleeping:
        predictors.append(Sleeping())
        return predictors[-1]

    alone = measure_run(Sleeping, 1, Timing(0.02, 0.2, 5)).run
    together = measure_run(opener, 1, Timing(0.02, 0.2, 5), streams=3).run
    assert len(predictors) == 3
    assert together.streams == 3
    assert together.throughput > 2 * alone.throughput
    assert together.latency_ms.n > 2 * alone.latency_ms.n
    assert together.set_lambda_ms is None


def test_a_stream_that_fails_does_not_leave_the_others_waiting() -> None:
    opened: list[Sleeping] = []

    def opener() -> Sleeping:
        opened.append(Sleeping())
        if len(opened) == 2:
            raise BackendError("out of memory.", fix="fewer streams")
        return opened[-1]

    with pytest.raises((BackendError, threading.BrokenBarrierError)):
        measure_run(opener, 1, SHORT, streams=2)


def test_drift_of_known_times() -> None:
    assert drift(np.array([10, 10, 10, 12, 12, 12])) == pytest.approx(1.2)
    assert drift(np.array([7])) == 1


def test_load_time_is_the_opener_s() -> None:
    def opener() -> Sleeping:
        predictor = Sleeping()
        predictor.predict(random_images((1, 2, 2), 1))
        return predictor

    assert measure_run(opener, 1, SHORT).run.load_ms >= 1000 * SLEEP_S


def test_images_are_what_a_network_takes() -> None:
    images = random_images((3, 8, 8), 5)
    assert (images.shape, images.dtype) == ((5, 3, 8, 8), np.float32)
    assert 0 <= images.min() < 0.1 < 0.9 < images.max() <= 1
    assert np.array_equal(images, random_images((3, 8, 8), 5))
