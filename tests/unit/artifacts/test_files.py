"""Files that appear whole or not at all, and what is refused when they are read."""

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from floats_edge.artifacts.files import (
    check_writable,
    staged_directory,
    write_atomic,
)
from floats_edge.errors import OutputError

MARKER = "marker.json"


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below ``folder``, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failing_with(error: BaseException) -> Callable[..., None]:
    def failing(*args: object) -> None:
        raise error

    return failing


class TestWriteAtomic:
    def test_creates_folders_and_leaves_one_file(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "a" / "b" / "file", b"new")
        assert tree(tmp_path) == {"a/b/file": b"new"}

    def test_replaces(self, tmp_path: Path) -> None:
        for data in (b"old", b"new"):
            write_atomic(tmp_path / "file", data)
        assert tree(tmp_path) == {"file": b"new"}

    @pytest.mark.parametrize("call", [(os, "fsync"), (Path, "replace")], ids=["write", "rename"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_full_or_failing_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[object, str], code: int
    ) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"old")
        with monkeypatch.context() as patch:
            patch.setattr(*call, failing_with(OSError(code, os.strerror(code))))
            with pytest.raises(OutputError, match=os.strerror(code)) as caught:
                write_atomic(file, b"new")
        assert str(file) in caught.value.what
        assert "untouched" in caught.value.what
        assert tree(tmp_path) == {"file": b"old"}

    def test_interrupted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_bytes(b"old")
        monkeypatch.setattr(os, "fsync", failing_with(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "file", b"new")
        assert tree(tmp_path) == {"file": b"old"}

    def test_below_a_regular_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(OutputError, match="could not be written"):
            write_atomic(tmp_path / "file" / "below", b"new")
        assert tree(tmp_path) == {"file": b"old"}

    def test_over_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(OutputError):
            write_atomic(tmp_path / "folder", b"new")
        assert tree(tmp_path) == {}
        assert (tmp_path / "folder").is_dir()

    @pytest.mark.parametrize("through_a_link", [False, True])
    @pytest.mark.parametrize("kind", ["pipe", "socket", "loop"])
    def test_over_what_is_no_regular_file(self, tmp_path: Path, kind: str, through_a_link: bool) -> None:
        """Nor over a device, which root alone could put here, and which root alone could so destroy."""
        special = tmp_path / "special"
        if kind == "pipe":
            os.mkfifo(special)
        elif kind == "socket":
            socket.socket(socket.AF_UNIX).bind(str(special))
        else:
            special.symlink_to(special)
        before = special.lstat()
        same = (before.st_ino, before.st_mode, before.st_mtime_ns)  # following a link may change when it was read
        path = tmp_path / "link" if through_a_link else special
        if through_a_link:
            path.symlink_to(special)
        for use in (lambda: write_atomic(path, b"new"), lambda: check_writable(path)):
            with pytest.raises(OutputError, match="no regular file"):
                use()
        after = special.lstat()
        assert (after.st_ino, after.st_mode, after.st_mtime_ns) == same
        assert {entry.name for entry in tmp_path.iterdir()} == {"special", path.name}

    @pytest.mark.parametrize("there", [True, False], ids=["there", "not yet there"])
    def test_a_link_leads_to_what_is_written(self, tmp_path: Path, there: bool) -> None:
        (tmp_path / "far").mkdir()
        target = tmp_path / "far" / "file"
        if there:
            target.write_bytes(b"old")
        (tmp_path / "link").symlink_to("far/file")
        check_writable(tmp_path / "link")
        write_atomic(tmp_path / "link", b"new")
        assert stat.S_ISLNK((tmp_path / "link").lstat().st_mode)
        assert target.read_bytes() == b"new"
        assert [entry.name for entry in target.parent.iterdir()] == ["file"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_where_writing_is_not_allowed(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o555)
        with pytest.raises(OutputError, match="Permission denied"):
            write_atomic(tmp_path / "file", b"new")
        tmp_path.chmod(0o755)
        assert tree(tmp_path) == {}


class TestStagedDirectory:
    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        """A directory of ours that stands there already."""
        path = tmp_path / "made"
        path.mkdir()
        (path / MARKER).write_text("old")
        (path / "stale").write_text("old")
        return path

    def test_appears_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "made"
        with staged_directory(path, MARKER) as folder:
            (folder / MARKER).write_text("new")
            assert not path.exists()
        assert tree(tmp_path) == {f"deep/made/{MARKER}": b"new"}
        assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["made"]

    def test_replaces_its_own_kind_whole(self, tmp_path: Path, old: Path) -> None:
        with staged_directory(old, MARKER) as folder:
            (folder / MARKER).write_text("new")
            assert tree(old) == {MARKER: b"old", "stale": b"old"}
        assert tree(tmp_path) == {f"made/{MARKER}": b"new"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["made"]

    def test_replaces_what_a_link_points_to(self, tmp_path: Path, old: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(old)
        with staged_directory(link, MARKER) as folder:
            (folder / MARKER).write_text("new")
        assert tree(old) == {MARKER: b"new"}
        assert link.resolve() == old
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "made"]

    def test_takes_an_empty_directory(self, tmp_path: Path) -> None:
        (tmp_path / "made").mkdir()
        with staged_directory(tmp_path / "made", MARKER) as folder:
            (folder / MARKER).write_text("new")
        assert tree(tmp_path) == {f"made/{MARKER}": b"new"}

    def test_refuses_a_foreign_directory(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
        with pytest.raises(OutputError, match=f"holds no {MARKER}"), staged_directory(tmp_path / "photos", MARKER):
            pytest.fail("it must be refused before anything is made")
        assert tree(tmp_path) == {"photos/cat.jpg": b"cat"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]

    def test_refuses_a_link_without_an_end(self, tmp_path: Path) -> None:
        (tmp_path / "made").symlink_to("made")
        with pytest.raises(OutputError), staged_directory(tmp_path / "made", MARKER):
            pytest.fail("it must be refused before anything is made")

    def test_refuses_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "made").write_bytes(b"file")
        with pytest.raises(OutputError), staged_directory(tmp_path / "made", MARKER):
            pytest.fail("it must be refused before anything is made")
        assert tree(tmp_path) == {"made": b"file"}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
    def test_failing_in_the_middle_leaves_the_old(self, tmp_path: Path, old: Path, error: type[BaseException]) -> None:
        def fill() -> None:
            with staged_directory(old, MARKER) as folder:
                (folder / MARKER).write_text("new")
                raise error

        with pytest.raises(error):
            fill()
        assert tree(tmp_path) == {f"made/{MARKER}": b"old", "made/stale": b"old"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["made"]

    @pytest.mark.parametrize("failing_call", [1, 2])
    def test_failing_while_it_takes_its_place_leaves_the_old(
        self, tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
    ) -> None:
        """Two renames: the old one away, the new one in."""
        rename, calls = Path.rename, []

        def failing(path: Path, target: Path) -> Path:
            calls.append(path)
            if len(calls) == failing_call:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(OutputError), staged_directory(old, MARKER) as folder:
            (folder / MARKER).write_text("new")
        assert tree(tmp_path) == {f"made/{MARKER}": b"old", "made/stale": b"old"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["made"]

    def test_below_a_regular_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(OutputError), staged_directory(tmp_path / "file" / "made", MARKER):
            pytest.fail("there is nowhere to stage")
        assert tree(tmp_path) == {"file": b"old"}
