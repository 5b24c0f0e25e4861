"""ONNX Runtime's real package for GPUs, where there is none: it lists a CUDA provider that it cannot load."""

from pathlib import Path

import pytest
from fixtures.packages import install, run_with
from fixtures.tiny_bundle import write_bundle

from floats_edge.runtime.cuda import cuda_unavailable_reason

OPEN = """
import sys
from pathlib import Path
import onnxruntime
from floats_edge.artifacts.bundle import open_bundle
from floats_edge.errors import BackendError
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.ort import open_ort
assert "CUDAExecutionProvider" in onnxruntime.get_available_providers()
bundle = open_bundle(Path(sys.argv[1]))
for name, opener in {"checked": open_predictor, "directly": open_ort}.items():
    try:
        opener(bundle, "ort-cuda", 0.3)
    except BackendError as error:
        print(name, error.what)
with open_predictor(bundle, "ort-cpu", 0.3):
    print("CPU: opened")
"""


@pytest.fixture(scope="module")
def onnxruntime_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which ONNX Runtime's package for GPUs is imported."""
    if cuda_unavailable_reason() is None:
        pytest.skip("there is a GPU: tests/gpu/test_providers.py is for it")
    folder = tmp_path_factory.mktemp("onnxruntime-gpu")
    install(folder, "onnxruntime-gpu>=1.22")
    return folder


@pytest.mark.parametrize("mode", ["fixed", "bound"])
def test_a_provider_that_cannot_load_is_an_error_of_ours(onnxruntime_gpu: Path, tmp_path: Path, mode: str) -> None:
    bundle = write_bundle(tmp_path / "bundle", (0.3,) if mode == "fixed" else None)
    checked, directly, on_cpu = run_with(onnxruntime_gpu, OPEN, bundle.path).splitlines()
    assert "ort-cuda cannot run here: onnxruntime" in checked
    assert "cannot use its CUDAExecutionProvider: Failed to load lib" in checked
    assert "ONNX Runtime cannot load the graph on CUDAExecutionProvider" in directly
    assert on_cpu == "CPU: opened"
