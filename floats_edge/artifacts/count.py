"""Numbers of images in a record."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0, le=2**53)]
Row = Annotated[tuple[Count, ...], Field(min_length=1, max_length=64)]
"""One for every lambda."""
