"""The stage: every backend at every batch size, each in a process of its own; one that fails does not stop the rest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Precision
from floats_edge.artifacts.records import Estimate, Peaks, Profile, Reading, Run, Trace, bundle_subject
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.profiling.bench import Open, Timing, measure_run
from floats_edge.profiling.conditions import open_sensors, read_conditions
from floats_edge.profiling.energy import POWER, run_energy
from floats_edge.profiling.isolation import run_isolated
from floats_edge.profiling.layers import OpenTraced, trace_layers
from floats_edge.profiling.marks import run_marks
from floats_edge.profiling.peaks import cpu_peaks, gpu_peaks
from floats_edge.profiling.roofline import hold_against
from floats_edge.profiling.telemetry.sensors import Sampler, Sensor, means
from floats_edge.profiling.workload import layer_workloads, needed_memory

IDLE_S = 1.0
"""Seconds over which power is averaged before anything runs."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        openers: by backend, a picklable function that opens it at the lambda to be measured.
        tracers: likewise, such that kernels are timed; called with a folder for traces.
        batches: images per inference.
        streams: predictors that run at the same time.
        timing: how long.
        unavailable: backends that were asked for and cannot run here, with the reason; they go into the record.
        estimates: goes into the record.
    """

    openers: Mapping[str, Open]
    batches: Sequence[int]
    timing: Timing
    streams: Sequence[int] = (1,)
    tracers: Mapping[str, OpenTraced] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    estimates: Sequence[Estimate] = ()


def profile_bundle(bundle: Bundle, plan: Plan, progress: Callable[[str], None] = lambda step: None) -> Profile:
    """Measure a bundle. Ctrl-C, and a bundle that vanishes, end the profile early; what was measured is returned.

    Args:
        bundle: what is measured.
        plan: how.
        progress: told what is measured next.

    Raises:
        ArtifactError: a file of the bundle is not what was exported.
        LambdaError: the bundle does not serve the lambda.
        BackendError: nothing could be measured.
        KeyboardInterrupt: before anything was measured.
    """
    stage = _Stage(bundle, plan)
    incomplete = None
    try:
        with ExitStack() as stack:
            sensors = stack.enter_context(open_sensors())
            for step in stage.steps(sensors):
                progress(step)
    except KeyboardInterrupt:
        if not stage.runs:
            raise
        incomplete = "interrupted"
    except ArtifactError as error:
        if not stage.runs:
            raise
        incomplete = error.what
    if not stage.runs:
        reasons = "; ".join(f"{step}: {reason}" for step, reason in stage.skipped.items())
        raise BackendError(
            f"nothing could be measured. {reasons or 'no backend was asked for'}",
            fix="floats-edge doctor shows what is missing",
        )
    return Profile(
        subject=bundle_subject(bundle),
        size=_sizes(bundle),
        conditions=stage.conditions,
        runs=tuple(stage.runs),
        traces=tuple(stage.traces),
        estimates=tuple(plan.estimates),
        skipped=stage.skipped,
        incomplete=incomplete,
    )


class _Stage:
    """A profile on its way.

    Attributes:
        runs: measured so far; the others likewise.
    """

    def __init__(self, bundle: Bundle, plan: Plan) -> None:
        self.conditions = read_conditions()
        self.runs: list[Run] = []
        self.traces: list[Trace] = []
        self.skipped = dict(plan.unavailable)
        self._plan = plan
        self._workloads = layer_workloads(bundle)

    def steps(self, sensors: Sequence[Sensor]) -> Iterator[str]:
        """Name every step before it is taken."""
        power = [sensor for sensor in sensors if sensor.name in POWER]
        yield "idle power"
        idle_w = means(power, IDLE_S) if power else {}
        for backend, opener in self._plan.openers.items():
            for batch, streams in product(self._plan.batches, self._plan.streams):
                step = f"{backend}, batch {batch}" + (f", {streams} streams" if streams > 1 else "")
                yield step
                try:
                    self.runs.append(self._measure(opener, batch, streams, sensors, idle_w))
                except BackendError as error:
                    self.skipped[step] = error.what
            if backend in self._plan.tracers and any(run.backend.startswith(backend) for run in self.runs):
                yield f"layers on {backend}"
                self._trace(backend)
        self._merge_failures()

    def _measure(
        self,
        opener: Open,
        batch: int,
        streams: int,
        sensors: Sequence[Sensor],
        idle_w: Mapping[str, float | None],
    ) -> Run:
        with Sampler(sensors) as sampler:
            measured = run_isolated(measure_run, opener, batch, self._plan.timing, streams)
        sampled = sampler.over((measured.start_ns, measured.end_ns))
        seconds = (measured.end_ns - measured.start_ns) / 1e9
        changes = {
            "conditions": sampled,
            "energy": run_energy(sampled, idle_w, seconds, measured.run.latency_ms.n),
            "marks": run_marks(measured, sampled, self.conditions),
            "memory": measured.run.memory | needed_memory(self._workloads, batch),
        }
        return measured.run.model_copy(update=changes)

    def _trace(self, backend: str) -> None:
        batch = self._plan.batches[0]
        try:
            trace = run_isolated(trace_layers, self._plan.tracers[backend], batch, self._workloads)
        except BackendError as error:
            self.skipped[f"layers on {backend}"] = error.what
        else:
            self.traces.append(hold_against(trace, self._peaks(trace)))

    def _peaks(self, trace: Trace) -> Peaks:
        precisions: list[Precision] = list(dict.fromkeys(work.precision for work in self._workloads))
        return gpu_peaks(precisions) if trace.device == "gpu" else cpu_peaks(trace.threads, precisions)

    def _merge_failures(self) -> None:
        """Tell a backend that fails in the same way throughout once."""
        for backend in self._plan.openers:
            steps = [step for step in self.skipped if step.startswith(f"{backend}, ")]
            reasons = {self.skipped[step] for step in steps}
            if len(steps) == len(self._plan.batches) * len(self._plan.streams) and len(reasons) == 1:
                for step in steps:
                    del self.skipped[step]
                self.skipped[backend] = reasons.pop()


def _sizes(bundle: Bundle) -> dict[str, Reading]:
    """Bytes on disk by part; parts a bundle has none of are left out."""
    manifest = bundle.manifest
    parts = {
        "ONNX graphs": [graph.file for graph in manifest.graphs],
        "weights": [manifest.weights] if manifest.weights else [],
        "TensorRT engines": [engine.file for engine in manifest.engines],
        "whole bundle": list(manifest.files),
    }
    return {
        part: Reading(
            value=sum(manifest.files[name].bytes for name in names),
            unit="bytes",
            source=f"manifest.json, {len(names)} file{'s' if len(names) > 1 else ''}",
        )
        for part, names in parts.items()
        if names
    }
