"""FLOATS masks: exact counts, the right weights swapped, and nothing outside them from training to bundle."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.weights import unpack_weights
from floats_edge.data import Splits
from floats_edge.method.conditioning import ConditionedWeight
from floats_edge.method.masks import MaskUpdater, layer_counts, random_mask, swap_fraction
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.training.loop import Trainer
from floats_edge.training.statistics import image_spec

DENSITY = 0.3

Shapes = dict[str, tuple[int, ...]]

convolution = st.tuples(*[st.integers(1, 64)] * 2, *[st.sampled_from([1, 3])] * 2)
classifier = st.tuples(*[st.integers(1, 256)] * 2)
network_shapes = st.lists(convolution | classifier, min_size=1, max_size=12).map(
    lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)}
)


class TestLayerCounts:
    @settings(max_examples=200)
    @given(shapes=network_shapes, density=st.floats(0.01, 1))
    @pytest.mark.parametrize("rule", ["erk", "uniform"])
    def test_sum_is_exact_and_no_layer_overflows(self, rule: str, shapes: Shapes, density: float) -> None:
        total = sum(math.prod(shape) for shape in shapes.values())
        try:
            counts = layer_counts(shapes, density, rule)
        except ValueError:
            assume(False)
        assert sum(counts.values()) == round(density * total)
        assert all(1 <= counts[name] <= math.prod(shape) for name, shape in shapes.items())

    @settings(max_examples=100)
    @given(shapes=network_shapes, density=st.floats(0.01, 1))
    def test_erk_is_in_proportion_to_the_sum_of_dimensions(self, shapes: Shapes, density: float) -> None:
        """Over the layers that are not dense, up to the rounding to whole weights."""
        try:
            counts = layer_counts(shapes, density, "erk")
        except ValueError:
            assume(False)
        sparse = [name for name, shape in shapes.items() if counts[name] < math.prod(shape) - 1]
        scales = [(counts[name] / sum(shapes[name]), 1 / sum(shapes[name])) for name in sparse]
        for scale, slack in scales:
            assert all(abs(scale - other) <= slack + other_slack + 1e-9 for other, other_slack in scales)

    def test_erk_gives_small_layers_a_higher_density(self) -> None:
        shapes = {"stem": (16, 3, 3, 3), "middle": (32, 32, 3, 3), "wide": (64, 64, 3, 3), "head": (50, 64)}
        counts = layer_counts(shapes, 0.05, "erk")
        density = {name: counts[name] / math.prod(shape) for name, shape in shapes.items()}
        assert density["stem"] > density["head"] > density["middle"] > density["wide"]

    def test_uniform_gives_every_layer_the_same_density(self) -> None:
        assert layer_counts({"a": (10, 10), "b": (20, 20)}, 0.25, "uniform") == {"a": 25, "b": 100}

    @pytest.mark.parametrize("rule", ["erk", "uniform"])
    def test_an_empty_layer_is_refused_by_name(self, rule: str) -> None:
        with pytest.raises(ValueError, match=r"density 0\.0002 leaves no weight in small"):
            layer_counts({"small": (2, 2), "large": (64, 64, 3, 3)}, 0.0002, rule)

    def test_unknown_rule(self) -> None:
        with pytest.raises(ValueError, match="gradient"):
            layer_counts({"a": (4, 4)}, 0.5, "gradient")


def test_random_mask_has_exactly_that_many_and_follows_its_generator() -> None:
    def mask(seed: int) -> torch.Tensor:
        return random_mask(torch.Size((8, 5, 3, 3)), 77, torch.Generator().manual_seed(seed))

    assert mask(0).sum() == 77
    assert torch.equal(mask(0), mask(0))
    assert not torch.equal(mask(0), mask(1))


def test_swap_fraction_decays_to_nothing_at_three_quarters() -> None:
    fractions = [swap_fraction(0.3, progress / 100) for progress in range(101)]
    assert fractions[0] == 0.3
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[37] == pytest.approx(0.15, rel=0.05)
    assert fractions[74] > 0
    assert set(fractions[75:]) == {0.0}


class TestUpdate:
    """One update, of weights whose gradients the test chose."""

    @pytest.fixture
    def weights(self) -> dict[str, ConditionedWeight]:
        generator = torch.Generator().manual_seed(0)
        weights = {
            "conv": ConditionedWeight(nn.Parameter(torch.empty(8, 4, 3, 3))),
            "head": ConditionedWeight(nn.Parameter(torch.empty(5, 8))),
        }
        for weight in weights.values():
            weight.theta.data.normal_(generator=generator)
            weight.set_mask(random_mask(weight.theta.shape, weight.mask.numel() // 3, generator))
        return weights

    @staticmethod
    def train_a_little(weights: dict[str, ConditionedWeight], updater: MaskUpdater) -> torch.optim.SGD:
        """Three steps with random dense gradients; keeps the running mean of their magnitudes in ``mean_gradient``."""
        optimizer = torch.optim.SGD([weight.theta for weight in weights.values()], lr=0.1, momentum=0.9)
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            for weight in weights.values():
                weight.theta.grad = torch.randn(weight.theta.shape, generator=generator)
            updater.mask_gradients()
            optimizer.step()
        return optimizer

    def test_swaps_the_weakest_for_the_most_wanted(self, weights: dict[str, ConditionedWeight]) -> None:
        updater = MaskUpdater(weights)
        optimizer = self.train_a_little(weights, updater)
        generator = torch.Generator().manual_seed(1)
        mean = {name: torch.zeros_like(weight.theta) for name, weight in weights.items()}
        for _ in range(3):
            for name, weight in weights.items():
                mean[name] = 0.9 * mean[name] + 0.1 * torch.randn(weight.theta.shape, generator=generator).abs()
        before = {name: (weight.mask.clone(), weight.theta.detach().clone()) for name, weight in weights.items()}

        swapped = updater.update(0.25, optimizer)

        assert swapped == sum(int(0.25 * int(mask.sum())) for mask, _ in before.values())
        for name, weight in weights.items():
            mask, theta = before[name]
            swaps = int(0.25 * int(mask.sum()))
            dropped, grown = mask & ~weight.mask, weight.mask & ~mask
            assert weight.mask.sum() == mask.sum()
            assert dropped.sum() == grown.sum() == swaps
            assert theta[dropped].abs().max() <= theta[mask & weight.mask].abs().min()
            assert mean[name][grown].min() >= mean[name][~mask & ~weight.mask].max()
            assert torch.equal(weight.theta[mask & weight.mask], theta[mask & weight.mask])
            assert weight.theta[grown].abs().max() == 0
            assert weight.theta[~weight.mask].abs().max() == 0

    def test_dropped_weights_lose_their_momentum(self, weights: dict[str, ConditionedWeight]) -> None:
        updater = MaskUpdater(weights)
        optimizer = self.train_a_little(weights, updater)
        updater.update(0.25, optimizer)
        for weight in weights.values():
            momentum = optimizer.state[weight.theta]["momentum_buffer"]
            assert momentum[~weight.mask].abs().max() == 0
            assert momentum.abs().max() > 0

    def test_the_optimiser_never_sees_a_gradient_outside_the_mask(self, weights: dict[str, ConditionedWeight]) -> None:
        updater = MaskUpdater(weights)
        self.train_a_little(weights, updater)
        for weight in weights.values():
            assert weight.theta.grad is not None
            assert weight.theta.grad[~weight.mask].abs().max() == 0
            assert weight.theta[~weight.mask].abs().max() == 0

    def test_a_dense_layer_stays_as_it_is(self) -> None:
        weight = ConditionedWeight(nn.Parameter(torch.empty(4, 4)))
        torch.nn.init.normal_(weight.theta)
        theta = weight.theta.detach().clone()
        assert MaskUpdater({"head": weight}).update(0.5, torch.optim.SGD([weight.theta], lr=0.1)) == 0
        assert weight.mask.all()
        assert torch.equal(weight.theta, theta)


class Inspector:
    """An observer that looks into the trainer after every step, so after every mask update."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.masks = [self.mask()]

    def mask(self) -> torch.Tensor:
        return torch.cat([weight.mask.flatten() for weight in self.trainer.weights_by_layer.values()])

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        mask = self.mask()
        assert int(mask.sum()) == round(DENSITY * mask.numel())
        for name, weight in self.trainer.weights_by_layer.items():
            momentum = self.trainer.optimizer.state[weight.theta]["momentum_buffer"]
            for tensor in (weight.theta, momentum, weight(0.7)):
                assert tensor[~weight.mask].abs().sum() == 0, name
        if not torch.equal(mask, self.masks[-1]):
            self.masks.append(mask)

    def on_epoch(self, epoch: object) -> None:
        pass


