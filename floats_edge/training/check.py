"""What every epoch is checked for: numbers that are none, accuracy, catastrophic overfitting, a collapsed condition."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from floats_edge.attacks import Network, attack, pgd
from floats_edge.errors import RecipeError
from floats_edge.recipe import Attack
from floats_edge.training.feed import Batch
from floats_edge.training.steps import Step

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


def check(step: Step, batches: Callable[[], Iterable[Batch]], config: Attack, generator: torch.Generator) -> Check:
    """Measure the network in training, attacked within the epsilon of the attack of training.

    Args:
        step: knows the network.
        batches: gives the images to measure it on, each time anew, as many at once as training takes.
        config: the attack of training.
        generator: of the random starts.

    Raises:
        RecipeError: its logits are no numbers.
    """

    def by_pgd(images: Tensor, labels: Tensor) -> Tensor:
        return pgd(network, images, labels, generator, config.epsilon, config.epsilon / 4, PGD_STEPS)

    def as_trained(images: Tensor, labels: Tensor) -> Tensor:
        return attack(network, images, labels, generator, **config.model_dump(exclude_none=True))

    clean = _accuracy(step.at(0.0), batches())
    network = step.at(1.0)
    robust = _accuracy(network, ((by_pgd(*batch), batch[1]) for batch in batches()))
    if config.kind == "pgd":
        return Check(clean, robust)
    return Check(clean, robust, _accuracy(network, ((as_trained(*batch), batch[1]) for batch in batches())))


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


def images_remark(measured: int, there: int) -> str:
    """What to say of the accuracies of all epochs."""
    images = f"{measured:,} of {there:,} validation images"
    return f"accuracy after each epoch is of {images}, robust accuracy under PGD-{PGD_STEPS}"


def overfitting_remark(result: Check, remedy: str) -> str | None:
    """What to say of a check; ``remedy`` is what happens or may be done next."""
    if not result.overfitted:
        return None
    return (
        f"catastrophic overfitting: {result.single_step:.1f} % under the attack of training, "
        f"{result.robust:.1f} % under PGD; {remedy}"
    )


def collapsed_remark(alpha: Mapping[str, float], initial: float) -> str | None:
    """What to say of trained alphas that began at ``initial``; None if the noise is alive or there is none."""
    least = min(COLLAPSED_ALPHA, initial / 2)
    largest = max(map(abs, alpha.values()), default=least)
    if largest >= least:
        return None
    return f"the noise has collapsed: no |alpha| above {largest:.3f}, so that lambda moves little but the BatchNorm"


@torch.no_grad()
def _accuracy(network: Network, batches: Iterable[Batch]) -> float:
    right = total = 0
    for images, labels in batches:
        logits = network(images)
        if not logits.isfinite().all():
            raise diverged("the network gives logits that are no numbers")
        right += int((logits.argmax(1) == labels).sum())
        total += len(labels)
    return 100.0 * right / total
