"""Trained networks in PyTorch: what is evaluated, and the reference that every export is compared with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.baselines.oat import OatNetwork
from floats_edge.errors import ArtifactError, LambdaError
from floats_edge.method.batchnorm import reestimate
from floats_edge.method.channel_groups import channel_groups
from floats_edge.method.condition import fold, load_folded, load_weights, unfilled
from floats_edge.method.conditioning import resample_noise
from floats_edge.method.fold import AffineLayer, Rule
from floats_edge.method.narrow import narrowed
from floats_edge.networks.spec import NO_CODE, Code
from floats_edge.prepare import Prepared, example, prepare
from floats_edge.preprocessing import ResolvedPreprocessing
from floats_edge.runtime.base import Images, Logits, Predictor
from floats_edge.runtime.lambda_weights import LambdaWeights


class WeightSource(Protocol):
    """Plain weights by name at a lambda."""

    def at(self, lam: float) -> Mapping[str, NDArray[np.float32]]:
        """The weights at ``lam``, valid until the next call."""
        ...


class TorchPredictor(Predictor):
    """A folded network at any lambda; ``network`` is differentiable in its images, at the lambda in force.

    Args:
        network: of plain layers.
        preprocessing: how an image becomes what it takes.
        weights: its weights at every lambda.
        device: a torch device.
    """

    def __init__(
        self, network: nn.Module, preprocessing: ResolvedPreprocessing, weights: WeightSource, device: str = "cpu"
    ) -> None:
        super().__init__(f"torch-{device}", preprocessing, None, 0.0)
        self.device = torch.device(device)
        self.network = network.to(self.device)
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
        trained: the network.
        preprocessing: how an image becomes what it takes.
        rule: how a lambda is served.
        seed: of the noise, which starts over when lambda is set.
        device: a torch device.
    """

    def __init__(
        self, trained: Prepared, preprocessing: ResolvedPreprocessing, rule: Rule, seed: int, device: str = "cpu"
    ) -> None:
        super().__init__(f"torch-{device}", preprocessing, None, 0.0)
        self.device = torch.device(device)
        trained.network.to(self.device)
        self._trained = trained
        self._folded = unfilled(trained.network, trained.layers)
        self._rule: Rule = rule
        self._seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])  # apart from the attack's own
        self._generator = torch.Generator(self.device).manual_seed(self._seed)

    def network(self, images: Tensor) -> Tensor:
        """Logits at the lambda in force under a fresh draw of the noise."""
        resample_noise(self._trained.network, self._generator)
        load_folded(self._folded, self._trained.layers, self._rule, self.lam)
        return self._folded(images)

    def settle(self, batches: Sequence[Images]) -> None:
        """Re-estimate the statistics of the adversarial BatchNorm under fresh noise, on attacked training images.

        A checkpoint holds those of the frozen draw.
        """
        with self._trained.knob.at(1.0):
            reestimate(self._trained.network, lambda: [self._under_fresh_noise(images) for images in batches])

    def _under_fresh_noise(self, images: Images) -> Tensor:
        resample_noise(self._trained.network, self._generator)
        pixels = torch.from_numpy(images).to(self.device).contiguous(memory_format=torch.channels_last)
        return self._trained.network(pixels)

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
        network: as trained.
        preprocessing: how an image becomes what it takes.
        device: a torch device.
    """

    def __init__(self, network: OatNetwork, preprocessing: ResolvedPreprocessing, device: str = "cpu") -> None:
        super().__init__(f"torch-{device}", preprocessing, network.oat.served, 0.0)
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


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """A trained network as plain layers.

    Attributes:
        network: whose weights are yet to be loaded, at a lambda.
        layers: what these are made of, as NumPy arrays by name.
    """

    network: nn.Module
    layers: dict[str, AffineLayer]


def folded_network(run: TrainingRun, code: Code = NO_CODE) -> FoldedNetwork:
    """A network as it was trained, folded.

    Raises:
        ArtifactError: the weights are damaged, of another network than the checkpoint says, or of one that does not
            fold.
        NetworkError: the network is of code that the user did not allow to run, or can no longer be built.
    """
    if run.checkpoint.recipe.method == "oat":
        raise ArtifactError(
            f"{run.path} was trained by OAT, a baseline that cannot be folded into plain weights.",
            fix="floats-edge evaluate runs it as it is; to export, train with method: float",
        )
    trained = trained_network(run, code)
    layers = {name: layer.numpy() for name, layer in fold(trained.layers, run.checkpoint.recipe.condition.rule).items()}
    return FoldedNetwork(unfilled(trained.network, trained.layers), layers)


def deployed_network(run: TrainingRun, code: Code = NO_CODE) -> FoldedNetwork:
    """A network as it is deployed: folded, the channels that were cut removed.

    Raises:
        ArtifactError: as for :func:`folded_network`.
        NetworkError: as for :func:`folded_network`.
    """
    folded = folded_network(run, code)
    if run.checkpoint.recipe.sparsity.pattern != "channel":
        return folded
    channels = channel_groups(folded.network, folded.layers, example(run.checkpoint.images))
    return FoldedNetwork(folded.network, narrowed(folded.network, folded.layers, channels))


def trained_network(run: TrainingRun, code: Code = NO_CODE) -> Prepared:
    """The network of a run as trained, in inference mode.

    Raises:
        ArtifactError: the weights are damaged, or of another network than the checkpoint says.
        NetworkError: the network is of code that the user did not allow to run, or can no longer be built.
    """
    checkpoint = run.checkpoint
    prepared = prepare(checkpoint.recipe, checkpoint.images, len(checkpoint.labels), code=code)
    try:
        prepared.network.load_state_dict({name: torch.from_numpy(array) for name, array in run.weights().items()})
    except RuntimeError:
        raise ArtifactError(
            f"{run.path} holds the weights of another network than {checkpoint.recipe.model.title}.",
            fix="train it again: floats-edge train RECIPE --out DIR",
        ) from None
    prepared.network.eval().requires_grad_(False)
    return prepared


def trained_predictor(run: TrainingRun, device: str = "cpu", code: Code = NO_CODE) -> TorchPredictor | OatPredictor:
    """The trained network of a run at every lambda it serves: folded, as it is deployed, unless it is OAT's."""
    if run.checkpoint.recipe.method != "oat":
        return run_predictor(run, device, code)
    network = trained_network(run, code).network
    assert isinstance(network, OatNetwork)
    return OatPredictor(network, run.checkpoint.images.preprocessing, device)


def resampled_predictor(run: TrainingRun, seed: int, device: str = "cpu", code: Code = NO_CODE) -> ResampledPredictor:
    """The FLOAT network of a run with fresh noise for every batch.

    Raises:
        ArtifactError: it has no noise.
    """
    checkpoint = run.checkpoint
    if checkpoint.recipe.method != "float":
        raise ArtifactError(
            f"{run.path} was trained by {checkpoint.recipe.method}: there is no noise in it to resample.",
            fix="leave --noise out, or evaluate a run of method: float",
        )
    trained, rule = trained_network(run, code), checkpoint.recipe.condition.rule
    return ResampledPredictor(trained, checkpoint.images.preprocessing, rule, seed, device)


def run_predictor(run: TrainingRun, device: str = "cpu", code: Code = NO_CODE) -> TorchPredictor:
    """The trained network of a run, folded, at any lambda.

    Raises:
        ArtifactError: it does not fold.
    """
    folded = folded_network(run, code)
    preprocessing = run.checkpoint.images.preprocessing
    return TorchPredictor(folded.network, preprocessing, LambdaWeights(folded.layers), device=device)
