"""Clean and attacked accuracy over lambda, of whatever runs behind a Predictor.

The attack takes its gradients from a twin (the folded fp32 network at that lambda) and the resulting images are
replayed on the engine under evaluation; an image counts as robust if the engine classifies it correctly clean
*and* attacked.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from floats_edge.artifacts.records import LambdaResult, Share
from floats_edge.attacks import Network, attack
from floats_edge.data import Images
from floats_edge.recipe import Attack
from floats_edge.runtime.base import Predictor

BATCH = 128


class Twin(Protocol):
    """A network that gradients can be taken from, at a selectable lambda."""

    device: torch.device

    @property
    def network(self) -> Network:
        """Logits of images, differentiable in the images."""
        ...

    def set_lambda(self, lam: float) -> float:
        """Switch to ``lam``."""
        ...


def evaluate(
    engine: Predictor,
    twin: Twin,
    images: Images,
    lambdas: Sequence[float],
    config: Attack,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[LambdaResult, ...]:
    """Measure ``engine`` at each lambda on the same images, with the same random starts of the attack.

    Args:
        engine: what is evaluated.
        twin: where the attack's gradients come from; may be the engine itself.
        images: labelled images.
        lambdas: the lambdas to evaluate.
        config: the attack.
        seed: of the attack's random starts.
        progress: told how many (image, lambda) pairs the last batch finished.

    Raises:
        LambdaError: the engine does not serve one of the lambdas.
    """
    results: list[LambdaResult] = []
    for lam in lambdas:
        engine.set_lambda(lam)
        twin.set_lambda(lam)
        generator = torch.Generator(twin.device).manual_seed(seed)
        clean = robust = 0
        for start in range(0, len(images), BATCH):
            batch = slice(start, start + BATCH)
            pixels, labels = images.as_float(batch), images.labels[batch]
            attacked = _attack(twin, pixels, labels, generator, config)
            right = engine.predict(pixels).argmax(1) == labels
            clean += int(right.sum())
            robust += int((right & (engine.predict(attacked).argmax(1) == labels)).sum())
            progress(len(labels))
        total = len(images)
        results.append(
            LambdaResult(lam=lam, clean=Share(count=clean, total=total), robust=Share(count=robust, total=total))
        )
    return tuple(results)


def _attack(
    twin: Twin, pixels: np.ndarray, labels: np.ndarray, generator: torch.Generator, config: Attack
) -> np.ndarray:
    images = torch.from_numpy(pixels).to(twin.device).contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels).to(twin.device)
    attacked = attack(twin.network, images, targets, generator, **config.model_dump())
    return attacked.contiguous().cpu().numpy()
