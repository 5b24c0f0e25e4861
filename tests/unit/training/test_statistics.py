"""What images are normalised by, and the pass over those that do not stay in memory: when it is taken, and by whom."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.image_files import in_folder, write_image, write_splits

from floats_edge.artifacts.cache import write_cache
from floats_edge.artifacts.checkpoint import is_run
from floats_edge.cli.console import TrainingProgress
from floats_edge.data import Reading, Splits, load_data
from floats_edge.errors import DataError, RecipeError
from floats_edge.images import Indices, Pixels
from floats_edge.networks.spec import ImageSpec
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.training.feed import Feed
from floats_edge.training.loop import Observer, train
from floats_edge.training.stage import Unwatched
from floats_edge.training.statistics import image_spec

DECLARED = "data.statistics={mean: [0.5, 0.25, 0.125], std: [0.5, 0.5, 1]}"
ANEW = Reading(memory=0, loaders=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_splits(tmp_path / "images")


@dataclass
class Trial:
    """Statistics of the training images of a folder.

    Attributes:
        folder: holds 18 of them.
        recipe: trains on them.
        reading: how they are read.
        told: how many of how many were read, as an observer is told.
    """

    folder: Path
    recipe: Recipe
    reading: Reading = ANEW
    told: list[tuple[int, int]] = field(default_factory=list)

    def splits(self) -> Splits:
        return load_data(self.recipe.data, self.recipe.seed, self.folder, reading=self.reading)

    def __call__(self) -> tuple[ImageSpec, int]:
        """What is found, and how many images were read for it besides the one that tells their shape."""
        images, read = self.splits().train, [0]

        def counted(indices: Indices) -> Pixels:
            read[0] += len(indices)
            return images.read(indices)

        splits = replace(self.splits(), train=replace(images, read=counted))
        found = image_spec(self.recipe, splits, watch=lambda done, total: self.told.append((done, total)))
        return found, read[0] - 1


Make = Callable[..., Trial]


@pytest.fixture
def trial(folder: Path, digits_recipe: Recipe) -> Make:
    recipe = digits_recipe.model_copy(update={"data": in_folder(folder, crop=0)})

    def made(*options: str, reading: Reading = ANEW) -> Trial:
        return Trial(folder, override_recipe(recipe, options), reading)

    return made


def expected(splits: Splits) -> tuple[list[float], list[float]]:
    pixels = splits.train.read(np.arange(len(splits.train))).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    return pixels.mean(axis=1).tolist(), pixels.std(axis=1).tolist()


class TestDeclared:
    def test_they_are_taken_as_they_are_and_no_image_is_read(self, trial: Make) -> None:
        found, read = trial(DECLARED, reading=Reading())()
        assert (found.mean, found.std, read) == ((0.5, 0.25, 0.125), (0.5, 0.5, 1.0), 0)

    def test_of_another_number_of_channels(self, trial: Make) -> None:
        with pytest.raises(RecipeError, match=r"are of 1 channels, and the images have 3\.") as error:
            trial("data.statistics={mean: [0.5], std: [0.5]}")()
        assert "data.preprocessing.colours" in error.value.fix


class TestPass:
    def test_an_unchanged_set_of_files_is_read_once(self, trial: Make) -> None:
        first, read = trial()()
        mean, std = expected(trial().splits())
        assert read == 18
        assert first.mean == pytest.approx(mean)
        assert first.std == pytest.approx(std)
        assert trial()() == (first, 0)

    def test_kept_images_need_no_cache(self, trial: Make, tmp_path: Path) -> None:
        found, read = trial(reading=Reading())()
        assert read == 18
        assert not (tmp_path / "cache").exists()
        assert trial()() == (found, 18)

    def test_a_folder_may_be_moved(self, trial: Make) -> None:
        first, _ = trial()()
        elsewhere = trial()
        elsewhere.folder = elsewhere.folder.rename(elsewhere.folder.with_name("elsewhere"))
        assert elsewhere() == (first, 0)

    def test_another_image_of_the_same_size_and_date_is_noticed(self, trial: Make, folder: Path) -> None:
        files = sorted((folder / "train").rglob("*.png"))
        for file in files:
            write_image(file.with_suffix(".bmp"), seed=7).replace(file)
        first, _ = trial()()
        for file in files:
            before = file.stat()
            write_image(file.with_suffix(".bmp"), seed=8).replace(file)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        second, read = trial()()
        assert read == 18
        assert second.mean != first.mean

    @pytest.mark.parametrize("option", ["data.preprocessing.colours=bgr", "seed=5", "data.train_images=9"])
    def test_what_decides_the_pixels_is_counted_again(self, option: str, trial: Make) -> None:
        first, _ = trial()()
        second, read = trial(option)()
        assert read in (18, 9)
        assert second.mean != first.mean

    @pytest.mark.parametrize("spoil", ["cut", "turned", "of other images"])
    def test_a_damaged_cache_is_made_anew(self, spoil: str, trial: Make, tmp_path: Path) -> None:
        first, _ = trial()()
        [cached] = (tmp_path / "cache").rglob("*.cache")
        whole = cached.read_bytes()
        if spoil == "of other images":
            write_cache(cached, bytes(3 * 256 * 8))
        else:
            cached.write_bytes(whole[:-9] if spoil == "cut" else whole.replace(b"\0", b"\1"))
        assert trial()() == (first, 18)
        assert cached.read_bytes() == whole

    def test_who_watches_is_told(self, trial: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("floats_edge.data.statistics.os.cpu_count", lambda: 1)
        monkeypatch.setattr("floats_edge.data.statistics.CHUNK", 7)
        watched = trial()
        watched()
        assert watched.told == [(7, 18), (14, 18), (18, 18)]


class TestDamage:
    """It is named before the first step, all at once, whatever images are normalised by."""

    @pytest.mark.parametrize(
        ("options", "reading"),
        [
            ((), ANEW),
            ((DECLARED,), ANEW),
            ((DECLARED,), Reading()),
            ((DECLARED, "data.resized_crop=[0.5, 1]"), Reading()),
        ],
        ids=["found", "declared", "kept", "read anew for crops"],
    )
    def test_of_training_images(
        self, options: tuple[str, ...], reading: Reading, trial: Make, folder: Path, tmp_path: Path
    ) -> None:
        self.refused(trial("train.batch_size=4", *options, reading=reading), self.last, tmp_path)

    def test_of_images_that_are_held_out(self, trial: Make, tmp_path: Path) -> None:
        self.refused(trial(DECLARED, "seed=1"), lambda subject: subject.splits().validation.files, tmp_path)

    def test_of_images_that_were_whole_when_they_were_counted(self, trial: Make, tmp_path: Path) -> None:
        subject = trial(DECLARED, "train.batch_size=4")
        subject()
        self.refused(subject, self.last, tmp_path)

    def last(self, subject: Trial) -> list[Path]:
        """The last images that training reads in its first epoch."""
        images, recipe = subject.splits().train, subject.recipe
        order = Feed(images, recipe.data, recipe.train.batch_size, recipe.seed, torch.device("cpu"))._order(0)
        assert images.files is not None
        return [images.files[order[place]] for place in (14, 15)]

    def refused(self, subject: Trial, choose: Callable[[Trial], Sequence[Path] | None], out: Path) -> None:
        class NoStep(Unwatched):
            def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
                raise AssertionError("a step was taken")

        files, splits = choose(subject), subject.splits()
        assert files is not None
        assert len(files) == 2
        for file in files:
            file.write_bytes(file.read_bytes()[:60])
        with pytest.raises(DataError, match=r"^2 of 20 images are damaged\. ") as error:
            train(subject.recipe, splits, out / "run", NoStep())
        assert all(f"{file} cannot be read" in error.value.what for file in files)
        assert not is_run(out / "run")


def test_a_run_is_that_of_kept_images(trial: Make, silent: Observer, tmp_path: Path) -> None:
    options = ("train.epochs=1", "model.arguments.width=4")
    anew, kept = trial(*options), trial(*options, reading=Reading())
    runs = [train(each.recipe, each.splits(), tmp_path / name, silent) for name, each in (("a", anew), ("b", kept))]
    assert runs[0].weights_sha256 == runs[1].weights_sha256


def test_the_bar_of_training_shows_the_pass_while_it_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with TrainingProgress("mine", 1) as progress:
        progress.on_images(64, 18_000)
        progress._bar.refresh()
        meanwhile = capsys.readouterr().err
        progress.on_images(18_000, 18_000)
    assert "read all images once" in meanwhile
    assert "64/18000" in meanwhile
    assert "read all images once" not in capsys.readouterr().err.rpartition("\x1b[2K")[2]
