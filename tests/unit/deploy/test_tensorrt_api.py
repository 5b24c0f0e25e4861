"""That TensorRT-RTX has what the adapter calls. Pyright checks it against stubs of TensorRT 10.13; RTX ships none."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import floats_edge

ADAPTER = (
    "deploy/tensorrt_builder.py",
    "runtime/rtx_kernels.py",
    "runtime/tensorrt_library.py",
    "runtime/trt.py",
    "runtime/trt_engines.py",
    "runtime/trt_lambda.py",
)


def trees() -> Iterator[ast.AST]:
    for name in ADAPTER:
        yield ast.parse((Path(floats_edge.__file__).parent / name).read_text())


def module_names() -> set[str]:
    """``Builder`` for ``trt.Builder``, ``BuilderFlag.TF32`` for ``self._trt.BuilderFlag.TF32``."""
    names = set()
    for node in (node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)):
        owner, path = node.value, [node.attr]
        while isinstance(owner, ast.Attribute) and owner.attr != "_trt":
            path.insert(0, owner.attr)
            owner = owner.value
        if (isinstance(owner, ast.Name) and owner.id == "trt") or isinstance(owner, ast.Attribute):
            names.add(".".join(path))
    return {name for name in names if name[0].isupper()}


def typed_members() -> set[str]:
    """``IBuilderConfig.set_flag`` for ``config.set_flag`` where ``config`` is annotated ``tensorrt.IBuilderConfig``."""
    members = set()
    for tree in trees():
        types: dict[str, str] = {}
        fields = [part for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for part in node.body]
        for node in ast.walk(tree):
            target, annotation = None, None
            if isinstance(node, ast.arg):
                target, annotation = node.arg, node.annotation
            elif isinstance(node, ast.AnnAssign) and node not in fields:
                target, annotation = ast.unparse(node.target), node.annotation
            text = ast.unparse(annotation).strip("'\"") if annotation else ""
            if target and text.startswith("tensorrt."):
                types[target] = text.removeprefix("tensorrt.")
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Attribute)):
            if ast.unparse(node.value) in types:
                members.add(f"{types[ast.unparse(node.value)]}.{node.attr}")
    return members


def test_tensorrt_rtx_has_every_name_that_the_adapter_uses():
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    used = module_names() | typed_members()
    assert {"BuilderFlag.TF32", "Builder.create_network", "IBuilderConfig.set_timing_cache"} <= used
    assert {"Runtime.engine_host_code_allowed", "Refitter.get_all_weights", "TensorLocation"} <= used

    def has(name: str) -> bool:
        value = rtx
        for part in name.removesuffix(".__members__").split("."):
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True

    assert {name for name in used if not has(name)} == set()
