"""Show a network corrupted images at every lambda."""

from collections.abc import Callable, Sequence

import numpy as np

from floats_edge.artifacts.corruptions import Corruptions
from floats_edge.corruptions import SEVERITIES
from floats_edge.corruptions.severities import CORRUPTIONS, corrupted
from floats_edge.evaluation.batch import LARGEST_BATCH
from floats_edge.evaluation.robustness import answers
from floats_edge.images import Images
from floats_edge.preprocessing import Colours
from floats_edge.runtime.base import Predictor

VERSIONS = len(CORRUPTIONS) * len(SEVERITIES)
"""Corrupted versions of each image."""


def measure_corruptions(
    engine: Predictor,
    images: Images,
    colours: Colours,
    lambdas: Sequence[float],
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
    batch: int = LARGEST_BATCH,
) -> Corruptions:
    """Count how many images are right under every corruption, at each of ``lambdas``, which all see the same versions.

    Args:
        engine: what is evaluated.
        images: labelled images.
        colours: order of their channels.
        lambdas: one or more.
        seed: of all that is drawn.
        progress: told how many (version of an image, lambda) pairs were just finished.
        batch: images at a time.

    Raises:
        LambdaError: the engine does not serve one of the lambdas.
        ArtifactError: its logits are no numbers.
    """
    turn = -1 if colours == "bgr" else 1
    right = {name: np.zeros((len(SEVERITIES), len(lambdas)), int) for name in CORRUPTIONS}
    together = np.zeros((len(lambdas), len(lambdas)), int)
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        pixels, labels = images.at(part)[:, ::turn], images.labels[part]
        of_image = np.zeros((len(labels), len(lambdas)), int)
        for name, counts in right.items():
            versions = [
                np.stack([corrupted(image, name, severity, seed, start + i) for i, image in enumerate(pixels)])
                for severity in SEVERITIES
            ]
            for place, lam in enumerate(lambdas):
                engine.set_lambda(lam)
                for row, version in zip(counts, versions, strict=True):
                    found = answers(engine, np.divide(version[:, ::turn], 255, dtype=np.float32)) == labels
                    of_image[:, place] += found
                    row[place] += found.sum()
                    progress(len(labels))
        together += of_image.T @ of_image
    return Corruptions(
        lambdas=tuple(lambdas),
        images=len(images),
        right={name: tuple(map(tuple, counts.tolist())) for name, counts in right.items()},
        together=tuple(map(tuple, together.tolist())),
    )
