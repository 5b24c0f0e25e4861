"""The affine weights of a runtime-lambda bundle as safetensors: theta, per-channel vectors, and no noise.

Per layer ``L``: ``L.theta`` (dense: float32 of the weight's shape; sparse: the float32 values inside the mask, in C
order), ``L.mask`` (sparse only: the mask as bits, C order, least significant bit first, uint8) and, each float32 [out],
``L.gain_clean``, ``L.gain_base``, ``L.gain_slope``, ``L.noise_slope``, ``L.bias_clean``, ``L.bias_base``,
``L.bias_slope``. The noise is regenerated from the manifest's seed and the layer's position in it: see
``method/noise.py`` and, for the arithmetic, ``method/fold.py``.

A layer whose channels were removed has in the manifest, besides its shape, the one that its noise was drawn for. Its
mask is over the latter and tells which of those entries are left; they fill the layer's shape in C order, theta and
noise alike, and none of them is masked.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import EXPORT_AGAIN
from floats_edge.artifacts.manifest import LayerSpec
from floats_edge.errors import ArtifactError
from floats_edge.method.fold import VECTORS, AffineLayer, AffineLayers, drawn_noise, masked_noise

_Take = Callable[[str, type[np.generic], tuple[int, ...]], NDArray[Any]]
"""Hands out the tensor of a name, once its type and shape are found to be these."""


def layer_specs(layers: AffineLayers) -> tuple[LayerSpec, ...]:
    """What a manifest says of layers of NumPy arrays."""
    return tuple(
        LayerSpec(
            name=name,
            shape=layer.mask.shape,
            nonzeros=int(layer.mask.sum()),
            drawn=None if layer.drawn is None else layer.drawn.shape,
        )
        for name, layer in layers.items()
    )


def pack_weights(layers: AffineLayers) -> dict[str, NDArray[Any]]:
    """Tensors to save, from layers of NumPy arrays."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, layer in layers.items():
        if layer.drawn is not None:
            tensors[f"{name}.theta"] = layer.theta.reshape(-1)
            tensors[f"{name}.mask"] = np.packbits(layer.drawn.reshape(-1), bitorder="little")
        elif layer.mask.all():
            tensors[f"{name}.theta"] = layer.theta
        else:
            tensors[f"{name}.theta"] = layer.theta[layer.mask]
            tensors[f"{name}.mask"] = np.packbits(layer.mask.reshape(-1), bitorder="little")
        for vector in VECTORS:
            tensors[f"{name}.{vector}"] = getattr(layer, vector)
    return tensors


def pack_scales(scales: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Tensors to save beside the weights of an int8 bundle: ``L.weight.scale``, float32 ``[out]``, of some layers."""
    return {f"{name}.scale": scale for name, scale in scales.items()}


def take_scales(tensors: dict[str, NDArray[Any]], specs: Sequence[LayerSpec]) -> dict[str, NDArray[np.float32]]:
    """Remove the scales of an int8 bundle from its tensors and return them by the name of their weight.

    Raises:
        ArtifactError: a scale is of the wrong shape or type, or not a positive number.
    """
    scales: dict[str, NDArray[np.float32]] = {}
    for spec in specs:
        scale = tensors.pop(f"{spec.name}.weight.scale", None)
        if scale is None:
            continue
        if scale.dtype != np.float32 or scale.shape != spec.shape[:1] or not (np.isfinite(scale) & (scale > 0)).all():
            raise ArtifactError(
                f"the weights do not fit the manifest: {spec.name}.weight.scale is not a positive float32 number for "
                f"each of {spec.shape[0]} channels.",
                fix=EXPORT_AGAIN,
            )
        scales[f"{spec.name}.weight"] = scale
    return scales


def unpack_weights(
    tensors: Mapping[str, NDArray[Any]], specs: Sequence[LayerSpec], noise_seed: int
) -> dict[str, AffineLayer]:
    """Layers of NumPy arrays from saved tensors, the noise drawn anew.

    Raises:
        ArtifactError: a tensor is missing, superfluous, or of the wrong shape or type.
    """
    left = dict(tensors)

    def take(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        tensor = left.pop(name, None)
        if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
            found = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise ArtifactError(
                f"the weights do not fit the manifest: {name}: {np.dtype(dtype)} {list(shape)} stated, {found} found.",
                fix=EXPORT_AGAIN,
            )
        return tensor

    layers: dict[str, AffineLayer] = {}
    for index, spec in enumerate(specs):
        layers[spec.name] = _unpack_layer(take, spec, index, noise_seed)
    if left:
        raise ArtifactError(
            f"the weights do not fit the manifest: {', '.join(sorted(left))} belongs to no layer.",
            fix=EXPORT_AGAIN,
        )
    return layers


def _unpack_layer(take: _Take, spec: LayerSpec, index: int, noise_seed: int) -> AffineLayer:
    drawn = None
    if spec.drawn is not None:
        drawn = _mask(take, spec, spec.drawn)
        theta = take(f"{spec.name}.theta", np.float32, (spec.nonzeros,)).reshape(spec.shape)
        mask, noise = np.ones(spec.shape, dtype=bool), drawn_noise(noise_seed, index, drawn, spec.shape)
    elif spec.nonzeros < math.prod(spec.shape):
        mask = _mask(take, spec, spec.shape)
        theta = np.zeros(spec.shape, dtype=np.float32)
        theta[mask] = take(f"{spec.name}.theta", np.float32, (spec.nonzeros,))
        noise = masked_noise(noise_seed, index, mask)
    else:
        theta = take(f"{spec.name}.theta", np.float32, spec.shape)
        mask = np.ones(spec.shape, dtype=bool)
        noise = masked_noise(noise_seed, index, mask)
    vectors = {vector: take(f"{spec.name}.{vector}", np.float32, spec.shape[:1]) for vector in VECTORS}
    return AffineLayer(theta, mask, noise, **vectors, drawn=drawn)


def _mask(take: _Take, spec: LayerSpec, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask of a layer, over ``shape``, with as many entries set as the manifest states."""
    size = math.prod(shape)
    bits = take(f"{spec.name}.mask", np.uint8, ((size + 7) // 8,))
    unpacked = np.unpackbits(bits, bitorder="little").astype(bool)
    held = int(unpacked.sum())  # of the bits that fill up the last byte none is set
    if held != spec.nonzeros or unpacked[size:].any():
        raise ArtifactError(
            f"the weights do not fit the manifest: {spec.name}.mask holds {held}, not {spec.nonzeros} of {size}.",
            fix=EXPORT_AGAIN,
        )
    return unpacked[:size].reshape(shape)
