"""FLOATS training: half of every batch clean at lambda = 0, the other half attacked at lambda = 1.

Every random choice is a pure function of the recipe's seed and the epoch, so that a run resumed from a checkpoint (one
is written after every epoch) goes on bit for bit as if it had never stopped.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from floats_edge.artifacts.checkpoint import Epoch, TrainingRun, is_run, open_run, save_run
from floats_edge.artifacts.files import Tensors
from floats_edge.attacks import attack, pgd
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError, OutputError, RecipeError
from floats_edge.method.conditioning import conditioned_weights, draw_noise
from floats_edge.method.fold import fold_network, weights_at
from floats_edge.method.masks import MaskUpdater, layer_counts, random_mask, swap_fraction
from floats_edge.models.build import build, load_weights
from floats_edge.models.layers import FLOAT, FOLDED
from floats_edge.models.spec import ModelSpec
from floats_edge.recipe import Recipe

_CHECK_IMAGES = 512
_CHECK_STEPS = 10


class Observer(Protocol):
    """Who watches a training run."""

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        """After step ``step`` of ``steps`` of the whole run."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After an epoch was checked on validation images and saved."""


@dataclass
class _Losses:
    """Sums over the steps of one epoch."""

    clean: float = 0.0
    robust: float = 0.0
    steps: int = 0


def train(
    recipe: Recipe, splits: Splits, path: Path, observer: Observer, device: str = "cpu", resume: bool = False
) -> TrainingRun:
    """Train the network of ``recipe`` and write a checkpoint into the folder ``path`` after every epoch.

    Args:
        recipe: every choice of the run.
        splits: the recipe's images.
        path: run folder; created if need be.
        observer: told of every step and epoch.
        device: a torch device, for example ``cpu`` or ``cuda``.
        resume: continue the run in ``path`` if there is one; the result equals an uninterrupted run's.

    Returns:
        The finished run.

    Raises:
        RecipeError: the recipe does not fit its data, or its training diverges.
        ArtifactError: the run to resume is damaged, of another recipe or of other images.
        OutputError: ``path`` holds a run and ``resume`` is off, or cannot be written.
    """
    previous = _previous_run(path, recipe, resume)
    trainer = Trainer(recipe, splits, torch.device(device))
    history: tuple[Epoch, ...] = ()
    run = previous
    if previous is not None:
        _check_same_images(previous, trainer.spec, splits.labels)
        trainer.restore(previous.weights(), previous.state())
        history = previous.checkpoint.history
    for epoch in range(len(history), recipe.train.epochs):
        history = (*history, trainer.run_epoch(epoch, observer))
        run = save_run(path, recipe, trainer.spec, splits.labels, history, trainer.weights(), trainer.state())
        observer.on_epoch(history[-1])
    assert run is not None, "a recipe has at least one epoch"
    return run


