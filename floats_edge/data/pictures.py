"""Pictures as users have them (files, images of Pillow, arrays) to what a network takes; nothing is said of classes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from floats_edge.data.decode import DamagedError, pillow_heeded, upright_rgb
from floats_edge.data.files import file_pixels
from floats_edge.errors import DataError
from floats_edge.preprocessing import Pixels, ResolvedPreprocessing, preprocessed

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = str | Path | Image | Pixels


def picture_batches(
    pictures: "Sequence[Picture]", preprocessing: ResolvedPreprocessing, size: int
) -> Iterator[NDArray[np.float32]]:
    """What a network takes, ``size`` pictures at a time: float32 ``[n, C, H, W]`` in [0, 1].

    Files are decoded as those of a data set, and images of Pillow turned to RGB by the same rules; arrays are uint8
    ``[H, W, 3]`` (red first), ``[H, W, 1]`` or ``[H, W]``.

    Raises:
        DataError: there is none, or one is damaged or none of these.
    """
    one_array = isinstance(pictures, np.ndarray) and pictures.ndim < 4
    if isinstance(pictures, str) or one_array or not isinstance(pictures, Sequence | np.ndarray):
        raise DataError(
            f"a list of images is wanted, not a single {type(pictures).__name__}.",
            fix="put it into a list: predict_images([image])",
        )
    if len(pictures) == 0:
        raise DataError("there is no image in the list.", fix="give at least one")
    for start in range(0, len(pictures), size):
        with pillow_heeded():
            stop = min(start + size, len(pictures))
            batch = [_pixels(pictures[position], position, preprocessing) for position in range(start, stop)]
        yield np.divide(np.stack(batch), 255, dtype=np.float32)


def _pixels(picture: "Picture", position: int, preprocessing: ResolvedPreprocessing) -> Pixels:
    """One picture, uint8 ``[C, H, W]``; errors name the file, or the position in the list."""
    if isinstance(picture, str | Path):
        try:
            return file_pixels(Path(picture), preprocessing)
        except DamagedError as error:
            raise _unreadable(str(picture), error) from None
    name = f"images[{position}]"
    try:
        return preprocessed(_upright(picture), preprocessing)
    except DamagedError as error:
        raise _unreadable(name, error) from None
    except DataError as error:
        raise DataError(f"{name}: {error.what}", fix=error.fix) from None


def _upright(picture: "Image | Pixels") -> "Image | Pixels":
    from PIL import Image

    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    if isinstance(picture, np.ndarray):
        return picture
    raise DataError(f"it is a {type(picture).__name__}.", fix="give paths, images of Pillow, or NumPy arrays of uint8")


def _unreadable(name: str, error: DamagedError) -> DataError:
    return DataError(f"{name} cannot be read: {error}.", fix="replace it, or leave it out")
