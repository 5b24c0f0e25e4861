"""Splits of real digits, of real CIFAR images, and of image folders in every state of disrepair."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from floats_edge.data import Splits, channel_statistics, load_data, load_test, pixel_histograms
from floats_edge.errors import DataError
from floats_edge.images import ImageKind, Images
from floats_edge.preprocessing import Preprocessing, preprocessed
from floats_edge.recipe import Data

CLASSES = ("ant", "bee")


def write_image(file: Path, size: tuple[int, int] = (8, 8), seed: int = 0, mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, 10 training and 5 test images each, no two alike."""
    seed = 0
    for split, count in (("train", 10), ("test", 5)):
        for name in CLASSES:
            for number in range(count):
                write_image(tmp_path / split / name / f"{number}.png", seed=seed)
                seed += 1
    return tmp_path


def in_folder(root: Path, **choices: object) -> Data:
    return Data.model_validate({"dataset": "folder", "root": root, **choices})


def as_set(images: Images) -> set[bytes]:
    return {image.tobytes() for image in images.pixels}


def assert_same(first: Splits, second: Splits) -> None:
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(first, split).pixels, getattr(second, split).pixels)
        np.testing.assert_array_equal(getattr(first, split).labels, getattr(second, split).labels)
    assert first.labels == second.labels


def read_all(data: Data, seed: int = 0) -> Splits:
    """The splits, every image of which is in memory."""
    splits = load_data(data, seed)
    for images in (splits.train, splits.validation, splits.test):
        assert len(images.pixels) == len(images)
    return splits


class TestDigits:
    def test_splits(self) -> None:
        splits = load_data(Data(preprocessing=Preprocessing(size=(16, 16))), seed=0)
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (1167, 130, 500)
        assert splits.train.pixels.shape == (1167, 1, 16, 16)
        assert splits.train.pixels.dtype == np.uint8
        assert splits.train.labels.dtype == np.int64
        assert splits.labels == tuple("0123456789")

    def test_as_stored_they_span_the_8_bit_range(self) -> None:
        splits = load_data(Data(), seed=0)
        assert splits.train.pixels.shape[1:] == (1, 8, 8)
        assert (splits.train.pixels.min(), splits.train.pixels.max()) == (0, 255)

    def test_every_digit_is_in_exactly_one_split(self) -> None:
        from sklearn.datasets import load_digits

        splits = load_data(Data(), seed=3)
        read = np.concatenate([s.pixels.reshape(len(s), -1) for s in (splits.train, splits.validation, splits.test)])
        stored = np.rint(load_digits().data * (255 / 16)).astype(np.uint8)
        assert sorted(map(bytes, read)) == sorted(map(bytes, stored))

    def test_statistics_are_those_of_the_pixels(self) -> None:
        splits = load_data(Data(), seed=0)
        pixels = splits.train.as_float()
        mean, std = channel_statistics(pixel_histograms(splits.train))
        assert mean == pytest.approx((pixels.mean(dtype=np.float64),), abs=1e-6)
        assert std == pytest.approx((pixels.std(dtype=np.float64),), abs=1e-6)

    def test_as_float_is_in_the_unit_interval(self) -> None:
        pixels = np.array([0, 51, 255], dtype=np.uint8).reshape(3, 1, 1, 1)
        images = Images(np.zeros(3, dtype=np.int64), pixels.__getitem__)
        assert images.as_float().dtype == np.float32
        np.testing.assert_array_equal(images.as_float().reshape(-1), np.float32([0, 0.2, 1]))
        np.testing.assert_array_equal(images.as_float(np.array([2, 0])).reshape(-1), [1, 0])

    def test_a_recipe_gives_the_same_arrays_again(self) -> None:
        data = Data(preprocessing=Preprocessing(size=(12, 12)))
        assert_same(load_data(data, seed=5), load_data(data, seed=5))

    def test_a_seed_moves_train_and_validation_but_never_test(self) -> None:
        first, second = load_data(Data(), seed=0), load_data(Data(validation=0.3, train_images=100), seed=1)
        np.testing.assert_array_equal(first.test.pixels, second.test.pixels)
        np.testing.assert_array_equal(first.test.labels, second.test.labels)
        assert as_set(first.validation) != as_set(second.validation)

    def test_train_images_is_a_random_part_of_all(self) -> None:
        everything, part = load_data(Data(), seed=0), load_data(Data(train_images=50), seed=0)
        assert len(part.train) == 50
        assert len(set(part.train.labels.tolist())) == 10
        assert as_set(part.train) <= as_set(everything.train)
        np.testing.assert_array_equal(part.validation.pixels, everything.validation.pixels)

    def test_more_train_images_than_there_are(self) -> None:
        with pytest.raises(DataError, match="trains on 2000 images, but 1167 are there") as error:
            load_data(Data(train_images=2000), seed=0)
        assert "data.train_images=1167" in error.value.fix


