"""Golden outputs: what an engine must give for a few real images, to the tolerance that its bundle states."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle
from floats_edge.artifacts.files import Tensors
from floats_edge.errors import ArtifactError, ParityError
from floats_edge.runtime.base import Images, Logits, Predictor

MOST_IMAGES = 256
"""Golden images, as in C++."""


@dataclass(frozen=True, eq=False)
class GoldenOutputs:
    """Real images and the logits that the trained network gives for them, or in int8 the graph, on ONNX Runtime's CPU.

    Attributes:
        images: float32 ``[N, C, H, W]``.
        logits: float32 ``[N, classes]`` by lambda.
        tolerance: allowed absolute error over the range of the logits.
    """

    images: Images
    logits: Mapping[float, Logits]
    tolerance: float


def read_golden(bundle: Bundle) -> GoldenOutputs:
    """The golden outputs of a bundle; read them before an engine is deserialised.

    Raises:
        ArtifactError: the file is not what was exported, or does not fit the manifest.
    """
    manifest, golden = bundle.manifest, bundle.manifest.golden
    tensors = bundle.tensors(golden.file)
    images = _tensor(tensors, "images", (None, *manifest.input.shape), bundle)
    if len(images) > MOST_IMAGES or not np.isfinite(images).all():
        raise _invalid(bundle, f"its images are not up to {MOST_IMAGES} of finite numbers")
    shape = (len(images), len(manifest.output.labels))
    logits = {lam: _tensor(tensors, f"logits_{index}", shape, bundle) for index, lam in enumerate(golden.lambdas)}
    for lam, values in logits.items():
        with np.errstate(over="ignore", invalid="ignore"):  # that is what is looked for
            usable = 0 < np.ptp(values) < np.inf
        if not usable:
            raise _invalid(bundle, f"the logits at lambda {lam:g} span no range")
    return GoldenOutputs(images, logits, golden.tolerance)


def check_golden(engine: Predictor, golden: GoldenOutputs) -> None:
    """Let an engine pass that gives the golden logits at each of their lambdas.

    Raises:
        ParityError: naming the first lambda at which it does not.
    """
    for lam, wanted in golden.logits.items():
        engine.set_lambda(lam)
        error = np.abs(engine.predict(golden.images) - wanted).max() / np.ptp(wanted)
        if not error <= golden.tolerance:
            raise ParityError(
                f"{engine.backend} at lambda {lam:g} differs from the golden logits by {error:.1e} of their range; "
                f"{golden.tolerance:.0e} is allowed.",
                fix=engine.remedy,
            )


def _tensor(tensors: Tensors, name: str, shape: tuple[int | None, ...], bundle: Bundle) -> Images:
    """A float32 tensor of a shape, in which None is any number from 1 on."""
    tensor = tensors.get(name)
    if tensor is None:
        raise _invalid(bundle, f"{name} is missing")
    fits = len(tensor.shape) == len(shape) and all(
        found == wanted or (wanted is None and found > 0) for found, wanted in zip(tensor.shape, shape, strict=True)
    )
    if tensor.dtype != np.float32 or not fits:
        wanted = ", ".join("N" if size is None else str(size) for size in shape)
        raise _invalid(bundle, f"{name}: float32 [{wanted}] wanted, {tensor.dtype} {list(tensor.shape)} found")
    return tensor


def _invalid(bundle: Bundle, what: str) -> ArtifactError:
    return ArtifactError(f"the golden outputs of {bundle.path} do not fit its manifest: {what}.", fix=EXPORT_AGAIN)
