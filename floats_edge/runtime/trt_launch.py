"""How the work of a TensorRT engine gets into the stream: kernel by kernel, or as one CUDA graph.

Source: TensorRT developer guide, "CUDA Graphs": enqueueV3 once after a change of shape, which updates the context's
state; then capture. A graph holds the shapes and addresses of its capture, so it goes when the shape changes, and each
set of buffers has its own. TensorRT-RTX captures by itself: see :mod:`floats_edge.runtime.rtx_kernels`.

Never run on a GPU so far: tested against stand-ins of TensorRT and of the CUDA runtime.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from floats_edge.artifacts.manifest import Flavour
from floats_edge.errors import BackendError
from floats_edge.runtime.cuda_device import Cuda, Graph, Stream
from floats_edge.runtime.rtx_kernels import whole_graph
from floats_edge.runtime.trt_buffers import Buffers


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
        context: execution context of the engine, all addresses set but those of images and logits.
        stream: that it goes into.
        names: of the input that takes images and of the output that gives logits.
        must: raises if TensorRT did not do what the second argument says.
    """

    _shape: tuple[int, ...] = ()
    _buffers: Buffers | None = None

    def __init__(self, context: Any, stream: Stream, names: tuple[str, str], must: Callable[[bool, str], None]) -> None:
        self._context = context
        self._stream = stream
        self._names = names
        self._must = must

    def prepare(self, shape: tuple[int, ...], buffers: Buffers) -> None:
        """Say how many images of which shape come next, ``[N, C, H, W]``, and where they are.

        Raises:
            BackendError: the engine does not take so many.
        """
        if shape != self._shape:
            self.forget()
            self._must(self._context.set_input_shape(self._names[0], shape), f"take a batch of {shape[0]}")
            self._shape = shape
        if buffers is not self._buffers:
            for name, address in zip(self._names, (buffers.images, buffers.logits), strict=True):
                self._must(self._context.set_tensor_address(name, address), f"bind {name}")
            self._buffers = buffers

    def put(self) -> None:
        """Put one inference into the stream.

        Raises:
            BackendError: TensorRT or CUDA fails.
        """
        self._must(self._context.execute_async_v3(self._stream.handle), "run")

    def forget(self) -> None:
        """Drop what depends on the shape or on where the engine's weights are."""


class RtxGraphLaunch(Launch):
    """As a CUDA graph that TensorRT-RTX records by itself; what it cannot record it launches without, in silence."""

    def prepare(self, shape: tuple[int, ...], buffers: Buffers) -> None:
        changed = shape != self._shape
        super().prepare(shape, buffers)
        if changed and not self._context.is_stream_capturable(self._stream.handle):
            self._shape = ()
            raise BackendError(
                f"TensorRT-RTX cannot make a CUDA graph of this engine for a batch of {shape[0]}.",
                fix="leave --cuda-graph out, or give another --batch",
            )


class GraphLaunch(Launch):
    """As a CUDA graph for each set of buffers, recorded when it is first used after the shape or the engine's weights
    have changed.
    """

    def __init__(self, context: Any, stream: Stream, names: tuple[str, str], must: Callable[[bool, str], None]) -> None:
        super().__init__(context, stream, names, must)
        self._graphs: dict[Buffers | None, Graph] = {}

    def put(self) -> None:
        graph = self._graphs.get(self._buffers)
        if graph is not None:
            graph.launch()
            return
        super().put()  # this inference, and what updates the context before the capture
        self._graphs[self._buffers] = self._stream.record(super().put)

    def forget(self) -> None:
        if not self._graphs:
            return
        with ExitStack() as closing:  # backwards, and to the end whatever fails on the way
            while self._graphs:
                closing.callback(self._graphs.popitem()[1].close)
            closing.callback(self._stream.synchronize)
