"""floats-edge: train FLOATS networks, export them to ONNX and TensorRT, and profile them on the edge.

``condition`` makes any classifier of images a FLOAT network, and ``folded`` an ordinary one of that at any lambda.
``train``, ``evaluate``, ``export``, ``verify``, ``profile`` and ``load`` are the stages of the pipeline, as the
commands of the same names run them. ``LambdaPolicy`` turns a signal of an application into a lambda. Each is imported
when it is first asked for: a board has no PyTorch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floats_edge.data import Datasets
    from floats_edge.deploy.export import ExportRequest, export
    from floats_edge.deploy.verify import VerifyRequest, verify
    from floats_edge.evaluation.stage import EvaluateRequest, evaluate
    from floats_edge.lambda_policy import LambdaPolicy, PolicySettings
    from floats_edge.method.condition import condition, folded
    from floats_edge.profiling.stage import ProfileRequest, profile
    from floats_edge.runtime.backends import load
    from floats_edge.training.stage import train

_HOMES = {
    "condition": "method.condition",
    "folded": "method.condition",
    "train": "training.stage",
    "load": "runtime.backends",
    "profile": "profiling.stage",
    "ProfileRequest": "profiling.stage",
    "Datasets": "data",
    "evaluate": "evaluation.stage",
    "EvaluateRequest": "evaluation.stage",
    "export": "deploy.export",
    "ExportRequest": "deploy.export",
    "LambdaPolicy": "lambda_policy",
    "PolicySettings": "lambda_policy",
    "verify": "deploy.verify",
    "VerifyRequest": "deploy.verify",
}
__all__ = [
    "Datasets",
    "EvaluateRequest",
    "ExportRequest",
    "LambdaPolicy",
    "PolicySettings",
    "ProfileRequest",
    "VerifyRequest",
    "condition",
    "evaluate",
    "export",
    "folded",
    "load",
    "profile",
    "train",
    "verify",
]
__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
"""ONNX Runtime 1.29 and later otherwise keep a number of this machine in the home folder and send events to Microsoft,
from the moment that they are imported; set the variable to 0 to let them."""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'floats_edge' has no attribute {name!r}")
    return getattr(import_module(f"floats_edge.{_HOMES[name]}"), name)
