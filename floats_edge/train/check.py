"""What every epoch is checked for: numbers that are none, accuracy, catastrophic overfitting, a collapsed condition."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from floats_edge.attacks import Network, attack, pgd
from floats_edge.errors import RecipeError
from floats_edge.recipe import Attack
from floats_edge.train.steps import Step

IMAGES = 512
PGD_STEPS = 10
OVERFITTED_RATIO, OVERFITTED_GAP = 0.5, 10.0
COLLAPSED_ALPHA = 0.05
FALLBACK_STEPS = 7


@dataclass(frozen=True)
class Check:
    """Accuracies in percent: clean at lambda = 0, the others attacked at lambda = 1.

    Attributes:
        clean: of clean images.
        robust: under PGD.
        single_step: under the attack of training, if that takes a single step.
    """

    clean: float
    robust: float
    single_step: float | None = None

    @property
    def overfitted(self) -> bool:
        """Whether training has overfitted catastrophically (Wong et al., ICLR 2020).

        The network then withstands the single-step attack that it is trained on and fails under PGD. The rule [ours]:
        robust accuracy under PGD is less than half of that under the attack of training, and at least 10 points below.
        """
        if self.single_step is None:
            return False
        gap = self.single_step - self.robust
        return self.robust < OVERFITTED_RATIO * self.single_step and gap >= OVERFITTED_GAP


def check(step: Step, images: Tensor, labels: Tensor, config: Attack, generator: torch.Generator) -> Check:
    """Measure the network in training on ``images``, attacked within the epsilon of the attack of training.

    Raises:
        RecipeError: its logits are no numbers.
    """
    clean = _accuracy(step.at(0.0), images, labels)
    network = step.at(1.0)
    attacked = pgd(network, images, labels, generator, config.epsilon, config.epsilon / 4, PGD_STEPS)
    robust = _accuracy(network, attacked, labels)
    if config.kind == "pgd":
        return Check(clean, robust)
    attacked = attack(network, images, labels, generator, **config.model_dump())
    return Check(clean, robust, _accuracy(network, attacked, labels))


def diverged(what: str) -> RecipeError:
    """The error of a training that has destroyed its network; ``what`` is how that shows."""
    return RecipeError(
        f"training diverged: {what}.",
        fix="lower train.lr or raise train.warmup; the last epoch that was saved is kept",
    )


def check_numbers(network: nn.Module) -> None:
    """Check that parameters and statistics are numbers: the loss of a step is older than what the step did to them.

    Raises:
        RecipeError: they are not.
    """
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise diverged(f"{name} holds values that are no numbers")


def fallback(config: Attack) -> Attack:
    """The attack that takes over from one that was overfitted."""
    return Attack(kind="pgd", epsilon=config.epsilon, step=None, steps=FALLBACK_STEPS)


def overfitting_remark(result: Check, remedy: str) -> str | None:
    """What to say of a check; ``remedy`` is what happens or may be done next."""
    if not result.overfitted:
        return None
    return (
        f"catastrophic overfitting: {result.single_step:.1f} % under the attack of training, "
        f"{result.robust:.1f} % under PGD; {remedy}"
    )


def collapsed_remark(alpha: Mapping[str, float]) -> str | None:
    """What to say of the trained alphas; None if the noise is alive, or there is none to train."""
    largest = max(map(abs, alpha.values()), default=COLLAPSED_ALPHA)
    if largest >= COLLAPSED_ALPHA:
        return None
    return f"the noise has collapsed: no |alpha| above {largest:.3f}, so that lambda moves little but the BatchNorm"


@torch.no_grad()
def _accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    logits = network(images)
    if not logits.isfinite().all():
        raise diverged("the network gives logits that are no numbers")
    return 100.0 * (logits.argmax(1) == labels).float().mean().item()