class Trainer:
    """A network in training: everything that changes from step to step."""

    def __init__(self, recipe: Recipe, splits: Splits, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.images = splits.train
        self.validation = splits.validation
        self.spec = model_spec(recipe, splits)
        self.steps_per_epoch = len(splits.train) // recipe.train.batch_size
        if self.steps_per_epoch == 0:
            raise RecipeError(
                f"a batch of {recipe.train.batch_size} is larger than the {len(splits.train)} training images.",
                fix="lower train.batch_size",
            )
        torch.manual_seed(recipe.seed)
        self.network = build(self.spec, FLOAT).to(device)
        draw_noise(self.network, recipe.condition.noise_seed)
        self.folded = build(self.spec, FOLDED).to(device)
        self.weights_by_layer = conditioned_weights(self.network)
        self._draw_masks()
        self.updater = MaskUpdater(self.weights_by_layer)
        self.optimizer = self._make_optimizer()

    def _draw_masks(self) -> None:
        sparsity = self.recipe.sparsity
        shapes = {name: tuple(weight.theta.shape) for name, weight in self.weights_by_layer.items()}
        try:
            counts = layer_counts(shapes, sparsity.density, sparsity.layer_densities)
        except ValueError as error:
            raise RecipeError(f"{error}.", fix="raise sparsity.density or model.width") from None
        generator = torch.Generator().manual_seed(self.recipe.seed)
        for name, weight in self.weights_by_layer.items():
            weight.set_mask(random_mask(weight.theta.shape, counts[name], generator))

    def _make_optimizer(self) -> torch.optim.SGD:
        """Weight decay on theta and the classifier's bias, none on alpha and BatchNorm."""
        decayed = [p for n, p in self.network.named_parameters() if n.endswith((".theta", "head.bias"))]
        others = [p for n, p in self.network.named_parameters() if not n.endswith((".theta", "head.bias"))]
        train = self.recipe.train
        groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=train.momentum > 0)

    def run_epoch(self, epoch: int, observer: Observer) -> Epoch:
        """Train one epoch, then measure accuracy on validation images.

        Raises:
            RecipeError: the loss is no longer a number.
        """
        generator = torch.Generator(self.device).manual_seed(_seed(self.recipe.seed, epoch))
        total = self.recipe.train.epochs * self.steps_per_epoch
        losses, swapped, learning_rate = _Losses(), 0, 0.0
        start = time.perf_counter()
        for images, labels in self._batches(epoch):
            step = epoch * self.steps_per_epoch + losses.steps
            learning_rate = self._set_learning_rate(step / total)
            clean, robust = self._step(images, labels, generator)
            if not math.isfinite(clean + robust):
                raise RecipeError(
                    f"training diverged: the loss of step {step + 1} is {clean + robust:g}.",
                    fix="lower train.lr or raise train.warmup; the last epoch that was saved is kept",
                )
            losses = _Losses(losses.clean + clean, losses.robust + robust, losses.steps + 1)
            swapped += self._move_masks(step + 1, total)
            speed = losses.steps * self.recipe.train.batch_size / (time.perf_counter() - start)
            observer.on_step(step + 1, total, (clean + robust) / 2, speed)
        seconds = time.perf_counter() - start
        clean_accuracy, robust_accuracy = self._check(generator)
        return Epoch(
            epoch=epoch + 1,
            loss=(losses.clean + losses.robust) / (2 * losses.steps),
            clean_loss=losses.clean / losses.steps,
            robust_loss=losses.robust / losses.steps,
            clean_accuracy=clean_accuracy,
            robust_accuracy=robust_accuracy,
            density=self.density(),
            swapped=swapped,
            learning_rate=learning_rate,
            alpha={name: weight.alpha.item() for name, weight in self.weights_by_layer.items()},
            images_per_s=losses.steps * self.recipe.train.batch_size / seconds,
            seconds=seconds,
        )

    def _step(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[float, float]:
        """One update; returns the clean and the robust loss."""
        half = len(images) // 2
        self._fold(lam=1.0)
        adversarial = attack(self.folded, images[half:], labels[half:], generator, **self.recipe.attack.model_dump())
        self.network.train()
        clean_loss = cross_entropy(self.network(images[:half], 0.0), labels[:half])
        robust_loss = cross_entropy(self.network(adversarial, 1.0), labels[half:])
        self.optimizer.zero_grad(set_to_none=True)
        ((clean_loss + robust_loss) / 2).backward()
        self.updater.mask_gradients()
        self.optimizer.step()
        return clean_loss.item(), robust_loss.item()

    def _fold(self, lam: float) -> None:
        with torch.no_grad():
            load_weights(self.folded, weights_at(fold_network(self.network), lam, self.recipe.condition.rule))

    def _move_masks(self, step: int, total: int) -> int:
        """Swap weights where the recipe's schedule says so; returns how many."""
        sparsity = self.recipe.sparsity
        every = max(1, round(sparsity.update_every * self.steps_per_epoch))
        if sparsity.density == 1 or step % every != 0:
            return 0
        return self.updater.update(swap_fraction(sparsity.swap_rate, step / total), self.optimizer)

    def _set_learning_rate(self, progress: float) -> float:
        """Linear warm-up to the recipe's peak, then cosine to 0."""
        train = self.recipe.train
        if progress < train.warmup:
            rate = train.lr * progress / train.warmup
        else:
            rate = train.lr * 0.5 * (1 + math.cos(math.pi * (progress - train.warmup) / (1 - train.warmup)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches of one epoch: images float32 in [0, 1], channels last, and labels."""
        data, size = self.recipe.data, self.recipe.train.batch_size
        rng = np.random.Generator(np.random.Philox(_seed(self.recipe.seed, epoch)))
        order = rng.permutation(len(self.images))
        for start in range(0, self.steps_per_epoch * size, size):
            chosen = order[start : start + size]
            pixels = _augment(self.images.pixels[chosen], data.crop, data.flip, rng)
            images = torch.from_numpy(pixels).to(self.device).float().div_(255)
            yield images.contiguous(memory_format=torch.channels_last), self._labels(self.images.labels[chosen])

    def _labels(self, labels: np.ndarray) -> Tensor:
        return torch.from_numpy(labels).to(self.device)

    def _check(self, generator: torch.Generator) -> tuple[float, float]:
        """Clean accuracy at lambda = 0 and PGD accuracy at lambda = 1, in percent, on validation images."""
        count = min(_CHECK_IMAGES, len(self.validation))
        images = torch.from_numpy(self.validation.as_float(slice(0, count))).to(self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = self._labels(self.validation.labels[:count])
        epsilon = self.recipe.attack.epsilon
        self._fold(lam=0.0)
        clean = _accuracy(self.folded, images, labels)
        self._fold(lam=1.0)
        attacked = pgd(self.folded, images, labels, generator, epsilon, epsilon / 4, _CHECK_STEPS)
        return clean, _accuracy(self.folded, attacked, labels)

    def density(self) -> float:
        """Share of active weights over all layers."""
        masks = [weight.mask for weight in self.weights_by_layer.values()]
        return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    def weights(self) -> Tensors:
        """The network's parameters and buffers, to save."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.network.state_dict().items()}

    def state(self) -> Tensors:
        """What resuming needs besides the weights, to save."""
        tensors = {f"gradient/{name}": gradient for name, gradient in self.updater.gradient.items()}
        for name, parameter in self.network.named_parameters():
            tensors[f"momentum/{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}

    def restore(self, weights: Tensors, state: Tensors) -> None:
        """Take up what :meth:`weights` and :meth:`state` gave.

        Raises:
            ArtifactError: the tensors are of another network.
        """
        try:
            self.network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
            for name, gradient in self.updater.gradient.items():
                gradient.copy_(torch.from_numpy(state[f"gradient/{name}"]))
            for name, parameter in self.network.named_parameters():
                momentum = torch.empty_like(parameter).copy_(torch.from_numpy(state[f"momentum/{name}"]))
                self.optimizer.state[parameter]["momentum_buffer"] = momentum
        except (RuntimeError, KeyError):
            raise ArtifactError(
                "the checkpoint holds another network than its recipe describes.",
                fix="train into another folder with --out",
            ) from None


def model_spec(recipe: Recipe, splits: Splits) -> ModelSpec:
    """The network that fits a recipe and its images."""
    _, channels, height, width = splits.train.pixels.shape
    return ModelSpec(
        arch=recipe.model.arch,
        width=recipe.model.width,
        stem_stride=recipe.model.stem_stride,
        image_shape=(channels, height, width),
        classes=len(splits.labels),
        mean=splits.mean,
        std=splits.std,
    )


def _previous_run(path: Path, recipe: Recipe, resume: bool) -> TrainingRun | None:
    if not is_run(path):
        return None
    if not resume:
        raise OutputError(
            f"{path} already holds a run.", fix="continue it with --resume, or choose another folder with --out"
        )
    run = open_run(path)
    if run.checkpoint.recipe != recipe:
        raise ArtifactError(
            f"{path} was trained by another recipe.", fix=f"resume with {path / 'recipe.yaml'}, or choose another --out"
        )
    return run


def _check_same_images(run: TrainingRun, spec: ModelSpec, labels: tuple[str, ...]) -> None:
    if (run.checkpoint.model, run.checkpoint.labels) != (spec, labels):
        raise ArtifactError(
            f"{run.path} was trained on other images: their size, statistics or classes differ.",
            fix="resume with the --data-dir it was trained with, or choose another --out",
        )


def _seed(seed: int, epoch: int) -> int:
    """One seed per epoch, of 63 bits."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _augment(pixels: np.ndarray, crop: int, flip: bool, rng: np.random.Generator) -> np.ndarray:
    """Random crops after zero-padding, and random horizontal flips, of uint8 images ``[N, C, H, W]``."""
    count, _, height, width = pixels.shape
    if crop:
        padded = np.pad(pixels, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        top, left = rng.integers(0, 2 * crop + 1, (2, count))
        pixels = windows[np.arange(count), :, top, left]
    if flip:
        mirrored = rng.random(count) < 0.5
        pixels = np.where(mirrored[:, None, None, None], pixels[..., ::-1], pixels)
    return pixels


@torch.no_grad()
def _accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    return 100.0 * (network(images).argmax(1) == labels).float().mean().item()
