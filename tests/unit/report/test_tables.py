import pytest
from fixtures.records import bundle_evaluation, profile, run_evaluation, subject

from floats_edge.artifacts.records import Reading
from floats_edge.report.tables import (
    accuracy_table,
    condition_table,
    label_records,
    latency_table,
    memory_table,
    number,
    reading,
    record_tables,
)


def labels(records) -> list[str]:
    content = label_records(records)
    return [label for label, _ in (*content.evaluations, *content.profiles)]


def test_checkpoint_and_bundle_are_told_apart() -> None:
    assert labels([run_evaluation(), bundle_evaluation(), profile()]) == [
        "checkpoint fp32",
        "bundle bound fp32",
        "bundle bound fp32",
    ]


@pytest.mark.parametrize(
    "difference",
    [{"precision": "fp16"}, {"mode": "fixed"}, {"name": "other"}, {"path": "elsewhere"}, {"sha256": "f" * 64}],
)
def test_bundles_are_told_apart_by_whatever_differs(difference: dict[str, str]) -> None:
    first, second = labels([profile(), profile(subject=subject(**difference))])
    assert first != second


def test_second_record_of_one_subject_is_numbered() -> None:
    assert labels([profile(), profile()]) == ["bundle bound fp32", "bundle bound fp32 (2)"]


def test_robust_accuracy_is_an_upper_bound_with_its_interval_and_conditions() -> None:
    table = accuracy_table(label_records([bundle_evaluation()]))
    assert table.rows[-1] == ("1", "96.6 [94.6, 97.9]", "≤ 42.0 [37.8, 46.4]", "500")
    notes = " ".join(table.notes)
    for fact in ("PGD-20", "ε 0.15", "seed 3", "digits, test images", "upper bound", "float twin", "torch 2.14.0"):
        assert fact in notes


def test_latency_row() -> None:
    table = latency_table(label_records([profile()]))
    assert table.title == "Latency · bundle bound fp32"
    assert table.rows[0] == ("ort-cpu", "1", "0.5", "0.410", "0.520", "0.660", "0.430", "0.0500", "2,326", "1,200")


def test_unknown_is_said_with_its_reason() -> None:
    memory = memory_table(label_records([profile()]))
    assert memory.rows[0] == ("ort-cpu", "1", "84.2 MiB", "unknown")
    assert "GPU increase: NVML: NVML Shared Library Not Found" in memory.notes[0]
    conditions = condition_table(label_records([profile()]))
    assert ("power mode", "unknown", "/var/lib/nvpmodel/status: No such file or directory") in conditions.rows


def test_several_profiles_share_a_table_with_a_column_for_the_subject() -> None:
    table = latency_table(label_records([profile(), profile(subject=subject(precision="fp16"))]))
    assert table.columns[0] == "subject"
    assert {row[0] for row in table.rows} == {"bundle bound fp32", "bundle bound fp16"}


def test_every_row_fits_its_columns() -> None:
    for table in record_tables(label_records([run_evaluation(), bundle_evaluation(), profile()])):
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.figures <= set(table.columns)


def test_control_characters_do_not_pass() -> None:
    hostile = profile(skipped={"trt\x1b[2J": "line\nbreak \u202e bell\a"})
    text = str(record_tables(label_records([hostile])))
    assert not any(character in text for character in "\x1b\a\u202e")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2, "2"),
        (0.412345, "0.412"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (0.00631, "0.00631"),
        (2e-6, "2.00e-06"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("size", "text"), [(497, "0.485 KiB"), (315_392, "308 KiB"), (5_000_000, "4.77 MiB")])
def test_bytes(size: int, text: str) -> None:
    assert reading(Reading(value=size, unit="bytes", source="manifest.json")) == (text, "manifest.json")
