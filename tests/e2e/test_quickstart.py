"""The quickstart as a new user runs it: what it promises must hold of the files it leaves."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.artifacts.records import Evaluation, Profile, load_record
from floats_edge.deploy.tensorrt_engine import available_tensorrt

FLOATS_EDGE = Path(sys.executable).parent / "floats-edge"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``floats-edge quickstart`` wrote, from a fresh home and an empty current directory."""
    home = tmp_path_factory.mktemp("home")
    finished = subprocess.run(
        [FLOATS_EDGE, "quickstart"], cwd=home, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (home / "printed.txt").write_text(finished.stdout)
    return home / "quickstart"


@pytest.mark.parametrize("record", ["evaluation-checkpoint.json", "evaluation-bundle.json"])
def test_lambda_trades_clean_accuracy_for_robustness(folder: Path, record: str) -> None:
    evaluation = load_record(folder / record)
    assert isinstance(evaluation, Evaluation)
    results = evaluation.results
    assert [result.lam for result in results] == [0, 0.25, 0.5, 0.75, 1]
    assert all(result.clean.total == 500 for result in results)
    assert results[-1].robust.percent - results[0].robust.percent >= 15
    assert results[0].clean.percent > results[-1].clean.percent
    for lower, higher in itertools.pairwise(results):
        assert lower.robust.interval[0] <= higher.robust.interval[1]
        assert lower.clean.interval[1] >= higher.clean.interval[0]
    for between in results[1:-1]:
        assert results[0].robust.interval[0] <= between.robust.percent <= results[-1].robust.interval[1]
        assert results[-1].clean.interval[0] <= between.clean.percent <= results[0].clean.interval[1]


def test_the_engine_is_the_model_that_was_evaluated(folder: Path) -> None:
    trained, deployed = (load_record(folder / f"evaluation-{kind}.json") for kind in ("checkpoint", "bundle"))
    assert isinstance(trained, Evaluation)
    assert isinstance(deployed, Evaluation)
    assert deployed.backend == "ort-cpu"
    assert deployed.subject.sha256 == trained.subject.sha256
    for one, other in zip(trained.results, deployed.results, strict=True):
        assert abs(one.clean.count - other.clean.count) <= 1
        assert abs(one.robust.count - other.robust.count) <= 3


def test_the_bundle_serves_any_lambda_and_holds_an_engine(folder: Path) -> None:
    bundle = open_bundle(folder / "bundle")
    bundle.files.verify()
    manifest = bundle.manifest
    assert manifest.lam.mode == "bound"
    assert manifest.density == pytest.approx(0.3, abs=1e-3)
    assert all(parity.top1_agreement == 1 and parity.images >= 500 for parity in manifest.parity)
    assert all(parity.max_error <= 1e-4 for parity in manifest.parity)
    found = available_tensorrt()
    assert [(engine.flavour, engine.version) for engine in manifest.engines] == ([] if found is None else [found])


def test_the_profile_and_the_report_are_there(folder: Path) -> None:
    profile = load_record(folder / "profile.json")
    assert isinstance(profile, Profile)
    assert {(run.backend, run.batch) for run in profile.runs} >= {("ort-cpu", 1), ("ort-cpu", 8)}
    assert all(run.latency_ms.n >= 50 and run.set_lambda_ms is not None for run in profile.runs)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "ort-cpu" in page


def test_it_ends_with_what_was_found_in_short(folder: Path) -> None:
    printed = (folder.parent / "printed.txt").read_text()
    lines = printed.splitlines()
    assert len(lines) < 80
    for title in ("Accuracy", "Latency"):
        assert len([line for line in lines if line.startswith(f"{title} · bundle bound fp32")]) == 1
    assert lines[-1] == "Done: open quickstart/report.html, which has all figures"


def test_a_second_quickstart_uses_the_trained_network_again(folder: Path) -> None:
    trained = (folder / "run" / "checkpoint.json").read_bytes()
    finished = subprocess.run([FLOATS_EDGE, "train", "quickstart", "--out", folder / "run", "--resume"])
    assert finished.returncode == 0
    assert (folder / "run" / "checkpoint.json").read_bytes() == trained
