"""Fixtures of the tests of training."""

from dataclasses import replace

import pytest

from floats_edge.data import Splits


@pytest.fixture(scope="session")
def few(digits: Splits) -> Splits:
    """Five steps an epoch."""
    return replace(digits, train=digits.train.first(80), validation=digits.validation.first(40))
