"""What a board sends is believed as little as what a stranger sends."""

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fixtures import records
from fixtures.tiny_bundle import add_engine, engine_entry, write_bundle

from floats_edge.artifacts.bundle import Bundle, keep_verdict, open_bundle, write_manifest
from floats_edge.artifacts.manifest import Verdict
from floats_edge.artifacts.records import Comparison, Profile, bundle_subject, save_record
from floats_edge.board import session
from floats_edge.board.session import Log, Session
from floats_edge.board.stage import export_on, profile_on
from floats_edge.errors import BoardError, FloatsError
from floats_edge.recipe import Attack

PLAN = b"a plan" * 100
Change = Callable[[dict], object]


class Board:
    """A board that has run what it was told, and sends the files of a folder."""

    host = "orin"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ask(self, program: str) -> str:
        answer = {"python": [3, 10], "machine": "aarch64", "venv": True, "rsync": True, "free": 2**30}
        return f"a greeting of the shell\nfloats-edge: {json.dumps(answer)}\n"

    def send(self, folder: Path, name: str) -> None:
        shutil.copytree(folder, self.folder / name, dirs_exist_ok=True)

    def attend(self, program: str, request: dict, tell: Callable[[str], None]) -> tuple[int, str]:
        self.asked = request["commands"]
        tell("done")
        return 0, "done"

    def fetch(self, name: str, largest: int) -> bytes | None:
        name = "profile.json" if name in self.asked[-1] else name
        try:
            return (self.folder / name).read_bytes()[: largest + 1]
        except FileNotFoundError:
            return None


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", None)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board(tmp_path / "board")
    board.folder.mkdir()
    monkeypatch.setattr(session, "Board", lambda host: board)
    return board


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", lambda line: None)


@pytest.fixture
def built(bundle: Bundle, board: Board, tmp_path: Path) -> Path:
    """The folder on the board of the bundle with its engine."""
    folder = board.folder / f"{session.bundle_name(bundle)}-built"
    shutil.copytree(bundle.path, folder)
    add_engine(open_bundle(folder), engine_entry(), PLAN)
    return folder


def test_engines_are_taken_and_all_else_is_the_desks(bundle, board, built, log, tmp_path) -> None:
    out = export_on("orin", bundle.path, tmp_path / "out", (), log)
    assert [engine.file for engine in out.manifest.engines] == ["a.plan"]
    assert out.read("a.plan") == PLAN
    assert out.manifest.model_copy(update={"engines": (), "files": bundle.manifest.files}) == bundle.manifest
    assert log.path.read_text() == "done\n"
    assert export_on("orin", bundle.path, bundle.path, (), log).manifest == out.manifest


def verdict(backend: str) -> Verdict:
    attack = Attack(kind="pgd", epsilon=0.1, steps=1)
    return Verdict(backend=backend, library="x", images=1, attack=attack, queries=1, results=(), problems=("it fails",))


def test_a_verdict_on_other_engines_goes_and_every_other_one_stays(bundle, board, log, tmp_path) -> None:
    for backend in ("trt", "ort-cpu"):
        keep_verdict(open_bundle(bundle.path), verdict(backend))
    sent = open_bundle(bundle.path)
    folder = board.folder / f"{session.bundle_name(sent)}-built"
    shutil.copytree(bundle.path, folder)
    write_manifest(folder, sent.manifest.without_verdict("trt"))
    add_engine(open_bundle(folder), engine_entry(), PLAN)
    out = export_on("orin", bundle.path, tmp_path / "out", (), log)
    assert [one.backend for one in out.manifest.verdicts] == ["ort-cpu"]
    write_manifest(folder, out.manifest.without_verdict("ort-cpu"))
    with pytest.raises(BoardError, match="more was changed"):
        export_on("orin", bundle.path, tmp_path / "out", (), log)


def _fp16(manifest: dict) -> None:
    manifest["precision"] = "fp16"


def _graph(manifest: dict) -> None:
    manifest["files"]["model.onnx"]["sha256"] = "0" * 64


def _golden(manifest: dict) -> None:
    manifest["golden"]["tolerance"] *= 2


def _more(manifest: dict) -> None:
    manifest["files"]["more.bin"] = manifest["files"]["a.plan"]


def _graph_as_engine(manifest: dict) -> None:
    manifest["engines"][0]["file"] = "model.onnx"


def _outside(manifest: dict) -> None:
    manifest["files"]["../a.plan"] = manifest["files"].pop("a.plan")
    manifest["engines"][0]["file"] = "../a.plan"


def _huge(manifest: dict) -> None:
    manifest["files"]["a.plan"]["bytes"] = 2**40


@pytest.mark.parametrize(
    ("change", "what"),
    [
        *((change, "more was changed") for change in (_fp16, _graph, _golden, _more, _graph_as_engine)),
        (_outside, "does not name a file inside"),
        (_huge, "asks for 1,048,576 MiB"),
        (dict.clear, "is not valid"),
    ],
)
def test_a_manifest_that_changes_more_than_engines_is_refused(
    bundle, board, built, log, tmp_path, change: Change, what: str
) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    change(manifest)
    (built / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BoardError, match=r"what orin sent is not what was asked for.*" + what):
        export_on("orin", bundle.path, tmp_path / "out", (), log)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plan", [PLAN[:-1], PLAN[:-1] + b"?", PLAN + b"?", None])
