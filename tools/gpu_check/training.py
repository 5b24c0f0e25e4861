"""Training on CUDA against the CPU: losses step by step, in every way of computing."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_check.small import SMALL, TRAINING, write_images
from gpu_check.told import Told, attempt, need_cuda


class _Losses:
    """An observer that keeps the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_images(self, done: int, total: int) -> None:
        pass

    def on_start(self, remarks: tuple[str, ...]) -> None:
        pass

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        self.losses.append(loss)

    def on_epoch(self, epoch: Any) -> None:
        pass


def trained(folder: Path, images: Path, device: str, options: Sequence[str] = ()) -> tuple[list[float], bytes]:
    """Losses by step, and the weights that came of them."""
    import floats_edge as fe

    watched = _Losses()
    run = fe.train("quickstart", folder, options=(*SMALL, *options), data=images, device=device, observer=watched)
    return watched.losses, b"".join(array.tobytes() for _, array in sorted(run.weights().items()))


def trained_alike(folder: Path, images: Path, device: str, options: Sequence[str] = ()) -> tuple[list[float], bytes]:
    """The same, with random numbers of the CPU's generator on every device: else devices attack unlike images."""
    import torch
    from torch.overrides import TorchFunctionMode

    class DrawnOnCpu(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator().manual_seed(0)

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func not in (torch.Tensor.uniform_, torch.Tensor.normal_) or kwargs.get("generator") is None:
                return func(*args, **kwargs)
            drawn = func(torch.empty_like(args[0], device="cpu"), *args[1:], generator=self.generator)
            return args[0].copy_(drawn)

    with DrawnOnCpu():
        return trained(folder, images, device, options)


FIRST, LATER = 1e-3, 0.1
"""Relative differences of losses that are let pass: of the first step in one precision, and of all others. An attack
takes signs of gradients, which rounding turns over near zero, and every step builds on the one before."""


WAYS = {
    "TF32": (("train.float32=tf32",), LATER),
    "amp bf16": (("train.amp=bf16",), LATER),
    "amp fp16": (("train.amp=fp16",), LATER),
    "CUDA graphs": (("train.float32=ieee", "train.cuda_graphs=true"), FIRST),
    "CUDA graphs, amp bf16": (("train.amp=bf16", "train.cuda_graphs=true"), LATER),
    "compiled": (("train.float32=ieee", "train.compile=true"), FIRST),
    "compiled, amp bf16": (("train.amp=bf16", "train.compile=true"), LATER),
}
"""Options of a training, and what the loss of its first step may be apart."""


def training(told: Told, quick: bool, device: str = "cuda") -> None:
    """Losses on CUDA against those of the CPU, and every way of computing on CUDA against IEEE float32 there."""
    from floats_edge.profiling.isolation import run_isolated

    del quick
    on = need_cuda() if device == "cuda" else device
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        images = write_images(place / "images")

        def losses(name: str, *options: str, on: str = device, how: Any = trained) -> tuple[list[float], bytes] | None:
            folder = place / name.replace(" ", "-")
            work = lambda: run_isolated(how, folder, images, on, options)  # noqa: E731
            return attempt(told, f"training, {name}", None if on == "cpu" else "training", work)

        ieee = "train.float32=ieee"
        cpu = losses("on the CPU", on="cpu", how=trained_alike)
        same = losses("IEEE float32, random numbers of the CPU", ieee, how=trained_alike)
        if cpu and same:
            _compare(told, f"IEEE float32 on {on} against the CPU", same[0], cpu[0], FIRST)
        plain = losses("IEEE float32", ieee)
        runs = [losses(f"deterministic {number}", "train.deterministic=true") for number in (1, 2)]
        if all(runs):
            why = f"same losses and weights, bit for bit; {TRAINING}"
            told.find(
                f"deterministic, twice on {on}", "passed" if runs[0] == runs[1] else "failed", why, path="training"
            )
        for name, (options, first) in WAYS.items():
            if plain and (found := losses(name, *options)):
                _compare(told, f"{name} against IEEE float32, on {on}", found[0], plain[0], first)
        _workers(told, place, images)


def _compare(told: Told, what: str, found: Sequence[float], wanted: Sequence[float], first: float = LATER) -> None:
    """Judge losses by step, of which the first may be apart by ``first``."""
    apart = [abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True)]
    why = (
        f"largest relative difference of the loss of a step, at most {LATER:g}; of the first step {apart[0]:.1e}, at "
        f"most {first:g}; {TRAINING}"
    )
    passed = apart[0] <= first and max(apart) <= LATER
    told.find(f"losses: {what}", "passed" if passed else "failed", why, max(apart), n=len(apart), path="training")


def _workers(told: Told, place: Path, images: Path) -> None:
    """Two workers over NCCL learn as one does."""
    import torch

    from floats_edge.artifacts.checkpoint import open_run

    what = "two workers over NCCL"
    if torch.cuda.device_count() < 2:
        told.find(what, "skipped", f"NCCL gives each worker a GPU of its own; there are {torch.cuda.device_count()}")
        return

    def together() -> list[list[float]]:
        words = [word for option in (*SMALL, "train.float32=ieee") for word in ("-o", option)]
        words = ["-m", "floats_edge", "train", "quickstart", *words, "--device", "cuda", "--data-dir", str(images)]
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
        for name, command in (("alone", words), ("together", [*launcher, *words])):
            subprocess.run([sys.executable, *command, "--out", str(place / name)], check=True)
        return [[e.loss for e in open_run(place / name).checkpoint.history] for name in ("together", "alone")]

    if found := attempt(told, what, "training", together):
        _compare(told, f"{what} against one", *found)
