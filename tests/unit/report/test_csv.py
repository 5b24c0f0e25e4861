import csv
from pathlib import Path

import pytest
from fixtures.records import bundle_evaluation, comparison, profile, run

from floats_edge.report.csv import COLUMNS, write_csv


def written(records: list, path: Path) -> list[dict[str, str]]:
    write_csv(records, path)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_is_a_row_with_its_unit_and_size(tmp_path: Path) -> None:
    rows = written([bundle_evaluation(), profile(), comparison()], tmp_path / "report.csv")
    assert tuple(rows[0]) == COLUMNS
    (p95,) = (r for r in rows if (r["part"], r["quantity"], r["batch"]) == ("latency", "p95", "1"))
    assert (float(p95["value"]), p95["unit"], p95["n"], p95["backend"]) == (0.57, "ms", "1200", "ort-cpu")
    (robust,) = (r for r in rows if r["quantity"].startswith("robust") and (r["lambda"], r["part"]) == ("1", "test"))
    assert (float(robust["value"]), robust["unit"], robust["n"]) == (42.0, "%", "500")
    (ratio,) = (r for r in rows if r["part"].startswith("ratio") and r["quantity"] == "median")
    assert float(ratio["value"]) == 0.8
    (clock,) = (r for r in rows if r["part"] == "condition" and " against " in r["subject"])
    assert (clock["quantity"], float(clock["value"]), clock["n"]) == ("GPU clock, mean", 1020, "30")
    assert any(r["part"] == "layer blocks.0.conv1" for r in rows)
    assert all("paper" in r["quantity"] for r in rows if r["part"] == "estimate")


def test_every_class_has_its_rows(tmp_path: Path) -> None:
    rows = [r for r in written([bundle_evaluation()], tmp_path / "report.csv") if r["lambda"] == "1"]
    shares = [r for r in rows if r["part"] == "test, class 4"]
    assert [(r["quantity"], float(r["value"]), r["n"]) for r in shares if r["unit"] == "%"] == [
        ("clean accuracy", 100, "50"),
        ("robust accuracy, upper bound", 20, "50"),
    ]
    taken = [(r["quantity"], r["value"], r["n"]) for r in shares if r["unit"] == "images"]
    assert taken == [("attacked, taken for 5", "40", "50")]
    means = [r for r in rows if r["part"] == "test, mean of classes"]
    assert [float(r["value"]) for r in means] == pytest.approx([96.6, 42])


def test_unknown_has_no_value_and_its_reason(tmp_path: Path) -> None:
    rows = written([profile()], tmp_path / "report.csv")
    unknown = [r for r in rows if r["quantity"] == "GPU increase"]
    assert {(r["value"], r["source"]) for r in unknown} == {("", "NVML: NVML Shared Library Not Found")}


def test_spreadsheets_find_no_formula(tmp_path: Path) -> None:
    rows = written([profile(runs=(run(1, backend="=cmd|'/c calc'!A1"),))], tmp_path / "report.csv")
    assert {r["backend"] for r in rows if r["part"] == "latency"} == {"'=cmd|'/c calc'!A1"}
