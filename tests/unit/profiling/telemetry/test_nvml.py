import sys
from types import SimpleNamespace

import pynvml
import pytest

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.telemetry.nvml import gpu_memory_used, gpu_state

ANSWERS = {
    "nvmlDeviceGetName": "NVIDIA RTX A2000",
    "nvmlSystemGetDriverVersion": "580.65.06",
    "nvmlDeviceGetClockInfo": 1200,
    "nvmlDeviceGetMaxClockInfo": 2100,
    "nvmlDeviceGetEnforcedPowerLimit": 70_000,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=512 * 2**20),
    "nvmlInit": None,
    "nvmlShutdown": None,
    "nvmlDeviceGetHandleByIndex": "gpu 0",
}


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real module with the driver's answers replaced: power in mW, clocks in MHz, memory in bytes."""

    def unsupported(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    for name, answer in ANSWERS.items():
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", unsupported)


@pytest.mark.usefixtures("one_gpu")
def test_answers_carry_their_units_and_one_in_vain_does_not_spoil_the_rest() -> None:
    state = gpu_state()
    assert (state["GPU"], state["NVIDIA driver"]) == ("NVIDIA RTX A2000", "580.65.06")
    assert state["GPU clock"] == Reading(value=1200, unit="MHz", source="nvmlDeviceGetClockInfo")
    assert state["GPU power limit"] == Reading(value=70, unit="W", source="nvmlDeviceGetEnforcedPowerLimit")
    assert state["GPU temperature"] == Reading(value=None, unit="°C", source="NVML: Not Supported")
    assert gpu_memory_used().value == 512


def test_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    state = gpu_state()["GPU"]
    assert isinstance(state, Reading)
    assert state.value is None
    assert "nvidia-ml-py is not installed" in state.source
    assert gpu_memory_used().value is None


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_library)
    reading = gpu_memory_used()
    assert reading.value is None
    assert "Library Not Found" in reading.source
