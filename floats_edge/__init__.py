"""floats-edge: train FLOATS networks, export them to ONNX and TensorRT, and profile them on the edge.

``condition`` makes any classifier of images a FLOAT network, and ``folded`` an ordinary one of that at any lambda.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floats_edge.method.condition import condition, folded

__all__ = ["condition", "folded"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import PyTorch only where it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'floats_edge' has no attribute {name!r}")
    return getattr(import_module("floats_edge.method.condition"), name)
