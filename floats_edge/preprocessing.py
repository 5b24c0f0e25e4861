"""From an image to the pixels that a network takes: one value says how, in training, in a bundle and at a camera.

:func:`preprocessed` is the one place where it happens. Every number below is exact, so that other languages can do the
same: ``h``, ``w`` are of the image, ``H``, ``W`` of ``size``, ``H'``, ``W'`` of ``resize_size`` (``size`` if none),
``//`` rounds down, and all pixels are 8-bit.

| step                     | rule                                                                                     |
| ------------------------ | ---------------------------------------------------------------------------------------- |
| 1. colours               | to ``grey``: (19595 R + 38470 G + 7471 B + 32768) // 65536, Pillow's; from grey to       |
|                          | ``rgb`` or ``bgr``: the same value three times                                           |
| 2. scale, ``short-side`` | until the image covers H' x W': to H', w H' // h if h W' <= w H'; else to h W' // w, W'  |
|    ``pad``               | until it just fits into H x W: to H, max(1, w H // h) if w H <= h W; else to             |
|                          | max(1, h W // w), W                                                                      |
|    ``squash``            | to H, W                                                                                  |
|    antialias             | Pillow's BILINEAR: a triangle as wide as two output pixels, in the input, horizontally,  |
|                          | rounded to 8 bits, then vertically, rounded again (libImaging/Resample.c)                |
|    no antialias          | the two nearest pixels in each direction, by centres: output pixel i of n lies at        |
|                          | ((2 i + 1) m - n) / (2 n) of m pixels, held inside 0 ... m - 1; the share of the later   |
|                          | one is rounded to 1/2048, a half up, and the sum of the four to a whole number, a half   |
|                          | up (OpenCV's INTER_LINEAR to within one grey level)                                      |
|    unchanged             | an image that has that height and width already stays as it is, bit for bit              |
| 3. ``short-side``        | rows from (scaled height - H) / 2 on, a half rounded to the even number, H of them are   |
|                          | kept; columns alike (torchvision's Resize and CenterCrop)                                |
|    ``pad``               | (H - scaled height) // 2 rows of black, 0 in each channel, above; what is missing below; |
|                          | columns alike                                                                            |
| 4. order                 | ``bgr``: blue first                                                                      |

Then a network takes value / 255, float32 in [0, 1]; mean and standard deviation, inside the network, do the rest.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from typing_extensions import Self

from floats_edge.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]
"""``(C, H, W)`` of one image."""
Colours = Literal["rgb", "bgr", "grey"]

LARGEST_SIDE = 4096
"""Of what a network takes, in pixels."""
LARGEST_SCALED = 89_478_485
"""Pixels of an image while it is scaled: as many as a file may have (``PIL.Image.MAX_IMAGE_PIXELS``)."""
_ONE = 2048
"""Weights of two-tap interpolation are whole numbers over this, as OpenCV's are."""


def _both(value: Any) -> Any:
    """Height and width of one number or of two, and an error that names the whole if they are none."""
    sides = (value, value) if type(value) is int else value
    if not isinstance(sides, list | tuple) or len(sides) != 2 or any(type(side) is not int for side in sides):
        raise ValueError(f"{value!r} is neither a number of pixels nor [height, width]")
    if not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise ValueError(f"{value} is outside of 1 to {LARGEST_SIDE} pixels")
    return tuple(sides)


_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
_Sides = tuple[_Side, _Side]
Size = Annotated[_Sides, BeforeValidator(_both)]
"""Height and width in pixels; one number stands for both."""


class Preprocessing(BaseModel, frozen=True, extra="forbid"):
    """How an image becomes what a network takes. What is null is decided by the images that it is trained on."""

    size: Size | None = Field(
        default=None,
        description="height and width that the network takes, or one number for both; null: as stored, all images "
        "have one size",
    )
    resize: Literal["short-side", "squash", "pad"] = Field(
        default="short-side",
        description="short-side: scale the image until it covers resize_size, keep the centre; squash: scale both "
        "sides at once; pad: scale it until it fits, fill up with black",
    )
    resize_size: Size | None = Field(
        default=None,
        description="short-side: height and width that the scaled image covers, or one number, as in resize 256, crop "
        "224; null: size",
    )
    antialias: bool = Field(
        default=True,
        description="average over all pixels when scaling down, as Pillow does; false: two in each direction",
    )
    colours: Colours | None = Field(
        default=None, description="channels, in their order; null: grey where the images have one channel, else rgb"
    )

    @model_validator(mode="after")
    def _only_what_covers_is_cropped(self) -> Self:
        if self.resize_size is None:
            return self
        if self.resize != "short-side":
            raise ValueError(f"resize: {self.resize} reads no resize_size: leave it out, or choose resize: short-side")
        if self.size is None or self.resize_size[0] < self.size[0] or self.resize_size[1] < self.size[1]:
            raise ValueError(f"resize_size {self.resize_size} needs a size that is no larger, not {self.size}")
        return self

    def resolved(self, shape: Shape) -> "ResolvedPreprocessing":
        """The same with nothing left open, for a network whose images are of ``shape``, ``(C, H, W)``."""
        channels, height, width = shape
        colours = self.colours or ("grey" if channels == 1 else "rgb")
        return ResolvedPreprocessing(**{**self.model_dump(), "size": (height, width), "colours": colours})


