"""Clean and attacked accuracy over lambda, of whatever runs behind a Predictor.

The attack takes its gradients from a twin (the folded fp32 network at that lambda) and the resulting images are
replayed on the engine under evaluation; an image counts as robust if the engine classifies it correctly clean
*and* attacked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from floats_edge.artifacts.accuracy import LambdaResult, Share
from floats_edge.attacks import Network, attack, square
from floats_edge.errors import ArtifactError
from floats_edge.evaluation.autoattack import autoattack
from floats_edge.evaluation.batch import LARGEST_BATCH
from floats_edge.images import Images
from floats_edge.method.batchnorm import SETTLING
from floats_edge.recipe import Attack
from floats_edge.runtime.base import Predictor


class Attackable(Protocol):
    """A network that gradients can be taken from."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def network(self) -> Network:
        """Logits of images, differentiable in the images."""
        ...


class Twin(Attackable, Protocol):
    """One at a selectable lambda."""

    def set_lambda(self, lam: float) -> float:
        """Switch to ``lam``."""
        ...


class Unsettled(Twin, Protocol):
    """A twin that draws noise at every call, its BatchNorm of another draw."""

    def settle(self, batches: Sequence[np.ndarray]) -> None:
        """Re-estimate statistics on attacked images ``[N, C, H, W]``."""
        ...


@dataclass(frozen=True, eq=False)
class Judged:
    """A batch of images, clean and attacked, and what an engine took them for.

    Attributes:
        clean: float32 ``[n, C, H, W]`` in [0, 1], as ``attacked``.
        truth: true classes, int64 ``[n]``.
        clean_answers: classes by the engine, int64 ``[n]``, as ``attacked_answers``.
        clean_confidence: how sure it was, the largest softmax probability, float64 ``[n]``, as ``attacked_confidence``.
        flags: why AutoAttack doubts that it is reliable here.
    """

    clean: np.ndarray
    attacked: np.ndarray
    truth: np.ndarray
    clean_answers: np.ndarray
    attacked_answers: np.ndarray
    clean_confidence: np.ndarray
    attacked_confidence: np.ndarray
    flags: tuple[str, ...]

    @property
    def right(self) -> np.ndarray:
        """Whether each image is right clean: bool ``[n]``."""
        return self.clean_answers == self.truth

    @property
    def withstood(self) -> np.ndarray:
        """Whether each image is right clean and attacked: bool ``[n]``."""
        return self.right & (self.attacked_answers == self.truth)


def judge(
    engine: Predictor,
    twin: Twin,
    images: Images,
    lam: float,
    config: Attack,
    seed: int,
    eot: int = 1,
    batch: int = LARGEST_BATCH,
) -> Iterator[Judged]:
    """Show ``engine`` all images at ``lam``, clean and attacked; at every lambda with the same random starts.

    Args:
        engine: what is evaluated.
        twin: where the attack's gradients come from; may be the engine itself.
        images: labelled images.
        lam: the lambda.
        config: the attack.
        seed: of the attack's random starts.
        eot: calls of a twin that draws noise at every call, over which each gradient of PGD is averaged; at lambda 0,
            where there is no noise, one call gives the same.
        batch: images at a time.

    Raises:
        LambdaError: the engine does not serve ``lam``.
        ArtifactError: its logits are no numbers.
    """
    engine.set_lambda(lam)
    twin.set_lambda(lam)
    generator = torch.Generator(twin.device).manual_seed(seed)
    for pixels, labels in images.batches(batch):
        attacked, flags = attacked_batch(twin, pixels, labels, generator, config, draws=eot if lam > 0 else 1)
        clean_logits, attacked_logits = _logits(engine, pixels), _logits(engine, attacked)
        yield Judged(
            clean=pixels,
            attacked=attacked,
            truth=labels,
            clean_answers=clean_logits.argmax(1),
            attacked_answers=attacked_logits.argmax(1),
            clean_confidence=confidence(clean_logits),
            attacked_confidence=confidence(attacked_logits),
            flags=flags,
        )


