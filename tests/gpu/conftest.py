"""Real engines on a real GPU; every test here is skipped, saying why, where there is none."""

import pytest
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, build_engines, write_bundle

from floats_edge.artifacts.bundle import Bundle
from floats_edge.runtime.trt import preferred_tensorrt, trt_unavailable_reason

BATCH = (1, 4, 8)


@pytest.fixture(scope="session")
def gpu() -> None:
    reason = trt_unavailable_reason()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def bundles(gpu: None, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Bundle]:
    """Bundles with engines built here, by mode and precision; TensorRT-RTX refits none."""
    flavour, _ = preferred_tensorrt()
    lambdas = {"fixed": (0.3,), "bank": (0.0, 0.5, 1.0)}
    return {
        (mode, precision): build_engines(
            write_bundle(tmp_path_factory.mktemp(f"{mode}-{precision}"), lambdas.get(mode), precision, mode), BATCH
        )
        for mode, precision in MODES_AND_PRECISIONS
        if mode != "refit" or flavour == "tensorrt"
    }
