"""What tools/gpu found, as a page, and in README's table of what has been run where."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from floats_edge.artifacts.records import Comparison, Profile
from floats_edge.report.page import Heading, Highlight, Section, render_page
from floats_edge.report.profile_tables import (
    comparison_tables,
    condition_tables,
    energy_tables,
    layer_tables,
    memory_table,
    speed_tables,
)
from floats_edge.report.tables import UNKNOWN, Table, label_records, make_table, number, subject_table

SCHEMA_VERSION = 1
ROWS = ("training", "tensorrt-rtx", "tensorrt", "stand-in", "sensors", "floats-rt", "ort-cuda", "ort-rtx")
"""Rows of README's table that a run on a GPU may turn."""
_ROW = "<!-- gpu: {} -->"
_END = "<!-- /gpu -->"


def page(result: dict[str, Any]) -> str:
    """One page of everything that was found."""
    card = result["card"]
    heading = Heading(
        title=f"What works on {card}" if card else "No GPU was found: what could not be tried, and why",
        lead=f"tools/gpu{' --quick' if result['quick'] else ''}, {result['started']}, Python {result['python']}, "
        f"commit {result['commit'] or UNKNOWN}",
        source="gpu.json, which tools/gpu wrote",
    )
    return render_page(heading, _highlights(result), _sections(result))


def _highlights(result: dict[str, Any]) -> list[Highlight]:
    verdicts = Counter(finding["verdict"] for part in result["parts"] for finding in part["findings"])
    states = Counter(part["state"] for part in result["parts"])
    ran = f"{states['ran']} of {len(result['parts'])}"
    return [
        Highlight("checks passed", str(verdicts["passed"]), "tests, and comparisons with their tolerances"),
        Highlight("checks failed", str(verdicts["failed"]), "each with its reason below"),
        Highlight("checks not tried", str(verdicts["skipped"]), "of parts that began; each with its reason below"),
        Highlight("parts that ran", ran, result["incomplete"] or f"to their end, in {result['seconds']:.0f} s"),
    ]


def _sections(result: dict[str, Any]) -> list[Section]:
    columns = ("part", "state", "passed", "failed", "not tried", "s", "limit s", "reason")
    rows = [
        (
            part["title"],
            part["state"],
            *(_count(part, verdict) for verdict in ("passed", "failed", "skipped")),
            number(part["seconds"]),
            UNKNOWN if part["limit_s"] is None else number(part["limit_s"]),
            part["reason"] or "",
        )
        for part in result["parts"]
    ]
    notes = [f"Wheels: {result['wheels']}."] if result["wheels"] else []
    if result["missing"]:
        notes.append(f"Not installed: {', '.join(result['missing'])}.")
    if result["incomplete"]:
        notes.append(f"This is not all: {result['incomplete']}.")
    parts = [Section("What ran", (make_table("Parts", columns, rows, columns[2:7], notes=notes),))]
    parts += [Section(part["title"], (_table(part),)) for part in result["parts"] if part["findings"]]
    records = [
        TypeAdapter(Profile | Comparison).validate_python(record)
        for part in result["parts"]
        for record in part["records"]
    ]
    profiles = [record for record in records if isinstance(record, Profile)]
    compared = [record for record in records if isinstance(record, Comparison)]
    return parts + (_profiles(profiles) if profiles else []) + (_comparisons(compared) if compared else [])


def _count(part: dict[str, Any], verdict: str) -> str:
    """How many checks ended so; nothing of a part that came to none."""
    return str(sum(finding["verdict"] == verdict for finding in part["findings"])) if part["findings"] else ""


def _table(part: dict[str, Any]) -> Table:
    """The findings of a part, failures first; what was skipped for one reason is one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for finding in part["findings"]:
        value = UNKNOWN if finding["value"] is None else f"{number(finding['value'])} {finding['unit']}"
        if finding["value"] is None and finding["verdict"] not in ("unknown", "missing"):
            value = ""
        count = "" if finding["n"] is None else f"{finding['n']:,}"
        key = (finding["verdict"], value, count, finding["why"])
        if finding["verdict"] == "skipped":
            rows.setdefault(key, []).append(finding["what"])
        else:
            rows[(*key, finding["what"])] = [finding["what"]]
    columns = ("", "what", "figure", "n", "conditions, tolerance, or reason")
    failed_first = sorted(rows.items(), key=lambda row: row[0][0] != "failed")
    cells = [(key[0], _several(names), *key[1:4]) for key, names in failed_first]
    return make_table(part["title"], columns, cells, ("figure", "n"))


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _comparisons(records: list[Comparison]) -> list[Section]:
    """Comparisons as floats-edge report shows them."""
    content = label_records(records)
    return [
        Section("Comparisons: latency", tuple(comparison_tables(content))),
        Section("Comparisons: conditions", (subject_table(content), *condition_tables(content))),
    ]


def _profiles(records: list[Profile]) -> list[Section]:
    """Profiles as floats-edge report shows them."""
    content = label_records(records)
    return [
        Section("Profiles: latency", tuple(speed_tables(content))),
        Section("Profiles: memory and energy", (memory_table(content), *energy_tables(content))),
        Section("Profiles: layers", tuple(layer_tables(content))),
        Section("Profiles: conditions", (subject_table(content), *condition_tables(content))),
    ]


def update_readme(readme: Path, file: Path) -> int:
    """Turn the rows of what ran on a GPU; prints which, and returns an exit code."""
    result = json.loads(file.read_text(encoding="utf-8"))
    if (result.get("kind"), result.get("schema_version")) != ("gpu-check", SCHEMA_VERSION):
        print(f"{file} is no gpu.json of schema version {SCHEMA_VERSION}: run tools/gpu again")
        return 1
    if result["card"] is None:
        print(f"{file} is of a machine without a GPU: {readme.name} stays as it is")
        return 0
    text = readme.read_text(encoding="utf-8")
    for row in ROWS:
        said = tried(result, row)
        if said is not None:
            between = re.compile(f"(?<={re.escape(_ROW.format(row))}).*?(?={re.escape(_END)})")
            text = between.sub(lambda _: said, text)  # noqa: B023
        print(f"{row}: {said or 'nothing was tried'}")
    readme.write_text(text, encoding="utf-8")
    return 0


def tried(result: dict[str, Any], row: str) -> str | None:
    """What README says of a row; None: nothing of it was tried."""
    found = [f["verdict"] for part in result["parts"] for f in part["findings"] if f["path"] == row]
    count = Counter(found)
    words = {"passed": "checks passed", "failed": "failed", "measured": "figures measured"}
    if not count.keys() & words.keys():
        return None
    said = [f"{count[verdict]} {word}" for verdict, word in words.items() if count[verdict]]
    return f"**tried on {result['card']}**, {result['started'][:10]}: {', '.join(said)}"
