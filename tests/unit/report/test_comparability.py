import pytest
from fixtures.records import bundle_evaluation, comparison, profile, run, sampled

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


def test_comparisons_are_held_to_the_same_conditions() -> None:
    check_comparable([profile(), comparison(), comparison()])
    throttled = comparison(marks=("throttled: power limit",))
    assert differences([profile(), throttled]) == []
    assert differences([comparison(), throttled]) == ["marks of ort-cpu: none against throttled"]
    for other in (profile(), comparison()):
        assert differences([other, comparison(conditions={"CPU": "Cortex-A78AE"})]) == [
            "CPU: AMD EPYC against Cortex-A78AE"
        ]
    with pytest.raises(ArtifactError, match="different conditions"):
        check_comparable([comparison(), throttled])


def test_gpu_clocks_that_stood_still_at_different_values_are_different_conditions() -> None:
    def at(mhz: float, *marks: str, backend: str = "trt"):
        clock = sampled(minimum=mhz, mean=mhz, maximum=mhz)
        return profile(runs=(run(1, backend=backend, conditions={"GPU clock": clock}, marks=marks),))

    assert differences([at(1200), at(2100)]) == ["GPU clock of trt: 1200 against 2100 MHz"]
    assert differences([at(1200), comparison(backend="trt")]) == ["GPU clock of trt: 1020 against 1200 MHz"]
    assert differences([at(1200), at(1210)]) == []
    assert differences([at(1200, backend="ort-cpu"), at(2100, backend="ort-cpu")]) == []
    moved = "clocks not locked: GPU clock 306 to 1020 MHz during the run"
    assert differences([at(700, moved), at(900, moved)]) == []
