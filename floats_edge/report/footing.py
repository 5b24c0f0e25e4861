"""How long the variants of a study train, and why."""

from floats_edge.artifacts.study import Budget, Footing
from floats_edge.report.tables import Table, make_table, number


def footing_table(footing: Footing) -> Table:
    """Epochs of every variant, and what they amount to."""
    timed = ("s per epoch", "expected s") if footing.equal == "seconds" else ()
    columns = ("variant", "epochs", "images per epoch", "images trained on", *timed)
    rows = (
        (
            name,
            f"{budget.epochs:,}",
            f"{budget.images:,}",
            f"{budget.epochs * budget.images:,}",
            *(_seconds(budget) if timed else ()),
        )
        for name, budget in footing.budgets.items()
    )
    return make_table(f"Equal {footing.equal}", columns, rows, figures=columns[1:], notes=_notes(footing))


def _seconds(budget: Budget) -> tuple[str, str]:
    timing = budget.timing
    assert timing is not None, "equal seconds are timed"
    return (
        f"{number(timing.median)} [{number(timing.low)}, {number(timing.high)}]",
        number(budget.epochs * timing.median),
    )


def _notes(footing: Footing) -> tuple[str, ...]:
    counted = "Images: clean or attacked, counted where weights are updated, not inside the attack."
    together = " + ".join(footing.reference)
    if footing.equal == "epochs":
        return (f"Every variant trains as many epochs. {counted}",)
    if footing.equal == "passes":
        return (f"Every variant trains on as many images as {together}, to whole epochs. {counted}",)
    timings = [budget.timing for budget in footing.budgets.values() if budget.timing]
    conditions = {tuple(timing.conditions.items()): timing.steps for timing in timings}
    return (
        f"Every variant trains as many seconds as {together}, to whole epochs, checks of accuracy apart. {counted}",
        *(
            f"Seconds: median [quartiles] of {steps} training steps, timed in turn with those of the other variants, "
            f"over an epoch. Conditions: {', '.join(f'{name} {value}' for name, value in where)}."
            for where, steps in conditions.items()
        ),
    )
