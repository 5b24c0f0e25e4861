"""The real plugin of TensorRT-RTX for ONNX Runtime, where there is no GPU; skipped where it is not installed."""

import subprocess
import sys

import pytest

from floats_edge.runtime.cuda import cuda_unavailable_reason
from floats_edge.runtime.ort_rtx import plugin_is_installed

ASK = """
from floats_edge.runtime.backends import unavailable_reason
for backend in ("ort-rtx", "ort-rtx", "ort-cpu"):
    print(unavailable_reason(backend))
"""


def test_without_a_gpu_it_is_refused_and_takes_nothing_along() -> None:
    if not plugin_is_installed():
        pytest.skip("pip install '.[ort-rtx]': the plugin is not installed")
    if cuda_unavailable_reason() is None:
        pytest.skip("there is a GPU: tests/gpu/test_providers.py is for it")
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    first, again, on_cpu = done.stdout.splitlines()
    assert first == again
    assert "libcuda.so.1" in first or "finds no GPU that it knows" in first
    assert on_cpu == "None"
