"""What a stranger may make of a bundle is refused, at little cost; ``export/cpp/tests/test_hostile.cpp`` has the same
bundles."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.hostile.cases import LARGE, REFUSED, TAKEN, write_case

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


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    folder = write_case(REFUSED[name], tmp_path / "bundle")
    start = time.process_time()
    with pytest.raises(FloatsError) as caught:
        load(folder)
    assert time.process_time() - start < LONGEST
    assert (caught.value.what + caught.value.fix).isprintable()


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name: str, tmp_path: Path) -> None:
    load(write_case(TAKEN[name], tmp_path / "bundle"))


_PEAK = """
import resource, sys
from pathlib import Path
from floats_edge.artifacts.bundle import open_bundle
from floats_edge.errors import FloatsError
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in sys.argv[1:]:
    try:
        open_bundle(Path(folder))
    except FloatsError:
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024, folder)
"""


def test_what_would_take_memory_takes_little(tmp_path: Path) -> None:
    folders = [str(write_case(case, tmp_path / name)) for name, case in LARGE.items()]
    told = subprocess.run([sys.executable, "-c", _PEAK, *folders], check=True, capture_output=True, text=True)
    peaks = [float(line.split()[0]) for line in told.stdout.splitlines()]
    assert len(peaks) == len(folders)
    assert max(peaks) < LARGEST_MEMORY, told.stdout
