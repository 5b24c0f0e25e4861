"""What a stranger may make of a bundle is refused, at little cost; ``export/cpp/tests/test_hostile.cpp`` has the same
bundles."""

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.hostile.cases import LARGE, OF_THE_RECIPE, REFUSED, TAKEN, write_case

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.errors import FloatsError
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.golden import check_golden, read_golden

LARGEST_MEMORY = 256
"""MiB, beyond what the program itself takes."""
LONGEST = 2.0
"""Seconds of the processor."""


def load(folder: Path) -> None:
    """Do what the C++ kit does when it loads a bundle."""
    bundle = open_bundle(folder)
    with open_predictor(bundle, "ort-cpu", bundle.manifest.golden.lambdas[0]) as engine:
        check_golden(engine, read_golden(bundle))


@pytest.mark.parametrize("name", [name for name in REFUSED | OF_THE_RECIPE if name not in LARGE])
def test_refused(name: str, tmp_path: Path) -> None:
    folder = write_case((REFUSED | OF_THE_RECIPE)[name], tmp_path / "bundle")
    with pytest.raises(FloatsError) as caught:
        load(folder)
    assert (caught.value.what + caught.value.fix).isprintable()


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name: str, tmp_path: Path) -> None:
    load(write_case(TAKEN[name], tmp_path / "bundle"))


def test_what_was_let_pass_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, told in (
        ("mismatch", "was exported with --allow-mismatch: the graphs differ."),
        ("verdict-let-pass", "failed floats-edge verify on ort-cpu (a library 1.0): it differs. It was let pass"),
    ):
        load(write_case(TAKEN[name], tmp_path / name))
        assert told in caplog.text


_COST = """
import sys, time
from pathlib import Path
from floats_edge.artifacts.bundle import open_bundle
from floats_edge.errors import FloatsError
def peak():  # in MiB, since this program was started
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
before = peak()
for folder in sys.argv[1:]:
    start = time.process_time()
    try:
        open_bundle(Path(folder))
    except FloatsError:
        print(time.process_time() - start, peak() - before, folder)
"""


def test_what_would_take_time_or_memory_is_refused_at_little_cost(tmp_path: Path) -> None:
    folders = [str(write_case(case, tmp_path / name)) for name, case in (LARGE | OF_THE_RECIPE).items()]
    told = subprocess.run([sys.executable, "-c", _COST, *folders], check=True, capture_output=True, text=True).stdout
    seconds, peaks = zip(*(map(float, line.split()[:2]) for line in told.splitlines()), strict=True)
    assert len(seconds) == len(folders)
    assert max(seconds) < LONGEST, told
    assert max(peaks) < LARGEST_MEMORY, told
