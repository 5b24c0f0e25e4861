"""Layers held against what the device attains: the roofline model (Williams et al., CACM 2009)."""

from floats_edge.artifacts.records import Layer, Peaks, Trace


def hold_against(trace: Trace, peaks: Peaks) -> Trace:
    """The trace with the rates of each layer, and the least time that the peaks allow for its work."""
    layers = tuple(layer.model_copy(update=_rates(layer, peaks)) for layer in trace.layers)
    return trace.model_copy(update={"peaks": peaks, "layers": layers})


def _rates(layer: Layer, peaks: Peaks) -> dict[str, float | str | None]:
    """What a layer attains, and what is attainable; what its work or a peak is not known for is left out."""
    if layer.macs is None or not layer.time_us:
        return {}
    attained = {"gflops": 2e-3 * layer.macs / layer.time_us}
    if layer.precision is None or layer.bytes is None:
        return dict(attained)
    attained["gb_s"] = 1e-3 * layer.bytes / layer.time_us
    arithmetic, memory = peaks.arithmetic[layer.precision].value, peaks.memory.value
    if not arithmetic or not memory:
        return dict(attained)
    computing, moving = 2e-3 * layer.macs / arithmetic, 1e-3 * layer.bytes / memory
    bound = "arithmetic" if computing >= moving else "memory"
    return attained | {"attainable_us": max(computing, moving), "bound": bound}
