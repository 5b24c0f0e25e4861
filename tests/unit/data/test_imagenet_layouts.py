"""ImageNet, Tiny-ImageNet and Imagenette as they lie when they were unpacked."""

from pathlib import Path

import numpy as np
import pytest
from fixtures.image_files import in_folder, write_image
from PIL import Image

from floats_edge.data import Splits, load_data, load_test
from floats_edge.errors import DataError
from floats_edge.images import ImageKind, Images
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe import Data

WNIDS = ("n01443537", "n01629819", "n02124075")
UNLABELLED = "images of test, which have no labels"


def pixels(file: Path) -> bytes:
    return np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1).tobytes()


def labelled(images: Images, names: tuple[str, ...]) -> dict[bytes, str]:
    return {image.tobytes(): names[label] for image, label in zip(images.pixels, images.labels, strict=True)}


def passed_over(splits: Splits) -> dict[str, int]:
    assert splits.report is not None
    return {group.reason: group.files for group in splits.report.passed_over}


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """As torchvision's ImageNet unpacks it, beside the archives and its own notes; one image is grey, one in CMYK."""
    for seed, wnid in enumerate(WNIDS):
        for number in range(6):
            write_image(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG", 10 * seed + number)
        for number in range(2):
            write_image(
                tmp_path / "val" / wnid / f"ILSVRC2012_val_{2 * seed + number:08}.JPEG", 100 + 2 * seed + number
            )
    Image.new("L", (8, 8), 7).save(tmp_path / "train" / WNIDS[0] / f"{WNIDS[0]}_6.JPEG")
    Image.new("CMYK", (8, 8), (9, 9, 9, 9)).save(tmp_path / "train" / WNIDS[1] / f"{WNIDS[1]}_6.JPEG")
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz", "meta.bin"):
        (tmp_path / name).write_bytes(b"an archive")
    return tmp_path


class TestImageNet:
    def test_as_torchvision_unpacks_it(self, imagenet: Path) -> None:
        splits = load_data(in_folder(imagenet), seed=0)
        assert splits.labels == WNIDS
        assert (len(splits.train) + len(splits.validation), len(splits.test)) == (20, 6)
        assert labelled(splits.test, WNIDS) == {pixels(file): file.parent.name for file in imagenet.glob("val/*/*")}
        assert passed_over(splits) == {"files that are no images": 3}

    def test_test_images_without_labels_are_passed_over(self, imagenet: Path) -> None:
        for number in range(4):
            write_image(imagenet / "test" / f"ILSVRC2012_test_{number:08}.JPEG", 200 + number)
        splits = load_data(in_folder(imagenet), seed=0)
        assert len(splits.test) == 6
        assert passed_over(splits) == {"files that are no images": 3, UNLABELLED: 4}

    def test_images_of_test_are_an_error_where_no_others_have_labels(self, imagenet: Path) -> None:
        (imagenet / "val").rename(imagenet / "elsewhere")
        write_image(imagenet / "test" / "ILSVRC2012_test_00000000.JPEG")
        with pytest.raises(DataError, match="test holds no class folder"):
            load_data(in_folder(imagenet), seed=0)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """As its archive unpacks: four images of each class to train on, six to validate, three to test."""
    root = tmp_path / "tiny-imagenet-200"
    for seed, wnid in enumerate(WNIDS):
        for number in range(4):
            write_image(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 10 * seed + number)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    for number in range(6):
        write_image(root / "val" / "images" / f"val_{number}.JPEG", 100 + number)
    lines = (f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t32\t44\t62\n" for number in (3, 4, 0, 1, 5, 2))
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    for number in range(3):
        write_image(root / "test" / "images" / f"test_{number}.JPEG", 200 + number)
    (root / "wnids.txt").write_text("\n".join(WNIDS))
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    return root


class TestTinyImageNet:
    def test_as_it_is_unpacked(self, tiny: Path) -> None:
        splits = load_data(in_folder(tiny, validation=0.25), seed=0)
        assert splits.labels == WNIDS
        training = labelled(splits.train, WNIDS) | labelled(splits.validation, WNIDS)
        assert training == {pixels(file): file.parent.parent.name for file in tiny.glob("train/*/images/*")}
        truth = {pixels(tiny / "val" / "images" / f"val_{number}.JPEG"): WNIDS[number % 3] for number in range(6)}
        assert labelled(splits.test, WNIDS) == truth
        assert passed_over(splits) == {"files that are no images": 5, UNLABELLED: 3}
        assert splits.report is not None
        assert splits.report.layout == "train/ and val/"

    def test_who_only_tests_needs_no_other_images(self, tiny: Path) -> None:
        whole = load_data(in_folder(tiny, validation=0.25), seed=0)
        (tiny / "train").rename(tiny.parent / "train")
        kind = ImageKind(WNIDS, Preprocessing().resolved((3, 8, 8)))
        np.testing.assert_array_equal(load_test(in_folder(tiny), kind).pixels, whole.test.pixels)

    def test_images_that_are_not_annotated_are_passed_over(self, tiny: Path) -> None:
        write_image(tiny / "val" / "images" / "val_6.JPEG")
        splits = load_data(in_folder(tiny, validation=0.25), seed=0)
        assert len(splits.test) == 6
        assert passed_over(splits)["images that no list names"] == 1

    def test_an_annotated_image_that_is_missing(self, tiny: Path) -> None:
        (tiny / "val" / "images" / "val_4.JPEG").unlink()
        with pytest.raises(DataError, match=r"val/images/val_4\.JPEG cannot be read: No such file"):
            load_data(in_folder(tiny, validation=0.25), seed=0).test.as_float()

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            ("val_1.JPEG n01629819 0 32 44 62", "line 3: it has no label"),
            ("\tn01629819\t0\t32\t44\t62", "line 3: it has no path"),
            ("../../secret.JPEG\tn01629819\t0\t0\t0\t0", "line 3: ../../secret.JPEG leads out of the folder"),
            ("val_3.JPEG\tn02124075\t0\t0\t0\t0", "line 3: val_3.JPEG is n02124075, and n01443537 elsewhere"),
            ("val_2.JPEG\tn99999999\t0\t0\t0\t0", "train does not: n99999999 (line 3)"),
        ],
    )
    def test_a_bad_line_is_named(self, line: str, complaint: str, tiny: Path) -> None:
        annotations = tiny / "val" / "val_annotations.txt"
        lines = annotations.read_text().splitlines()
        annotations.write_text("\n".join([*lines[:2], line, *lines[3:]]))
        with pytest.raises(DataError) as error:
            load_data(in_folder(tiny, validation=0.25), seed=0)
        assert str(annotations) in error.value.what
        assert complaint in error.value.what

    def test_annotations_that_were_emptied(self, tiny: Path) -> None:
        (tiny / "val" / "val_annotations.txt").write_text("\n")
        with pytest.raises(DataError, match=r"val_annotations\.txt names no file") as error:
            load_data(in_folder(tiny), seed=0)
        assert "tabs" in error.value.fix

    def test_validation_images_that_were_sorted_into_classes(self, tiny: Path) -> None:
        for number in range(6):
            image = tiny / "val" / "images" / f"val_{number}.JPEG"
            place = tiny / "val" / WNIDS[number % 3] / image.name
            place.parent.mkdir(exist_ok=True)
            image.rename(place)
        (tiny / "val" / "images").rmdir()
        splits = load_data(in_folder(tiny, validation=0.25), seed=0)
        assert len(splits.test) == 6
        assert passed_over(splits) == {"files that are no images": 6, UNLABELLED: 3}


