"""Every operation that a graph may hold is in PyTorch what it is in ONNX Runtime, and lets gradients through."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from floats_edge.runtime.graph_rules import Node, read_parts
from floats_edge.runtime.onnx_bytes import GraphError, graph_schema
from floats_edge.runtime.twin_graph import GraphNetwork
from floats_edge.runtime.twin_operators import OPERATORS

BATCH, IMAGE = 2, (4, 6, 8)
LEFT_OUT = None
IMAGES = "images"
Other = np.ndarray | str | None
Attributes = Mapping[str, Any]
CPU = torch.device("cpu")


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(0.2, 1.5, shape).astype(np.float32)


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def images_of(shape: tuple[int, ...] = IMAGE, least: float = -2, most: float = 2) -> np.ndarray:
    return np.random.default_rng(7).uniform(least, most, (BATCH, *shape)).astype(np.float32)


def constant(*numbers: float, kind: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.array(numbers, kind))


WINDOW = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
UNDILATED = {name: value for name, value in WINDOW.items() if name != "dilations"}
HALF_PADDED = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
CEILED = {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}
SIZED = (LEFT_OUT, LEFT_OUT, ints(3, 13))
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
PLAIN: list[tuple[tuple[Other, ...], Attributes]] = [((), {})]
ALONG: list[tuple[tuple[Other, ...], Attributes]] = [
    ((), {"keepdims": 0}),
    ((ints(-1, 1),), {"keepdims": 0}),
    ((ints(2),), {}),
]
ALONG_NONE: list[tuple[tuple[Other, ...], Attributes]] = [*ALONG, ((), {"noop_with_empty_axes": 1})]

SMOOTH: dict[str, list[tuple[tuple[Other, ...], Attributes]]] = {
    **dict.fromkeys(("Abs", "Cos", "Erf", "Exp", "GlobalAveragePool", "GlobalMaxPool", "HardSwish", "Identity"), PLAIN),
    **dict.fromkeys(("Mish", "Neg", "Relu", "Sigmoid", "Sin", "Softplus", "Softsign", "Tanh"), PLAIN),
    **{name: [((floats(8),), {}), ((floats(5, 1, 1, 1, 8),), {})] for name in ("Add", "Sub", "Mul", "Div")},
    **{name: [((floats(6, 1), floats(4, 1, 1)), {}), ((), {})] for name in ("Max", "Min", "Mean", "Sum")},
    **dict.fromkeys(["ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"], ALONG),
    **dict.fromkeys(["ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"], ALONG_NONE),
    **{name: [((), {}), ((), {"axis": 1})] for name in ("LogSoftmax", "Softmax")},
    "AveragePool": [
        ((), UNDILATED),
        ((), {**UNDILATED, "count_include_pad": 1}),
        ((), HALF_PADDED),
        ((), {**HALF_PADDED, "count_include_pad": 1}),
        ((), CEILED),
        ((), {**CEILED, "pads": [1, 0, 1, 0]}),
        ((), {**CEILED, "pads": [1, 0, 0, 0]}),
    ],
    "BatchNormalization": [((floats(4), floats(4), floats(4), floats(4)), {}), ((floats(4),) * 4, {"epsilon": 0.1})],
    "Celu": [((), {}), ((), {"alpha": 0.4})],
    "Clip": [
        ((scalar(-1), scalar(1.5)), {}),
        ((LEFT_OUT, scalar(1)), {}),
        ((scalar(0),), {}),
        ((), {}),
        ((scalar(1), scalar(-1)), {}),
    ],
    "Concat": [((IMAGES, IMAGES), {"axis": 2}), ((floats(BATCH, 4, 6, 3),), {"axis": -1}), ((), {"axis": 0})],
    "Conv": [
        ((floats(5, 4, 3, 2), floats(5)), WINDOW),
        ((floats(8, 1, 2, 2),), {"group": 4}),
        ((floats(8, 2, 1, 1),), {"group": 2, "strides": [4, 4]}),
        ((floats(3, 4, 3, 5),), {"pads": [1, 2, 1, 2]}),
        ((floats(3, 4, 2, 3),), {"pads": [1, 2, 1, 2], "dilations": [2, 3]}),
    ],
    "DepthToSpace": [((), {"blocksize": 2}), ((), {"blocksize": 2, "mode": "CRD"})],
    "Einsum": [((floats(8, 3),), {"equation": "nchw, wk -> nhk"}), ((IMAGES,), {"equation": "nchw,nchv->nwv"})],
    "Elu": [((), {}), ((), {"alpha": 0.4})],
    "Expand": [((ints(3, 1, 1, 6, 8),), {}), ((ints(1),), {})],
    "Flatten": [((), {}), ((), {"axis": 0}), ((), {"axis": -1}), ((), {"axis": 4})],
    "Gather": [
        ((ints(3, 0, -1),), {"axis": 1}),
        ((ints(1, 0).reshape(1, 2),), {"axis": -1}),
        ((np.array(2),), {"axis": 2}),
    ],
    "GatherND": [((ints(0, 1, 1, -2).reshape(2, 2),), {}), ((ints(0, 1).reshape(2, 1),), {"batch_dims": 1})],
    "Gelu": [((), {}), ((), {"approximate": "tanh"})],
    "HardSigmoid": [((), {}), ((), {"alpha": 0.3, "beta": 0.4})],
    "InstanceNormalization": [((floats(4), floats(4)), {"epsilon": 1e-3})],
    "LRN": [((), {"size": 3}), ((), {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0}), ((), {"size": 1})],
    "LayerNormalization": [
        ((floats(8), floats(8)), {}),
        ((floats(6, 8),), {"axis": 2}),
        ((floats(1), floats(6, 8)), {"axis": -2, "epsilon": 0.1}),
    ],
    "LeakyRelu": [((), {}), ((), {"alpha": 0.3})],
    "LpNormalization": [((), {}), ((), {"axis": 1, "p": 1})],
    "MatMul": [((floats(8, 3),), {}), ((floats(4, 8, 5),), {}), ((floats(3, 1, 1, 8, 5),), {})],
    "MaxPool": [((), WINDOW), ((), HALF_PADDED), ((), CEILED), ((), {"kernel_shape": [2, 2], "pads": [1, 1, 0, 1]})],
    "PRelu": [((floats(4, 1, 1),), {}), ((floats(1),), {})],
    "Pad": [
        ((ints(0, 0, 1, 2, 0, 0, 3, 4),), {}),
        ((ints(0, 0, 0, -2, 0, 0, -1, 0), scalar(0.3)), {}),
        ((ints(1, 2), LEFT_OUT, ints(3)), {"mode": "edge"}),
        ((ints(1, 5, 2, 3), LEFT_OUT, ints(-2, 3)), {"mode": "reflect"}),
    ],
    "Reshape": [
        ((ints(0, -1),), {}),
        ((ints(-1, 4, 8, 6),), {}),
        ((ints(0, 2, 2, 0, 1, -1),), {}),
        ((ints(2, 4, 48),), {"allowzero": 1}),
    ],
    "Resize": [
        (SIZED, {"axes": [2, 3], "mode": mode, "coordinate_transformation_mode": places, **more})
        for places in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
        for mode, more in (
            *(("nearest", {"nearest_mode": way}) for way in ("floor", "ceil", "round_prefer_floor")),
            ("nearest", {"nearest_mode": "round_prefer_ceil"}),
            ("linear", {}),
            ("cubic", {}),
            ("cubic", {"cubic_coeff_a": -0.5, "exclude_outside": 1}),
        )
    ],
    "ScatterND": [((ints(0, 1).reshape(1, 2), floats(1, 6, 8)), {})],
    "Selu": [((), {}), ((), {"alpha": 1.2, "gamma": 0.8})],
    "Slice": [
        ((ints(1), ints(2**62), ints(3), ints(3)), {}),
        ((ints(-1), ints(-(2**62)), ints(2), ints(-2)), {}),
        ((ints(-9), ints(-(2**62)), ints(2), ints(-1)), {}),
        ((ints(0, 2), ints(2**62, -1), ints(0, -1)), {}),
        ((ints(5), ints(1), ints(3), ints(-1)), {}),
    ],
    "SpaceToDepth": [((), {"blocksize": 2})],
    "Split": [((ints(1, 3),), {"axis": 1}), ((), {"axis": 3, "num_outputs": 3}), ((), {"axis": -2, "num_outputs": 2})],
    "ThresholdedRelu": [((), {}), ((), {"alpha": 0.4})],
    "Tile": [((ints(1, 2, 1, 3),), {})],
    "Transpose": [((), {"perm": [0, 2, 3, 1]}), ((), {})],
    "Unsqueeze": [((ints(0, -1),), {}), ((ints(2, 1),), {})],
}
"""Operations on images through which gradients go: their other inputs, and their attributes."""
POSITIVE: dict[str, list[tuple[tuple[Other, ...], Attributes]]] = {
    "Log": PLAIN,
    "Pow": [((scalar(2),), {}), ((floats(8),), {}), ((np.array(3, np.int64),), {})],
    "Reciprocal": PLAIN,
    "Sqrt": PLAIN,
}
"""The same for images between 0.1 and 2."""
STEPPED: dict[str, list[tuple[tuple[Other, ...], Attributes]]] = {
    **dict.fromkeys(("Ceil", "Floor", "Round", "Sign"), PLAIN),
    **{name: [((floats(8),), {}), ((IMAGES,), {})] for name in COMPARISONS},
    "Hardmax": [((), {}), ((), {"axis": 1})],
    "IsNaN": PLAIN,
    "Mod": [((floats(8),), {"fmod": 1})],
    "Shape": [((), {}), ((), {"start": 1}), ((), {"start": -2, "end": -1}), ((), {"start": 3, "end": 1})],
}
"""Those whose gradients are zero, or jump."""


def model_of(
    operation: str, others: tuple[Other, ...], attributes: Attributes, shape: tuple[int, ...] = IMAGE, opset: int = 18
) -> bytes:
    """A graph of this operation on images and constants. Where it has several results they are joined."""
    constants = {f"c{at}": other for at, other in enumerate(others) if isinstance(other, np.ndarray)}
    names = [f"c{at}" if isinstance(other, np.ndarray) else other or "" for at, other in enumerate(others)]
    outputs = ["y0", "y1", "y2"][: int(attributes.get("num_outputs", 2))] if operation == "Split" else ["y"]
    nodes = [helper.make_node(operation, [IMAGES, *names], outputs, **attributes)]
    if len(outputs) > 1:
        nodes.append(helper.make_node("Concat", outputs[::-1], ["y"], axis=attributes["axis"]))
    return graph_of(nodes, constants, shape, opset)


def graph_of(
    nodes: list[Any], constants: Mapping[str, np.ndarray], shape: tuple[int, ...] = IMAGE, opset: int = 18
) -> bytes:
    """A graph that gives ``y``."""
    made = next(node.op_type for node in nodes if "y" in node.output)
    kind = {
        "Shape": TensorProto.INT64,
        **dict.fromkeys((*COMPARISONS, "IsNaN"), TensorProto.BOOL),
    }.get(made, TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10).SerializeToString()


def twin_of(model: bytes) -> GraphNetwork:
    stated = onnx.load_model_from_string(model)
    stated.graph.output[0].type.tensor_type.shape.SetInParent()
    network = GraphNetwork(read_parts(stated.SerializeToString()), IMAGES, (), CPU)
    network.give({})
    return network


def wanted_of(model: bytes, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {IMAGES: images})[0])


def check(model: bytes, images: np.ndarray) -> None:
    """The twin's numbers are ONNX Runtime's."""
    got, wanted = twin_of(model)(torch.from_numpy(images)).numpy(), wanted_of(model, images)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)


def check_gradient(model: bytes, images: np.ndarray) -> None:
    """Its gradient is the slope that ONNX Runtime shows along a random direction."""
    random = np.random.default_rng(3)
    pixels = torch.from_numpy(images).requires_grad_()
    made = twin_of(model)(pixels)
    weights = random.normal(size=made.shape)
    (made.double() * torch.from_numpy(weights)).sum().backward()
    assert pixels.grad is not None
    step = np.float32(2**-10)
    where = np.zeros_like(images)
    where.reshape(-1)[random.choice(images.size, 40, replace=False)] = step * random.choice([-1, 1], 40)
    ends = [(wanted_of(model, images + side * where).astype(np.float64) * weights).sum() for side in (1, -1)]
    found = float((pixels.grad.double().numpy() * where).sum()) * 2
    assert found == pytest.approx(ends[0] - ends[1], rel=0.03, abs=step * 0.02 * np.abs(weights).max())


def cases(*tables: Mapping[str, list[tuple[tuple[Other, ...], Attributes]]]) -> list[Any]:
    return [
        pytest.param(name, others, attributes, id=f"{name}-{at}")
        for table in tables
        for name, examples in table.items()
        for at, (others, attributes) in enumerate(examples)
    ]


def opset_of(operation: str, attributes: Attributes) -> int:
    """The older one, unless it is not yet known there."""
    newer = {"AveragePool": "count_include_pad", "Gelu": ""}
    symmetric = attributes.get("coordinate_transformation_mode") == "half_pixel_symmetric"
    return 22 if symmetric or newer.get(operation, "none") in ("", *attributes) else 18


@pytest.mark.parametrize(("operation", "others", "attributes"), cases(SMOOTH, STEPPED))
def test_numbers_are_those_of_onnx_runtime(operation: str, others: tuple[Other, ...], attributes: Attributes) -> None:
    check(model_of(operation, others, attributes, opset=opset_of(operation, attributes)), images_of())


@pytest.mark.parametrize(("operation", "others", "attributes"), cases(POSITIVE))
def test_numbers_of_positive_images(operation: str, others: tuple[Other, ...], attributes: Attributes) -> None:
    check(model_of(operation, others, attributes), images_of(least=0.1))
    check_gradient(model_of(operation, others, attributes), images_of(least=0.1))


@pytest.mark.parametrize(("operation", "others", "attributes"), cases(SMOOTH))
def test_gradients_are_slopes(operation: str, others: tuple[Other, ...], attributes: Attributes) -> None:
    """Of images no two numbers of which lie so close that a small step swaps them."""
    numbers = np.linspace(-1.9, 1.9, BATCH * int(np.prod(IMAGE)), dtype=np.float32)
    images = np.random.default_rng(5).permutation(numbers).reshape(BATCH, *IMAGE)
    check_gradient(model_of(operation, others, attributes, opset=opset_of(operation, attributes)), images)


def steps(*nodes: tuple[str, str, str] | tuple[str, str, str, Attributes]) -> list[Any]:
    """Nodes from ``(operation, inputs, output)`` and attributes."""
    return [
        helper.make_node(name, inputs.split(), [output], **(attributes[0] if attributes else {}))
        for name, inputs, output, *attributes in nodes
    ]


FLAT, ROWS = (6,), {"w": floats(6, 3), "b": floats(3)}
SIGNS = [("Greater", "images zero", "p"), ("Less", "images one", "q")]
AS_FLOAT = ("Cast", "r", "y", {"to": TensorProto.FLOAT})
BOUNDS = {"zero": scalar(0), "one": scalar(1)}
TOGETHER: dict[str, tuple[list[Any], Mapping[str, np.ndarray], tuple[int, ...]]] = {
    "And": (steps(*SIGNS, ("And", "p q", "r"), AS_FLOAT), BOUNDS, IMAGE),
    "Or": (steps(*SIGNS, ("Or", "p q", "r"), AS_FLOAT), BOUNDS, IMAGE),
    "Xor": (steps(*SIGNS, ("Xor", "p q", "r"), AS_FLOAT), BOUNDS, IMAGE),
    "Not": (steps(SIGNS[0], ("Not", "p", "r"), AS_FLOAT), BOUNDS, IMAGE),
    "Where": (steps(SIGNS[0], ("Where", "p images one", "y")), BOUNDS, IMAGE),
    "Cast": (steps(("Cast", "images", "r", {"to": TensorProto.INT32}), AS_FLOAT), {}, IMAGE),
    "CastLike": (steps(("CastLike", "images whole", "r"), ("CastLike", "r images", "y")), {"whole": ints(1)}, IMAGE),
    "Constant": (
        steps(
            ("Constant", "", "a", {"value": constant(*range(8))}),
            ("Constant", "", "b", {"value_float": 0.5}),
            ("Constant", "", "c", {"value_floats": [0.25]}),
            ("Constant", "", "d", {"value_int": 1}),
            ("Constant", "", "e", {"value_ints": [2, 1]}),
            ("Sum", "images a b c", "s"),
            ("Gather", "s d", "g", {"axis": 1}),
            ("Gather", "g e", "y", {"axis": 1}),
        ),
        {},
        IMAGE,
    ),
    "ConstantOfShape": (
        steps(
            ("Shape", "images", "s"),
            ("ConstantOfShape", "s", "o", {"value": constant(3)}),
            ("ConstantOfShape", "s", "z"),
            ("Sum", "images o z", "y"),
        ),
        {},
        IMAGE,
    ),
    "Range": (
        steps(("Range", "from to by", "r"), ("Gather", "images r", "y", {"axis": 3})),
        {"from": np.array(7), "to": np.array(1), "by": np.array(-2)},
        IMAGE,
    ),
    "Range of images": (
        steps(
            ("Shape", "images", "s", {"end": 1}),
            ("Squeeze", "s", "n"),
            ("Range", "from n by", "r"),
            ("Cast", "r", "f", {"to": TensorProto.FLOAT}),
            ("Reshape", "f shape", "t"),
            ("Add", "images t", "y"),
        ),
        {"from": np.array(0), "by": np.array(1), "shape": ints(-1, 1, 1, 1)},
        IMAGE,
    ),
    "Squeeze": (steps(("Squeeze", "images at", "y")), {"at": ints(-1, 1)}, (1, 6, 1)),
    "Gemm": (steps(("Gemm", "images w b", "y")), ROWS, FLAT),
    "Gemm without bias": (steps(("Gemm", "images w", "y", {"alpha": 0.5})), ROWS, FLAT),
    "Gemm transposed": (
        steps(("Gemm", "w images b", "y", {"alpha": 0.5, "beta": 2.0, "transA": 1, "transB": 1})),
        {"w": floats(6, 3), "b": floats(3, 1)},
        FLAT,
    ),
    "Mod": (
        steps(
            ("Cast", "images", "i", {"to": TensorProto.INT64}),
            ("Mod", "i three", "m"),
            ("Div", "i three", "d"),
            ("Mul", "m d", "p"),
            ("Add", "i p", "r"),
            AS_FLOAT,
        ),
        {"three": ints(3)},
        IMAGE,
    ),
    "GroupNormalization": (
        steps(("GroupNormalization", "images w b", "y", {"num_groups": 2, "epsilon": 1e-3})),
        {"w": floats(4), "b": floats(4)},
        IMAGE,
    ),
    "Conv of lines": (steps(("Conv", "images w", "y", {"pads": [2, 0]})), {"w": floats(3, 4, 3)}, (4, 9)),
    "Conv of volumes": (
        steps(("Conv", "images w", "y", {"strides": [1, 2, 1]})),
        {"w": floats(3, 2, 2, 2, 2)},
        (2, 4, 5, 3),
    ),
    "Pools of lines": (
        steps(("MaxPool", "images", "m", {"kernel_shape": [2]}), ("AveragePool", "m", "y", {"kernel_shape": [3]})),
        {},
        (4, 9),
    ),
    "Weights computed": (
        steps(("Mul", "w half", "v"), ("Conv", "images v", "y")),
        {"w": floats(3, 4, 3, 3), "half": scalar(0.5)},
        IMAGE,
    ),
    "DequantizeLinear": (
        steps(("DequantizeLinear", "w scale zero", "v", {"axis": 0}), ("Conv", "images v", "y")),
        {
            "w": np.arange(-54, 54, dtype=np.int8).reshape(3, 4, 3, 3),
            "scale": floats(3),
            "zero": np.array([0, 3, -5], np.int8),
        },
        IMAGE,
    ),
    "DequantizeLinear by one scale": (
        steps(("DequantizeLinear", "w scale", "v"), ("Add", "images v", "y")),
        {"w": np.array([-7, 9], np.int32).repeat(4), "scale": scalar(0.3)},
        IMAGE,
    ),
}
"""Operations that need others around them: nodes, constants, and the shape of an image."""


@pytest.mark.parametrize("name", TOGETHER)
def test_operations_among_others(name: str) -> None:
    nodes, constants, shape = TOGETHER[name]
    check(graph_of(nodes, constants, shape, 22 if name == "GroupNormalization" else 18), images_of(shape, -6, 6))


def test_nothing_is_quantised_on_the_way_and_gradients_go_through() -> None:
    """Nor clipped to the range of int8."""
    nodes = steps(
        ("QuantizeLinear", "images scale zero", "q"), ("DequantizeLinear", "q scale zero", "d"), ("Mul", "d d", "y")
    )
    model = graph_of(nodes, {"scale": scalar(0.01), "zero": np.array(0, np.int8)})
    pixels = torch.from_numpy(images_of()).requires_grad_()
    made = twin_of(model)(pixels)
    made.sum().backward()
    assert pixels.grad is not None
    assert torch.equal(made, pixels * pixels)
    assert torch.equal(pixels.grad, 2 * pixels)


def test_half_precision_is_computed_in_float32() -> None:
    nodes = steps(
        ("Cast", "images", "h", {"to": TensorProto.FLOAT16}),
        ("Mul", "h third", "t"),
        ("Cast", "t", "y", {"to": TensorProto.FLOAT}),
    )
    third = np.array([1 / 3], np.float16)
    made = twin_of(graph_of(nodes, {"third": third}))(torch.from_numpy(images_of()))
    assert torch.equal(made, torch.from_numpy(images_of() * third.astype(np.float32)))


def test_there_is_a_twin_of_every_operation_that_is_allowed_and_of_no_other() -> None:
    assert set(OPERATORS) == set(graph_schema()["operators"])


def test_every_operation_is_tried_here() -> None:
    tried = {node.op_type for nodes, *_ in TOGETHER.values() for node in nodes}
    assert tried | set(SMOOTH) | set(POSITIVE) | set(STEPPED) | {"QuantizeLinear"} == set(OPERATORS)


WITHOUT_EFFECT = {
    ("AveragePool", "auto_pad"),  # may be nothing but NOTSET
    ("BatchNormalization", "momentum"),  # of training
    ("Conv", "auto_pad"),
    ("Conv", "kernel_shape"),  # that of the weights
    ("MaxPool", "auto_pad"),
    ("MaxPool", "storage_order"),  # of indices, which no graph may ask for
    ("QuantizeLinear", "axis"),
    ("Resize", "extrapolation_value"),  # of a mode that no graph may have
    ("ScatterND", "reduction"),  # may be nothing but none
}


class Watched(dict[str, Any]):
    """Attributes that remember which of them were looked at."""

    def __init__(self) -> None:
        super().__init__(axis=0, size=1, kernel_shape=[2, 2], equation="a->a", to=1)
        self.seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"Constant"}))
def test_every_attribute_that_is_allowed_is_looked_at(name: str) -> None:
    attributes = Watched()
    OPERATORS[name](Node(name, (), (), attributes))
    allowed = set(graph_schema()["operators"][name]["attributes"])
    assert allowed - attributes.seen == {attribute for operator, attribute in WITHOUT_EFFECT if operator == name}
    assert attributes.seen <= allowed


@pytest.mark.parametrize(
    ("operation", "others", "attributes", "message"),
    [
        ("Add", (ints(1),), {}, "combines tensors of several types"),
        ("AveragePool", (), WINDOW, "an AveragePool with dilations"),
        ("Cast", (), {"to": TensorProto.DOUBLE}, "a Cast to type 11"),
        ("Conv", (floats(3, 4, 1, 1, 1, 1),), {}, "a Conv of images of 4 axes"),
        ("Einsum", (floats(8, 3),), {"equation": "nchw,wk"}, "an Einsum that does not name its result"),
        ("GroupNormalization", (floats(4), floats(4)), {"num_groups": 3}, "a GroupNormalization that does not fit"),
        ("GroupNormalization", (floats(2), floats(3)), {"num_groups": 2}, "a GroupNormalization that does not fit"),
        ("LayerNormalization", (floats(8),), {"stash_type": 10}, "a LayerNormalization that computes in less than"),
        ("LpNormalization", (), {"p": 3}, "an LpNormalization of order 3"),
        ("Mod", (floats(8),), {}, "a Mod of floats without fmod"),
        ("Pad", (ints(-1, 2), LEFT_OUT, ints(3)), {"mode": "edge"}, "a Pad of which no twin is made"),
        ("Pad", (ints(0, 8), LEFT_OUT, ints(3)), {"mode": "reflect"}, "a Pad of which no twin is made"),
        ("ReduceL2", (), {"noop_with_empty_axes": 1}, "a ReduceL2 along no axes"),
        ("Resize", SIZED, {"axes": [2, 3], "mode": "linear", "antialias": 1}, "a Resize with antialias"),
        ("Resize", (LEFT_OUT, LEFT_OUT, ints(2**23)), {"axes": [3]}, "a Resize of which no twin is made"),
    ],
)
def test_what_a_twin_does_not_follow_is_refused(
    operation: str, others: tuple[Other, ...], attributes: Attributes, message: str
) -> None:
    shape = (4, 6, 8, 1, 2) if operation == "Conv" else IMAGE
    with pytest.raises(GraphError, match=message), torch.no_grad():
        twin_of(model_of(operation, others, attributes, shape))(torch.from_numpy(images_of(shape)))


QUANTISE = ("QuantizeLinear", "images scale zero", "q")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (steps(QUANTISE, ("Cast", "q", "y", {"to": TensorProto.FLOAT})), "has a Cast of quantised numbers"),
        (steps(QUANTISE, ("DequantizeLinear", "q other zero", "y")), "has a DequantizeLinear of quantised numbers"),
        (steps(QUANTISE, ("DequantizeLinear", "q scale", "y")), "has a DequantizeLinear of quantised numbers"),
        (steps((*QUANTISE[:2], "y")), "gives quantised numbers"),
    ],
    ids=["cast", "another scale", "without its zero", "given"],
)
def test_nothing_else_reads_quantised_numbers(nodes: list[Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        twin_of(graph_of(nodes, {"scale": scalar(0.01), "other": scalar(0.02), "zero": np.array(0, np.int8)}))
