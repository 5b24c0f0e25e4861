"""The batches that a network is trained on: the same bits however images are kept, by whom they are read, and where."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.training import StopAfterAnEpoch, streamed

from floats_edge.data import Splits
from floats_edge.errors import DataError
from floats_edge.images import Images, Indices, Pixels
from floats_edge.recipe import Data, Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.training.augment import moved
from floats_edge.training.distributed import ALONE, Workers
from floats_edge.training.feed import Batch, Feed
from floats_edge.training.loop import Observer, train

MOVING = Data(crop=1, flip=True)


def feed(images: Images, data: Data = MOVING, workers: Workers = ALONE, size: int = 16) -> Feed:
    return Feed(images, data, size, 0, torch.device("cpu"), workers)


def recorded(images: Images, read: list[int], loaders: int = 0) -> Images:
    """The same images, not kept, which write down how many are read at a time."""

    def reading(indices: Indices) -> Pixels:
        read.append(len(indices))
        return images.read(indices)

    return replace(images, read=reading, memory=0, loaders=loaders)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one, other) for pair in zip(first, second, strict=True) for one, other in zip(*pair, strict=True)
    )


def test_batches_are_as_a_network_takes_them(few: Splits) -> None:
    batches = list(feed(few.train).batches(0))
    assert len(batches) == 5
    for images, labels in batches:
        assert (images.shape, images.dtype, labels.dtype) == ((16, 1, 8, 8), torch.float32, torch.int64)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.min() == 0 < images.max() <= 1


@pytest.mark.parametrize("loaders", [0, 1, 2])
def test_images_that_are_read_anew_give_the_same_bits(few: Splits, loaders: int) -> None:
    kept, anew = feed(few.train), feed(streamed(few, loaders).train)
    for epoch in range(2):
        assert same(list(anew.batches(epoch)), list(kept.batches(epoch)))


def test_an_epoch_depends_on_seed_and_number_alone(few: Splits) -> None:
    kept = feed(few.train)
    later, first, again = (list(kept.batches(epoch)) for epoch in (1, 0, 1))
    assert same(later, again)
    assert not same(first, later)
    assert not same(first, list(replace(kept, seed=1).batches(0)))


def test_every_image_is_seen_once_an_epoch_in_another_order(few: Splits) -> None:
    plain = feed(few.train, Data(crop=0))
    first, second = (torch.cat([images for images, _ in plain.batches(epoch)]) for epoch in (0, 1))
    assert not torch.equal(first, second)
    for seen in (first, second):
        assert sorted(image.numpy().tobytes() for image in seen) == sorted(
            image.tobytes() for image in few.train.as_float()
        )


def test_images_carry_their_labels(few: Splits) -> None:
    truth = {image.tobytes(): label for image, label in zip(few.train.as_float(), few.train.labels, strict=True)}
    for images, labels in feed(few.train, Data(crop=0)).batches(0):
        assert [truth[image.numpy().tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize("size", [2, 4])
def test_a_worker_reads_and_augments_its_share_and_nothing_else(few: Splits, size: int) -> None:
    """What it gets are the bits of one process that trains alone."""
    whole = list(feed(few.train).batches(0))
    for rank in range(size):
        read: list[int] = []
        mine = list(feed(recorded(few.train, read), workers=Workers(rank, size)).batches(0))
        assert same(mine, [(images[rank::size], labels[rank::size]) for images, labels in whole])
        assert read[1:] == [16 // size] * 5
        assert read[0] == 1, "one image tells their shape"


def test_images_that_fit_are_read_once(few: Splits) -> None:
    read: list[int] = []
    images = replace(recorded(few.train, read), memory=len(few.train) * 64)
    kept = feed(images)
    for epoch in range(2):
        list(kept.batches(epoch))
    assert sorted(read) == [1, 80]
    anew: list[int] = []
    list(feed(replace(recorded(few.train, anew), memory=len(few.train) * 64 - 1)).batches(0))
    assert sorted(anew) == [1, *[16] * 5]


def test_crops_and_flips(few: Splits) -> None:
    """Every augmented image is a window of the padded original or of its mirror image, and many windows occur."""
    pixels = torch.from_numpy(few.train.pixels[:40])
    seen = set()
    choices = torch.rand(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for image, augmented in zip(pixels.numpy(), moved(pixels, choices, MOVING).numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        windows = {
            (top, left, mirrored): padded[:, top : top + 8, left : left + 8][..., :: -1 if mirrored else 1]
            for top in range(3)
            for left in range(3)
            for mirrored in (False, True)
        }
        matches = [at for at, window in windows.items() if np.array_equal(window, augmented)]
        assert matches
        seen.update(matches[:1])
    assert len(seen) > 9
    assert torch.equal(moved(pixels, choices, Data(crop=0)), pixels)


@pytest.mark.parametrize(("choice", "window"), [(0.0, slice(0, 8)), (1 - 2**-53, slice(4, 12))])
def test_crops_reach_both_edges(few: Splits, choice: float, window: slice) -> None:
    pixels = torch.from_numpy(few.train.pixels[:1])
    choices = torch.full((1, 4), choice, dtype=torch.float64)
    padded = torch.nn.functional.pad(pixels, [2] * 4)
    assert torch.equal(moved(pixels, choices, Data(crop=2)), padded[:, :, window, window])


def test_balanced_sampling_draws_every_class_as_often() -> None:
    labels = np.repeat([0, 1], [950, 50])
    images = Images(labels, lambda indices: np.zeros((len(indices), 1, 4, 4), dtype=np.uint8))

    def rare(balanced: bool) -> float:
        subject = replace(feed(images, size=100), balanced=balanced)
        return float(torch.cat([labels for _, labels in subject.batches(0)]).double().mean())

    assert rare(balanced=False) == 0.05
    assert 0.45 < rare(balanced=True) < 0.55


def test_an_image_that_is_drawn_twice_is_augmented_in_several_ways(few: Splits) -> None:
    one = few.train.first(1)
    images = replace(few.train, labels=np.zeros(80, np.int64), read=lambda indices: one.read(np.zeros_like(indices)))
    seen = torch.cat([images for images, _ in replace(feed(images), balanced=True).batches(0)])
    assert len({image.numpy().tobytes() for image in seen}) > 10


def broken(images: Images, act: Callable[[], None], loaders: int) -> Images:
    def read(indices: Indices) -> Pixels:
        if len(indices) > 1:
            act()
        return images.read(indices)

    return replace(images, read=read, memory=0, loaders=loaders)


@pytest.mark.parametrize("loaders", [0, 1])
def test_an_image_that_cannot_be_read_is_named(few: Splits, loaders: int) -> None:
    def damaged() -> None:
        raise DataError("cat.png cannot be read.", fix="remove it")

    with pytest.raises(DataError, match=r"^cat.png cannot be read\.") as caught:
        list(feed(broken(few.train, damaged, loaders)).batches(0))
    assert caught.value.fix == "remove it"


def test_a_process_that_is_lost_is_an_error(few: Splits) -> None:
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match="a process that reads images was lost") as caught:
        list(feed(broken(few.train, killed, 1)).batches(0))
    assert "--loaders" in caught.value.fix


def test_a_run_that_reads_images_anew_and_is_resumed_has_the_same_bits(
    digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path
) -> None:
    recipe = override_recipe(digits_recipe, ("train.epochs=2", "data.crop=1", "data.flip=true"))
    whole = train(recipe, few, tmp_path / "whole", silent)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, streamed(few, 2), tmp_path / "stopped", StopAfterAnEpoch())
    stopped = train(recipe, streamed(few, 1), tmp_path / "stopped", silent, resume=True)
    for one, other in ((whole.weights(), stopped.weights()), (whole.state(), stopped.state())):
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)
