import re

from fixtures.records import DIGITS, answers, bundle_evaluation

from floats_edge.report.confusion import confusion_svg
from floats_edge.report.html import render_html


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_cells_are_percent_of_the_true_class() -> None:
    svg = confusion_svg(bundle_evaluation(results=(answers(0.5, 430, 120),)), "c")
    shown = texts(svg)
    assert "λ = 0.5, clean" in shown
    assert "λ = 0.5, attacked" in shown
    numbers = [text for text in shown if text.isdigit() and text not in DIGITS]
    assert sorted(numbers) == sorted([*("100",) * 8, "60", "40", "100", *("100",) * 2, "40", "60", *("100",) * 7])


def test_names_are_shortened_and_harmless() -> None:
    labels = ("a name that goes on and on", "<b>$x$\x1b", *DIGITS[2:])
    svg = confusion_svg(bundle_evaluation(labels=labels, results=(answers(0.5, 430, 120, labels=labels),)), "c")
    assert "a name that g…" in texts(svg)
    assert "&lt;b&gt;$x$\N{REPLACEMENT CHARACTER}" in texts(svg)


def test_above_twenty_classes_the_most_frequent_are_listed_instead() -> None:
    def page(classes: int) -> str:
        labels = tuple(f"class {index}" for index in range(classes))
        return render_html([bundle_evaluation(labels=labels, results=(answers(0.5, 30, 9, 5, labels),))])

    few, many = page(20), page(21)
    assert few.count("<svg") == 2
    assert "Most frequent confusions" not in few
    assert many.count("<svg") == 1
    assert "Most frequent confusions" in many
    assert "too many for a picture" in many
