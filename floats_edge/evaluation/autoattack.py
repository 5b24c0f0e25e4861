"""AutoAttack (Croce & Hein, ICML 2020), standard version, by pyautoattack: four attacks, any of which may succeed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from floats_edge.attacks import Network
from floats_edge.errors import BackendError, RecipeError, add_extra

FEWEST_CLASSES = 4
"""The targeted loss of AutoAttack compares the four largest logits."""
MOST_TARGETS = 9
"""How many of the other classes the targeted attacks of AutoAttack's standard version aim at."""
_LOGGER = "auto-attack"


def autoattack(
    network: Network, images: Tensor, labels: Tensor, generator: torch.Generator, epsilon: float
) -> tuple[Tensor, tuple[str, ...]]:
    """Adversarial images, and the flags by which AutoAttack doubts that its result is reliable.

    Args:
        network: the network under attack, of at least 4 classes; the targeted attacks aim at 9 others, or at all of
            them if these are fewer.
        images: clean images, ``[N, C, H, W]`` in [0, 1].
        labels: their true classes.
        generator: source of the seed, on the images' device.
        epsilon: largest change of a pixel.

    Raises:
        BackendError: pyautoattack is not installed.
        RecipeError: the network has fewer classes.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise BackendError(f"AutoAttack needs pyautoattack: {error}.", fix=add_extra("train")) from None
    targets = _targets(network, images)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=images.device))
    with _flags() as flags, torch.random.fork_rng():
        attacker = AutoAttack(_Contiguous(network), eps=epsilon, device=images.device, seed=seed)
        attacker.apgd_targeted.n_target_classes = attacker.fab.n_target_classes = targets
        adversarial, _ = attacker.run_standard_evaluation(images.contiguous(), labels, batch_size=len(images))
    return adversarial, tuple(dict.fromkeys(flags))


@torch.no_grad()
def _targets(network: Network, images: Tensor) -> int:
    """How many classes to aim at."""
    classes = network(images[:1]).shape[1]
    if classes < FEWEST_CLASSES:
        raise RecipeError(
            f"AutoAttack needs a network of {FEWEST_CLASSES} classes or more, and this one knows {classes}.",
            fix="attack by PGD: --attack pgd --steps 50 --restarts 5",
        )
    return min(MOST_TARGETS, classes - 1)


class _Contiguous(nn.Module):
    """A network whose gradients are contiguous, as AutoAttack wants them, whatever layout its convolutions choose."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._forward = network

    def forward(self, images: Tensor) -> Tensor:
        images = images.view_as(images)
        if images.requires_grad:
            images.register_hook(lambda gradient: gradient.contiguous())
        return self._forward(images)


@contextmanager
def _flags() -> Iterator[list[str]]:
    """Collect what AutoAttack warns of instead of printing it."""
    flags: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            flags.append(record.getMessage().partition(" See ")[0])

    logger, collector = logging.getLogger(_LOGGER), Collector(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield flags
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
