"""TensorRT and TensorRT-RTX: the engines of a bundle that fit this host, run as a predictor."""

import math
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import WEIGHTS_APART, Engine
from floats_edge.errors import BackendError
from floats_edge.runtime.base import Images, Kernels, Logits, Predictor, check_served
from floats_edge.runtime.cuda import Cuda, open_cuda
from floats_edge.runtime.golden import check_golden
from floats_edge.runtime.lambda_weights import InputWeights, input_weights
from floats_edge.runtime.tensorrt_library import load_tensorrt, preferred_tensorrt
from floats_edge.runtime.trt_engines import LoadedEngine, fitting_engines, load_engine, rebuild_command
from floats_edge.runtime.trt_kernels import time_kernels
from floats_edge.runtime.trt_lambda import BoundWeights, LambdaInput, LambdaPlace, RefittedWeights


def open_trt(bundle: Bundle, lam: float) -> "TrtPredictor":
    """Load the engines of a bundle that fit this host.

    An engine that is refitted must first give its golden logits: TensorRT is said to refit in part and say nothing.

    Raises:
        ArtifactError: a plan or the weights are not what was exported.
        BackendError: no CUDA device, no engine that fits (says why for each), or TensorRT fails.
        LambdaError: ``lam`` is not served by this bundle.
        ParityError: a refitted engine does not give its golden logits.
    """
    check_served(lam, bundle.manifest.lam.values)
    with ExitStack() as stack:
        cuda = stack.enter_context(open_cuda())
        predictor = stack.enter_context(TrtPredictor(bundle, fitting_engines(bundle, cuda.target), cuda))
        if bundle.manifest.lam.mode == "refit":
            check_golden(predictor, bundle)
        predictor.set_lambda(lam)
        stack.pop_all()
    return predictor


def trt_unavailable_reason(bundle: Bundle | None = None) -> str | None:
    """Why TensorRT (or, if one is given, a bundle on TensorRT) cannot run here, or None where it can."""
    try:
        if bundle is None:
            preferred_tensorrt()
        with open_cuda() as cuda:
            if bundle is not None:
                fitting_engines(bundle, cuda.target)
    except BackendError as error:
        return error.what.rstrip(".")
    return None


class TrtPredictor(Predictor):
    """The engines of a bundle on the GPU: in mode ``bank`` one per lambda, otherwise one.

    ``predict`` takes any number of images: more than an engine's largest batch are run in parts. TensorRT-RTX compiles
    kernels on the host while it loads, and again for batch sizes it has not met.

    Args:
        bundle: where the plans and the weights are read from, their hashes checked first.
        engines: engine of each lambda, None for any, as :func:`fitting_engines` chooses them.
        cuda: an open device, which the predictor closes.
    """

    def __init__(self, bundle: Bundle, engines: Mapping[float | None, Engine], cuda: Cuda) -> None:
        manifest = bundle.manifest
        lambdas = manifest.lam.values
        super().__init__("trt", manifest.input.shape, lambdas, 0.0 if lambdas is None else lambdas[0])
        self._cuda = cuda
        self._trt = load_tensorrt(next(iter(engines.values())).flavour)
        self._remedy = rebuild_command(bundle)
        self._input = manifest.input.name
        self._classes = len(manifest.output.labels)
        largest = max(engine.batch[2] for engine in engines.values())
        self._images = cuda.allocate(4 * largest * math.prod(self.image_shape))
        self._logits = cuda.allocate(4 * largest * self._classes)
        addresses = {self._input: self._images, manifest.output.name: self._logits}
        plans = {lam: bundle.read(engine.file) for lam, engine in engines.items()}
        weights = input_weights(bundle) if manifest.lam.mode in WEIGHTS_APART else None
        # Every hash is checked by now; nothing has been deserialised.
        self._engines = {lam: load_engine(bundle, engine, plans.pop(lam)) for lam, engine in engines.items()}
        self._broken = False
        self._lambda = self._lambda_place(bundle, weights)
        if self._lambda is not None:
            addresses |= self._lambda.addresses
            self._lambda.put(self.lam)
        for engine in self._engines.values():
            for name, address in addresses.items():
                self._must(engine.context.set_tensor_address(name, address), f"bind {name}")

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
        for engine in self._engines.values():
            if engine.kernels is not None:
                engine.kernels.keep()
        self._lambda = None  # a refitter must go before its engine
        self._engines.clear()
        self._cuda.close()

    def _switch(self, lam: float) -> None:
        if self._lambda is not None:
            self._check_whole()
            self._broken = True  # until all of it is there: weights of two lambdas are no network
            self._lambda.put(lam)
            self._broken = False

    def _check_whole(self) -> None:
        if self._broken:
            raise BackendError(
                "an earlier change of lambda failed half-way, so this engine computes nothing of use.",
                fix="open the bundle again; if that fails too, rebuild the engine: " + self._remedy,
            )

    def _infer(self, images: Images) -> Logits:
        self._check_whole()
        engine = self._engines[None if self.lambdas is None else self.lam]
        largest = engine.batch[2]
        logits = np.empty((len(images), self._classes), dtype=np.float32)
        for start in range(0, len(images), largest):
            self._run(engine, images[start : start + largest], logits[start : start + largest])
        return logits

    def _run(self, engine: LoadedEngine, images: Images, logits: Logits) -> None:
        """Fill ``logits`` ``[n, classes]`` from ``images`` ``[n, C, H, W]``, n up to the largest batch."""
        # Below the smallest batch, what an earlier one left in the buffer makes up the number: images are independent.
        rows = max(len(images), engine.batch[0])
        self._cuda.to_device(self._images, images)
        self._must(engine.context.set_input_shape(self._input, (rows, *self.image_shape)), f"take a batch of {rows}")
        self._must(engine.context.execute_async_v3(self._cuda.stream), "run")
        self._cuda.to_host(logits, self._logits)
        self._cuda.synchronize()

    def kernels(self, images: Images, count: int) -> Kernels:
        context = self._engines[None if self.lambdas is None else self.lam].context
        return time_kernels(self._trt, context, lambda: self._infer(images), count)

    def device_ms(self, images: Images) -> float | None:
        """Time between two CUDA events around the engine; None for more images than it takes at once.

        Never run on a GPU so far.
        """
        self._check_whole()
        engine = self._engines[None if self.lambdas is None else self.lam]
        rows = max(len(images), engine.batch[0])
        if rows > engine.batch[2]:
            return None
        self._cuda.to_device(self._images, images)
        self._must(engine.context.set_input_shape(self._input, (rows, *self.image_shape)), f"take a batch of {rows}")
        return self._cuda.time_ms(lambda: self._must(engine.context.execute_async_v3(self._cuda.stream), "run"))

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise BackendError(f"TensorRT failed to {what}; its own message is in the log.", fix=self._remedy)
