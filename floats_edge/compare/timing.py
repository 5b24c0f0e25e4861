"""What an epoch of each variant takes on this machine."""

import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain, count

import numpy as np
import torch

from floats_edge.artifacts.study import Timing
from floats_edge.data import Splits
from floats_edge.networks.spec import NO_CODE, Code
from floats_edge.recipe import Recipe, Train
from floats_edge.training.execution import layers_draw, torch_settings
from floats_edge.training.loop import Trainer
from floats_edge.training.optimizer import set_learning_rate
from floats_edge.training.statistics import image_spec

TURNS = 12
"""Steps of each variant that are timed."""
_WARM_UP = 3


def time_epochs(
    recipes: Mapping[str, Recipe], splits: Splits, device: str = "cpu", code: Code = NO_CODE
) -> dict[str, Timing]:
    """Seconds of an epoch by variant, without its check on validation images; what was learned is thrown away.

    Every turn takes a batch, and one step of each variant with it: what else the machine does meets all alike. Images
    that are streamed are read while other steps are timed, so an epoch that waits for images takes longer than this.

    Args:
        recipes: that share images, batch size and seed.
        splits: their images.
        device: a torch device.
        code: of the user's that stands for the network.
    """
    first, place = next(iter(recipes.values())), torch.device(device)
    with torch_settings(first.train, place), layers_draw(first.seed, place):
        kind = image_spec(first, splits)
        trainers = {name: Trainer(recipe, splits, kind, place, code=code) for name, recipe in recipes.items()}
        for trainer in trainers.values():
            set_learning_rate(trainer.optimizer, first.train, 0.0)
        generator = torch.Generator(place).manual_seed(first.seed)
        batches = chain.from_iterable(map(next(iter(trainers.values())).feed.batches, count()))
        steps: dict[str, list[float]] = {name: [] for name in trainers}
        for _ in range(_WARM_UP + TURNS):
            start = time.perf_counter()
            batch = next(batches)
            feeding = time.perf_counter() - start
            for name, trainer in trainers.items():
                start = time.perf_counter()
                trainer.update(*batch, generator).total.item()  # reading the loss waits for the device
                steps[name].append(feeding + time.perf_counter() - start)
        ends = {name: _end_seconds(trainer, generator) for name, trainer in trainers.items()}
    where = conditions(device, first.train)
    timings = {}
    for name, trainer in trainers.items():
        epochs = trainer.steps_per_epoch * np.array(steps[name][_WARM_UP:]) + ends[name]
        low, median, high = np.percentile(epochs, (25, 50, 75)).tolist()
        timings[name] = Timing(median=median, low=low, high=high, steps=TURNS, conditions=where)
    return timings


def _end_seconds(trainer: Trainer, generator: torch.Generator) -> float:
    """What an epoch takes after its last step."""
    start = time.perf_counter()
    trainer.settle_frozen(0, generator)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return time.perf_counter() - start


def conditions(device: str, train: Train) -> dict[str, str]:
    """What times on a torch device are taken under: machine, threads, versions; on a GPU, what float32 is there."""
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if on_gpu else platform.machine()
    return {
        "device": f"{device}: {name}",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()}",
        **({"float32": f"trained in {train.float32}, evaluated in ieee"} if on_gpu else {}),
        "torch": torch.__version__,
        "floats-edge": version("floats-edge"),
    }
