"""A bundle on disk: written whole, read as if a stranger had made it."""

import logging
import math
import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from floats_edge.artifacts.checkpoint import is_run
from floats_edge.artifacts.files import (
    FileEntry,
    FileSet,
    Tensors,
    file_entry,
    foreign_file,
    read_json,
    staged_directory,
    write_atomic,
)
from floats_edge.artifacts.manifest import WEIGHTS_APART, Manifest, Verdict
from floats_edge.artifacts.memory import check_bytes
from floats_edge.errors import ArtifactError, OutputError
from floats_edge.recipe import Recipe, read_by_training

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 4 * 2**20
"""In bytes, as in C++."""
EXPORT_AGAIN = "export it again: floats-edge export CHECKPOINT -o DIR"
"""What mends a bundle that is not what was exported."""
_PER_WEIGHT = 64
"""Bytes of memory for each weight that is computed from affine ones: 42 to 51 were measured (tracemalloc, ResNet-8 and
WRN-16-8, all pruned), and drawing the noise of one very large layer takes more.
"""

log = logging.getLogger("floats_edge.bundle")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest is valid and every file it names is there, inside, and of the stated size."""

    path: Path
    manifest: Manifest = field(repr=False)

    @property
    def files(self) -> FileSet:
        """The files of the bundle; reading one checks its hash."""
        rebuild = f"rebuild its engines on the machine that runs them: {rebuild_command(self)}"
        return FileSet(self.path, self.manifest.files, EXPORT_AGAIN, dict.fromkeys(self.manifest.engine_files, rebuild))

    def read(self, name: str) -> bytes:
        """The bytes of one file, of the stated hash: see :meth:`FileSet.read`."""
        return self.files.read(name)

    def tensors(self, name: str) -> Tensors:
        """One safetensors file as NumPy arrays: see :meth:`FileSet.tensors`."""
        return self.files.tensors(name)


def rebuild_command(bundle: Bundle, batch: tuple[int, int, int] | None = None) -> str:
    """What builds the engines of a bundle again on this host, for ``batch`` or else as its first engine takes them."""
    path = shlex.quote(str(bundle.path))
    batch = batch or (bundle.manifest.engines[0].batch if bundle.manifest.engines else (1, 1, 1))
    sizes = "" if batch == (1, 1, 1) else f" --batch {':'.join(map(str, batch))}"
    return f"floats-edge export {path} -o {path} --trt{sizes}"


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is meant to be a bundle (it need not be a valid one)."""
    return (path / MANIFEST).exists()


def open_bundle(path: Path) -> Bundle:
    """Read and check a manifest and the presence of every file.

    Raises:
        ArtifactError: not a bundle, an invalid manifest, a file that is missing, resized or outside the bundle, or more
            memory asked for than is allowed.
    """
    bundle = Bundle(path, _read_manifest(path))
    bundle.files.check()
    check_bytes(_memory(bundle.manifest), path)
    return bundle


def open_sound(path: Path) -> Bundle:
    """Like :func:`open_bundle`, but leave out engines whose files are damaged: they are made anew, the rest is not.

    The log says what is left out.

    Raises:
        ArtifactError: not a bundle, an invalid manifest, or another file that is missing, resized or outside of it.
    """
    bundle = Bundle(path, _read_manifest(path))
    problems = {name: bundle.files.problem(name) for name in sorted(bundle.manifest.engine_files)}
    for problem in filter(None, problems.values()):
        log.warning("left out: %s", problem)
    sound = Bundle(path, bundle.manifest.without_files({name for name, problem in problems.items() if problem}))
    sound.files.check()
    check_bytes(_memory(sound.manifest), path)
    return sound


def _memory(manifest: Manifest) -> int:
    """Bytes for the files that every backend reads, and for the weights that are computed from them."""
    names = {graph.file for graph in manifest.graphs} | {manifest.golden.file}
    drawn = 0
    if manifest.lam.mode in WEIGHTS_APART and manifest.weights is not None:
        names.add(manifest.weights)
        drawn = sum(math.prod(layer.drawn or layer.shape) for layer in manifest.layers)
    return sum(manifest.files[name].bytes for name in names) + _PER_WEIGHT * drawn


def _read_manifest(path: Path) -> Manifest:
    if is_run(path) and not is_bundle(path):
        run = shlex.quote(str(path))
        raise ArtifactError(
            f"{path} is the folder of a training run, not a bundle.",
            fix=f"export it first: floats-edge export {run} -o BUNDLE",
        )
    if not is_bundle(path):
        raise ArtifactError(
            f"{path} holds no {MANIFEST}: it is no bundle." if path.exists() else f"there is no {path}.",
            fix="name a folder that floats-edge export wrote",
        )
    return _parse_manifest(path)


def _parse_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.resolve().is_relative_to(path.resolve()):
        raise ArtifactError(f"{file} leads out of its folder.", fix=EXPORT_AGAIN)
    return read_json(file, Manifest, EXPORT_AGAIN, LARGEST_MANIFEST)


def staged_bundle(path: Path, recipe: Recipe, labels: tuple[str, ...]) -> AbstractContextManager[Path]:
    """A directory to fill; ended well, and with a manifest written, it becomes the bundle at ``path``.

    Args:
        path: where the bundle goes.
        recipe: of the network; a bundle at ``path`` must be of one that was trained by the same choices.
        labels: its classes, of which the same holds.

    Raises:
        OutputError: the file system refuses, or ``path`` holds something that is not a bundle, or not of that network.
    """
    _check_replaceable(path, recipe, labels)
    return staged_directory(path, marker=MANIFEST)


def _check_replaceable(path: Path, recipe: Recipe, labels: tuple[str, ...]) -> None:
    """Refuse to replace another network, or a folder in which anything is not floats-edge's own."""
    if not is_bundle(path):
        return
    fix = f"choose another folder with --out, or move {path} away"
    try:
        manifest = _parse_manifest(path)
    except ArtifactError:
        raise OutputError(f"{path} holds a {MANIFEST} that is no bundle's: it is not replaced.", fix=fix) from None
    if labels != manifest.output.labels or read_by_training(recipe) != read_by_training(manifest.recipe):
        raise OutputError(
            f"{path} is the bundle of another network: {manifest.network}, of recipe {manifest.recipe.name} and "
            f"{len(manifest.output.labels)} classes.",
            fix=f"choose another folder with --out, or delete {path}",
        )
    foreign = foreign_file(path, {*manifest.files, MANIFEST})
    if foreign is not None:
        raise OutputError(f"{path} would be replaced, but holds {foreign}, which is not the bundle's.", fix=fix)


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Identity of every file below ``folder``, the manifest apart."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {file.relative_to(folder).as_posix(): file_entry(file.read_bytes()) for file in files}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, the last file of a bundle."""
    write_atomic(folder / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())


def keep_verdict(bundle: Bundle, verdict: Verdict) -> None:
    """Write a verdict on ``bundle`` into its manifest, in place of an earlier one on the same backend.

    Raises:
        ArtifactError: the bundle was replaced since it was opened, so that the verdict is on another.
        OutputError: the file system refuses.
    """
    now = open_bundle(bundle.path).manifest
    if now.files != bundle.manifest.files:
        raise ArtifactError(f"{bundle.path} was replaced while it was looked at.", fix="run floats-edge verify again")
    others = now.without_verdict(verdict.backend).verdicts
    write_manifest(bundle.path, now.model_copy(update={"verdicts": (*others, verdict)}))
