"""How the work of a TensorRT engine gets into the stream: kernel by kernel, or as one CUDA graph.

Source: TensorRT developer guide, "CUDA Graphs": enqueueV3 once after a change of shape, which updates the context's
state; then capture. A graph holds the shapes and addresses of its capture, so it goes when they change. TensorRT-RTX
captures by itself: see :mod:`floats_edge.runtime.rtx_kernels`.

Never run on a GPU so far: tested against stand-ins of TensorRT and of the CUDA runtime.
"""

from collections.abc import Callable
from typing import Any

from floats_edge.artifacts.manifest import Flavour
from floats_edge.errors import BackendError
from floats_edge.runtime.cuda_device import Cuda, Graph
from floats_edge.runtime.rtx_kernels import whole_graph


def check_graphs(flavour: Flavour, trt: Any, cuda: Cuda) -> None:
    """Check before anything is loaded that an engine of this flavour can be launched as a CUDA graph.

    Raises:
        BackendError: what would record the graph, the CUDA binding or TensorRT-RTX, cannot.
    """
    if flavour == "tensorrt_rtx":
        whole_graph(trt)
    else:
        cuda.check_graphs()


class Launch:
    """By ``enqueueV3``: kernel by kernel.

    Args:
        context: execution context of the engine, all addresses set.
        cuda: whose stream it goes into.
        image_input: name of the input that has the batch axis.
        must: raises if TensorRT did not do what the second argument says.
    """

    def __init__(self, context: Any, cuda: Cuda, image_input: str, must: Callable[[bool, str], None]) -> None:
        self._context = context
        self._cuda = cuda
        self._image_input = image_input
        self._must = must
        self._shape: tuple[int, ...] = ()

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Say how many images of which shape come next: ``[N, C, H, W]``.

        Raises:
            BackendError: the engine does not take so many.
        """
        if shape != self._shape:
            self.forget()
            self._must(self._context.set_input_shape(self._image_input, shape), f"take a batch of {shape[0]}")
            self._shape = shape

    def put(self) -> None:
        """Put one inference into the stream.

        Raises:
            BackendError: TensorRT or CUDA fails.
        """
        self._must(self._context.execute_async_v3(self._cuda.stream.handle), "run")

    def forget(self) -> None:
        """Drop what depends on the shape or on where the engine's weights are."""


class RtxGraphLaunch(Launch):
    """As a CUDA graph that TensorRT-RTX records by itself; what it cannot record it launches without, in silence."""

    def prepare(self, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            super().prepare(shape)
            if not self._context.is_stream_capturable(self._cuda.stream.handle):
                self._shape = ()
                raise BackendError(
                    f"TensorRT-RTX cannot make a CUDA graph of this engine for a batch of {shape[0]}.",
                    fix="leave --cuda-graph out, or give another --batch",
                )


class GraphLaunch(Launch):
    """As a CUDA graph, recorded at the first inference after the shape or the engine's weights have changed."""

    _graph: Graph | None = None

    def put(self) -> None:
        if self._graph is not None:
            self._graph.launch()
            return
        super().put()  # this inference, and what updates the context before the capture
        self._graph = self._cuda.stream.record(super().put)

    def forget(self) -> None:
        if self._graph is not None:
            self._cuda.stream.synchronize()
            self._graph.close()
            self._graph = None
