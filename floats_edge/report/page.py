"""One HTML page that loads nothing: plots inlined as SVG, styles inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2

from floats_edge import __version__
from floats_edge.report.examples import Group
from floats_edge.report.tables import UNKNOWN, Table


@dataclass(frozen=True)
class Highlight:
    """A figure worth reading first, with what it was measured on."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Section:
    """A part of the page; ``svg`` and the pictures of ``groups`` are ours, all other text is escaped."""

    title: str
    tables: tuple[Table, ...] = ()
    svg: str = ""
    description: str = ""
    words: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True)
class Heading:
    """What stands above the page, and what it was made from."""

    title: str
    lead: str
    source: str


def render_page(heading: Heading, highlights: Sequence[Highlight], sections: Sequence[Section]) -> str:
    """The page as text; all text is escaped but for pictures."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        resources.files("floats_edge.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    return template.render(
        heading=heading, highlights=highlights, sections=sections, unknown=UNKNOWN, version=__version__
    )
