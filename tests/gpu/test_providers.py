"""ONNX Runtime's providers for GPUs, skipped where the installed onnxruntime does not have them, or cannot use them."""

from pathlib import Path

import pytest
from fixtures.parity import TOLERANCE, error
from fixtures.tiny_bundle import images, write_bundle

from floats_edge.artifacts.manifest import Mode, Precision
from floats_edge.runtime.backends import open_predictor, unavailable_reason
from floats_edge.runtime.cuda import cuda_unavailable_reason
from floats_edge.runtime.ort import open_ort

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backend", ["ort-cuda", "ort-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("mode", ["fixed", "bound", "input", "refit"])
def test_a_provider_computes_what_the_cpu_does(tmp_path: Path, mode: Mode, precision: Precision, backend: str) -> None:
    reason = cuda_unavailable_reason() or unavailable_reason(backend)
    if reason is not None:
        pytest.skip(reason)
    if (mode, precision) == ("refit", "int8"):
        pytest.skip("an int8 engine cannot be refitted")
    bundle = write_bundle(tmp_path / "bundle", (0.3,) if mode == "fixed" else None, precision, mode)
    lambdas = bundle.manifest.lam.values or (0.0, 1.0, 0.25)
    with (
        open_predictor(bundle, backend, lambdas[0]) as predictor,
        open_ort(bundle, "ort-cpu", lambdas[0]) as reference,
    ):
        for lam in (*lambdas, *lambdas):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            for count in (1, 8):
                wanted = reference.predict(images(count))
                assert error(predictor.predict(images(count)), wanted) <= TOLERANCE[precision]