def evaluate(
    engine: Predictor,
    twin: Twin,
    images: Images,
    lambdas: Sequence[float],
    config: Attack,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
    eot: int = 1,
    batch: int = LARGEST_BATCH,
) -> tuple[LambdaResult, ...]:
    """Accuracy at each of ``lambdas``.

    Args:
        engine: as the other arguments, see :func:`judge`.
        twin: likewise.
        images: likewise.
        lambdas: the lambdas to evaluate.
        config: likewise.
        seed: likewise.
        progress: told how many (image, lambda) pairs the last batch finished.
        eot: likewise.
        batch: likewise.

    Raises:
        LambdaError: the engine does not serve one of the lambdas.
        ArtifactError: its logits are no numbers.
    """
    results: list[LambdaResult] = []
    for lam in lambdas:
        clean = robust = 0
        flags: dict[str, None] = {}
        for part in judge(engine, twin, images, lam, config, seed, eot, batch):
            clean += int(part.right.sum())
            robust += int(part.withstood.sum())
            flags |= dict.fromkeys(part.flags)
            progress(len(part.truth))
        total = len(images)
        shares = Share(count=clean, total=total), Share(count=robust, total=total)
        results.append(LambdaResult(lam=lam, clean=shares[0], robust=shares[1], flags=tuple(flags)))
    return tuple(results)


def withstands_square(
    engine: Predictor,
    images: Images,
    lam: float,
    epsilon: float,
    queries: int,
    seed: int,
    batch: int = LARGEST_BATCH,
) -> Share:
    """Share of images that ``engine`` gets right, clean and after the Square attack on the engine itself.

    Args:
        engine: what is attacked; only its logits are seen, so it may be quantised or on any device.
        images: labelled images.
        lam: the lambda to attack at.
        epsilon: largest change of a pixel.
        queries: per image.
        seed: of the attack.
        batch: images at a time.

    Raises:
        LambdaError: the engine does not serve ``lam``.
        ArtifactError: its logits are no numbers.
    """
    engine.set_lambda(lam)
    generator = torch.Generator().manual_seed(seed)
    right = 0
    for pixels, labels in images.batches(batch):
        victims, truths = torch.from_numpy(pixels), torch.from_numpy(labels)
        attacked = square(_logits_of(engine), victims, truths, generator, epsilon, queries).numpy()
        right += int(((answers(engine, attacked) == labels) & (answers(engine, pixels) == labels)).sum())
    return Share(count=right, total=len(images))


def _logits_of(engine: Predictor) -> Network:
    return lambda images: torch.from_numpy(engine.predict(images.numpy()))


def answers(engine: Predictor, images: np.ndarray) -> np.ndarray:
    """The classes that ``engine`` takes images for: int64 ``[N]``.

    Raises:
        ArtifactError: its logits are no numbers.
    """
    return _logits(engine, images).argmax(1)


def confidence(logits: np.ndarray) -> np.ndarray:
    """The largest softmax probability of every row of ``[N, classes]``: float64 ``[N]``."""
    exact = logits.astype(np.float64)
    return 1 / np.exp(exact - exact.max(1, keepdims=True)).sum(1)


def _logits(engine: Predictor, images: np.ndarray) -> np.ndarray:
    """Those of ``engine``: float32 ``[N, classes]``."""
    logits = engine.predict(images)
    if not np.isfinite(logits).all():
        raise ArtifactError(
            f"at lambda {engine.lam:g} the network on {engine.backend} gives logits that are no numbers: there is no "
            "accuracy to state.",
            fix="train it again with a lower train.lr; if it is a bundle in another precision, export it in fp32",
        )
    return logits


def attacked_images(
    twin: Twin, images: Images, lam: float, config: Attack, seed: int, batch: int = LARGEST_BATCH
) -> Iterator[np.ndarray]:
    """The images attacked on ``twin`` at ``lam``: float32 ``[n, C, H, W]`` in [0, 1], ``batch`` at a time."""
    twin.set_lambda(lam)
    generator = torch.Generator(twin.device).manual_seed(seed)
    for pixels, labels in images.batches(batch):
        yield attacked_batch(twin, pixels, labels, generator, config)[0]


def settle(network: Unsettled, images: Images, config: Attack, seed: int, batch: int = LARGEST_BATCH) -> None:
    """Make a network that draws noise at every call ready to be evaluated.

    Args:
        network: at whose lambda 1 the images are attacked.
        images: training images, of which the first 16 batches are used, as in training.
        config: the attack of training.
        seed: of the attack.
        batch: images at a time.
    """
    network.settle(list(attacked_images(network, images.first(SETTLING * batch), 1.0, config, seed, batch)))


def attacked_batch(
    twin: Attackable, pixels: np.ndarray, labels: np.ndarray, generator: torch.Generator, config: Attack, draws: int = 1
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Attacked images, and the reliability flags that the attack raised."""
    images = torch.from_numpy(pixels).to(twin.device).contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels).to(twin.device)
    if config.kind == "autoattack":
        attacked, flags = autoattack(twin.network, images, targets, generator, config.epsilon)
    else:
        options = config.model_dump(exclude_none=True)
        attacked, flags = attack(twin.network, images, targets, generator, **options, draws=draws), ()
    return attacked.contiguous().cpu().numpy(), flags
