"""The export stage: a trained run, or a bundle made earlier, becomes a bundle that has proven to compute the same.

Everything is written into a staging folder, opened there as a user would open it, and compared with the trained network
on real images; only then does it take its place.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from floats_edge import __version__
from floats_edge.artifacts.bundle import (
    Bundle,
    file_entries,
    is_bundle,
    open_bundle,
    open_sound,
    staged_bundle,
    write_manifest,
)
from floats_edge.artifacts.checkpoint import open_run
from floats_edge.artifacts.files import pack_tensors, write_atomic
from floats_edge.artifacts.manifest import (
    WEIGHTS_APART,
    Golden,
    Graph,
    InputSpec,
    LambdaSpec,
    Manifest,
    Mode,
    OutputSpec,
    Precision,
)
from floats_edge.artifacts.sensitivity import SENSITIVITY
from floats_edge.artifacts.weights import layer_specs, pack_scales, pack_weights
from floats_edge.data import Place, Reading, load_data, load_test
from floats_edge.deploy import onnx_graph
from floats_edge.deploy.calibrate import Int8Request, Quantisation, quantisation
from floats_edge.deploy.engine_request import EngineOptions
from floats_edge.deploy.engines import check_engines, check_options, with_engines, with_mismatch
from floats_edge.deploy.say import Say, quiet
from floats_edge.deploy.source import Source, from_bundle, from_run
from floats_edge.errors import ArtifactError, BackendError, LambdaError, ParityError
from floats_edge.evaluation.batch import evaluation_batch
from floats_edge.evaluation.parity import GATES, check_parity, check_reference, measure_parity
from floats_edge.method.fold import MOST_LAMBDAS, check_lambda
from floats_edge.networks.spec import Code
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.base import Predictor

if TYPE_CHECKING:
    from torch import nn

PARITY_IMAGES = 512
GOLDEN_IMAGES = 8
GOLDEN_LAMBDAS = (0.0, 0.5)
_INT8_GOLDEN_TOLERANCE = 1e-2
"""Of the range of the logits that an int8 graph itself gives: parity judges what quantising costs (up to 2.1e-2 of a
ResNet-8 on digits), which would hide what an engine gets wrong. One graph gave logits that differed by up to 3.8e-3 on
ONNX Runtime 1.20, 1.22 and 1.32, optimised or not, on AVX2 and SSE4.2; weights cut off instead of rounded made a
difference of 1.7e-2 to 3.5e-2 (ResNet-8 on digits, 1 and 20 epochs; modes bound, fixed and bank; 8 images). On 64-bit
Arm (qemu, ONNX Runtime 1.23.2) bound stayed within 1e-6, fixed and bank differed by up to 2.3e-3; with layers kept in
fp16, which Arm computes in half precision, one differed by more than 1e-2, so there int8's gate stays the tolerance.
"""

WEIGHTS = "weights.safetensors"

Switch = Literal["bound", "input", "refit"]

_ANY_LAMBDA: dict[Mode, str] = {
    "bound": "any in [0, 1]: weights are inputs",
    "input": "any in [0, 1]: a scalar input",
    "refit": "any in [0, 1] by refitting; the weights are those of 0",
}


@dataclass(frozen=True)
class ExportRequest:
    """What to make.

    Attributes:
        lambdas: ``runtime`` for any, one value for mode ``fixed``, several for ``bank``; None keeps a bundle's own and
            means ``runtime`` for a run.
        precision: of the graphs; None keeps a bundle's own and means ``fp32`` for a run.
        trt: also build TensorRT engines.
        engine: how these are built.
        switch: mode of a bundle for any lambda: how it changes from one to another.
        int8: how to quantise, if that is the precision.
        allow_mismatch: export even what fails its gate; the manifest says so.
        reading: how images are read from files.
        allow_code: run what the network source ``python`` names; a bundle needs no code.
        module: the network of a run that was handed over to training.
    """

    lambdas: tuple[float, ...] | Literal["runtime"] | None = None
    precision: Precision | None = None
    trt: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)
    switch: Switch = "bound"
    int8: Int8Request = field(default_factory=Int8Request)
    allow_mismatch: bool = False
    reading: Reading = field(default_factory=Reading)
    allow_code: bool = False
    module: "nn.Module | None" = None

    def __post_init__(self) -> None:
        if isinstance(self.lambdas, tuple):
            for lam in self.lambdas:
                check_lambda(lam)
            if not len(set(self.lambdas)) == len(self.lambdas) <= MOST_LAMBDAS:
                raise LambdaError(
                    f"a bank serves up to {MOST_LAMBDAS} lambdas, each once, not these {len(self.lambdas)}.",
                    fix="choose fewer, or --lambda runtime for any lambda",
                )
        if self.mode == "refit" and self.precision == "int8":
            raise BackendError(
                "an int8 engine cannot be refitted: TensorRT folds its weights and their scales together.",
                fix="use --switch bound with --precision int8, or --switch refit with --precision fp16",
            )

    @property
    def keeps_graphs(self) -> bool:
        """Whether a bundle's own graphs are kept, so that all that can be asked for is engines."""
        return self.lambdas is None and self.precision is None

    @property
    def mode(self) -> Mode:
        """The lambda mode that serves these lambdas."""
        if not isinstance(self.lambdas, tuple):
            return self.switch
        return "fixed" if len(self.lambdas) == 1 else "bank"


