"""The engines of a bundle: built into its folder, listed in its manifest, checked where this machine can run them."""

import logging
from pathlib import Path

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.manifest import Engine, Graph, Manifest, Mode, Precision
from floats_edge.deploy.dla import dla_layers
from floats_edge.deploy.engine_request import BuildRequest, BuiltEngine, EngineOptions
from floats_edge.deploy.say import Say
from floats_edge.deploy.tensorrt_engine import build_engine
from floats_edge.deploy.two_of_four import sparse_layers, sparse_tactics
from floats_edge.errors import BackendError, FloatsError, ParityError
from floats_edge.runtime.backends import unavailable_reason
from floats_edge.runtime.golden import check_golden, read_golden
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.trt import load_trt

log = logging.getLogger("floats_edge.deploy")

_DLA_MODES: tuple[Mode, ...] = ("fixed", "bank")
_DLA_PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
_OTHERWISE = "try another --precision, another --switch or another version of TensorRT"


def check_options(options: EngineOptions, mode: Mode, precision: Precision) -> None:
    """Refuse what no engine of this mode and precision can be, before anything is built.

    Raises:
        BackendError: a DLA computes in fp16 and int8 only, and with constant weights only.
    """
    if options.dla is not None and (mode not in _DLA_MODES or precision not in _DLA_PRECISIONS):
        raise BackendError(
            f"a DLA cannot run mode {mode} in {precision}: it takes constant weights, in fp16 or int8.",
            fix="export with --lambda 0.3 (or several) --precision fp16, or leave --dla out",
        )


def with_engines(folder: Path, manifest: Manifest, options: EngineOptions, say: Say) -> Manifest:
    """Build an engine of every graph of a bundle into its folder; the manifest lists the newest engines first.

    Raises:
        ArtifactError: a file of the bundle is not what was exported.
        BackendError: TensorRT is missing, cannot build an engine, or gives a DLA nothing to run.
    """
    bundle = Bundle(folder, manifest)
    engines = tuple(_add_engine(bundle, graph, options, say) for graph in manifest.graphs)
    replaced = {engine.file for engine in engines}
    kept = tuple(engine for engine in manifest.engines if engine.file not in replaced)
    return manifest.model_copy(update={"engines": engines + kept})


def check_engines(folder: Path, say: Say) -> None:
    """Let the newest engines of a bundle pass that give the golden outputs, or, with a warning, that cannot run here.

    Args:
        folder: the bundle, which has not taken its place yet: no remedy sends the user there.
        say: told what is being done.

    Raises:
        ArtifactError: an engine does not take or give what the bundle does.
        BackendError: it fits this machine and does not run.
        ParityError: it runs and gives something else.
    """
    bundle = open_bundle(folder)
    newest = bundle.manifest.model_copy(update={"engines": _newest(bundle.manifest)})
    bundle = Bundle(folder, newest)
    reason = unavailable_reason("trt", bundle)
    if reason is not None:
        log.warning("built, but not run here: %s", reason)
        return
    say("checking the engine's golden outputs")
    golden = read_golden(bundle)
    try:
        with load_trt(bundle, newest.golden.lambdas[0]) as engine:
            check_golden(engine, golden)
    except ParityError as error:
        raise ParityError(error.what, fix=f"{_OTHERWISE}, or keep it all the same with --allow-mismatch") from error
    except FloatsError as error:
        raise type(error)(error.what, fix=f"free memory on this GPU and run it again, or {_OTHERWISE}") from error


def with_mismatch(manifest: Manifest, mismatch: str) -> Manifest:
    """The manifest with what the golden outputs have against the newest engines, which are let pass all the same."""
    newest = _newest(manifest)
    marked = tuple(engine.model_copy(update={"mismatch": mismatch}) for engine in newest)
    return manifest.model_copy(update={"engines": marked + manifest.engines[len(newest) :]})


def _newest(manifest: Manifest) -> tuple[Engine, ...]:
    """One engine of each graph: what :func:`with_engines` built last."""
    return manifest.engines[: len(manifest.graphs)]


def _add_engine(bundle: Bundle, graph: Graph, options: EngineOptions, say: Say) -> Engine:
    say(f"building the TensorRT engine of {graph.file}")
    folder, manifest = bundle.path, bundle.manifest
    sparse = sparse_layers(bundle, graph)
    refittable = bundle_weights(bundle).varying if manifest.lam.mode == "refit" else ()
    request = BuildRequest(folder / graph.file, folder / "engine.plan", options, refittable, bool(sparse))
    built = build_engine(request)
    on_dla = None if options.dla is None else dla_layers(built.log)
    plan = folder / "engines" / f"{_name(built, graph, manifest.precision, options)}.plan"
    plan.parent.mkdir(exist_ok=True)
    request.plan.replace(plan)
    write_atomic(plan.with_suffix(".log"), built.log.encode())
    plan.with_suffix(".layers.json").unlink(missing_ok=True)
    if built.layers is not None:
        write_atomic(plan.with_suffix(".layers.json"), built.layers.encode())
    return Engine(
        file=plan.relative_to(folder).as_posix(),
        lam=graph.lam,
        flavour=built.flavour,
        version=built.version,
        platform=built.platform,
        targets=built.targets,
        gpu=built.gpu,
        precision=manifest.precision,
        batch=options.batch,
        compatibility=options.compatibility,
        dla=options.dla,
        dla_layers=on_dla,
        sparse=sparse_tactics(sparse, built.log),
    )


def _name(built: BuiltEngine, graph: Graph, precision: Precision, options: EngineOptions) -> str:
    """One name for each kind of host, precision and lambda: a bundle holds one engine of each."""
    targets = "+".join(built.targets) if options.targets or len(built.targets) == 1 else "portable"
    words = [built.flavour, built.version, targets, precision, *options.compatibility]
    if options.dla is not None:
        words.append(f"dla{options.dla}")
    if graph.lam is not None:
        words.append(f"lam{graph.lam!r}")
    return "-".join(words)
