import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result
from fixtures.tiny_bundle import write_bundle

from floats_edge.artifacts.records import Profile, load_record
from floats_edge.cli.main import cli
from floats_edge.cli.profile import profile
from floats_edge.runtime.backends import BACKENDS

BRIEF = ("--duration", "0.05", "--warmup", "0.01")
COMMAND = (sys.executable, "-c", "from floats_edge.cli.main import main; main()", "profile")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", None).path


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["profile", *map(str, args)])


def test_writes_a_record_and_prints_it(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures" / "profile.json"
    result = invoke(bundle, "--backend", "ort-cpu", "--batch", 1, "--batch", 3, "--lambda", 0.3, *BRIEF, "-o", out)
    assert result.exit_code == 0, result.output
    record = load_record(out)
    assert isinstance(record, Profile)
    assert [(run.backend, run.batch, run.lam) for run in record.runs] == [("ort-cpu", 1, 0.3), ("ort-cpu", 3, 0.3)]
    assert all(run.latency_ms.n >= 50 for run in record.runs)
    assert record.skipped == {}
    assert "p99 ms" in result.stdout


def test_auto_says_why_a_backend_did_not_run(bundle: Path, tmp_path: Path) -> None:
    result = invoke(bundle, *BRIEF, "-o", tmp_path / "profile.json")
    assert result.exit_code == 0, result.output
    record = load_record(tmp_path / "profile.json")
    assert isinstance(record, Profile)
    ran = {run.backend for run in record.runs}
    assert "ort-cpu" in ran
    told = {key.partition(",")[0] for key in record.skipped}
    assert ran | told == set(BACKENDS)


def test_lambda_defaults_to_one_that_is_served(tmp_path: Path) -> None:
    bank = write_bundle(tmp_path / "bank", (0.2, 0.8)).path
    assert invoke(bank, *BRIEF, "-o", tmp_path / "profile.json").exit_code == 0
    record = load_record(tmp_path / "profile.json")
    assert isinstance(record, Profile)
    assert {run.lam for run in record.runs} == {0.2}
    assert record.subject.mode == "bank"


def test_choices_are_the_backends() -> None:
    (option,) = (parameter for parameter in profile.params if parameter.name == "backends")
    assert tuple(option.type.choices) == ("auto", *BACKENDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "what", "code"),
    [
        (["--lambda", "0.5"], "serves lambda 0.3, not 0.5", 1),
        (["--lambda", "nan"], "nan", 2),
        (["--lambda", "1.5"], "1.5", 2),
        (["--duration", "nan"], "number of seconds", 2),
        (["--warmup", "-1"], "-1", 2),
        (["--batch", "0"], "0", 2),
        (["--backend", "abacus"], "abacus", 2),
    ],
)
def test_bad_options_are_told(options: list[str], what: str, code: int, tmp_path: Path) -> None:
    fixed = write_bundle(tmp_path / "fixed", (0.3,)).path
    result = invoke(fixed, *BRIEF, *options, "-o", tmp_path / "profile.json")
    assert result.exit_code == code
    assert what in result.stderr
    assert not (tmp_path / "profile.json").exists()


def test_missing_bundle_is_told(tmp_path: Path) -> None:
    result = invoke(tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "Remedy" in result.stderr


def test_unwritable_output_is_told(bundle: Path, tmp_path: Path) -> None:
    result = invoke(bundle, "--backend", "ort-cpu", *BRIEF, "-o", bundle / "model.onnx" / "profile.json")
    assert result.exit_code == 1
    assert "could not be written" in result.stderr


@pytest.mark.parametrize("delay", [0.0, 1.0], ids=["while the process starts", "while it measures"])
def test_interrupt_leaves_what_was_there(bundle: Path, tmp_path: Path, delay: float) -> None:
    out = tmp_path / "profile.json"
    out.write_text("the earlier one")
    command = [*COMMAND, str(bundle), "--backend", "ort-cpu", "--duration", "60", "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    workers = wait_for_worker(process.pid)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in output
    assert b"Interrupted" in output
    assert out.read_text() == "the earlier one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "profile.json"]
    assert not psutil.wait_procs(workers, timeout=5)[1]


def wait_for_worker(pid: int) -> list[psutil.Process]:
    for _ in range(200):
        workers = [
            child for child in psutil.Process(pid).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
        ]
        if workers:
            return workers
        time.sleep(0.05)
    raise AssertionError("no process was started to measure in")


def test_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    blocked = f"import sys; sys.modules['torch'] = None; {COMMAND[2]}"
    command = [sys.executable, "-c", blocked, "profile", str(bundle), *BRIEF, "-o", str(tmp_path / "profile.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["profile", "report"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from floats_edge.cli.main import cli\n"
        f"result = CliRunner().invoke(cli, ['{command}', '--help'])\n"
        "heavy = {'numpy', 'torch', 'onnxruntime', 'onnx', 'tensorrt', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} {result.output}' if heavy or result.exit_code or 'Examples:' not in result.output else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
