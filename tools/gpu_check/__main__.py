"""One part of tools/gpu: ``python -m gpu_check PART FILE [--quick]``.

What it finds goes to FILE at once, a line of JSON each, so that it stays whatever becomes of the part.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from gpu_check.told import ADD, CannotRunError, Told

CANNOT_RUN = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("part", help="machine, training, energy, engines, zeros, speed, kit, or tests/FILE")
    parser.add_argument("file", type=Path)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    told, (part, _, file) = Told(chosen.file), chosen.part.partition("/")
    run = getattr(import_module(f"gpu_check.{part}"), part)
    try:
        run(told, file or chosen.quick)
    except CannotRunError as reason:
        told.line("cannot run", str(reason))
        return CANNOT_RUN
    except ImportError as error:
        told.line("cannot run", f"{error}; {ADD}")
        return CANNOT_RUN
    return 0


if __name__ == "__main__":
    sys.exit(main())