def test_an_engine_that_is_not_the_listed_one_is_refused(bundle, board, built, log, tmp_path, plan) -> None:
    (built / "a.plan").unlink()
    if plan is not None:
        (built / "a.plan").write_bytes(plan)
    with pytest.raises(BoardError, match="what orin sent is not what was asked for"):
        export_on("orin", bundle.path, tmp_path / "out", (), log)
    assert not (tmp_path / "out").exists()


def _send(board: Board, bundle: Bundle, **changes: object) -> None:
    subject = bundle_subject(bundle).model_copy(update={"path": session.bundle_name(bundle), **changes})
    save_record(records.profile(subject=subject), board.folder / "profile.json")


def test_a_profile_names_the_bundle_of_the_desk(bundle, board, log) -> None:
    _send(board, bundle)
    found = profile_on("orin", [bundle.path], ["--batch=3"], None, log)
    assert isinstance(found, Profile)
    assert (found.subject.path, found.runs) == (str(bundle.path), records.profile().runs)
    name = session.bundle_name(bundle)
    [[*words, out, option]] = board.asked
    assert (words, option) == (["profile", name, "-o"], "--batch=3")
    assert fnmatch(out, session.RECORDS)


def test_engines_are_built_before_they_are_measured(bundle, board, built, log) -> None:
    _send(board, bundle, path=built.name)
    profile_on("orin", [bundle.path], (), ["--batch=1:8:8"], log)
    export, measure = board.asked
    assert export == ["export", session.bundle_name(bundle), "-o", built.name, "--trt", "--batch=1:8:8"]
    assert measure[:2] == ["profile", built.name]


def test_a_comparison_names_the_bundles_of_the_desk(bundle, board, log, tmp_path) -> None:
    bundles = [bundle, write_bundle(tmp_path / "fixed", (0.3,))]
    there = [bundle_subject(one).model_copy(update={"path": session.bundle_name(one)}) for one in bundles]
    save_record(records.comparison(subjects=tuple(there)), board.folder / "profile.json")
    found = profile_on("orin", [one.path for one in bundles], (), None, log)
    assert isinstance(found, Comparison)
    assert [subject.path for subject in found.subjects] == [str(one.path) for one in bundles]
    with pytest.raises(BoardError, match="no profile of this bundle"):
        profile_on("orin", [one.path for one in reversed(bundles)], (), None, log)


@pytest.mark.parametrize(
    "changes", [{"sha256": "f" * 64}, {"path": "another"}, {"precision": "fp16"}, {"mode": "fixed"}, {"density": 0.1}]
)
def test_a_profile_of_another_bundle_is_refused(bundle, board, log, changes) -> None:
    _send(board, bundle, **changes)
    with pytest.raises(BoardError, match="no profile of this bundle"):
        profile_on("orin", [bundle.path], (), None, log)


def test_a_file_that_is_no_record_is_refused(bundle, board, log) -> None:
    (board.folder / "profile.json").write_text("[]")
    with pytest.raises(BoardError, match="what orin sent is not what was asked for"):
        profile_on("orin", [bundle.path], (), None, log)


def test_nothing_but_the_bundles_files_is_sent(bundle, board, built, log, tmp_path) -> None:
    (bundle.path / "private.txt").symlink_to("/etc/passwd")
    export_on("orin", bundle.path, tmp_path / "out", (), log)
    sent = board.folder / session.bundle_name(bundle)
    assert {path.name for path in sent.iterdir()} == {*bundle.manifest.files, "manifest.json"}


def test_a_file_that_was_altered_here_is_not_sent(bundle, board, built, log, tmp_path) -> None:
    data = bytearray((bundle.path / "model.onnx").read_bytes())
    data[-1] ^= 1
    (bundle.path / "model.onnx").write_bytes(data)
    with pytest.raises(FloatsError, match="was altered"):
        export_on("orin", bundle.path, tmp_path / "out", (), log)
    assert not (board.folder / session.bundle_name(bundle)).exists()


@pytest.mark.parametrize(
    ("code", "told", "what", "fix"),
    [
        (1, "x\nError: one\nRemedy: a\nError: it fails\nRemedy: mend it", r"^on orin: it fails\n", "on orin: mend it"),
        (1, "Error: x: No space left on device\nRemedy: y", "the disk of orin is full", "rm -r"),
        (137, "Killed", r"ended by SIGKILL.* failed on orin with exit code 137: Killed", "ssh orin"),
        (255, "Error: old\nRemedy: old", "the connection to orin was lost", "is used again"),
        (2, "Usage: floats-edge", "exit code 2: Usage: floats-edge", "ssh orin"),
    ],
)
def test_a_failure_there_is_told_in_its_own_words(log, code, told, what, fix) -> None:
    from floats_edge.board.ssh import Board

    with pytest.raises(BoardError, match=what) as error:
        Session(Board("orin"), "package", (), log).fail(code, told)
    assert fix in error.value.fix


def test_a_log_without_end_is_shown_and_not_kept(log, monkeypatch) -> None:
    monkeypatch.setattr(session, "_LARGEST_LOG", 100)
    for _ in range(1000):
        log.add("a line")
    log.write()
    assert len(log.path.read_text()) < 100
