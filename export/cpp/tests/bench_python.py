#!/usr/bin/env python3
"""Print what switching lambda costs in Python, for comparison with floats_rt_bench.

usage: bench_python.py BUNDLE...
"""

import statistics
import sys
import time
from pathlib import Path

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.runtime.backends import open_predictor

SWITCHES = 200


def main(path: Path) -> None:
    """Time switches between two lambdas."""
    with open_predictor(open_bundle(path), "ort-cpu", 0.0) as predictor:
        times = []
        for index in range(SWITCHES + 10):
            start = time.perf_counter()
            predictor.set_lambda(0.3 if index % 2 else 0.7)
            times.append(1e6 * (time.perf_counter() - start))
    low, median, high = statistics.quantiles(times[10:], n=4)
    sys.stdout.write(
        f"set_lambda in Python: {path} {median:.1f} us (quartiles {low:.1f}, {high:.1f}; n = {SWITCHES})\n"
    )


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(Path(argument))
