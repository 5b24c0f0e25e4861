"""Bundles against each other: run in turn, so that what the machine does meanwhile meets all of them.

Times of two processes differ by up to a few percent for no reason of the network's: where memory came to lie, what the
caches hold. Inferences of one process are therefore no independent sample of that. Here a round is one observation: a
fresh process for each bundle, of which short blocks of inferences alternate; which one starts alternates too. Between
blocks the processes come to rest: threads that look for work for a while before they sleep would take a core from the
bundle whose turn it is.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.records import Comparison, Ratio, bundle_subject
from floats_edge.errors import BackendError
from floats_edge.profiling.bench import Nanoseconds, Open, Timing, random_images, sample, warm_up
from floats_edge.profiling.conditions import open_sensors, read_conditions
from floats_edge.profiling.isolation import Worker
from floats_edge.profiling.marks import comparison_marks
from floats_edge.profiling.telemetry.sensors import Sampler

CONFIDENCE = 0.95
_BLOCK_S = 0.05
_BLOCK_MINIMUM = 3
_REST_S = 0.01
_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True)
class Schedule:
    """How much to measure.

    Attributes:
        timing: of each bundle; its duration is shared out over all rounds.
        rounds: fresh processes per bundle: the sample size of a ratio.
    """

    timing: Timing
    rounds: int = 12


@dataclass(frozen=True, eq=False)
class Rounds:
    """What was measured of several contenders.

    Attributes:
        served: backend and lambda of each.
        times: of every inference of each, in ns.
        medians: of each round, in ns: ``[rounds, contenders]``.
        spans: in which blocks alternated, of each round, in ns of the monotonic clock.
    """

    served: tuple[tuple[str, float], ...]
    times: tuple[Nanoseconds, ...]
    medians: np.ndarray
    spans: tuple[tuple[int, int], ...]

    def ratio(self, over: int, under: int) -> Ratio:
        """Latency of one contender over that of another."""
        return ratio_of(over, under, self.medians[:, over] / self.medians[:, under])


def compare_bundles(
    bundles: Sequence[Bundle],
    openers: Sequence[Open],
    batch: int,
    schedule: Schedule,
    progress: Callable[[str], None] = lambda step: None,
) -> Comparison:
    """Compare the latency of bundles.

    Args:
        bundles: two or more.
        openers: of the same bundles: picklable functions that open them at the lambda to be measured.
        batch: images per inference.
        schedule: how much to measure.
        progress: told what is measured next.

    Raises:
        FloatsError: a bundle cannot be run.
    """
    conditions = read_conditions()
    with open_sensors() as sensors, Sampler(sensors) as sampler:
        rounds = run_rounds(openers, batch, schedule, progress)
    sampled = sampler.over(*rounds.spans)
    if len({backend for backend, _ in rounds.served}) > 1:
        raise BackendError("the bundles run on different backends.", fix="choose one with --backend")
    return Comparison(
        subjects=tuple(map(bundle_subject, bundles)),
        backend=rounds.served[0][0],
        batch=batch,
        lambdas=tuple(lam for _, lam in rounds.served),
        p50_ms=tuple(float(np.median(part)) / 1e6 for part in rounds.times),
        n=tuple(map(len, rounds.times)),
        method=(
            f"{schedule.rounds} rounds, in each a fresh process per bundle, of which blocks of {1000 * _BLOCK_S:g} ms "
            "alternate, each after the one before has come to rest; the ratio of a round is that of its medians"
        ),
        ratios=tuple(rounds.ratio(over, under) for under, over in itertools.combinations(range(len(bundles)), 2)),
        conditions=conditions,
        sampled=sampled,
        marks=comparison_marks(sampled, conditions),
    )


def run_rounds(
    openers: Sequence[Open],
    batch: int,
    schedule: Schedule,
    progress: Callable[[str], None] = lambda step: None,
) -> Rounds:
    """Run contenders in turn; arguments and errors as in :func:`compare_bundles`."""
    times: list[list[Nanoseconds]] = [[] for _ in openers]
    medians = np.empty((schedule.rounds, len(openers)))
    spans: list[tuple[int, int]] = []
    served: tuple[tuple[str, float], ...] = ()
    for index in range(schedule.rounds):
        progress(f"round {index + 1} of {schedule.rounds}")
        order = list(range(len(openers)))[:: -1 if index % 2 else 1]
        with ExitStack() as stack:
            workers = {
                place: stack.enter_context(Worker(serve_blocks, openers[place], batch, schedule.timing))
                for place in order
            }
            served = tuple(workers[place].answer() for place in range(len(openers)))
            start = time.monotonic_ns()
            blocks = _alternate(workers, order, schedule)
            spans.append((start, time.monotonic_ns()))
        for place, taken in blocks.items():
            times[place] += taken
            medians[index, place] = np.median(np.concatenate(taken))
    return Rounds(served, tuple(map(np.concatenate, times)), medians, tuple(spans))


def serve_blocks(open_predictor: Open, batch: int, timing: Timing) -> Iterator[object]:
    """In a process of its own: open and warm up, yield backend and lambda, then the times of block after block."""
    with open_predictor() as predictor:
        images = random_images(predictor.image_shape, batch)
        warm_up(predictor, images, timing)
        _come_to_rest()
        yield predictor.backend, predictor.lam
        while True:
            block = sample(lambda: predictor.predict(images), seconds=_BLOCK_S, minimum=_BLOCK_MINIMUM)
            _come_to_rest()
            yield block


def _come_to_rest() -> None:
    """Wait until the threads of this process take no more processor time, but not for ever."""
    end = time.perf_counter() + _LONGEST_WAIT_S
    while time.perf_counter() < end:
        spent = time.process_time()
        time.sleep(_REST_S)
        if time.process_time() - spent < 0.1 * _REST_S:
            return


def ratio_of(over: int, under: int, ratios: np.ndarray) -> Ratio:
    """Median of the ratios of all rounds, with the narrowest interval by order statistics of at least 95 %.

    Distribution-free (Conover, Practical Nonparametric Statistics, 1999, section 3.2): the number of rounds below the
    true median is binomial with p = 1/2, whatever the ratios' distribution.

    Args:
        over: index of the bundle whose latency is divided.
        under: index of the bundle it is divided by.
        ratios: one per round; six at least.
    """
    ordered = np.sort(ratios)
    rank, confidence = interval_rank(len(ordered))
    return Ratio(
        over=over,
        under=under,
        ratio=float(np.median(ordered)),
        low=float(ordered[rank]),
        high=float(ordered[-1 - rank]),
        confidence=confidence,
        pairs=len(ordered),
    )


def interval_rank(n: int) -> tuple[int, float]:
    """How many of ``n`` ordered values lie outside the interval at either end, and the interval's true confidence."""
    if n < 6:
        raise ValueError(f"{n} rounds give no interval of {CONFIDENCE:.0%}; 6 do")
    rank, outside = 0, 2.0 ** (1 - n)
    while True:
        wider = outside + math.comb(n, rank + 1) * 2.0 ** (1 - n)
        if wider > 1 - CONFIDENCE:
            return rank, 1 - outside
        rank, outside = rank + 1, wider


def _alternate(workers: dict[int, Worker], order: Sequence[int], schedule: Schedule) -> dict[int, list[Nanoseconds]]:
    """Blocks of all workers in turn, forth and back, until each has run its share of the duration."""
    blocks: dict[int, list[Nanoseconds]] = {place: [] for place in order}
    share = schedule.timing.duration_s / schedule.rounds * 1e9
    for turn in itertools.count():
        for place in order[:: -1 if turn % 2 else 1]:
            workers[place].proceed()
            blocks[place].append(workers[place].answer())
        if turn and min(sum(int(block.sum()) for block in taken) for taken in blocks.values()) >= share:
            return blocks
    raise AssertionError
