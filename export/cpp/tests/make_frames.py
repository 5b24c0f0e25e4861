"""Images of many sizes, and what Python makes of each by a rule of its own: what test_image.cpp compares with.

``cases`` is int32 [N, 12]: height, width and channels of an image; height, width, resize, height and width that are
covered, antialias and colours of a rule, the enumerators as in ``floats_rt.hpp``; where the image begins in ``images``,
and where what Python makes of it begins in ``expected``.
"""

import numpy as np

from floats_edge.preprocessing import ResolvedPreprocessing, preprocessed, too_thin

CASES = 600
RESIZES = ("short-side", "squash", "pad")
COLOURS = ("rgb", "bgr", "grey")
FRAME = (720, 1280, 3)


def frames() -> dict[str, np.ndarray]:
    """The tensors."""
    chance = np.random.default_rng(0)
    cases, images, expected = [], [], []
    for number in range(CASES):
        shape = _shape(chance, number)
        rule = _rule(chance, number, shape[:2])
        if too_thin(shape[:2], rule) is not None:
            continue
        image = _image(chance, shape)
        made = preprocessed(image, rule)
        begins = [sum(array.size for array in arrays) for arrays in (images, expected)]
        covered = rule.resize_size or rule.size
        choices = (RESIZES.index(rule.resize), *covered, rule.antialias, COLOURS.index(rule.colours))
        cases.append((*shape, *rule.size, *choices, *begins))
        images.append(image.ravel())
        expected.append(made.ravel())
    return {
        "cases": np.array(cases, np.int32).view(np.uint8),
        "images": np.concatenate(images),
        "expected": np.concatenate(expected),
    }


def _shape(chance: np.random.Generator, number: int) -> tuple[int, int, int]:
    """Two are a camera's frame; most are small, and some of the others are one pixel thin."""
    if number < 2:
        return FRAME
    largest = (12, 60, 200)[number % 3]
    height, width = (int(side) for side in chance.integers(1, largest, 2, endpoint=True))
    if (thin := chance.random()) < 0.1:
        height, width = (1, width) if thin < 0.05 else (height, 1)
    return height, width, 1 if chance.random() < 0.3 else 3


def _rule(chance: np.random.Generator, number: int, stored: tuple[int, int]) -> ResolvedPreprocessing:
    """Every twentieth leaves an image as large as it is."""
    if number < 2:
        return ResolvedPreprocessing(size=(224, 224), antialias=number == 0, colours="rgb")
    size = stored if number % 20 == 2 else tuple(int(side) for side in chance.integers(1, 48, 2, endpoint=True))
    resize, covered = chance.choice(RESIZES), None
    if resize == "short-side" and chance.random() < 0.5:
        covered = tuple(side + int(more) for side, more in zip(size, chance.integers(0, 20, 2), strict=True))
    choices = {"size": size, "resize": resize, "resize_size": covered, "colours": chance.choice(COLOURS)}
    return ResolvedPreprocessing.model_validate({**choices, "antialias": bool(chance.random() < 0.6)})


def _image(chance: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Noise; in half of them of the darkest and the lightest grey level alone."""
    image = chance.integers(0, 256, shape, dtype=np.uint8)
    return np.where(image < 128, 0, 255).astype(np.uint8) if chance.random() < 0.5 else image
