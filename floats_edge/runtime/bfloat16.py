"""bfloat16 on ONNX Runtime's CPU provider, which has no bfloat16 kernels: float32 kernels, every result rounded.

A GPU multiplies bfloat16 values exactly, accumulates in float32 and rounds what it stores; so does this. It tells what
a bfloat16 engine computes, but nothing of how fast.
"""

import onnx
from onnx import TensorProto, helper, numpy_helper

_MADE_EXACTLY = ("Cast", "Greater", "Where", "Relu")
"""Operations whose results need no rounding: choices among rounded values, and truth values."""


def emulated(model: bytes) -> bytes:
    """A graph in bfloat16 as one in float32 that rounds its inputs' casts and the result of every operation.

    Inputs in bfloat16 (bound weights) stay so and are widened inside the graph.
    """
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    nodes: list[onnx.NodeProto] = []
    wide: dict[str, str] = {}
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            wide[value.name] = f"{value.name}.wide"
            nodes.append(_cast(value.name, wide[value.name], TensorProto.FLOAT))
    for node in graph.node:
        node.input[:] = [wide.get(name, name) for name in node.input]
        to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
        if to == TensorProto.BFLOAT16:
            nodes += _rounded(node.input[0], node.output[0])
        elif node.op_type in _MADE_EXACTLY:
            nodes.append(node)
        else:
            result = node.output[0]
            node.output[0] = f"{result}.exact"
            nodes += [node, *_rounded(node.output[0], result)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return proto.SerializeToString()


def _rounded(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        _cast(source, f"{result}.bits", TensorProto.BFLOAT16),
        _cast(f"{result}.bits", result, TensorProto.FLOAT),
    ]


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], to=to)
