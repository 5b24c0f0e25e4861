"""What quantising each layer costs, as a table."""

from collections.abc import Sequence

from floats_edge.artifacts.sensitivity import Cost, Sensitivity
from floats_edge.report.tables import Table, clean

_FIGURES = ("top-1 agreement", "median error", "p99 error", "largest error")


def sensitivity_table(report: Sensitivity) -> Table:
    """A row per layer, the most costly first; each figure is that of the lambda at which it is worst."""
    lambdas = ", ".join(f"{cost.lam:g}" for cost in report.together)
    return Table(
        "What int8 costs in one layer alone; errors over the range of the logits",
        ("layer", *_FIGURES),
        tuple(
            (clean(name), *_worst(costs))
            for name, costs in (
                *((layer.layer, layer.costs) for layer in report.layers),
                ("all of these together", report.together),
            )
        ),
        figures=frozenset(_FIGURES),
        notes=(f"The worst of lambda {lambdas}; {report.images} clean validation images, on ONNX Runtime's CPU.",),
    )


def _worst(costs: Sequence[Cost]) -> tuple[str, ...]:
    errors = (max(getattr(cost, name) for cost in costs) for name in ("p50_error", "p99_error", "max_error"))
    return f"{min(cost.top1_agreement for cost in costs):.2%}", *(f"{error:.1e}" for error in errors)
