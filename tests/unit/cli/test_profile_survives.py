"""What goes wrong during a profile, for real: processes that are killed, files that vanish, writes that are refused."""

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from fixtures.processes import wait_for_worker
from fixtures.tiny_bundle import write_bundle

from floats_edge.artifacts.records import Profile, load_record

COMMAND = (sys.executable, "-c", "from floats_edge.cli.main import main; main()", "profile")


def start(bundle: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, str(bundle), "--backend", "ort-cpu", "--warmup", "0", *options, "-o", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def profile_at(path: Path) -> Profile:
    record = load_record(path)
    assert isinstance(record, Profile)
    return record


def test_a_bundle_that_vanishes_leaves_what_was_measured(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None).path
    batches = [option for batch in range(1, 20) for option in ("--batch", str(batch))]
    process = start(bundle, tmp_path / "profile.json", "--duration", "1", *batches)
    psutil.wait_procs(wait_for_worker(process.pid), timeout=60)
    shutil.rmtree(bundle)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert b"Ended early" in errors
    record = profile_at(tmp_path / "profile.json")
    assert 1 <= len(record.runs) < 19
    assert record.incomplete is not None
    assert "cannot be read" in record.incomplete


def test_a_run_whose_process_is_killed_does_not_stop_the_others(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None).path
    process = start(bundle, tmp_path / "profile.json", "--duration", "2", "--batch", "1", "--batch", "2")
    for worker in wait_for_worker(process.pid):  # as the kernel does when memory runs out
        worker.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    record = profile_at(tmp_path / "profile.json")
    assert [run.batch for run in record.runs] == [2]
    assert "SIGKILL" in record.skipped["ort-cpu, batch 1"]
    assert record.incomplete is None


def test_a_disk_that_takes_no_more_leaves_the_earlier_file_and_the_figures_on_the_console(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None).path
    out = tmp_path / "profile.json"
    out.write_text("the earlier one")
    limited = subprocess.run(
        [*COMMAND, str(bundle), "--backend", "ort-cpu", "--duration", "0.05", "--warmup", "0", "-o", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),  # writes beyond fail
    )
    assert limited.returncode == 1
    assert "could not be written" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert "p99 ms" in limited.stdout
    assert out.read_text() == "the earlier one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "profile.json"]
