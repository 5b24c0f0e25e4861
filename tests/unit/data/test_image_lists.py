"""Lists of image files in CSV and JSON lines, and what is wrong with some."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from fixtures.image_files import CLASSES, in_folder, write_classes, write_image

from floats_edge.data import Splits, load_data, load_test
from floats_edge.errors import DataError
from floats_edge.images import ImageKind
from floats_edge.preprocessing import Preprocessing

Lines = list[tuple[str, ...]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that holds ``all/<class>/00.png`` to ``09.png``."""
    write_classes(tmp_path / "set" / "all")
    return tmp_path / "set"


def lines(root: Path, first: int = 0, last: int = 10) -> Lines:
    return [(f"all/{name}/{number:02}.png", name) for number in range(first, last) for name in CLASSES]


def write_csv(file: Path, content: Lines, header: str = "path,label") -> Path:
    file.write_text("\n".join((header, *(",".join(line) for line in content))) + "\n")
    return file


def write_jsonl(file: Path, content: Lines, keys: tuple[str, ...] = ("path", "label")) -> Path:
    file.write_text("\n".join(json.dumps(dict(zip(keys, line, strict=True))) for line in content))
    return file


def counts(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train.pixels), len(splits.validation.pixels), len(splits.test.pixels)


class TestForms:
    @pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "Labels.CSV"])
    def test_in_a_folder(self, name: str, root: Path) -> None:
        write = write_jsonl if name.endswith("jsonl") else write_csv
        write(root / name, lines(root))
        splits = load_data(in_folder(root), seed=0)
        assert counts(splits) == (14, 2, 4)
        assert splits.labels == CLASSES
        as_folder = load_data(in_folder(root / "all"), seed=0)
        np.testing.assert_array_equal(splits.train.pixels, as_folder.train.pixels)
        np.testing.assert_array_equal(splits.test.labels, as_folder.test.labels)
        assert splits.report is not None
        assert splits.report.layout == f"the list {name}"
        assert "no images are set apart for testing" in splits.report.remarks[0]

    def test_of_each_split(self, root: Path) -> None:
        write_csv(root / "train.csv", lines(root, 0, 7))
        write_jsonl(root / "val.jsonl", lines(root, 7))
        splits = load_data(in_folder(root), seed=0)
        assert counts(splits) == (13, 1, 6)
        assert splits.report is not None
        assert splits.report.layout == "train.csv and val.jsonl"

    def test_beside_folders_of_images_without_classes(self, root: Path) -> None:
        """As in competitions: train.csv, and train/ full of images."""
        for number in range(10):
            write_image(root / "train" / f"{number}.png", number)
        write_csv(root / "train.csv", [(f"train/{number}.png", str(number % 2)) for number in range(10)])
        write_csv(root / "test.csv", [("train/0.png", "0")])
        splits = load_data(in_folder(root), seed=0)
        assert (counts(splits), splits.labels) == ((9, 1, 1), ("0", "1"))

    def test_folders_of_classes_come_first(self, root: Path) -> None:
        for split in ("train", "test"):
            write_classes(root / split, 5)
            write_csv(root / f"{split}.csv", [("nowhere.png", "x")])
        assert counts(load_data(in_folder(root), seed=0)) == (9, 1, 10)

    def test_a_column_that_names_the_split(self, root: Path) -> None:
        content = [(*line, "TRAIN") for line in lines(root, 0, 6)] + [(*line, "test") for line in lines(root, 6, 8)]
        content += [(*line, "val") for line in lines(root, 8)]
        named = write_csv(root / "mine.csv", content, "filename,class,split")
        splits = load_data(in_folder(named), seed=0)
        assert counts(splits) == (11, 1, 4)
        assert splits.report is not None
        assert [(group.reason, group.files) for group in splits.report.passed_over] == [("lines of split val", 4)]
        alone = load_test(in_folder(named), ImageKind(CLASSES, Preprocessing().resolved((3, 8, 8))))
        np.testing.assert_array_equal(alone.pixels, splits.test.pixels)

    def test_numbers_are_labels_and_columns_have_any_order(self, root: Path) -> None:
        content = [(str(CLASSES.index(label)), "x", path) for path, label in lines(root)]
        splits = load_data(in_folder(write_csv(root / "a.csv", content, "\ufeffLabel, note ,File")), seed=0)
        assert splits.labels == ("0", "1")
        (root / "b.jsonl").write_text(
            "\n\n".join(json.dumps({"image": path, "label": CLASSES.index(label)}) for path, label in lines(root))
        )
        again = load_data(in_folder(root / "b.jsonl"), seed=0)
        np.testing.assert_array_equal(again.train.pixels, splits.train.pixels)

    def test_the_order_of_the_lines_does_not_matter(self, root: Path) -> None:
        one = load_data(in_folder(write_csv(root / "a.csv", lines(root))), seed=4)
        other = load_data(in_folder(write_csv(root / "b.csv", lines(root)[::-1])), seed=4)
        np.testing.assert_array_equal(one.train.pixels, other.train.pixels)

    def test_backslashes(self, root: Path) -> None:
        content = [(path.replace("/", "\\"), label) for path, label in lines(root)]
        assert counts(load_data(in_folder(write_csv(root / "labels.csv", content)), seed=0)) == (14, 2, 4)

    @pytest.mark.parametrize("name", ["labels.csv", "train.csv"])
    def test_images_that_no_list_names_are_counted(self, name: str, root: Path) -> None:
        write_csv(root / name, lines(root, 0, 8))
        write_csv(root / "test.csv", lines(root, 2, 3))
        if name == "labels.csv":
            (root / "test.csv").unlink()
        report = load_data(in_folder(root), seed=0).report
        assert report is not None
        assert [(group.reason, group.files) for group in report.passed_over] == [("images that no list names", 4)]

    def test_twice_is_said(self, root: Path) -> None:
        write_csv(root / "labels.csv", lines(root) + lines(root, 3, 5))
        report = load_data(in_folder(root), seed=0).report
        assert report is not None
        assert [(group.reason, group.files) for group in report.passed_over] == [("files that are listed twice", 4)]


