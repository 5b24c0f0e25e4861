"""The plain weights of an artifact at each lambda it serves."""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Precision
from floats_edge.artifacts.weights import take_scales, unpack_weights
from floats_edge.method.fold import AffineLayers, Weights, affine_in_lambda, clean_weights

Array = NDArray[np.float32]

_BITS: dict[Precision, type[np.generic]] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": np.uint16,
    "int8": np.float32,
}
"""NumPy type of the weights and biases that are not quantised; bfloat16, which NumPy lacks, by its bits."""


_BLOCK = 2**18
"""Weights that are computed at once: few enough that what is to be added to the base is still in a core's cache."""
_PER_THREAD = 2**20
"""Weights that are worth another thread."""
_FEW = 0.25
"""Share of weights that change with lambda up to which setting these one by one takes less time than setting all."""

_ALIGNMENT = 256
"""Bytes at whose multiples a weight begins: TensorRT binds no other address."""

_Piece = TypeVar("_Piece")

Allocate = Callable[[int], NDArray[np.uint8]]
"""Gives uninitialised memory of so many bytes."""


def _pageable(size: int) -> NDArray[np.uint8]:
    return np.empty(size, np.uint8)


class Memory:
    """Arrays in one piece of memory, so that one copy takes them to a device, where they lie in the same way.

    Args:
        kinds: shape and type of each, by name.
        first: names of those that lie before the others.
        allocate: where the memory comes from.

    Attributes:
        bytes: all of it, with what is between the arrays: zeros.
        offsets: in bytes, where each array begins, in the order of the memory.
        arrays: views of it, zeros at first, in the order of ``kinds``.
    """

    def __init__(
        self,
        kinds: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        first: Collection[str],
        allocate: Allocate = _pageable,
    ) -> None:
        sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype) in kinds.items()}
        self.offsets: dict[str, int] = {}
        end = 0
        for name in sorted(kinds, key=lambda name: name not in first):
            self.offsets[name] = end
            end += -(-sizes[name] // _ALIGNMENT) * _ALIGNMENT
        self.bytes = allocate(end)
        self.bytes[:] = 0
        self.arrays: dict[str, NDArray[Any]] = {
            name: self.bytes[self.offsets[name] :][: sizes[name]].view(dtype).reshape(shape)
            for name, (shape, dtype) in kinds.items()
        }


class _Threads:
    """Threads that share work: each takes the next piece as soon as it is done with one.

    Where the system lets no more of them start, those that are there do the work.

    Args:
        count: of threads, with the one that asks.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._helpers = ThreadPoolExecutor(count, thread_name_prefix="lambda")  # started when first asked for

    def share(self, work: Callable[[Iterator[_Piece]], None], pieces: Sequence[_Piece]) -> None:
        """Return when ``work``, which every thread calls with the one iterator, has been through all pieces."""
        remaining = iter(pieces)
        helpers: list[Future[None]] = []
        while len(helpers) < min(self._count, len(pieces)) - 1:
            helper = self._submit(work, remaining)
            if helper is None:
                self._count = 1 + len(helpers)  # no more are asked for
            else:
                helpers.append(helper)
        work(remaining)
        for helper in helpers:
            helper.result()

    def _submit(self, work: Callable[[Iterator[_Piece]], None], remaining: Iterator[_Piece]) -> "Future[None] | None":
        try:
            return self._helpers.submit(work, remaining)
        except RuntimeError:  # no thread can be started
            return None


class _Block(NamedTuple):
    """Some of the weights: what they are at lambda = 0 and otherwise, and their places in the buffer."""

    clean: Array
    base: Array
    slope: Array
    places: slice | NDArray[np.intp]


class Line:
    """Weights on a line over lambda, float32, in one piece of memory: switching is one pass over it, shared by threads.

    Where few of the weights change (the others are pruned), only these are kept beside the memory, and set.

    Args:
        clean: the weights at lambda = 0.
        base: with ``slope``, the others: ``base + lam * slope``.
        slope: of the same names and shapes.
        threads: that switching may use; None: one per processor.
        allocate: where the memory comes from.

    Attributes:
        varying: names of the weights that depend on lambda.
        memory: holds the weights, those that depend on lambda first.
    """

    def __init__(
        self,
        clean: Weights,
        base: Weights,
        slope: Weights,
        threads: int | None = None,
        allocate: Allocate = _pageable,
    ) -> None:
        self.varying: tuple[str, ...] = tuple(
            name for name in base if slope[name].any() or not np.array_equal(base[name], clean[name])
        )
        parts = [{name: part[name] for name in base} for part in (clean, base, slope)]
        self.memory = _filled(parts[0], self.varying, allocate)
        self._flat = self.memory.bytes.view(np.float32)
        self._blocks = _blocks(*(_filled(part, self.varying).bytes.view(np.float32) for part in parts))
        available = threads or len(os.sched_getaffinity(0))
        self.threads = _Threads(min(available, max(1, len(self._flat) // _PER_THREAD)))

    def at(self, lam: float) -> dict[str, Array]:
        """Set the memory to ``lam`` in [0, 1] and return views of it: always the same, overwritten by the next call."""
        self.threads.share(partial(_set_blocks, self._flat, lam), self._blocks)
        return self.memory.arrays


def _filled(weights: Weights, first: Collection[str], allocate: Allocate = _pageable) -> Memory:
    """Memory that holds float32 weights."""
    memory = Memory({name: (array.shape, np.float32) for name, array in weights.items()}, first, allocate)
    for name, array in weights.items():
        memory.arrays[name][...] = array
    return memory


def _blocks(clean: Array, base: Array, slope: Array) -> list[_Block]:
    """Weights ``[N]``, cut into blocks; without those that never change if that is most of them."""
    changing = (slope != 0) | (base != clean)
    few = np.count_nonzero(changing) <= _FEW * len(changing)
    if few:
        clean, base, slope = clean[changing], base[changing], slope[changing]
    if np.array_equal(clean, base):
        clean = base
    cuts = [slice(start, min(start + _BLOCK, len(base))) for start in range(0, len(base), _BLOCK)]
    if not few:
        return [_Block(clean[cut], base[cut], slope[cut], cut) for cut in cuts]
    places = np.flatnonzero(changing)
    return [_Block(clean[cut], base[cut], slope[cut], places[cut]) for cut in cuts]


def _set_blocks(buffer: Array, lam: float, blocks: Iterator[_Block]) -> None:
    """Set blocks of the buffer to ``lam``."""
    scratch = np.empty(_BLOCK, dtype=np.float32)
    for clean, base, slope, places in blocks:
        if lam == 0:
            buffer[places] = clean
            continue
        values = np.multiply(slope, np.float32(lam), out=scratch[: len(slope)])
        if isinstance(places, slice):
            np.add(base, values, out=buffer[places])
        else:
            buffer[places] = np.add(base, values, out=values)


class LambdaWeights(Line):
    """W(lam) and b(lam) of every layer.

    Args:
        layers: the affine form of the network, NumPy arrays.
        threads: that switching may use; None: one per processor.
        allocate: where their memory comes from.
    """

    def __init__(self, layers: AffineLayers, threads: int | None = None, allocate: Allocate = _pageable) -> None:
        super().__init__(clean_weights(layers), *affine_in_lambda(layers), threads, allocate)


class InputWeights:
    """The weights at any lambda in the types in which a graph takes them, in memory that stays where it is.

    Args:
        weights: the same in float32, which stay at hand as ``exact``; in fp32 their memory is this one's.
        precision: of the graph.
        scales: int8 only: float32 ``[out]`` per quantised weight, by its name.
        halves: int8 only: layers whose weights and biases are fp16.
        allocate: where memory comes from.

    Attributes:
        varying: names of the weights that depend on lambda.
        memory: holds all weights, those that depend on lambda first.
    """

    def __init__(
        self,
        weights: LambdaWeights,
        precision: Precision,
        scales: Mapping[str, Array],
        halves: Collection[str] = (),
        allocate: Allocate = _pageable,
    ) -> None:
        self.exact = weights
        self.varying = weights.varying
        self.memory = weights.memory
        self._pieces: list[_Typed] = []
        if precision == "fp32":
            return
        exact = weights.at(0.0)
        kinds = {name: np.float16 if name.rpartition(".")[0] in halves else _BITS[precision] for name in exact}
        kinds |= dict.fromkeys(scales, np.int8)
        shapes = {name: (array.shape, kinds[name]) for name, array in exact.items()}
        self.memory = Memory(shapes, self.varying, allocate)
        for name, array in exact.items():
            pieces = _typed(array, self.memory.arrays[name], scales.get(name))
            _convert(iter(pieces))
            if name in self.varying:
                self._pieces += pieces

    @property
    def varying_bytes(self) -> int:
        """How much of the memory, from its start, depends on lambda."""
        offsets = self.memory.offsets.items()
        return next((offset for name, offset in offsets if name not in self.varying), len(self.memory.bytes))

    def at(self, lam: float) -> Mapping[str, NDArray[Any]]:
        """Set the memory to ``lam`` in [0, 1] and return its arrays: always the same. bfloat16 comes as its bits."""
        self.exact.at(lam)
        self.exact.threads.share(_convert, self._pieces)
        return self.memory.arrays


class _Typed(NamedTuple):
    """Some output channels of a weight, in float32 and where they go in another type; ``scale`` is int8's."""

    weight: Array
    target: NDArray[Any]
    scale: Array | None


def _typed(weight: Array, target: NDArray[Any], scale: Array | None) -> list[_Typed]:
    """A weight cut into pieces that stay in a core's cache while they are converted."""
    rows = max(1, _BLOCK * len(weight) // weight.size)
    cuts = [slice(start, start + rows) for start in range(0, len(weight), rows)]
    return [_Typed(weight[cut], target[cut], None if scale is None else scale[cut]) for cut in cuts]


def _convert(pieces: Iterator[_Typed]) -> None:
    """Round weights to the type they have in the graph."""
    for weight, target, scale in pieces:
        if scale is not None:
            target[...] = quantized(weight, scale)
        elif target.dtype == np.uint16:
            target[...] = bfloat16_bits(weight)
        else:
            target[...] = weight


def quantized(weight: Array, scale: Array) -> NDArray[np.int8]:
    """A weight ``[out, ...]`` as ONNX's QuantizeLinear makes it int8 with one scale per output channel."""
    steps = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(steps), -128, 127).astype(np.int8)


def bfloat16_bits(array: Array) -> NDArray[np.uint16]:
    """Finite float32 values rounded to bfloat16, ties to even: the upper half of their bits."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def bundle_weights(bundle: Bundle) -> LambdaWeights:
    """The weights of a bundle in mode ``bound`` or ``refit``, in float32.

    Raises:
        ArtifactError: the weights file is not what was exported, or does not fit the manifest.
    """
    return _read_weights(bundle)[0]


def input_weights(bundle: Bundle, threads: int | None = None, allocate: Allocate = _pageable) -> InputWeights:
    """The weights of a bundle in mode ``bound`` or ``refit``, in the types of its graph.

    Args:
        bundle: where they are read from.
        threads: that switching may use; None: one per processor.
        allocate: where the memory of the weights comes from.

    Raises:
        ArtifactError: the weights file is not what was exported, or does not fit the manifest.
    """
    precision, calibration = bundle.manifest.precision, bundle.manifest.calibration
    weights, scales = _read_weights(bundle, threads, allocate if precision == "fp32" else _pageable)
    return InputWeights(weights, precision, scales, calibration.kept_in_fp16 if calibration else (), allocate)


def _read_weights(
    bundle: Bundle, threads: int | None = None, allocate: Allocate = _pageable
) -> tuple[LambdaWeights, dict[str, Array]]:
    manifest = bundle.manifest
    assert manifest.weights is not None, "a manifest of mode bound or refit names its weights"
    tensors = bundle.tensors(manifest.weights)
    scales = take_scales(tensors, manifest.layers) if manifest.precision == "int8" else {}
    layers = unpack_weights(tensors, manifest.layers, manifest.lam.noise_seed)
    return LambdaWeights(layers, threads, allocate), scales
