"""What a board is sent of floats-edge: the files that a wheel of it would hold, and the names of what they need."""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import floats_edge
from floats_edge.artifacts.files import sha256
from floats_edge.errors import BoardError

FROM_CHECKOUT = {"recipes": "recipes", "export/schema/graph.json": "runtime/graph.json"}
"""What a wheel has inside the package and a checkout has beside it: there, and here."""


def package_files(package: Path = Path(floats_edge.__file__).parent) -> dict[str, bytes]:
    """The files of a floats-edge, by their path below its package's folder."""
    found = _files(package)
    for origin, target in FROM_CHECKOUT.items():
        place = package.parent / origin
        if not any(name == target or name.startswith(f"{target}/") for name in found):
            more = {target: place.read_bytes()} if place.is_file() else _files(place)
            found |= {name if name == target else f"{target}/{name}": data for name, data in more.items()}
    return found


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_package(folder: Path) -> str:
    """Write ``floats_edge`` into ``folder``; returns what tells it from any other floats-edge."""
    files = package_files()
    for name, data in files.items():
        file = folder / "floats_edge" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return sha256("".join(f"{name} {sha256(data)}\n" for name, data in files.items()).encode())[:16]


def requirements(extra: str = "") -> list[str]:
    """What pip installs for floats-edge itself, or for one of its extras.

    Raises:
        BoardError: this floats-edge is not installed, so that nothing says what it needs.
    """
    try:
        texts = metadata.requires("floats-edge") or []
    except metadata.PackageNotFoundError:
        raise BoardError(
            "this floats-edge is not installed, so what a board needs is not known.",
            fix="pip install -e . in its folder",
        ) from None
    here = [one for one in map(Requirement, texts) if _applies(one, extra) and not (extra and _applies(one, ""))]
    return [f"{one.name}{one.specifier}" for one in here]


def _applies(one: Requirement, extra: str) -> bool:
    return one.marker is None or one.marker.evaluate({"extra": extra})
