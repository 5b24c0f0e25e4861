"""Calibration over lambda: whether a network is right as often as it is sure."""

from floats_edge.report.tables import Content, Table, make_table

_NOTES = (
    "Confidence is the largest softmax probability. Error: expected calibration error of 15 bins (Guo et al., ICML "
    "2017), the mean distance between confidence and accuracy; of it, too sure is where confidence is higher, too "
    "unsure where it is lower. On so few images a perfectly calibrated network would show an error, too: by chance.",
)


def reliability_table(content: Content) -> Table:
    """Expected calibration error at every lambda, clean and attacked."""
    rows = (
        (
            label,
            f"{result.lam:g}",
            *(
                f"{figure:.1f}"
                for found in (result.clean_reliability, result.attacked_reliability)
                for figure in (found.error, found.overconfidence, found.underconfidence, found.by_chance)
            ),
        )
        for label, record in content.distinct
        for result in record.results
    )
    parts = ("error", "too sure", "too unsure", "by chance")
    figures = [f"{kind}: {part} %" for kind in ("clean", "attacked") for part in parts]
    details = [name for name in figures if "by chance" in name]
    return make_table("Calibration", ("subject", "λ", *figures), rows, ("λ", *figures), details, _NOTES)
