import os
import sys
import time
from types import SimpleNamespace

import pynvml
import pytest

from floats_edge.artifacts.records import Reading
from floats_edge.profiling.conditions import read_conditions
from floats_edge.profiling.telemetry.nvml import (
    COUNTED_POWER,
    THROTTLING,
    clock_lock,
    first_gpu,
    gpu_arithmetic_peak,
    gpu_memory_peak,
    gpu_memory_used,
    gpu_sensors,
    gpu_state,
)
from floats_edge.profiling.telemetry.sensors import UnreadableError, means

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
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetMemoryBusWidth": 192,
    "nvmlDeviceGetNumGpuCores": 3328,
}


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real module with the driver's answers replaced: power in mW, clocks in MHz, memory in bytes."""

    def unsupported(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    for name, answer in ANSWERS.items():
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: f"gpu {index}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: f"gpu {uuid}")
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
def test_power_by_the_counter_of_energy_is_its_growth_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def counter(_: object) -> int:
        return 7_000_000 + round(40_000 * time.monotonic())  # mJ at 40 W

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", counter)
    with gpu_sensors() as sensors:
        counted = [sensor for sensor in sensors if sensor.name == COUNTED_POWER]
        assert means(counted, 0.3, 0.05)[COUNTED_POWER] == pytest.approx(40, rel=0.01)
        assert "nvmlDeviceGetTotalEnergyConsumption" in counted[0].source


@pytest.mark.usefixtures("one_gpu")
def test_growth_of_the_counter_is_told_of_the_present_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _: 1000)
    now = iter([0.0, 0.1, 60.0, 60.1])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with gpu_sensors() as sensors:
        (counted,) = (sensor for sensor in sensors if sensor.name == COUNTED_POWER)
        for expected in (None, 0, None, 0):  # at first, and after a minute in which other things may have run
            if expected is None:
                with pytest.raises(UnreadableError, match="two readings"):
                    counted.read()
            else:
                assert counted.read() == expected


@pytest.mark.usefixtures("one_gpu")
def test_without_a_counter_of_energy_the_sensor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", unsupported)
    with gpu_sensors() as sensors:
        (counted,) = (sensor for sensor in sensors if sensor.name == COUNTED_POWER)
        with pytest.raises(UnreadableError, match="Not Supported"):
            counted.read()


@pytest.mark.usefixtures("one_gpu")
def test_that_clocks_are_locked_is_not_told() -> None:
    lock = clock_lock()["clocks"]
    assert isinstance(lock, Reading)
    assert lock.value is None
    assert "--lock-gpu-clocks" in lock.source
    assert read_conditions()["clocks"] == lock


def test_without_a_gpu_nothing_is_said_of_its_lock() -> None:
    assert clock_lock() == {}


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


@pytest.mark.usefixtures("one_gpu")
def test_peaks_follow_from_cores_bus_and_clocks() -> None:
    memory, arithmetic = gpu_memory_peak(), gpu_arithmetic_peak()
    assert memory.value == pytest.approx(2 * 192 / 8 * 2.1)
    assert "192 bits at 2100 MHz" in memory.source
    assert arithmetic.value == pytest.approx(2 * 3328 * 2.1)
    assert "no tensor cores" in arithmetic.source


def chosen() -> str:
    with first_gpu() as (_, gpu):
        return gpu


# Several GPUs: CUDA numbers them by speed, NVML by address


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("visible", "gpu"), [("", "gpu 0"), ("1", "gpu 1"), ("1,0", "gpu 1"), ("GPU-8f6a,0", "gpu GPU-8f6a")]
)
def test_the_gpu_is_the_one_that_cuda_uses(visible: str, gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert chosen() == gpu


@pytest.mark.usefixtures("one_gpu")
def test_unlike_gpus_are_told_apart_by_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: f"NVIDIA {handle}")
    reading = gpu_memory_used()
    assert reading.value is None
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in reading.source
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert chosen() == "gpu 1"


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("visible", ["7", "none"])
def test_a_gpu_that_is_not_there(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UnreadableError, match="none of 1 GPUs"):
        chosen()
