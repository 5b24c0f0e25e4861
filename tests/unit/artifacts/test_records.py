import json
import math
from pathlib import Path

import pytest
from fixtures.records import bundle_evaluation, profile, run_evaluation
from fixtures.tiny_bundle import write_bundle
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from floats_edge.artifacts.records import Reading, Share, bundle_subject, load_record, save_record
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