def export(
    path: str | Path,
    out: str | Path,
    request: ExportRequest | None = None,
    data: Place = None,
    say: Say = quiet,
) -> Bundle:
    """Export a run folder or a bundle as a new bundle at ``out``.

    Args:
        path: run folder or bundle. A bundle in fp32 and mode ``bound`` can become any other; every bundle can be given
            engines for the TensorRT at hand, without PyTorch. Damaged engines of it are left out.
        out: where the bundle goes; a bundle of the same recipe and classes is replaced once the new one is whole.
        request: what to make; None: a bundle for any lambda, of a run.
        data: where the recipe's images are, if not where the recipe says; or images in their place.
        say: told what is being done.

    Raises:
        ArtifactError: ``path`` is no valid run or bundle, or the bundle cannot become what is asked.
        DataError: the images to compare on, or for int8 those to calibrate on, cannot be read, or are not of the
            network's classes.
        ParityError: the exported network does not compute what the trained one does.
        BackendError: TensorRT is missing or cannot build the engine.
        OutputError: ``out`` cannot be written or holds something else, such as a bundle of another network.
    """
    path, out, request = Path(path), Path(out), request or ExportRequest()
    if not is_bundle(path):
        return _export(from_run(open_run(path), Code(request.allow_code, request.module), say), out, request, data, say)
    bundle = open_sound(path)
    if request.keeps_graphs:
        return add_engines(bundle, out, request, say)
    return _export(from_bundle(bundle), out, request, data, say)


def add_engines(bundle: Bundle, out: Path, request: ExportRequest, say: Say = quiet) -> Bundle:
    """Copy ``bundle`` to ``out`` (which may be the same place) with engines for the TensorRT of this machine.

    Raises:
        ArtifactError: nothing was asked for, or a file is not what was exported.
        BackendError: TensorRT is missing or cannot build the engine.
    """
    if not request.trt:
        raise ArtifactError(
            f"{bundle.path} is a bundle already and nothing is to be changed.",
            fix="add --trt to build engines for this machine, or --lambda or --precision for another bundle",
        )
    check_options(request.engine, bundle.manifest.lam.mode, bundle.manifest.precision)
    with staged_bundle(out, bundle.manifest.recipe, bundle.manifest.output.labels) as folder:
        for name in bundle.manifest.files:
            write_atomic(folder / name, bundle.read(name))
        _finish(folder, bundle.manifest.without_verdict("trt"), request, say)
    return open_bundle(out)


def _export(source: Source, out: Path, request: ExportRequest, data: Place, say: Say) -> Bundle:
    if request.trt:
        check_options(request.engine, request.mode, request.precision or "fp32")
    images = load_test(source.recipe.data, source.kind, data, request.reading).first(PARITY_IMAGES).as_float()
    lambdas = request.lambdas if isinstance(request.lambdas, tuple) else source.recipe.evaluate.lambdas
    try:
        check_reference(source.reference, images[:GOLDEN_IMAGES], lambdas)
    except ParityError as error:
        raise _refused(error) from None
    with staged_bundle(out, source.recipe, source.labels) as folder:
        int8 = _quantisation(source, folder, request, data, say) if request.precision == "int8" else None
        say("writing ONNX")
        manifest = _write_graphs(source, folder, request, images, int8)
        write_manifest(folder, manifest)
        say(f"comparing with the trained network on {len(images)} images")
        with open_predictor(open_bundle(folder), "ort-cpu", lambdas[0]) as engine:
            try:
                parity = measure_parity(
                    engine, source.reference, images, lambdas, evaluation_batch(source.recipe.train.batch_size)
                )
            except ParityError as error:  # no figures to let pass
                raise _refused(error) from None
            if manifest.calibration is not None:
                halves = manifest.calibration.kept_in_fp16
                tolerance = GATES["int8"].max_error if halves else _INT8_GOLDEN_TOLERANCE
                golden = _write_golden(engine, folder, manifest.lam, tolerance, images[:GOLDEN_IMAGES])
                manifest = manifest.model_copy(update={"golden": golden})
        found = (source.mismatch, _gate(lambda: check_parity(parity, manifest.precision), request))
        mismatch = " ".join(filter(None, found)) or None
        _finish(folder, manifest.model_copy(update={"parity": parity, "mismatch": mismatch}), request, say)
    return open_bundle(out)


