"""How fast networks train: images/s, and how many kernels a step launches for how long the GPU works."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpu_check.told import Told, attempt, need_cuda


@dataclass(frozen=True)
class Bench:
    """A network, and the images that it is trained on.

    Attributes:
        network: recipe overrides.
        size: height and width of an image of 3 channels.
        batch: images in a step.
    """

    name: str
    network: tuple[str, ...]
    size: int = 32
    batch: int = 256


QUICK = (
    Bench("ResNet-8, width 16", ("model.name=resnet8", "model.arguments.width=16")),
    Bench("ResNet-18, width 64", ("model.name=resnet18", "model.arguments.width=64")),
)
EVERY = (
    *QUICK,
    Bench("WRN-16-8", ("model.name=wrn-16-8", "model.arguments={}")),
    Bench("MobileNetV2 (torchvision), width 1", ("model={source: torchvision, name: mobilenet_v2}",), 96, 128),
)
WAYS = {
    "IEEE float32": ("train.float32=ieee",),
    "TF32": ("train.float32=tf32",),
    "TF32, CUDA graphs": ("train.float32=tf32", "train.cuda_graphs=true"),
    "bf16": ("train.amp=bf16",),
    "bf16, CUDA graphs": ("train.amp=bf16", "train.cuda_graphs=true"),
    "bf16, compiled": ("train.amp=bf16", "train.compile=true"),
}
PGD = ("attack={kind: pgd, epsilon: 8/255, step: 2/255, steps: 7}", "sparsity.density=1")


@dataclass(frozen=True)
class Pace:
    """Of one training: median seconds of a step, kernels launched in one, and seconds that the GPU works in one."""

    seconds: float
    rounds: int
    launches: float | None
    busy: float | None


def speed(told: Told, quick: bool, device: str = "cuda", benches: Sequence[Bench] = ()) -> None:
    """Every network in every way of computing, each in a process of its own."""
    from floats_edge.profiling.isolation import run_isolated

    if device == "cuda":
        need_cuda()
    for way, options in WAYS.items():
        for bench in benches or (QUICK if quick else EVERY):
            what = f"{bench.name}, {way}"
            rounds = 10 if quick else 40
            pace = attempt(told, what, "training", lambda: run_isolated(measured, bench, options, device, rounds))  # noqa: B023
            if pace is not None:
                _tell(told, what, bench, pace)


def _tell(told: Told, what: str, bench: Bench, pace: Pace) -> None:
    images = f"{bench.batch} random images of 3x{bench.size}x{bench.size}"
    why = f"FLOAT, PGD-7, dense, batch {images}; median step of {pace.rounds} after 3 of warm-up"
    told.find(f"{what}: images/s", "measured", why, bench.batch / pace.seconds, "images/s", pace.rounds, "training")
    traced = "torch.profiler, mean of 3 steps; "
    if pace.launches is None or pace.busy is None:
        told.find(f"{what}: launches, idle share", "unknown", "torch.profiler saw no kernels of a GPU")
        return
    idle = max(0.0, 1 - pace.busy / pace.seconds)
    told.find(f"{what}: launches", "measured", f"{traced}kernels and graphs", pace.launches, "a step", 3, "training")
    told.find(f"{what}: idle share of the GPU", "measured", f"{traced}1 - time in kernels / median step without it",
              100 * idle, "%", 3, "training")  # fmt: skip


def measured(bench: Bench, options: Sequence[str], device: str, rounds: int) -> Pace:
    """Time steps of a training, then count what they launch."""
    import numpy as np
    import torch

    from floats_edge.data import Splits
    from floats_edge.images import Images
    from floats_edge.recipe_file import load_recipe
    from floats_edge.training.execution import torch_settings
    from floats_edge.training.loop import Trainer
    from floats_edge.training.statistics import image_spec

    fixed = (f"train.batch_size={bench.batch}", f"data.preprocessing.size={bench.size}", "data.dataset=given")
    recipe = load_recipe("quickstart", (*bench.network, *PGD, *fixed, *options))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (bench.batch, 3, bench.size, bench.size), dtype=np.uint8)
    images = Images(rng.integers(0, 10, bench.batch), pixels.__getitem__)
    splits = Splits(images, images, images, tuple(map(str, range(10))))
    place = torch.device(device)
    with torch_settings(recipe.train, place):
        trainer = Trainer(recipe, splits, image_spec(recipe, splits), place)
        generator = torch.Generator(device).manual_seed(0)
        (batch,) = trainer.feed.batches(0)

        def step() -> None:
            trainer.update(*batch, generator).total.item()  # reading the loss waits for the device

        times = [_seconds(step) for _ in range(3 + rounds)][3:]
        launches, busy = _traced(step, device)
    return Pace(float(np.median(times)), rounds, launches, busy)


def _seconds(step: Any) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _traced(step: Any, device: str, steps: int = 3) -> tuple[float | None, float | None]:
    """Launches, and seconds in which a kernel ran, of a step; None without a GPU."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    if device == "cpu":
        return None, None
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        for _ in range(steps):
            step()
    events = trace.events() or ()
    launches = sum(event.name.startswith(("cudaLaunch", "cuLaunch", "cudaGraphLaunch")) for event in events)
    kernels = [
        event.time_range
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]
    spans = sorted((span.start, span.end) for span in kernels)
    if not spans:
        return None, None
    return launches / steps, union(spans) / 1e6 / steps


def union(spans: Sequence[tuple[float, float]]) -> float:
    """Length of what sorted spans cover together."""
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
