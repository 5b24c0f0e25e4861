"""2:4 sparsity of an exported network: which weights hold it, and what TensorRT's log says it made of them.

A sparse tensor core reads two of every four consecutive input channels. TensorRT uses it, if allowed, only for
constant weights that hold the pattern and only where it measured it to be faster. Source of the log's lines: TensorRT's
developer guide (8.x: a list of layers) and the strings in its library (10.x: a number, and the list if verbose).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Graph, SparseTactics
from floats_edge.runtime.graph_check import read_graph
from floats_edge.runtime.lambda_weights import bundle_weights

Arrays = Mapping[str, NDArray[Any]]

_ELIGIBLE = re.compile(r"\(Sparsity\) (?:Found (\d+) layer\(s\) eligible|Layers eligible for sparse math:(.*))")
_CHOSEN = re.compile(r"\(Sparsity\) (?:Chose (\d+) layer\(s\)|TRT inference plan picked sparse implementation\D*:(.*))")
_EVERYWHERE = (0.0, 0.5, 1.0)
"""A weight that is zero at these is zero at every lambda: it is affine in lambda on (0, 1]."""


def holds_two_of_four(weight: NDArray[Any]) -> bool:
    """Whether no four consecutive input channels of a weight ``[out, in, ...]`` hold more than two non-zeros."""
    if weight.ndim < 2 or weight.shape[1] % 4:
        return False
    groups = np.moveaxis(weight != 0, 1, -1).reshape(-1, 4)
    return bool((groups.sum(axis=1) <= 2).all())


def sparse_layers(bundle: Bundle, graph: Graph) -> tuple[str, ...]:
    """The layers whose weights are constants of the graph and hold 2:4 at every lambda it serves.

    None if a constant holds it in the graph alone: refitted, it would break an engine that counts on it.

    Raises:
        ArtifactError: a file is not what was exported.
    """
    names = {f"{layer.name}.weight": layer.name for layer in bundle.manifest.layers}
    model = read_graph(bundle, graph.file)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names}
    built = _holding(constants)
    if bundle.manifest.lam.mode == "refit" and not set(built) <= set(_holding(_ever_nonzero(bundle, built))):
        return ()
    return tuple(names[name] for name in built)


def sparse_tactics(layers: tuple[str, ...], log: str) -> SparseTactics:
    """The report on an engine that was built with ``SPARSE_WEIGHTS`` if ``layers`` names any."""
    if not layers:
        why = "no layer's weights are constants that hold 2:4, so TensorRT was not asked to look for it"
        return SparseTactics(layers=(), eligible=None, chosen=None, unknown=why)
    eligible, chosen = (_last_count(pattern.finditer(log)) for pattern in (_ELIGIBLE, _CHOSEN))
    told = eligible is not None and chosen is not None
    why = None if told else "the builder's log does not say (TensorRT-RTX decides when it loads the engine)"
    return SparseTactics(layers=layers, eligible=eligible, chosen=chosen, unknown=why)


def _holding(weights: Arrays) -> list[str]:
    return [name for name, weight in weights.items() if holds_two_of_four(weight)]


def _ever_nonzero(bundle: Bundle, names: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """For each weight, which of its elements differ from zero at any lambda."""
    weights = bundle_weights(bundle)
    at = [{name: weights.at(lam)[name] != 0 for name in names} for lam in _EVERYWHERE]
    return {name: np.logical_or.reduce([each[name] for each in at]) for name in names}


def _last_count(found: Iterable[re.Match[str]]) -> int | None:
    """The number in the last match: TensorRT logs once per pass, and the last one is the engine's."""
    for match in reversed(list(found)):
        number, names = match.groups()
        return int(number) if number else len([name for name in names.split(",") if name.strip()])
    return None
