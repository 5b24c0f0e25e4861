#!/usr/bin/env python3
"""Make the inputs that fuzzing starts from: manifests, real and hostile, the weights of fuzz_bundle's network, a graph.

usage: make_corpus.py BUNDLES CORPUS, with BUNDLES made by tests/make_bundles.py
"""

import sys
from pathlib import Path

import numpy as np
import onnx

from floats_edge.artifacts.files import pack_tensors
from floats_edge.method.fold import VECTORS

LARGEST = 16384
"""Bytes of an input: tools/test_cpp lets the fuzzer make no larger ones."""


def main(bundles: Path, corpus: Path) -> None:
    """Fill ``corpus``."""
    corpus.mkdir(parents=True, exist_ok=True)
    for manifest in bundles.glob("*/manifest.json"):
        (corpus / f"{manifest.parent.name}.json").write_bytes(manifest.read_bytes())
    for manifest in bundles.glob("hostile/*/*/manifest.json"):
        if manifest.stat().st_size < LARGEST:
            (corpus / f"hostile-{manifest.parent.name}.json").write_bytes(manifest.read_bytes())
    (corpus / "weights.safetensors").write_bytes(pack_tensors(_weights()))
    (corpus / "graph.onnx").write_bytes(_graph())
    for graph in (*bundles.glob("hostile-graphs/*.onnx"), bundles / "honest.onnx"):
        if graph.stat().st_size < LARGEST:
            (corpus / graph.name).write_bytes(graph.read_bytes())


def _weights() -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for name, drawn, inside in (("a", 36, 10), ("d", 20, 6)):
        tensors[f"{name}.mask"] = np.packbits(np.arange(drawn) < inside, bitorder="little")
        tensors[f"{name}.theta"] = np.ones(inside, np.float32)
    tensors |= {"b.theta": np.ones((3, 4), np.float32), "c.theta": np.ones(5, np.float32)}
    tensors["a.weight.scale"] = np.ones(4, np.float32)
    for name, channels in (("a", 4), ("b", 3), ("c", 5), ("d", 2)):
        for vector in VECTORS:
            tensors[f"{name}.{vector}"] = np.ones(channels, np.float32)
    return tensors


def _graph() -> bytes:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])
    weight = onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [result], [weight])).SerializeToString()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
