import pytest
from fixtures.records import DIGITS, answers, bundle_evaluation, sure

from floats_edge.artifacts.accuracy import LambdaAnswers
from floats_edge.report.classes import class_remark, class_table, confusion_table, worst_first


def uneven(cats: int, right: int, withstood: int) -> LambdaAnswers:
    """100 dogs, of which 90 are right and 50 withstand, and ``cats``."""

    def rows(dogs: int, cats_right: int) -> dict[str, dict[str, int]]:
        found = {"dog": {"dog": dogs, "cat": 100 - dogs}, "cat": {"cat": cats_right, "dog": cats - cats_right}}
        return {name: {answer: count for answer, count in row.items() if count} for name, row in found.items()}

    return LambdaAnswers(
        lam=0.0,
        clean_answers=rows(90, right),
        attacked_answers=rows(50, withstood),
        withstood={"dog": 50, "cat": withstood},
        clean_reliability=sure(rows(90, right)),
        attacked_reliability=sure(rows(50, withstood)),
    )


def evaluation(*results: LambdaAnswers, labels: tuple[str, ...] = ("cat", "dog", "emu")):
    return bundle_evaluation(labels=labels, results=results)


def test_worst_classes_come_first_with_their_sizes() -> None:
    record = evaluation(uneven(10, 3, 1), uneven(10, 4, 2).model_copy(update={"lam": 1.0}))
    table = class_table("run", record)
    assert table.title == "Accuracy by class · run"
    assert table.columns == (
        "class",
        "images",
        *("clean %, λ = 0", "robust %, λ = 0", "clean %, λ = 1", "robust %, λ = 1"),
    )
    assert [row[0] for row in table.rows] == ["cat", "dog"]
    shown = [cell.partition(" [")[0] for cell in table.rows[0]]
    assert shown == ["cat", "10", "30.0", "≤ 10.0", "40.0", "≤ 20.0"]
    assert "No images of emu." in table.notes


def test_one_lambda_has_one_pair_of_columns() -> None:
    assert len(class_table("run", evaluation(uneven(10, 3, 1))).columns) == 4


def test_both_ends_decide_which_class_is_worst() -> None:
    """Cats are better clean and worse attacked, by more."""
    assert worst_first(evaluation(uneven(100, 95, 5))) == ["cat", "dog"]
    assert worst_first(evaluation(uneven(100, 95, 49))) == ["dog", "cat"]


def test_of_many_classes_the_worst_twenty_are_shown() -> None:
    labels = tuple(f"class {index}" for index in range(1000))
    record = bundle_evaluation(labels=labels, results=(answers(0.0, 1500, 300, each=2, labels=labels),))
    table = class_table("run", record)
    assert len(table.rows) == 20
    assert table.rows[0][0] == "class 750"
    assert "The worst 20 of 1,000 classes; --csv writes all of them." in table.notes


def test_confusions_are_named_with_their_share_of_the_class() -> None:
    table = confusion_table("run", evaluation(uneven(10, 3, 1)))
    assert table.rows == (
        ("0", "clean", "dog", "cat", "10", "10.0", "100"),
        ("0", "clean", "cat", "dog", "7", "70.0", "10"),
        ("0", "attacked", "dog", "cat", "50", "50.0", "100"),
        ("0", "attacked", "cat", "dog", "9", "90.0", "10"),
    )


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (uneven(10, 9, 4), "worst: cat, 90.0 % and ≤ 40.0 % of 10 images"),  # a tenth of the size
        (uneven(100, 50, 40), "By class: 70.0 % clean at λ = 0, ≤ 45.0 % robust at λ = 0 (means of 2 classes)"),
        (uneven(100, 80, 40), None),
    ],
)
def test_a_remark_where_the_average_hides_something(result: LambdaAnswers, said: str | None) -> None:
    remark = class_remark(evaluation(result))
    assert remark is None if said is None else said in str(remark)


def test_the_remark_is_one_line_of_plain_text() -> None:
    labels = ("a\x1b[31m\nb", *DIGITS[1:])
    remark = class_remark(bundle_evaluation(labels=labels, results=(answers(0.0, 400, 10, labels=labels),)))
    assert str(remark).isprintable()
