"""The folded network in PyTorch: the reference every export is compared with, and the twin that gradients come from."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.errors import ArtifactError
from floats_edge.method.conditioning import draw_noise
from floats_edge.method.fold import AffineLayer, fold_network
from floats_edge.models.build import build, load_weights
from floats_edge.models.layers import FLOAT, FOLDED
from floats_edge.models.spec import ModelSpec
from floats_edge.runtime.base import Images, Logits, Predictor
from floats_edge.runtime.lambda_weights import LambdaWeights, bundle_weights, graph_weights


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
        batch = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return self.network(batch).cpu().numpy()


def trained_layers(run: TrainingRun) -> dict[str, AffineLayer]:
    """The affine form of a trained network, as NumPy arrays by layer name.

    Raises:
        ArtifactError: the weights are damaged, or of another network than the checkpoint says.
    """
    checkpoint = run.checkpoint
    network = build(checkpoint.model, FLOAT).eval()
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in run.weights().items()})
    except RuntimeError:
        raise ArtifactError(
            f"{run.path} holds the weights of another model than {checkpoint.model.arch}.",
            fix="train it again: floats-edge train RECIPE --out DIR",
        ) from None
    draw_noise(network, checkpoint.recipe.condition.noise_seed)
    return {name: layer.numpy() for name, layer in fold_network(network).items()}


def run_predictor(run: TrainingRun, device: str = "cpu") -> TorchPredictor:
    """The trained network of a run, folded, at any lambda."""
    weights = LambdaWeights(trained_layers(run), run.checkpoint.recipe.condition.rule)
    return TorchPredictor(run.checkpoint.model, weights, device=device)


def bundle_twin(bundle: Bundle, device: str = "cpu") -> TorchPredictor:
    """The float twin of a bundle: its network rebuilt from nothing but the bundle, fp32, for attacks by gradient."""
    manifest = bundle.manifest
    weights = bundle_weights(bundle) if manifest.lam.mode == "bound" else graph_weights(bundle)
    return TorchPredictor(manifest.model, weights, manifest.lam.values, device)
