from collections.abc import Callable

import numpy as np
import pytest

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Parity
from floats_edge.errors import ParityError
from floats_edge.evaluate.parity import GATES, check_parity, measure_parity
from floats_edge.runtime.base import Images, Logits, Predictor


class Table(Predictor):
    """Answers with rows of a table, in order; lambda is added to them."""

    def __init__(self, logits: Logits) -> None:
        super().__init__("table", (1, 1, 1), None, 0.0)
        self.logits = logits

    def _switch(self, lam: float) -> None:
        pass

    def _infer(self, images: Images) -> Logits:
        rows = images[:, 0, 0, 0].astype(int)
        return self.logits[rows] + np.float32(self.lam)


def numbered(count: int) -> Images:
    return np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)


@pytest.fixture
def logits() -> Logits:
    """300 images, more than a batch; the range is exactly 10."""
    logits = np.random.default_rng(0).uniform(-4, 4, (300, 7)).astype(np.float32)
    logits[0, 0], logits[1, 1] = -5, 5
    return logits


def test_figures(logits: Logits) -> None:
    changed = logits.copy()
    changed[17, 3] += 1.0
    order = np.sort(changed[200])
    changed[200, changed[200].argmax()] = order[0] - 0.5
    wrong = (changed.argmax(1) != logits.argmax(1)).sum()
    (figures,) = measure_parity(Table(changed), Table(logits), numbered(300), (0.5,))
    largest = np.abs(changed - logits).max(1) / 10
    assert figures.images == 300
    assert figures.lam == 0.5
    assert (figures.backend, figures.reference) == ("table", "table")
    assert figures.top1_agreement == pytest.approx(1 - wrong / 300)
    assert figures.max_error == pytest.approx(largest.max(), rel=1e-4)
    assert figures.p99_error == pytest.approx(np.percentile(largest, 99), rel=1e-4, abs=1e-6)


def test_both_are_switched_to_every_lambda(logits: Logits) -> None:
    figures = measure_parity(Table(logits), Table(logits), numbered(300), (0.0, 0.4, 1.0))
    assert [parity.lam for parity in figures] == [0.0, 0.4, 1.0]
    assert all(parity.max_error < 1e-6 and parity.top1_agreement == 1 for parity in figures)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers(logits: Logits, value: float) -> None:
    """As when half precision overflows."""
    broken = logits.copy()
    broken[5, 2] = value
    with pytest.raises(ParityError, match=r"lambda 0\.5 .* no numbers"):
        measure_parity(Table(broken), Table(logits), numbered(300), (0.5,))


def parity(agreement: float, error: float, lam: float = 0.5) -> Parity:
    return Parity(
        lam=lam, backend="a", reference="b", images=1000, top1_agreement=agreement, max_error=error, p99_error=0
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gate(precision: str) -> None:
    agreement, error = GATES[precision]
    check_parity([parity(agreement, error)], precision)
    for outside in (parity(agreement - 1e-3, error), parity(agreement, error * 1.01)):
        with pytest.raises(ParityError, match=precision):
            check_parity([parity(1, 0), outside], precision)


def test_gates_demand_more_of_fp32_than_of_fp16() -> None:
    half_agreement, half_error = GATES["fp16"]
    assert GATES["fp32"] == (1.0, 1e-4)
    assert 0.99 <= half_agreement < 1
    assert 1e-4 < half_error <= 0.05


def test_failure_names_the_lambda_and_the_figures() -> None:
    with pytest.raises(ParityError) as caught:
        check_parity([parity(1, 0, lam=0.0), parity(0.873, 0.25, lam=0.75)], "fp16")
    for word in ("lambda 0.75", "87.30 %", "1000 images", "2.5e-01"):
        assert word in caught.value.what


@pytest.mark.parametrize("mode", ["bound", "fixed", "bank"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_real_bundles_carry_their_figures(bundles: Callable[..., Bundle], mode: str, precision: str) -> None:
    manifest = bundles(mode, precision).manifest
    lambdas = manifest.lam.values or manifest.recipe.evaluate.lambdas
    assert tuple(parity.lam for parity in manifest.parity) == lambdas
    check_parity(manifest.parity, precision)
    assert all(parity.images == 500 and parity.backend == "ort-cpu" for parity in manifest.parity)
    if precision == "fp16":
        assert all(parity.max_error > 1e-6 for parity in manifest.parity), "half precision differs, if by little"
