import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.manifest import Precision
from floats_edge.method.condition import fold
from floats_edge.method.fold import AffineLayer, Rule, weights_at
from floats_edge.runtime import lambda_weights
from floats_edge.runtime.lambda_weights import (
    Array,
    InputWeights,
    LambdaWeights,
    Line,
    bfloat16_bits,
    bundle_weights,
    quantized,
)
from floats_edge.runtime.torch import folded_network, trained_network

Layers = dict[str, AffineLayer]


@pytest.fixture(scope="module")
def layers(digits_run: TrainingRun) -> Layers:
    return folded_network(digits_run).layers


@pytest.fixture(scope="module")
def by_rule(digits_run: TrainingRun) -> dict[Rule, Layers]:
    trained = trained_network(digits_run).layers
    rules: tuple[Rule, ...] = ("interpolate", "paper")
    return {rule: {name: layer.numpy() for name, layer in fold(trained, rule).items()} for rule in rules}


@settings(max_examples=15)
@given(lams=st.lists(st.sampled_from([0.0, 1.0]) | st.floats(0, 1), min_size=1, max_size=3))
@pytest.mark.parametrize("rule", ["interpolate", "paper"])
def test_equals_the_fold_at_every_lambda_in_any_order(
    by_rule: dict[Rule, Layers], rule: Rule, lams: list[float]
) -> None:
    layers = by_rule[rule]
    weights = LambdaWeights(layers)
    for lam in lams:
        wanted = weights_at(layers, lam)
        got = weights.at(lam)
        assert list(got) == list(wanted)
        for name in wanted:
            assert got[name].dtype == np.float32
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_by_the_papers_rule_lambda_0_is_the_clean_network(by_rule: dict[Rule, Layers]) -> None:
    """And not the limit of small lambdas: the paper's knob switches BatchNorm there."""
    layers = by_rule["paper"]
    weights = LambdaWeights(layers)
    limit = weights.at(1e-9)["stem.bias"].copy()
    assert not np.allclose(weights.at(0.0)["stem.bias"], limit)
    np.testing.assert_array_equal(weights.at(0.0)["stem.bias"], layers["stem"].bias_clean)


def test_what_depends_on_lambda_lies_first_and_the_order_of_the_names_stays() -> None:
    start = {name: np.full(3, index, np.float32) for index, name in enumerate("abc")}
    line = Line(start, start, {name: array * (name != "a") for name, array in start.items()})
    assert line.varying == ("b", "c")
    assert list(line.memory.offsets) == ["b", "c", "a"]
    assert all(offset % 256 == 0 for offset in line.memory.offsets.values())
    assert [(name, array[0]) for name, array in line.at(0.5).items()] == [("a", 0.0), ("b", 1.5), ("c", 3.0)]


def test_switching_writes_into_the_same_buffer(layers: Layers) -> None:
    weights = LambdaWeights(layers)
    first = weights.at(0.0)["stem.weight"]
    clean = first.copy()
    second = weights.at(1.0)["stem.weight"]
    assert np.shares_memory(first, second)
    assert not np.array_equal(first, clean)
    np.testing.assert_array_equal(weights.at(0.0)["stem.weight"], clean)


def test_threads_and_blocks_change_nothing(by_rule: dict[Rule, Layers], monkeypatch: pytest.MonkeyPatch) -> None:
    lambdas = (0.3, 0.0, 1e-50, 1.0)
    whole = LambdaWeights(by_rule["paper"], threads=1)
    wanted = {lam: {name: array.copy() for name, array in whole.at(lam).items()} for lam in lambdas}
    monkeypatch.setattr(lambda_weights, "_PER_THREAD", 10_000)
    monkeypatch.setattr(lambda_weights, "_BLOCK", 777)
    shared = LambdaWeights(by_rule["paper"], threads=3)
    for lam in lambdas:
        for name, array in shared.at(lam).items():
            np.testing.assert_array_equal(array, wanted[lam][name], err_msg=f"{name} at {lam}")


def check_threads(density: float = 1.0) -> None:
    """Weights that four threads compute are those of one expression."""
    generator = np.random.default_rng(0)
    mask = generator.random((5, 1_000_001)) < density
    clean, base, slope = (mask * generator.standard_normal(mask.shape, dtype=np.float32) for _ in range(3))
    line = Line({"weight": clean}, {"weight": base}, {"weight": slope}, threads=4)
    for lam in (0.3, 0.9, 0.0, 0.5, 0.1, 0.8):
        wanted = base + np.float32(lam) * slope if lam else clean
        np.testing.assert_array_equal(line.at(lam)["weight"], wanted, err_msg=f"at {lam}")


@pytest.mark.parametrize("density", [1.0, 0.5, 0.2, 0.0])
def test_threads_do_not_meet(density: float) -> None:
    check_threads(density)


@pytest.mark.parametrize("startable", [0, 1])
def test_where_no_more_threads_can_be_started_those_that_are_there_do_the_work(
    monkeypatch: pytest.MonkeyPatch, startable: int
) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) == startable:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    check_threads()
    assert len(started) == startable


def test_slow_threads_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks = lambda_weights._set_blocks

    def set_one_block_late(buffer: Array, lam: float, blocks: Iterator[Any]) -> None:
        if threading.current_thread() is not threading.main_thread():
            blocks = iter(list(itertools.islice(blocks, 1)))
            time.sleep(0.1)
        set_blocks(buffer, lam, blocks)

    monkeypatch.setattr(lambda_weights, "_set_blocks", set_one_block_late)
    check_threads()


def test_of_a_sparse_network_only_what_changes_is_kept_and_set() -> None:
    clean, base, slope = (np.zeros(100_000, dtype=np.float32) for _ in range(3))
    clean[6:9] = base[6:9] = 1  # kept, but the same at every lambda
    slope[[3, 70_000]] = 1
    base[5] = 2
    line = Line({"weight": clean}, {"weight": base}, {"weight": slope})
    assert sum(len(block.slope) for block in line._blocks) == 3
    weight = line.at(0.5)["weight"]
    np.testing.assert_array_equal(weight, base + np.float32(0.5) * slope)
    weight[10] = 7
    line.at(0.0)
    assert weight[10] == 7, "a weight that never changes was set"
    weight[10] = 0
    np.testing.assert_array_equal(weight, clean)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_threads_round_to_other_types_piece_by_piece(
    layers: Layers, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_weights, "_PER_THREAD", 10_000)
    monkeypatch.setattr(lambda_weights, "_BLOCK", 777)
    floats = LambdaWeights(layers, threads=3)
    scales = {
        f"{name}.weight": np.linspace(0.01, 0.02, len(layer.theta), dtype=np.float32) for name, layer in layers.items()
    }
    typed = InputWeights(floats, precision, scales if precision == "int8" else {})
    for lam in (0.0, 0.3, 1.0, 0.0):
        got = typed.at(lam)
        for name, wanted in floats.at(lam).items():
            if precision == "fp16":
                wanted = wanted.astype(np.float16)
            elif precision == "bf16":
                wanted = bfloat16_bits(wanted)
            elif name in scales:
                wanted = quantized(wanted, scales[name])
            assert got[name].dtype == wanted.dtype
            np.testing.assert_array_equal(got[name], wanted, err_msg=f"{name} at {lam}")


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_weights_of_a_bound_bundle_are_the_trained_ones(
    bundles: Callable[..., Bundle], layers: Layers, lam: float
) -> None:
    wanted = weights_at(layers, lam)
    got = bundle_weights(bundles("bound")).at(lam)
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-6, atol=1e-7)
