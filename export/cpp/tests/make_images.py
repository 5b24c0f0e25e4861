#!/usr/bin/env python3
"""Write some of scikit-learn's digits as PNG and JPEG files, one folder per label, for the examples.

usage: make_images.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

IMAGES = 200


def main(folder: Path) -> None:
    """Fill ``folder``."""
    digits = load_digits()
    for index in range(IMAGES):
        image = Image.fromarray(np.round(digits.images[index] * 255 / 16).astype(np.uint8)).convert("RGB")
        path = folder / str(digits.target[index]) / f"{index}.{'jpg' if index % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
