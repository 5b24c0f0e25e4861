"""Latency of a :class:`~floats_edge.runtime.base.Predictor`: pure measurement, nothing else on the timed path."""

import gc
import itertools
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.records import Latency, Reading, Run
from floats_edge.profiling.memory import footprint, memory_readings
from floats_edge.runtime.base import Images, Predictor

INCLUDES = "predict(): NumPy images in, NumPy logits out, with every copy between host and device"
IMAGE_SEED = 0
_SWITCHES = 20

Nanoseconds = NDArray[np.int64]
Open = Callable[[], Predictor]


@dataclass(frozen=True)
class Timing:
    """How long to measure.

    Attributes:
        warmup_s: seconds of inferences that do not count.
        duration_s: seconds of inferences that count, at least.
        minimum: inferences that count, at least.
    """

    warmup_s: float = 1.0
    duration_s: float = 3.0
    minimum: int = 50


@dataclass(frozen=True)
class Measured:
    """A run, and what happened while its timed inferences ran.

    Attributes:
        run: without energy, conditions and marks, which only who watches from outside can add.
        start_ns: of the timed inferences, by the monotonic clock that all processes share.
        end_ns: of the same.
        cpu_s: processor time that this process spent meanwhile.
        preemptions: how often the scheduler took the processor from this process meanwhile.
        drift: median time of the last third of the inferences over that of the first third.
    """

    run: Run
    start_ns: int
    end_ns: int
    cpu_s: float
    preemptions: int
    drift: float


@dataclass
class _Stream:
    """What one predictor measured."""

    predictor: Predictor
    load_ms: float
    first_ms: float
    times: Nanoseconds
    device: Latency | None
    switches: Nanoseconds | None
    memory: dict[str, Reading]


def measure_run(open_predictor: Open, batch: int, timing: Timing, streams: int = 1) -> Measured:
    """Load a network, time its inferences and its lambda switch, and read the memory this took.

    Everything is counted from the moment of the call, so call it in a fresh process (``isolation.run_isolated``). With
    several streams, each thread opens a predictor of its own, and all infer at the same time.

    Raises:
        FloatsError: the backend failed.
    """
    meter = _Meter(streams)
    if streams == 1:
        results = [_measure_stream(open_predictor, batch, timing, meter)]
    else:
        with collection_held_off(), ThreadPoolExecutor(streams) as pool:
            started = [pool.submit(_measure_stream, open_predictor, batch, timing, meter) for _ in range(streams)]
            results = [stream.result() for stream in started]
    return meter.measured(_run(results, batch, timing, meter.memory), results[0].times)


def _run(streams: list[_Stream], batch: int, timing: Timing, memory: dict[str, Reading]) -> Run:
    first = streams[0]
    return Run(
        backend=first.predictor.backend,
        batch=batch,
        streams=len(streams),
        threads=first.predictor.threads,
        lam=first.predictor.lam,
        warmup_s=timing.warmup_s,
        includes=INCLUDES,
        latency_ms=summarise(np.concatenate([stream.times for stream in streams])),
        device_ms=first.device,
        device_includes=None if first.device is None else first.predictor.device_includes,
        throughput=sum(batch * len(stream.times) / (int(stream.times.sum()) / 1e9) for stream in streams),
        load_ms=max(stream.load_ms for stream in streams),
        first_inference_ms=max(stream.first_ms for stream in streams),
        set_lambda_ms=None if first.switches is None else summarise(first.switches),
        memory=memory | first.memory,
        energy={},
        conditions={},
        marks=(),
    )


class _Meter:
    """Lets all streams start and end together, and counts what this process is given in between.

    Attributes:
        memory: with the networks of all streams loaded.
    """

    def __init__(self, streams: int) -> None:
        self.alone = streams == 1
        self.memory: dict[str, Reading] = {}
        self._unloaded = footprint()
        self._counts: list[tuple[int, float, int]] = []
        self._start = threading.Barrier(streams, self._count)
        self._finish = threading.Barrier(streams, self._count)
        self._release = threading.Barrier(streams, self._read_memory)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """All streams enter together, and none leaves before the last has ended."""
        self._start.wait()
        yield
        self._finish.wait()

    def release(self) -> None:
        """Wait until no stream needs its predictor any longer."""
        self._release.wait()

    def abort(self) -> None:
        """Let the other streams fail too."""
        for barrier in (self._start, self._finish, self._release):
            barrier.abort()

    def measured(self, run: Run, times: Nanoseconds) -> Measured:
        (start, cpu_before, taken_before), (end, cpu_after, taken_after) = self._counts
        return Measured(run, start, end, cpu_after - cpu_before, taken_after - taken_before, drift(times))

    def _count(self) -> None:
        preemptions = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        self._counts.append((time.monotonic_ns(), time.process_time(), preemptions))

    def _read_memory(self) -> None:
        self.memory = memory_readings(self._unloaded)