def test_density_holds_after_every_update_of_a_real_run(digits_recipe: Recipe, digits: Splits) -> None:
    few = replace(digits, train=digits.train.first(192), validation=digits.validation.first(16))
    recipe = override_recipe(digits_recipe, ("train.epochs=4", "sparsity.update_every=0.25"))
    trainer = Trainer(recipe, few, image_spec(recipe, few), torch.device("cpu"))
    inspector = Inspector(trainer)
    epochs = [trainer.run_epoch(epoch, inspector) for epoch in range(4)]
    assert len(inspector.masks) == 1 + 11, "an update every quarter of an epoch, none in the last quarter of the run"
    assert [epoch.swapped > 0 for epoch in epochs] == [True, True, True, False]
    assert all(epoch.density == pytest.approx(DENSITY, rel=1e-3) for epoch in epochs)


def run_masks(run: TrainingRun) -> dict[str, np.ndarray]:
    return {name.removesuffix(".weight.mask"): m for name, m in run.weights().items() if name.endswith(".mask")}


def test_checkpoint_holds_nothing_outside_the_masks(digits_run: TrainingRun) -> None:
    weights, state, masks = digits_run.weights(), digits_run.state(), run_masks(digits_run)
    assert sum(int(m.sum()) for m in masks.values()) == round(DENSITY * sum(m.size for m in masks.values()))
    for name, mask in masks.items():
        assert not weights[f"{name}.weight.theta"][~mask].any()
        assert not state[f"momentum_buffer/{name}.weight.theta"][~mask].any()


