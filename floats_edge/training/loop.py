"""Training, by any method: batches, learning rate, masks, checks and checkpoints around the steps of steps.py.

Every random choice is a pure function of the recipe's seed and the epoch, so that a run resumed from a checkpoint (one
is written after every epoch) goes on bit for bit as if it had never stopped.
"""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from floats_edge.artifacts.checkpoint import Epoch, TrainingRun, open_run, save_run
from floats_edge.artifacts.files import Tensors
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError, RecipeError
from floats_edge.float32 import float32_as
from floats_edge.method.conditioning import conditioned_weights
from floats_edge.networks.spec import NO_CODE, Code, ImageSpec
from floats_edge.prepare import example, prepare
from floats_edge.recipe import Recipe
from floats_edge.training import check
from floats_edge.training.distributed import ALONE, Workers
from floats_edge.training.execution import Precision, layers_draw, read_later, torch_settings
from floats_edge.training.feed import LAYERS, Batch, Feed, epoch_seed
from floats_edge.training.losses import make_loss
from floats_edge.training.mixing import make_mixing
from floats_edge.training.optimizer import make_optimizer, remember, remembered, set_learning_rate
from floats_edge.training.resume import check_same_images, previous_run
from floats_edge.training.sparsity import make_masks
from floats_edge.training.statistics import image_spec
from floats_edge.training.steps import FloatStep, Losses, ResampledFloatStep, make_step
from floats_edge.training.sync_batchnorm import synchronize_batchnorm


class Observer(Protocol):
    """Who watches a training run."""

    def on_images(self, done: int, total: int) -> None:
        """Before the first step, where images do not stay in memory: ``done`` of ``total`` were read to know them."""

    def on_start(self, remarks: tuple[str, ...]) -> None:
        """Before the first step of a new run: what the user should know; its first epoch remarks some of it again."""

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        """After step ``step`` of ``steps`` of the whole run, once the next one of its epoch is under way."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After an epoch was checked on validation images and saved."""


class _Losses:
    """Losses over the steps of one epoch, each read a step late: reading the last one would wait for the device."""

    def __init__(self) -> None:
        self.steps = 0
        self._sums: dict[str, float] = {}
        self._unread: deque[tuple[tuple[str, ...], Callable[[], list[float]]]] = deque()

    def add(self, losses: Losses, workers: Workers) -> None:
        """Count one step in."""
        known = {name: loss for name, loss in vars(losses).items() if loss is not None}
        self._unread.append((tuple(known), read_later(workers.mean(torch.stack(tuple(known.values()))))))
        self.steps += 1

    def read(self, but: int = 0) -> Iterator[tuple[int, float]]:
        """Read what is not read yet, ``but`` for so many steps: the number of each step, from 1, and its loss."""
        while len(self._unread) > but:
            names, values = self._unread.popleft()
            found = dict(zip(names, values(), strict=True))
            self._sums = {name: self._sums.get(name, 0.0) + loss for name, loss in found.items()}
            yield self.steps - len(self._unread), found["total"]

    def means(self) -> dict[str, float]:
        """Per step, of those losses that the method has."""
        return {name: loss / self.steps for name, loss in self._sums.items()}


