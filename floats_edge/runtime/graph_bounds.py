"""How large what a graph computes becomes, for any number of images, found out before anything is computed.

A graph of a few bytes can ask for terabytes: ConstantOfShape, Expand, Pad, or 40 times Concat of a tensor with itself.
So every operation has a rule here that tells the shapes of its results, and a graph is refused if a shape cannot be
told or if the sum is beyond what networks need (``bounds`` in ``export/schema/graph.json``). Sizes may grow with the
number of images N, but no faster: each is ``fixed + per_image * N``.

Shapes that a graph computes itself (``Shape``, then ``Concat``, then ``Reshape``, as PyTorch exports a flattening) are
followed through the few operations that exporters use for it.

Not bounded here: what an engine takes beside the tensors themselves, such as rearranged weights and the workspace of a
convolution, and how long an operation takes beyond the number of its multiplications.
"""

import math
from collections.abc import Mapping, Sequence

from floats_edge.runtime.graph_rules import Node, Parts
from floats_edge.runtime.graph_shapes import RULES
from floats_edge.runtime.graph_sizes import IMAGES, Operands, Shaped, Size, constant
from floats_edge.runtime.onnx_bytes import GraphError, graph_schema


def check_sizes(parts: Parts) -> None:
    """Let a graph pass none of whose tensors can become larger than networks need.

    Raises:
        GraphError: it is none, an operation may not be there, or a shape cannot be told.
    """
    account = _Account(sum(math.prod(tensor.dims) for tensor in parts.constants.values()))
    values: dict[str, Shaped] = {name: constant(tensor) for name, tensor in parts.constants.items()}
    values |= {name: Shaped(tuple(_input_size(port.dims))) for name, port in parts.inputs.items()}
    for node in parts.nodes():
        results = _results(node, values, account)
        for name, result in zip(node.outputs, results, strict=False):
            if name in values:
                raise GraphError(f"computes {name} twice")
            if name:
                values[name] = result
    missing = next((name for name in parts.outputs if name not in values), None)
    if missing is not None:
        raise GraphError(f"does not compute its output {missing}")


def _input_size(dims: Sequence[int | None]) -> list[Size]:
    if None in dims[1:]:
        raise GraphError("has an input with a free size that is not the number of images")
    return [IMAGES if size is None else Size(size) for size in dims]


class _Account:
    """The sums over a graph that are bounded."""

    def __init__(self, stored: int) -> None:
        self._bounds: Mapping[str, int] = graph_schema()["bounds"]
        self._left = {name: self._bounds[name] for name in ("all_elements", "constant_elements", "multiplications")}
        self._left["constant_elements"] += 2 * stored  # transposed, and transposed again

    def add(self, operands: Operands, results: Sequence[Shaped], work: int) -> None:
        for result in results:
            elements = sum(result.count)
            if elements > self._bounds["tensor_elements"]:
                raise GraphError(f"has a {operands.node.operator} that makes {elements:,} numbers of an image")
            self._take("all_elements" if result.varies else "constant_elements", elements)
        self._take("multiplications", work)

    def _take(self, what: str, amount: int) -> None:
        self._left[what] -= amount
        if self._left[what] < 0:
            raise GraphError(f"has more than {self._bounds[what]:,} {what.replace('_', ' ')} for one image")


def _results(node: Node, values: Mapping[str, Shaped], account: _Account) -> Sequence[Shaped]:
    unknown = next((name for name in node.inputs if name and name not in values), None)
    if unknown is not None:
        raise GraphError(f"uses {unknown}, which nothing before it computes")
    operands = Operands(node, [values.get(name) for name in node.inputs])
    shapes, factor = RULES[node.makes](operands)
    if len(shapes) < len(node.outputs):
        raise GraphError(f"has an operation {node.operator} with {len(node.outputs)} outputs")
    varies = any(value.varies for value in operands.values if value is not None)
    results = [_limited(shape, varies) for shape in shapes]
    work = factor * sum(sum(shape.count) for shape in results)
    account.add(operands, results, work + sum(sum(value.count) for value in operands.values if value is not None))
    return results


def _limited(shape: Shaped, varies: bool) -> Shaped:
    schema = graph_schema()
    if len(shape.dims) > schema["messages"]["TensorProto"]["1"]["most"]:
        raise GraphError("has a tensor of more axes than an export writes")
    few = shape.numbers is not None and 0 < len(shape.numbers) <= schema["bounds"]["known_numbers"]
    return Shaped(shape.dims, shape.numbers if few else None, varies)