class TestImagenette:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """As torchvision unpacks it, with three of the ten classes."""
        folder = tmp_path / "imagenette2-160"
        for seed, wnid in enumerate(("n01440764", "n02102040", "n03888257")):
            for number in range(4):
                file = folder / "train" / wnid / f"{wnid}_{number}.JPEG"
                write_image(file, 10 * seed + number, (20 + number, 16))
            write_image(folder / "val" / wnid / f"{wnid}_4.JPEG", 10 * seed + 4, (16, 24))
        (folder / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")
        return tmp_path

    @pytest.mark.parametrize("given", ["--data-dir", "data.root"])
    def test_what_torchvision_unpacked(self, given: str, root: Path) -> None:
        preprocessing = Preprocessing(size=(16, 16))
        data = Data(dataset="imagenette", validation=0.25, preprocessing=preprocessing)
        place = root if given == "--data-dir" else None
        splits = load_data(data if place else data.model_copy(update={"root": root}), 0, place)
        assert splits.labels == ("tench", "English springer", "parachute")
        assert (len(splits.train) + len(splits.validation), len(splits.test)) == (12, 3)
        assert sorted(splits.test.labels) == [0, 1, 2]
        assert splits.test.shape == (3, 16, 16)
        assert passed_over(splits) == {"files that are no images": 1}
        kind = ImageKind(splits.labels, preprocessing.resolved((3, 16, 16)))
        np.testing.assert_array_equal(load_test(data, kind, root).pixels, splits.test.pixels)

    @pytest.mark.parametrize("missing", ["val", "train"])
    def test_a_part_that_is_missing(self, missing: str, root: Path) -> None:
        (root / "imagenette2-160" / missing).rename(root / "elsewhere")
        with pytest.raises(DataError, match=missing):
            load_data(Data(dataset="imagenette", preprocessing=Preprocessing(size=(16, 16))), 0, root)

    def test_a_folder_that_is_no_class_of_it(self, root: Path) -> None:
        write_image(root / "imagenette2-160" / "val" / "ant" / "0.JPEG")
        with pytest.raises(DataError, match=r"imagenette is not in .*: 'ant'"):
            load_data(Data(dataset="imagenette"), 0, root)
