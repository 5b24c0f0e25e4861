"""Confusion matrices of one evaluation as a plot: what the images of every class were taken for."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle

from floats_edge.artifacts.accuracy import Answers
from floats_edge.artifacts.records import Evaluation
from floats_edge.report.classes import MOST_IN_A_MATRIX, matrices
from floats_edge.report.style import CLEAN, INK, ROBUST, WIDTH, as_svg
from floats_edge.report.tables import clean

_STRONGEST = 0.5
"""Opacity of a whole class: ink stays readable on it, in the light and in the dark theme."""
_LABEL_LENGTH = 14
_CHARACTER = 0.065  # inches


def is_drawable(record: Evaluation) -> bool:
    """Whether its classes are few enough for a picture."""
    return len(record.labels) <= MOST_IN_A_MATRIX


def confusion_svg(record: Evaluation, prefix: str) -> str:
    """Its confusion matrices at both ends of lambda, as an ``<svg>`` element; empty if its classes are too many."""
    if not is_drawable(record):
        return ""
    return as_svg(lambda figure: draw_confusions(figure, record), confusion_height(record), prefix)


def confusion_height(record: Evaluation) -> float:
    """Of the plot, in inches."""
    return len(list(matrices(record))) // 2 * (WIDTH / 2 - 0.35) + 0.3 + _CHARACTER * _longest(record)


def draw_confusions(figure: FigureBase, record: Evaluation) -> None:
    """A row of panels for each end of lambda, clean beside attacked; numbers are percent of the true class."""
    panels = list(matrices(record))
    grid = figure.subplots(len(panels) // 2, 2, squeeze=False, sharex=True, sharey=True)
    for axes, (lam, kind, answers) in zip(grid.flat, panels, strict=True):
        _draw_matrix(axes, record.labels, answers)
        axes.set_title(f"λ = {lam:g}, {kind}", pad=6)
    names = [_short(name) for name in record.labels]
    for axes in grid[-1]:
        axes.set_xticks(range(len(names)), names, rotation=90 if _longest(record) > 2 else 0)
        axes.set_xlabel("what the network said")
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(names)), names)
        axes.set_ylabel("what the image shows")


def _draw_matrix(axes: Axes, labels: Sequence[str], answers: Answers) -> None:
    place = {name: index for index, name in enumerate(labels)}
    size = 7.5 if len(labels) <= 10 else 5.5
    for name, row in answers.items():
        total = sum(row.values())
        for answer, count in row.items():
            if answer not in place:  # those that are not listed singly
                continue
            x, y = place[answer], place[name]
            colour = CLEAN if answer == name else ROBUST
            box = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=_STRONGEST * count / total, linewidth=0)
            axes.add_patch(box)
            if percent := round(100 * count / total):
                axes.text(x, y, str(percent), ha="center", va="center", fontsize=size, color=INK)
    axes.set(xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5), aspect="equal")
    axes.grid(visible=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)


def _longest(record: Evaluation) -> int:
    return max(len(_short(name)) for name in record.labels)


def _short(name: str) -> str:
    name = clean(name)
    return name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}…"
