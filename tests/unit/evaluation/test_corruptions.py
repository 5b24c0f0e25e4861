"""Common corruptions in evaluation, record and report."""

import csv
import math

import numpy as np
import pytest
from click.testing import CliRunner
from fixtures.records import bundle_evaluation
from pydantic import ValidationError

from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.corruptions import Corruptions
from floats_edge.artifacts.records import load_record
from floats_edge.cli.main import cli
from floats_edge.corruptions import SEVERITIES
from floats_edge.corruptions.severities import CORRUPTIONS, corrupted
from floats_edge.data import Splits
from floats_edge.evaluation.corruptions import VERSIONS, measure_corruptions
from floats_edge.evaluation.stage import EvaluateRequest, evaluate
from floats_edge.images import Images
from floats_edge.report.corruptions import corruption_remarks
from floats_edge.report.csv import write_csv
from floats_edge.report.html import render_html
from floats_edge.report.markdown import write_markdown
from floats_edge.runtime.torch import run_predictor

LAMBDAS = (0.0, 1.0)


@pytest.fixture(scope="module")
def measured(digits_run: TrainingRun, digits: Splits) -> Corruptions:
    return measure_corruptions(run_predictor(digits_run), digits.test.first(50), "grey", LAMBDAS, seed=0, batch=20)


def test_counts_are_those_of_the_images(measured: Corruptions, digits_run: TrainingRun, digits: Splits) -> None:
    network, images = run_predictor(digits_run), digits.test.first(50)
    right = np.zeros((len(CORRUPTIONS), len(SEVERITIES), len(LAMBDAS), 50), int)
    for kind, name in enumerate(CORRUPTIONS):
        for severity in SEVERITIES:
            shown = [corrupted(image, name, severity, 0, index) for index, image in enumerate(images.pixels)]
            for place, lam in enumerate(LAMBDAS):
                network.set_lambda(lam)
                answers = network.predict(np.float32(shown) / np.float32(255)).argmax(1)
                right[kind, severity - 1, place] = answers == images.labels
    found = np.array([measured.right[name] for name in CORRUPTIONS])
    assert (found == right.sum(-1)).all()
    of_image = right.sum((0, 1))
    assert (np.array(measured.together) == of_image @ of_image.T).all()
    shares = 100 * of_image / VERSIONS
    assert measured.mean(0) == pytest.approx((shares[0].mean(), 1.96 * shares[0].std() / math.sqrt(50)), rel=1e-4)
    apart = shares[1] - shares[0]
    assert measured.difference(1, 0) == pytest.approx((apart.mean(), 1.96 * apart.std() / math.sqrt(50)), rel=1e-4)
    assert measured.accuracy("fog", 1) == pytest.approx(100 * right[list(CORRUPTIONS).index("fog"), :, 1].mean())


def test_the_batch_and_what_else_is_evaluated_change_nothing(
    measured: Corruptions, digits_run: TrainingRun, digits: Splits
) -> None:
    network, told = run_predictor(digits_run), []
    again = measure_corruptions(network, digits.test.first(50), "grey", (1.0,), 0, told.append, batch=7)
    assert again.right == {name: tuple(row[1:] for row in rows) for name, rows in measured.right.items()}
    assert sum(told) == 50 * VERSIONS


class Seen:
    """An engine that keeps what it is shown, and takes everything for class 0."""

    backend, lam = "none", 0.0

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def set_lambda(self, lam: float) -> float:
        return lam

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(images)
        return np.zeros((len(images), 2), np.float32)


def test_blue_first_is_the_same_image_turned() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    labels = np.zeros(2, int)
    red, blue = Seen(), Seen()
    for engine, stored, colours in ((red, pixels, "rgb"), (blue, pixels[:, ::-1], "bgr")):
        images = Images(labels, lambda indices, stored=stored: stored[indices])
        measure_corruptions(engine, images, colours, (0.0,), seed=0)
    assert len(red.shown) == VERSIONS
    for one, other in zip(red.shown, blue.shown, strict=True):
        assert (one == other[:, ::-1]).all()
        assert one.dtype == np.float32
        assert 0 <= one.min() <= one.max() <= 1


