"""One training step of each method: which images are attacked at which lambda, and what is minimised.

A step also knows its network at a lambda as it will be served (:meth:`Step.at`): what training attacks and what every
epoch is checked on.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

from floats_edge.attacks import Network, attack
from floats_edge.baselines.oat import OatNetwork
from floats_edge.method.batchnorm import SETTLING, reestimate
from floats_edge.method.condition import draw_noise, load_folded, unfilled
from floats_edge.method.conditioning import resample_noise
from floats_edge.method.fold import Rule
from floats_edge.prepare import Prepared
from floats_edge.recipe import Attack, Method, Recipe, TrainingNoise
from floats_edge.training.distributed import Workers
from floats_edge.training.execution import DTYPES
from floats_edge.training.feed import Batch
from floats_edge.training.graphs import Graphs
from floats_edge.training.losses import CrossEntropy, divergence, log_probabilities

NOISE_FREE = sys.float_info.min
"""The lambda at which the adversarial BatchNorm normalises, and the noise is too small to change a weight."""
NEAR = 0.001
"""Standard deviation of the noise that TRADES starts PGD with: at the clean image itself there is no way up."""


@dataclass(frozen=True)
class Losses:
    """Of one batch: what is minimised, and its mean over clean and over attacked images; None: there were none.

    Of TRADES, ``robust`` is the divergence of attacked images from clean ones.
    """

    total: Tensor
    clean: Tensor | None
    robust: Tensor | None


class Step(Protocol):
    """What one method does with one batch, or with a worker's share of it."""

    def losses(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Losses:
        """Losses, differentiable in the network's parameters; their mean over the workers is that of the batch."""
        ...

    def at(self, lam: float) -> Network:
        """The network as served at ``lam``, valid until the next call or update; its parameters need no gradient."""
        ...

    def copy(self) -> None:
        """Make anew what is a copy of the network, after its layers changed their shapes."""


class Folded:
    """A FLOAT or plain network in training, and its folded copies.

    Mixed precision attacks one whose weights are in half precision already: autocast would round them again whenever it
    is called.

    Args:
        prepared: the network, in training.
        recipe: whose rule says how a lambda is served.
        workers: who share every batch.
        loss: what is minimised.
    """

    def __init__(self, prepared: Prepared, recipe: Recipe, workers: Workers, loss: CrossEntropy) -> None:
        self.prepared = prepared
        self.loss = loss
        self.network, self.layers, self.knob = prepared.network, prepared.layers, prepared.knob
        self.workers = workers
        self.rule: Rule = recipe.condition.rule
        self.noise_seed = recipe.condition.noise_seed
        self.half = DTYPES.get(recipe.train.amp)
        self.device_type = next(self.network.parameters()).device.type
        self.compiled, self.recorded = recipe.train.compile, recipe.train.cuda_graphs
        if self.compiled and workers.size == 1:  # BatchNorm over several workers would split its graph at every layer
            self.network.compile()
        self.copy()

    def copy(self) -> None:
        self.attacks, self.updates = Graphs(self.recorded), Graphs(self.recorded and self.workers.size == 1)
        self.folded = unfilled(self.network, self.layers)
        self.rounded = self.folded if self.half is None else unfilled(self.network, self.layers, self.half)
        if self.compiled:
            torch.compiler.reset()  # what was compiled for other shapes counts towards its limit
            for plain in {self.folded, self.rounded}:
                plain.compile()

    def at(self, lam: float) -> Network:
        load_folded(self._copy_in_use, self.layers, self.rule, lam)
        return self._copy_in_use

    @property
    def _copy_in_use(self) -> nn.Module:
        return self.rounded if torch.is_autocast_enabled(self.device_type) else self.folded

    def victim(self) -> Network:
        """The network at lambda = 1, for attacks on always as many images; recorded, where the recipe says so."""
        self.attacks.run("fold", lambda: load_folded(self._copy_in_use, self.layers, self.rule, 1.0))
        return self.attacks.network("attack", self._copy_in_use, learns=False)

    def logits(self, name: str, images: Tensor) -> Tensor:
        """Of the network in training, in the pass of a step that has this name."""
        return self.updates.network(name, self.network, learns=True)(images)

    def attacked(
        self,
        images: Tensor,
        labels: Tensor,
        attack_config: Attack,
        generator: torch.Generator,
        deviation: float | None = None,
        network: Network | None = None,
    ) -> Tensor:
        """``images`` attacked at lambda = 1, or on ``network``; they are this worker's of a batch, or of a part."""
        positions = self.workers.positions(len(images) * self.workers.size)
        options = attack_config.model_dump(exclude_none=True)
        network = network or self.victim()
        return attack(network, images, labels, generator, positions, deviation=deviation, **options)


class FloatStep(Folded):
    """FLOAT: half of the batch clean at lambda = 0, the other half attacked at lambda = 1.

    With ``condition.clean_images: all`` the other half is trained clean too, without noise through the adversarial
    BatchNorm; clean and attacked images then all count alike, a quarter of the loss for each half that is trained clean
    and a quarter for the one that is attacked.
    """

    def __init__(self, prepared: Prepared, recipe: Recipe, workers: Workers, loss: CrossEntropy) -> None:
        super().__init__(prepared, recipe, workers, loss)
        self.all_clean = recipe.condition.clean_images == "all"

    def settle(self, batches: Iterable[Batch], attack_config: Attack, generator: torch.Generator) -> None:
        """Re-estimate the statistics of the adversarial BatchNorm on the first 16 of ``batches``, attacked."""
        attacked = [
            self.attacked(*batch, attack_config, generator, network=self.at(1.0)) for batch in islice(batches, SETTLING)
        ]
        with self.knob.at(1.0):
            reestimate(self.network, lambda: [self.network(images) for images in attacked])

    def losses(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Losses:
        half = len(images) // 2
        first, second, truth = images[:half], images[half:], labels[half:]
        adversarial = self.craft(second, truth, attack_config, generator)
        self.prepared.learn()
        clean = self._loss(0.0, first, labels[:half])
        if not self.all_clean:
            robust = self._loss(1.0, adversarial, truth)
            return Losses((clean + robust) / 2, clean, robust)
        clean = (clean + self._loss(NOISE_FREE, second, truth)) / 2
        robust = self._loss(1.0, adversarial, truth)
        return Losses(clean / 2 + robust / 4, clean, robust)

    def _loss(self, lam: float, images: Tensor, labels: Tensor) -> Tensor:
        with self.knob.at(lam):
            return self.loss.mean(self.logits(f"lambda {lam}", images), labels)

    def craft(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Tensor:
        """Attacked images for an update, which follows under the noise that is left in the network."""
        return self.attacked(images, labels, attack_config, generator)


class ResampledFloatStep(FloatStep):
    """FLOAT with fresh noise for every batch, which attack and update share."""

    def craft(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Tensor:
        resample_noise(self.network, generator)
        return super().craft(images, labels, attack_config, generator)

    def settle_frozen(self, batches: Iterable[Batch], attack_config: Attack, generator: torch.Generator) -> None:
        """Make the network ready for the draw that is deployed: take up the frozen noise, and settle under it."""
        draw_noise(self.network, self.noise_seed)
        self.settle(batches, attack_config, generator)


class RedrawnFloatStep(ResampledFloatStep):
    """FLOAT with fresh noise for every forward with noise: in each step of the attack, and in the update."""

    def craft(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Tensor:
        def redrawn(batch: Tensor) -> Tensor:
            resample_noise(self.network, generator)
            return self.victim()(batch)

        adversarial = self.attacked(images, labels, attack_config, generator, network=redrawn)
        resample_noise(self.network, generator)
        return adversarial


class AdversarialStep(Folded):
    """PGD adversarial training (Madry et al., ICLR 2018): the whole batch attacked.

    With a weight below 1 the batch is trained clean, too, as in the baseline of OAT (Wang et al., NeurIPS 2020).
    """

    def __init__(self, prepared: Prepared, recipe: Recipe, workers: Workers, loss: CrossEntropy) -> None:
        super().__init__(prepared, recipe, workers, loss)
        self.weight = recipe.pgd_at.weight

    def losses(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Losses:
        adversarial = self.attacked(images, labels, attack_config, generator)
        self.prepared.learn()
        robust = self.loss.mean(self.logits("attacked", adversarial), labels)
        if self.weight == 1:
            return Losses(robust, None, robust)
        clean = self.loss.mean(self.logits("clean", images), labels)
        return Losses((1 - self.weight) * clean + self.weight * robust, clean, robust)


class TradesStep(Folded):
    """TRADES (Zhang et al., ICML 2019): the whole batch clean, and attacked away from what is said of it clean.

    Minimises the cross entropy of clean images plus beta times KL(p(clean) || p(attacked)), without weights by class.
    The attack maximises that divergence: with p(clean) as its target, the cross entropy has the same gradient.
    """

    def __init__(self, prepared: Prepared, recipe: Recipe, workers: Workers, loss: CrossEntropy) -> None:
        super().__init__(prepared, recipe, workers, loss)
        self.beta = recipe.trades.beta

    def losses(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Losses:
        said = log_probabilities(self.victim()(images)).exp().detach()
        adversarial = self.attacked(images, said, attack_config, generator, NEAR)
        self.prepared.learn()
        logits, moved = self.logits("clean", images), self.logits("attacked", adversarial)
        clean, apart = self.loss.mean(logits, labels), divergence(logits, moved)
        return Losses(clean + self.beta * apart, clean, apart)


class StandardStep(Folded):
    """The whole batch clean."""

    def losses(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Losses:
        del attack_config, generator  # nothing is attacked
        self.prepared.learn()
        clean = self.loss.mean(self.logits("clean", images), labels)
        return Losses(clean, clean, None)


class OatStep:
    """OAT as published (Wang et al., NeurIPS 2020), its batch scheme "efficient".

    Every image draws a lambda: the first ``ceil(N / choices)`` images 0, the others one of the other choices, all alike
    likely. All images are trained clean; all but the first ones are attacked at their lambda and trained again. The
    loss of an image is ``(1 - lambda) * clean + lambda * attacked``.
    """

    def __init__(
        self, prepared: Prepared, network: OatNetwork, recipe: Recipe, workers: Workers, loss: CrossEntropy
    ) -> None:
        self.prepared = prepared
        self.loss = loss
        self.network = network
        self.workers = workers
        if recipe.train.compile:
            self.network.backbone.compile()
        self.lambdas = next(network.parameters()).new_tensor(network.oat.lambdas)
        self.zero = network.oat.lambdas.index(0.0)

    def losses(self, images: Tensor, labels: Tensor, attack_config: Attack, generator: torch.Generator) -> Losses:
        batch = len(images) * self.workers.size
        zeros_of_batch = math.ceil(batch / len(self.lambdas))
        choice = self._choose(batch, zeros_of_batch, generator)[self.workers.share]
        zeros = len(self.workers.positions(zeros_of_batch))
        positions = self.workers.positions(batch - zeros_of_batch, zeros_of_batch)
        self.prepared.learn()
        clean = self.loss.each(self.network.mixed(images, choice, zeros), labels)
        victims, truths, chosen = images[zeros:], labels[zeros:], choice[zeros:]
        served = _served(self.network, lambda batch: self.network.mixed(batch, chosen, 0))
        options = attack_config.model_dump(exclude_none=True)
        adversarial = attack(served, victims, truths, generator, positions, **options)
        self.prepared.learn()
        robust = self.loss.each(self.network.mixed(adversarial, chosen, 0), truths)
        lam = self.lambdas[choice]
        total = ((1 - lam) * clean).mean() + (lam[zeros:] * robust).sum() / len(images)
        return Losses(total, clean.mean(), robust.sum() / (positions.stop / self.workers.size))

    def at(self, lam: float) -> Network:
        return _served(self.network, lambda batch: self.network(batch, lam))

    def copy(self) -> None:
        """Nothing to do: what is attacked is the network itself."""

    def _choose(self, count: int, zeros: int, generator: torch.Generator) -> Tensor:
        """Positions in ``lambdas``, those of 0 first: int64 ``[count]``."""
        device = self.lambdas.device
        others = torch.randint(len(self.lambdas) - 1, (count - zeros,), generator=generator, device=device)
        others += others >= self.zero
        return torch.cat((torch.full((zeros,), self.zero, device=device), others))


def _served(network: nn.Module, forward: Network) -> Network:
    """``forward`` with ``network`` in inference mode, its parameters without gradients."""

    def logits(images: Tensor) -> Tensor:
        with _inference(network):
            return forward(images)

    return logits


@contextmanager
def _inference(network: nn.Module) -> Iterator[None]:
    training, trained = network.training, [p for p in network.parameters() if p.requires_grad]
    network.eval().requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        network.train(training)
        for parameter in trained:
            parameter.requires_grad_()


def make_step(prepared: Prepared, recipe: Recipe, workers: Workers, loss: CrossEntropy) -> Step:
    """The step of the recipe's method."""
    if isinstance(prepared.network, OatNetwork):
        return OatStep(prepared, prepared.network, recipe, workers, loss)
    if recipe.method == "float":
        return FLOAT_STEPS[recipe.condition.noise](prepared, recipe, workers, loss)
    return PLAIN_STEPS[recipe.method](prepared, recipe, workers, loss)


MakeStep = Callable[[Prepared, Recipe, Workers, CrossEntropy], Step]
FLOAT_STEPS: dict[TrainingNoise, MakeStep] = {
    "frozen": FloatStep,
    "resample": ResampledFloatStep,
    "every-forward": RedrawnFloatStep,
}
PLAIN_STEPS: dict[Method, MakeStep] = {
    "pgd-at": AdversarialStep,
    "trades": TradesStep,
    "standard": StandardStep,
}
