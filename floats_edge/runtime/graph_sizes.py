"""Numbers that may depend on how many images there are, and what is known of a tensor in terms of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from floats_edge.runtime.graph_rules import Node, Tensor
from floats_edge.runtime.onnx_bytes import GraphError, graph_schema

_INT64 = 7
_MOST = 2**62
"""No number that a shape is computed from may be larger in the end."""


class Size(NamedTuple):
    """A number that may depend on how many images there are: ``fixed + per_image * N``."""

    fixed: int
    per_image: int = 0

    def plus(self, other: "Size", sign: int = 1) -> "Size":
        return _bounded(Size(self.fixed + sign * other.fixed, self.per_image + sign * other.per_image))

    def times(self, other: "Size") -> "Size":
        if self.per_image and other.per_image:
            raise GraphError("has sizes that grow faster than the number of images")
        across = self.fixed * other.per_image + self.per_image * other.fixed
        return _bounded(Size(self.fixed * other.fixed, across))

    def over(self, other: "Size") -> "Size":
        """The whole number of times that ``other`` goes into this."""
        if other.per_image:
            if other.per_image and self.fixed * other.per_image == other.fixed * self.per_image:
                quotient, rest = divmod(self.per_image, other.per_image)
                if not rest:
                    return Size(quotient)
        elif other.fixed > 0 and not self.per_image and self.fixed >= 0:
            return Size(self.fixed // other.fixed)
        elif other.fixed > 0 and not self.fixed % other.fixed and not self.per_image % other.fixed:
            return Size(self.fixed // other.fixed, self.per_image // other.fixed)
        raise GraphError("divides sizes that do not divide")

    def modulo(self, other: "Size") -> "Size":
        """The rest, never negative, that is left of a division."""
        if other.known <= 0:
            raise GraphError("divides sizes that do not divide")
        return Size(self.known % other.fixed)

    @property
    def known(self) -> int:
        """The number, if it does not depend on how many images there are."""
        if self.per_image:
            raise GraphError("has an operation on the number of images that no export writes")
        return self.fixed


ONE = Size(1)
IMAGES = Size(0, 1)


def _bounded(size: Size) -> Size:
    if max(abs(size.fixed), abs(size.per_image)) > _MOST:
        raise GraphError("computes sizes that no memory holds")
    return size


Dims = tuple[Size, ...]


@dataclass(frozen=True)
class Shaped:
    """What is known of a tensor.

    Attributes:
        dims: its shape.
        numbers: its elements, where they are few whole numbers that shapes may be computed from.
        varies: whether it depends on an input of the graph; what does not is computed when the graph is loaded.
    """

    dims: Dims
    numbers: Dims | None = None
    varies: bool = True

    @property
    def count(self) -> Size:
        """How many elements it has."""
        return count_of(self.dims)


def count_of(dims: Dims) -> Size:
    """The product of sizes none of which may be negative."""
    product = ONE
    for size in dims:
        if min(size) < 0:
            raise GraphError("has a shape with a negative size")
        product = product.times(size)
    return product


def fixed(sizes: Sequence[int]) -> Dims:
    """Numbers as sizes."""
    return tuple(Size(size) for size in sizes)


class Operands:
    """The inputs and attributes of one operation, as its rule asks for them."""

    def __init__(self, node: Node, values: Sequence[Shaped | None]) -> None:
        self.node = node
        self.values = values

    def __getitem__(self, index: int) -> Shaped:
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise GraphError("lacks an input")
        return value

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.values) and self.values[index] is not None

    def numbers(self, index: int) -> Dims:
        """The elements of an input that says a shape, axes or the like."""
        numbers = self[index].numbers
        if numbers is None:
            raise GraphError(f"computes shapes for {self.node.operator} in a way that no export does")
        return numbers

    def known(self, index: int) -> list[int]:
        """The same, where they may not depend on the number of images."""
        return [number.known for number in self.numbers(index)]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.node.attributes.get(name, default)

    def axis(self, default: int, rank: int) -> int:
        """The attribute ``axis``, counted from the front."""
        return axis_of(self.get("axis", default), rank)


def axis_of(axis: int, rank: int) -> int:
    """An axis, counted from the front."""
    if not -rank <= axis < rank:
        raise GraphError("has an operation on an axis that is not there")
    return axis % rank


def constant(tensor: Tensor) -> Shaped:
    """What is known of a constant of the graph."""
    few = math.prod(tensor.dims) <= graph_schema()["bounds"]["known_numbers"]
    numbers = fixed(tensor.raw.cast("q").tolist()) if few and tensor.element == _INT64 and tensor.raw else None
    return Shaped(fixed(tensor.dims), numbers, varies=False)
