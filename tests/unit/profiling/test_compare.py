import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import comb
from pathlib import Path

import numpy as np
import pytest
from fixtures.predictors import Sleeping, refusing
from fixtures.tiny_bundle import write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import BackendError
from floats_edge.profiling import compare
from floats_edge.profiling.bench import Timing
from floats_edge.profiling.compare import Schedule, compare_bundles, interval_rank, ratio_of, serve_blocks
from floats_edge.profiling.telemetry.sensors import Sensor
from floats_edge.runtime.base import Images, Logits

BRIEF = Schedule(Timing(warmup_s=0.01, duration_s=0.3), rounds=6)


class Slower(Sleeping):
    """Takes half as long again."""

    def _infer(self, images: Images) -> Logits:
        time.sleep(0.001)
        return super()._infer(images)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", None)


def test_ratio_of_known_times(bundle: Bundle) -> None:
    steps: list[str] = []
    comparison = compare_bundles([bundle, bundle], [Sleeping, Slower], 2, BRIEF, steps.append)
    (ratio,) = comparison.ratios
    assert (ratio.over, ratio.under, ratio.pairs) == (1, 0, 6)
    assert 1.2 < ratio.low <= ratio.ratio <= ratio.high < 1.8
    assert (comparison.backend, comparison.batch, comparison.lambdas) == ("sleeping", 2, (0.5, 0.5))
    assert comparison.p50_ms[0] < comparison.p50_ms[1]
    assert min(comparison.n) >= 6 * 3
    assert len(steps) == 6
    assert "6 rounds" in comparison.method


def test_conditions_are_sampled_while_bundles_take_turns(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def clock() -> Iterator[list[Sensor]]:
        yield [Sensor("GPU clock", "MHz", "x", lambda: 800.0 + len(multiprocessing.active_children()))]

    monkeypatch.setattr(compare, "open_sensors", clock)
    comparison = compare_bundles([bundle, bundle], [Sleeping, Sleeping], 1, BRIEF)
    clock_mhz = comparison.sampled["GPU clock"]
    assert (clock_mhz.before, clock_mhz.minimum, clock_mhz.maximum) == (800, 802, 802)  # both processes are there
    assert clock_mhz.n >= 3
    assert comparison.marks == ()


def test_every_two_of_three_are_compared(bundle: Bundle) -> None:
    comparison = compare_bundles([bundle] * 3, [Sleeping, Slower, Sleeping], 1, BRIEF)
    assert [(ratio.over, ratio.under) for ratio in comparison.ratios] == [(1, 0), (2, 0), (2, 1)]
    assert comparison.ratios[2].high < 1


class Spinning(Sleeping):
    """Keeps a core busy for a while after each inference, as ONNX Runtime's threads do."""

    def _infer(self, images: Images) -> Logits:
        threading.Thread(target=self._spin).start()
        return super()._infer(images)

    @staticmethod
    def _spin() -> None:
        end = time.thread_time() + 0.04
        while time.thread_time() < end:
            pass


def test_a_block_is_over_when_the_threads_rest() -> None:
    blocks = serve_blocks(Spinning, 1, BRIEF.timing)
    for _ in range(2):
        next(blocks)
        spent = time.process_time()
        time.sleep(0.02)
        assert time.process_time() - spent < 0.01


def test_a_bundle_that_fails_is_told(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="no such device"):
        compare_bundles([bundle, bundle], [Sleeping, refusing], 1, BRIEF)


@pytest.mark.parametrize(("n", "rank"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5)])  # tables of the sign test
def test_interval_leaves_out_what_the_binomial_allows(n: int, rank: int) -> None:
    found, confidence = interval_rank(n)
    assert found == rank
    assert confidence == pytest.approx(1 - 2 * sum(comb(n, k) for k in range(rank + 1)) / 2**n)
    assert confidence >= 0.95


def test_five_rounds_are_too_few() -> None:
    with pytest.raises(ValueError, match="6 do"):
        interval_rank(5)


def test_interval_covers_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    ratios = [ratio_of(1, 0, np.exp(random.standard_cauchy(12) / 50)) for _ in range(2000)]
    covered = sum(ratio.low <= 1 <= ratio.high for ratio in ratios) / len(ratios)
    assert covered == pytest.approx(ratios[0].confidence, abs=0.015)


@settings(max_examples=50)
@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=30))
def test_interval_holds_its_median(values: list[float]) -> None:
    ratio = ratio_of(1, 0, np.array(values))
    assert ratio.low <= ratio.ratio <= ratio.high


def test_both_opened_in_processes_of_their_own(bundle: Bundle) -> None:
    from floats_edge.runtime.backends import open_predictor

    opener = partial(open_predictor, bundle, "ort-cpu", 0.3)
    comparison = compare_bundles([bundle, bundle], [opener, opener], 1, BRIEF)
    assert comparison.lambdas == (0.3, 0.3)
    assert comparison.ratios[0].ratio == pytest.approx(1, abs=0.5)
