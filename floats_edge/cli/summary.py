"""What an artifact says of itself: the same content for people, as tables, and for machines, as JSON."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floats_edge.artifacts.bundle import MANIFEST, Bundle, is_bundle, open_bundle
from floats_edge.artifacts.checkpoint import CHECKPOINT, TrainingRun, is_run, open_run
from floats_edge.artifacts.files import FileEntry, read_json
from floats_edge.artifacts.manifest import Calibration, Engine, Manifest, Parity, SparseTactics, Verdict
from floats_edge.artifacts.records import load_record
from floats_edge.artifacts.sensitivity import SENSITIVITY, Sensitivity
from floats_edge.errors import ArtifactError
from floats_edge.report.profile_tables import record_tables
from floats_edge.report.sensitivity import sensitivity_table
from floats_edge.report.tables import Table, clean, label_records


@dataclass(frozen=True)
class Summary:
    """One artifact; ``content`` is ready for JSON."""

    content: dict[str, Any]
    tables: list[Table]


@dataclass(frozen=True)
class _Layer:
    """One conditioned layer; its shape is that of training where no channels were removed since."""

    name: str
    shape: tuple[int, ...]
    trained_shape: tuple[int, ...]
    nonzeros: int

    @property
    def density(self) -> float:
        """Share of the weights of training that are left."""
        return self.nonzeros / math.prod(self.trained_shape)


def summarize(path: Path) -> Summary:
    """Read a bundle, a run folder or a record, and check the hash of every file.

    Raises:
        ArtifactError: it is none of these, or a file of it is missing or altered.
    """
    folder = path.parent if path.name in (MANIFEST, CHECKPOINT) else path
    if is_bundle(folder):
        return _bundle(open_bundle(folder))
    if is_run(folder):
        return _run(open_run(folder))
    if path.suffix == ".json":
        record = load_record(path)
        return Summary(record.model_dump(mode="json"), record_tables(label_records([record])))
    raise ArtifactError(
        f"{path} holds neither a {MANIFEST} nor a {CHECKPOINT}." if path.exists() else f"there is no {path}.",
        fix="name a bundle, a run folder, or an evaluation or profile in JSON",
    )


def _bundle(bundle: Bundle) -> Summary:
    bundle.files.verify()
    manifest = bundle.manifest
    layers = [_Layer(layer.name, layer.shape, layer.trained_shape, layer.nonzeros) for layer in manifest.layers]
    tables = [_table(f"Bundle {bundle.path}", ("property", "value"), _bundle_facts(manifest)), _layer_table(layers)]
    if manifest.engines:
        columns = ("file", "lambda", "built by", "runs on", "precision", "batch", "2:4: layers, eligible, chosen")
        tables.append(_table("TensorRT engines", columns, map(_engine, manifest.engines)))
    if manifest.parity:
        columns = ("lambda", "backend", "against", "images", "top-1 agreement", "largest error", "p99 error")
        tables.append(_table("Parity; errors over the range of the logits", columns, map(_parity, manifest.parity)))
    if manifest.verdicts:
        columns = ("backend", "library", "images", "lambda", "clean %", "robust %", "Square %", "verdict")
        rows = (row for verdict in manifest.verdicts for row in _verdict(verdict))
        title = "Verdicts of floats-edge verify; robust: attacked with its twin's help; Square: by its answers alone"
        tables.append(_table(title, columns, rows))
    if SENSITIVITY in manifest.files:
        tables.append(sensitivity_table(read_json(bundle.path / SENSITIVITY, Sensitivity, "export it again")))
    tables.append(_file_table(manifest.files))
    values = manifest.model_dump(mode="json")
    return Summary(
        {"kind": "bundle", "path": str(bundle.path), "density": manifest.density, "manifest": values}, tables
    )


def _bundle_facts(manifest: Manifest) -> Iterable[tuple[str, str]]:
    served = manifest.lam.values
    yield "network", f"{manifest.network}, {len(manifest.output.labels)} classes"
    yield "input", f"{manifest.input.name}: {manifest.input.dtype} [N, {_dims(manifest.input.shape)}] in [0, 1]"
    yield "images", manifest.input.preprocessing.title
    yield "output", f"{manifest.output.name}: {manifest.output.dtype} [N, {len(manifest.output.labels)}]"
    yield "labels", ", ".join(manifest.output.labels)
    yield "lambda", "any in [0, 1]" if served is None else ", ".join(f"{lam:g}" for lam in served)
    rule = manifest.recipe.condition.rule
    yield "lambda mode", f"{manifest.lam.mode}, rule {rule}, noise seed {manifest.lam.noise_seed}"
    yield "precision", manifest.precision
    if manifest.calibration is not None:
        yield from _kept(manifest.calibration)
    yield "density", f"{manifest.density:.2%}"
    yield "sparsity", manifest.recipe.sparsity.title
    for mismatch in manifest.let_pass:
        yield "let pass", mismatch
    yield "recipe", manifest.recipe.name
    yield "trained weights", f"sha256 begins {manifest.checkpoint_sha256[:16]}"
    yield "written by", f"floats-edge {manifest.floats_edge_version}"


def _kept(calibration: Calibration) -> Iterable[tuple[str, str]]:
    title = f"kept in {calibration.kept_precision}"
    for reason, layers in calibration.kept_by_reason.items():
        yield title, f"{', '.join(layers)}: {reason}"
    if not calibration.kept:
        yield title, "no convolution"


def _run(run: TrainingRun) -> Summary:
    run.files.verify()
    masks = {name.removesuffix(".mask"): mask for name, mask in run.weights().items() if name.endswith(".mask")}
    layers = [
        _Layer(name.removesuffix(".weight"), mask.shape, mask.shape, int(mask.sum()))
        for name, mask in sorted(masks.items())
    ]
    tables = [
        _table(f"Run {run.path}", ("property", "value"), _run_facts(run)),
        _layer_table(layers),
        _file_table(run.checkpoint.files),
    ]
    return Summary({"kind": "run", "path": str(run.path), "checkpoint": run.checkpoint.model_dump(mode="json")}, tables)


def _run_facts(run: TrainingRun) -> Iterable[tuple[str, str]]:
    checkpoint = run.checkpoint
    yield "network", f"{checkpoint.recipe.model.title}, {len(checkpoint.labels)} classes"
    yield "input", checkpoint.images.preprocessing.title
    yield "labels", ", ".join(checkpoint.labels)
    yield "recipe", checkpoint.recipe.name
    if checkpoint.data is not None:
        yield from (("images", line.removeprefix("Images: ").strip()) for line in checkpoint.data.lines())
    yield "method", checkpoint.recipe.method
    yield "sparsity", checkpoint.recipe.sparsity.title
    yield "epochs", f"{len(checkpoint.history)} of {checkpoint.recipe.train.epochs}"
    for last in checkpoint.history[-1:]:
        yield "loss", f"{last.loss:.3f}"
        yield "clean accuracy", f"{last.clean_accuracy:.1f} %, on validation images"
        yield "robust accuracy", f"at most {last.robust_accuracy:.1f} %, on validation images under PGD"
        yield "density", f"{last.density:.2%}"
    yield "trained weights", f"sha256 begins {run.weights_sha256[:16]}"
    yield "written by", f"floats-edge {checkpoint.floats_edge_version}"


def _layer_table(layers: list[_Layer]) -> Table:
    rows = ((la.name, _dims(la.shape), f"{math.prod(la.shape):,}", f"{la.density:.2%}") for la in layers)
    columns = ("layer", "shape", "weights", "density")
    if all(la.shape == la.trained_shape for la in layers):
        return _table("Layers", columns, rows)
    rows = ((*row, _dims(la.trained_shape)) for row, la in zip(rows, layers, strict=True))
    return _table("Layers; density: share of the weights of training", (*columns, "shape in training"), rows)


def _file_table(files: Mapping[str, FileEntry]) -> Table:
    rows = ((name, f"{entry.bytes:,}", entry.sha256[:16]) for name, entry in files.items())
    return _table("Files, every hash verified", ("file", "bytes", "sha256 begins"), rows)


def _engine(engine: Engine) -> tuple[str, ...]:
    lam = "runtime" if engine.lam is None else f"{engine.lam:g}"
    builder, host = f"{engine.flavour} {engine.version}", f"{engine.platform}: {', '.join(engine.targets)}"
    if engine.gpu is not None:
        host += f" ({engine.gpu})"
    if "version" in engine.compatibility:
        builder += " or newer"
    if "ampere+" in engine.compatibility:
        host += ", Ampere or newer"
    if engine.dla is not None:
        host += f", DLA {engine.dla}" + (f": {engine.dla_layers} layers" if engine.dla_layers else "")
    return engine.file, lam, builder, host, engine.precision, "/".join(map(str, engine.batch)), _sparse(engine.sparse)


def _sparse(sparse: SparseTactics | None) -> str:
    if sparse is None:
        return "not recorded"
    eligible, chosen = ("unknown" if count is None else str(count) for count in (sparse.eligible, sparse.chosen))
    return f"{len(sparse.layers)}, {eligible}, {chosen}" + (f": {sparse.unknown}" if sparse.unknown else "")


def _parity(parity: Parity) -> tuple[str, ...]:
    agreement, errors = f"{parity.top1_agreement:.2%}", (f"{parity.max_error:.1e}", f"{parity.p99_error:.1e}")
    return f"{parity.lam:g}", parity.backend, parity.reference, f"{parity.images:,}", agreement, *errors


def _verdict(verdict: Verdict) -> Iterable[tuple[str, ...]]:
    """A line for each lambda, of which the first says how it ended."""
    how = "let pass" if verdict.let_pass else "failed" if verdict.problems else "passed"
    ends = [": ".join((how, " ".join(verdict.problems))) if verdict.problems else how]
    figures = [
        (
            f"{result.lam:g}",
            *(f"{100 * count / verdict.images:.1f}" for count in (result.clean, result.robust, result.square)),
        )
        for result in verdict.results
    ] or [("",) * 4]
    for row, end in itertools.zip_longest(figures, ends, fillvalue=""):
        yield verdict.backend, verdict.library, f"{verdict.images:,}", *row, end


def _dims(shape: Iterable[int]) -> str:
    return ", ".join(map(str, shape))


_FIGURES = frozenset(
    {"weights", "density", "bytes", "images", "top-1 agreement", "largest error", "p99 error"}
    | {"clean %", "robust %", "Square %"}
)


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    """A table of text that may be a stranger's."""
    return Table(clean(title), columns, tuple(tuple(map(clean, row)) for row in rows), figures=_FIGURES)
