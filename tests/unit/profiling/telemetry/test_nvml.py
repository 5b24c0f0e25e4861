import os
import sys
from types import SimpleNamespace

import pynvml
import pytest

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.telemetry.nvml import THROTTLING, gpu_memory_used, gpu_sensors, gpu_state
from floats_edge.profiling.telemetry.sensors import UnreadableError

ANSWERS = {
    "nvmlDeviceGetName": "NVIDIA RTX A2000",
    "nvmlSystemGetDriverVersion": "580.65.06",
    "nvmlDeviceGetClockInfo": 1200,
    "nvmlDeviceGetMaxClockInfo": 2100,
    "nvmlDeviceGetPowerUsage": 43_500,
    "nvmlDeviceGetCurrentClocksEventReasons": pynvml.nvmlClocksEventReasonSwPowerCap,
    "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=1)],
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
    for name in ("nvmlDeviceGetTemperature", "nvmlDeviceGetEnforcedPowerLimit"):
        monkeypatch.setattr(pynvml, name, unsupported)


@pytest.mark.usefixtures("one_gpu")
def test_answers_carry_their_units_and_one_in_vain_does_not_spoil_the_rest() -> None:
    state = gpu_state()
    assert (state["GPU"], state["NVIDIA driver"]) == ("NVIDIA RTX A2000", "580.65.06")
    assert state["GPU clock, highest"] == Reading(value=2100, unit="MHz", source="nvmlDeviceGetMaxClockInfo")
    assert state["GPU power limit"] == Reading(value=None, unit="W", source="NVML: Not Supported")
    assert gpu_memory_used().value == 512


@pytest.mark.usefixtures("one_gpu")
def test_processes_of_others_are_counted_and_this_one_is_not() -> None:
    processes = gpu_state()["GPU processes"]
    assert isinstance(processes, Reading)
    assert processes.value == 1


@pytest.mark.usefixtures("one_gpu")
def test_sensors() -> None:
    with gpu_sensors() as sensors:
        found = {sensor.name: sensor for sensor in sensors}
        assert found["power GPU"].read() == 43.5
        assert found["GPU clock"].read() == 1200
        assert found["throttling power limit"].read() == 1
        assert found["throttling temperature, by hardware"].read() == 0
        assert all(sensor.source for sensor in sensors)
        with pytest.raises(UnreadableError, match="Not Supported"):
            found["temperature GPU"].read()


@pytest.mark.usefixtures("one_gpu")
def test_idling_is_no_throttling(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", lambda _: idle)
    with gpu_sensors() as sensors:
        assert [sensor.read() for sensor in sensors if sensor.name.startswith("throttling")] == [0] * len(THROTTLING)


@pytest.mark.usefixtures("one_gpu")
def test_libraries_that_know_the_reasons_by_their_older_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THROTTLING:
        monkeypatch.delattr(pynvml, f"nvmlClocksEventReason{name}", raising=False)
        monkeypatch.setattr(pynvml, f"nvmlClocksThrottleReason{name}", 4 if name == "SwPowerCap" else 8, raising=False)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons", lambda _: 4)
    with gpu_sensors() as sensors:
        assert {sensor.name for sensor in sensors if sensor.name.startswith("throttling") and sensor.read()} == {
            "throttling power limit"
        }


def test_without_a_gpu_there_are_no_sensors() -> None:
    with gpu_sensors() as sensors:
        assert sensors == []


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
