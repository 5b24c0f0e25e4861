"""The plain weights of an artifact at each lambda it serves."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.weights import unpack_weights
from floats_edge.method.fold import AffineLayers, Rule, Weights, affine_in_lambda, clean_weights

Array = NDArray[np.float32]


class LambdaWeights:
    """W(lam) and b(lam) of every layer in one flat float32 buffer: switching is one pass over it.

    Args:
        layers: the affine form of the network, NumPy arrays.
        rule: how a lambda between 0 and 1 is served.
    """

    def __init__(self, layers: AffineLayers, rule: Rule) -> None:
        base, slope = affine_in_lambda(layers, rule)
        self._base, self._slope = _flat(base), _flat(slope)
        self._clean = _flat(clean_weights(layers))
        self._buffer = self._clean.copy()
        self._views: dict[str, Array] = {}
        offset = 0
        for name, array in base.items():
            self._views[name] = self._buffer[offset : offset + array.size].reshape(array.shape)
            offset += array.size

    def at(self, lam: float) -> dict[str, Array]:
        """Set the buffer to ``lam`` in [0, 1]; the returned arrays are views that the next call overwrites."""
        if lam == 0:
            self._buffer[:] = self._clean
        else:
            np.multiply(self._slope, np.float32(lam), out=self._buffer)
            self._buffer += self._base
        return self._views


class GraphWeights:
    """Weights at a few lambdas, one set each.

    Args:
        sets: plain weights by lambda.
    """

    def __init__(self, sets: Mapping[float, Mapping[str, Array]]) -> None:
        self._sets = sets

    def at(self, lam: float) -> Mapping[str, Array]:
        """The weights at ``lam``, one of the lambdas given."""
        return self._sets[lam]


def bundle_weights(bundle: Bundle) -> LambdaWeights:
    """The weights of a bundle in mode ``bound``.

    Raises:
        ArtifactError: the weights file is not what was exported, or does not fit the manifest.
    """
    manifest = bundle.manifest
    assert manifest.weights is not None, "only mode bound keeps its weights apart"
    layers = unpack_weights(bundle.tensors(manifest.weights), manifest.layers, manifest.lam.noise_seed)
    return LambdaWeights(layers, manifest.lam.rule)


def graph_weights(bundle: Bundle) -> GraphWeights:
    """The weights of a bundle in mode ``fixed`` or ``bank``, read from its graphs and widened to float32.

    Raises:
        ArtifactError: a graph is not what was exported.
    """
    import onnx
    from onnx import numpy_helper

    names = {f"{layer.name}.{kind}" for layer in bundle.manifest.layers for kind in ("weight", "bias")}
    sets: dict[float, dict[str, Array]] = {}
    for graph in bundle.manifest.graphs:
        assert graph.lam is not None, "a graph of mode fixed or bank has its lambda"
        model = onnx.load_model_from_string(bundle.read(graph.file))
        sets[graph.lam] = {
            tensor.name: numpy_helper.to_array(tensor).astype(np.float32)
            for tensor in model.graph.initializer
            if tensor.name in names
        }
    return GraphWeights(sets)


def _flat(weights: Weights) -> Array:
    return np.concatenate([array.reshape(-1) for array in weights.values()])