def _gate(check: Callable[[], None], request: ExportRequest) -> str | None:
    """What a check has against an export that is let pass all the same; None if nothing."""
    try:
        check()
    except ParityError as error:
        if not request.allow_mismatch:
            raise _refused(error) from None
        return error.what
    return None


def _refused(error: ParityError) -> ParityError:
    return ParityError(f"{error.what} Nothing was exported.", fix=error.fix)


def _quantisation(source: Source, folder: Path, request: ExportRequest, data: Place, say: Say) -> Quantisation:
    """How the graphs become int8; what each layer costs is written into ``folder`` if it was measured."""
    lambdas = request.lambdas if isinstance(request.lambdas, tuple) else None
    splits = load_data(source.recipe.data, source.recipe.seed, data, source.kind, request.reading)
    found = quantisation(source.network, source.twin, splits, lambdas, source.recipe, request.int8, say)
    if found.sensitivity is not None:
        write_atomic(folder / SENSITIVITY, (found.sensitivity.model_dump_json(indent=2) + "\n").encode())
    return found


def _finish(folder: Path, manifest: Manifest, request: ExportRequest, say: Say) -> None:
    """Build the engines asked for into ``folder``, write its manifest, and judge the engines by it."""
    if request.trt:
        manifest = with_engines(folder, manifest, request.engine, say)
    manifest = manifest.model_copy(update={"files": file_entries(folder)})
    write_manifest(folder, manifest)
    if request.trt:
        mismatch = _gate(lambda: check_engines(folder, say), request)
        if mismatch is not None:
            write_manifest(folder, with_mismatch(manifest, mismatch))


def _write_graphs(
    source: Source,
    folder: Path,
    request: ExportRequest,
    images: NDArray[np.float32],
    int8: Quantisation | None,
) -> Manifest:
    """Write graphs, weights and golden outputs into ``folder``; returns the manifest, without parity or engines."""
    precision = request.precision or "fp32"
    network = source.network
    ranges, calibration = ({}, None) if int8 is None else (int8.ranges, int8.record)
    lam = LambdaSpec(
        mode=request.mode,
        values=request.lambdas if isinstance(request.lambdas, tuple) else None,
        noise_seed=source.recipe.condition.noise_seed,
    )
    graphs: list[Graph] = []
    for value in lam.values or (None,):
        model = network.graph(lam.mode, value, precision, ranges, calibration)
        graph = Graph(file="model.onnx" if lam.mode != "bank" else f"model-lam{value!r}.onnx", lam=value)
        write_atomic(folder / graph.file, onnx_graph.finished(model, _metadata(source, lam, value, precision)))
        graphs.append(graph)
    if lam.mode in WEIGHTS_APART:
        scales = {} if calibration is None else network.scales(None, calibration.kept)
        write_atomic(folder / WEIGHTS, pack_tensors(pack_weights(network.layers) | pack_scales(scales)))
    golden = _write_golden(source.reference, folder, lam, GATES[precision].max_error, images[:GOLDEN_IMAGES])
    return Manifest(
        floats_edge_version=__version__,
        network=source.title,
        input=InputSpec(shape=source.reference.image_shape, preprocessing=source.reference.preprocessing),
        output=OutputSpec(labels=source.labels),
        lam=lam,
        precision=precision,
        layers=layer_specs(network.layers),
        graphs=tuple(graphs),
        weights=WEIGHTS if lam.mode in WEIGHTS_APART else None,
        golden=golden,
        parity=(),
        calibration=calibration,
        recipe=source.recipe,
        checkpoint_sha256=source.checkpoint_sha256,
        files=file_entries(folder),
    )


def _write_golden(
    reference: Predictor, folder: Path, lam: LambdaSpec, tolerance: float, images: NDArray[np.float32]
) -> Golden:
    lambdas = lam.values or GOLDEN_LAMBDAS
    tensors = {"images": images}
    for index, value in enumerate(lambdas):
        reference.set_lambda(value)
        tensors[f"logits_{index}"] = reference.predict(images)
    write_atomic(folder / "golden.safetensors", pack_tensors(tensors))
    return Golden(file="golden.safetensors", lambdas=lambdas, tolerance=tolerance)


def _metadata(source: Source, lam: LambdaSpec, value: float | None, precision: Precision) -> dict[str, str]:
    return {
        "floats_edge.version": __version__,
        "floats_edge.network": source.title,
        "floats_edge.lambda_mode": lam.mode,
        "floats_edge.lambda": _ANY_LAMBDA[lam.mode] if value is None else f"{value:g}",
        "floats_edge.precision": precision,
        "floats_edge.input": "float32 NCHW in [0, 1]; normalisation is inside the graph",
        "floats_edge.labels": json.dumps(source.labels),
    }
