"""A session of ONNX Runtime with all its inputs and outputs bound to buffers that stay where they are."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle
from floats_edge.errors import BackendError
from floats_edge.runtime.base import Host, Images, Kernels, Logits
from floats_edge.runtime.ort_providers import PROVIDERS, on_gpu, session_on

if TYPE_CHECKING:
    import onnxruntime as ort

_SPIN = ("session.intra_op.spin_duration_us", "300")
"""How long threads look for work before they sleep. By default many ms: a network that runs 30 times a second takes a
whole core, and threads that change lambda after an inference find no core free. Versions without this option ignore it.
"""
_FORMAT = ("session.load_model_format", "ONNX")
"""What the bytes were checked to be; ONNX Runtime would guess, and has a format of its own."""
_BFLOAT16 = 16
"""``onnx.TensorProto.BFLOAT16``."""
_KERNEL = "_kernel_time"
"""How ONNX Runtime's trace ends the name of what a node computed."""


class BoundSession:
    """One graph. An inference copies the images in, runs, copies the logits out; on the CPU it binds nothing.

    On a GPU, binding what is in host memory is what copies it over, so that is bound anew for every inference.

    Binding by name in every call, as ``InferenceSession.run`` does, costs about 6 µs more, which is 5 % of a small
    network (measured with ``tools/bench/profile_clocks``).

    Args:
        session: of it, as :func:`open_session` gives it.
        bundle: it belongs to.
        backend: that the session was opened on.
        others: graph inputs besides the images, by name.
    """

    def __init__(
        self,
        session: "ort.InferenceSession",
        bundle: Bundle,
        backend: str,
        others: Mapping[str, "ort.OrtValue"] | None = None,
    ) -> None:
        self.session = session
        self._names = (bundle.manifest.input.name, bundle.manifest.output.name)
        self._classes = len(bundle.manifest.output.labels)
        self._on_gpu = on_gpu(backend)
        self._sparse = None if backend == "ort-rtx" else frozenset[str]()  # the others have no kernels for 2:4 weights
        self._others = dict(others or {})
        self._images: Images = np.empty((0, *bundle.manifest.input.shape), dtype=np.float32)
        self._logits: Logits = np.empty((0, self._classes), dtype=np.float32)
        self._binding: ort.IOBinding | None = None

    def infer(self, images: Images) -> Logits:
        """Logits ``[N, classes]`` of images ``[N, C, H, W]``, in an array of the caller's own."""
        if self._binding is None or len(images) != len(self._images):
            self._binding = self._bind(len(images))
        np.copyto(self._images, images)
        if self._on_gpu:
            self._bind_inputs(self._binding)
        self._run(self._binding)
        return self._logits.copy()

    def device_ms(self, images: Images) -> float | None:
        """Time of one inference whose images and logits stay on the GPU, in ms; None on the CPU.

        Never run on a GPU so far.
        """
        if not self._on_gpu:
            return None
        image_name, logits_name = self._names
        binding = self.session.io_binding()
        for name, value in {image_name: ort_value(images, on_device=True), **self._others}.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(logits_name, "cuda", 0)
        binding.synchronize_inputs()
        start = time.perf_counter_ns()
        self._run(binding)
        return (time.perf_counter_ns() - start) / 1e6

    def kernels(self, images: Images, count: int) -> Kernels | None:
        """Times of the kernels of ``count`` inferences, by the session's trace; None unless opened to be traced.

        Ends the trace: the session tells no more afterwards.
        """
        if not self.session.get_session_options().enable_profiling:
            return None
        for _ in range(count):
            self.infer(images)
        times: dict[str, list[float]] = {}
        for event in json.loads(Path(self.session.end_profiling()).read_bytes()):
            if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
                times.setdefault(event["name"].removesuffix(_KERNEL), []).append(event["dur"])
        last = {kernel: durations[-count:] for kernel, durations in times.items()}
        return Kernels(last, "ONNX Runtime's profiler", self._sparse)

    def _run(self, binding: "ort.IOBinding") -> None:
        """One inference, until its logits are there."""
        try:
            self.session.run_with_iobinding(binding)
            if self._on_gpu:
                binding.synchronize_outputs()
        except Exception as error:  # ONNX Runtime raises a class of its own per status code
            raise BackendError(
                f"ONNX Runtime failed to run the graph: {error}",
                fix="if memory ran out, use a smaller batch; otherwise " + EXPORT_AGAIN,
            ) from error

    def _bind(self, rows: int) -> "ort.IOBinding":
        """New buffers for batches of ``rows`` images."""
        self._images = np.empty((rows, *self._images.shape[1:]), dtype=np.float32)
        self._logits = np.empty((rows, self._classes), dtype=np.float32)
        binding = self.session.io_binding()
        self._bind_inputs(binding)
        binding.bind_ortvalue_output(self._names[1], ort_value(self._logits, on_device=False))
        return binding

    def _bind_inputs(self, binding: "ort.IOBinding") -> None:
        inputs = {self._names[0]: ort_value(self._images, on_device=False), **self._others}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        if self._on_gpu:
            binding.synchronize_inputs()


def ort_value(array: NDArray[Any], *, on_device: bool) -> "ort.OrtValue":
    """A tensor; on the CPU it shares the array's memory, which must outlive it. NumPy's uint16 stands for bfloat16.

    Raises:
        BackendError: bfloat16 on a GPU, or the GPU does not take it.
    """
    import onnxruntime as ort

    if array.dtype == np.uint16:
        if on_device:
            raise BackendError(
                "bound weights in bf16 are not supported on ONNX Runtime's GPU providers.",
                fix="use --backend trt, or export with --precision fp16",
            )
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    try:
        return ort.OrtValue.ortvalue_from_numpy(array, "cuda" if on_device else "cpu", 0)
    except RuntimeError as error:
        raise BackendError(
            f"ONNX Runtime cannot put a tensor on the GPU: {error}",
            fix="if memory ran out, close other programs on this GPU; otherwise see floats-edge doctor",
        ) from error


def is_emulated(bundle: Bundle, backend: str) -> bool:
    """Whether a backend has no kernels for the bundle's precision and computes in another."""
    return bundle.manifest.precision == "bf16" and not on_gpu(backend)


def open_session(model: bytes, bundle: Bundle, backend: str, host: Host) -> "ort.InferenceSession":
    """Load a graph of a bundle.

    Args:
        model: the graph, serialised.
        bundle: it belongs to.
        backend: a key of ``PROVIDERS``.
        host: how it may use this machine.

    Raises:
        BackendError: ONNX Runtime cannot load it, or would run it on another provider.
    """
    import onnxruntime as ort

    provider = PROVIDERS[backend]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(*_FORMAT)
    options.add_session_config_entry(*_SPIN)
    if host.threads is not None:
        options.intra_op_num_threads = host.threads
    if host.trace_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(host.trace_to / "trace")
    try:
        if is_emulated(bundle, backend):
            from floats_edge.runtime.bfloat16 import emulated

            model = emulated(model)
        session = session_on(backend, model, options)
    except BackendError:
        raise
    except Exception as error:  # ONNX Runtime raises a class of its own per status code
        raise BackendError(
            f"ONNX Runtime cannot load the graph on {provider}: {error}",
            fix="floats-edge doctor shows what this machine runs; export again if the bundle is old",
        ) from error
    if session.get_providers()[0] != provider:
        raise BackendError(
            f"ONNX Runtime would run on {session.get_providers()[0]} instead of {provider}.",
            fix="install an onnxruntime with that provider; floats-edge doctor shows what is here",
        )
    return session
