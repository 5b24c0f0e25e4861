"""What is said again on a board, and what is not asked of one."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from fixtures.tiny_bundle import write_bundle

from floats_edge.cli.board import board_log, given_options
from floats_edge.cli.export import export
from floats_edge.cli.main import cli
from floats_edge.cli.profile import profile

PROFILE = [
    *("--backend", "trt", "--backend", "ort-cpu", "--batch", "1", "--batch", "8", "--streams", "2", "--threads", "3"),
    *("--cuda-graph", "--lambda", "0.25", "--duration", "0.5", "--warmup", "0", "--estimate", "thor,orin-nano-8gb"),
]
EXPORT = [
    *("--trt", "--batch", "1:2:4", "--target", "sm_86", "--target", "-x", "--compatibility", "version", "--dla", "1"),
    "--allow-mismatch",
]


def parsed(command: click.Command, words: list[str]) -> click.Context:
    return command.make_context(command.name, ["bundle", "-o", "out", *words])


@pytest.mark.parametrize(("command", "words"), [(profile, PROFILE), (export, EXPORT), (profile, []), (export, [])])
def test_the_options_that_were_given_are_said_again_as_they_were(command: click.Command, words: list[str]) -> None:
    once = parsed(command, words)
    again = [word for values in given_options(once, "out").values() for word in values]
    assert parsed(command, again).params == once.params
    assert bool(again) == bool(words)


def test_every_option_of_profile_reaches_the_board() -> None:
    given = given_options(parsed(profile, PROFILE), "out")
    assert {option.name for option in profile.params} - {*given} == {"bundles", "out", "host", "build"}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["export", "BUNDLE", "-o", "out"], "--trt"),
        (["export", "BUNDLE", "-o", "out", "--trt", "--lambda", "0.3"], "not --lambda"),
        (["export", "BUNDLE", "-o", "out", "--trt", "--precision", "fp16", "--keep-worst", "0"], "--precision"),
        (["export", "BUNDLE", "-o", "out", "--trt", "--allow-code"], "not --allow-code"),
        (["export", "run", "-o", "out", "--trt"], "not a run"),
        (["profile", "BUNDLE", "BUNDLE", "--batch", "1", "--batch", "2"], "one --batch"),
    ],
)
def test_what_a_board_is_not_asked_for_is_told_before_it_is_looked_at(
    words: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "BUNDLE", None)
    monkeypatch.setenv("FLOATS_EDGE_SSH", "no-such-ssh")
    result = CliRunner().invoke(cli, [*words, "--host", "orin"])
    assert result.exit_code == 2, result.output
    assert what in " ".join(result.stderr.split())


def test_the_log_stands_beside_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path / "bundle")
    assert board_log("orin", Path()).path == tmp_path / "bundle.log"


def test_build_is_for_boards(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None).path
    result = CliRunner().invoke(cli, ["profile", str(bundle), "--build", "-o", str(tmp_path / "profile.json")])
    assert result.exit_code == 2
    assert "floats-edge export BUNDLE -o BUNDLE --trt" in result.stderr
