import pytest
from fixtures.records import bundle_evaluation, profile, run

from floats_edge.artifacts.records import Reading
from floats_edge.errors import ArtifactError
from floats_edge.report.comparability import check_comparable, differences

UNKNOWN = Reading(value=None, unit="", source="nowhere")


def test_profiles_under_the_same_conditions_compare() -> None:
    check_comparable([profile(), bundle_evaluation(), profile(runs=(run(1),))])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CPU", "Cortex-A78AE"),
        ("power mode", "15W (0)"),
        ("GPU", "Orin"),
        ("clocks", "locked"),
        ("cores", Reading(value=4, unit="logical cores", source="x")),
    ],
)
def test_conditions_that_matter_are_compared(name: str, value: Reading | str) -> None:
    other = profile(conditions=profile().conditions | {name: value})
    (found,) = differences([profile(), other])
    assert found.startswith(f"{name}: ")
    with pytest.raises(ArtifactError, match="different conditions"):
        check_comparable([profile(), other])


def test_what_differs_in_its_source_or_does_not_matter_is_let_pass() -> None:
    same = {"power mode": UNKNOWN, "Python": "3.10.4", "system": "Linux"}
    assert differences([profile(), profile(conditions=profile().conditions | same)]) == []


def test_threads_and_outside_trouble_are_conditions_too() -> None:
    others = profile(runs=(run(1, threads=None), run(8, marks=("throttled: power limit", "unstable: 12%"))))
    assert differences([profile(), others]) == [
        "threads of ort-cpu: 1 against 1, any",
        "marks of ort-cpu: none against throttled",
    ]
    assert differences([profile(), profile(runs=(run(1, marks=("unstable: 12%",)),))]) == []


def test_backends_that_only_one_profile_has_do_not_matter() -> None:
    assert differences([profile(), profile(runs=(run(1, backend="trt", threads=None),))]) == []