class ResolvedPreprocessing(Preprocessing, frozen=True):
    """:class:`Preprocessing` with nothing left open, as it stands with a trained network."""

    size: _Sides = Field(description="height and width that the network takes")
    resize_size: _Sides | None = Field(
        default=None, description="short-side: what the scaled image covers before it is cropped; null: size"
    )
    colours: Colours = Field(description="channels that the network takes, in their order")

    @property
    def shape(self) -> Shape:
        """``(C, H, W)`` of what the network takes."""
        return (1 if self.colours == "grey" else 3, *self.size)

    @property
    def title(self) -> str:
        """What is done, for people."""
        width_first = f"{self.size[1]}x{self.size[0]}"
        how = {
            "short-side": f"scaled to cover {width_first} pixels, centre kept",
            "squash": f"scaled to {width_first} pixels, whatever the proportions",
            "pad": f"scaled to fit into {width_first} pixels, centred on black",
        }[self.resize]
        if self.resize_size is not None:
            how = f"scaled to cover {self.resize_size[1]}x{self.resize_size[0]} pixels, centre {width_first} kept"
        return f"{how}; bilinear, {'' if self.antialias else 'not '}antialiased; {self.colours}, values / 255"


def preprocessed(image: "Image | Pixels", preprocessing: Preprocessing) -> Pixels:
    """The pixels that a network takes, uint8 ``[C, H, W]``, by the table at the top of this file.

    Args:
        image: upright; of Pillow's mode RGB or L, or uint8 ``[H, W, 3]`` (red first), ``[H, W, 1]`` or ``[H, W]``.
        preprocessing: what is done; its size or colours that are None stay as they are.

    Raises:
        DataError: it is no such image, or takes too many pixels while it is scaled.
    """
    upright = picture(image)
    if preprocessing.colours is not None:
        mode = "L" if preprocessing.colours == "grey" else "RGB"
        upright = upright if upright.mode == mode else upright.convert(mode)
    pixels = _sized(upright, preprocessing)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if preprocessing.colours == "bgr":
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def picture(image: "Image | Pixels") -> "Image":
    """An image as :func:`preprocessed` takes it, as one of Pillow, of mode RGB or L.

    Raises:
        DataError: it is none.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        if image.mode not in ("RGB", "L"):
            raise _no_image(f"an image of mode {image.mode}")
        made = image
    else:
        grey = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        if image.dtype != np.uint8 or not (grey.ndim == 2 or (grey.ndim == 3 and grey.shape[2] == 3)):
            raise _no_image(f"an array of {image.dtype} {list(image.shape)}")
        made = Image.fromarray(grey)
    if 0 in made.size:
        raise _no_image("an image without pixels")
    return made


def _no_image(found: str) -> DataError:
    return DataError(
        f"{found} is not what can be preprocessed.",
        fix="give an RGB or grey image, or an array of uint8 [height, width, 3], red first, or [height, width]",
    )


def _sized(picture: "Image", preprocessing: Preprocessing) -> Pixels:
    """Steps 2 and 3 of the table: ``[H, W]`` or ``[H, W, 3]``."""
    stored = picture.height, picture.width
    size, scaled = preprocessing.size or stored, scaled_size(stored, preprocessing)
    _check_sides(size)
    if (reason := too_thin(stored, preprocessing)) is not None:
        raise DataError(
            f"an image cannot be scaled: {reason}.",
            fix="leave it out, or train with -o data.preprocessing.resize=pad",
        )
    interpolated = _by_pillow if preprocessing.antialias else _by_two_taps
    if preprocessing.resize == "pad":
        return _on_black(interpolated(picture, scaled, (0, 0), scaled), size)
    return interpolated(picture, scaled, crop_offset(scaled, size), size)


def scaled_size(stored: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width to which an image is scaled, before it is cropped or filled up."""
    if preprocessing.size is None:
        return stored
    if preprocessing.resize == "squash":
        return preprocessing.size
    (height, width), (down, across) = stored, preprocessing.resize_size or preprocessing.size
    by_height = height * across <= width * down
    if preprocessing.resize == "pad":
        by_height = width * down <= height * across
    if by_height:
        return down, max(1, width * down // height)
    return max(1, height * across // width), across


def too_thin(stored: tuple[int, int], preprocessing: Preprocessing) -> str | None:
    """Why an image of that height and width would take too many pixels while it is scaled; None: it does not.

    It is scaled horizontally first, so that for a while there are as many rows as before.
    """
    scaled = scaled_size(stored, preprocessing)
    if scaled == stored or max(stored[0], scaled[0]) * scaled[1] <= LARGEST_SCALED:
        return None
    return (
        f"it has {stored[1]}x{stored[0]} pixels and is too thin: to scale it to {scaled[1]}x{scaled[0]} takes more "
        f"than {LARGEST_SCALED:,} pixels"
    )


def leaves_alone(shape: Shape, preprocessing: Preprocessing) -> bool:
    """Whether images of ``shape``, ``(C, H, W)``, come out of :func:`preprocessed` as they are."""
    channels, *sides = shape
    stored = sides[0], sides[1]
    kept = preprocessing.size in (None, stored) and scaled_size(stored, preprocessing) == stored
    return kept and preprocessing.colours in (None, "grey" if channels == 1 else "rgb")


def crop_offset(scaled: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The first row and column of a scaled image that are kept."""
    top, left = (round((have - want) / 2) for have, want in zip(scaled, size, strict=True))
    return top, left


def _check_sides(size: tuple[int, int]) -> None:
    if max(size) > LARGEST_SIDE:
        raise DataError(
            f"an image has {size[1]}x{size[0]} pixels, and a network takes up to {LARGEST_SIDE} in each direction.",
            fix="scale it while reading: -o data.preprocessing.size=PIXELS",
        )


def _by_pillow(picture: "Image", scaled: tuple[int, int], first: tuple[int, int], size: tuple[int, int]) -> Pixels:
    """The part of ``size`` of the scaled image that begins in row and column ``first``, antialiased.

    One direction at a time: which comes first changes the rounding, and Pillow 13 chooses otherwise than Pillow 12 did.
    """
    from PIL import Image

    for wanted in ((scaled[1], picture.height), (scaled[1], scaled[0])):
        if picture.size != wanted:
            picture = picture.resize(wanted, Image.Resampling.BILINEAR)
    (top, left), (height, width) = first, size
    return np.asarray(picture)[top : top + height, left : left + width]


def _by_two_taps(picture: "Image", scaled: tuple[int, int], first: tuple[int, int], size: tuple[int, int]) -> Pixels:
    """The same of the four nearest pixels, in whole numbers; only the part that is kept is computed."""
    pixels = np.asarray(picture)
    for axis in (0, 1):
        before, after, weight = _taps(pixels.shape[axis], scaled[axis], first[axis], size[axis])
        weight = weight.reshape(-1, *(1,) * (pixels.ndim - 1 - axis))
        pixels = np.take(pixels, before, axis) * (_ONE - weight) + np.take(pixels, after, axis) * weight
    return ((pixels + _ONE**2 // 2) // _ONE**2).astype(np.uint8)


def _taps(inputs: int, outputs: int, first: int, count: int) -> tuple[NDArray[np.signedinteger], ...]:
    """Which two of ``inputs`` pixels make each of ``count`` of ``outputs`` pixels, and the weight of the second."""
    position = (2 * np.arange(first, first + count, dtype=np.int64) + 1) * inputs - outputs
    before, part = np.divmod(np.clip(position, 0, 2 * outputs * (inputs - 1)), 2 * outputs)
    weight = (part * _ONE + outputs) // (2 * outputs)
    return before, np.minimum(before + 1, inputs - 1), weight.astype(np.int32)


def _on_black(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    top, left = ((want - have) // 2 for want, have in zip(size, pixels.shape[:2], strict=True))
    canvas = np.zeros((*size, *pixels.shape[2:]), dtype=np.uint8)
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas
