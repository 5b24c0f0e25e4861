"""What is refused when a stranger's files are read."""

import json
import os
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
    file_entry,
    pack_tensors,
    read_json,
    sha256,
)
from floats_edge.errors import ArtifactError


class TestFileName:
    names = TypeAdapter(FileName)

    @pytest.mark.parametrize("name", ["a", "a.b", "engines/a+b-0.5_1e-05.plan", "a..b", "a" * 255])
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
            "...",
            ".a",
            "a b",
            "Ä",
            "a" * 256,
            "..\\a",
            "a\0b",
            "a\nb",
            "\x1b[2J",
        ],
    )
    def test_refuses(self, name: str) -> None:
        with pytest.raises(ValidationError):
            self.names.validate_python(name)

    @settings(max_examples=200)
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
        assert caught.value.fix.endswith("do this")
        assert "\n" not in caught.value.what

    def test_missing_or_a_directory(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "no"):
            with pytest.raises(ArtifactError, match="cannot be read"):
                read_json(path, FileEntry, "do this")
