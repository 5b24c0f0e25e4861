"""Attack a network at every lambda, and on the sum over all, and show what comes out to it at every lambda."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from floats_edge.artifacts.transfer import Transfer
from floats_edge.evaluation.batch import LARGEST_BATCH
from floats_edge.evaluation.robustness import Twin, answers, attacked_batch
from floats_edge.images import Images
from floats_edge.recipe import Attack
from floats_edge.runtime.base import Predictor


@dataclass(eq=False)
class _InTurn:
    """A twin that is at the next of some lambdas at every call."""

    twin: Twin
    lambdas: Sequence[float]
    calls: int = field(default=0, init=False)

    @property
    def device(self) -> torch.device:
        return self.twin.device

    def network(self, images: Tensor) -> Tensor:
        self.twin.set_lambda(self.lambdas[self.calls % len(self.lambdas)])
        self.calls += 1
        return self.twin.network(images)


def measure_transfer(
    engine: Predictor,
    twin: Twin,
    images: Images,
    lambdas: Sequence[float],
    config: Attack,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
    batch: int = LARGEST_BATCH,
) -> Transfer:
    """Count what withstands attacks made at each of ``lambdas``, and on the sum of their losses, at each of them.

    Args:
        engine: what is evaluated.
        twin: where gradients come from; may be the engine itself.
        images: labelled images.
        lambdas: two or more.
        config: PGD.
        seed: of the random starts, which are those of :func:`~floats_edge.evaluation.robustness.judge`.
        progress: told how many (image, attacker) pairs the last batch finished.
        batch: images at a time.

    Raises:
        LambdaError: the engine does not serve one of the lambdas.
        ArtifactError: its logits are no numbers.
    """
    attackers = len(lambdas) + 1
    generators = [torch.Generator(twin.device).manual_seed(seed) for _ in range(attackers)]
    withstood = np.zeros((attackers, len(lambdas)), int)
    clean, by_all = np.zeros(len(lambdas), int), np.zeros(len(lambdas), int)
    for pixels, labels in images.batches(batch):
        attacked = []
        for lam, generator in zip((*lambdas, None), generators, strict=True):
            if lam is None:
                network, draws = _InTurn(twin, lambdas), len(lambdas)
            else:
                twin.set_lambda(lam)
                network, draws = twin, 1
            attacked.append(attacked_batch(network, pixels, labels, generator, config, draws)[0])
            progress(len(labels))
        for place, lam in enumerate(lambdas):
            engine.set_lambda(lam)
            right = answers(engine, pixels) == labels
            standing = [right & (answers(engine, images) == labels) for images in attacked]
            clean[place] += right.sum()
            withstood[:, place] += [row.sum() for row in standing]
            by_all[place] += np.logical_and.reduce(standing).sum()
    return Transfer(
        lambdas=tuple(lambdas),
        images=len(images),
        clean=tuple(clean.tolist()),
        by_lambda=tuple(map(tuple, withstood[:-1].tolist())),
        by_sum=tuple(withstood[-1].tolist()),
        by_all=tuple(by_all.tolist()),
    )
