"""Files that appear whole or not at all, and what is refused when they are read."""

import errno
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from floats_edge.artifacts.files import (
    FileEntry,
    FileName,
    FileSet,
    check_writable,
    file_entry,
    pack_tensors,
    read_json,
    sha256,
    staged_directory,
    write_atomic,
)
from floats_edge.errors import ArtifactError, OutputError

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
        path = tmp_path / "link" if through_a_link else special
        if through_a_link:
            path.symlink_to(special)
        for use in (lambda: write_atomic(path, b"new"), lambda: check_writable(path)):
            with pytest.raises(OutputError, match="no regular file"):
                use()
        assert special.lstat() == before
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


class TestFileName:
    names = TypeAdapter(FileName)

    @pytest.mark.parametrize("name", ["a", "a.b", "engines/a.plan", "...", "a..b", "Ä"])
    def test_accepts(self, name: str) -> None:
        assert self.names.validate_python(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "/a",
            "//a",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "..\\a",
            "a\0b",
            "a\nb",
            "\x1b[2J",
        ],
    )
    def test_refuses(self, name: str) -> None:
        with pytest.raises(ValidationError):
            self.names.validate_python(name)

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="a./\\", max_size=8))
    def test_what_is_accepted_stays_inside(self, name: str) -> None:
        try:
            self.names.validate_python(name)
        except ValidationError:
            return
        assert os.path.normpath(f"/root/{name}") == f"/root/{name}" != "/root"


class TestFileSet:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "artifact"
        folder.mkdir()
        (folder / "file").write_bytes(b"content")
        (tmp_path / "outside").write_bytes(b"content")
        return folder

    @staticmethod
    def files(folder: Path, name: str = "file", data: bytes = b"content") -> FileSet:
        return FileSet(folder, {name: file_entry(data)}, "do this")

    def test_whole(self, folder: Path) -> None:
        files = self.files(folder)
        files.check()
        assert files.read("file") == b"content"

    def test_entry_is_the_sha256_and_the_size(self) -> None:
        """Of the empty file and of 'abc', as published (FIPS 180-4)."""
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert file_entry(b"") == FileEntry(sha256=empty, bytes=0)
        assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    def test_missing(self, folder: Path) -> None:
        (folder / "file").unlink()
        with pytest.raises(ArtifactError, match="is missing") as caught:
            self.files(folder).check()
        assert caught.value.fix == "do this"

    @pytest.mark.parametrize("data", [b"", b"conten", b"contents"])
    def test_of_another_size(self, folder: Path, data: bytes) -> None:
        (folder / "file").write_bytes(data)
        with pytest.raises(ArtifactError, match="truncated or altered"):
            self.files(folder).check()

    def test_altered(self, folder: Path) -> None:
        (folder / "file").write_bytes(b"Content")
        self.files(folder).check()
        for use in (self.files(folder).verify, lambda: self.files(folder).read("file")):
            with pytest.raises(ArtifactError, match="was altered"):
                use()

    def test_grown_since_it_was_checked(self, folder: Path) -> None:
        """No more is read than it takes to see it: a sparse file may be larger than any memory."""
        files = self.files(folder)
        files.check()
        os.truncate(folder / "file", 2**40)
        with pytest.raises(ArtifactError, match="was altered"):
            files.read("file")

    def test_a_directory_in_its_place(self, folder: Path) -> None:
        (folder / "file").unlink()
        (folder / "file").mkdir()
        with pytest.raises(ArtifactError):
            self.files(folder).check()
        with pytest.raises(ArtifactError):
            self.files(folder).read("file")

    @pytest.mark.parametrize("target", ["../outside", "loop"])
    def test_a_link_that_leads_out_or_nowhere(self, folder: Path, target: str) -> None:
        (folder / "file").unlink()
        (folder / "file").symlink_to("file" if target == "loop" else target)
        with pytest.raises(ArtifactError):
            self.files(folder).check()

    def test_a_link_that_stays_inside(self, folder: Path) -> None:
        (folder / "link").symlink_to("file")
        self.files(folder, "link").check()

    def test_a_name_longer_than_any_file(self, folder: Path) -> None:
        with pytest.raises(ArtifactError, match="File name too long"):
            self.files(folder, "a" * 1000).check()


def safetensors_of(dtype: str, shape: list[int], size: int) -> bytes:
    """A file whose header says what no writer of ours says, of ``size`` bytes of data."""
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


class TestTensors:
    def test_round_trip(self, tmp_path: Path) -> None:
        """Of every memory layout and type that the artifacts hold; a scalar stays one."""
        rng = np.random.default_rng(0)
        tensors = {
            "scalar": np.float32(0.25).reshape(()),
            "mask": rng.random((3, 5)) < 0.5,
            "half": rng.random(7).astype(np.float16),
            "channels_last": rng.random((2, 5, 5, 3), dtype=np.float32).transpose(0, 3, 1, 2),
            "strided": rng.random((6, 6), dtype=np.float32)[::2, ::3],
        }
        data = pack_tensors(tensors)
        (tmp_path / "t").write_bytes(data)
        read = FileSet(tmp_path, {"t": file_entry(data)}, "").tensors("t")
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype
            assert read[name].shape == tensor.shape
            np.testing.assert_array_equal(read[name], tensor)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"garbage",
            b"\xff" * 64,
            pack_tensors({"a": np.ones(9)})[:-8],
            safetensors_of("BF16", [2], 4),
            safetensors_of("F8_E4M3", [4], 4),
            safetensors_of("F32", [0, 2**62], 0),
            safetensors_of("F32", [2**62, 2**62], 4),
            safetensors_of("F32", [1] * 100, 4),
        ],
    )
    def test_not_safetensors(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "t").write_bytes(data)
        with pytest.raises(ArtifactError, match="not valid safetensors"):
            FileSet(tmp_path, {"t": file_entry(data)}, "").tensors("t")


class TestReadJson:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b"[]",
            b"null",
            b"{}",
            b'{"sha256": "zz", "bytes": 1}',
            b'{"sha256": "%s", "bytes": -1}' % (b"0" * 64),
            b'{"sha256": "%s", "bytes": NaN}' % (b"0" * 64),
            b'{"sha256": "%s", "bytes": 1, "more": 1}' % (b"0" * 64),
            b"[" * 100_000,
        ],
    )
    def test_invalid(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "file.json"
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match="is not valid") as caught:
            read_json(file, FileEntry, "do this")
        assert str(file) in caught.value.what
        assert caught.value.fix == "do this"
        assert "\n" not in caught.value.what

    def test_missing_or_a_directory(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "no"):
            with pytest.raises(ArtifactError, match="cannot be read"):
                read_json(path, FileEntry, "do this")
