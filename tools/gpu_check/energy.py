"""NVML's counter of energy against its readings of power, idle and while the GPU multiplies matrices."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gpu_check.told import CannotRunError, Told, need_cuda

if TYPE_CHECKING:
    from floats_edge.artifacts.records import Sampled

SIZE = 4096
LOAD = f"products of {SIZE}x{SIZE} matrices in fp16"
SETTLE_S = 1.5
"""Seconds of load that do not count: on most GPUs power is NVML's average over the second before."""
APART = 0.1
"""Relative difference of the two that is let pass: NVIDIA gives power to within 5 %."""


def energy(told: Told, quick: bool) -> None:
    """Watch what profiles take energy from, idle and under a load that is known."""
    from floats_edge.artifacts.records import Reading
    from floats_edge.profiling.telemetry.nvml import gpu_state

    need_cuda()
    gpu = gpu_state()["GPU"]
    if isinstance(gpu, Reading):
        raise CannotRunError(gpu.source)
    judge(told, *watched(products, 2.5 if quick else 20.0))


def products(seconds: float) -> None:
    """Keep CUDA's first GPU busy for some seconds."""
    import torch

    factor = torch.rand(SIZE, SIZE, device="cuda", dtype=torch.float16)
    product, end = torch.empty_like(factor), time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(10):
            torch.mm(factor, factor, out=product)
        torch.cuda.synchronize()


def watched(load: Callable[[float], None], seconds: float) -> "tuple[dict[str, Sampled], dict[str, Sampled]]":
    """Power of the GPU in W by the counter of energy and by NVML's readings: idle, and under a load as long."""
    from floats_edge.profiling.energy import POWER
    from floats_edge.profiling.telemetry.nvml import gpu_sensors
    from floats_edge.profiling.telemetry.sensors import Sampler

    spans = []
    with gpu_sensors() as sensors, Sampler(sensor for sensor in sensors if sensor.name in POWER) as sampler:
        for work in (time.sleep, load):
            work(SETTLE_S)
            start = time.monotonic_ns()
            work(seconds)
            spans.append((start, time.monotonic_ns()))
    idle, loaded = map(sampler.over, spans)
    return idle, loaded


def judge(told: Told, idle: "Mapping[str, Sampled]", loaded: "Mapping[str, Sampled]") -> None:
    """The counter must tell what the readings tell, and both that a load takes power; not told where one is missing."""
    from floats_edge.profiling.telemetry.nvml import COUNTED_POWER

    for name, found in (("idle", idle), (LOAD, loaded)):
        for sensor, watts in found.items():
            verdict = "unknown" if watts.mean is None else "measured"
            told.find(f"{sensor}, {name}", verdict, watts.source, watts.mean, "W", watts.n, "sensors")
    what = "counter of energy against readings of power, under load"
    pairs = [(idle[sensor].mean, loaded[sensor].mean) for sensor in (COUNTED_POWER, "power GPU")]
    (idle_counted, counted), (idle_read, read) = pairs
    if counted is None or read is None or idle_counted is None or idle_read is None:
        told.find(what, "unknown", "it takes both; the reason is with the one that is not told")
        return
    ratio = counted / read
    passed = abs(ratio - 1) <= APART and counted > idle_counted and read > idle_read
    why = (
        f"{counted:.4g} W counted, {read:.4g} W read, at most {APART:.0%} apart; idle {idle_counted:.4g} and "
        f"{idle_read:.4g} W, which must be less"
    )
    told.find(what, "passed" if passed else "failed", why, ratio, "times", loaded[COUNTED_POWER].n, "sensors")
