import json
import math
from pathlib import Path

import pytest
from fixtures.records import DIGITS, answers, bundle_evaluation, profile, run_evaluation, sure
from fixtures.tiny_bundle import write_bundle
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from floats_edge.artifacts.accuracy import LambdaAnswers, Share, count_answers
from floats_edge.artifacts.files import file_entry
from floats_edge.artifacts.records import MOST_LISTED, Reading, bundle_subject, load_record, save_record
from floats_edge.errors import ArtifactError, OutputError


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # scipy.stats.binomtest(count, total).proportion_ci(method="wilson"), in percent
    [(0, 10, 0.0, 27.7533), (10, 10, 72.2467, 100.0), (50, 100, 40.3832, 59.6168), (208, 500, 37.3597, 45.9683)],
)
def test_interval_is_wilsons(count: int, total: int, low: float, high: float) -> None:
    assert Share(count=count, total=total).interval == pytest.approx((low, high), abs=1e-4)


@given(total=st.integers(1, 10_000), share=st.floats(0, 1))
def test_interval_holds_the_share_and_stays_in_range(total: int, share: float) -> None:
    result = Share(count=math.floor(share * total), total=total)
    low, high = result.interval
    assert 0 <= low <= result.percent + 1e-9
    assert result.percent - 1e-9 <= high <= 100


def test_share_cannot_exceed_the_whole() -> None:
    with pytest.raises(ValidationError, match="11 of 10"):
        Share(count=11, total=10)


@pytest.mark.parametrize("record", [run_evaluation(), bundle_evaluation(), profile()], ids=lambda record: record.kind)
def test_round_trip(record, tmp_path: Path) -> None:
    save_record(record, tmp_path / "record.json")
    assert load_record(tmp_path / "record.json") == record


def test_unknown_is_null_in_the_file(tmp_path: Path) -> None:
    save_record(profile(), tmp_path / "profile.json")
    memory = json.loads((tmp_path / "profile.json").read_text())["runs"][0]["memory"]
    assert memory["GPU increase"] == {"value": None, "unit": "MiB", "source": "NVML: NVML Shared Library Not Found"}


def test_unknown_needs_a_reason() -> None:
    with pytest.raises(ValidationError):
        Reading(value=None, unit="MiB", source="")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "record.json"),
        ("not json", "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"kind": "shopping list"}', "evaluation.*profile"),
        ('{"kind": "profile"}', "subject"),
        (profile().model_dump_json().replace('"n":1200', '"n":0'), r"runs\.0\.latency_ms\.n"),
        (profile().model_dump_json().replace('"p50":0.41', '"p50":NaN'), "p50"),
        (profile().model_dump_json().replace('"size"', '"sise"'), "size"),
    ],
)
def test_what_is_no_record_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=what) as refusal:
        load_record(path)
    assert "floats-edge profile" in refusal.value.fix


def test_an_evaluation_of_an_older_version_is_to_be_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(bundle_evaluation().model_dump_json().replace('"schema_version":3', '"schema_version":2'))
    with pytest.raises(ArtifactError, match="schema_version") as refusal:
        load_record(path)
    assert "run it again" in refusal.value.fix
    assert "newer floats-edge" in refusal.value.fix


MATRIX = {
    "lambdas": (0.0, 0.5, 1.0),
    "images": 500,
    "clean": (493, 491, 483),
    "by_lambda": ((40, 220, 230), (90, 143, 240), (95, 160, 210)),
    "by_sum": (50, 150, 215),
    "by_all": (30, 140, 200),
}
MISCOUNTED = answers(0, 400, 10).model_dump() | {"clean_reliability": sure(answers(0, 401, 10).clean_answers)}


def test_attacks_at_the_lambda_served_are_those_of_the_results() -> None:
    assert bundle_evaluation(transfer=MATRIX).transfer is not None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"labels": (*DIGITS[:9], "")}, "no name"),
        ({"labels": (*DIGITS, "3")}, "the same"),
        ({"labels": DIGITS[:9]}, "'9' is none of the labels"),
        ({"results": ()}, "results"),
        ({"results": (answers(0, 400, 10), answers(1, 90, 40, each=49))}, "not evaluated on the same images"),
        ({"results": (MISCOUNTED,)}, "clean_reliability is not of the images and answers that are counted"),
        (
            {"transfer": MATRIX | {"by_lambda": ((40, 220, 230), (90, 144, 240), (95, 160, 210))}},
            "not those of the results",
        ),
        ({"transfer": MATRIX | {"lambdas": (0.0, 0.5, 0.75)}}, "not those of the results"),
        ({"examples": {"truth": "3", "clean": "11"}}, "'11' is none of the labels"),
        ({"examples": {"lam": 0.7}}, "a lambda that was not evaluated"),
    ],
)
def test_an_evaluation_agrees_with_itself(changes: dict, what: str) -> None:
    if "examples" in changes:
        example = {"lam": 0.5, "image": 3, "truth": "1", "clean": "2", "attacked": "2"} | changes["examples"]
        picture = {"file": "e.png", "entry": file_entry(b"png"), "channels": 1, "height": 8, "width": 8}
        changes = {"examples": picture | {"shown": (example,)}}
    with pytest.raises(ValidationError, match=what):
        bundle_evaluation(**changes)


def test_as_much_as_an_evaluation_may_list_can_be_read(tmp_path: Path) -> None:
    """A thousand classes of which everything was taken for everything, at more lambdas than anyone evaluates."""
    labels, lambdas = tuple(f"a class with a name, number {index}" for index in range(1000)), 10
    pairs = {(name, answer): 1 for name in labels for answer in labels[:60]}
    listed = count_answers(pairs, MOST_LISTED // (2 * lambdas))
    withstood = {name: row.get(name, 0) for name, row in listed.items()}
    results = tuple(
        LambdaAnswers(
            lam=index / 10,
            clean_answers=listed,
            attacked_answers=listed,
            withstood=withstood,
            clean_reliability=sure(listed),
            attacked_reliability=sure(listed),
        )
        for index in range(lambdas)
    )
    record = bundle_evaluation(labels=labels, results=results)
    save_record(record, tmp_path / "evaluation.json")
    assert load_record(tmp_path / "evaluation.json") == record


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match=r"record\.json is not valid"):
        load_record(tmp_path / "record.json")


def test_missing_record(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        load_record(tmp_path / "record.json")


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="could not be written"):
        save_record(profile(), tmp_path / "file" / "profile.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_subject_of_a_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", None)
    subject = bundle_subject(bundle)
    assert (subject.kind, subject.mode, subject.precision) == ("bundle", "bound", "fp32")
    assert (subject.name, subject.model, subject.path) == (
        "quickstart",
        "tiny",
        str(bundle.path),
    )
    assert subject.sha256 == bundle.manifest.checkpoint_sha256
    assert 0 < subject.density < 1
