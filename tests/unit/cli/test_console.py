"""What commands draw while they work, and what is left of it."""

import io
import re

import pytest
from rich.console import Console

from floats_edge.artifacts.checkpoint import Epoch
from floats_edge.cli import console
from floats_edge.cli.console import TrainingProgress, progress_bar

ERASED_LINE = "\x1b[1A\x1b[2K"


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is drawn on a terminal, or written where there is none."""
    file = io.StringIO()
    monkeypatch.setattr(
        console, "status_console", lambda: Console(file=file, force_terminal=request.param, width=80, highlight=False)
    )
    return file


def left_on_screen(drawn: io.StringIO) -> str:
    """The last thing drawn, unless it was erased."""
    text = drawn.getvalue()
    return "" if text.endswith(ERASED_LINE) else re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).strip()


def test_a_bar_is_gone_before_an_error_is_told(drawn: io.StringIO) -> None:
    def fail() -> None:
        with progress_bar() as bar:
            bar.update(bar.add_task("evaluate", total=9, unit="images"), completed=4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert left_on_screen(drawn) == ""


def test_the_bar_of_a_training_is_gone_before_an_error_is_told(drawn: io.StringIO) -> None:
    def fail() -> None:
        with TrainingProgress("quickstart", epochs=2) as progress:
            progress.on_step(4, 9, 1.5, 100.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert left_on_screen(drawn) == ""


def test_a_bar_that_reached_its_end_stays(drawn: io.StringIO) -> None:
    with TrainingProgress("quickstart", epochs=2) as progress:
        progress.on_step(9, 9, 1.5, 100.0)
    assert "9/9 steps" in left_on_screen(drawn)


def test_a_remark_is_told_once(drawn: io.StringIO) -> None:
    figures = {"loss": 1, "clean_loss": None, "robust_loss": None, "clean_accuracy": 90, "robust_accuracy": 10}
    rates = {"density": 1, "swapped": 0, "learning_rate": 0.1, "alpha": {}, "images_per_s": 1, "seconds": 1}
    epoch = Epoch.model_validate({"epoch": 1, **figures, **rates, "remarks": ("of pretrained weights", "collapsed")})
    with TrainingProgress("quickstart", epochs=1) as progress:
        progress.on_start(("of pretrained weights",))
        assert "note: of pretrained weights" in drawn.getvalue()
        progress.on_epoch(epoch)
    assert drawn.getvalue().count("note: of pretrained weights") == 1
    assert drawn.getvalue().count("note: collapsed") == 1
