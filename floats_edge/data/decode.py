"""One image file, or one image that Pillow opened, to an upright image in RGB: the rule for each kind of pixel.

All images come out as RGB of 8 bits, so a data set may mix all of these:

| in the file                        | rule                                                                            |
| ---------------------------------- | ------------------------------------------------------------------------------- |
| grey, 1 bit                        | the same value in the three channels; 1 bit: black and white                    |
| palette                            | the colours that it stands for                                                  |
| alpha, or a transparent colour     | laid over white                                                                 |
| CMYK, YCbCr, HSV                   | Pillow's formula; colour profiles are not applied                               |
| 16 bits, grey or colour            | the upper 8 bits, whatever the range of the image                               |
| 32-bit integers                    | as 16 bits; refused where a value is outside 0 ... 65535                        |
| floating point                     | 0 is black, 1 is white; refused where a value is outside [0, 1] or no number    |
| an orientation in EXIF             | the image is turned, and mirrored, to stand upright                             |
| several images (GIF, TIFF, MPO, …) | the first                                                                       |
| more than 89,478,485 pixels        | refused before they are unpacked (``PIL.Image.MAX_IMAGE_PIXELS``)               |
"""

import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "QOI")
"""What Pillow is asked to read, whatever a file is called: none of these starts another program, as EPS does."""
_UNMARKED = {".tga": "TGA", ".ico": "ICO", ".pcx": "PCX"}
"""Formats that a file is only taken for if it is called so: their first bytes say too little."""
_ORIENTATION = 0x0112
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for files that are no images or damaged ones."""


class DamagedError(Exception):
    """An image that cannot be read; the text says why."""


@contextmanager
def pillow_heeded() -> Iterator[None]:
    """Have Pillow refuse images that are too large, of which it would warn, and be silent about odd metadata.

    It goes around the threads that decode, as warnings are the process's.
    """
    from PIL.Image import DecompressionBombWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        warnings.simplefilter("error", DecompressionBombWarning)
        yield


def decode(file: Path) -> "Image":
    """One image file, upright, in RGB of 8 bits.

    Raises:
        DamagedError: it cannot be read.
    """
    from PIL import Image

    with _damage_told():
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise DamagedError("it is not a file")
            with Image.open(file, formats=_formats(file)) as image:
                return upright_rgb(image)
        except Image.UnidentifiedImageError:
            raise DamagedError(_unidentified(file)) from None


def upright_rgb(image: "Image") -> "Image":
    """An image that Pillow opened or made, upright, in RGB of 8 bits.

    Raises:
        DamagedError: it cannot be read.
    """
    with _damage_told():
        _check_size(image)
        image.load()
        return _upright(_rgb(image), image)


@contextmanager
def _damage_told() -> Iterator[None]:
    """What Pillow raises of an image that cannot be read, as our own error."""
    from PIL import Image

    try:
        yield
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DamagedError(" ".join(reason.split()).rstrip(".") or type(error).__name__) from None


def _formats(file: Path) -> list[str]:
    from PIL import Image

    Image.init()
    wanted = (*FORMATS, _UNMARKED.get(file.suffix.lower(), ""))
    return [name for name in wanted if name in Image.OPEN]


def _unidentified(file: Path) -> str:
    return "it is empty" if file.stat().st_size == 0 else "it is no image of a format that is read"


def _check_size(image: "Image") -> None:
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise DamagedError(f"it has {image.width}x{image.height} pixels, and up to {most:,} are read")


def _upright(rgb: "Image", image: "Image") -> "Image":
    """``rgb``, turned as the EXIF block of ``image`` says; as stored where that cannot be read."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:  # after loading: Pillow may have turned it by then, and says so here
        turn = turns.get(image.getexif().get(_ORIENTATION, 1))
    except _UNREADABLE:
        turn = None
    return rgb if turn is None else rgb.transpose(turn)


def _rgb(image: "Image") -> "Image":
    """By the table at the top of this file."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DamagedError("it holds integers outside 0 to 65535: save it with 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise DamagedError("it holds floating-point numbers outside 0 (black) to 1 (white): scale them")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(opaque, _rgba(image)).convert("RGB")
    return image.convert("RGB")


def _rgba(image: "Image") -> "Image":
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)  # colours that were multiplied with alpha
    return (image if straight is None else image.convert(straight)).convert("RGBA")
