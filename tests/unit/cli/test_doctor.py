"""``floats-edge doctor`` on this machine, and on machines that lack something."""

import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from fixtures.fake_cuda_runtime import FakeRuntime

from floats_edge.cli import doctor
from floats_edge.cli.doctor import Finding
from floats_edge.cli.main import cli
from floats_edge.errors import add_extra


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions to pretend; None: not installed."""
    pretended: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        found = pretended[name] if name in pretended else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return pretended


def test_report() -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["doctor"])
    assert result.exit_code == 0, result.output
    titles = [line.strip() for line in result.output.splitlines() if line[:1].isupper()]
    assert titles == [
        "Installed",
        "This machine can build",
        "This machine can run",
        "This machine can measure",
    ]
    rows = [line.split() for line in result.output.splitlines()]
    assert ["yes", "numpy", "(core)", metadata.version("numpy")] in rows
    assert ["yes", "ort-cpu", "ready"] in rows


def test_it_points_to_the_command_that_tries_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["doctor"])
    command = Path(doctor.__file__).parents[2] / "tools" / "gpu"
    assert f"{command} --quick" in result.output
    assert command.is_file()
    installed = tmp_path / "site-packages" / "floats_edge"
    monkeypatch.setattr(doctor, "_gpu", lambda: Finding("CUDA device", "none", "check the driver"))
    assert doctor.gpu_command(installed) is None
    monkeypatch.setattr(doctor, "_gpu", lambda: Finding("CUDA device", "H100, sm_90"))
    assert "in a checkout" in (doctor.gpu_command(installed) or "")


def test_remedies_are_printed_as_they_are_typed(versions: dict[str, str | None]) -> None:
    versions["tensorrt"] = None
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["doctor"])
    assert "pip install '.[trt]' in a clone of floats-edge" in result.output


def test_a_missing_package_comes_with_its_extra(versions: dict[str, str | None]) -> None:
    versions.update(torch=None, rich=None)
    findings = by_subject(doctor.installed())
    assert findings["torch (train)"] == Finding("torch (train)", "not installed", add_extra("train"))
    assert findings["rich (core)"].remedy == "pip install . in a clone of floats-edge"


def test_an_old_version_does_not_count_as_installed(versions: dict[str, str | None]) -> None:
    versions["torch"] = "2.3.0"
    finding = by_subject(doctor.installed())["torch (train)"]
    assert finding.state.startswith("2.3.0, but >=")
    assert finding.remedy == add_extra("train")


def test_a_local_build_counts_as_its_release(versions: dict[str, str | None]) -> None:
    versions["torch"] = "2.10.0a0+nv25.6"
    assert by_subject(doctor.installed())["torch (train)"].remedy is None


def test_the_gpu_build_of_onnxruntime_stands_in(versions: dict[str, str | None]) -> None:
    versions.update({"onnxruntime": None, "onnxruntime-gpu": "1.24.0"})
    finding = by_subject(doctor.installed())["onnxruntime (core)"]
    assert finding == Finding("onnxruntime (core)", "onnxruntime-gpu 1.24.0")


def test_pycuda_stands_in_for_cuda_python_which_alone_has_graphs(
    versions: dict[str, str | None], monkeypatch: pytest.MonkeyPatch, fake_driver: ModuleType
) -> None:
    versions.update({"cuda-python": None, "cuda-bindings": None, "pycuda": "2025.1"})
    assert by_subject(doctor.installed())["cuda-python (gpu)"].state == "pycuda 2025.1"
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert by_subject(doctor.runnable())["CUDA device"].state == "Orin, sm_87; no CUDA graphs with pycuda alone"
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
    assert by_subject(doctor.runnable())["CUDA device"].state == "Orin, sm_87"


def test_a_board_is_not_offered_what_it_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    from packaging import markers

    here = markers.default_environment()
    monkeypatch.setattr(markers, "default_environment", lambda: here | {"platform_machine": "aarch64"})
    subjects = " ".join(by_subject(doctor.installed()))
    assert "cuda-python (gpu)" in subjects
    assert "(rtx)" not in subjects


@pytest.mark.parametrize("module", ["torch", "onnxscript"])
def test_a_failing_import_is_shown_with_its_reason(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    finding = by_subject(doctor.buildable())["ONNX"]
    assert f"{module} cannot be imported: import of {module} halted" in finding.state
    assert finding.remedy == add_extra("train")


def test_without_torch_no_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert by_subject(doctor.buildable())["checkpoints"].remedy == add_extra("train")


def test_rtx_names_the_gpus_it_builds_for() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is for x86-64")
    state = by_subject(doctor.buildable())["TensorRT engines"].state
    assert "tensorrt_rtx" in state
    assert "sm_86" in state


def test_without_any_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for flavour in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, flavour, None)
    finding = by_subject(doctor.buildable())["TensorRT engines"]
    assert "import of tensorrt_rtx halted" in finding.state
    assert "pip install tensorrt-rtx-cu13" in (finding.remedy or "")


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    finding = by_subject(doctor.runnable())["ort-cpu"]
    assert "halted" in finding.state
    assert finding.remedy == "pip install --force-reinstall onnxruntime"


def test_without_the_plugin_of_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
    finding = by_subject(doctor.runnable())["ort-rtx"]
    assert "halted" in finding.state
    assert add_extra("ort-rtx") in (finding.remedy or "")


def test_what_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    finding = by_subject(doctor.measurable())["GPU"]
    assert "nvidia-ml-py" in finding.state
    assert add_extra("gpu") in (finding.remedy or "")