def test_bound_bundle_holds_nothing_outside_the_masks(digits_run: TrainingRun, bundles: Callable[..., Bundle]) -> None:
    bundle = bundles("bound")
    assert bundle.manifest.density == pytest.approx(DENSITY, rel=1e-3)
    tensors = bundle.tensors("weights.safetensors")
    layers = unpack_weights(tensors, bundle.manifest.layers, bundle.manifest.lam.noise_seed)
    for name, mask in run_masks(digits_run).items():
        np.testing.assert_array_equal(layers[name].mask, mask)
        assert not layers[name].theta[~mask].any()
        assert not layers[name].noise[~mask].any()
        assert layers[name].noise[mask].all()


@pytest.mark.parametrize(("mode", "precision"), [("fixed", "fp32"), ("bank", "fp32"), ("fixed", "fp16")])
def test_graphs_hold_nothing_outside_the_masks(
    digits_run: TrainingRun, bundles: Callable[..., Bundle], mode: str, precision: str
) -> None:
    bundle = bundles(mode, precision)
    masks = run_masks(digits_run)
    for graph in bundle.manifest.graphs:
        model = onnx.load_model_from_string(bundle.read(graph.file))
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name, mask in masks.items():
            assert not tensors[f"{name}.weight"][~mask].any()
            assert tensors[f"{name}.weight"][mask].any()
