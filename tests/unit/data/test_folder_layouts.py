"""Folders of images as people have them: what is read as what, and that nothing is left out unsaid."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures.image_files import CLASSES, in_folder, write_classes, write_image, write_splits
from PIL import Image

from floats_edge.data import Reading, Splits, load_data, load_test
from floats_edge.data_report import DataReport
from floats_edge.errors import DataError
from floats_edge.images import ImageKind, Images
from floats_edge.preprocessing import Preprocessing


def contents(images: Images) -> set[bytes]:
    return {image.tobytes() for image in images.pixels}


def stored(*folders: Path) -> set[bytes]:
    files = [file for folder in folders for file in folder.rglob("*.png")]
    return {np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() for file in files}


def report(splits: Splits) -> DataReport:
    assert splits.report is not None
    return splits.report


def passed_over(splits: Splits) -> dict[str, int]:
    return {group.reason: group.files for group in report(splits).passed_over}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_splits(tmp_path / "images")


class TestSplitFolders:
    @pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "valid", "VALIDATION"])
    @pytest.mark.parametrize("train", ["train", "Training"])
    def test_names(self, train: str, test: str, folder: Path) -> None:
        (folder / "train").rename(folder / train)
        (folder / "test").rename(folder / test)
        splits = load_data(in_folder(folder), seed=0)
        assert contents(splits.test) == stored(folder / test)
        assert contents(splits.train) | contents(splits.validation) == stored(folder / train)
        found = report(splits)
        assert (found.train, found.validation, found.test, found.classes) == (18, 2, 10, 2)
        assert found.layout == f"{train}/ and {test}/"
        assert found.passed_over == ()

    def test_test_is_taken_before_val_and_that_is_said(self, folder: Path) -> None:
        write_classes(folder / "val", 3)
        (folder / "raw").mkdir()
        (folder / "README.md").write_text("about")
        write_image(folder / "preview.png")
        splits = load_data(in_folder(folder), seed=0)
        assert contents(splits.test) == stored(folder / "test")
        assert passed_over(splits) == {
            "images of val, as test/ is tested on": 6,
            "folders beside those that are read": 1,
            "images in no class folder": 1,
            "files that are no images": 1,
        }

    def test_the_order_is_that_of_earlier_versions(self, folder: Path) -> None:
        """As train/ and test/ of PNG files were split before any other layout was read."""
        splits = load_data(in_folder(folder, validation=0.25), seed=3)
        names = {
            np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes(): f"{file.parent.name[0]}{int(file.stem)}"
            for file in folder.rglob("*.png")
        }
        found = [" ".join(names[image.tobytes()] for image in part.pixels) for part in (splits.validation, splits.test)]
        assert found == ["a6 b3 a1 b8 b1", "a0 a2 b4 a1 b3 b0 a4 a3 b1 b2"]

    def test_images_in_folders_in_a_class(self, folder: Path) -> None:
        write_image(folder / "train" / "ant" / "day 1" / "left" / "0.png", 1)
        write_image(folder / "test" / "bee" / "images" / "0.png", 2)
        splits = load_data(in_folder(folder), seed=0)
        assert (len(splits.train) + len(splits.validation), len(splits.test)) == (21, 11)
        assert contents(splits.test) == stored(folder / "test")

    def test_a_class_of_webp_is_read_as_any_other(self, folder: Path) -> None:
        for number in range(30):
            write_image(folder / "train" / "ant" / f"{number}.webp", number)
        splits = load_data(in_folder(folder), seed=0)
        assert len(splits.train) + len(splits.validation) == 50

    def test_grey_and_colour_may_be_mixed(self, folder: Path) -> None:
        Image.new("L", (8, 8), 7).save(folder / "train" / "ant" / "00.png")
        assert load_data(in_folder(folder), seed=0).train.shape == (3, 8, 8)

    def test_names_of_classes_in_any_script(self, tmp_path: Path) -> None:
        names = ("Ω", "été", "क्‍ष", "with space", "猫")
        for split in ("train", "test"):
            write_classes(tmp_path / split, 4, names)
        assert load_data(in_folder(tmp_path), seed=0).labels == tuple(sorted(names))

    def test_a_name_that_is_no_text(self, folder: Path) -> None:
        (folder / "train" / "ant").rename(folder / "train" / os.fsdecode(b"\xff\xfe"))
        with pytest.raises(DataError, match=r"\\udcff\\udcfe is no text"):
            load_data(in_folder(folder), seed=0)

    def test_a_file_whose_name_is_no_text(self, folder: Path) -> None:
        (folder / "train" / "ant" / "00.png").rename(folder / "train" / "ant" / os.fsdecode(b"\xff.png"))
        (folder / "train" / "bee" / os.fsdecode(b"\xff.txt")).write_text("")
        splits = load_data(in_folder(folder), seed=0)
        assert len(splits.train.pixels) == 18
        assert DataReport.model_validate_json(report(splits).model_dump_json()) == report(splits)

    def test_classes_that_differ_are_named(self, folder: Path) -> None:
        write_classes(folder / "test", 2, ("cat", "dog"))
        with pytest.raises(DataError, match="does not: cat, dog"):
            load_data(in_folder(folder), seed=0)

    def test_a_class_without_test_images_is_said(self, folder: Path) -> None:
        shutil.rmtree(folder / "test" / "ant")
        assert report(load_data(in_folder(folder), seed=0)).remarks == ("no test image is of class ant",)

    def test_a_class_of_one_image_is_named(self, folder: Path) -> None:
        write_classes(folder / "train", 1, ("wasp",))
        write_classes(folder / "train", 2, ("fly",))
        with pytest.raises(DataError, match=r"too few images to split .* 1 of 4 classes .*: wasp \(1\)\."):
            load_data(in_folder(folder), seed=0)
        write_classes(folder / "test", 1, ("wasp", "fly"))
        kind = ImageKind(("ant", "bee", "fly", "wasp"), Preprocessing().resolved((3, 8, 8)))
        assert len(load_test(in_folder(folder), kind)) == 12  # who only tests splits nothing

    def test_a_folder_around_a_folder(self, folder: Path) -> None:
        with pytest.raises(DataError, match="one class only: images") as error:
            load_data(in_folder(folder.parent), seed=0)
        assert "point at it" in error.value.fix

    def test_an_archive_is_no_folder(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w"):
            pass
        with pytest.raises(DataError, match="neither a folder nor a list"):
            load_data(in_folder(tmp_path / "a.zip"), seed=0)


class TestPassedOver:
    def test_everything_else_is_counted(self, folder: Path) -> None:
        ant = folder / "train" / "ant"
        for litter in (".DS_Store", "._00.png", "Thumbs.db", "desktop.ini"):
            (ant / litter).write_bytes(b"")
        write_image(folder / "train" / "__MACOSX" / "ant" / "00.png")
        write_image(ant / ".thumbnails" / "00.png")
        (ant / "notes.txt").write_text("BMW and P5 are no images, nor is GIF")
        (ant / "boxes.json").write_text("{}")
        (ant / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
        write_image(folder / "train" / "loose.png")
        os.mkfifo(ant / "pipe.jpg")
        (ant / "null.jpg").symlink_to("/dev/null")
        splits = load_data(in_folder(folder), seed=0)
        assert len(splits.train) + len(splits.validation) == 20
        assert passed_over(splits) == {
            "hidden files and those that systems leave behind": 6,
            "files that are no images": 2,
            "images in a format that is not read: convert them, to PNG for one": 1,
            "images in no class folder": 1,
            "pipes, devices or links to nothing": 2,
        }
        text = "\n".join(report(splits).lines())
        assert "Images: 18 to train on, 2 to validate, 10 to test; 2 classes; from train/ and test/" in text
        assert "passed over: files that are no images: 2 (train/ant/boxes.json; train/ant/notes.txt)" in text

    def test_content_tells_images_of_other_names(self, folder: Path) -> None:
        ant = folder / "train" / "ant"
        for number, kind in enumerate(("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(ant / f"{kind}.{kind}")
            (ant / f"{kind}.{kind}").rename(ant / (f"{kind}_original" if number % 2 else f"{kind}.jpg.download"))
        splits = load_data(in_folder(folder), seed=0)
        assert len(splits.train.pixels) + len(splits.validation.pixels) == 27
        assert passed_over(splits) == {}

    def test_links_are_followed_but_no_folder_is_read_twice(self, folder: Path, tmp_path: Path) -> None:
        elsewhere = write_classes(tmp_path / "elsewhere", 4)
        ant = folder / "train" / "ant"
        (ant / "more").symlink_to(elsewhere / "ant")
        (ant / "single.png").symlink_to(elsewhere / "bee" / "00.png")
        (ant / "again").symlink_to(elsewhere / "ant")
        (ant / "up").symlink_to("..")
        for number in range(12):  # each of them leads to all others
            (folder / "train" / "bee" / "web" / str(number)).mkdir(parents=True)
            for other in range(12):
                (folder / "train" / "bee" / "web" / str(number) / f"to {other}").symlink_to(f"../{other}")
        splits = load_data(in_folder(folder), seed=0)
        assert len(splits.train) + len(splits.validation) == 20 + 4 + 1
        assert passed_over(splits) == {"links to a folder that holds them, or that was read already": 2 + 12 * 12}

    def test_a_link_to_nothing_is_a_missing_image(self, folder: Path) -> None:
        (folder / "train" / "ant" / "gone.png").symlink_to(folder / "nowhere.png")
        (folder / "train" / "bee" / "self.png").symlink_to("self.png")
        with pytest.raises(DataError, match=r"2 of 22 images are damaged.*gone\.png.*No such file.*self\.png"):
            load_data(in_folder(folder), seed=0).train.as_float()

    def test_a_class_whose_files_are_all_passed_over_says_why(self, folder: Path) -> None:
        for file in (folder / "train" / "bee").iterdir():
            file.rename(file.with_suffix(".heic"))
            file.with_suffix(".heic").write_bytes(b"\0\0\0\x18ftypheic")
        with pytest.raises(DataError, match=r"train/bee holds no image; passed over: train/bee/00\.heic: images in a"):
            load_data(in_folder(folder), seed=0)


class TestWhole:
    """Folders of classes among which no images are set apart."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_classes(tmp_path / "whole", 10, ("ant",))
        return write_classes(tmp_path / "whole", 30, ("bee",))

    def test_a_fifth_of_each_class_is_set_apart_and_that_is_said(self, folder: Path) -> None:
        splits = load_data(in_folder(folder), seed=0)
        assert np.bincount(splits.test.labels).tolist() == [2, 6]
        assert (len(splits.train), len(splits.validation)) == (29, 3)
        parts = [contents(part) for part in (splits.train, splits.validation, splits.test)]
        assert set.union(*parts) == stored(folder)
        assert sum(map(len, parts)) == 40
        numbers = [int(file.stem) for file in sorted((folder / "bee").iterdir())]
        files = [np.asarray(Image.open(folder / "bee" / f"{n:02}.png")).transpose(2, 0, 1).tobytes() for n in numbers]
        drawn = [n for n, file in zip(numbers, files, strict=True) if file in parts[2]]
        assert drawn == [0, 2, 11, 17, 20, 21]
        (remark,) = report(splits).remarks
        assert remark == "no images are set apart for testing: 20% of each class are, the same ones each time"

    def test_which_ones_depends_on_neither_seed_nor_place(self, folder: Path, tmp_path: Path) -> None:
        splits = load_data(in_folder(folder), seed=0)
        test = splits.test.pixels
        shutil.copytree(folder, tmp_path / "copy")
        again = load_data(in_folder(tmp_path / "copy", validation=0.3), seed=5)
        np.testing.assert_array_equal(again.test.pixels, test)
        assert contents(again.validation) != contents(splits.validation)
        alone = load_test(in_folder(folder), ImageKind(CLASSES, Preprocessing().resolved((3, 8, 8))))
        np.testing.assert_array_equal(alone.pixels, test)

    def test_train_alone_is_not_cut(self, tmp_path: Path) -> None:
        """Its test images may be on another machine, and what was trained on must not pass for them."""
        write_classes(tmp_path / "train")
        with pytest.raises(DataError, match="there is no folder") as error:
            load_data(in_folder(tmp_path), seed=0)
        assert f"name {tmp_path / 'train'} with --data-dir" in error.value.fix
        assert len(load_data(in_folder(tmp_path / "train"), seed=0).test) == 4

    def test_too_few_are_named(self, folder: Path) -> None:
        write_classes(folder, 2, ("fly", "wasp"))
        with pytest.raises(DataError, match=r"too few images to split .*: fly \(2\), wasp \(2\)\."):
            load_data(in_folder(folder), seed=0)


def test_who_asks_is_told(folder: Path) -> None:
    told: list[DataReport] = []
    reading = Reading(tell=told.append)
    splits = load_data(in_folder(folder), 0, None, None, reading)
    load_test(in_folder(folder), ImageKind(CLASSES, Preprocessing().resolved((3, 8, 8))), None, reading)
    assert told[0] == splits.report
    assert (told[1].train, told[1].validation, told[1].test) == (None, None, 10)
    assert load_data(in_folder(folder).model_copy(update={"dataset": "digits"}), 0, None, None, reading).report is None
    assert len(told) == 2


@pytest.mark.parametrize("load", [load_data, load_test], ids=["data", "test"])
def test_damage_is_not_looked_for(load: Callable[..., object], folder: Path) -> None:
    """What is in a file shows when it is read, and only the first of each half is read at once."""
    for file in sorted(folder.rglob("*.png")):
        if file.name != "00.png":
            file.write_bytes(b"")
    load(
        in_folder(folder), *((0,) if load is load_data else (ImageKind(CLASSES, Preprocessing().resolved((3, 8, 8))),))
    )