def few(**changes: object) -> Corruptions:
    """Ten images at two lambdas; an image has five versions."""
    rows = ((10, 8), (9, 8), (8, 8), (7, 8), (6, 8))
    fields = {"lambdas": (0.0, 1.0), "images": 10, "right": {"fog": rows}, "together": ((170, 158), (158, 190))}
    return Corruptions.model_validate(fields | changes)


def test_the_remark_names_the_best_lambda() -> None:
    """By 1 ± 1.96 sqrt(3 / 10) of 5 versions: the mean square of the differences is 4, that of their mean 1."""
    better = few(right={"fog": ((10, 8),) * 5}, together=((250, 200), (200, 190)))
    (remark,) = corruption_remarks(better)
    assert remark.startswith("The mean is highest at λ = 0: in points, image by image, 20.0 ± 21.5 above λ = 1")
    assert corruption_remarks(few(lambdas=(0.0,), right={"fog": ((8,),) * 5}, together=((170,),))) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"right": {"fog": ((11, 8), (9, 8), (8, 8), (7, 8), (6, 8))}},
        {"right": {"fog": ((10, 8), (9, 8), (8, 8), (7, 8))}},
        {"right": {"fog": ((10,), (9,), (8,), (7,), (6,))}},
        {"right": {}},
        {"together": ((170, 158),)},
        {"together": ((159, 158), (158, 190))},
        {"together": ((201, 158), (158, 190))},
        {"together": ((170, 158), (157, 190))},
        {"together": ((170, 189), (189, 190))},
    ],
)
def test_counts_that_cannot_be_are_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        few(**changes)


def test_reports_show_them_beside_clean_accuracy(tmp_path) -> None:
    rows = tuple((400 - 40 * severity, 450, 300) for severity in SEVERITIES)
    totals = [sum(row[place] for row in rows) for place in range(3)]
    squares = [[min(a, b) * 5 for b in totals] for a in totals]  # as if images were right always or never
    found = {"lambdas": (0.0, 0.5, 1.0), "images": 500, "right": {"fog": rows}, "together": squares}
    record = bundle_evaluation(corruptions=found)
    page = render_html([record])
    write_markdown([record], tmp_path / "r.md")
    write_csv([record], tmp_path / "r.csv")
    text = (tmp_path / "r.md").read_text()
    assert "Common corruptions" in page
    for line in ("| none | 98.6 | 98.2 | 96.6 |", "| fog | 56.0 | 90.0 | 60.0 |", "| mean | 56.0 ± 4.4 | 90.0 ± 2.6 |"):
        assert line in text
    assert "highest at λ = 0.5" in text
    with (tmp_path / "r.csv").open() as file:
        figures = {(row["lambda"], row["part"]): float(row["value"]) for row in csv.DictReader(file)}
    assert figures["0", "test, fog, severity 5"] == pytest.approx(40)
    assert figures["0", "test, fog, mean of severities"] == pytest.approx(56)
    assert figures["0.5", "test, mean of 1 corruptions"] == pytest.approx(90)


def test_a_record_of_other_images_is_refused() -> None:
    with pytest.raises(ValidationError, match="not those of the results"):
        bundle_evaluation(corruptions=few())


def test_progress_counts_every_version(digits_run: TrainingRun) -> None:
    told, request = [], EvaluateRequest(lambdas=LAMBDAS, images=5, attack={"steps": 1}, transfer=True, corruptions=True)
    evaluate(digits_run.path, request, progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {sum(done for done, _ in told)} == {5 * (2 + 3 + 2 * VERSIONS)}


def test_the_command_prints_and_keeps_them(digits_run: TrainingRun, tmp_path) -> None:
    out = tmp_path / "e.json"
    words = ("--images", 20, "--steps", 1, "--lambda", 0.5, "--corruptions", "--device", "cpu", "-o", out)
    result = CliRunner().invoke(cli, ["evaluate", str(digits_run.path), *map(str, words)])
    assert result.exit_code == 0, result.output
    assert "Common corruptions" in result.output
    record = load_record(out)
    assert record.corruptions is not None
    assert record.corruptions.images == 20
    assert list(record.corruptions.right) == list(CORRUPTIONS)
