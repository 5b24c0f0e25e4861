"""Types of command-line values that several commands share."""

import math
from typing import Any

import click


class LambdaValue(click.ParamType):
    """A lambda in [0, 1], or the word ``runtime`` where ``runtime`` is allowed."""

    name = "lambda"

    def __init__(self, runtime: bool = False) -> None:
        self.runtime = runtime

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if self.runtime and value == "runtime":
            return value
        from floats_edge.method.fold import check_lambda

        try:
            return check_lambda(float(value))
        except ValueError:
            words = "a number from 0 (clean) to 1 (robust)" + (", or 'runtime'" if self.runtime else "")
            self.fail(f"{value!r} is not {words}.", param, ctx)


allow_code = click.option(
    "--allow-code",
    is_flag=True,
    help="Run the Python code that the recipe's model names (source: python). Only for code that you trust.",
)
"""Without it, no file can make floats-edge import anything."""


class BatchRange(click.ParamType):
    """``N``, or ``MIN:OPT:MAX``."""

    name = "batch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        parts = value if isinstance(value, tuple) else str(value).split(":")
        try:
            sizes = tuple(int(part) for part in parts)
        except ValueError:
            sizes = ()
        if len(sizes) == 1:
            sizes *= 3
        if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
            self.fail(f"{value!r} is neither N nor MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX.", param, ctx)
        return sizes


class FrameSize(click.ParamType):
    """``WIDTHxHEIGHT`` in pixels, as cameras have it; gives height and width."""

    name = "widthxheight"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        width, _, height = str(value).partition("x")
        if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
            self.fail(f"{value!r} is not like 1920x1080.", param, ctx)
        sides = int(height), int(width)
        if not all(2 <= side <= 2**15 for side in sides):
            self.fail(f"{value!r} is outside of 2 to {2**15} pixels.", param, ctx)
        return sides


class Seconds(click.FloatRange):
    """A duration of up to an hour; neither ``nan`` nor ``inf``, which :class:`click.FloatRange` lets pass."""

    def __init__(self) -> None:
        super().__init__(min=0, max=3600)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail("give a number of seconds", param, ctx)
        return seconds
