"""Accuracy by class: which classes a network knows worst, and what it takes them for."""

from collections.abc import Iterator

from floats_edge.artifacts.accuracy import Answers, LambdaAnswers, confusions
from floats_edge.artifacts.records import Evaluation
from floats_edge.report.tables import Content, Table, clean, make_table, share

MOST_IN_A_MATRIX = 20
"""Classes of which a confusion matrix can still be read."""
_MOST_ROWS = 20
_MOST_CONFUSIONS = 5
_UNEQUAL_SIZES = 2
_UNEQUAL_POINTS = 20
"""What is worth a remark: the largest class over the smallest, and how far the worst is below the average."""


def ends(record: Evaluation) -> tuple[LambdaAnswers, LambdaAnswers]:
    """The results at the lowest and at the highest lambda, which may be the same."""
    return min(record.results, key=lambda result: result.lam), max(record.results, key=lambda result: result.lam)


def class_tables(content: Content) -> list[Table]:
    """Accuracy by class and the most frequent confusions of every evaluation."""
    tables = (make(label, record) for label, record in content.distinct for make in (class_table, confusion_table))
    return [table for table in tables if table.rows]


def class_table(label: str, record: Evaluation) -> Table:
    """Accuracy of the worst classes at both ends of lambda."""
    first, last = ends(record)
    shown = (first,) if first is last else (first, last)
    by_class = [result.by_class for result in shown]
    names = worst_first(record)
    rows = (
        (
            name,
            f"{first.images[name]:,}",
            *(text for of in by_class for text in (share(of[name].clean), f"≤ {share(of[name].robust)}")),
        )
        for name in names[:_MOST_ROWS]
    )
    figures = [f"{what} %, λ = {result.lam:g}" for result in shown for what in ("clean", "robust")]
    columns = ("class", "images", *figures)
    order = f"clean accuracy at λ = {first.lam:g} plus robust accuracy at λ = {last.lam:g}"
    notes = [f"Worst first, by {order}. In brackets: Wilson 95 % interval; it is wide where a class has few images."]
    if len(names) > _MOST_ROWS:
        notes.append(f"The worst {_MOST_ROWS} of {len(names):,} classes; --csv writes all of them.")
    if missing := [name for name in record.labels if name not in first.images]:
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        notes.append(f"No images of {', '.join(missing[:5])}{more}.")
    return make_table(f"Accuracy by class · {label}", columns, rows, columns[1:], figures[1:-1], notes)


def confusion_table(label: str, record: Evaluation) -> Table:
    """What classes are most often taken for at both ends of lambda, clean and attacked."""
    rows = (
        (f"{lam:g}", kind, name, answer, f"{count:,}", f"{100 * count / total:.1f}", f"{total:,}")
        for lam, kind, answers in matrices(record)
        for name, answer, count in confusions(answers)[:_MOST_CONFUSIONS]
        for total in (sum(answers[name].values()),)
    )
    columns = ("λ", "images", "class", "taken for", "count", "% of the class", "class size")
    figures = ("λ", "count", "% of the class", "class size")
    notes = (f"The {_MOST_CONFUSIONS} most frequent wrong answers each; --csv writes all of them.",)
    return make_table(f"Most frequent confusions · {label}", columns, rows, figures, notes=notes)


def matrices(record: Evaluation) -> Iterator[tuple[float, str, Answers]]:
    """``(lambda, "clean" or "attacked", answers)`` at both ends of lambda."""
    first, last = ends(record)
    for result in (first,) if first is last else (first, last):
        yield result.lam, "clean", result.clean_answers
        yield result.lam, "attacked", result.attacked_answers


def worst_first(record: Evaluation) -> list[str]:
    """Classes that have images, by clean accuracy at the lowest lambda plus robust accuracy at the highest."""
    clean_at, robust_at = (result.by_class for result in ends(record))
    return sorted(clean_at, key=lambda name: clean_at[name].clean.percent + robust_at[name].robust.percent)


def class_remark(record: Evaluation) -> str | None:
    """One line on what the average hides; None where classes are alike in size and accuracy."""
    first, last = ends(record)
    worst = worst_first(record)[0]
    shares = first.by_class[worst].clean, last.by_class[worst].robust
    sizes = first.images.values()
    below = first.clean.percent - shares[0].percent, last.robust.percent - shares[1].percent
    if max(sizes) < _UNEQUAL_SIZES * min(sizes) and max(below) < _UNEQUAL_POINTS:
        return None
    return clean(
        f"By class: {first.macro[0]:.1f} % clean at λ = {first.lam:g}, ≤ {last.macro[1]:.1f} % robust at "
        f"λ = {last.lam:g} (means of {len(sizes)} classes); worst: {worst}, {shares[0].percent:.1f} % and "
        f"≤ {shares[1].percent:.1f} % of {shares[0].total:,} images."
    )
