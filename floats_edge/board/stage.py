"""Profiling on a board from the desk, and building engines there. What comes back is checked as a stranger's."""

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from floats_edge.artifacts.bundle import (
    LARGEST_MANIFEST,
    MANIFEST,
    Bundle,
    open_bundle,
    open_sound,
    staged_bundle,
)
from floats_edge.artifacts.files import read_json, write_atomic
from floats_edge.artifacts.manifest import Manifest
from floats_edge.artifacts.memory import check_bytes
from floats_edge.artifacts.records import LARGEST_RECORD, PROFILE, Comparison, Profile, bundle_subject, load_record
from floats_edge.board.session import RECORDS, Log, Session, open_session
from floats_edge.board.ssh import FOLDER
from floats_edge.errors import ArtifactError, BoardError

_AGAIN = "run the same command again"


def profile_on(
    host: str, paths: Sequence[Path], options: Sequence[str], build: Sequence[str] | None, log: Log
) -> Profile | Comparison:
    """Profile a bundle on a board, or compare several there.

    Args:
        host: as ssh knows the board.
        paths: the bundles.
        options: of ``floats-edge profile``.
        build: options of ``floats-edge export --trt``, with which the board first builds engines for itself; None: the
            engines that the bundles have.
        log: told what the board tells.

    Raises:
        ArtifactError: a path is no bundle, or a file of it is not what was exported.
        BoardError: the board cannot be reached or used, the command failed there, or what it sent is no such profile.
        KeyboardInterrupt: before anything was measured.
    """
    bundles = [open_bundle(path) for path in paths]
    with open_session(host, bundles, log) as session:
        names, commands = list(session.names), []
        if build is not None:
            names = [_built(name) for name in session.names]
            commands = [_export(name, build) for name in session.names]
        record = RECORDS.replace("*", secrets.token_hex(8))  # so that no earlier one is taken for it
        code, told = session.run([*commands, ["profile", *names, "-o", record, *options]])
        data = None if code == 255 else session.board.fetch(record, LARGEST_RECORD)
        if data is None:  # otherwise it ended early at most, and the record says so
            session.fail(code, told)
    return _checked_record(host, data, names, bundles)


def export_on(host: str, path: Path, out: Path, options: Sequence[str], log: Log) -> Bundle:
    """Let a board build engines of a bundle for itself, and write the bundle with them to ``out``.

    Only engines are taken from the board. All else must be as it was sent.

    Args:
        host: as ssh knows the board.
        path: the bundle; damaged engines of it are left out.
        out: where the bundle with the new engines goes; may be the same place.
        options: of ``floats-edge export --trt``.
        log: told what the board tells.

    Raises:
        ArtifactError: ``path`` is no bundle, or a file of it is not what was exported.
        BoardError: the board cannot be reached or used, the command failed there, or what it sent is not that bundle
            with engines.
        OutputError: ``out`` cannot be written or holds something else.
        KeyboardInterrupt: it was interrupted; what stood at ``out`` is untouched.
    """
    bundle = open_sound(path)
    with (
        staged_bundle(out, bundle.manifest.recipe, bundle.manifest.output.labels) as folder,
        open_session(host, [bundle], log) as session,
    ):
        [name] = session.names
        code, told = session.run([_export(name, options)])
        if code:
            session.fail(code, told)
        log.show("fetching the engines")
        with _sent_by(host):
            manifest = _fetched_manifest(session, folder, name, bundle.manifest)
            for file, entry in manifest.files.items():
                if bundle.manifest.files.get(file) == entry:
                    data = bundle.read(file)
                else:
                    check_bytes(entry.bytes, folder / file)
                    data = _fetched(session, f"{_built(name)}/{file}", entry.bytes)
                write_atomic(folder / file, data)
            open_bundle(folder).files.verify()
    return open_bundle(out)


def _built(name: str) -> str:
    """What a bundle on the board is called with its new engines."""
    return f"{name}-built"


def _export(name: str, options: Sequence[str]) -> list[str]:
    return ["export", name, "-o", _built(name), "--trt", *options]


@contextmanager
def _sent_by(host: str) -> Iterator[None]:
    """Tell what is wrong with what a board sent as the board's, not as that of a file here."""
    try:
        yield
    except ArtifactError as error:
        raise BoardError(
            f"what {host} sent is not what was asked for: {error.what}",
            fix="see that the board is yours and sound. What floats-edge keeps there can be made anew: "
            f"ssh {host} rm -r {FOLDER}, and run the same command again",
        ) from None


def _fetched(session: Session, name: str, largest: int) -> bytes:
    data = session.board.fetch(name, largest)
    if data is None:
        raise ArtifactError(f"there is no {name}.", fix=_AGAIN)
    return data


def _fetched_manifest(session: Session, folder: Path, name: str, sent: Manifest) -> Manifest:
    """The manifest of a bundle with new engines, written into ``folder``; in all else it must be the one that was sent.

    Raises:
        ArtifactError: it is not, or is not valid.
    """
    write_atomic(folder / MANIFEST, _fetched(session, f"{_built(name)}/{MANIFEST}", LARGEST_MANIFEST))
    manifest = read_json(folder / MANIFEST, Manifest, _AGAIN, LARGEST_MANIFEST)
    rest = {file: entry for file, entry in manifest.files.items() if file not in manifest.engine_files}
    given = {file: entry for file, entry in sent.files.items() if file not in sent.engine_files}
    without = manifest.model_copy(update={"files": sent.files, "engines": sent.engines})
    if rest != given or without != sent.without_verdict("trt"):  # that was on other engines
        raise ArtifactError("more was changed in the bundle than its engines.", fix=_AGAIN)
    return manifest


def _checked_record(host: str, data: bytes, names: Sequence[str], bundles: Sequence[Bundle]) -> Profile | Comparison:
    """A record that a board sent, which must be of these bundles; it then names them by their paths here."""
    with tempfile.TemporaryDirectory() as temporary, _sent_by(host):
        file = Path(temporary) / PROFILE
        file.write_bytes(data)
        record = load_record(file)
        here = tuple(bundle_subject(bundle) for bundle in bundles)
        there = tuple(s.model_copy(update={"path": name}) for s, name in zip(here, names, strict=True))
        if isinstance(record, Profile) and (record.subject,) == there:
            return record.model_copy(update={"subject": here[0]})
        if isinstance(record, Comparison) and record.subjects == there:
            return record.model_copy(update={"subjects": here})
        raise ArtifactError("it is no profile of this bundle.", fix=_AGAIN)
