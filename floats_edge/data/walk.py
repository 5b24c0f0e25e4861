"""What lies in a folder of one class: images, and files that are passed over, each with a reason."""

import os
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from floats_edge.errors import DataError

_READ = (
    "jpg jpeg jpe jfif mpo png apng webp bmp dib tif tiff gif ppm pgm pbm pnm jp2 j2k jpx avif avifs qoi tga ico pcx"
)
SUFFIXES = frozenset("." + word for word in _READ.split())
"""Files called so are images, in lower or upper case; whether they really are shows when they are read."""
_OTHERS = "heic heif hif raw cr2 cr3 nef arw dng orf rw2 raf svg psd exr hdr dcm eps jxl xcf"
_UNREAD = frozenset("." + word for word in _OTHERS.split())
_BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"qoif"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)
_LITTER = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "@eadir"))

LITTER = "hidden files and those that systems leave behind"
SPECIAL = "pipes, devices or links to nothing"
UNREAD = "images in a format that is not read: convert them, to PNG for one"
OTHER = "files that are no images"
LOOP = "links to a folder that holds them, or that was read already"

Reasoned = tuple[str, Path]
"""Why something is passed over, and what."""


@dataclass(frozen=True)
class Walked:
    """The images below a folder, sorted by their paths, and what is passed over."""

    images: tuple[Path, ...]
    passed_over: tuple[Reasoned, ...]


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read: {error.strerror}.", fix="make it readable, or remove it"
        ) from None


def visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted, but for what is hidden or there for the system's sake."""
    return [path for path in entries(folder) if not is_litter(path.name)]


def is_text(name: str) -> bool:
    """Whether a name is text in one line, as not every name of a file is."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def is_litter(name: str) -> bool:
    """Whether something of that name is there for the system's sake: hidden, or the likes of Thumbs.db."""
    return name.startswith(".") or name.casefold() in _LITTER


def images_below(folder: Path) -> Walked:
    """All images in ``folder`` and the folders in it; links are followed, but not upwards, and no folder is read twice.

    Raises:
        DataError: a folder cannot be read.
    """
    images: list[Path] = []
    passed_over: list[Reasoned] = []
    seen = {_identity(above) for above in folder.resolve().parents}
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if _identity(place) in seen:
            passed_over.append((LOOP, place))
            continue
        seen.add(_identity(place))
        folders: list[Path] = []
        for path in entries(place):
            reason = why_passed_over(path)
            if reason is not None:
                passed_over.append((reason, path))
            elif path.is_dir():
                folders.append(path)
            else:
                images.append(path)
        waiting += sorted(folders, key=lambda path: (path.is_symlink(), path), reverse=True)  # the last is next
    return Walked(tuple(sorted(images)), tuple(passed_over))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def why_passed_over(path: Path) -> str | None:
    """The reason for which a file is not read; None: it is an image, or a folder."""
    if is_litter(path.name):
        return LITTER
    suffix = path.suffix.lower()
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to nothing, or to itself: an image is missed when it is to be read
        return None if suffix in SUFFIXES else SPECIAL
    if stat.S_ISDIR(mode):
        return None
    if not stat.S_ISREG(mode):
        return SPECIAL
    if suffix in SUFFIXES:
        return None
    if suffix in _UNREAD:
        return UNREAD
    return None if _begins_like_an_image(path) else OTHER


def _begins_like_an_image(path: Path) -> bool:
    """Whether the first bytes are those of a format that is read; nothing else of the file is looked at."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        return False
    if head[:2] == b"BM":
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)  # bytes of its second header
    if head[:1] == b"P" and head[1:2] in b"123456":
        return head[2:3] in b" \t\r\n" and head[3:4] in b"0123456789#"
    return (
        head.startswith(_BEGINNINGS)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"))
    )


def relative_name(path: Path, root: Path) -> str:
    """``path`` as people say it who know ``root``."""
    return os.path.relpath(path, root)
