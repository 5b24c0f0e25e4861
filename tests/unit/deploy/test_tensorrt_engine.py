import importlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from fixtures.tiny_bundle import graph_bytes

from floats_edge.deploy.engine_request import BuildRequest, EngineOptions
from floats_edge.deploy.tensorrt_engine import available_tensorrt, build_engine
from floats_edge.errors import BackendError, OutputError

FAKE_GPU = Path(__file__).parents[2] / "fixtures" / "fake_gpu"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def request_at(tmp_path):
    """A request for a plan in a folder of its own, from the graph at lambda 0.3 unless another is given."""

    def make(graph: bytes | None = None, **options) -> BuildRequest:
        path = tmp_path / "model.onnx"
        path.write_bytes(graph or graph_bytes(0.3, "fp32"))
        chosen = EngineOptions(**{"batch": (1, 4, 16)} | options)
        return BuildRequest(path, tmp_path / "out" / "model.plan", chosen)

    return make


@pytest.fixture
def full_tensorrt(monkeypatch, tmp_path):
    """Stand-ins of TensorRT and of a GPU for the child process; the test says how the build goes."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE_GPU))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda behaviour: monkeypatch.setenv("FAKE_TENSORRT", behaviour)


@pytest.fixture
def rtx(monkeypatch, tmp_path):
    """The real TensorRT-RTX, in the child process too, even where the full TensorRT is installed."""
    (tmp_path / "tensorrt.py").write_text("raise ImportError('hidden by the test')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("lam", [0.3, None], ids=["fixed", "bound"])
def test_rtx_builds_without_a_gpu(rtx, request_at, lam, precision):
    request = request_at(graph_bytes(lam, precision))
    built = build_engine(request)
    assert files_in(request.plan.parent) == ["model.plan"]
    plan = request.plan.read_bytes()
    assert len(plan) > 100_000
    assert (built.flavour, built.version, built.platform) == ("tensorrt_rtx", rtx.__version__, "linux-x86_64")
    assert {"sm_80", "sm_86", "sm_89", "sm_120"} <= set(built.targets)
    assert not {"sm_75", "NONE", "CURRENT"} & set(built.targets)
    inputs = 1 if lam is not None else 5
    assert f"Detected {inputs} inputs and 1 output" in built.log


def test_rtx_compiles_for_the_targets_it_names_and_no_others(rtx, request_at, tmp_path):
    (tmp_path / "tensorrt_rtx.py").write_text(
        "import sys\n"
        "from tensorrt_rtx_bindings import *\n"
        "from tensorrt_rtx_bindings import __version__\n"
        "Real = Builder\n"
        "class Builder(Real):\n"
        "    def build_serialized_network(self, network, config):\n"
        "        targets = [config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)]\n"
        "        tf32 = config.get_flag(BuilderFlag.TF32)\n"
        "        print('asked for', *targets, 'TF32' if tf32 else 'float32', file=sys.stderr)\n"
        "        return Real.build_serialized_network(self, network, config)\n"
    )
    built = build_engine(request_at())
    assert f"asked for {' '.join(built.targets)} float32".replace("sm_", "SM") in built.log


def test_rtx_says_what_it_does_not_accept_and_keeps_the_old_plan(rtx, request_at):
    model = onnx.load_model_from_string(graph_bytes(0.3, "fp32"))
    model.graph.node[1].op_type = "Frobnicate"
    request = request_at(model.SerializeToString())
    request.plan.parent.mkdir()
    request.plan.write_bytes(b"old")
    with pytest.raises(BackendError, match=r"tensorrt_rtx .* does not accept .*model.onnx.*Frobnicate"):
        build_engine(request)
    assert files_in(request.plan.parent) == ["model.plan"]
    assert request.plan.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "axis"), [("images", 2), ("classifier.weight", 1)], ids=["height", "width of a bound weight"]
)
def test_only_the_batch_may_be_dynamic(rtx, request_at, name, axis):
    model = onnx.load_model_from_string(graph_bytes(None, "fp32"))
    value = next(value for value in model.graph.input if value.name == name)
    value.type.tensor_type.shape.dim[axis].dim_param = "free"
    with pytest.raises(BackendError, match=r"one dynamic axis, the batch of 'images'"):
        build_engine(request_at(model.SerializeToString()))


def test_a_static_batch_is_refused(rtx, request_at):
    model = onnx.load_model_from_string(graph_bytes(0.3, "fp32"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(BackendError, match="has none"):
        build_engine(request_at(model.SerializeToString()))


def test_full_tensorrt_is_preferred_and_targets_the_gpu_it_finds(full_tensorrt, request_at):
    full_tensorrt("")
    request = request_at()
    built = build_engine(request)
    assert (built.flavour, built.version, built.targets) == ("tensorrt", "10.3.0", ("sm_87",))
    assert request.plan.read_bytes() == b"[1, 16]\n" + request.onnx.read_bytes()
    assert "INFO building" in built.log


def test_what_a_library_prints_does_not_disturb_the_answer(full_tensorrt, request_at):
    full_tensorrt("print")
    assert "a library prints" in build_engine(request_at()).log


@pytest.mark.parametrize(
    ("behaviour", "what", "fix"),
    [
        ("fail", "could not build .*Could not find any implementation for node stem", "smaller largest batch"),
        ("refuse", "does not accept .*No importer registered for op: Frobnicate", "export it again"),
        ("SIGKILL", "the system killed it, as it does when memory runs out", "smaller largest batch"),
        ("SIGSEGV", "it crashed with SIGSEGV", "another version of TensorRT"),
        ("raise", "TypeError: factory function returned nullptr", "floats-edge doctor"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(full_tensorrt, request_at, behaviour, what, fix):
    full_tensorrt(behaviour)
    request = request_at()
    with pytest.raises(BackendError, match=what) as caught:
        build_engine(request)
    assert fix in caught.value.fix
    assert "Traceback" not in str(caught.value)
    assert files_in(request.plan.parent) == []


def test_full_tensorrt_needs_a_gpu(full_tensorrt, request_at, monkeypatch):
    full_tensorrt("")
    monkeypatch.setenv("FAKE_CUDA", "no device")
    with pytest.raises(BackendError, match="no CUDA-capable device is detected"):
        build_engine(request_at())


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_build_and_leaves_nothing(full_tensorrt, request_at, tmp_path, monkeypatch):
    full_tensorrt("hang")
    pid_file = tmp_path / "pid"
    monkeypatch.setenv("FAKE_TENSORRT_PID", str(pid_file))
    request = request_at()
    code = (
        "from pathlib import Path\n"
        "from floats_edge.deploy.engine_request import BuildRequest\n"
        "from floats_edge.deploy.tensorrt_engine import build_engine\n"
        f"build_engine(BuildRequest(Path({str(request.onnx)!r}), Path({str(request.plan)!r})))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline, "the build never started"
        time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=10)
    assert errors.rstrip().endswith(b"KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert files_in(request.plan.parent) == []


def test_a_plan_that_cannot_be_written_is_an_output_error(request_at, tmp_path):
    request = request_at()
    request.plan.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match=r"out/model.plan could not be written"):
        build_engine(request)


def test_a_full_disk_is_an_output_error(full_tensorrt, request_at):
    full_tensorrt("")
    request = request_at()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            build_engine(request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_in(request.plan.parent) == []


def test_what_is_available(rtx, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert available_tensorrt() == ("tensorrt_rtx", rtx.__version__)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert available_tensorrt() is None


def test_without_tensorrt_the_remedy_names_the_packages(monkeypatch, request_at, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for flavour in ("tensorrt", "tensorrt_rtx"):
        (blocked / f"{flavour}.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(blocked))
    with pytest.raises(BackendError, match=r"libnvinfer.so.10: cannot open") as caught:
        build_engine(request_at())
    assert f"{sys.executable} -m pip install tensorrt-rtx-cu13" in caught.value.fix
    assert "JetPack" in caught.value.fix


def test_the_module_needs_neither_torch_nor_tensorrt():
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'tensorrt', 'tensorrt_rtx', 'pycuda', 'cuda')))"
    module = importlib.import_module("floats_edge.deploy.tensorrt_engine").__name__
    subprocess.run([sys.executable, "-c", f"{blocked}; import {module}"], check=True)