class TestFolder:
    def test_pixels_and_labels_are_those_of_the_files(self, folder: Path) -> None:
        splits = load_data(in_folder(folder), seed=0)
        assert splits.labels == CLASSES
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 10)
        for label, name in enumerate(CLASSES):
            stored = {
                np.asarray(Image.open(f)).transpose(2, 0, 1).tobytes() for f in (folder / "test" / name).iterdir()
            }
            assert {image.tobytes() for image in splits.test.pixels[splits.test.labels == label]} == stored

    def test_splits_do_not_overlap(self, folder: Path) -> None:
        splits = load_data(in_folder(folder, validation=0.25), seed=0)
        assert len(as_set(splits.train) | as_set(splits.validation) | as_set(splits.test)) == 30

    def test_reading_twice_and_from_another_place_gives_the_same(self, folder: Path, tmp_path: Path) -> None:
        first = read_all(in_folder(folder), seed=2)
        moved = folder.rename(tmp_path.with_name(tmp_path.name + "-moved"))
        assert_same(first, load_data(in_folder(tmp_path), seed=2, place=moved))

    def test_shuffled_before_slicing(self, folder: Path) -> None:
        splits = load_data(in_folder(folder, train_images=8), seed=0)
        assert set(splits.train.labels) == {0, 1}
        assert list(splits.test.labels) != sorted(splits.test.labels)

    def test_no_more_is_read_than_is_asked_for(self, folder: Path) -> None:
        splits = load_data(in_folder(folder), seed=0)
        whole = splits.test.pixels
        wanted = {image.tobytes() for image in whole[:3]}
        shape_of_all = folder / "train" / "ant" / "0.png"
        for file in folder.rglob("*.png"):
            if np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() not in wanted and file != shape_of_all:
                file.write_bytes(b"")
        again = load_data(in_folder(folder), seed=0)
        np.testing.assert_array_equal(again.test.first(3).pixels, whole[:3])
        np.testing.assert_array_equal(again.test.first(3).as_float(slice(1, 2)), splits.test.as_float(slice(1, 2)))
        with pytest.raises(DataError, match=r"test/\w+/\d\.png cannot be read"):
            again.test.first(4).as_float()
        with pytest.raises(DataError, match=r"train/\w+/\d\.png cannot be read"):
            again.train.as_float(slice(0, 1))

    def test_what_was_read_stays_in_memory(self, folder: Path) -> None:
        train = load_data(in_folder(folder), seed=0).train
        before = train.pixels
        for file in folder.rglob("*.png"):
            file.unlink()
        assert train.pixels is before

    def test_val_stands_in_for_test(self, folder: Path) -> None:
        as_test = read_all(in_folder(folder))
        (folder / "test").rename(folder / "val")
        assert_same(as_test, load_data(in_folder(folder), seed=0))

    def test_test_may_lack_a_class(self, folder: Path) -> None:
        for file in (folder / "test" / "ant").iterdir():
            file.unlink()
        (folder / "test" / "ant").rmdir()
        assert list(load_data(in_folder(folder), seed=0).test.labels) == [1] * 5

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
    def test_grey_palette_and_alpha_become_rgb(self, folder: Path, mode: str) -> None:
        write_image(folder / "train" / "ant" / "0.png", mode=mode)
        assert load_data(in_folder(folder), seed=0).train.pixels.shape == (18, 3, 8, 8)

    def test_sizes_are_made_equal(self, folder: Path) -> None:
        write_image(folder / "train" / "ant" / "0.jpg", size=(20, 31))
        write_image(folder / "test" / "bee" / "9.JPEG", size=(7, 5))
        splits = load_data(in_folder(folder, preprocessing={"size": 10}), seed=0)
        assert splits.train.pixels.shape[1:] == splits.test.pixels.shape[1:] == (3, 10, 10)

    def test_other_files_are_left_alone(self, folder: Path) -> None:
        (folder / "train" / "ant" / "notes.txt").write_text("not an image")
        (folder / "train" / "ant" / "._0.png").write_text("nor is this")
        (folder / "train" / ".cache").mkdir()
        splits = load_data(in_folder(folder), seed=0)
        assert len(splits.train) + len(splits.validation) == 20

    def test_without_root(self) -> None:
        with pytest.raises(DataError, match="names no image folder") as error:
            load_data(Data(dataset="folder"), seed=0)
        assert "--data-dir" in error.value.fix

    @pytest.mark.parametrize("missing", ["train", "test"])
    def test_missing_folder_is_named(self, folder: Path, missing: str) -> None:
        (folder / missing).rename(folder / "elsewhere")
        with pytest.raises(DataError, match=f"no folder {folder / missing}"):
            load_data(in_folder(folder), seed=0)

    def test_no_classes(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        with pytest.raises(DataError, match="train holds no class folder"):
            load_data(in_folder(tmp_path), seed=0)

    def test_one_class(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            write_image(tmp_path / split / "ant" / "0.png")
        with pytest.raises(DataError, match="one class only: ant"):
            load_data(in_folder(tmp_path), seed=0)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_empty_class_folder_is_named(self, folder: Path, split: str) -> None:
        for file in (folder / split / "bee").iterdir():
            file.unlink()
        with pytest.raises(DataError, match=f"{folder / split / 'bee'} holds no image"):
            load_data(in_folder(folder), seed=0)

    def test_class_that_was_not_trained_is_named(self, folder: Path) -> None:
        write_image(folder / "test" / "wasp" / "0.png")
        with pytest.raises(DataError, match="does not: wasp"):
            load_data(in_folder(folder), seed=0)

    @pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
    def test_corrupt_image_is_named(self, folder: Path, damage: str) -> None:
        file = folder / "train" / "bee" / "4.png"
        file.write_bytes({"empty": b"", "text": b"not an image", "truncated": file.read_bytes()[:100]}[damage])
        with pytest.raises(DataError, match=f"{file} cannot be read") as error:
            read_all(in_folder(folder))
        assert "remove" in error.value.fix

    def test_unequal_sizes_without_a_size(self, folder: Path) -> None:
        write_image(folder / "test" / "bee" / "1.png", size=(9, 8))
        with pytest.raises(DataError, match=r"1\.png is 9x8 pixels, other images are 8x8") as error:
            read_all(in_folder(folder))
        assert "data.preprocessing.size" in error.value.fix

    @pytest.mark.parametrize("share", [0.01, 0.99])
    def test_validation_share_that_leaves_nothing(self, folder: Path, share: float) -> None:
        with pytest.raises(DataError, match="splits 20 training images into") as error:
            load_data(in_folder(folder, validation=share), seed=0)
        assert "data.validation" in error.value.fix

    def test_images_without_contrast(self, folder: Path) -> None:
        for file in (folder / "train").rglob("*.png"):
            Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
        with pytest.raises(DataError, match="same value in every pixel"):
            channel_statistics(pixel_histograms(load_data(in_folder(folder), seed=0).train))

    def test_more_pixels_than_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Memory:
            available = 10 * 2**20

        monkeypatch.setattr("psutil.virtual_memory", Memory)
        read_all(in_folder(folder, preprocessing={"size": 64}))
        with pytest.raises(DataError, match=r"18 images of 512x512 pixels take 14 MiB, but 10 MiB") as error:
            read_all(in_folder(folder, preprocessing={"size": 512}))
        assert "--images" in error.value.fix


def kind_of(labels: tuple[str, ...], shape: tuple[int, int, int], **choices: object) -> ImageKind:
    return ImageKind(labels, Preprocessing.model_validate(choices).resolved(shape))


class TestKind:
    """Images for a network that is there already must be of its classes, and become what it takes."""

    KIND = kind_of(CLASSES, (3, 8, 8))

    def test_test_images_alone_are_those_of_the_splits(self, folder: Path) -> None:
        splits = read_all(in_folder(folder))
        (folder / "train").rename(folder / "elsewhere")
        alone = load_test(in_folder(folder), self.KIND)
        np.testing.assert_array_equal(alone.pixels, splits.test.pixels)
        np.testing.assert_array_equal(alone.labels, splits.test.labels)
        digits = load_test(Data(), kind_of(tuple("0123456789"), (1, 8, 8)))
        np.testing.assert_array_equal(digits.pixels, load_data(Data(), seed=0).test.pixels)

    def test_training_images_need_not_be_whole(self, folder: Path) -> None:
        for file in (folder / "train" / "ant").iterdir():
            file.unlink()
        assert len(load_test(in_folder(folder, validation=0.99), self.KIND)) == 10

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (("ant",), "it does not know bee"),
            (("ant", "bee", "wasp"), "the images lack wasp"),
            (("ant", "cat"), "it does not know bee and the images lack cat"),
            (("bee", "ant"), "the order differs"),
        ],
    )
    def test_classes(self, folder: Path, labels: tuple[str, ...], message: str) -> None:
        kind = kind_of(labels, (3, 8, 8))
        for load in (lambda: load_data(in_folder(folder), 0, None, kind), lambda: load_test(in_folder(folder), kind)):
            with pytest.raises(DataError, match=rf"not of the network's classes: {message}\.") as error:
                load()
            assert "--data-dir" in error.value.fix

    @pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 8), (3, 8, 16)])
    def test_they_become_what_it_takes_whatever_the_recipe_says(
        self, folder: Path, shape: tuple[int, int, int]
    ) -> None:
        kind = kind_of(CLASSES, shape, resize="pad")
        write_image(folder / "test" / "bee" / "1.png", size=(9, 20))
        for data in (in_folder(folder), in_folder(folder, preprocessing={"size": 5})):
            alone, splits = load_test(data, kind), load_data(data, 0, None, kind)
            assert alone.shape == splits.train.shape == shape
            np.testing.assert_array_equal(alone.pixels, splits.test.pixels)
        stored = np.stack(
            [preprocessed(np.asarray(Image.open(f)), kind.preprocessing) for f in folder.rglob("test/bee/*")]
        )
        assert {image.tobytes() for image in alone.pixels[alone.labels == 1]} == {image.tobytes() for image in stored}

    def test_images_of_another_shape_are_refused(self, folder: Path) -> None:
        images = load_data(in_folder(folder), seed=0).test
        with pytest.raises(DataError, match=r"9x8 pixels of 3 channels wanted, 8x8 pixels of 3 channels found\."):
            kind_of(CLASSES, (3, 8, 9)).check(CLASSES, images)


