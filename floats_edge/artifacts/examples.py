"""Images that a network got wrong, kept beside their evaluation: one PNG, whose identity the evaluation states."""

import io
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import Self

from floats_edge.artifacts.files import FileEntry, FileName, FileSet, file_entry
from floats_edge.errors import ArtifactError
from floats_edge.recipe import Lambda, Section

MOST_EXAMPLES = 24
"""That an evaluation keeps."""
LONGEST_SIDE = 128
"""Of an image that is kept, in pixels; a larger one is kept smaller."""

Pictures = NDArray[np.uint8]
"""Of every example the clean and the attacked image, ``[N, 2, C, H, W]``."""

_REMEDY = "evaluate again: floats-edge evaluate, with --out as before"


class Example(Section):
    """What a network took one image for."""

    lam: Lambda
    image: int = Field(ge=0, description="where it stands among the images of the evaluation")
    truth: str
    clean: str = Field(description="the answer to the image as it is")
    attacked: str = Field(description="the answer to the attacked image")

    @model_validator(mode="after")
    def _is_wrong(self) -> Self:
        if self.truth == self.clean == self.attacked:
            raise ValueError("an example is an image that is wrong, clean or attacked")
        return self

    @property
    def fooled(self) -> bool:
        """Whether it took an attack to make the network wrong."""
        return self.truth == self.clean


class Examples(Section):
    """A PNG that shows a row for each example: the clean image, and the attacked one beside it."""

    file: FileName = Field(description="relative to the folder of the evaluation")
    entry: FileEntry
    channels: Literal[1, 3]
    height: int = Field(gt=0, le=LONGEST_SIDE, description="of one image, in pixels")
    width: int = Field(gt=0, le=LONGEST_SIDE)
    shown: tuple[Example, ...] = Field(min_length=1, max_length=MOST_EXAMPLES)

    @model_validator(mode="after")
    def _bytes_are_of_pixels(self) -> Self:
        pixels = 2 * len(self.shown) * self.channels * self.height * self.width
        if self.entry.bytes > 2 * pixels + 2**16:
            raise ValueError(f"{self.entry.bytes} bytes are too many for {pixels} values of pixels")
        return self


def picture_name(record: Path) -> str:
    """What the pictures beside an evaluation are called."""
    stem = re.sub(r"[^A-Za-z0-9._+=-]", "-", record.stem)[:200]
    return f"{stem if stem[:1].isalnum() else f'evaluation{stem}'}-examples.png"


def pack_examples(shown: Sequence[Example], pictures: Pictures, name: str) -> tuple[Examples, bytes]:
    """What an evaluation keeps of examples, and the bytes of the PNG ``name``."""
    from PIL import Image

    count, _, channels, height, width = pictures.shape
    sheet = pictures.transpose(0, 3, 1, 4, 2).reshape(count * height, 2 * width, channels)
    data = io.BytesIO()
    Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet).save(data, "PNG")
    examples = Examples.model_validate(
        {
            "file": name,
            "entry": file_entry(data.getvalue()),
            "channels": channels,
            "height": height,
            "width": width,
            "shown": tuple(shown),
        }
    )
    return examples, data.getvalue()


def read_pictures(examples: Examples, folder: Path) -> Pictures | None:
    """The pictures of an evaluation that stands in ``folder``; None: their file is not there.

    Raises:
        ArtifactError: it leads out of the folder, is not what was written, or is no PNG of the stated size.
    """
    files = FileSet(folder, {examples.file: examples.entry}, _REMEDY)
    if not (folder / examples.file).exists():
        return None
    files.check()
    return _decoded(examples, files.read(examples.file), folder / examples.file)


def _decoded(examples: Examples, data: bytes, path: Path) -> Pictures:
    from PIL import Image

    count, channels, height, width = len(examples.shown), examples.channels, examples.height, examples.width
    wanted = {1: "L", 3: "RGB"}[channels], (2 * width, count * height)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if (image.mode, image.size) != wanted:  # before anything is unpacked
                raise ValueError(f"{image.mode} {image.size} instead of {wanted[0]} {wanted[1]}")
            sheet = np.asarray(image)
    except (OSError, ValueError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise ArtifactError(f"{path} is no picture of these examples: {error}.", fix=_REMEDY) from None
    return sheet.reshape(count, height, 2, width, channels).transpose(0, 2, 4, 1, 3)
