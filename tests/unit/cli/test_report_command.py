from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures.records import bundle_evaluation, profile

from floats_edge.artifacts.records import save_record
from floats_edge.artifacts.study import Footing, Study, save_study
from floats_edge.cli.main import cli
from floats_edge.recipe import Attack


@pytest.fixture
def records(tmp_path: Path) -> list[str]:
    save_record(bundle_evaluation(), tmp_path / "evaluation.json")
    save_record(profile(), tmp_path / "profile.json")
    return [str(tmp_path / "evaluation.json"), str(tmp_path / "profile.json")]


def test_tables_by_default(records: list[str]) -> None:
    result = CliRunner().invoke(cli, ["report", *records])
    assert result.exit_code == 0
    assert "≤ 42.0" in result.stdout
    assert "0.410" in result.stdout


def test_files_on_request(records: list[str], tmp_path: Path) -> None:
    options = [f"--{kind}={tmp_path / kind}" for kind in ("html", "png", "markdown", "csv")]
    result = CliRunner().invoke(cli, ["report", *records, *options])
    assert result.exit_code == 0
    assert (tmp_path / "html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / "png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "csv").read_text(encoding="utf-8").startswith("subject,backend")
    assert (tmp_path / "markdown").read_text(encoding="utf-8").startswith("# floats-edge report")


def test_profiles_under_different_conditions_are_refused_unless_asked_for(records: list[str], tmp_path: Path) -> None:
    other = profile(conditions={"CPU": "Cortex-A78AE", "power mode": "15W"})
    save_record(other, tmp_path / "other.json")
    both = [records[1], str(tmp_path / "other.json")]
    refused = CliRunner().invoke(cli, ["report", *both, "--html", str(tmp_path / "report.html")])
    assert refused.exit_code == 1
    assert "CPU: AMD EPYC against Cortex-A78AE" in refused.stderr
    assert "--across-conditions" in refused.stderr
    assert not (tmp_path / "report.html").exists()
    assert CliRunner().invoke(cli, ["report", *both, "--across-conditions"]).exit_code == 0


def test_what_is_no_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "bad.json"), "--html", str(tmp_path / "report.html")])
    assert result.exit_code == 1
    assert "is not valid" in result.stderr
    assert "Remedy" in result.stderr
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("content", ['{"schema_version": 1}', '{"kind": "novel"}', '{"kind": []}', "[1]"])
def test_what_is_of_no_kind_is_told_in_words(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "manifest.json")])
    assert result.exit_code == 1
    assert "it should be an object whose kind is evaluation, profile or comparison" in result.stderr
    assert "discriminator" not in result.stderr


def test_of_a_study_it_is_said_where_it_is_shown(tmp_path: Path) -> None:
    study = Study(
        name="s",
        dataset="digits",
        split="test",
        attack=Attack(kind="pgd", epsilon=0.1, steps=20),
        reference="a",
        envelopes={},
        footing=Footing(equal="epochs", reference=("a",), budgets={}),
        trials=(),
        conditions={},
    )
    save_study(study, tmp_path / "study.json")
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "study.json")])
    assert result.exit_code == 2
    assert "study.json is a study: look at study.md and study.png" in result.stderr


def test_no_record_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["report"]).exit_code == 2
