import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.files import Tensors, pack_tensors
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError, ParityError
from floats_edge.runtime import lambda_weights
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.golden import check_golden, read_golden
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
        check_golden(engine, read_golden(bundle))


def test_of_int8_are_those_of_its_graph_so_that_weights_cut_off_instead_of_rounded_are_noticed(
    bundles: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a compiler does it that was told -ffast-math; what int8 costs anyway is of the same size and would hide it."""
    bundle = bundles("bound", "int8")
    golden = read_golden(bundle)
    with open_predictor(bundle, "ort-cpu", 0.0) as engine:
        check_golden(engine, replace(golden, tolerance=1e-6))
    monkeypatch.setattr(lambda_weights, "quantized", _cut_off)
    with open_predictor(bundle, "ort-cpu", 0.0) as engine, pytest.raises(ParityError, match="at lambda 0 differs"):
        check_golden(engine, golden)


def _cut_off(weight: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.trunc(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda t: t.pop("images"), "images is missing"),
        (lambda t: t.pop("logits_1"), "logits_1 is missing"),
        (lambda t: t.update(images=t["images"][:, :, :4]), r"images: float32 \[N, 1, 8, 8\] wanted, .* \[8, 1, 4, 8\]"),
        (lambda t: t.update(images=t["images"][:0]), r"images: .* \[0, 1, 8, 8\] found"),
        (lambda t: t.update(images=t["images"].astype(np.float64)), r"images: .* float64 \[8, 1, 8, 8\] found"),
        (
            lambda t: t.update(logits_0=t["logits_0"][:3]),
            r"logits_0: float32 \[8, 10\] wanted, .* \[3, 10\] found",
        ),
        (lambda t: t.update(logits_0=t["logits_0"].reshape(-1)), r"logits_0: .* \[80\] found"),
        (lambda t: t.update(logits_0=t["logits_0"].astype(np.int32)), r"logits_0: .* int32 \[8, 10\] found"),
        (lambda t: t.update(logits_1=np.ones_like(t["logits_1"])), r"the logits at lambda 0\.5 span no range"),
        (lambda t: t.update(logits_1=t["logits_1"] * np.nan), r"the logits at lambda 0\.5 span no range"),
        (lambda t: t.update(logits_1=t["logits_1"] * np.inf), r"the logits at lambda 0\.5 span no range"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    bundles: Callable[..., Bundle], tmp_path: Path, damage: Callable[[Tensors], object], told: str
) -> None:
    folder = Path(shutil.copytree(bundles("bound").path, tmp_path / "bundle"))
    tensors = bundles("bound").tensors("golden.safetensors")
    damage(tensors)
    (folder / "golden.safetensors").write_bytes(pack_tensors(tensors))
    write_manifest(folder, bundles("bound").manifest.model_copy(update={"files": file_entries(folder)}))
    with pytest.raises(ArtifactError, match=f"golden outputs of .*bundle do not fit its manifest: {told}") as caught:
        read_golden(open_bundle(folder))
    assert caught.value.fix.startswith("export it again")


def test_an_engine_whose_switch_does_nothing_fails(bundles: Callable[..., Bundle]) -> None:
    bundle = bundles("bound")
    with open_predictor(bundle, "ort-cpu", 0.0) as engine:
        engine._switch = lambda lam: None
        with pytest.raises(ParityError, match=r"ort-cpu at lambda 0\.5 differs from the golden logits") as caught:
            check_golden(engine, read_golden(bundle))
    assert caught.value.fix.startswith("export it again"), "no engine was built, so none can be rebuilt"
