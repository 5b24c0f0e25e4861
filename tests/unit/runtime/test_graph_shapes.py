"""The shapes that are told of a graph's tensors are those that ONNX Runtime computes."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from floats_edge.runtime import graph_bounds
from floats_edge.runtime.graph_rules import read_parts

BATCH = 2
IMAGE = (4, 6, 8)
LEFT_OUT = np.empty(0, np.void)
IMAGES_AGAIN = np.empty(1, np.void)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


WINDOW = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
EXAMPLES: dict[str, list[tuple[tuple[np.ndarray, ...], Mapping[str, object]]]] = {
    "Relu": [((), {})],
    "Add": [((floats(8),), {}), ((floats(1, 4, 6, 1),), {}), ((floats(5, 1, 1, 1, 8),), {})],
    "Max": [((floats(6, 1), floats(4, 1, 1)), {})],
    "Conv": [
        ((floats(5, 4, 3, 2), floats(5)), WINDOW),
        ((floats(8, 1, 2, 2),), {"group": 4}),
        ((floats(8, 2, 1, 1),), {"group": 2, "strides": [4, 4]}),
    ],
    "AveragePool": [
        ((), {name: value for name, value in WINDOW.items() if name != "dilations"}),
        ((), {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}),
    ],
    "MaxPool": [((), WINDOW), ((), {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1})],
    "GlobalAveragePool": [((), {})],
    "MatMul": [((floats(8, 3),), {}), ((floats(4, 8, 5),), {}), ((floats(3, 1, 1, 8, 5),), {})],
    "ReduceMean": [
        ((ints(2, -1),), {"keepdims": 0}),
        ((ints(1),), {}),
        ((), {}),
        ((), {"keepdims": 0}),
        ((), {"noop_with_empty_axes": 1}),
    ],
    "Concat": [((IMAGES_AGAIN, IMAGES_AGAIN), {"axis": 2}), ((IMAGES_AGAIN,), {"axis": 0})],
    "DepthToSpace": [((), {"blocksize": 2})],
    "SpaceToDepth": [((), {"blocksize": 2})],
    "Expand": [((ints(3, 1, 1, 6, 8),), {}), ((ints(1),), {})],
    "Flatten": [((), {}), ((), {"axis": 0}), ((), {"axis": -1}), ((), {"axis": 4})],
    "Gather": [
        ((ints(3, 0, 1),), {"axis": 1}),
        ((ints(1, 0).reshape(1, 2),), {"axis": -1}),
        ((np.array(2),), {"axis": 2}),
    ],
    "GatherND": [((ints(0, 1, 1, 2).reshape(2, 2),), {}), ((ints(0, 1).reshape(2, 1),), {"batch_dims": 1})],
    "Einsum": [((floats(8, 3),), {"equation": "nchw, wk -> nhk"})],
    "Pad": [
        ((ints(0, 0, 1, 2, 0, 0, 3, 4),), {}),
        ((ints(0, 0, 0, -2, 0, 0, -1, 0),), {}),
        ((ints(1, 2), LEFT_OUT, ints(3)), {"mode": "edge"}),
    ],
    "Reshape": [((ints(0, -1),), {}), ((ints(-1, 4, 8, 6),), {}), ((ints(0, 2, 2, 0, 1, -1),), {})],
    "Resize": [((LEFT_OUT, LEFT_OUT, ints(3, 9)), {"axes": [2, 3], "mode": "linear"})],
    "Shape": [((), {}), ((), {"start": 1}), ((), {"start": -2, "end": -1}), ((), {"start": 3, "end": 1})],
    "Slice": [
        ((ints(1), ints(2**62), ints(3), ints(3)), {}),
        ((ints(-1), ints(-(2**62)), ints(2), ints(-2)), {}),
        ((ints(-9), ints(-(2**62)), ints(2), ints(-1)), {}),
        ((ints(0, 2), ints(2**62, -1), ints(0, 3)), {}),
        ((ints(5), ints(2), ints(3)), {}),
    ],
    "Split": [((ints(1, 3),), {"axis": 1}), ((), {"axis": 3, "num_outputs": 3}), ((), {"axis": 2, "num_outputs": 2})],
    "Tile": [((ints(1, 2, 1, 3),), {})],
    "Transpose": [((), {"perm": [0, 2, 3, 1]}), ((), {})],
    "Unsqueeze": [((ints(0, -1),), {}), ((ints(2, 1),), {})],
    "ScatterND": [((ints(0, 1).reshape(1, 2), floats(1, 6, 8)), {})],
}


def outputs_of(operation: str, attributes: Mapping[str, object]) -> int:
    return int(attributes.get("num_outputs", 2)) if operation == "Split" else 1  # type: ignore[call-overload]


def model_of(operation: str, others: tuple[np.ndarray, ...], attributes: Mapping[str, object]) -> bytes:
    """A graph of this operation on images and constants; its outputs have no shapes stated that could help."""
    names = [f"c{i}" if array.dtype != np.void else "images" if len(array) else "" for i, array in enumerate(others)]
    outputs = [f"y{index}" for index in range(outputs_of(operation, attributes))]
    node = helper.make_node(operation, ["images", *names], outputs, **attributes)
    kind = TensorProto.INT64 if operation == "Shape" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *IMAGE])],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [
            numpy_helper.from_array(array, name)
            for array, name in zip(others, names, strict=True)
            if array.dtype != np.void
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def told(model: bytes, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the results for two images."""
    seen: list[tuple[int, ...]] = []

    def keep(_: object, __: object, results: list, ___: int) -> None:
        seen.extend(tuple(size.fixed + BATCH * size.per_image for size in result.dims) for result in results)

    stated = onnx.load_model_from_string(model)
    del stated.graph.output[1:]  # the network of a bundle has one
    stated.graph.output[0].type.tensor_type.shape.SetInParent()
    monkeypatch.setattr(graph_bounds._Account, "add", keep)
    graph_bounds.check_sizes(read_parts(stated.SerializeToString()))
    return seen


CASES = [(name, *example) for name, examples in EXAMPLES.items() for example in examples]


@pytest.mark.parametrize(("operation", "others", "attributes"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_shapes_are_those_of_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch, operation: str, others: tuple[np.ndarray, ...], attributes: Mapping[str, object]
) -> None:
    model = model_of(operation, others, attributes)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    computed = session.run(None, {"images": np.ones((BATCH, *IMAGE), np.float32)})
    assert told(model, monkeypatch) == [array.shape for array in computed]
