"""What a change of lambda costs by its parts, and what it would cost if weights were computed on the GPU."""

import time
from collections.abc import Callable

from gpu_check.told import CannotRunError, Told, need_cuda

SIZES = {"ResNet-18, width 64": 11_200_000, "ResNet-8, width 16": 80_000}
"""Weights that depend on lambda, about."""
ROUNDS = 30
LAMBDA = 0.3


def switch(told: Told, device: str = "cuda") -> None:
    """As a ``bound`` engine in fp32 does it: W = base + lambda * slope on the host, then one page-locked copy.

    Beside them the same sum on the GPU, where base and slope would have to lie: whether a kernel for it would pay.
    """
    what = "change of lambda"
    try:
        if device == "cuda":
            need_cuda()
    except CannotRunError as reason:
        told.find(f"{what}, by its parts", "skipped", str(reason))
        return
    for name, size in SIZES.items():
        why = f"{size:,} weights in fp32 (about a {name}); one thread; median"
        for part, work in _parts(size, device).items():
            told.find(f"{what}, {name}: {part}", "measured", why, _median_ms(work), "ms", ROUNDS)


def _parts(size: int, device: str) -> dict[str, Callable[[], object]]:
    import numpy as np
    import torch

    base, slope = (np.random.default_rng(seed).random(size, np.float32) for seed in (0, 1))
    staged = torch.empty(size, pin_memory=device == "cuda")
    here = staged.numpy()
    on_gpu, there_base, there_slope = (torch.rand(size, device=device) for _ in range(3))

    def computed() -> None:
        np.multiply(slope, np.float32(LAMBDA), out=here)
        np.add(here, base, out=here)

    def copied() -> None:
        on_gpu.copy_(staged, non_blocking=True)
        wait()

    def computed_there() -> None:
        torch.add(there_base, there_slope, alpha=LAMBDA, out=on_gpu)
        wait()

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    host, copy, there = "computed on the host", "copied to the GPU", "computed on the GPU instead"
    return {host: computed, copy: copied, there: computed_there}


def _median_ms(work: Callable[[], object]) -> float:
    import numpy as np

    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))
