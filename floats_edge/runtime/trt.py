"""TensorRT and TensorRT-RTX: the engines of a bundle that fit this host, run as a predictor."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from floats_edge.artifacts.bundle import Bundle, rebuild_command
from floats_edge.artifacts.manifest import LAMBDA_INPUT, WEIGHTS_APART, Engine
from floats_edge.artifacts.records import Reading
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.runtime.base import DEFAULT_HOST, Host, Images, Kernels, Logits, Predictor, check_served
from floats_edge.runtime.cuda import open_cuda
from floats_edge.runtime.cuda_device import Cuda
from floats_edge.runtime.golden import check_golden, read_golden
from floats_edge.runtime.lambda_weights import InputWeights, input_weights
from floats_edge.runtime.tensorrt_library import check_gpu, load_tensorrt, make_runtime, preferred_tensorrt
from floats_edge.runtime.trt_buffers import Buffers, Turns
from floats_edge.runtime.trt_engines import fitting_engines, load_engine
from floats_edge.runtime.trt_kernels import time_kernels
from floats_edge.runtime.trt_lambda import BoundWeights, LambdaInput, LambdaPlace, RefittedWeights
from floats_edge.runtime.trt_launch import GraphLaunch, Launch, RtxGraphLaunch, check_graphs
from floats_edge.runtime.trt_memory import engine_memory

log = logging.getLogger("floats_edge.runtime")


def open_trt(bundle: Bundle, lam: float, host: Host = DEFAULT_HOST) -> "TrtPredictor":
    """Load the engines of a bundle that fit this host.

    An engine that is refitted must first give its golden logits: TensorRT is said to refit in part and say nothing.
    One that did not when it was exported, and was let pass with --allow-mismatch, is loaded with a warning.

    Raises:
        ArtifactError: a plan, the weights or the golden outputs are not what was exported.
        BackendError: no CUDA device, no engine that fits (says why for each), no CUDA graphs, or TensorRT fails.
        LambdaError: ``lam`` is not served by this bundle.
        ParityError: a refitted engine does not give its golden logits.
    """
    golden = read_golden(bundle) if bundle.manifest.lam.mode == "refit" else None
    with ExitStack() as stack:
        predictor = stack.enter_context(load_trt(bundle, lam, host))
        if predictor.mismatch is not None:
            log.warning("%s was exported with --allow-mismatch: %s", bundle.path, predictor.mismatch)
        elif golden is not None:
            check_golden(predictor, golden)
            predictor.set_lambda(lam)
        stack.pop_all()
    return predictor


def load_trt(bundle: Bundle, lam: float, host: Host = DEFAULT_HOST) -> "TrtPredictor":
    """Load the engines as :func:`open_trt` does, but let a refitted one pass whatever it gives.

    Raises:
        ArtifactError: a plan or the weights are not what was exported.
        BackendError: no CUDA device, no engine that fits (says why for each), or TensorRT fails.
        LambdaError: ``lam`` is not served by this bundle.
    """
    check_served(lam, bundle.manifest.lam.values)
    with ExitStack() as stack:
        cuda = stack.enter_context(open_cuda(host.cuda_graph))
        predictor = stack.enter_context(TrtPredictor(bundle, fitting_engines(bundle, cuda.target), cuda, host))
        predictor.set_lambda(lam)
        stack.pop_all()
    return predictor


def trt_unavailable_reason(bundle: Bundle | None = None) -> str | None:
    """Why TensorRT (or, if one is given, a bundle on TensorRT) cannot run here, or None where it can."""
    try:
        if bundle is not None:
            with open_cuda() as cuda:
                fitting_engines(bundle, cuda.target)
            return None
        flavour, trt = preferred_tensorrt()
        with open_cuda() as cuda:
            check_gpu(flavour, trt, cuda.target)
            make_runtime(trt)
    except BackendError as error:
        return error.what.rstrip(".")
    return None


def trt_library(bundle: Bundle) -> str:
    """Flavour and version of the TensorRT that runs a bundle here, and the GPU's compute capability.

    Raises:
        BackendError: it cannot run here.
    """
    with open_cuda() as cuda:
        engine = next(iter(fitting_engines(bundle, cuda.target).values()))
        return f"{engine.flavour} {load_tensorrt(engine.flavour).__version__} on {cuda.target}"


class TrtPredictor(Predictor):
    """The engines of a bundle on the GPU: in mode ``bank`` one per lambda, otherwise one.

    ``predict`` takes any number of images: more than an engine's largest batch are run in parts, whose copies overlap
    with what the engine computes; the first time that takes a second set of buffers. TensorRT-RTX compiles kernels on
    the host while it loads, and again for batch sizes it has not met.

    Args:
        bundle: where the plans and the weights are read from, their hashes checked first.
        engines: engine of each lambda, None for any, as :func:`fitting_engines` chooses them.
        cuda: an open device, which the predictor closes.
        host: whether to launch engines as CUDA graphs.

    Attributes:
        mismatch: how engines missed the golden outputs, if they were let pass when they were exported.
    """

    computes_on = "gpu"
    device_includes = (
        "the engine without copies, between two CUDA events: also its waits for the host to launch kernels"
    )

    def __init__(
        self, bundle: Bundle, engines: Mapping[float | None, Engine], cuda: Cuda, host: Host = DEFAULT_HOST
    ) -> None:
        manifest = bundle.manifest
        lambdas = manifest.lam.values
        name = "trt, CUDA graph" if host.cuda_graph else "trt"
        super().__init__(name, manifest.input.preprocessing, lambdas, 0.0 if lambdas is None else lambdas[0])
        self._cuda, self._cuda_graph = cuda, host.cuda_graph
        self._free_before, _ = cuda.memory_info()
        self._plan_bytes = sum(manifest.files[engine.file].bytes for engine in engines.values())
        flavour = next(iter(engines.values())).flavour
        self._trt = load_tensorrt(flavour)
        if host.cuda_graph:
            check_graphs(flavour, self._trt, cuda)
        self.remedy = rebuild_command(bundle)
        mismatches = (engine.mismatch for engine in engines.values() if engine.mismatch is not None)
        self.mismatch = " ".join(dict.fromkeys(mismatches)) or None
        largest = max(engine.batch[2] for engine in engines.values())
        self._classes = len(manifest.output.labels)
        self._buffers = Buffers(cuda, (largest, *self.image_shape), self._classes)
        self._turns: Turns | None = None
        plans = {lam: bundle.read(engine.file) for lam, engine in engines.items()}
        weights = None
        if manifest.lam.mode in WEIGHTS_APART:
            weights = input_weights(bundle, host.threads, lambda size: cuda.pinned((size,), np.uint8))
        # Every hash is checked by now; nothing has been deserialised.
        self._engines = {
            lam: load_engine(bundle, engine, plans.pop(lam), cuda, host) for lam, engine in engines.items()
        }
        self._launches: dict[float | None, Launch] = {}
        self._lambda: LambdaPlace | None = None
        self._broken = False
        with ExitStack() as failing:
            failing.callback(self.close)
            self._check_tensors(bundle)
            self._prepare(bundle, weights, host)
            failing.pop_all()

    def _check_tensors(self, bundle: Bundle) -> None:
        """Check that the engines take and give what the buffers are made for; bound weights check themselves.

        Raises:
            ArtifactError: an engine is not the one of the manifest.
        """
        manifest, single = bundle.manifest, np.dtype(np.float32)
        wanted = {
            manifest.input.name: ((-1, *self.image_shape), single),
            manifest.output.name: ((-1, len(manifest.output.labels)), single),
        }
        if manifest.lam.mode == "input":
            wanted[LAMBDA_INPUT] = ((), single)
        for tensors, odd in [(loaded.tensors, loaded.odd) for loaded in self._engines.values()]:
            names = wanted if manifest.lam.mode == "bound" else {**wanted, **tensors}
            wrong = [name for name in names if tensors.get(name) != wanted.get(name)]
            if wrong:
                raise ArtifactError(
                    f"an engine of {bundle.path} is not the one of its manifest: {', '.join(wrong)} is missing, too "
                    "many, or of another shape or type.",
                    fix=self.remedy,
                )
            if odd:
                raise ArtifactError(
                    f"an engine of {bundle.path} is not the one of its manifest: {'; '.join(odd)}.", fix=self.remedy
                )

    def _prepare(self, bundle: Bundle, weights: InputWeights | None, host: Host) -> None:
        """Put the lambda in force, and bind what the engines take and give."""
        names = (bundle.manifest.input.name, bundle.manifest.output.name)
        for lam, engine in self._engines.items():
            captured = GraphLaunch if engine.kernels is None else RtxGraphLaunch
            launch = captured if host.cuda_graph else Launch
            self._launches[lam] = launch(engine.context, self._cuda.stream, names, self._must)
        self._lambda = self._lambda_place(bundle, weights)
        if self._lambda is not None:
            self._lambda.put(self.lam)
            for name, address in self._lambda.addresses.items():
                self._must(self._engines[None].context.set_tensor_address(name, address), f"bind {name}")

    def _lambda_place(self, bundle: Bundle, weights: InputWeights | None) -> LambdaPlace | None:
        """Where lambda goes into the one engine that serves every lambda."""
        if bundle.manifest.lam.mode == "input":
            return LambdaInput(self._cuda)
        if weights is None:
            return None
        if bundle.manifest.lam.mode == "bound":
            return BoundWeights(bundle, weights, self._engines[None], self._cuda)
        return RefittedWeights(bundle, weights, self._engines[None], self._trt, self._cuda)

    def close(self) -> None:
        # Nothing of TensorRT, not even in a loop's variable, may outlive the device; a refitter goes before its engine.
        with ExitStack() as closing:  # backwards, and to the end whatever fails on the way
            closing.callback(self._cuda.close)
            while self._engines:
                closing.callback(self._engines.popitem()[1].close)
            closing.callback(setattr, self, "_lambda", None)
            closing.callback(setattr, self, "_turns", None)
            while self._launches:
                closing.callback(self._launches.popitem()[1].forget)

    def _switch(self, lam: float) -> None:
        if self._lambda is not None:
            self._check_whole()
            self._broken = True  # until all of it is there: weights of two lambdas are no network
            self._lambda.put(lam)
            self._broken = False
            if not self._lambda.addresses:  # refitted: a CUDA graph may know the weights by where they were
                self._launches[None].forget()

    def _check_whole(self) -> None:
        if self._broken:
            raise BackendError(
                "an earlier change of lambda failed half-way, so this engine computes nothing of use.",
                fix="open the bundle again; if that fails too, rebuild the engine: " + self.remedy,
            )

    def _infer(self, images: Images) -> Logits:
        self._check_whole()
        largest = self._engines[self._key].batch[2]
        logits = np.empty((len(images), self._classes), dtype=np.float32)
        if len(images) > largest:
            self._turns = self._turns or Turns(self._buffers, self._cuda)
            self._turns.infer(images, logits, largest, self._compute)
        elif len(images):
            self._buffers.send(images, self._cuda.stream)
            self._compute(self._buffers, len(images))
            self._cuda.stream.synchronize()
            self._buffers.read(logits)
        return logits

    @property
    def _key(self) -> float | None:
        """Of the engine that serves the lambda in force."""
        return None if self.lambdas is None else self.lam

    def _compute(self, buffers: Buffers, count: int) -> None:
        """Queue the inference of the first images in some buffers, and fetch their logits."""
        self._prepared(buffers, count).put()
        buffers.fetch(count)

    def _prepared(self, buffers: Buffers, count: int) -> Launch:
        """The engine, made ready for the first images in some buffers."""
        # Below the smallest batch, what an earlier one left in the buffer makes up the number: images are independent.
        rows = max(count, self._engines[self._key].batch[0])
        launch = self._launches[self._key]
        launch.prepare((rows, *self.image_shape), buffers)
        return launch

    def kernels(self, images: Images, count: int) -> Kernels:
        if self._cuda_graph:
            raise BackendError(
                "a CUDA graph is one launch: TensorRT tells no times of the kernels in it.",
                fix="open the bundle without Host(cuda_graph=True) to time them one by one",
            )
        return time_kernels(self._trt, self._engines[self._key].context, lambda: self._infer(images), count)

    def memory(self) -> dict[str, Reading]:
        engines = [loaded.engine for loaded in self._engines.values()]
        return engine_memory(self._trt, engines, self._plan_bytes, self._cuda, self._free_before)

    def device_ms(self, images: Images) -> float | None:
        """Time between two CUDA events around the engine; None for more images than it takes at once.

        Never run on a GPU so far.
        """
        self._check_whole()
        if len(images) > self._engines[self._key].batch[2]:
            return None
        self._buffers.send(images, self._cuda.stream)
        return self._cuda.stream.time_ms(self._prepared(self._buffers, len(images)).put)

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise BackendError(f"TensorRT failed to {what}; its own message is in the log.", fix=self.remedy)
