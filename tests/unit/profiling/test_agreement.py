"""Against independent clocks; tools/bench/profile_clocks and profile_overhead measure the same more closely."""

import json
import time
from pathlib import Path

import numpy as np
from fixtures.tiny_bundle import write_bundle

from floats_edge.profiling.bench import collection_held_off, random_images, sample
from floats_edge.profiling.telemetry.sensors import Sampler, Sensor
from floats_edge.runtime.backends import open_traced
from floats_edge.runtime.ort import OrtPredictor


def test_p50_agrees_with_onnx_runtime_s_profiler_and_with_a_bare_loop(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None)
    ours: list[float] = []
    bare: list[float] = []
    with open_traced(bundle, "ort-cpu", 0.5, 1, tmp_path) as predictor, collection_held_off():
        assert isinstance(predictor, OrtPredictor)
        images = random_images(predictor.image_shape, 512)
        for _ in range(200):  # in turn, and compared turn by turn, so that a busy machine meets both
            ours.append(sample(lambda: predictor.predict(images), seconds=0, minimum=1)[0] / 1e6)
            start = time.perf_counter()
            predictor.predict(images)
            bare.append(1000 * (time.perf_counter() - start))
        events = json.loads(Path(predictor._session.session.end_profiling()).read_bytes())
    theirs = [event["dur"] / 1000 for event in events if event["name"] == "model_run"][::2]
    assert abs(np.median(np.divide(ours, bare)) - 1) < 0.15
    assert 0 <= np.median(np.divide(ours, theirs)) - 1 < 0.25  # theirs leaves out what Python does around it


def test_the_clock_counts_less_than_a_hundredth_of_a_millisecond() -> None:
    assert np.median(sample(lambda: None, seconds=0, minimum=20_000)) < 10_000


def test_reading_sensors_takes_little_of_a_core() -> None:
    sensors = [Sensor(f"s{index}", "W", "x", lambda: 1.0) for index in range(30)]
    start = time.process_time()
    with Sampler(sensors):
        time.sleep(1)
    assert time.process_time() - start < 0.1
