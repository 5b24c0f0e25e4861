"""What every pack has: a folder that appears whole, a record of where it comes from, and lines for its README."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from floats_edge import __version__
from floats_edge.artifacts.bounds import MOST_BACKENDS, MOST_FILES, MOST_PROBLEMS, Name, Remark
from floats_edge.artifacts.bundle import MANIFEST, Bundle, file_entries
from floats_edge.artifacts.files import (
    FileEntry,
    FileName,
    foreign_file,
    read_json,
    sha256,
    staged_directory,
    write_atomic,
)
from floats_edge.artifacts.manifest import Mode, Precision, Verdict
from floats_edge.errors import ArtifactError, OutputError
from floats_edge.recipe import Section
from floats_edge.runtime.backends import check_verdict

RECORD = "pack.json"
README = "README.md"
Target = Literal["triton", "deepstream", "ros2"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


class PackRecord(Section):
    """``pack.json``: what was packed, and what was known of it."""

    kind: Literal["pack"] = "pack"
    schema_version: Literal[1] = 1
    floats_edge_version: Name
    target: Target
    network: Name = Field(description="for people")
    mode: Mode
    precision: Precision
    manifest_sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="of the bundle's manifest, which hashes the rest"
    )
    verdicts: tuple[Verdict, ...] = Field(max_length=MOST_BACKENDS, description="of floats-edge verify, on the bundle")
    let_pass: tuple[Remark, ...] = Field(max_length=MOST_PROBLEMS, description="what was wrong, and let pass")
    files: dict[FileName, FileEntry] = Field(max_length=MOST_FILES)


def check_packable(bundle: Bundle, target: str, modes: tuple[Mode, ...], backends: Iterable[str]) -> None:
    """Let a bundle pass that ``target`` can serve and that did not fail on what computes there.

    Raises:
        ArtifactError: its lambda mode is not one of ``modes``.
        ParityError: ``floats-edge verify`` found that it does not compute what it should.
    """
    manifest = bundle.manifest
    if manifest.lam.mode not in modes:
        any_lambda = ", or with --lambda runtime --switch input" if "input" in modes else ""
        raise ArtifactError(
            f"{target} cannot serve {bundle.path}: in mode {manifest.lam.mode} the program that runs the network "
            "changes its weights, or an input beside the image.",
            fix=f"floats-edge export {_source(bundle)} -o BANK --lambda 0 --lambda 0.5 --lambda 1{any_lambda}; "
            "then pack that",
        )
    for backend in backends:
        check_verdict(bundle, backend)


def _source(bundle: Bundle) -> str:
    """What a bundle for fixed lambdas can be exported from: see :func:`floats_edge.deploy.source.from_bundle`.

    Its logits are compared on images, and no bundle keeps where a folder of them is.
    """
    manifest, data = bundle.manifest, bundle.manifest.recipe.data
    images = " --data-dir IMAGES" if data.dataset == "folder" and data.root is None else ""
    if manifest.weights is not None and manifest.precision == "fp32":
        return f"{shlex.quote(str(bundle.path))}{images}"
    return f"CHECKPOINT --precision {manifest.precision}{images}"


def model_name(bundle: Bundle, name: str | None) -> str:
    """``name``, or that of the bundle's folder, as a name that needs no quotes anywhere.

    Raises:
        OutputError: ``name`` needs them.
    """
    usable = _NOT_IN_NAMES.sub("-", name or bundle.path.resolve().name).strip("-._") or "classifier"
    if name is not None and usable != name:
        raise OutputError(
            f"{name!r} cannot name a model: it has other signs than letters, digits, '-', '_' and '.'.",
            fix=f"--name {usable}",
        )
    return usable


def write_pack(bundle: Bundle, out: Path, target: Target, files: Iterator[tuple[str, bytes]]) -> PackRecord:
    """Write ``files`` (path below the pack, and bytes) and a record as the folder ``out``.

    Raises:
        OutputError: the file system refuses, or ``out`` holds something that is not a pack.
        ArtifactError: a file of the bundle is not what was exported.
    """
    _check_replaceable(out)
    with staged_directory(out, marker=RECORD) as folder:
        for name, data in files:
            write_atomic(folder / name, data)
        manifest = bundle.manifest
        record = PackRecord(
            floats_edge_version=__version__,
            target=target,
            network=manifest.network,
            mode=manifest.lam.mode,
            precision=manifest.precision,
            manifest_sha256=manifest_sha256(bundle),
            verdicts=manifest.verdicts,
            let_pass=manifest.let_pass,
            files=file_entries(folder),
        )
        write_atomic(folder / RECORD, (record.model_dump_json(indent=2) + "\n").encode())
    return record


def _check_replaceable(out: Path) -> None:
    """Refuse to replace a folder in which anything is not of an earlier pack."""
    if not (out / RECORD).exists():
        return
    fix = f"choose another folder with --out, or move {out} away"
    try:
        listed = read_json(out / RECORD, PackRecord, fix).files
    except ArtifactError:
        raise OutputError(f"{out} holds a {RECORD} that is no pack's: it is not replaced.", fix=fix) from None
    foreign = foreign_file(out, {*listed, RECORD})
    if foreign is not None:
        raise OutputError(f"{out} would be replaced, but holds {foreign}, which is not the pack's.", fix=fix)


def manifest_sha256(bundle: Bundle) -> str:
    """Names a bundle: its manifest holds the hash of every other file."""
    return sha256((bundle.path / MANIFEST).read_bytes())


def provenance(bundle: Bundle) -> str:
    """Lines of Markdown that every README ends with: which network this is, and what was found out about it."""
    manifest = bundle.manifest
    lines = [
        f"- network: {manifest.network}, {manifest.precision}, mode {manifest.lam.mode}",
        f"- images: {manifest.input.preprocessing.title}",
        f"- bundle: the sha256 of its manifest is {manifest_sha256(bundle)}",
        f"- packed by floats-edge {__version__}",
        *(f"- let pass with --allow-mismatch: {problem}" for problem in manifest.let_pass),
    ]
    for verdict in manifest.verdicts:
        found = "did not pass" if verdict.problems else "passed"
        lines.append(
            f"- `floats-edge verify` {found} on {verdict.backend} ({verdict.library}, {verdict.images} images)"
        )
    if not manifest.verdicts:
        lines.append("- `floats-edge verify` was not run on this bundle")
    return "\n".join(("## Where it comes from", "", *lines, ""))
