import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from click.testing import CliRunner, Result
from fixtures.processes import wait_for_worker
from fixtures.tiny_bundle import add_engine, engine_entry, write_bundle

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.artifacts.records import Comparison, Profile, load_record
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
        (["--warmup", "nan"], "number of seconds", 2),
        (["--duration", "inf"], "range", 2),
        (["--warmup", "-1"], "-1", 2),
        (["--batch", "0"], "0", 2),
        (["--backend", "abacus"], "abacus", 2),
        (["--estimate", "abacus"], "none of 'abacus'", 2),
        (["--streams", "0"], "0", 2),
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


def test_a_run_folder_is_told_with_the_command_that_exports_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text("{}")
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path} is the folder of a training run" in result.stderr
    assert f"floats-edge export {tmp_path} -o BUNDLE" in result.stderr


def test_unwritable_output_is_told(bundle: Path, tmp_path: Path) -> None:
    result = invoke(bundle, "--backend", "ort-cpu", *BRIEF, "-o", bundle / "model.onnx" / "profile.json")
    assert result.exit_code == 1
    assert "could not be written" in result.stderr


def test_unwritable_output_is_told_before_anything_is_measured(bundle: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    for out in (bundle / "model.onnx" / "profile.json", bundle):
        result = invoke(bundle, "--backend", "ort-cpu", "--duration", 60, "-o", out)
        assert result.exit_code != 0
    assert time.monotonic() - start < 30


def test_figures_fit_a_narrow_console(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "profile.json"
    result = invoke(bundle, "--backend", "ort-cpu", *BRIEF, "-o", out)
    *lines, last = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert last.endswith(f"floats-edge report {out} --html report.html")  # to be copied
    headers = [line for line in lines if line.startswith(("subject", "backend"))]
    assert any("p50 ms" in line and "images/s" in line for line in headers)


def test_threads_streams_layers_and_estimates(bundle: Path, tmp_path: Path) -> None:
    options = ("--threads", 1, "--streams", 1, "--streams", 2, "--estimate", "thor,orin-nano-8gb")
    result = invoke(bundle, "--backend", "ort-cpu", *BRIEF, *options, "-o", tmp_path / "profile.json")
    assert result.exit_code == 0, result.output
    record = load_record(tmp_path / "profile.json")
    assert isinstance(record, Profile)
    assert [(run.streams, run.threads) for run in record.runs] == [(1, 1), (2, 1)]
    assert record.traces[0].backend == "ort-cpu"
    assert {estimate.board.split()[1] for estimate in record.estimates} == {"Orin", "AGX"}


def test_several_bundles_are_compared(bundle: Path, tmp_path: Path) -> None:
    fixed = write_bundle(tmp_path / "fixed", (0.3,)).path
    out = tmp_path / "comparison.json"
    result = invoke(bundle, fixed, *BRIEF, "--threads", 1, "-o", out)
    assert result.exit_code == 0, result.output
    record = load_record(out)
    assert isinstance(record, Comparison)
    assert record.lambdas == (0.5, 0.3)
    assert record.backend == "ort-cpu"
    assert "ratio" in result.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--batch", "1", "--batch", "2"], "with one --batch\n"),
        (["--streams", "2"], "with one stream\n"),
        (["--estimate", "thor"], "with no --estimate\n"),
        (
            ["--backend", "trt", "--backend", "ort-cpu", "--batch", "1", "--batch", "2"],
            "one --backend and one --batch\n",
        ),
        (["--backend", "trt"], "no backend runs all of these bundles here"),
    ],
)
def test_a_comparison_has_one_of_each(options: list[str], told: str, bundle: Path, tmp_path: Path) -> None:
    result = invoke(bundle, bundle, *BRIEF, *options, "-o", tmp_path / "comparison.json")
    assert result.exit_code in (1, 2)
    assert told in result.stderr
    assert not (tmp_path / "comparison.json").exists()


@pytest.mark.usefixtures("interruptible")
def test_interrupt_keeps_the_runs_that_were_measured(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    timing = ("--duration", "2", "--warmup", "0")
    batches = [option for batch in range(1, 40) for option in ("--batch", str(batch))]
    command = [*COMMAND, str(bundle), "--backend", "ort-cpu", *timing, *batches, "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    first = wait_for_worker(process.pid)
    psutil.wait_procs(first, timeout=30)
    wait_for_worker(process.pid)  # the second run
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in output
    record = load_record(out)
    assert isinstance(record, Profile)
    assert record.incomplete == "interrupted"
    assert 1 <= len(record.runs) < 39
    assert b"incomplete" in output


@pytest.mark.usefixtures("interruptible")
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


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_kill_leaves_nothing_running(bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As ``kill`` and a terminal that closes: the signal goes to the command alone."""
    command = [*COMMAND, str(bundle), "--backend", "ort-cpu", "--duration", "60", "-o", str(tmp_path / "profile.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    workers = wait_for_worker(process.pid)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Interrupted" in output
    assert b"Traceback" not in output
    assert not psutil.wait_procs(workers, timeout=5)[1]


def test_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    blocked = f"import sys; sys.modules['torch'] = None; {COMMAND[2]}"
    command = [sys.executable, "-c", blocked, "profile", str(bundle), *BRIEF, "-o", str(tmp_path / "profile.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_gpu_is_opened_in_other_processes_alone(bundle: Path, tmp_path: Path, fake_driver: ModuleType) -> None:
    opened = open_bundle(bundle)
    plan = b"[1, 8]\n" + opened.read(opened.manifest.graphs[0].file)
    add_engine(opened, engine_entry("a.plan", batch=(1, 4, 8)), plan)
    result = invoke(bundle, "--backend", "trt", *BRIEF, "-o", tmp_path / "profile.json")
    assert result.exit_code == 0, result.output
    record = load_record(tmp_path / "profile.json")
    assert isinstance(record, Profile)
    assert record.runs[0].backend == "trt"
    assert {"stem"} <= {layer.name for layer in record.traces[0].layers}
    assert not fake_driver.initialised


def test_cuda_graphs_are_for_tensorrt(bundle: Path, tmp_path: Path) -> None:
    result = invoke(bundle, "--backend", "ort-cpu", "--cuda-graph", *BRIEF, "-o", tmp_path / "profile.json")
    assert result.exit_code == 2
    assert "--backend trt" in result.output


@pytest.mark.parametrize("command", ["profile", "report"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from floats_edge.cli.main import cli\n"
        f"result = CliRunner().invoke(cli, ['{command}', '--help'])\n"
        "heavy = {'numpy', 'torch', 'onnxruntime', 'onnx', 'tensorrt', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} {result.output}' if heavy or result.exit_code or 'Examples:' not in result.output else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
