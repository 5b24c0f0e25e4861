import numpy as np
import pytest
from pydantic import ValidationError

from floats_edge.artifacts.reliability import BINS, Bin, Reliability

EMPTY = Bin(images=0, right=0, confidence=0)


def reliability(**filled: Bin) -> Reliability:
    """Bins by their place, such as ``at13``."""
    return Reliability(bins=tuple(filled.get(f"at{place}", EMPTY) for place in range(BINS)))


def test_errors_are_those_of_the_paper() -> None:
    """Of 100 images 60 are said to be right with 0.9 and 30 are; 40 with 0.5 and 36 are."""
    found = reliability(
        at13=Bin(images=60, right=30, confidence=0.9),
        at7=Bin(images=40, right=36, confidence=0.5),
    )
    assert found.overconfidence == pytest.approx(60 * 0.4)
    assert found.underconfidence == pytest.approx(40 * 0.4)
    assert found.error == pytest.approx(40)
    assert (found.images, found.right) == (100, 66)


def test_chance_is_what_true_confidences_show() -> None:
    found = reliability(
        at13=Bin(images=60, right=54, confidence=0.9),
        at7=Bin(images=40, right=20, confidence=0.5),
    )
    rng = np.random.default_rng(0)
    gaps = np.abs(rng.binomial(60, 0.9, 100_000) - 54) + np.abs(rng.binomial(40, 0.5, 100_000) - 20)
    assert found.error == pytest.approx(0)
    assert found.by_chance == pytest.approx(gaps.mean(), rel=0.03)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (Bin(images=3, right=4, confidence=0.9), "4 of 3 images cannot be right"),
        (Bin(images=3, right=3, confidence=0.5), "a mean confidence of 0.5 is not in it"),
        (Bin(images=0, right=0, confidence=0.9), "a mean confidence of 0.9 is not in it"),
    ],
)
def test_bins_that_cannot_be_are_refused(part: Bin, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        reliability(at13=part)
