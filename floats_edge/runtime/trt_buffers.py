"""Where images lie on their way to an engine, and logits on their way back; parts of a large batch overlap.

Never run on a GPU so far: tested against stand-ins whose streams run in any order that nobody forbade.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from floats_edge.runtime.base import Images, Logits
from floats_edge.runtime.cuda_device import Cuda, Event, Stream


class Buffers:
    """Room for images and their logits, on the device and, page-locked, on the host.

    Args:
        cuda: where they are; they live as long as it.
        images: shape of the most that an engine takes at once, ``[N, C, H, W]``.
        classes: number of logits of each.

    Attributes:
        images: device pointer.
        logits: device pointer.

    Raises:
        BackendError: out of memory.
    """

    def __init__(self, cuda: Cuda, images: tuple[int, ...], classes: int) -> None:
        self._cuda = cuda
        self._host_images = cuda.pinned(images, np.float32)
        self._host_logits = cuda.pinned((images[0], classes), np.float32)
        self.images, self.logits = (cuda.allocate(array.nbytes) for array in (self._host_images, self._host_logits))

    def another(self) -> "Buffers":
        """As much room once more; what there is no memory for takes none."""
        with self._cuda.all_or_nothing():
            return Buffers(self._cuda, self._host_images.shape, self._host_logits.shape[1])

    def send(self, images: Images, stream: Stream) -> None:
        """Queue the copy of some images to the device: the copy before must have ended."""
        staged = self._host_images[: len(images)]
        np.copyto(staged, images)
        stream.to_device(self.images, staged)

    def fetch(self, count: int) -> None:
        """Queue the copy of the first logits back, behind what computes them."""
        self._cuda.stream.to_host(self._host_logits[:count], self.logits)

    def read(self, logits: Logits) -> None:
        """Fill ``logits`` with the first that were fetched: the copy must have ended."""
        np.copyto(logits, self._host_logits[: len(logits)])


class _Turn(NamedTuple):
    """One of two sets of buffers, and how far it is with its part."""

    buffers: Buffers
    sent: Event
    done: Event


class Turns:
    """Two sets of buffers take turns: while an engine computes one part, the next is staged and goes up beside it.

    Source: Triton's TensorRT backend, ``instance_state.cc``: one execution context, whose addresses are set anew before
    each ``enqueueV3``, whether the one before has ended or not.

    Args:
        first: set of buffers; the second is made now.
        cuda: where they are.

    Raises:
        BackendError: out of memory.
    """

    def __init__(self, first: Buffers, cuda: Cuda) -> None:
        self._cuda = cuda
        self._turns = [_Turn(buffers, cuda.new_event(), cuda.new_event()) for buffers in (first, first.another())]
        self._up = cuda.new_stream()

    def infer(self, images: Images, logits: Logits, largest: int, compute: Callable[[Buffers, int], None]) -> None:
        """Fill ``logits`` ``[N, classes]`` from ``images`` ``[N, C, H, W]``, in parts of at most ``largest``.

        Args:
            images: of the caller, read part by part.
            logits: of the caller, filled part by part.
            largest: that fit into the buffers and the engine.
            compute: queues the inference of a number of images in some buffers, and fetches their logits.

        Raises:
            BackendError: ``compute`` or CUDA fails.
        """
        parts = [slice(start, start + largest) for start in range(0, len(images), largest)]
        turns = [self._turns[index % 2] for index in range(len(parts))]
        try:
            for index, (turn, part) in enumerate(zip(turns, parts, strict=True)):
                self._send(turn, images[part])
                if index >= 2:
                    self._read(turn, logits[parts[index - 2]])
                compute(turn.buffers, len(images[part]))
                self._cuda.stream.mark(turn.done)
            for turn, part in zip(turns[-2:], parts[-2:], strict=True):
                self._read(turn, logits[part])
        finally:  # whatever failed: who comes next writes into these buffers, or ends the engine
            for stream in (self._up, self._cuda.stream):
                stream.synchronize()

    def _send(self, turn: _Turn, images: Images) -> None:
        self._cuda.wait(turn.sent)  # until then the host's buffer is being read
        self._up.wait(turn.done)  # and until then the device's
        turn.buffers.send(images, self._up)
        self._up.mark(turn.sent)
        self._cuda.stream.wait(turn.sent)

    def _read(self, turn: _Turn, logits: Logits) -> None:
        self._cuda.wait(turn.done)
        turn.buffers.read(logits)
