from collections import Counter

import numpy as np
import pytest
from fixtures.records import sure
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from floats_edge.artifacts.accuracy import OTHERS, LambdaAnswers, confusions, count_answers

NAMES = ("cat", "dog", "emu")
COUNTS = {
    "lam": 0.5,
    "clean_answers": {"cat": {"cat": 6, "dog": 4}, "dog": {"dog": 2}},
    "attacked_answers": {"cat": {"cat": 5, "emu": 5}, "dog": {"cat": 1, "dog": 1}},
    "withstood": {"cat": 4, "dog": 1},
    "clean_reliability": sure({"cat": {"cat": 6, "dog": 4}, "dog": {"dog": 2}}).model_dump(),
    "attacked_reliability": sure({"cat": {"cat": 5, "emu": 5}, "dog": {"cat": 1, "dog": 1}}).model_dump(),
}


def test_shares_follow_from_the_counts() -> None:
    result = LambdaAnswers.model_validate(COUNTS)
    assert result.images == {"cat": 10, "dog": 2}
    assert (result.clean.count, result.clean.total) == (8, 12)
    assert (result.robust.count, result.robust.total) == (5, 12)
    assert [(share.count, share.total) for share in result.by_class["cat"]] == [(6, 10), (4, 10)]
    assert result.macro == pytest.approx(((60 + 100) / 2, (40 + 50) / 2))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"clean_answers": {}}, "needs a class"),
        ({"clean_answers": COUNTS["clean_answers"] | {"emu": {}}}, "needs a class, and images"),
        ({"clean_answers": {"": {"cat": 1}}}, "needs a class"),
        ({"clean_answers": {"cat": {"cat": 0}}}, "greater than 0"),
        ({"clean_answers": {"cat": {"cat": 2**60}}}, "less than or equal"),
        ({"attacked_answers": COUNTS["attacked_answers"] | {"dog": {"dog": 3}}}, "not the same number in every class"),
        ({"withstood": {"cat": 4}}, "not the same number in every class"),
        ({"withstood": {"cat": 6, "dog": 1}}, "cannot be right both times"),
        ({"withstood": {"cat": 0, "dog": 1}}, "cannot be right both times"),
        (
            {"clean_reliability": sure({"cat": {"cat": 7, "dog": 5}}).model_dump()},
            "clean_reliability is not of the images",
        ),
        ({"attacked_reliability": sure({"cat": {"cat": 6}}).model_dump()}, "attacked_reliability is not of the images"),
        ({"withstood": {"cat": 4, "dog": -1}}, "greater than or equal to 0"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(changes: dict, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        LambdaAnswers.model_validate(COUNTS | changes)


def test_confusions_begin_with_the_most_frequent() -> None:
    assert confusions(COUNTS["attacked_answers"]) == [("cat", "emu", 5), ("dog", "cat", 1)]


@given(pairs=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), min_size=1), most=st.integers(0, 7))
def test_what_is_not_listed_is_still_counted(pairs: list[tuple[str, str]], most: int) -> None:
    counts = Counter(pairs)
    rows = count_answers(counts, most)
    assert {name: sum(row.values()) for name, row in rows.items()} == Counter(name for name, _ in pairs)
    assert all(rows[name].get(name, 0) == counts[name, name] for name in rows)
    wrong = sorted((count for (name, answer), count in counts.items() if name != answer), reverse=True)
    assert [count for _, _, count in confusions(rows)] == wrong[:most]
    assert sum(row.get(OTHERS, 0) for row in rows.values()) == np.sum(wrong[most:])
