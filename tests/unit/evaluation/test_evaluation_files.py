"""What ``evaluate`` leaves: the record, and beside it pictures of what the evaluated engine itself got wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.records import Evaluation, load_pictures, load_record
from floats_edge.cli.main import cli
from floats_edge.data import Splits
from floats_edge.errors import OutputError
from floats_edge.evaluation.stage import EvaluateRequest, evaluate
from floats_edge.runtime.backends import open_predictor

REQUEST = EvaluateRequest(images=60, lambdas=(0.0, 1.0))


def test_pictures_and_answers_are_of_the_engine(bundles: Callable[..., Bundle], digits: Splits, tmp_path: Path) -> None:
    bundle, out = bundles("bank"), tmp_path / "evaluation.json"
    record = evaluate(bundle.path, REQUEST, out=out)
    assert load_record(out) == record
    pictures = load_pictures(record, out)
    assert record.examples is not None
    assert pictures is not None
    with open_predictor(bundle, "ort-cpu", 0.0) as engine:
        for example, (clean, attacked) in zip(record.examples.shown, pictures, strict=True):
            np.testing.assert_array_equal(clean, digits.test.pixels[example.image])
            assert example.truth == digits.labels[digits.test.labels[example.image]]
            change = np.abs(attacked.astype(int) - clean).max()
            assert 0 < change <= 255 * record.attack.epsilon + 1
            engine.set_lambda(example.lam)
            assert digits.labels[engine.predict(clean[None] / np.float32(255)).argmax()] == example.clean
    fooled = [example for example in record.examples.shown if example.fooled]
    assert {example.lam for example in fooled} == {0, 1}
    assert all(record.results[-1].attacked_answers[e.truth][e.attacked] > 0 for e in fooled if e.lam == 1)


def test_without_a_file_nothing_is_written_or_kept(digits_run: TrainingRun, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    assert evaluate(digits_run.path, REQUEST).examples is None
    assert sorted(tmp_path.iterdir()) == before


def test_pictures_of_an_earlier_evaluation_go(digits_run: TrainingRun, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    evaluate(digits_run.path, REQUEST, out=out)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["evaluation-examples.png", "evaluation.json"]
    harmless = EvaluateRequest(images=3, lambdas=(0.0,), attack={"epsilon": 1e-9})
    record = evaluate(digits_run.path, harmless, out=out)
    assert record.results[0].robust.percent == 100, "these three images are easy ones"
    assert record.examples is None
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_an_output_that_cannot_be_written_is_told_before_the_work(digits_run: TrainingRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")

    def progress(done: int, total: int) -> None:
        pytest.fail("an image was attacked")

    with pytest.raises(OutputError):
        evaluate(digits_run.path, REQUEST, progress=progress, out=tmp_path / "file" / "evaluation.json")


def test_the_command_tells_of_them_and_of_the_worst_class(digits_run: TrainingRun, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    command = ["evaluate", str(digits_run.path), "--images", "60", "--device", "cpu", "-o", str(out)]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert f"Written to {out}, with the report's pictures of wrong answers in e-examples.png" in result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("By class: ")]
    record = load_record(out)
    assert isinstance(record, Evaluation)
    assert f"{record.results[0].macro[0]:.1f} % clean at λ = 0" in line
    assert "Accuracy by class" not in result.output
