from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Parity
from floats_edge.data import Splits
from floats_edge.deploy import onnx_graph
from floats_edge.deploy.lambda_graph import Network
from floats_edge.errors import ParityError
from floats_edge.evaluation.parity import GATES, check_parity, measure_parity
from floats_edge.method.fold import Weights
from floats_edge.preprocessing import Preprocessing
from floats_edge.runtime.base import Images, Logits, Predictor
from floats_edge.runtime.bfloat16 import emulated
from floats_edge.runtime.lambda_weights import bfloat16_bits

ROWS = 1024
"""An image's pixel is the number of its row over this."""


class Table(Predictor):
    """Answers with rows of a table, in order; lambda is added to them."""

    def __init__(self, logits: Logits) -> None:
        super().__init__("table", Preprocessing().resolved((1, 1, 1)), None, 0.0)
        self.logits = logits

    def _switch(self, lam: float) -> None:
        pass

    def _infer(self, images: Images) -> Logits:
        rows = (ROWS * images[:, 0, 0, 0]).astype(int)
        return self.logits[rows] + np.float32(self.lam)


def numbered(count: int) -> Images:
    return (np.arange(count, dtype=np.float32) / ROWS).reshape(count, 1, 1, 1)


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


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_a_reference_that_is_worth_nothing_is_not_the_exports_fault(logits: Logits, value: float) -> None:
    """No numbers, or the same everywhere: then no figure would mean anything, and no precision would help."""
    with pytest.raises(ParityError, match=r"lambda 0\.5 the trained network itself .* no numbers") as caught:
        measure_parity(Table(logits), Table(np.full_like(logits, value)), numbered(300), (0.5,))
    assert "train.lr" in caught.value.fix
    assert "fp32" not in caught.value.fix


def parity(agreement: float, error: float, lam: float = 0.5, p99_error: float = 0) -> Parity:
    return Parity(
        lam=lam, backend="a", reference="b", images=1000, top1_agreement=agreement, max_error=error, p99_error=p99_error
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_gate(precision: str) -> None:
    agreement, error, _ = GATES[precision]
    check_parity([parity(agreement, error)], precision)
    for outside in (parity(agreement - 1e-3, error), parity(agreement, error * 1.01)):
        with pytest.raises(ParityError, match=precision):
            check_parity([parity(1, 0), outside], precision)


def test_gates_demand_more_of_fp32_than_of_fp16() -> None:
    half = GATES["fp16"]
    assert GATES["fp32"][:2] == (1.0, 1e-4)
    assert 0.99 <= half.agreement < 1
    assert 1e-4 < half.max_error <= 0.05


def test_the_gate_of_int8_is_what_is_promised() -> None:
    assert GATES["int8"].agreement == 0.98


def test_bf16_is_judged_by_its_errors_on_99_percent_of_the_images() -> None:
    limit = GATES["bf16"].p99_error
    check_parity([parity(0.97, 2e-2, p99_error=limit)], "bf16")
    with pytest.raises(ParityError, match=r"bf16 must reach 95 % and 3e-02, 7\.8e-03 on 99 % of them"):
        check_parity([parity(1, 2e-2, p99_error=limit * 1.01)], "bf16")


def rounded(logits: Logits) -> Logits:
    """As bfloat16 holds them."""
    return (bfloat16_bits(logits).astype(np.uint32) << 16).view(np.float32)


def test_near_ties_that_bf16_turns_over_are_no_defect() -> None:
    """One image in twenty has two best classes closer than bfloat16 can tell."""
    random = np.random.default_rng(0)
    wanted = random.uniform(-8, 4, (300, 7)).astype(np.float32)
    wanted[:15, 2], wanted[:15, 5] = 6, 6 + random.uniform(0, 0.03, 15)
    (figures,) = measure_parity(Table(rounded(wanted)), Table(wanted), numbered(300), (0.0,))
    assert 0.95 <= figures.top1_agreement < 0.99
    check_parity([figures], "bf16")


def bf16_figures(network: Network, digits: Splits, change: Callable[[Weights], object] = lambda _: None) -> Parity:
    """Of the network at lambda 0 in bf16, its weights changed before they are rounded, on validation images."""
    images, weights = digits.validation.first(500).as_float(), network.weights_at(0.0)

    def predict(model: bytes) -> Table:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        return Table(np.asarray(session.run(None, {"images": images})[0]))

    wanted = predict(network.constant(0.0).SerializeToString())
    change(weights)
    model = onnx_graph.to_bf16(onnx_graph.with_weights(network.template, weights))
    got = predict(emulated(model.SerializeToString()))
    return measure_parity(got, wanted, numbered(len(images)), (0.0,))[0]


def test_a_bf16_network_with_a_layer_that_is_a_few_percent_off_is_refused(
    float_network: Network, digits: Splits
) -> None:
    check_parity([bf16_figures(float_network, digits)], "bf16")
    for layer in float_network.layers:

        def spoil(weights: Weights, name: str = f"{layer}.weight") -> None:
            weights[name] = weights[name] * np.float32(1.05)

        with pytest.raises(ParityError, match="bf16 must reach"):
            check_parity([bf16_figures(float_network, digits, spoil)], "bf16")


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
