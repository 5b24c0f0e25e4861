"""Trained networks in PyTorch: the reference every export is compared with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.errors import ArtifactError, LambdaError
from floats_edge.method.batchnorm import reestimate
from floats_edge.method.conditioning import draw_noise, resample_noise
from floats_edge.method.fold import AffineLayer, Rule, fold_network, weights_at
from floats_edge.models.build import build, build_method, load_weights
from floats_edge.models.layers import FOLDED
from floats_edge.models.narrow import narrowed
from floats_edge.models.oat import OatNetwork
from floats_edge.models.spec import ModelSpec
from floats_edge.runtime.base import Images, Logits, Predictor
from floats_edge.runtime.lambda_weights import LambdaWeights


class WeightSource(Protocol):
    """Plain weights by name at a lambda."""

    def at(self, lam: float) -> Mapping[str, NDArray[np.float32]]:
        """The weights at ``lam``, valid until the next call."""
        ...


class TorchPredictor(Predictor):
    """The folded network; ``network`` is differentiable in its images, at the lambda in force.

    Args:
        spec: the network.
        weights: its weights at every lambda it serves.
        lambdas: the lambdas served, None for any.
        device: a torch device.
    """

    def __init__(
        self, spec: ModelSpec, weights: WeightSource, lambdas: tuple[float, ...] | None = None, device: str = "cpu"
    ) -> None:
        super().__init__(f"torch-{device}", spec.image_shape, lambdas, lambdas[0] if lambdas else 0.0)
        self.device = torch.device(device)
        self.network = build(spec, FOLDED).to(self.device)
        self._weights = weights
        self._switch(self.lam)

    def _switch(self, lam: float) -> None:
        load_weights(self.network, {name: torch.from_numpy(array) for name, array in self._weights.at(lam).items()})

    def _infer(self, images: Images) -> Logits:
        return _infer(self.network, images, self.device)


class ResampledPredictor(Predictor):
    """A FLOAT network with fresh noise at every call, for the literature's attacks; nothing is deployed so.

    ``network`` is as above, but that it draws anew for every batch: gradients must be taken before the next call.

    Args:
        spec: its topology.
        network: as trained.
        rule: how a lambda is served.
        seed: of the noise, which starts over when lambda is set.
        device: a torch device.
    """

    def __init__(self, spec: ModelSpec, network: nn.Module, rule: Rule, seed: int, device: str = "cpu") -> None:
        super().__init__(f"torch-{device}", spec.image_shape, None, 0.0)
        self.device = torch.device(device)
        self._trained = network.to(self.device)
        self._folded = build(spec, FOLDED).to(self.device)
        self._rule: Rule = rule
        self._seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])  # apart from the attack's own
        self._generator = torch.Generator(self.device).manual_seed(self._seed)

    def network(self, images: Tensor) -> Tensor:
        """Logits at the lambda in force under a fresh draw of the noise."""
        resample_noise(self._trained, self._generator)
        load_weights(self._folded, weights_at(fold_network(self._trained), self.lam, self._rule))
        return self._folded(images)

    def settle(self, batches: Sequence[Images]) -> None:
        """Re-estimate the statistics of the adversarial BatchNorm under fresh noise, on attacked training images.

        A checkpoint holds those of the frozen draw.
        """
        reestimate(self._trained, lambda: [self._under_fresh_noise(images) for images in batches])

    def _under_fresh_noise(self, images: Images) -> Tensor:
        resample_noise(self._trained, self._generator)
        pixels = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        return self._trained(pixels, 1.0)

    def set_lambda(self, lam: float) -> float:
        self._generator.manual_seed(self._seed)
        return super().set_lambda(lam)

    def _switch(self, lam: float) -> None:
        """Nothing to do: every call folds the network at ``lam``."""

    def _infer(self, images: Images) -> Logits:
        return _infer(self.network, images, self.device)


class OatPredictor(Predictor):
    """An OAT network, which does not fold: FiLM runs in every inference. ``network`` is as above.

    Args:
        spec: its topology.
        network: as trained.
        device: a torch device.
    """

    def __init__(self, spec: ModelSpec, network: OatNetwork, device: str = "cpu") -> None:
        super().__init__(f"torch-{device}", spec.image_shape, network.oat.served, 0.0)
        self.device = torch.device(device)
        self._oat = network.to(self.device)

    def network(self, images: Tensor) -> Tensor:
        """Logits at the lambda in force."""
        return self._oat(images, self.lam)

    def set_lambda(self, lam: float) -> float:
        if self.lambdas is not None and lam not in self.lambdas:
            known = ", ".join(f"{value:g}" for value in self.lambdas)
            raise LambdaError(
                f"this OAT network was trained at lambda {known}; its encoding knows no {lam:g}.",
                fix="choose one of them, or train with oat.encoding=none",
            )
        return super().set_lambda(lam)

    def _switch(self, lam: float) -> None:
        """Nothing to do: the network reads ``lam`` in every inference."""

    def _infer(self, images: Images) -> Logits:
        return _infer(self.network, images, self.device)


@torch.no_grad()
def _infer(network: Callable[[Tensor], Tensor], images: Images, device: torch.device) -> Logits:
    return network(torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)).cpu().numpy()


def trained_layers(run: TrainingRun) -> dict[str, AffineLayer]:
    """The affine form of a trained network, as NumPy arrays by layer name.

    Raises:
        ArtifactError: the weights are damaged, of another network than the checkpoint says, or of one that does not
            fold.
    """
    recipe = run.checkpoint.recipe
    if recipe.method == "oat":
        raise ArtifactError(
            f"{run.path} was trained by OAT, a baseline that cannot be folded into plain weights.",
            fix="floats-edge evaluate runs it as it is; to export, train with method: float",
        )
    network = trained_network(run)
    draw_noise(network, recipe.condition.noise_seed)
    return {name: layer.numpy() for name, layer in fold_network(network).items()}


def deployed_layers(run: TrainingRun) -> tuple[dict[str, AffineLayer], ModelSpec]:
    """The affine form of a trained network as it is deployed, the channels that were cut removed, and its topology.

    Raises:
        ArtifactError: as for :func:`trained_layers`.
    """
    layers, spec = trained_layers(run), run.checkpoint.model
    return narrowed(layers, spec) if run.checkpoint.recipe.sparsity.pattern == "channel" else (layers, spec)


def trained_network(run: TrainingRun) -> nn.Module:
    """The network of a run as trained, without its frozen noise.

    Raises:
        ArtifactError: the weights are damaged, or of another network than the checkpoint says.
    """
    checkpoint = run.checkpoint
    network = build_method(checkpoint.model, checkpoint.recipe.method, checkpoint.recipe.oat, seed=0).eval()
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in run.weights().items()})
    except RuntimeError:
        raise ArtifactError(
            f"{run.path} holds the weights of another model than {checkpoint.model.arch}.",
            fix="train it again: floats-edge train RECIPE --out DIR",
        ) from None
    return network.requires_grad_(False)


def trained_predictor(run: TrainingRun, device: str = "cpu") -> TorchPredictor | OatPredictor:
    """The trained network of a run at every lambda it serves: folded, as it is deployed, unless it is OAT's."""
    if run.checkpoint.recipe.method != "oat":
        return run_predictor(run, device)
    network = trained_network(run)
    assert isinstance(network, OatNetwork)
    return OatPredictor(run.checkpoint.model, network, device)


def resampled_predictor(run: TrainingRun, seed: int, device: str = "cpu") -> ResampledPredictor:
    """The FLOAT network of a run with fresh noise for every batch.

    Raises:
        ArtifactError: it has no noise.
    """
    recipe = run.checkpoint.recipe
    if recipe.method != "float":
        raise ArtifactError(
            f"{run.path} was trained by {recipe.method}: there is no noise in it to resample.",
            fix="leave --noise out, or evaluate a run of method: float",
        )
    return ResampledPredictor(run.checkpoint.model, trained_network(run), recipe.condition.rule, seed, device)


def run_predictor(run: TrainingRun, device: str = "cpu") -> TorchPredictor:
    """The trained network of a run, folded, at any lambda.

    Raises:
        ArtifactError: it does not fold.
    """
    weights = LambdaWeights(trained_layers(run), run.checkpoint.recipe.condition.rule)
    return TorchPredictor(run.checkpoint.model, weights, device=device)
