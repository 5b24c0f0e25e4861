"""A training of some seconds, on images that need no download and no other package."""

from pathlib import Path

SMALL = (
    "data.dataset=folder",
    "data.preprocessing.size=16",
    "data.preprocessing.colours=grey",
    "data.crop=0",
    "model.arguments.width=8",
    "train.epochs=2",
    "train.lr=0.05",
    "evaluate.attack.steps=5",
    "evaluate.images=200",
)
"""What makes the quickstart recipe small enough for a check of some seconds."""
TRAINING = "quickstart recipe, ResNet-8 of width 8, batch 64, 16x16 images, 2 epochs of 9 steps, N-FGSM"


def write_images(folder: Path) -> Path:
    """Grey images of 16x16 pixels, drawn by seed 0: a coarse pattern for each of 10 classes, with noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    patterns = np.kron(rng.integers(40, 216, (10, 4, 4)), np.ones((4, 4)))
    for half, count in (("train", 64), ("test", 20)):
        for label, pattern in enumerate(patterns):
            place = folder / half / str(label)
            place.mkdir(parents=True)
            for index in range(count):
                pixels = (pattern + rng.normal(0, 25, pattern.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder
