"""A recipe's sparsity, put into the masks of a network and moved while it trains."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from floats_edge.artifacts.files import Tensors
from floats_edge.errors import RecipeError
from floats_edge.method import semi_structured
from floats_edge.method.channel_groups import ChannelGroups, channel_groups
from floats_edge.method.channels import DENSE_SHARE, ChannelMasks, kept_count
from floats_edge.method.condition import conditioned_layers, fold, unfilled
from floats_edge.method.conditioning import ConditionedWeight, conditioned_weights
from floats_edge.method.masks import (
    MaskUpdater,
    Move,
    largest_mask,
    layer_counts,
    random_mask,
    swap_across_layers,
    swap_fraction,
    swap_within_layers,
)
from floats_edge.method.narrow import check_channels, check_training
from floats_edge.method.removal import Kept
from floats_edge.recipe import Recipe, Sparsity

MOVES: dict[str, Move] = {
    "erk": swap_within_layers,
    "uniform": swap_within_layers,
    "importance": swap_across_layers,
}


class Masks(Protocol):
    """What holds the masks of a network in training."""

    kept: Kept
    """What is left of the network's tensors."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs of the masks besides the network's tensors, to save."""
        ...

    def restore(self, state: Tensors, optimizer: torch.optim.Optimizer) -> None:
        """Take up what :meth:`state` gave, after the tensors of the network and of its optimiser.

        Raises:
            KeyError: something of it is missing.
        """

    def mask_gradients(self) -> None:
        """After backward, before the optimiser step: hide what the masks exclude."""

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> int:
        """Change the masks if it is time to after step ``step``, counted from 1; returns how many weights moved."""
        ...

    def remark(self, epoch: int) -> str | None:
        """What the user should know of the masks after an epoch, counted from 0."""
        ...


class MovingMasks(MaskUpdater):
    """Masks of the recipe's pattern and density from the first step on, moved at its pace; what is frozen is dense.

    Args:
        network: of conditioned layers.
        recipe: of the run.
        steps_per_epoch: of training.
        pretrained: whether the weights are worth keeping.

    Raises:
        RecipeError: as :func:`draw_masks`.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, steps_per_epoch: int, pretrained: bool) -> None:
        self.sparsity = recipe.sparsity
        trained = {name: weight for name, weight in conditioned_weights(network).items() if weight.theta.requires_grad}
        super().__init__(trained, mask_move(recipe.sparsity))
        if pretrained:
            keep_largest(self.weights, recipe.sparsity)
        else:
            draw_masks(self.weights, recipe.sparsity, recipe.seed)
        self.every = max(1, round(recipe.sparsity.update_every * steps_per_epoch))
        self.steps = recipe.train.epochs * steps_per_epoch
        self.kept = Kept({})

    def state(self) -> dict[str, Tensor]:
        return {f"gradient/{name}": gradient for name, gradient in self.gradient.items()}

    def restore(self, state: Tensors, optimizer: torch.optim.Optimizer) -> None:
        for name, gradient in self.gradient.items():
            gradient.copy_(torch.from_numpy(state[f"gradient/{name}"]))

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> int:
        if self.sparsity.dense or step % self.every != 0:
            return 0
        return self.update(swap_fraction(self.sparsity.swap_rate, step / self.steps), optimizer)

    def remark(self, epoch: int) -> str | None:
        return left_dense(self.weights, self.sparsity) if epoch == 0 else None


class CutChannels(ChannelMasks):
    """Dense until the cut, then a narrower network of the recipe's share of the channels.

    Args:
        network: of conditioned layers.
        example: images that it takes.
        recipe: of the run.
        steps_per_epoch: of training.
        narrowed: called whenever the network became narrower.

    Raises:
        RecipeError: as :func:`channel_counts`.
        NetworkError: the network does not compute the same without channels that are zero, or does not train so.
    """

    def __init__(
        self,
        network: nn.Module,
        example: Tensor,
        recipe: Recipe,
        steps_per_epoch: int,
        narrowed: Callable[[], None],
    ) -> None:
        if recipe.train.frozen:
            raise RecipeError(
                "pattern channel cuts channels out of the whole network, of which train.frozen keeps a part as it is.",
                fix="leave train.frozen out, or use sparsity.pattern=irregular",
            )
        layers = conditioned_layers(network)
        plain = unfilled(network, layers)
        channels = channel_groups(plain, layers, example)
        super().__init__(layers, channels, channel_counts(channels, recipe.sparsity))
        folded = fold(layers, recipe.condition.rule)
        check_channels(plain, {name: layer.numpy() for name, layer in folded.items()}, channels, example)
        check_training(network, channels, example)
        self.last_dense_step = max(1, round(DENSE_SHARE * recipe.train.epochs * steps_per_epoch))
        self.epoch = (self.last_dense_step - 1) // steps_per_epoch
        self.narrowed = narrowed

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Tensors, optimizer: torch.optim.Optimizer) -> None:
        if self.cut_as_masked(optimizer):
            self.narrowed()

    def mask_gradients(self) -> None:
        """Nothing to do: what is cut is no longer there."""

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> int:
        if step == self.last_dense_step:
            self.cut(optimizer)
            self.narrowed()
        return 0

    def remark(self, epoch: int) -> str | None:
        if epoch != self.epoch:
            return None
        left = f"{sum(self.counts)} of {self.channels.count} in {len(self.counts)} groups"
        return f"channels cut after step {self.last_dense_step}: {left} are left"


