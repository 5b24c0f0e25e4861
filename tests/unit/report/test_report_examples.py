import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fixtures.examples import SHOWN, evaluation_with_examples
from fixtures.records import DIGITS, bundle_evaluation, profile
from PIL import Image

from floats_edge.artifacts.records import save_record
from floats_edge.cli.main import cli
from floats_edge.report.html import render_html

HOSTILE = '"><script>alert(1)</script>'


def images(page: str) -> list[np.ndarray]:
    sources = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (128, 3)])
def test_page_shows_clean_attacked_and_difference(side: int, channels: int) -> None:
    record, kept, _ = evaluation_with_examples(side, channels)
    page = render_html([profile(), record], [None, kept])
    shown = images(page)
    assert len(shown) == 9
    clean, attacked, difference = shown[:3]
    wanted = kept[0].transpose(0, 2, 3, 1) if channels == 3 else kept[0, :, 0]
    np.testing.assert_array_equal(clean, wanted[0])
    np.testing.assert_array_equal(attacked, wanted[1])
    np.testing.assert_array_equal(difference[0, 0], np.broadcast_to(254, difference[0, 0].shape))
    np.testing.assert_array_equal(difference[0, 1], np.broadcast_to(1, difference[0, 1].shape))
    assert (difference[1:] == 128).all()
    assert page.count('class="tiny"') == (9 if side < 96 else 0)
    assert ("shown smaller" in page) == (side == 128)


def test_page_says_what_the_network_said() -> None:
    record, kept, _ = evaluation_with_examples()
    page = render_html([record], [kept])
    for text in (
        "λ = 0: right when clean, wrong when attacked (1 of 453)",
        "λ = 0: wrong when clean already (1 of 7)",
        "λ = 1: right when clean, wrong when attacked (1 of 273)",
        "8, image 7",
        "9, image 1,234",
        "3.33 times as strong",
    ):
        assert text in page
    answers = re.findall(r'<b class="(right|wrong)">(\d)</b>', page)
    assert answers == [("right", "8"), ("wrong", "3"), ("wrong", "3"), ("wrong", "3"), ("right", "9"), ("wrong", "8")]


def test_names_of_classes_are_only_text() -> None:
    record, kept, _ = evaluation_with_examples()
    assert record.examples is not None
    example = SHOWN[0].model_copy(update={"truth": HOSTILE, "clean": HOSTILE})
    examples = record.examples.model_copy(update={"shown": (example, *SHOWN[1:])})
    page = render_html([record.model_copy(update={"labels": (*DIGITS, HOSTILE), "examples": examples})], [kept])
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_without_examples_nothing_is_said_of_them() -> None:
    page = render_html([bundle_evaluation()])
    assert "<img" not in page
    assert "got wrong" not in page


@pytest.fixture
def record(tmp_path: Path) -> Path:
    evaluation, _, picture = evaluation_with_examples()
    (tmp_path / "evaluation-examples.png").write_bytes(picture)
    save_record(evaluation, tmp_path / "evaluation.json")
    return tmp_path / "evaluation.json"


def report(record: Path) -> tuple[int, str, Path]:
    page = record.with_suffix(".html")
    result = CliRunner().invoke(cli, ["report", str(record), "--html", str(page)])
    return result.exit_code, result.stderr, page


def test_the_command_finds_pictures_beside_the_record(record: Path) -> None:
    code, _, page = report(record)
    assert code == 0
    assert len(images(page.read_text(encoding="utf-8"))) == 9


def test_the_page_says_that_pictures_are_missing(record: Path) -> None:
    record.with_name("evaluation-examples.png").unlink()
    code, _, page = report(record)
    assert code == 0
    assert "evaluation-examples.png is not beside the evaluation" in page.read_text(encoding="utf-8")


def test_altered_pictures_are_refused(record: Path) -> None:
    picture = record.with_name("evaluation-examples.png")
    picture.write_bytes(picture.read_bytes()[:-1] + b"x")
    code, told, page = report(record)
    assert code == 1
    assert "evaluation-examples.png was altered" in told
    assert not page.exists()
