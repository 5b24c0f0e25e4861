import itertools
import os
import threading
import time
from pathlib import Path

import pytest

from floats_edge.profiling.telemetry.sensors import Sampler, Samples, Sensor, UnreadableError, means, read_number


def counting() -> Sensor:
    """1, 2, 3, ... by reading."""
    numbers = itertools.count(1)
    return Sensor("count", "readings", "a counter", lambda: float(next(numbers)))


def silent() -> float:
    raise UnreadableError("asleep")


def test_before_during_and_after_are_told_apart() -> None:
    samples = Samples(counting(), times=[10, 20, 30, 40, 50], values=[1, 2, 3, 4, 5])
    sampled = samples.over((20, 40))
    assert (sampled.before, sampled.after) == (1, 5)
    assert (sampled.minimum, sampled.mean, sampled.maximum, sampled.n) == (2, 3, 4, 3)


def test_between_spans_nothing_counts() -> None:
    samples = Samples(counting(), times=[10, 20, 30, 40, 50], values=[1, 2, 3, 4, 5])
    sampled = samples.over((15, 25), (40, 45))
    assert (sampled.before, sampled.after) == (1, 5)
    assert (sampled.minimum, sampled.mean, sampled.maximum, sampled.n) == (2, 3, 4, 2)


def test_what_was_never_read_says_why() -> None:
    with Sampler([Sensor("temperature", "°C", "thermal_zone1", silent)], 0.01) as sampler:
        time.sleep(0.05)
    sampled = sampler.over((0, time.monotonic_ns()))["temperature"]
    assert (sampled.before, sampled.mean, sampled.after, sampled.n) == (None, None, None, 0)
    assert sampled.source == "asleep"


def test_a_sensor_that_is_silent_for_a_while_keeps_its_values() -> None:
    answers = iter([1.0, None, 3.0])

    def read() -> float:
        value = next(answers)
        if value is None:
            raise UnreadableError("EAGAIN")
        return value

    samples = Samples(Sensor("t", "°C", "zone", read))
    for _ in range(3):
        samples.take()
    assert samples.values == [1, 3]
    assert samples.over((0, time.monotonic_ns())).source == "zone"


def test_samples_are_taken_meanwhile_and_at_both_ends() -> None:
    with Sampler([counting()], 0.02) as sampler:
        start = time.monotonic_ns()
        time.sleep(0.2)
        end = time.monotonic_ns()
    sampled = sampler.over((start, end))["count"]
    assert sampled.before == 1
    assert 5 <= sampled.n <= 10
    assert sampled.after == sampled.n + 2 or sampled.after == sampled.n + 3


def test_mean_over_some_seconds() -> None:
    assert means([Sensor("power", "W", "x", lambda: 5.0), Sensor("none", "W", "y", silent)], 0.05, 0.01) == {
        "power": 5.0,
        "none": None,
    }


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("", "is empty"), ("N/A\n", "no number")])
def test_files_that_hold_no_number_say_so(content: str | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "temp").write_text(content)
    with pytest.raises(UnreadableError, match=reason):
        read_number(tmp_path / "temp")


def test_a_file_that_has_nothing_to_read_now_says_so(tmp_path: Path) -> None:
    """As a thermal zone whose unit is powered down answers: EAGAIN."""
    path = tmp_path / "temp"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    closing = threading.Timer(2, os.close, (writer,))  # so that a reader who waits is let go
    closing.start()
    with pytest.raises(UnreadableError, match="temporarily unavailable"):
        read_number(path)
    closing.join()
