"""What float32 products are while networks are trained, checked, evaluated and conditioned; on a GPU that decides."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.training import trainer
from torch import nn
from torch.overrides import TorchFunctionMode

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.evaluation.stage import EvaluateRequest, evaluate
from floats_edge.float32 import Float32, float32_as
from floats_edge.method.condition import condition
from floats_edge.recipe import Recipe
from floats_edge.training.loop import Observer


def kinds() -> set[str]:
    """Of convolutions and matrix products, as PyTorch tells; compilers use all of its ways of asking: none may fail."""
    assert torch.get_float32_matmul_precision() == ("high" if torch.backends.cudnn.allow_tf32 else "highest")
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32
    found = {torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision}
    return {"tf32" if kind == "tf32" else "ieee" for kind in found}


class Watch(TorchFunctionMode):
    """Knows the kinds under which PyTorch has convolved."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.conv2d:
            self.kinds.update(kinds())
        return function(*args, **(kwargs or {}))


@pytest.fixture
def seen() -> Iterator[set[str]]:
    """What it knows; a test may clear it."""
    with Watch() as watch:
        yield watch.kinds


@pytest.fixture(params=["run", "bundle"])
def network(request: pytest.FixtureRequest, digits_run: TrainingRun, bundles: Callable[..., Bundle]) -> Path:
    return {"run": digits_run.path, "bundle": bundles("bound").path}[request.param]


def test_it_lasts_as_long_as_its_context() -> None:
    before = torch.backends.cudnn.conv.fp32_precision
    with float32_as("ieee"):
        assert kinds() == {"ieee"}
        with float32_as("tf32"):
            assert kinds() == {"tf32"}
        assert kinds() == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == before


@pytest.mark.parametrize("wider", [torch.backends, torch.backends.cudnn], ids=["of all", "of cuDNN"])
@pytest.mark.parametrize(("theirs", "ours"), [("tf32", "ieee"), ("ieee", "tf32")])
def test_a_choice_for_everything_does_not_win(wider: Any, theirs: Float32, ours: Float32) -> None:
    before, of_cudnn = wider.fp32_precision, torch.backends.cudnn.fp32_precision
    wider.fp32_precision = theirs
    convolutions = torch.backends.cudnn.conv.fp32_precision
    try:
        with float32_as(ours):
            assert kinds() == {ours}
        assert (wider.fp32_precision, torch.backends.cudnn.conv.fp32_precision) == (theirs, convolutions)
    finally:
        wider.fp32_precision = before
    assert torch.backends.cudnn.fp32_precision == of_cudnn, "what was said of all is not said of cuDNN now"


@pytest.mark.parametrize("chosen", ["tf32", "ieee"])
def test_steps_are_as_the_recipe_says_and_checks_are_not(
    digits_recipe: Recipe,
    few: Splits,
    silent: Observer,
    monkeypatch: pytest.MonkeyPatch,
    seen: set[str],
    chosen: Float32,
) -> None:
    subject = trainer(digits_recipe, few, f"train.float32={chosen}")
    in_steps: set[str] = set()
    update = subject.update

    def updated(*given: object) -> object:
        seen.clear()
        losses = update(*given)
        in_steps.update(seen)
        seen.clear()
        return losses

    monkeypatch.setattr(subject, "update", updated)
    with float32_as("ieee"):
        subject.run_epoch(0, silent)
    assert in_steps == {chosen}
    assert seen == {"ieee"}, "of the checks after the last step"


def test_evaluation_and_its_record(network: Path, seen: set[str]) -> None:
    with float32_as("tf32"):
        record = evaluate(network, EvaluateRequest(images=10, lambdas=(1.0,)))
    assert (record.float32, record.subject.train_float32) == ("ieee", "tf32")
    assert seen == {"ieee"}


def test_what_is_conditioned_is_checked_in_ieee(seen: set[str]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))
    with float32_as("tf32"):
        condition(network, torch.rand(2, 3, 8, 8))
    assert seen == {"ieee"}
