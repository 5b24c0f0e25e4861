import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import pytest
from fixtures.records import (
    answers,
    bundle_evaluation,
    comparison,
    latency,
    profile,
    run,
    run_evaluation,
    subject,
    trace,
)
from rich.console import Console

from floats_edge.errors import OutputError
from floats_edge.report.console import print_records
from floats_edge.report.figures import latency_svg, layers_svg, trade_off_svg, write_png
from floats_edge.report.html import render_html, write_html
from floats_edge.report.markdown import write_markdown
from floats_edge.report.tables import label_records

ALL = [run_evaluation(), bundle_evaluation(), profile()]
HOSTILE = '<script>alert("x")</script> & $\\frac{$ | [red]*bold*[/red] \x1b[31m'


class Page(HTMLParser):
    """Tags, attributes, ids and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ended: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_records() -> list:
    target = subject(name=HOSTILE, path=HOSTILE, model=HOSTILE)
    evaluation = bundle_evaluation(subject=target, backend=HOSTILE, dataset=HOSTILE, attacked=HOSTILE)
    other = bundle_evaluation(subject=subject(name=HOSTILE, path="elsewhere"), seed=4)
    runs = (run(1, backend=HOSTILE, marks=(HOSTILE,)),)
    return [evaluation, other, profile(subject=target, skipped={HOSTILE: HOSTILE}, runs=runs)]


def test_page_shows_the_plots_and_the_figures() -> None:
    page = Page(render_html(ALL))
    assert page.tags.count("svg") == 7
    assert page.tags.count("table") == 16
    for shown in (
        "≤ 42.0 %",
        "98.6 %",
        "0.410 ms",
        "robust: at most",
        "(PGD-20 only)",
        "ort-cpu, batch 8",
        "NVML Shared",
    ):
        assert shown in page.text
    assert page.text.count("TensorRT is not installed") == 1


def test_page_loads_nothing() -> None:
    page = Page(render_html(ALL))
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert value.startswith("#")
    assert set(re.findall(r"url\((.)", render_html(ALL))) <= {"#"}
    assert "@import" not in render_html(ALL)


def test_page_is_valid_where_plots_meet() -> None:
    text = render_html(ALL)
    ids = [value for name, value in Page(text).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text):
        assert (reference[0] or reference[1]) in ids


def test_plots_follow_the_reader_s_theme() -> None:
    text = render_html(ALL)
    used = set(re.findall(r"var\(--(\w+)\)", text))
    light, dark = re.findall(r":root \{([^}]+)\}", text)
    assert used <= set(re.findall(r"--(\w+):", light)) == set(re.findall(r"--(\w+):", dark))
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): #", svgs)


def test_text_of_records_is_only_text() -> None:
    text = render_html(hostile_records())
    page = Page(text)
    assert "script" not in page.tags
    assert 'alert("x")' in page.text
    assert "$\\frac{$" in page.text
    assert "\x1b" not in text


def test_same_records_give_the_same_page() -> None:
    assert render_html(ALL) == render_html(ALL)


@pytest.mark.parametrize("records", [[run_evaluation()], [profile()]], ids=["evaluation", "profile"])
def test_either_kind_alone_makes_a_page_and_an_image(records: list, tmp_path: Path) -> None:
    assert Page(render_html(records)).tags.count("svg") == (2 if records[0].kind == "evaluation" else 4)
    write_png(records, tmp_path / "report.png")
    assert matplotlib.image.imread(tmp_path / "report.png").shape[1] == 1520


def test_accuracy_of_none_and_of_all_can_be_drawn() -> None:
    ends = (
        answers(0.3, 500, 0),
        answers(0.6, 500, 500),
    )
    assert "<svg" in trade_off_svg(label_records([bundle_evaluation(results=ends)]))


def test_latencies_far_apart_share_an_axis() -> None:
    far = profile(runs=(run(1), run(8, latency_ms=latency(500))))
    svg = latency_svg(label_records([far]))
    assert "0.410 ms" in svg
    assert "205 ms" in svg


def test_a_wide_axis_with_one_power_of_ten_is_labelled_in_plain_numbers() -> None:
    runs = (run(1, latency_ms=latency(0.4)), run(8, latency_ms=latency(12)))
    assert "mathdefault" not in latency_svg(label_records([profile(runs=runs)]))


def test_the_plot_of_layers_says_where_attainable_is_not_known() -> None:
    first, second, rest = trace().layers
    whole = trace().model_copy(update={"layers": (first, second.model_copy(update={"attainable_us": 1.0}), rest)})
    assert "line: attainable, where it is known<" in layers_svg(label_records([profile()]))
    assert "line: attainable<" in layers_svg(label_records([profile(traces=(whole,))]))


def test_image_is_drawn(tmp_path: Path) -> None:
    write_png(ALL, tmp_path / "report.png")
    image = matplotlib.image.imread(tmp_path / "report.png")
    assert image.shape[1] == 1520
    colours = {tuple(pixel) for pixel in (image[::2, ::2, :3] * 255).round().astype(int).reshape(-1, 3)}
    assert {(0x0A, 0x6C, 0xB8), (0xC4, 0x4F, 0x00), (0x0F, 0x76, 0x6E)} <= colours


def test_hostile_text_does_not_break_the_image(tmp_path: Path) -> None:
    write_png(hostile_records(), tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_markdown_tables_are_whole(tmp_path: Path) -> None:
    write_markdown([*ALL, *hostile_records()], tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 24
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
        assert len(widths) == 1
    assert "≤ 42.0 \\[37.8, 46.4\\]" in text


def test_console_shows_tables_and_obeys_no_markup() -> None:
    console = Console(width=200, record=True, force_terminal=False, quiet=False, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_records([*ALL, *hostile_records()], console)
    text = console.export_text(styles=True)
    assert "≤ 42.0 [37.8, 46.4]" in text
    assert "[red]*bold*[/red]" in text
    assert "\x1b[31m" not in text


def test_unwritable_page_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OutputError):
        write_html(ALL, tmp_path / "folder.html")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_a_record_without_anything_to_plot_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing to plot") as error:
        write_png([comparison()], tmp_path / "report.png")
    assert "--html" in error.value.fix
    assert not (tmp_path / "report.png").exists()
