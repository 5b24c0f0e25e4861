"""How plots look, and how one becomes a part of a page that follows the reader's theme."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure, FigureBase

Draw = Callable[[FigureBase], None]
"""Draws on a figure, or on a part of one."""

INK, MUTED, GRID = "#1c2430", "#66707d", "#dde1e6"
CLEAN, ROBUST, LATENCY, PAPER = "#0a6cb8", "#c44f00", "#0f766e", "#fefefe"
_CSS_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    CLEAN: "clean",
    ROBUST: "robust",
    LATENCY: "latency",
    PAPER: "card",
}
"""Colours of the plots and the variables that replace them in a page, where they follow the reader's theme."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # labels come from records
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "none",
}
WIDTH = 7.6
"""Of every plot, in inches."""


def as_svg(draw: Draw, height: float, prefix: str) -> str:
    """What ``draw`` draws, ``height`` inches high, as an ``<svg>`` element.

    Ids get a prefix, so that several plots share a page, and colours become CSS variables.
    """
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": prefix}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}-", svg)
    for colour, name in _CSS_VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
