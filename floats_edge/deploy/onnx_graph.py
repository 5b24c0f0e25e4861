"""ONNX graphs of the folded network: traced once from PyTorch, then rewritten by small passes that need no PyTorch.

A pass takes a model and returns a new one. Weights keep the names of :mod:`floats_edge.method.fold` throughout
(``stem.weight``, ``stem.bias``, ...); images come in and logits go out as float32 at every precision.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from floats_edge.errors import BackendError

if TYPE_CHECKING:
    from torch import nn

OPSET = 18
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

    program = torch.onnx.export(
        network.eval(),
        (torch.rand(2, *image_shape),),
        dynamo=True,
        optimize=False,  # optimising merges equal tensors and drops biases that are zero
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert program is not None, "the dynamo exporter returns a program"
    optimizer.fold_constants(program.model)  # TensorRT wants axes to be initializers, not computed
    optimizer.remove_unused_nodes(program.model)
    model = _copy(program.model_proto)
    model.ir_version = IR_VERSION
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # source locations of the machine that exported
    missing = {name for name, _ in network.named_parameters()} - {tensor.name for tensor in model.graph.initializer}
    if missing:
        raise BackendError(
            f"the ONNX exporter of this PyTorch renamed or removed {', '.join(sorted(missing))}.",
            fix="pip install --upgrade torch onnxscript",
        )
    return model


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


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute in half precision between float32 images and float32 logits."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted = OnnxModel(convert_float_to_float16(_copy(model), keep_io_types=True))
    converted.topological_sort()
    return converted.model


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


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result
