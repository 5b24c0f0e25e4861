"""What a board without PyTorch imports, and what ``--help`` imports anywhere."""

import subprocess
import sys

HEAVY = ("torch", "tensorrt", "tensorrt_rtx", "onnxruntime")
TRAIN_EXTRA = ("torch", "torchvision", "onnxscript", "sklearn")
BOARD = ("artifacts", "board", "cli", "deploy", "packs", "profiling", "report", "runtime")
BOARD_MODULES = (
    *("data", "data.pictures", "errors", "evaluation.parity", "method.fold", "method.noise", "networks.spec"),
    *("lambda_policy", "preprocessing", "recipe"),
)
NEEDS_TORCH = ("runtime.torch", "runtime.twin")


def run(program: str) -> str:
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(program: str) -> list[str]:
    """Which heavy modules are loaded once ``program`` has run."""
    return run(f"import sys\n{program}\nprint(*(name for name in {HEAVY} if name in sys.modules))").split()


def test_import_floats_edge_is_light() -> None:
    assert loaded_by("import floats_edge") == []


def test_help_is_light() -> None:
    program = """
import contextlib, io
from floats_edge.cli.main import cli
with contextlib.redirect_stdout(io.StringIO()):
    cli(["--help"], standalone_mode=False)
assert "floats_edge.cli.quickstart" in sys.modules
"""
    assert loaded_by(program) == []


def test_the_board_needs_no_torch_and_loads_its_backends_late() -> None:
    program = f"""
import importlib, pkgutil
for name in {TRAIN_EXTRA}:
    sys.modules[name] = None
modules = ["floats_edge." + name for name in {BOARD_MODULES}]
for package in {BOARD}:
    root = importlib.import_module("floats_edge." + package)
    modules += [module.name for module in pkgutil.walk_packages(root.__path__, root.__name__ + ".")]
for name in modules:
    if not name.removeprefix("floats_edge.").startswith({NEEDS_TORCH}):
        importlib.import_module(name)
assert len(modules) > 30, modules
del sys.modules["torch"]
"""
    assert loaded_by(program) == []