def make_masks(
    network: nn.Module,
    example: Tensor,
    recipe: Recipe,
    steps_per_epoch: int,
    narrowed: Callable[[], None],
    pretrained: bool = False,
) -> Masks:
    """The masks of a network about to be trained; ``narrowed`` is called whenever they made it narrower.

    Raises:
        RecipeError: the recipe's sparsity does not fit the network.
        NetworkError: its channels cannot be removed.
    """
    if recipe.sparsity.pattern == "channel":
        return CutChannels(network, example, recipe, steps_per_epoch, narrowed)
    return MovingMasks(network, recipe, steps_per_epoch, pretrained)


def channel_counts(channels: ChannelGroups, sparsity: Sparsity) -> tuple[int, ...]:
    """How many channels of each group are kept, in their order; groups no wider than the multiple are kept whole.

    Raises:
        RecipeError: nothing would be removed.
    """
    sizes = [len(group.classes) for group in channels.groups]
    counts = tuple(kept_count(size, sparsity.density, sparsity.multiple) for size in sizes)
    if sum(counts) == sum(sizes):
        raise RecipeError(
            f"a share of {sparsity.density:g}, rounded up to multiples of {sparsity.multiple}, is every channel that "
            f"can be removed: there are {len(sizes)} groups of {min(sizes, default=0)} to {max(sizes, default=0)}.",
            fix="lower sparsity.density or sparsity.multiple, or take a wider network",
        )
    return counts


def mask_move(sparsity: Sparsity) -> Move:
    """How the recipe's masks move."""
    return semi_structured.swap_within_groups if sparsity.pattern == "2:4" else MOVES[sparsity.layer_densities]


def draw_masks(weights: Mapping[str, ConditionedWeight], sparsity: Sparsity, seed: int) -> None:
    """Give every weight a random mask of the recipe's pattern and density.

    Raises:
        RecipeError: the density leaves a layer without weights, or no layer is wide enough for the pattern.
    """
    counts, generator = _counts(weights, sparsity), torch.Generator().manual_seed(seed)
    for name, weight in weights.items():
        shape = weight.theta.shape
        if sparsity.pattern == "2:4":
            weight.set_mask(semi_structured.random_mask(tuple(shape), generator))
        else:
            weight.set_mask(random_mask(shape, counts[name], generator))


def keep_largest(weights: Mapping[str, ConditionedWeight], sparsity: Sparsity) -> None:
    """Give every weight of a pretrained network the mask of the recipe's pattern that keeps its largest entries.

    Raises:
        RecipeError: as for :func:`draw_masks`.
    """
    counts = _counts(weights, sparsity)
    for name, weight in weights.items():
        size = weight.theta.detach().abs()
        if sparsity.pattern == "2:4":
            weight.set_mask(semi_structured.largest_mask(size))
        else:
            weight.set_mask(largest_mask(size, counts[name]))


def _counts(weights: Mapping[str, ConditionedWeight], sparsity: Sparsity) -> dict[str, int]:
    """How many weights of each layer an irregular mask keeps."""
    shapes = {name: tuple(weight.theta.shape) for name, weight in weights.items()}
    if sparsity.pattern == "irregular":
        try:
            return layer_counts(shapes, sparsity.density, sparsity.layer_densities)
        except ValueError as error:
            raise RecipeError(f"{error}.", fix="raise sparsity.density or take a wider network") from None
    if not any(map(semi_structured.is_eligible, shapes.values())):
        raise RecipeError(
            f"pattern 2:4 needs layers whose input channels divide by {semi_structured.GROUP}, and there are none.",
            fix="take a wider network, or use sparsity.pattern=irregular",
        )
    return {}


def left_dense(weights: Mapping[str, ConditionedWeight], sparsity: Sparsity) -> str | None:
    """A remark that names the layers that pattern 2:4 cannot reach; None if there is nothing to say."""
    if sparsity.pattern != "2:4":
        return None
    names = [name for name, weight in weights.items() if not semi_structured.is_eligible(tuple(weight.theta.shape))]
    if not names:
        return None
    return f"dense, as their input channels do not divide by {semi_structured.GROUP}: {', '.join(names)}"