def train(
    recipe: Recipe,
    splits: Splits,
    path: Path,
    observer: Observer,
    device: str = "cpu",
    resume: bool = False,
    workers: Workers = ALONE,
    code: Code = NO_CODE,
) -> TrainingRun:
    """Train the network of ``recipe`` and write a checkpoint into the folder ``path`` after every epoch.

    Args:
        recipe: every choice of the run.
        splits: the recipe's images.
        path: run folder; created if need be.
        observer: told of every step and epoch.
        device: a torch device, for example ``cpu`` or ``cuda``.
        resume: continue the run in ``path`` if there is one; the result equals an uninterrupted run's. What training
            does not read of the recipe (how the network is evaluated) may have changed, and is written into the run.
        workers: who train together, each calling this with the same arguments; the first one writes. Resuming with as
            many gives the same bits.
        code: of the user's that stands for the network.

    Returns:
        The finished run.

    Raises:
        RecipeError: the recipe does not fit its data, or its training diverges.
        NetworkError: the network cannot be built, or the method can do nothing with it.
        DataError: an image cannot be read, or they are too many for the memory.
        ArtifactError: the run to resume is damaged, of another recipe or of other images.
        OutputError: ``path`` holds a run and ``resume`` is off, or cannot be written.
        BackendError: a worker was lost.
    """
    place = torch.device(device)
    with torch_settings(recipe.train, place):
        _train(recipe, splits, path, observer, place, resume, workers, code)
    workers.wait()
    return open_run(path)


def _train(
    recipe: Recipe,
    splits: Splits,
    path: Path,
    observer: Observer,
    device: torch.device,
    resume: bool,
    workers: Workers,
    code: Code,
) -> None:
    history: tuple[Epoch, ...] = ()
    with workers.first_leads():
        previous = previous_run(path, recipe, resume)
    kind = image_spec(recipe, splits, workers, observer.on_images)
    with workers.first_leads():
        trainer = Trainer(recipe, splits, kind, device, workers, code, pretrained=previous is None)
        if previous is not None:
            check_same_images(previous, trainer.kind, splits)
            history = previous.checkpoint.history
            trainer.restore(previous.weights(), previous.state())
        for _ in trainer._held_out():
            pass  # damage there is named now, and not after an epoch
    if previous is None:
        measured = check.images_remark(len(trainer.held_out), len(splits.validation))
        observer.on_start((measured, *trainer.first_remarks))
        if trainer.pretrained is not None:
            trainer.settle()
    trainer.check_alike()
    if previous is not None and previous.checkpoint.recipe != recipe and workers.rank == 0:
        _save(path, trainer, splits, history)
    for epoch in range(len(history), recipe.train.epochs):
        trainer.fall_back(history)
        history = (*history, trainer.run_epoch(epoch, observer))
        if workers.rank == 0:
            _save(path, trainer, splits, history)
        observer.on_epoch(history[-1])


def _save(path: Path, trainer: "Trainer", splits: Splits, history: tuple[Epoch, ...]) -> None:
    weights, state = trainer.weights(), trainer.state()
    save_run(path, trainer.recipe, trainer.kind, splits.labels, history, weights, state, splits.report)


