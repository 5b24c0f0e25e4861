"""The one interface behind which every engine runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from floats_edge.artifacts.bundle import EXPORT_AGAIN
from floats_edge.artifacts.records import Reading
from floats_edge.errors import ArtifactError, LambdaError
from floats_edge.method.fold import check_lambda
from floats_edge.preprocessing import ResolvedPreprocessing

if TYPE_CHECKING:
    from floats_edge.data.pictures import Picture

Images = NDArray[np.float32]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Host:
    """How a predictor may use the machine it runs on.

    Attributes:
        threads: of one inference, and of one change of lambda, on the host; None: the backend decides (ONNX Runtime:
            one per physical core), and a change of lambda takes every processor.
        trace_to: folder for traces, without which ONNX Runtime tells no ``kernels``; traced inferences are slower.
        cuda_graph: TensorRT only: an inference is one launch of a CUDA graph instead of one launch per kernel.
    """

    threads: int | None = None
    trace_to: Path | None = None
    cuda_graph: bool = False


DEFAULT_HOST = Host()
_AS_THEY_COME = (
    "give files or 8-bit images to predict_images, which resizes them and divides by 255; normalisation is inside the "
    "network"
)


@dataclass(frozen=True)
class Kernels:
    """What a backend tells of its inside.

    Attributes:
        times: in µs of each kernel in each inference, by its name; what runs several times in one is added up.
        source: who told.
        sparse: the kernels that count on 2:4 weights; None: the backend does not tell.
        origins: nodes of the ONNX graph that a kernel was made of, for those of which the backend tells.
    """

    times: dict[str, list[float]]
    source: str
    sparse: frozenset[str] | None
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_served(lam: float, lambdas: tuple[float, ...] | None) -> float:
    """``lam`` as a float, if it is among ``lambdas`` (None: any in [0, 1]).

    Raises:
        LambdaError: not a number in [0, 1], or not served.
    """
    try:
        lam = check_lambda(lam)
    except ValueError as error:
        raise LambdaError(f"{error}.", fix="choose a lambda from 0 (clean) to 1 (robust)") from None
    if lambdas is not None and lam not in lambdas:
        served = ", ".join(f"{value:g}" for value in lambdas)
        raise LambdaError(
            f"this artifact serves lambda {served}, not {lam:g}.",
            fix=f"floats-edge export CHECKPOINT -o DIR --lambda {lam:g}, or --lambda runtime for any lambda",
        )
    return lam


class Predictor(ABC):
    """A loaded network at a selectable lambda. One per thread; use as a context manager.

    Attributes:
        backend: name of the backend that runs it, for example ``ort-cpu``.
        preprocessing: how an image becomes what it takes.
        image_shape: ``(C, H, W)`` of that.
        labels: names of the classes, in the order of the logits; of a bundle's network alone.
        lambdas: the lambdas it can serve: a tuple of values, or None for any in [0, 1].
        lam: the lambda in force.
        threads: threads of the host that one inference may use; None: the backend decides.
        computes_on: where it computes.
        device_includes: what :meth:`device_ms` covers.
        remedy: what mends an engine that computes something else than it should.
    """

    labels: tuple[str, ...] = ()
    threads: int | None = None
    computes_on: Literal["cpu", "gpu"] = "cpu"
    device_includes: str = ""
    remedy: str = EXPORT_AGAIN

    def __init__(
        self, backend: str, preprocessing: ResolvedPreprocessing, lambdas: tuple[float, ...] | None, lam: float
    ) -> None:
        self.backend = backend
        self.preprocessing = preprocessing
        self.image_shape = preprocessing.shape
        self.lambdas = lambdas
        self.lam = lam

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.backend} at lambda {self.lam:g}>"

    def set_lambda(self, lam: float) -> float:
        """Switch to ``lam`` and return it.

        Raises:
            LambdaError: not a number in [0, 1], or not served by this artifact.
        """
        lam = check_served(lam, self.lambdas)
        if lam != self.lam:
            self._switch(lam)
            self.lam = lam
        return lam

    def predict(self, images: Images) -> Logits:
        """Logits ``[N, classes]`` (float32) of images ``[N, C, H, W]``, float32 in [0, 1].

        Raises:
            ArtifactError: images of another shape or type, or other values.
        """
        if images.dtype != np.float32 or images.shape[1:] != self.image_shape:
            raise ArtifactError(
                f"the network takes float32 images of shape [N, {', '.join(map(str, self.image_shape))}] in [0, 1], "
                f"not {images.dtype} {list(images.shape)}.",
                fix=_AS_THEY_COME,
            )
        if images.size and not (images.min() >= 0 and images.max() <= 1):  # nor is NaN
            raise ArtifactError(
                f"the network takes images in [0, 1], and these are from {images.min():g} to {images.max():g}.",
                fix=_AS_THEY_COME,
            )
        return self._infer(np.ascontiguousarray(images))

    def predict_images(self, images: "Sequence[Picture]", batch: int = 128) -> Logits:
        """Logits ``[N, classes]`` (float32) of images as they come, each preprocessed as in training.

        Args:
            images: paths of image files, images of Pillow, or arrays of uint8 ``[H, W, 3]``, red first (those of OpenCV
                are blue first: ``frame[..., ::-1]``), ``[H, W, 1]`` or ``[H, W]``; of any size.
            batch: how many at once. Evaluating takes as many as a step of training, at most 128; logits of another
                batch size may differ in their last bits.

        Raises:
            DataError: there is none, one is damaged, or none of these.
        """
        from floats_edge.data.pictures import picture_batches  # Pillow, where it is wanted

        return np.concatenate([self.predict(part) for part in picture_batches(images, self.preprocessing, batch)])

    def close(self) -> None:  # noqa: B027 - optional to override
        """Release what the backend holds; the predictor cannot be used afterwards."""

    def device_ms(self, images: Images) -> float | None:
        """Time of one inference on the device alone, without copies, in ms; None where the backend cannot tell."""
        del images

    def memory(self) -> dict[str, Reading]:
        """What the backend tells of the memory it holds, by part; what it does not tell is null with a reason."""
        return {}

    def kernels(self, images: Images, count: int) -> Kernels | None:
        """Time of each kernel in each of ``count`` inferences; None where it cannot be told.

        May end the life of the predictor: call nothing but :meth:`close` afterwards.
        """
        del images, count

    @abstractmethod
    def _switch(self, lam: float) -> None:
        """Put ``lam`` (valid and served) in force."""

    @abstractmethod
    def _infer(self, images: Images) -> Logits:
        """Run on contiguous images of the right shape."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
