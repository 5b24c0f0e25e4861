"""Files, images of Pillow and arrays of one picture give the same pixels; what is none of these is named."""

from pathlib import Path

import numpy as np
import pytest
from fixtures.image_files import CLASSES, in_folder, write_splits
from PIL import Image

from floats_edge.data import load_test
from floats_edge.data.pictures import picture_batches
from floats_edge.errors import DataError
from floats_edge.images import ImageKind
from floats_edge.preprocessing import Preprocessing, ResolvedPreprocessing

RULE = Preprocessing.model_validate({"size": 12, "resize": "pad"}).resolved((3, 12, 12))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture that a camera held sideways took."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


def taken(pictures: object, rule: ResolvedPreprocessing = RULE, size: int = 128) -> np.ndarray:
    return np.concatenate(list(picture_batches(pictures, rule, size)))  # pyright: ignore[reportArgumentType]


def test_one_picture_in_every_form(photo: Path) -> None:
    upright = np.rot90(np.asarray(Image.open(photo)), -1)
    forms = taken([photo, str(photo), Image.open(photo), Image.fromarray(upright), upright])
    assert forms.shape == (5, 3, 12, 12)
    assert forms.dtype == np.float32
    assert (forms == forms[0]).all()
    assert 0 < forms.max() <= 1
    assert (forms[0, :, :, :2] == 0).all()  # it stands upright: the black is beside it


def test_images_of_pillow_have_the_rules_of_files(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
    deep = Image.fromarray(np.full((12, 12), 40_000, dtype=np.uint16))
    for image, wanted in ((clear, 255), (deep, 156), (Image.new("1", (12, 12), 1), 255)):
        image.save(tmp_path / "a.png")
        found = taken([image, tmp_path / "a.png"])
        assert (found * 255 == wanted).all(), image.mode


def test_data_sets_give_the_same(tmp_path: Path) -> None:
    folder = write_splits(tmp_path / "images")
    images = load_test(in_folder(folder), ImageKind(CLASSES, RULE))
    read = {image.tobytes() for image in taken(sorted((folder / "test").rglob("*.png")))}
    assert {image.tobytes() for image in images.as_float()} == read
    assert len(read) == 10


def test_batches(photo: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (5, 30, 20, 3), dtype=np.uint8)
    parts = [part.shape for part in picture_batches(frames, RULE, 2)]
    assert parts == [(2, 3, 12, 12), (2, 3, 12, 12), (1, 3, 12, 12)]
    np.testing.assert_array_equal(taken(frames, size=2), taken(list(frames)))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "there is no image in the list"),
        ("photo.jpg", "a list of images is wanted, not a single str"),
        (Path("photo.jpg"), "a list of images is wanted, not a single .*Path"),
        (Image.new("RGB", (8, 8)), "a list of images is wanted, not a single Image"),
        (np.zeros((8, 8, 3), dtype=np.uint8), "a list of images is wanted, not a single ndarray"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3))], r"^images\[1\]: an array of float64 \[8, 8, 3\] is not"),
        ([np.zeros((8, 8, 4), dtype=np.uint8)], r"^images\[0\]: an array of uint8 \[8, 8, 4\] is not"),
        ([None], r"^images\[0\]: it is a NoneType"),
        (["gone.jpg"], r"^gone\.jpg cannot be read: No such file or directory\."),
    ],
)
def test_what_is_no_list_of_images(pictures: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        taken(pictures)


def test_the_position_is_that_in_the_whole_list() -> None:
    good, bad = np.zeros((8, 8, 3), dtype=np.uint8), np.zeros((8, 8, 2), dtype=np.uint8)
    with pytest.raises(DataError, match=r"^images\[4\]: "):
        taken([good] * 4 + [bad], size=2)


def test_damaged_and_thin_files_are_named(photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"^{photo} cannot be read: .*truncated"):
        taken([photo])
    with pytest.raises(DataError, match=r"^images\[0\] cannot be read: .*truncated"):
        taken([Image.open(photo)])
    Image.new("L", (1, 60_000)).save(photo.with_name("thin.png"))
    large = Preprocessing.model_validate({"size": 2000}).resolved((3, 2000, 2000))
    with pytest.raises(
        DataError, match=rf"^{photo.with_name('thin.png')} cannot be read: it has 1x60000 pixels and is too"
    ):
        taken([photo.with_name("thin.png")], large)
