"""A bundle on disk: written whole, read as if a stranger had made it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError

from floats_edge.artifacts.files import sha256, staged_directory, write_atomic, writing
from floats_edge.artifacts.manifest import FileEntry, Manifest
from floats_edge.errors import ArtifactError

MANIFEST = "manifest.json"
_REEXPORT = "export it again: floats-edge export CHECKPOINT -o DIR"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest is valid and every file it names is there, inside, and of the stated size."""

    path: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked against the manifest before anyone deserialises them.

        Raises:
            ArtifactError: the bytes are not those that were exported.
        """
        data = (self.path / name).read_bytes()
        if sha256(data) != self.manifest.files[name].sha256:
            raise ArtifactError(
                f"{self.path / name} is not the file that was exported (sha256 differs).", fix=_REEXPORT
            )
        return data

    def tensors(self, name: str) -> dict[str, NDArray[np.generic]]:
        """One safetensors file as NumPy arrays.

        Raises:
            ArtifactError: the file is not what was exported, or not safetensors.
        """
        try:
            return safetensors.numpy.load(self.read(name))
        except SafetensorError as error:
            raise ArtifactError(f"{self.path / name} is not valid safetensors: {error}.", fix=_REEXPORT) from None

    def verify(self) -> None:
        """Check the hash of every file.

        Raises:
            ArtifactError: naming the first file that differs.
        """
        for name in self.manifest.files:
            self.read(name)


def is_bundle(path: Path) -> bool:
    """Whether ``path`` looks like a bundle (it need not be a valid one)."""
    return (path / MANIFEST).exists()


def open_bundle(path: Path) -> Bundle:
    """Read and check a manifest and the presence of every file.

    Raises:
        ArtifactError: not a bundle, an invalid manifest, or a file that is missing, resized or outside the bundle.
    """
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} is not a bundle: {MANIFEST}: {error.strerror}.", fix=_REEXPORT) from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or MANIFEST
        raise ArtifactError(f"{path / MANIFEST} is not valid: {where}: {problem['msg']}.", fix=_REEXPORT) from None
    root = path.resolve()
    for name, entry in manifest.files.items():
        file = path / name
        if not file.resolve().is_relative_to(root):
            raise ArtifactError(f"{file} leads out of the bundle.", fix=_REEXPORT)
        if not file.is_file():
            raise ArtifactError(f"{file} is missing from the bundle.", fix=_REEXPORT)
        if file.stat().st_size != entry.bytes:
            raise ArtifactError(f"{file} is not the file that was exported (its size differs).", fix=_REEXPORT)
    return Bundle(path, manifest)


@contextmanager
def staged_bundle(path: Path) -> Iterator[Path]:
    """A directory to fill; it becomes the bundle at ``path`` once :func:`write_manifest` was called and the block ends.

    Raises:
        OutputError: the file system refuses, or ``path`` holds something that is not a bundle.
    """
    with staged_directory(path, marker=MANIFEST) as staging:
        yield staging


def save_tensors(path: Path, tensors: dict[str, NDArray[np.generic]]) -> None:
    """Write NumPy arrays as safetensors.

    Raises:
        OutputError: the file system refuses.
    """
    write_atomic(path, safetensors.numpy.save({name: np.ascontiguousarray(t) for name, t in tensors.items()}))


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Identity of every file below ``folder``, the manifest apart."""
    entries: dict[str, FileEntry] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        data = file.read_bytes()
        entries[file.relative_to(folder).as_posix()] = FileEntry(sha256=sha256(data), bytes=len(data))
    return entries


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, the last file of a bundle."""
    with writing(folder):
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
