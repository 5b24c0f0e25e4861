"""Fixtures that the tests of training steps share."""

from collections.abc import Iterator
from typing import Any

import pytest
from fixtures.training import float64_by_default
from torch import Tensor

from floats_edge import attacks
from floats_edge.training import steps


@pytest.fixture
def float64() -> Iterator[None]:
    """Networks that are made in float64."""
    with float64_by_default():
        yield


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The images that training attacked, once it has."""
    seen: list[Tensor] = []

    def attack_seen(*positional: Any, **options: Any) -> Tensor:
        seen.append(attacks.attack(*positional, **options))
        return seen[-1]

    monkeypatch.setattr(steps, "attack", attack_seen)
    return seen
