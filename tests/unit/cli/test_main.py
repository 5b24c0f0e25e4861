"""The ``floats-edge`` command itself: help, versions, and how errors look."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from floats_edge import __version__
from floats_edge.cli.main import COMMANDS, cli

PROGRAM = (sys.executable, "-c", "from floats_edge.cli.main import main; main()")


def test_help_lists_the_commands_in_the_order_of_the_pipeline() -> None:
    listed = CliRunner().invoke(cli, ["--help"]).output.partition("Commands:")[2]
    commands = [words for words in map(str.split, listed.splitlines()) if words and words[0] in COMMANDS]
    assert [words[0] for words in commands] == list(COMMANDS)
    assert all(len(words) > 3 for words in commands)
    assert "..." not in listed, "a whole sentence for each"


def test_help_imports_none_of_the_libraries_that_take_long() -> None:
    words = (
        "import sys; from floats_edge.cli.main import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", words), check=True, capture_output=True, text=True)
    imported = {module.partition(".")[0] for module in done.stdout.splitlines()[-1].split()}
    assert "click" in imported
    assert imported.isdisjoint({"numpy", "pydantic", "torch", "torchvision", "onnx", "onnxruntime", "PIL", "rich"})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: cli {command}")


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"floats-edge {__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["trian"])
    assert result.exit_code == 2
    assert "No such command 'trian'" in result.stderr


def test_an_expected_failure_is_one_paragraph_with_a_remedy(tmp_path: Path) -> None:
    done = subprocess.run((*PROGRAM, "inspect", tmp_path / "nowhere"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == f"Error: there is no {tmp_path / 'nowhere'}."
    assert second.startswith("Remedy: name a bundle")


def test_what_an_error_quotes_does_not_steer_the_terminal(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["inspect", str(tmp_path / "\x1b[2Jä")])
    assert f"Error: there is no {tmp_path}/\\x1b[2Jä.\nRemedy: " in result.stderr


def test_its_traceback_can_be_asked_for(tmp_path: Path) -> None:
    result = CliRunner(env={"FLOATS_EDGE_TRACEBACK": "1"}).invoke(cli, ["inspect", str(tmp_path / "nowhere")])
    assert type(result.exception).__name__ == "ArtifactError"


def test_a_bug_is_not_dressed_up_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("floats_edge.cli.doctor.installed", bug)
    assert isinstance(CliRunner().invoke(cli, ["doctor"]).exception, ZeroDivisionError)


def test_ctrl_c_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("floats_edge.cli.doctor.installed", interrupted)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 130
    assert result.stderr.startswith("\nInterrupted")
    assert "Traceback" not in result.output


def test_an_output_that_lacks_letters_shows_question_marks() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run((*PROGRAM, "train", "--help"), env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cpu, cuda, cuda:1, ?; auto" in " ".join(done.stdout.split())


def test_a_closed_pipe_ends_quietly() -> None:
    process = subprocess.Popen((*PROGRAM, "--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate()
    assert stderr == b""


@pytest.mark.parametrize(("words", "unbuffered"), [(("--version",), "1"), (("train", "--keys"), "")])
def test_an_output_without_room_is_an_error(words: tuple[str, ...], unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            (*PROGRAM, *words), env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    error, remedy = done.stderr.splitlines()
    assert error == "Error: the output cannot be written: No space left on device."
    assert remedy.startswith("Remedy: make room")