def test_cifar_images(cifar_folder: Path) -> None:
    splits = load_data(in_folder(cifar_folder), seed=0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18_000, 2_000, 4_000)
    assert splits.train.pixels.shape[1:] == (3, 32, 32)
    assert splits.labels[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(splits.train.labels).min() > 1_700
    assert np.bincount(splits.test.labels[:1_000], minlength=10).min() > 50
    mean, std = channel_statistics(pixel_histograms(splits.train))
    assert mean == pytest.approx((0.491, 0.482, 0.447), abs=0.01)  # of the whole of CIFAR-10
    assert std == pytest.approx((0.247, 0.243, 0.262), abs=0.01)


class TestTorchvision:
    def test_stored_svhn_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from scipy.io import savemat
        from torchvision.datasets import SVHN

        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
        digits = np.arange(1, 21, dtype=np.uint8).reshape(-1, 1) % 10
        for split in ("train", "test"):
            savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.where(digits == 0, 10, digits)})
        monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
        monkeypatch.setattr(SVHN, "download", lambda self: None)
        splits = load_data(Data(dataset="svhn", preprocessing=Preprocessing(size=(16, 16))), seed=0, place=tmp_path)
        assert splits.test.pixels.shape == (20, 3, 16, 16)
        assert sorted(splits.test.labels) == sorted(digits.reshape(-1))
        assert splits.labels == tuple("0123456789")

    def test_stored_cifar_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import pickle

        from torchvision.datasets import CIFAR10

        folder = tmp_path / CIFAR10.base_folder
        folder.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        batch = pickle.dumps({"data": pixels.reshape(10, -1), "labels": list(range(10))})
        for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
            (folder / name).write_bytes(batch)
        names = [f"class {index}" for index in range(10)]
        (folder / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": names}))
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
        splits = load_data(Data(dataset="cifar10"), seed=0, place=tmp_path)
        assert splits.labels == tuple(names)
        np.testing.assert_array_equal(splits.test.pixels, pixels[splits.test.labels])
        assert len(splits.train) + len(splits.validation) == 50

    @pytest.fixture
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for proxy in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(proxy, "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")

    @pytest.mark.usefixtures("offline")
    def test_no_network(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"cifar10 is not in {tmp_path} and could not be brought there") as error:
            load_data(Data(dataset="cifar10"), seed=0, place=tmp_path)
        assert "--data-dir" in error.value.fix

    @pytest.mark.usefixtures("offline")
    def test_a_download_that_fails_leaves_no_empty_folders(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        for place in (tmp_path / "there", tmp_path / "new" / "cifar"):
            with pytest.raises(DataError, match="could not be brought there"):
                load_data(Data(dataset="cifar10"), seed=0, place=place)
        assert [path.name for path in tmp_path.rglob("*")] == ["there"]

    @pytest.mark.usefixtures("offline")
    @pytest.mark.parametrize("dataset", ["cifar10", "imagenette"])
    @pytest.mark.parametrize("part", [".", "train"])
    def test_nothing_is_downloaded_into_an_image_folder(self, folder: Path, part: str, dataset: str) -> None:
        before = sorted(folder.rglob("*"))
        with pytest.raises(DataError, match=f"{folder / part} looks like an image folder") as error:
            load_data(Data.model_validate({"dataset": dataset}), seed=0, place=folder / part)
        assert "-o data.dataset=folder" in error.value.fix
        assert sorted(folder.rglob("*")) == before

    @pytest.mark.usefixtures("offline")
    def test_other_folders_than_those_of_classes_are_a_place_for_downloads(self, tmp_path: Path) -> None:
        write_image(tmp_path / "pictures" / "cat.png")
        (tmp_path / "lost+found").mkdir()
        with pytest.raises(DataError, match="could not be brought there"):
            load_data(Data(dataset="cifar10"), seed=0, place=tmp_path)

    def test_downloads_lie_where_the_user_keeps_caches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "floats-edge").mkdir()
        (tmp_path / "floats-edge" / "stl10").write_text("in the way of a download")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(DataError, match=f"stl10 is not in {tmp_path}/floats-edge/stl10"):
            load_data(Data(dataset="stl10"), seed=0)

    def test_a_user_without_a_home_names_the_place(self, homeless: None) -> None:
        with pytest.raises(DataError, match="no place to download cifar10 to") as error:
            load_data(Data(dataset="cifar10"), seed=0)
        assert "--data-dir" in error.value.fix

    def test_a_root_that_is_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("")
        with pytest.raises(DataError, match="stl10 is not in"):
            load_data(Data(dataset="stl10", root=file), seed=0)
