"""A model repository for the Triton Inference Server: a model for each lambda, or one that takes lambda beside images.

Sources: docs/user_guide/model_configuration.md and model_repository.md of triton-inference-server/server; what a scalar
input may be, onnxruntime.cc of triton-inference-server/onnxruntime_backend (``ValidateInputs``).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from floats_edge.artifacts.bundle import Bundle, rebuild_command
from floats_edge.artifacts.manifest import LAMBDA_INPUT, Engine, Mode
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.packs.folder import (
    README,
    PackRecord,
    check_packable,
    manifest_sha256,
    model_name,
    provenance,
    write_pack,
)
from floats_edge.runtime.graph_check import graph_bytes

Backend = Literal["onnxruntime", "tensorrt"]
LARGEST_BATCH = 8
"""On ONNX Runtime, whose graphs take any batch, unless another is asked for."""

_MODES: dict[Backend, tuple[Mode, ...]] = {"onnxruntime": ("fixed", "bank", "input"), "tensorrt": ("fixed", "bank")}
_VERDICTS: dict[Backend, tuple[str, ...]] = {"onnxruntime": ("ort-cpu", "ort-cuda"), "tensorrt": ("trt",)}
_LABELS = "labels.txt"


@dataclass(frozen=True)
class TritonRequest:
    """What to make.

    Attributes:
        name: of the model; None: that of the bundle's folder.
        backend: what runs it in Triton.
        batch: largest that Triton may put together; None: what the engine takes, or :data:`LARGEST_BATCH`.
    """

    name: str | None = None
    backend: Backend = "onnxruntime"
    batch: int | None = None


@dataclass(frozen=True)
class _Model:
    """One folder of the repository; ``engine`` is None on ONNX Runtime."""

    name: str
    lam: float | None
    file: str
    engine: Engine | None
    batch: int

    @property
    def path(self) -> str:
        return f"{self.name}/1/{'model.plan' if self.engine else 'model.onnx'}"


def pack_triton(bundle: Bundle, out: Path, request: TritonRequest) -> PackRecord:
    """Write a model repository at ``out``.

    Raises:
        ArtifactError: Triton cannot serve its lambda mode, or a file is not what was exported.
        BackendError: what is asked for has no graph or engine that Triton's backend runs.
        ParityError: ``floats-edge verify`` found that it does not compute what it should.
        OutputError: ``out`` cannot be written or holds something else.
    """
    check_packable(bundle, f"Triton's {request.backend} backend", _MODES[request.backend], _VERDICTS[request.backend])
    return write_pack(bundle, out, "triton", _files(bundle, _models(bundle, request)))


def _models(bundle: Bundle, request: TritonRequest) -> tuple[_Model, ...]:
    manifest, name = bundle.manifest, model_name(bundle, request.name)
    if request.backend == "onnxruntime" and manifest.precision == "bf16":
        raise BackendError(
            "ONNX Runtime has no bf16 convolution on the CPU, and its GPU provider was never tried with these graphs.",
            fix="pack an engine with --backend tensorrt, or export with --precision fp16",
        )
    if request.batch is not None and manifest.lam.mode == "input":
        raise ArtifactError(
            "a model that takes lambda is not batched by Triton, because a batch has one lambda.",
            fix="leave out --batch, and send several images in one request; or export with --lambda 0 --lambda 1",
        )
    models: list[_Model] = []
    for graph in manifest.graphs:
        title = name if manifest.lam.mode != "bank" else f"{name}-lambda-{graph.lam!r}"
        if request.backend == "onnxruntime":
            batch = 0 if manifest.lam.mode == "input" else request.batch or LARGEST_BATCH
            models.append(_Model(title, graph.lam, graph.file, None, batch))
        else:
            engine = _engine(bundle, graph.lam, request.batch)
            models.append(_Model(title, graph.lam, engine.file, engine, request.batch or engine.batch[2]))
    return tuple(models)


def _engine(bundle: Bundle, lam: float | None, batch: int | None) -> Engine:
    """The first engine for ``lam`` that Triton's TensorRT can be expected to load."""
    served = [engine for engine in bundle.manifest.engines if engine.lam == lam]
    plain = [e for e in served if e.flavour == "tensorrt" and e.dla is None and "version" not in e.compatibility]
    fix = f"on the server's machine: {rebuild_command(bundle)}"
    if not plain:
        raise BackendError(
            f"{bundle.path} holds no engine of the full TensorRT"
            f"{'' if lam is None else f' for lambda {lam:g}'} that needs neither a DLA nor code for the host.",
            fix=f"{fix}; or pack the graph with --backend onnxruntime",
        )
    smallest, best, largest = plain[0].batch
    wanted = batch or largest
    if smallest > 1 or wanted > largest:
        raise BackendError(
            f"{plain[0].file} takes batches of {smallest} to {largest}, and Triton would send 1 to {wanted} images.",
            fix=rebuild_command(bundle, (1, best, max(wanted, largest))),
        )
    return plain[0]


