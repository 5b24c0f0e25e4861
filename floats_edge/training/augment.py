"""How a training image is changed at random: some changes are made image by image, some of whole batches.

All random numbers are given: what is done with an image depends on nothing else.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from floats_edge.errors import DataError
from floats_edge.images import Images, Indices, Pixels
from floats_edge.recipe import Data

if TYPE_CHECKING:
    from PIL.Image import Image

Transform = Callable[[Tensor], Tensor]


def moved(pixels: Tensor, choices: Tensor, data: Data) -> Tensor:
    """Random crops after zero-padding, and random horizontal flips, of a batch.

    Args:
        pixels: uint8 ``[N, C, H, W]``.
        choices: three numbers in [0, 1) for each image, on its device: where its crop begins, from the top and from the
            left, and whether it is mirrored.
        data: says how far crops may move, and whether images are mirrored.
    """
    height, width = pixels.shape[2:]
    if data.crop:
        top, left = (choices[:, :2] * (2 * data.crop + 1)).long().unbind(1)
        windows = pad(pixels, [data.crop] * 4).unfold(2, height, 1).unfold(3, width, 1)
        pixels = windows[torch.arange(len(pixels), device=pixels.device), :, top, left]
    if data.flip:
        pixels = torch.where((choices[:, 2] < 0.5).view(-1, 1, 1, 1), pixels.flip(3), pixels)
    return pixels


@dataclass(frozen=True, eq=False)
class Variation:
    """The changes that are made image by image, by torchvision and by the user.

    Attributes:
        images: to be changed.
        data: says which changes.
        transform: of the user's, uint8 ``[C, H, W]`` to the same; after the others.
    """

    images: Images
    data: Data
    transform: Transform | None = None

    @property
    def any(self) -> bool:
        """Whether there are such changes at all."""
        data = self.data
        return bool(data.resized_crop or data.jitter or data.policy != "none" or self.transform)

    def varied(self, indices: Indices, seeds: list[int]) -> Pixels:
        """The images at ``indices``, each changed by its seed: uint8 ``[n, C, H, W]``.

        Raises:
            DataError: an image cannot be read, or a transform gives something else.
        """
        stored = None if self.data.resized_crop else self.images.at(indices)
        drawn: list[Pixels] = []
        with _own_chance():
            for at, (position, seed) in enumerate(zip(indices, seeds, strict=True)):
                _seed(seed)
                pixels = self._cropped(int(position)) if stored is None else stored[at]
                for transform in self._transforms:
                    pixels = _changed(pixels, transform)
                drawn.append(pixels)
        return np.stack(drawn)

    def _cropped(self, position: int) -> Pixels:
        changed = self.images.changed
        assert changed is not None, "images that are read are stored somewhere"
        return changed(position, self._crop)

    @cached_property
    def _crop(self) -> "Callable[[Image], Image]":
        from torchvision.transforms import v2

        assert self.data.resized_crop is not None
        return v2.RandomResizedCrop(self.images.shape[1:], self.data.resized_crop)

    @cached_property
    def _transforms(self) -> list[Transform]:
        from torchvision.transforms import v2

        jitter = self.data.jitter
        policies = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}
        transforms: list[Transform] = [v2.ColorJitter(jitter, jitter, jitter)] if jitter else []
        transforms += [policies[self.data.policy]()] if self.data.policy != "none" else []
        return [*transforms, self.transform] if self.transform is not None else transforms


def _changed(pixels: Pixels, transform: Transform) -> Pixels:
    image = torch.from_numpy(pixels)
    try:
        made = transform(image)
    except Exception as error:
        raise DataError(
            f"the transform failed: {type(error).__name__}: {error}",
            fix=f"let it take images of {image.dtype} {list(image.shape)}",
        ) from error
    if not isinstance(made, Tensor) or (made.shape, made.dtype) != (image.shape, image.dtype):
        found = f"{made.dtype} {list(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise DataError(
            f"the transform makes {found} of an image of {image.dtype} {list(image.shape)}.",
            fix="let it give the same shape and type: images are scaled before it and normalised inside the network",
        )
    return made.numpy()


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - a user's transform may draw from it


@contextmanager
def _own_chance() -> Iterator[None]:
    """Give the caller's generators back as they were: in one process, training draws from them too."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
