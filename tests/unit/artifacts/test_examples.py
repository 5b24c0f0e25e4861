import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from floats_edge.artifacts.examples import (
    Example,
    Examples,
    Pictures,
    pack_examples,
    picture_name,
    read_pictures,
)
from floats_edge.artifacts.files import file_entry
from floats_edge.errors import ArtifactError

SHOWN = [
    Example(lam=0, image=7, truth="cat", clean="cat", attacked="dog"),
    Example(lam=1, image=9, truth="dog", clean="cat", attacked="dog"),
]


def pictures(channels: int = 3) -> Pictures:
    return np.random.default_rng(0).integers(0, 256, (2, 2, channels, 8, 12), dtype=np.uint8)


@pytest.fixture
def kept(tmp_path: Path) -> Examples:
    examples, data = pack_examples(SHOWN, pictures(), "e-examples.png")
    (tmp_path / examples.file).write_bytes(data)
    return examples


def replaced(kept: Examples, folder: Path, data: bytes) -> Examples:
    """As if a stranger had written both the picture and the record."""
    (folder / kept.file).write_bytes(data)
    return kept.model_copy(update={"entry": file_entry(data)})


def encoded(size: tuple[int, int], mode: str = "RGB", kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_come_back_as_they_were(channels: int, tmp_path: Path) -> None:
    examples, data = pack_examples(SHOWN, pictures(channels), "e-examples.png")
    (tmp_path / examples.file).write_bytes(data)
    np.testing.assert_array_equal(read_pictures(examples, tmp_path), pictures(channels))
    assert Examples.model_validate_json(examples.model_dump_json()) == examples


def test_the_sheet_shows_clean_beside_attacked(kept: Examples, tmp_path: Path) -> None:
    sheet = np.asarray(Image.open(tmp_path / kept.file))
    assert sheet.shape == (16, 24, 3)
    np.testing.assert_array_equal(sheet[8:, 12:], pictures()[1, 1].transpose(1, 2, 0))


def test_a_missing_picture_is_none(kept: Examples, tmp_path: Path) -> None:
    (tmp_path / kept.file).unlink()
    assert read_pictures(kept, tmp_path) is None


def test_an_altered_picture_is_refused(kept: Examples, tmp_path: Path) -> None:
    data = bytearray((tmp_path / kept.file).read_bytes())
    data[-20] ^= 1
    (tmp_path / kept.file).write_bytes(data)
    with pytest.raises(ArtifactError, match="altered") as refusal:
        read_pictures(kept, tmp_path)
    assert "floats-edge evaluate" in refusal.value.fix


def test_a_link_out_of_the_folder_is_refused(kept: Examples, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / kept.file).symlink_to(tmp_path / kept.file)
    with pytest.raises(ArtifactError, match="leads out of its folder"):
        read_pictures(kept, folder)


@pytest.mark.parametrize(
    "data",
    [
        encoded((24, 17)),
        encoded((30_000, 8_000)),
        encoded((24, 16), "L"),
        encoded((24, 16), kind="BMP"),
        encoded((24, 16))[:-30],
        b"no picture",
    ],
    ids=["size", "huge", "grey", "bmp", "cut", "text"],
)
def test_what_is_no_png_of_the_stated_size_is_refused(data: bytes, kept: Examples, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no picture of these examples"):
        read_pictures(replaced(kept, tmp_path, data), tmp_path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"file": "../e.png"}, "file inside the folder"),
        ({"file": "/etc/passwd"}, "file inside the folder"),
        ({"height": 4096}, "height"),
        ({"channels": 4}, "channels"),
        ({"shown": ()}, "shown"),
        ({"shown": tuple(SHOWN * 13)}, "shown"),
        ({"entry": {"sha256": "0" * 64, "bytes": 10**6}}, "too many for 1152 values"),
    ],
)
def test_a_record_cannot_state_what_none_is(changes: dict, what: str, kept: Examples) -> None:
    with pytest.raises(ValidationError, match=what):
        Examples.model_validate(kept.model_dump() | changes)


def test_an_image_that_is_right_is_no_example() -> None:
    with pytest.raises(ValidationError, match="wrong, clean or attacked"):
        Example(lam=0, image=0, truth="cat", clean="cat", attacked="cat")


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ("evaluation.json", "evaluation-examples.png"),
        ("runs/my eval (2).json", "my-eval--2--examples.png"),
        (".hidden", "evaluation.hidden-examples.png"),
        ("ü.json", "evaluation--examples.png"),
    ],
)
def test_name_of_the_picture(record: str, name: str, kept: Examples) -> None:
    assert picture_name(Path(record)) == name
    Examples.model_validate(kept.model_dump() | {"file": name})
