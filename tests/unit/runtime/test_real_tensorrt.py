"""The real TensorRT 11.4 where there is no GPU: its binding and its lean runtime, which come without a builder.

There ``Runtime`` gives an object whose first use, and whose end, is a segmentation fault.
"""

from pathlib import Path

import pytest
from fixtures.packages import install, run_with
from fixtures.tiny_bundle import add_engine, engine_entry, write_bundle

from floats_edge.errors import BackendError
from floats_edge.runtime.cuda import cuda_unavailable_reason
from floats_edge.runtime.tensorrt_library import load_tensorrt, make_runtime

VERSION = "11.4.0.106"
LEAN = (f"tensorrt-lean-cu13-bindings=={VERSION}", f"tensorrt-lean-cu13-libs=={VERSION}")


@pytest.fixture(scope="module")
def tensorrt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which the lean runtime is imported as ``tensorrt``."""
    if cuda_unavailable_reason() is None:
        pytest.skip("there is a GPU, with which TensorRT can start")
    folder = tmp_path_factory.mktemp("tensorrt")
    install(folder, *LEAN)
    (folder / "tensorrt.py").write_text(
        "from tensorrt_lean_bindings import *\nfrom tensorrt_lean_bindings import __version__\n"
    )
    return folder


@pytest.mark.parametrize("made", ["make_runtime(trt)", "make_refitter(trt, None)"])
def test_what_cannot_be_made_is_an_error_before_it_is_touched(tensorrt: Path, made: str) -> None:
    program = f"""
from floats_edge.errors import BackendError
from floats_edge.runtime.tensorrt_library import load_tensorrt, make_refitter, make_runtime
trt = load_tensorrt("tensorrt")
try:
    {made}.num_DLA_cores
except BackendError as error:
    print(error)
"""
    told = run_with(tensorrt, program)
    kind = "Runtime" if "runtime" in made else "Refitter"
    assert told.startswith(f"TensorRT {VERSION} cannot make a {kind} here: ")
    assert "nvidia-smi" in told
    assert kind == "Refitter" or "CUDA initialization failure" in told


def test_an_engine_for_a_dla_does_not_fit_where_nobody_can_ask_for_dlas(tensorrt: Path, tmp_path: Path) -> None:
    entry = engine_entry(version=VERSION, dla=0, dla_layers=1, batch=(1, 1, 1))
    bundle = add_engine(write_bundle(tmp_path / "bundle", None), entry, b"never read")
    program = """
import sys
from pathlib import Path
from floats_edge.artifacts.bundle import open_bundle
from floats_edge.errors import BackendError
from floats_edge.runtime.trt_engines import fitting_engines
try:
    fitting_engines(open_bundle(Path(sys.argv[1])), "sm_87")
except BackendError as error:
    print(error)
"""
    assert "a.plan: TensorRT 11.4.0.106 cannot make a Runtime here" in run_with(tensorrt, program, bundle.path)


def test_a_runtime_of_tensorrt_rtx_needs_no_gpu_and_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    rtx = load_tensorrt("tensorrt_rtx")
    assert make_runtime(rtx).num_DLA_cores == 0

    def failing(logger: object) -> None:
        logger.log(rtx.ILogger.Severity.WARNING, "a remark")
        logger.log(rtx.ILogger.Severity.ERROR, "CUDA initialization failure")

    monkeypatch.setattr(rtx, "Runtime", failing)
    with pytest.raises(BackendError, match=r"cannot make a failing here: CUDA initialization failure\n"):
        make_runtime(rtx)
