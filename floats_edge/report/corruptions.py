"""What common corruptions do to a network at every lambda."""

from floats_edge.artifacts.corruptions import Corruptions
from floats_edge.artifacts.records import Evaluation
from floats_edge.report.tables import Content, Table, make_table

_ROWS = (
    "Accuracy in percent on images as cameras may deliver them, corrupted as by Hendrycks & Dietterich (ICLR 2019): "
    "the mean of severities 1 to 5, with the parameters of CIFAR-10-C for images of up to 64 pixels and of ImageNet-C "
    "for larger ones. Frost, which needs photographs, is left out: the mean compares with no published one. ±: half of "
    "the 95 % interval over images; it does not cover the choice of seed."
)


def corruption_tables(content: Content) -> list[Table]:
    """Accuracy by corruption and lambda of every evaluation that has it."""
    return [_table(label, record, record.corruptions) for label, record in content.distinct if record.corruptions]


def _table(label: str, record: Evaluation, found: Corruptions) -> Table:
    places = range(len(found.lambdas))
    rows = [("none", *(f"{result.clean.percent:.1f}" for result in record.results))]
    rows += [(name, *(f"{found.accuracy(name, place):.1f}" for place in places)) for name in found.right]
    rows.append(("mean", *("{:.1f} ± {:.1f}".format(*found.mean(place)) for place in places)))
    columns = ("corruption", *(f"λ = {lam:g}" for lam in found.lambdas))
    notes = (_ROWS, *corruption_remarks(found))
    return make_table(f"Common corruptions · {label}", columns, rows, columns[1:], notes=notes)


def corruption_remarks(found: Corruptions) -> list[str]:
    """At which lambda the mean is highest, and by how much."""
    best = max(range(len(found.lambdas)), key=lambda place: found.mean(place)[0])
    ahead = [
        "{:.1f} ± {:.1f} above λ = {:g}".format(*found.difference(best, place), lam)
        for place, lam in enumerate(found.lambdas)
        if place != best
    ]
    if not ahead:
        return []
    return [f"The mean is highest at λ = {found.lambdas[best]:g}: in points, image by image, {', '.join(ahead)}."]
