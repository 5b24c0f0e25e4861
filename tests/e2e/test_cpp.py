"""The C++ kit computes what Python does, on bundles exported a moment ago: its own tests, run on them.

tools/test_cpp does the same and more: sanitizers, fuzzing, an installed consumer, TensorRT's headers, 64-bit Arm.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CPP = Path(__file__).resolve().parents[2] / "export" / "cpp"
FIX = "tools/test_cpp installs what is missing"


def _run(*command: object, **environment: str) -> None:
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"


@pytest.fixture(scope="module")
def compiler() -> None:
    """Skip where the kit cannot be built."""
    missing = [tool for tool in ("cmake", "ctest", "c++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}: {FIX}")
    includes = (Path(prefix) / "include" for prefix in ("/usr", "/usr/local"))
    if not any((folder / "doctest/doctest.h").exists() for folder in includes):
        pytest.skip(f"there is no doctest: {FIX}")
    for module in ("torch", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"there is no {module} to train and export with")


@pytest.mark.usefixtures("compiler")
def test_cpp_agrees_with_python_in_every_mode_and_refuses_what_is_spoilt(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    _run(sys.executable, CPP / "tests" / "make_bundles.py", bundles)
    build = {"FLOATS_RT_BUILD": str(tmp_path)}
    options = (f"-DFLOATS_RT_BUNDLES={bundles}", "-DFLOATS_RT_EXAMPLES=OFF", "-DCMAKE_BUILD_TYPE=None")
    _run("cmake", "-S", CPP, "--preset", "test", *options, **build)
    _run("cmake", "--build", tmp_path / "test", "--parallel", "2")
    _run("ctest", "--test-dir", tmp_path / "test", "--output-on-failure", "--no-tests=error")
