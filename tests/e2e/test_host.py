"""Commands that work on a board from the desk: over a real sshd, on a board that is this machine."""

import fcntl
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fixtures.loopback_board import LoopbackBoard, loopback_board, script
from fixtures.tiny_bundle import write_bundle

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.artifacts.records import Profile, load_record
from floats_edge.board.ssh import FOLDER, SSH
from floats_edge.cli.main import cli

BRIEF = ("--backend", "ort-cpu", "--duration", "0.05", "--warmup", "0.01")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBoard]:
    with loopback_board(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def board(machine: LoopbackBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBoard]:
    monkeypatch.setenv(SSH, machine.ssh)
    machine.be()
    yield machine
    assert machine.rests()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", None).path


@pytest.fixture(scope="module")
def profiled(machine: LoopbackBoard, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """A bundle, its profile from a board on which nothing of ours was before, and what the command said."""
    folder = tmp_path_factory.mktemp("profiled")
    bundle, out = write_bundle(folder / "bundle", None).path, folder / "profile.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SSH, machine.ssh)
        machine.be()
        result = floats_edge("profile", bundle, "--host", "board", "--lambda", 0.25, *BRIEF, "-o", out)
    if "could not be installed" in result.stderr:
        pytest.skip(f"pip installs nothing here: {out.with_name('profile.json.log').read_text()[-500:]}")
    return bundle, out, result


def floats_edge(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def told(result: Result) -> tuple[str, str]:
    """What a command that failed as expected says: error and remedy."""
    assert result.exit_code == 1, result.output or result.exception
    what, _, fix = result.stderr.rpartition("Error: ")[2].partition("\nRemedy: ")
    return what, fix.strip()


def test_profile_works_there_and_brings_back_record_and_log(machine, profiled) -> None:
    bundle, out, result = profiled
    assert result.exit_code == 0, result.output or result.exception
    record = load_record(out)
    assert isinstance(record, Profile)
    assert record.subject.path == str(bundle)
    assert [(run.backend, run.lam) for run in record.runs] == [("ort-cpu", 0.25)]
    assert "p99 ms" in result.stdout
    assert "board: measuring ort-cpu, batch 1" in result.stderr
    log = out.with_name("profile.json.log").read_text()
    assert "installing what floats-edge needs" in log
    assert "measuring ort-cpu, batch 1" in log
    left = {path.name.partition("-")[0] for path in (machine.home / FOLDER).iterdir()}
    assert left == {"package", "bundle", "venv", "lock", "profile"}
    assert not list(machine.home.glob(f"{FOLDER}/venv-*/lib/python*/site-packages/torch*"))


def test_engines_are_built_there_and_what_is_there_is_used_again(board, profiled, bundle, tmp_path) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    system = str(Path(rtx.__file__).parents[1])
    board.be(PYTHONPATH=system)
    out = tmp_path / "built"
    words = ("export", bundle, "-o", out, "--trt", "--target", "sm_86", "--batch", "1:2:4", "--host", "board")
    result = floats_edge(*words)
    assert result.exit_code == 0, result.output or result.exception
    built = open_bundle(out)
    built.files.verify()
    [engine] = built.manifest.engines
    assert (engine.flavour, engine.batch, engine.targets) == ("tensorrt_rtx", (1, 2, 4), ("sm_86",))
    sent = open_bundle(bundle).manifest
    assert built.manifest.files.items() > sent.files.items()
    assert f"Exported: {out}" in result.stdout
    assert "installing" not in result.stderr
    assert "built, but not run here" in (tmp_path / "built.log").read_text()


def test_build_comes_before_the_measurement_and_a_failure_there_is_told_in_its_words(board, profiled, bundle) -> None:
    what, fix = told(floats_edge("profile", bundle, "--host", "board", "--build", *BRIEF, "-o", bundle.parent / "p"))
    assert "on board: there is no TensorRT" in what
    assert fix.startswith("on board: ")
    assert re.search(rf"{FOLDER}/venv-\w+/bin/python -m pip install tensorrt-rtx-cu13 ", fix)
    assert not (bundle.parent / "p").exists()


# What a board may lack


@pytest.mark.parametrize(
    ("host", "what", "fix"),
    [
        ("off", "off cannot be reached: no sshd answers", "ssh off"),
        ("locked", "locked does not let this user in", "ssh-copy-id locked"),
        ("impostor", "impostor is not known to ssh by its host key", "ssh-keygen -R"),
    ],
)
def test_a_board_that_cannot_be_reached_is_told_with_the_remedy(board, bundle, host, what, fix) -> None:
    error, remedy = told(floats_edge("export", bundle, "-o", bundle, "--trt", "--host", host))
    assert what in error
    assert fix in remedy
    open_bundle(bundle)


def test_without_ssh_here_the_remedy_installs_it(board, bundle, monkeypatch) -> None:
    monkeypatch.setenv(SSH, "no-such-ssh")
    assert "openssh-client" in told(floats_edge("export", bundle, "-o", bundle, "--trt", "--host", "board"))[1]


def pretending(folder: Path, program: str) -> Path:
    """A ``python3`` whose programs from standard input run after ``program``."""
    return script(folder / "python3", f'exec {sys.executable} -I -c "{program}; exec(sys.stdin.read())"')


@pytest.mark.parametrize(
    ("program", "what", "fix"),
    [
        ("import sys; sys.version_info = (3, 8, 10)", "python3 of board is 3.8; floats-edge needs 3.10", "JetPack 6"),
        ("import sys, platform; platform.machine = lambda: 'armv7l'", "of the kind armv7l", "64-bit"),
        ("import sys; sys.modules['ensurepip'] = None", "board has no python3-venv", "apt-get install python3-venv"),
        ("import sys; print = lambda text: None", "did not tell what it is", "ssh board python3 --version"),
    ],
)
def test_a_board_that_will_not_do_is_refused_before_anything_is_sent(
    board, bundle, tmp_path, program, what, fix
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    board.be(home, path=(pretending(tmp_path / "pretending", program),))
    error, remedy = told(floats_edge("profile", bundle, "--host", "board", "-o", tmp_path / "profile.json"))
    assert what in error
    assert fix in remedy
    assert list((home / FOLDER).iterdir()) == []


def test_a_board_without_python_or_rsync_is_told_what_to_install(board, bundle, tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    board.be(tools=empty)
    error, remedy = told(floats_edge("export", bundle, "-o", bundle, "--trt", "--host", "board"))
    assert error == "board has no rsync."
    assert remedy == "ssh -t board sudo apt-get install rsync"
    board.be(tools=empty, PATH=str(empty))
    error, remedy = told(floats_edge("export", bundle, "-o", bundle, "--trt", "--host", "board"))
    assert error == "there is no python3 on board."
    assert "apt-get install python3" in remedy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``small_disk("64k")``: a folder with no more room than that."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("size", "doing"),
    [("4k", "MiB are needed"), ("512k", "sending package-"), ("32m", "floats-edge was at work")],
)
def test_a_full_disk_there_is_told_with_what_can_go(board, bundle, tmp_path, small_disk, size, doing) -> None:
    board.be(small_disk(size))
    error, remedy = told(floats_edge("profile", bundle, "--host", "board", "-o", tmp_path / "profile.json"))
    assert re.search(r"the disk of board is full( or cannot be written)? \(", error)
    assert doing in error
    assert f"ssh board rm -r {FOLDER}" in remedy


def test_packages_that_cannot_be_installed_are_told_and_tried_again(board, bundle, tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    board.be(home, PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL="")
    out = tmp_path / "profile.json"
    error, remedy = told(floats_edge("profile", bundle, "--host", "board", *BRIEF, "-o", out))
    assert "on board: what floats-edge needs could not be installed" in error
    assert "pip reaches a package index" in remedy
    assert "No matching distribution found" in (tmp_path / "profile.json.log").read_text()
    assert not list(home.glob(f"{FOLDER}/venv-*/ready"))


def test_a_board_that_is_at_work_is_not_disturbed(board, profiled, bundle, tmp_path) -> None:
    with (board.home / FOLDER / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write("4711")
        lock.flush()
        error, remedy = told(floats_edge("profile", bundle, "--host", "board", *BRIEF, "-o", tmp_path / "profile.json"))
    assert "another floats-edge command of a desk is running there" in error
    assert "kill 4711" in remedy


# What ends midway


def start(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "floats_edge", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_told(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return
    raise AssertionError(f"{text!r} was never told, but {seen}")


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_work_there_and_brings_back_what_was_measured(board, profiled, tmp_path) -> None:
    out = tmp_path / "profile.json"
    sizes = ("--batch", 1, "--batch", 2, "--backend", "ort-cpu", "--duration", 1, "--warmup", 0)
    process = start("profile", profiled[0], "--host", "board", *sizes, "-o", out)
    wait_until_told(process, "board: measuring ort-cpu, batch 2")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert board.rests(10)
    record = load_record(out)
    assert isinstance(record, Profile)
    assert record.incomplete == "interrupted"
    assert [run.batch for run in record.runs] == [1]


def test_a_connection_that_is_lost_ends_the_work_there_and_says_how_to_go_on(board, profiled, tmp_path) -> None:
    out = tmp_path / "profile.json"
    process = start("profile", profiled[0], "--host", "board", "--backend", "ort-cpu", "--duration", 60, "-o", out)
    wait_until_told(process, "board: measuring ort-cpu, batch 1")
    for session in board.sshd.children():
        session.kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the connection to board was lost while floats-edge was at work" in said
    assert "run the same command again: what is there is used again" in said
    assert not out.exists()
    assert board.rests()


# What nobody is trusted with


@pytest.mark.parametrize(
    "host",
    ["-oProxyCommand=touch pwned", "me@-oProxyCommand=x", "$(touch pwned)", "board:22", "a b", "", "::1", "@board"],
)
def test_what_is_no_name_reaches_no_ssh(bundle, tmp_path, monkeypatch, host) -> None:
    monkeypatch.setenv(SSH, str(script(tmp_path / "bin" / "ssh", f"touch {tmp_path}/pwned") / "ssh"))
    monkeypatch.chdir(tmp_path)
    error, remedy = told(floats_edge("export", bundle, "-o", bundle, "--trt", f"--host={host}"))
    assert "is no name of a board" in error
    assert "~/.ssh/config" in remedy
    assert not (tmp_path / "pwned").exists()


def test_words_of_the_command_line_stay_words_there(board, profiled, tmp_path) -> None:
    words = ("--trt", "--target", "sm_86; touch pwned", "--host", "board")
    told(floats_edge("export", profiled[0], "-o", tmp_path / "out", *words))
    assert not list(board.home.rglob("pwned"))
    assert not list(Path.cwd().glob("pwned"))


def test_a_board_that_sends_without_end_is_stopped(board, profiled, tmp_path) -> None:
    idle = f'case "$*" in *there.py) exit 0;; esac; exec {sys.executable} "$@"'
    lazy = script(tmp_path / "lazy" / "python3", idle)
    board.be(path=(script(lazy / "cat", "exec /bin/cat /dev/zero"),))
    out = tmp_path / "bundle"
    error, _ = told(floats_edge("export", profiled[0], "-o", out, "--trt", "--host", "board"))
    assert "manifest.json on board is larger than it can be" in error
    assert not out.exists()