class Trainer:
    """A network in training: everything that changes from step to step."""

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        kind: ImageSpec,
        device: torch.device,
        workers: Workers = ALONE,
        code: Code = NO_CODE,
        pretrained: bool = True,
    ) -> None:
        workers.check_recipe(recipe)
        self.recipe = recipe
        self.device = device
        self.workers = workers
        self.kind = kind
        self.held_out = splits.validation.first(check.IMAGES)
        self.feed = Feed(
            splits.train,
            recipe.data,
            recipe.train.batch_size,
            recipe.seed,
            device,
            workers,
            splits.transform,
            recipe.train.balance == "sampler",
            make_mixing(recipe.data, len(splits.labels)),
        )
        self.steps_per_epoch = self.feed.steps
        if self.steps_per_epoch == 0:
            raise RecipeError(
                f"a batch of {recipe.train.batch_size} is larger than the {len(splits.train)} training images.",
                fix="lower train.batch_size",
            )
        self.attack = recipe.attack
        prepared = prepare(recipe, self.kind, len(splits.labels), device, code, pretrained)
        self.network, self.pretrained = prepared.network, prepared.pretrained
        self.weights_by_layer = conditioned_weights(self.network)
        loss = make_loss(recipe.train, splits.train.labels, len(splits.labels), device)
        self.step = make_step(prepared, recipe, workers, loss)  # what folds is found by its kind: before that changes
        self.updater = make_masks(
            self.network,
            example(self.kind).to(device),
            recipe,
            self.steps_per_epoch,
            self.step.copy,
            pretrained=self.pretrained is not None,
        )
        synchronize_batchnorm(self.network, workers)
        self.optimizer = make_optimizer(self._parameters(), recipe.train)
        self.precision = Precision(recipe.train, device)

    def _parameters(self) -> dict[str, nn.Parameter]:
        """Those that are trained, by name."""
        return {name: parameter for name, parameter in self.network.named_parameters() if parameter.requires_grad}

    def run_epoch(self, epoch: int, observer: Observer) -> Epoch:
        """Train one epoch, then measure accuracy on validation images.

        Raises:
            RecipeError: the loss, a parameter or a logit is no longer a number.
        """
        with layers_draw(epoch_seed(self.recipe.seed, epoch, LAYERS, self.workers.rank), self.device):
            return self._run_epoch(epoch, observer)

    def _run_epoch(self, epoch: int, observer: Observer) -> Epoch:
        generator = torch.Generator(self.device).manual_seed(epoch_seed(self.recipe.seed, epoch))
        total = self.recipe.train.epochs * self.steps_per_epoch
        losses, swapped, learning_rate, before = _Losses(), 0, 0.0, epoch * self.steps_per_epoch
        start = time.perf_counter()

        def tell(but: int = 0) -> None:
            for step, loss in losses.read(but):
                if not math.isfinite(loss):
                    raise check.diverged(f"the loss of step {before + step} is {loss:g}")
                speed = losses.steps * self.recipe.train.batch_size / (time.perf_counter() - start)
                observer.on_step(before + step, total, loss, speed)

        for images, labels in self.feed.batches(epoch):
            step = before + losses.steps
            learning_rate = set_learning_rate(self.optimizer, self.recipe.train, step / total)
            losses.add(self.update(images, labels, generator), self.workers)
            tell(but=1)
            swapped += self.updater.after_step(step + 1, self.optimizer)
        tell()
        self.settle_frozen(epoch, generator)
        seconds = time.perf_counter() - start
        self.check_alike()
        check.check_numbers(self.network)
        result = self._check(generator)
        means = losses.means()
        alpha = {name: weight.alpha.item() for name, weight in self.weights_by_layer.items()}
        return Epoch(
            epoch=epoch + 1,
            loss=means["total"],
            clean_loss=means.get("clean"),
            robust_loss=means.get("robust"),
            clean_accuracy=result.clean,
            robust_accuracy=result.robust,
            single_step_accuracy=result.single_step,
            overfitted=result.overfitted,
            density=self.density(),
            swapped=swapped,
            learning_rate=learning_rate,
            alpha=alpha,
            images_per_s=losses.steps * self.recipe.train.batch_size / seconds,
            seconds=seconds,
            remarks=self._remarks(epoch, alpha, result),
        )

    def settle(self) -> None:
        """Estimate the adversarial statistics of a pretrained network anew, which are copies of the clean ones."""
        if isinstance(self.step, FloatStep):
            generator = torch.Generator(self.device).manual_seed(epoch_seed(self.recipe.seed, 0))
            with layers_draw(epoch_seed(self.recipe.seed, 0, LAYERS, self.workers.rank), self.device):
                self.step.settle(self.feed.batches(0), self.attack, generator)

    def settle_frozen(self, epoch: int, generator: torch.Generator) -> None:
        """End an epoch: a network that learns under resampled noise is made ready for the draw that is deployed."""
        if isinstance(self.step, ResampledFloatStep):
            self.step.settle_frozen(self.feed.batches(epoch), self.attack, generator)

    def check_alike(self) -> None:
        """Check that every worker has the same masks and parameters.

        Raises:
            BackendError: they do not.
        """
        masks = (weight.mask for weight in self.weights_by_layer.values())
        self.workers.check_alike((*masks, *self._parameters().values()))

    def update(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Losses:
        with float32_as(self.recipe.train.float32):
            with self.precision.autocast():
                losses = self.step.losses(images, labels, self.attack, generator)
            self.optimizer.zero_grad(set_to_none=True)
            self.precision.backward(losses.total)
        self.workers.average_gradients([*self._parameters().values()])
        self.precision.unscale(self.optimizer)
        self.updater.mask_gradients()
        self.precision.step(self.optimizer)
        return losses

    def _held_out(self) -> Iterator[Batch]:
        """Images to check the network on, and their labels: as many at once as this worker has in a step."""
        for pixels, labels in self.held_out.batches(self.recipe.train.batch_size // self.workers.size):
            images = torch.from_numpy(pixels).to(self.device).contiguous(memory_format=torch.channels_last)
            yield images, torch.from_numpy(labels).to(self.device)

    def _check(self, generator: torch.Generator) -> check.Check:
        """Measure the network on validation images."""
        result = check.check(self.step, self._held_out, self.attack, generator)
        known = [accuracy for accuracy in dataclasses.astuple(result) if accuracy is not None]
        means = self.workers.mean(torch.tensor(known, dtype=torch.float64, device=self.workers.device))
        return check.Check(*means.tolist())  # the same decisions everywhere

    @property
    def first_remarks(self) -> tuple[str, ...]:
        """What the user should know before the first step."""
        return tuple(remark for remark in (self.pretrained, self.precision.remark()) if remark)

    def _remarks(self, epoch: int, alpha: dict[str, float], result: check.Check) -> tuple[str, ...]:
        """What an epoch should tell the user."""
        condition, falls_back = self.recipe.condition, self.recipe.train.overfitting == "pgd"
        remedy = "PGD takes over" if falls_back else "set attack.kind=pgd and attack.steps=7, or train.overfitting=pgd"
        remarks = (
            *(self.first_remarks if epoch == 0 else ()),
            self.updater.remark(epoch),
            check.overfitting_remark(result, remedy),
            check.collapsed_remark(alpha, condition.initial_alpha) if condition.alpha == "trained" else None,
        )
        return tuple(remark for remark in remarks if remark)

    def fall_back(self, history: tuple[Epoch, ...]) -> None:
        """Attack by PGD from now on, if an epoch of ``history`` was overfitted and the recipe says so."""
        if self.recipe.train.overfitting == "pgd" and any(epoch.overfitted for epoch in history):
            self.attack = check.fallback(self.recipe.attack)

    def density(self) -> float:
        """Share of active weights over all layers."""
        weights = self.weights_by_layer.values()
        if not weights:
            return 1.0
        return sum(int(weight.mask.sum()) for weight in weights) / sum(weight.whole.numel() for weight in weights)

    def weights(self) -> Tensors:
        """The network's parameters and buffers, to save: at full width, whatever was removed."""
        return {name: self._widened(name, tensor) for name, tensor in self.network.state_dict().items()}

    def state(self) -> Tensors:
        """What resuming needs besides the weights, to save."""
        tensors = self.updater.state() | remembered(self.optimizer, self._parameters()) | self.precision.state()
        return {name: self._widened(name.partition("/")[2], tensor) for name, tensor in tensors.items()}

    def _widened(self, name: str, tensor: Tensor) -> NDArray[Any]:
        return self.updater.kept.widened(name, tensor.detach().cpu().numpy())

    def restore(self, weights: Tensors, state: Tensors) -> None:
        """Take up what :meth:`weights` and :meth:`state` gave.

        Raises:
            ArtifactError: the tensors are of another network.
        """
        try:
            self.network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
            remember(self.optimizer, self._parameters(), state)
            self.updater.restore(state, self.optimizer)
            self.precision.restore(state)
        except (RuntimeError, KeyError):
            raise ArtifactError(
                "the checkpoint holds another network than its recipe describes.",
                fix="train into another folder with --out",
            ) from None
