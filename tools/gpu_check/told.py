"""What a part tells of what it found, and of why it could not look."""

import ctypes
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["there", "missing", "passed", "failed", "skipped", "measured", "unknown"]


ADD = "add what is missing: pip install '.[train,gpu,dev]' in the clone, or without a network tools/gpu --wheels DIR"


class CannotRunError(Exception):
    """This machine lacks what the part needs."""


class Told:
    """What a part found, written line by line."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def doing(self, what: str) -> None:
        self.line("doing", what)

    def find(
        self,
        what: str,
        verdict: Verdict,
        why: str,
        value: float | None = None,
        unit: str = "",
        n: int | None = None,
        path: str | None = None,
    ) -> None:
        """One finding.

        Args:
            what: was looked at.
            verdict: what became of it.
            why: conditions of a figure, tolerance of a check, or the reason why there is neither.
            value: the figure; None: there is none.
            unit: of it.
            n: sample size.
            path: row of README's table that this is about.
        """
        if value is not None and not math.isfinite(value):
            verdict, why, value = "failed", f"the figure is {value}; {why}", None
        finding = {"what": what, "verdict": verdict, "value": value, "unit": unit, "n": n, "why": why, "path": path}
        self.line("findings", finding)

    def line(self, kind: str, value: object) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([kind, value]) + "\n")


def attempt(told: Told, what: str, path: str | None, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; None where it fails, which is then a finding."""
    told.doing(what)
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the rest of the part goes on
        told.find(what, "failed", " ".join(f"{type(error).__name__}: {error}".split())[:600], path=path)
        return None


def need_driver() -> None:
    """Refuse a machine without NVIDIA's driver, long before PyTorch is imported."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CannotRunError(f"there is no NVIDIA driver: {error}") from None


def need_cuda() -> str:
    """PyTorch's first CUDA device."""
    need_driver()
    import torch

    if not torch.cuda.is_available():
        raise CannotRunError(f"PyTorch {torch.__version__} finds no CUDA device")
    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()}, sm_{major}{minor}"


def tensorrt_row() -> str:
    """The row of README's table for the TensorRT that is here."""
    from floats_edge.deploy.tensorrt_engine import available_tensorrt

    found = available_tensorrt()
    return "tensorrt" if found is not None and found[0] == "tensorrt" else "tensorrt-rtx"