def _measure_stream(open_predictor: Open, batch: int, timing: Timing, meter: _Meter) -> _Stream:
    """One predictor from opening to closing, in the thread to which it belongs."""
    try:
        start = time.perf_counter_ns()
        with open_predictor() as predictor:
            load_ms = (time.perf_counter_ns() - start) / 1e6
            images = random_images(predictor.image_shape, batch)
            first_ms = sample(lambda: predictor.predict(images), seconds=0, minimum=1)[0] / 1e6
            warm_up(predictor, images, timing)
            with collection_held_off(), meter.timed():
                times = measure_inference(predictor, images, timing)
            device = measure_device(predictor, images, timing.minimum) if meter.alone else None
            switches = measure_switch(predictor) if meter.alone else None
            memory = predictor.memory()
            meter.release()
    except BaseException:
        meter.abort()
        raise
    return _Stream(predictor, load_ms, first_ms, times, device, switches, memory)


def warm_up(predictor: Predictor, images: Images, timing: Timing) -> None:
    """Inferences that do not count, by time."""
    sample(lambda: predictor.predict(images), seconds=timing.warmup_s, minimum=1)


def measure_inference(predictor: Predictor, images: Images, timing: Timing) -> Nanoseconds:
    """Time of each inference on ``images`` ``[N, C, H, W]``."""
    return sample(lambda: predictor.predict(images), seconds=timing.duration_s, minimum=timing.minimum)


def measure_device(predictor: Predictor, images: Images, n: int) -> Latency | None:
    """Time of ``n`` inferences on the device alone, without copies; None where the backend cannot tell."""
    times = [predictor.device_ms(images) for _ in range(n)]
    known = [ms for ms in times if ms is not None]
    return summarise(np.array(known) * 1e6) if known else None


def measure_switch(predictor: Predictor) -> Nanoseconds | None:
    """Time of each ``set_lambda`` between two lambdas in turn, or None where only one is served.

    Between 0.25 and 0.75 where any lambda is served: the ends may be cheaper. Leaves the lambda as it was.
    """
    served = (0.25, 0.75) if predictor.lambdas is None else (predictor.lambdas[0], predictor.lambdas[-1])
    if served[0] == served[1]:
        return None
    lam = predictor.lam
    turns = itertools.cycle(served)

    def switch() -> None:
        predictor.set_lambda(next(turns))

    sample(switch, seconds=0, minimum=2)  # the first ones allocate, and the very first may change nothing
    times = sample(switch, seconds=0, minimum=_SWITCHES)
    predictor.set_lambda(lam)
    return times


def sample(call: Callable[[], object], *, seconds: float, minimum: int) -> Nanoseconds:
    """Time of each of at least ``minimum`` calls during at least ``seconds``, garbage collection held off."""
    clock = time.perf_counter_ns
    times: list[int] = []
    with collection_held_off():
        end = clock() + int(seconds * 1e9)
        while len(times) < minimum or clock() < end:
            start = clock()
            call()
            times.append(clock() - start)
    return np.array(times, dtype=np.int64)


@contextmanager
def collection_held_off() -> Iterator[None]:
    """No garbage collection meanwhile."""
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def drift(times: Nanoseconds) -> float:
    """Median of the last third over that of the first third: 1 where the machine was in the same state throughout."""
    third = max(1, len(times) // 3)
    return float(np.median(times[-third:]) / np.median(times[:third]))


def summarise(times: NDArray[np.int64] | NDArray[np.float64]) -> Latency:
    """Statistics in ms of times in ns."""
    ms = times / 1e6
    p50, p90, p95, p99 = (float(value) for value in np.percentile(ms, (50, 90, 95, 99)))
    return Latency(
        n=len(ms),
        mean=float(ms.mean()),
        std=float(ms.std(ddof=1)) if len(ms) > 1 else 0.0,
        minimum=float(ms.min()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        maximum=float(ms.max()),
    )


def random_images(image_shape: tuple[int, int, int], batch: int) -> Images:
    """``[batch, C, H, W]``, uniform in [0, 1), float32, always the same."""
    return np.random.default_rng(IMAGE_SEED).random((batch, *image_shape), dtype=np.float32)
