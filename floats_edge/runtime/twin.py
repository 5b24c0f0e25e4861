"""The twin of a bundle, which gradients come from: its own graph, computed by PyTorch in float32.

Nothing is imported or built because a file names it. What is attacked is what is deployed, but for rounding: float16
and bfloat16 tensors are float32 in the twin, and it quantises neither activations nor weights that depend on lambda.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle
from floats_edge.artifacts.manifest import LAMBDA_INPUT
from floats_edge.errors import ArtifactError
from floats_edge.runtime.base import Images, Logits, Predictor
from floats_edge.runtime.graph_check import NONE, Arrays, check_parts, graph_bytes
from floats_edge.runtime.graph_rules import read_parts
from floats_edge.runtime.lambda_weights import LambdaWeights, input_weights
from floats_edge.runtime.onnx_bytes import GraphError
from floats_edge.runtime.twin_graph import GraphNetwork

Serve = Callable[[float], GraphNetwork]
"""The network at a lambda; asked whenever lambda changes."""
Floats = Mapping[str, NDArray[np.float32]]
_SOME = 2
"""Images that a network is tried on when it is opened."""


class BundleTwin(Predictor):
    """A bundle as a network that is differentiable in its images: ``network``, at the lambda in force.

    Args:
        bundle: of any lambda mode and precision.
        device: a torch device.

    Raises:
        ArtifactError: a file is not what was exported, a graph is not the one of the manifest, or holds an operation
            in a way that no twin follows.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        manifest = bundle.manifest
        lambdas = manifest.lam.values
        super().__init__(f"torch-{device}", manifest.input.preprocessing, lambdas, lambdas[0] if lambdas else 0.0)
        self.device = torch.device(device)
        by_mode: dict[str, Callable[[Bundle, torch.device], Serve]] = {
            "fixed": _bank,
            "bank": _bank,
            "bound": _bound,
            "input": _input,
            "refit": _refit,
        }
        self._serve = by_mode[manifest.lam.mode](bundle, self.device)
        self.network = self._serve(self.lam)

    def _switch(self, lam: float) -> None:
        self.network = self._serve(lam)

    @torch.no_grad()
    def _infer(self, images: Images) -> Logits:
        return self.network(torch.from_numpy(images).to(self.device)).cpu().numpy()


def _bank(bundle: Bundle, device: torch.device) -> Serve:
    """Modes ``fixed`` and ``bank``: a network for each lambda."""
    networks = {graph.lam: _opened(bundle, graph.file, device) for graph in bundle.manifest.graphs}
    return networks.__getitem__


def _bound(bundle: Bundle, device: torch.device) -> Serve:
    """Mode ``bound``: the network takes W(lam)."""
    weights = input_weights(bundle)
    exact, typed = weights.exact.at(0.0), weights.at(0.0)
    network = _opened(bundle, bundle.manifest.graphs[0].file, device, exact, inputs=typed)
    return _given(network, weights.exact)


def _refit(bundle: Bundle, device: torch.device) -> Serve:
    """Mode ``refit``: W(lam) takes the place of constants."""
    weights = input_weights(bundle)
    exact, typed = weights.exact.at(0.0), weights.at(0.0)
    network = _opened(bundle, bundle.manifest.graphs[0].file, device, exact, constants=typed)
    return _given(network, weights.exact)


def _given(network: GraphNetwork, weights: LambdaWeights) -> Serve:
    def serve(lam: float) -> GraphNetwork:
        network.give(weights.at(lam))
        return network

    return serve


def _input(bundle: Bundle, device: torch.device) -> Serve:
    """Mode ``input``: the network computes its weights of lambda, once for each."""
    zero = {LAMBDA_INPUT: np.zeros((), np.float32)}
    network = _opened(bundle, bundle.manifest.graphs[0].file, device, zero, inputs=zero)

    def serve(lam: float) -> GraphNetwork:
        network.give({LAMBDA_INPUT: np.array(lam, np.float32)})
        return network

    return serve


def _opened(
    bundle: Bundle,
    file: str,
    device: torch.device,
    values: Floats = NONE,
    inputs: Arrays = NONE,
    constants: Arrays = NONE,
) -> GraphNetwork:
    """The network of a graph, tried on blank images.

    Args:
        bundle: that holds it.
        file: of the graph.
        device: to compute on.
        values: what it is given at some lambda.
        inputs: the same as it must take it beside the images.
        constants: the same as it must hold it.

    Raises:
        ArtifactError: it is not what was exported, not the one of the manifest, or no twin can be made of it.
    """
    manifest = bundle.manifest
    parts = read_parts(graph_bytes(bundle, file))
    check_parts(parts, bundle, inputs, constants)
    blank = torch.zeros(_SOME, *manifest.input.shape, device=device)
    try:
        network = GraphNetwork(parts, manifest.input.name, constants, device)
        network.give(values)
        with torch.no_grad():
            shape = network(blank).shape
        if shape != (_SOME, len(manifest.output.labels)):
            raise GraphError(f"gives logits of shape {list(shape)} for {_SOME} images")
    except GraphError as fault:
        raise ArtifactError(f"the graph {bundle.path / file} {fault}.", fix=EXPORT_AGAIN) from None
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        what = str(error).partition("\n")[0]
        raise ArtifactError(
            f"PyTorch cannot compute the graph {bundle.path / file}: {what}.", fix=EXPORT_AGAIN
        ) from None
    return network
