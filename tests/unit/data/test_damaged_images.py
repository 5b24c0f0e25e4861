"""Damaged images are named all at once, or left out and counted."""

from pathlib import Path

import numpy as np
import pytest
from fixtures.image_files import CLASSES, in_folder, write_splits
from PIL import Image

from floats_edge.data import Reading, Splits, load_data, load_test
from floats_edge.data_report import DataReport
from floats_edge.errors import DataError
from floats_edge.images import ImageKind, Images
from floats_edge.preprocessing import Preprocessing

SKIP = Reading(skip_damaged=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_splits(tmp_path / "images")


def spoil(*files: Path) -> None:
    for file in files:
        file.write_bytes(file.read_bytes()[:60])


def skipping(folder: Path) -> Splits:
    return load_data(in_folder(folder, validation=0.25), 3, None, None, SKIP)


def as_list(images: Images) -> list[bytes]:
    return [image.tobytes() for image in images.pixels]


def test_all_are_named_at_once(folder: Path) -> None:
    spoil(*(folder / "train" / name / f"{number:02}.png" for name in CLASSES for number in (3, 7)))
    with pytest.raises(DataError) as error:
        load_data(in_folder(folder), seed=0).train.as_float(slice(0, 1))
    assert error.value.what.startswith("4 of 20 images are damaged. ")
    for name in ("ant/03", "ant/07", "bee/03", "bee/07"):
        assert f"{folder}/train/{name}.png cannot be read: " in error.value.what
    assert "--skip-damaged" in error.value.fix


def test_many_are_counted(folder: Path) -> None:
    spoil(*(folder / "train").rglob("*.png"))
    with pytest.raises(DataError, match=r"^20 of 20 images are damaged\. .*; and 10 more\.\n"):
        load_data(in_folder(folder), seed=0)


def test_one_is_one_sentence(folder: Path) -> None:
    (folder / "test" / "ant" / "00.png").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"^/\S*00\.png cannot be read: it is no image of a format that is read\.\n"):
        load_test(in_folder(folder), ImageKind(CLASSES, Preprocessing().resolved((3, 8, 8))))


def test_skipped_ones_are_recorded_and_move_no_other(folder: Path) -> None:
    whole = load_data(in_folder(folder, validation=0.25), seed=3)
    before = {part: as_list(getattr(whole, part)) for part in ("train", "validation", "test")}
    files = [*sorted((folder / "train").rglob("0[0369].png")), folder / "test" / "ant" / "02.png"]
    gone = {np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() for file in files}
    spoil(*files)
    splits = skipping(folder)
    for part, images in before.items():
        assert as_list(getattr(splits, part)) == [image for image in images if image not in gone], part
    report = splits.report
    assert report is not None
    assert report.damaged == 9
    assert report.damaged_files[0].startswith("train/ant/00.png: ")
    assert report.damaged_files[-1].startswith("test/ant/02.png: ")
    assert (report.train, report.validation, report.test) == tuple(
        map(len, (splits.train, splits.validation, splits.test))
    )
    assert any(line.startswith("  left out: 9 (train/ant/00.png: ") for line in report.lines())


def test_skipped_test_images_are_those_of_the_splits(folder: Path) -> None:
    spoil(folder / "test" / "ant" / "00.png", folder / "test" / "bee" / "04.png")
    told: list[DataReport] = []
    alone = load_test(
        in_folder(folder), ImageKind(CLASSES, Preprocessing().resolved((3, 8, 8))), None, Reading(True, told.append)
    )
    assert as_list(alone) == as_list(skipping(folder).test)
    assert told[0].damaged == 2


def test_whole_images_are_left_as_they_are(folder: Path) -> None:
    splits, plain = skipping(folder), load_data(in_folder(folder, validation=0.25), seed=3)
    assert as_list(splits.train) == as_list(plain.train)
    assert splits.report == plain.report


def test_a_class_that_is_left_with_too_few_is_named(folder: Path) -> None:
    spoil(*(folder / "train" / "bee").glob("0[1-9].png"))
    with pytest.raises(DataError, match=r"too few images to split .*: bee \(1\)\."):
        skipping(folder)


def test_nothing_left(folder: Path) -> None:
    spoil(*(folder / "test").rglob("*.png"))
    with pytest.raises(DataError, match="10 of 10 images are damaged"):
        skipping(folder)


def test_sizes_that_differ_are_not_damage(folder: Path) -> None:
    Image.new("RGB", (9, 8)).save(folder / "train" / "ant" / "05.png")
    with pytest.raises(DataError, match=r"05\.png is 9x8 pixels"):
        skipping(folder).train.as_float()


class TestThin:
    """Images that could be read, but take too much memory while they are scaled to cover a square."""

    @pytest.fixture
    def thin(self, folder: Path) -> list[Path]:
        files = [folder / "train" / "ant" / "04.png", folder / "train" / "bee" / "08.png"]
        for file in files:
            Image.new("RGB", (1, 60_000)).save(file)
        return files

    def test_they_are_named_with_those_that_are_damaged(self, folder: Path, thin: list[Path]) -> None:
        spoil(folder / "train" / "ant" / "01.png")
        images = load_data(in_folder(folder, preprocessing={"size": 40}), seed=0).train
        with pytest.raises(DataError, match=r"^3 of 20 images are damaged\. ") as error:
            images.as_float()
        for file in thin:
            assert f"{file} cannot be read: it has 1x60000 pixels and is too thin: to scale it to " in error.value.what

    def test_they_are_left_out_and_recorded(self, folder: Path, thin: list[Path]) -> None:
        spoil(folder / "train" / "ant" / "01.png")
        splits = load_data(in_folder(folder, preprocessing={"size": 40}), 0, None, None, SKIP)
        assert splits.train.pixels.shape[1:] == (3, 40, 40)
        assert splits.report is not None
        assert (splits.report.damaged, len(splits.train) + len(splits.validation)) == (3, 17)
        told = "\n".join(splits.report.damaged_files)
        for file in thin:
            assert f"{file.relative_to(folder)}: it has 1x60000 pixels and is too thin" in told

    def test_they_are_read_where_they_need_not_cover_it(self, folder: Path, thin: list[Path]) -> None:
        assert thin
        splits = load_data(in_folder(folder, preprocessing={"size": 40, "resize": "pad"}), 0, None, None, SKIP)
        assert splits.report is not None
        assert splits.report.damaged == 0
