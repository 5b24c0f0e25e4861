"""Latency of a :class:`~floats_edge.runtime.base.Predictor`: pure measurement, nothing else on the timed path."""

import gc
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.records import Latency, Run
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


def measure_run(open_predictor: Open, batch: int, timing: Timing) -> Run:
    """Load a network, time its inferences and its lambda switch, and read the memory this took.

    Everything is counted from the moment of the call, so call it in a fresh process (``isolation.run_isolated``).

    Raises:
        FloatsError: the backend failed.
    """
    before = footprint()
    start = time.perf_counter_ns()
    with open_predictor() as predictor:
        load_ms = (time.perf_counter_ns() - start) / 1e6
        images = random_images(predictor.image_shape, batch)
        first_ms = sample(lambda: predictor.predict(images), seconds=0, minimum=1)[0] / 1e6
        times = measure_inference(predictor, images, timing)
        switches = measure_switch(predictor)
        return Run(
            backend=predictor.backend,
            batch=batch,
            lam=predictor.lam,
            warmup_s=timing.warmup_s,
            includes=INCLUDES,
            latency_ms=summarise(times),
            throughput=batch * len(times) / (int(times.sum()) / 1e9),
            load_ms=load_ms,
            first_inference_ms=first_ms,
            set_lambda_ms=None if switches is None else summarise(switches),
            memory=memory_readings(before),
        )


def measure_inference(predictor: Predictor, images: Images, timing: Timing) -> Nanoseconds:
    """Time of each inference on ``images`` ``[N, C, H, W]`` after a warm-up."""

    def infer() -> None:
        predictor.predict(images)

    sample(infer, seconds=timing.warmup_s, minimum=1)
    return sample(infer, seconds=timing.duration_s, minimum=timing.minimum)


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
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = clock() + int(seconds * 1e9)
        while len(times) < minimum or clock() < end:
            start = clock()
            call()
            times.append(clock() - start)
    finally:
        if collected:
            gc.enable()
    return np.array(times, dtype=np.int64)


def summarise(times: Nanoseconds) -> Latency:
    """Statistics in ms of times in ns."""
    ms = times / 1e6
    p50, p90, p99 = (float(value) for value in np.percentile(ms, (50, 90, 99)))
    return Latency(
        n=len(ms),
        mean=float(ms.mean()),
        std=float(ms.std(ddof=1)) if len(ms) > 1 else 0.0,
        minimum=float(ms.min()),
        p50=p50,
        p90=p90,
        p99=p99,
        maximum=float(ms.max()),
    )


def random_images(image_shape: tuple[int, int, int], batch: int) -> Images:
    """``[batch, C, H, W]``, uniform in [0, 1), float32, always the same."""
    return np.random.default_rng(IMAGE_SEED).random((batch, *image_shape), dtype=np.float32)