def _files(bundle: Bundle, models: Sequence[_Model]) -> Iterator[tuple[str, bytes]]:
    labels = "".join(f"{label}\n" for label in bundle.manifest.output.labels).encode()
    for model in models:
        yield f"{model.name}/config.pbtxt", _config(bundle, model).encode()
        yield f"{model.name}/{_LABELS}", labels
        yield model.path, bundle.read(model.file) if model.engine else graph_bytes(bundle, model.file)
    yield README, _readme(bundle, models).encode()


def _config(bundle: Bundle, model: _Model) -> str:
    """The text of a ``ModelConfig``. A model that takes lambda is not batched: a batch has one lambda."""
    manifest = bundle.manifest
    free = () if model.batch else (-1,)
    inputs = [_tensor(manifest.input.name, (*free, *manifest.input.shape))]
    if manifest.lam.mode == "input":
        inputs.append(_tensor(LAMBDA_INPUT, (1,)))
    labels = f" label_filename: {json.dumps(_LABELS)}"
    output = _tensor(manifest.output.name, (*free, len(manifest.output.labels)), labels)
    parameters = {
        "floats_edge.lambda": LAMBDA_INPUT if model.lam is None else repr(model.lam),
        "floats_edge.manifest_sha256": manifest_sha256(bundle),
    }
    lines = [
        f"name: {json.dumps(model.name)}",
        f'backend: "{"tensorrt" if model.engine else "onnxruntime"}"',
        f"max_batch_size: {model.batch}",
        f"input [ {', '.join(inputs)} ]",
        f"output [ {output} ]",
        *(["dynamic_batching { }"] if model.batch > 1 else []),
        *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()),
    ]
    return "\n".join(lines) + "\n"


def _tensor(name: str, dims: Sequence[int], more: str = "") -> str:
    sizes = ", ".join(map(str, dims))
    return f"{{ name: {json.dumps(name, ensure_ascii=False)} data_type: TYPE_FP32 dims: [ {sizes} ]{more} }}"


def _readme(bundle: Bundle, models: Sequence[_Model]) -> str:
    manifest = bundle.manifest
    shape = ", ".join(map(str, manifest.input.shape))
    rows = [f"| `{m.name}` | {'of the request' if m.lam is None else f'{m.lam:g}'} | {_runs_on(m)} |" for m in models]
    lam = (
        "`lambda` (float32 [1]) is the second input: 0 for clean accuracy, 1 for robustness. Triton does not check it. "
        "Whoever sets it sets how robust the network is: let your own service set it, not those who send images. There "
        "is no batching by Triton, because a batch has one lambda: send several images in one request."
        if manifest.lam.mode == "input"
        else "Lambda is fixed in each model: 0 is best on clean images, 1 most robust. Ask for the model you want."
    )
    return f"""# A model repository for Triton

    tritonserver --model-repository .

| model | lambda | runs on |
| --- | --- | --- |
{chr(10).join(rows)}

`{manifest.input.name}` takes float32 [N, {shape}] in [0, 1]. The client does what was done in training:
{manifest.input.preprocessing.title}. Mean and deviation are inside the network.

`{manifest.output.name}` gives logits, not probabilities, in the order of `{_LABELS}`. Triton's classification extension
names the class{" of a request with one image" if manifest.lam.mode == "input" else ""}.

{lam}

{provenance(bundle)}"""


def _runs_on(model: _Model) -> str:
    if model.engine is None:
        return "ONNX Runtime, any machine"
    engine = model.engine
    gpu = f"{engine.gpu}, " if engine.gpu else ""
    return f"TensorRT {engine.version} on {gpu}{', '.join(engine.targets)} ({engine.platform}), nothing else"
