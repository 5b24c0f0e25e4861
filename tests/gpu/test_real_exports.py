"""A network that is trained and exported here: its int8 engines, and the time of its layers."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.manifest import Precision
from floats_edge.data import Splits
from floats_edge.deploy.engine_request import EngineOptions
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.profiling.layers import trace_layers
from floats_edge.profiling.workload import layer_workloads
from floats_edge.runtime.golden import check_golden, read_golden
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.trt import open_trt

pytestmark = pytest.mark.gpu
OPTIONS = EngineOptions(batch=(1, 4, 8))


@pytest.fixture(scope="session")
def exported(gpu: None, digits_run: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(digits_run.path, tmp_path_factory.mktemp("exported") / "bundle", ExportRequest("runtime", "fp32"))


@pytest.mark.parametrize("lambdas", [(0.3,), "runtime"], ids=["fixed", "bound"])
def test_an_int8_engine_gives_the_golden_outputs_and_answers_as_the_cpu_does(
    exported: Bundle, digits: Splits, tmp_path: Path, lambdas: tuple[float, ...] | Literal["runtime"]
) -> None:
    request = ExportRequest(lambdas, "int8", trt=True, engine=OPTIONS)
    bundle = export(exported.path, tmp_path / "bundle", request)
    lam = bundle.manifest.golden.lambdas[0]
    some = digits.validation.first(100).as_float()
    with open_trt(bundle, lam) as predictor, open_ort(bundle, "ort-cpu", lam) as reference:
        check_golden(predictor, read_golden(bundle))
        predictor.set_lambda(lam)
        agreement = predictor.predict(some).argmax(axis=1) == reference.predict(some).argmax(axis=1)
    assert np.mean(agreement) >= 0.97


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_time_of_every_layer_is_told(exported: Bundle, tmp_path: Path, precision: Precision) -> None:
    bundle = export(exported.path, tmp_path / "bundle", ExportRequest((0.3,), precision, trt=True, engine=OPTIONS))
    trace = trace_layers(lambda _: open_trt(bundle, 0.3), 8, layer_workloads(bundle))
    assert trace.device == "gpu"
    assert all(layer.time_us > 0 for layer in trace.layers)
    assert sum(layer.share for layer in trace.layers) == pytest.approx(1)
