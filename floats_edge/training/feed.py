"""What a network is trained on: batches of shuffled and augmented images.

Every random choice is keyed by the seed, the epoch and the place in the epoch's order. So a batch holds the same bits
whether its images are kept in memory or read anew, by however many processes, in a run that was resumed or not, and a
worker's share of it are those of a process that trains alone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from floats_edge.data.order import permutation
from floats_edge.errors import DataError, FloatsError
from floats_edge.images import Images, Indices, Pixels
from floats_edge.recipe import Data
from floats_edge.training.augment import Transform, Variation, moved
from floats_edge.training.distributed import ALONE, Workers
from floats_edge.training.mixing import Mixing

Batch = tuple[Tensor, Tensor]
"""Images, float32 ``[N, C, H, W]`` in [0, 1], channels last, and labels, int64 ``[N]``; of images that are mixed,
probabilities of the classes, float32 ``[N, classes]``."""

_MOST_LOADERS = 8
_ORDER, _AUGMENTATION, LAYERS, _MIXING = 1, 2, 3, 4
"""Streams of random numbers of an epoch, apart from that of the attacks."""


@dataclass(frozen=True, eq=False)
class Feed:
    """Batches of training images for one of the workers.

    Attributes:
        images: to train on.
        data: the recipe's choice of order and augmentation.
        batch_size: images in a batch of all workers.
        seed: of the recipe.
        device: where batches are to be; images that fit in memory live and are augmented there.
        workers: who share every batch.
        transform: of the user's, which augments an image, uint8 ``[C, H, W]``.
        balanced: draw images with replacement, every class as often; else each is drawn once an epoch.
        mixing: of the images of a batch with each other; None: there is none.
    """

    images: Images
    data: Data
    batch_size: int
    seed: int
    device: torch.device
    workers: Workers = ALONE
    transform: Transform | None = None
    balanced: bool = False
    mixing: Mixing | None = None

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.images) // self.batch_size

    def batches(self, epoch: int) -> Iterator[Batch]:
        """This worker's share of each batch of an epoch.

        Raises:
            DataError: an image cannot be read, or a process that reads them was lost.
        """
        places, indices = self._shares(epoch)
        choices = _choices(self.seed, epoch, len(self.images))[places]
        variation = Variation(self.images, self.data, self.transform)
        if variation.any:
            seeds = (choices[:, :, 3] * 2**53).long().tolist()
            pixels = self._streamed(list(zip(indices, seeds, strict=True)), variation.varied)
        elif self.images.fit:
            pixels = self._kept(indices)
        else:
            pixels = self._streamed([(share,) for share in indices], self.images.read)
        labels = self._on_device(self.images.labels[indices])
        for step, (batch, chosen, classes) in enumerate(zip(pixels, choices.to(self.device), labels, strict=True)):
            augmented = moved(batch.to(self.device, non_blocking=True), chosen, self.data)
            images = augmented.contiguous(memory_format=torch.channels_last).float().div_(255)
            if self.mixing is None:
                yield images, classes
            else:
                yield self.mixing.mixed(images, classes, _generator(self.seed, epoch, _MIXING, step))

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _shares(self, epoch: int) -> tuple[Indices, Indices]:
        """This worker's places in the epoch's order, and the images there: ``[steps, share of a batch]`` each.

        What hangs on them goes to the device once an epoch: to wait for it in every step would stop the host.
        """
        places = np.arange(self.steps * self.batch_size).reshape(self.steps, self.batch_size)[:, self.workers.share]
        return places, self._order(epoch)[places]

    def _order(self, epoch: int) -> Indices:
        count, labels = len(self.images), self.images.labels
        if not self.balanced:
            return permutation(count, epoch_seed(self.seed, epoch, _ORDER))
        shares = 1 / np.bincount(labels)[labels]
        return _generator(self.seed, epoch, _ORDER).choice(count, count, p=shares / shares.sum())

    @cached_property
    def _memory(self) -> Tensor:
        return self._on_device(self.images.pixels)

    def _kept(self, indices: Indices) -> Iterator[Tensor]:
        return (self._memory[share] for share in self._on_device(indices))

    def _streamed(self, wanted: Sequence[tuple[Any, ...]], read: Callable[..., Pixels]) -> Iterator[Tensor]:
        """What ``read`` gives for each of ``wanted``, in processes of its own."""
        if self.images.fit and not self.data.resized_crop:
            self.images.pixels  # noqa: B018 - read before there are several processes, which then share them
        loaders = _spare_cpus(self.workers) if self.images.loaders is None else self.images.loaders
        loader = DataLoader(
            _Read(read),
            batch_size=None,
            sampler=wanted,
            num_workers=loaders,
            generator=torch.Generator(),
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="fork" if loaders else None,
        )
        batches = iter(loader)
        while True:
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                raise DataError(
                    f"a process that reads images was lost: {' '.join(str(error).split())}",
                    fix="start again with --resume, with more memory or fewer --loaders",
                ) from None
            if batch is None:
                return
            if isinstance(batch, FloatsError):
                raise batch
            yield batch


class _Read(Dataset[Tensor | FloatsError]):
    """Images by the batch; an error is given back as a value, as a process cannot raise it here."""

    def __init__(self, read: Callable[..., Pixels]) -> None:
        self.read = read

    def __getitem__(self, wanted: tuple[Any, ...]) -> Tensor | FloatsError:
        try:
            return torch.from_numpy(self.read(*wanted))
        except FloatsError as error:
            return error


def _spare_cpus(workers: Workers) -> int:
    """Processes that may read images for one of the workers: its share of the CPUs but for the one it computes on."""
    return max(1, min(_MOST_LOADERS, len(os.sched_getaffinity(0)) // workers.size - 1))


def epoch_seed(seed: int, epoch: int, *stream: int) -> int:
    """A seed of 63 bits for an epoch, or for one of its streams of random numbers."""
    return int(np.random.SeedSequence((seed, epoch, *stream)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _generator(seed: int, epoch: int, *stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(epoch_seed(seed, epoch, *stream)))


def _choices(seed: int, epoch: int, count: int) -> Tensor:
    """Four random numbers in [0, 1) for each place in the order of an epoch: float64 ``[count, 4]``."""
    return torch.from_numpy(_generator(seed, epoch, _AUGMENTATION).random((count, 4)))
