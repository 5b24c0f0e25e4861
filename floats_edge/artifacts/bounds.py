"""How much a manifest may hold: the types of its values. With them its JSON Schema bounds every list and text."""

import re
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from floats_edge.method.fold import MOST_LAMBDAS
from floats_edge.recipe import Lambda

LARGEST_TENSOR = 2**31
"""Numbers in what is allocated on the manifest's word alone: 8 GiB of floats, as in C++."""
MOST_LABELS = 2**15
MOST_LAYERS = 1024
MOST_ENGINES = 1024
MOST_FILES = 4096
MOST_BACKENDS = 16
MOST_PROBLEMS = 1024
LARGEST_TOLERANCE = 0.1
"""Of golden outputs, over the range of the logits: what is further off is another network."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _plain(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError(f"{text!r} holds a control character")
    return text


def _distinct(lambdas: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(np.asarray(lambdas, np.float32).tolist())) < len(lambdas):
        raise ValueError(f"of {', '.join(map(str, lambdas))} two are the same in float32")
    return lambdas


Axis = Annotated[int, Field(gt=0, le=LARGEST_TENSOR)]
"""Size of a tensor along one axis."""
Name = Annotated[str, Field(max_length=256), AfterValidator(_plain)]
"""What something is called: no terminal obeys it, as no text of a manifest."""
Remark = Annotated[str, Field(max_length=2**16), AfterValidator(_plain)]
"""What was found, in words."""
LayerNames = Annotated[tuple[Name, ...], Field(max_length=MOST_LAYERS)]
Lambdas = Annotated[tuple[Lambda, ...], Field(min_length=1, max_length=MOST_LAMBDAS), AfterValidator(_distinct)]
"""Lambdas that differ, also in the float32 that engines compute with."""
