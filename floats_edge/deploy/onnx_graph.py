"""ONNX graphs of the folded network: traced once from PyTorch, then rewritten by small passes that need no PyTorch.

A pass takes a model and returns a new one. Weights keep the names of :mod:`floats_edge.method.fold` throughout
(``stem.weight``, ``stem.bias``, ...); images come in and logits go out as float32 at every precision.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from floats_edge.artifacts.manifest import LAMBDA_INPUT
from floats_edge.errors import BackendError
from floats_edge.method.fold import Weights

if TYPE_CHECKING:
    from onnxscript import ir
    from torch import nn

OPSET = 18
BF16_OPSET = 22
"""The first opset whose Conv takes bfloat16."""
IR_VERSION = 10
INPUT = "images"
OUTPUT = "logits"


def trace(network: "nn.Module", image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Export a folded network with a dynamic batch axis; every parameter is an initializer of its own name.

    Raises:
        BackendError: the exporter changed the names or the number of the weights.
    """
    import torch
    from onnxscript import optimizer

    weights = {name for name, _ in network.named_parameters()}
    program = torch.onnx.export(
        network.eval(),
        (torch.zeros(2, *image_shape),),
        dynamo=True,
        optimize=False,  # optimising merges equal tensors and drops biases that are zero
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert program is not None, "the dynamo exporter returns a program"
    # TensorRT wants axes to be initializers, not computed; what is computed from weights must stay so.
    optimizer.fold_constants(
        program.model, should_fold=lambda node: None if weights.isdisjoint(_names(node.inputs)) else False
    )
    optimizer.remove_unused_nodes(program.model)
    model = _copy(program.model_proto)
    model.ir_version = IR_VERSION
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # source locations of the machine that exported
    missing = weights - {tensor.name for tensor in model.graph.initializer}
    if missing:
        raise BackendError(
            f"the ONNX exporter of this PyTorch renamed or removed {', '.join(sorted(missing))}.",
            fix="pip install --upgrade torch onnxscript",
        )
    return model


def _names(values: "Iterable[ir.Value | None]") -> list[str | None]:
    return [value.name for value in values if value is not None]


def with_weights(model: onnx.ModelProto, weights: Mapping[str, NDArray[np.generic]]) -> onnx.ModelProto:
    """Make ``weights`` initializers, in place of initializers or inputs of the same names."""
    result = _without(model, weights)
    result.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return result


def with_weight_inputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Make the initializers of these names graph inputs of the same shape and type: mode ``bound``."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    result = _without(model, names)
    for name in names:
        info = onnx.helper.make_tensor_value_info(name, tensors[name].data_type, tensors[name].dims)
        result.graph.input.append(info)
    return result


def with_lambda_input(model: onnx.ModelProto, clean: Weights, affine: tuple[Weights, Weights]) -> onnx.ModelProto:
    """Compute the weights inside the graph, from a scalar float32 input ``lambda``: mode ``input``.

    Args:
        model: a graph whose weights are initializers or inputs.
        clean: the weights at lambda = 0.
        affine: base and slope of the others, as :func:`floats_edge.method.fold.affine_in_lambda` gives them.
    """
    base, slope = affine
    result = with_weights(model, {name: clean[name] for name in base if _is_constant(name, clean, affine)})
    varying = [name for name in base if not _is_constant(name, clean, affine)]
    result = _without(result, varying)
    result.graph.input.append(onnx.helper.make_tensor_value_info(LAMBDA_INPUT, onnx.TensorProto.FLOAT, []))
    nodes: list[onnx.NodeProto] = []
    tensors: Weights = {}
    for name in varying:
        tensors |= {f"{name}.base": base[name], f"{name}.slope": slope[name]}
        # The clean weights may lie apart from what the line gives at lambda = 0.
        apart = not np.array_equal(base[name], clean[name])
        line = f"{name}.line" if apart else name
        nodes.append(onnx.helper.make_node("Mul", [f"{name}.slope", LAMBDA_INPUT], [f"{name}.step"]))
        nodes.append(onnx.helper.make_node("Add", [f"{name}.base", f"{name}.step"], [line]))
        if apart:
            tensors |= {f"{name}.clean": clean[name], f"{LAMBDA_INPUT}.zero": np.float32(0)}
            nodes.append(onnx.helper.make_node("Where", [f"{LAMBDA_INPUT}.positive", line, f"{name}.clean"], [name]))
    if f"{LAMBDA_INPUT}.zero" in tensors:
        nodes.insert(
            0, onnx.helper.make_node("Greater", [LAMBDA_INPUT, f"{LAMBDA_INPUT}.zero"], [f"{LAMBDA_INPUT}.positive"])
        )
    return _prepended(with_weights(result, tensors), nodes)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute in half precision between float32 inputs and float32 logits."""
    return _to_half(model, onnx.TensorProto.FLOAT16)


def to_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute in bfloat16 between float32 inputs and float32 logits."""
    result = _to_half(model, onnx.TensorProto.BFLOAT16)
    del result.opset_import[:]
    result.opset_import.append(onnx.helper.make_opsetid("", BF16_OPSET))
    return result


def convolve_in_fp16(model: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """Compute the convolutions of ``layers`` in half precision, between float32 tensors.

    Constant weights and biases become half; those computed in the graph are cast.
    """
    result = _copy(model)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    halves: set[str] = set()
    for original in model.graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        if node.op_type != "Conv" or node.input[1].removesuffix(".weight") not in layers:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name in constants:
                _round(constants[name], onnx.TensorProto.FLOAT16)
                continue
            node.input[index] = f"{name}.half"
            if name not in halves:
                nodes.append(_cast(name, f"{name}.half", onnx.TensorProto.FLOAT16))
                halves.add(name)
        (output,) = node.output
        node.output[0] = f"{output}.half"
        nodes += node, _cast(f"{output}.half", output, onnx.TensorProto.FLOAT)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def finished(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The model checked and serialised, with ``metadata`` for whoever opens it without the manifest."""
    result = _copy(model)
    onnx.helper.set_model_props(result, dict(metadata))
    result.producer_name = "floats-edge"
    onnx.checker.check_model(result, full_check=True)
    return result.SerializeToString(deterministic=True)


def _without(model: onnx.ModelProto, names: Mapping[str, object] | Sequence[str]) -> onnx.ModelProto:
    """A copy of the model without the initializers and inputs of these names."""
    result = _copy(model)
    for tensor in [tensor for tensor in result.graph.initializer if tensor.name in names]:
        result.graph.initializer.remove(tensor)
    for value in [value for value in result.graph.input if value.name in names]:
        result.graph.input.remove(value)
    return result


def _is_constant(name: str, clean: Weights, affine: tuple[Weights, Weights]) -> bool:
    base, slope = affine
    return not slope[name].any() and np.array_equal(base[name], clean[name])


def _to_half(model: onnx.ModelProto, element: int) -> onnx.ModelProto:
    """Turn every float32 tensor but the inputs and outputs into ``element``: a strongly typed engine casts nothing."""
    floats = onnx.TensorProto.FLOAT
    result = _copy(model)
    for tensor in result.graph.initializer:
        if tensor.data_type == floats:
            _round(tensor, element)
    inputs = [value.name for value in result.graph.input if value.type.tensor_type.elem_type == floats]
    outputs = [value.name for value in result.graph.output]
    for node in result.graph.node:
        node.input[:] = [f"{name}.half" if name in inputs else name for name in node.input]
        node.output[:] = [f"{name}.half" if name in outputs else name for name in node.output]
    result = _prepended(result, [_cast(name, f"{name}.half", element) for name in inputs])
    result.graph.node.extend(_cast(f"{name}.half", name, floats) for name in outputs)
    return result


def _round(tensor: onnx.TensorProto, element: int) -> None:
    with np.errstate(over="ignore"):  # becomes infinite, which no parity gate lets pass
        rounded = numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(element))
    tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def _cast(source: str, result: str, element: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [result], to=element)


def _prepended(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """A copy of the model that runs ``nodes`` first; every node is named after what it gives."""
    result = _copy(model)
    del result.graph.node[:]
    result.graph.node.extend((*nodes, *model.graph.node))
    return result


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result
