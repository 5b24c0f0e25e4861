"""Sensors, and a thread that reads them while something else is being timed, in another process."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from floats_edge.artifacts.records import Sampled

INTERVAL_S = 0.1

_PAGE = 4096
"""Bytes that a file of sysfs holds at most."""


class UnreadableError(Exception):
    """A sensor has no value now; the message says why."""


@dataclass(frozen=True)
class Sensor:
    """A quantity that changes.

    Attributes:
        name: of the quantity, for example ``GPU clock``.
        unit: of its values.
        source: where they come from.
        read: the value now.

    Raises:
        UnreadableError: by ``read``, where there is no value.
    """

    name: str
    unit: str
    source: str
    read: Callable[[], float]


@dataclass
class Samples:
    """Values of one sensor by time in ns of the monotonic clock, which all processes of the machine share."""

    sensor: Sensor
    times: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    reason: str | None = None

    def take(self) -> None:
        """Read the sensor once; a reading in vain leaves its reason."""
        now = time.monotonic_ns()
        try:
            value = self.sensor.read()
        except UnreadableError as error:
            self.reason = str(error)
            return
        self.times.append(now)
        self.values.append(value)

    def between(self, start: int, end: int) -> list[float]:
        """Values read in a span of time."""
        return [value for when, value in zip(self.times, self.values, strict=True) if start <= when <= end]

    def over(self, *spans: tuple[int, int]) -> Sampled:
        """The sensor before, during and after some spans of time, one after the other."""
        start, end = spans[0][0], spans[-1][1]
        during = [value for span in spans for value in self.between(*span)]
        before = [value for when, value in zip(self.times, self.values, strict=True) if when < start]
        after = [value for when, value in zip(self.times, self.values, strict=True) if when > end]
        known = bool(self.values)
        return Sampled(
            unit=self.sensor.unit,
            source=self.sensor.source if known else self.reason or f"{self.sensor.source}: not read yet",
            before=before[0] if before else None,
            minimum=min(during) if during else None,
            mean=sum(during) / len(during) if during else None,
            maximum=max(during) if during else None,
            n=len(during),
            after=after[-1] if after else None,
        )


class Sampler:
    """Reads sensors at once, every ``interval_s`` seconds, and once more at the end; use as a context manager."""

    def __init__(self, sensors: Iterable[Sensor], interval_s: float = INTERVAL_S) -> None:
        self.samples: Mapping[str, Samples] = {sensor.name: Samples(sensor) for sensor in sensors}
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="telemetry", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._take()

    def over(self, *spans: tuple[int, int]) -> dict[str, Sampled]:
        """Every sensor before, during and after spans of time, in ns of the monotonic clock."""
        return {name: samples.over(*spans) for name, samples in self.samples.items()}

    def _sample(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._take()

    def _take(self) -> None:
        for samples in self.samples.values():
            samples.take()


def means(sensors: Sequence[Sensor], seconds: float, interval_s: float = INTERVAL_S) -> dict[str, float | None]:
    """Mean of every sensor over some seconds; None where it gave no value."""
    with Sampler(sensors, interval_s) as sampler:
        time.sleep(seconds)
    return {
        name: sum(samples.values) / len(samples.values) if samples.values else None
        for name, samples in sampler.samples.items()
    }


def matching(folder: Path, pattern: str) -> list[Path]:
    """Paths below a folder of ``/sys``, sorted; none where it is not there or may not be entered."""
    try:
        return sorted(folder.glob(pattern))
    except PermissionError:
        return []


def is_there(path: Path) -> bool:
    """Whether a file of ``/sys`` is there, as far as its folder may be entered."""
    try:
        return path.exists()
    except PermissionError:
        return False


def read_number(path: Path) -> float:
    """The number that a file of ``/sys`` or ``/proc`` holds.

    Raises:
        UnreadableError: no such file, no access, or no number.
    """
    text = read_line(path)
    try:
        return float(text)
    except ValueError:
        raise UnreadableError(f"{path} holds {text[:40]!r}, no number") from None


def read_line(path: Path) -> str:
    """First line of a file of ``/sys`` or ``/proc``; device-tree strings end in NUL.

    Raises:
        UnreadableError: no such file, no access, nothing to read now, or it is empty.
    """
    try:
        text = _read(path)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from None
    lines = text.decode("utf-8", "replace").rstrip("\0\n ").splitlines()
    if not lines:
        raise UnreadableError(f"{path} is empty")
    return lines[0]


def _read(path: Path) -> bytes:
    """What the kernel answers, at most a page.

    By system call: the thermal zone of a unit that is powered down answers EAGAIN, and Python's file objects then
    return None or fail with a TypeError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, _PAGE)
    finally:
        os.close(descriptor)