class TestOutside:
    """A list that is found among images may be a stranger's; one that is named is the user's."""

    @pytest.mark.parametrize("path", ["../secret/{}.png", "all/../../secret/{}.png", "{}", "/etc/passwd", "..\\{}.png"])
    def test_a_found_list_stays_in_its_folder(self, path: str, root: Path) -> None:
        write_csv(root / "labels.csv", [*lines(root), (path.format("0"), "ant")][: 20 if path == "{}" else None])
        if path == "{}":
            write_csv(root / "labels.csv", [*lines(root), (str(root / "all" / "ant" / "00.png"), "ant")])
        with pytest.raises(DataError, match=r"line 22: .* leads out of the folder of the list") as error:
            load_data(in_folder(root), seed=0)
        assert "--data-dir names the list itself" in error.value.fix

    def test_a_named_list_may_lead_anywhere(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "lists").mkdir()
        content = [(str(root / path), label) for path, label in lines(root, 0, 5)]
        content += [(f"../set/{path}", label) for path, label in lines(root, 5)]
        named = write_csv(tmp_path / "lists" / "mine.csv", content)
        assert counts(load_data(in_folder(named), seed=0)) == (14, 2, 4)


class TestWrong:
    def refused(self, root: Path, message: str) -> DataError:
        with pytest.raises(DataError, match=message) as error:
            load_data(in_folder(root), seed=0)
        return error.value

    def test_without_names_of_columns(self, root: Path) -> None:
        (root / "labels.csv").write_text("all/ant/00.png,ant\n")
        assert "path,label" in self.refused(root, "does not name a column").fix

    def test_all_bad_lines_are_named(self, root: Path) -> None:
        write_csv(root / "labels.csv", [("a.png", ""), ("", "ant"), *lines(root), ("b\0.png", "ant")])
        self.refused(root, "line 2: it has no label; line 3: it has no path; line 24: it holds characters")

    @pytest.mark.parametrize("line", ["[]", "{", "7", '{"path": 7.5, "label": "ant"}', "[" * 100_000, "1" * 10_000])
    def test_lines_that_are_no_objects(self, line: str, root: Path) -> None:
        write_jsonl(root / "labels.jsonl", lines(root))
        with (root / "labels.jsonl").open("a") as file:
            file.write(f"\n{line}\n")
        self.refused(root, r"labels\.jsonl cannot be used|it has no path")

    @pytest.mark.parametrize("content", [b"", b"path,label\n", b"path,label\n,,,\n\n"])
    def test_empty(self, content: bytes, root: Path) -> None:
        (root / "labels.csv").write_bytes(content)
        self.refused(root, "names no file|does not name a column")

    @pytest.mark.parametrize(
        "content", [b"\xff\xfep\0a\0", b'path,label\n"a.png,ant\n', b"path,label\n" + b"a" * 200_000]
    )
    def test_what_is_no_csv(self, content: bytes, root: Path) -> None:
        (root / "labels.csv").write_bytes(content)
        self.refused(root, r"labels\.csv cannot be (read|used)")

    def test_two_labels_for_a_file(self, root: Path) -> None:
        write_csv(root / "labels.csv", [*lines(root), ("all/ant/00.png", "bee")])
        self.refused(root, r"line 22: 00\.png is bee, and ant elsewhere")

    def test_files_that_are_not_there_are_named_all_at_once(self, root: Path) -> None:
        os.mkfifo(root / "pipe.png")
        missing = [("gone0.png", "ant"), ("gone1.png", "bee"), ("pipe.png", "bee")]
        write_csv(root / "train.csv", [*lines(root, 0, 5), *missing])
        write_csv(root / "test.csv", lines(root, 5))
        train = load_data(in_folder(root), seed=0).train
        with pytest.raises(DataError, match=r"3 of 13 .*gone0\.png .*: No such file.*gone1.*pipe\.png .*: it is not a"):
            train.as_float()

    def test_unknown_splits(self, root: Path) -> None:
        write_csv(root / "labels.csv", [(*line, "fold 1") for line in lines(root)], "path,label,split")
        self.refused(root, "the splits in the list .* are neither of train")

    def test_too_large(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("floats_edge.data.lists.MOST_BYTES", 10)
        write_csv(root / "labels.csv", lines(root))
        self.refused(root, "is larger than")
