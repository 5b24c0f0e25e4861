from collections.abc import Callable

import numpy as np
import pytest

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.errors import ParityError
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.golden import check_golden
from floats_edge.runtime.torch import run_predictor


def test_holds_real_images_and_the_trained_networks_logits(
    bundles: Callable[..., Bundle], digits_run: TrainingRun, digits: Splits
) -> None:
    bundle = bundles("bound")
    tensors = bundle.tensors(bundle.manifest.golden.file)
    np.testing.assert_array_equal(tensors["images"], digits.test.as_float(slice(8)))
    network = run_predictor(digits_run)
    for index, lam in enumerate(bundle.manifest.golden.lambdas):
        network.set_lambda(lam)
        np.testing.assert_allclose(tensors[f"logits_{index}"], network.predict(tensors["images"]), atol=1e-4)


@pytest.mark.parametrize("mode", ["bound", "fixed", "bank"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_bundle_passes_its_own(bundles: Callable[..., Bundle], mode: str, precision: str) -> None:
    bundle = bundles(mode, precision)
    with open_predictor(bundle, "ort-cpu", bundle.manifest.golden.lambdas[0]) as engine:
        check_golden(engine, bundle)


def test_an_engine_whose_switch_does_nothing_fails(bundles: Callable[..., Bundle]) -> None:
    bundle = bundles("bound")
    with open_predictor(bundle, "ort-cpu", 0.0) as engine:
        engine._switch = lambda lam: None
        with pytest.raises(ParityError, match=r"ort-cpu at lambda 0\.5 differs from the golden logits"):
            check_golden(engine, bundle)
