"""The TensorRT backend of the C++ kit on the real CUDA runtime, built here with a fake TensorRT."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from gpu_check.told import CannotRunError, Told, need_driver

SOURCE = Path(__file__).resolve().parents[2] / "export" / "cpp"
PROGRAM = "floats_rt_cuda_tests"
NO_DEVICE = 77
"""Exit code of the tests that find no GPU; they have said why."""
_SAID = 12


def kit(told: Told, quick: bool) -> None:
    """Build the tests that take any CUDA runtime with the real one, and run them on bundles made here."""
    import sklearn  # noqa: F401 - its digits are what the bundles are trained on

    need_driver()
    if quick:
        raise CannotRunError("building it takes longer than --quick gives; run tools/gpu without --quick")
    if shutil.which("cmake") is None:
        raise CannotRunError("there is no cmake")
    with tempfile.TemporaryDirectory() as scratch:
        built, bundles, report = (Path(scratch) / name for name in ("build", "bundles", "report.xml"))
        told.doing("making bundles")
        must([sys.executable, str(SOURCE / "tests" / "make_bundles.py"), str(bundles)])
        told.doing("configuring")
        options = [
            "-DFLOATS_RT_TESTS=ON",
            "-DFLOATS_RT_TEST_CUDA=ON",
            f"-DFLOATS_RT_BUNDLES={bundles}",
            *cuda_of_wheels(),
        ]
        configured = ran(["cmake", "-S", str(SOURCE), "-B", str(built), *options])
        if configured.returncode:
            raise not_configured(configured.stderr)
        told.doing("building")
        must(["cmake", "--build", str(built), "--parallel", "--target", PROGRAM])
        told.doing("running")
        variables = {"FLOATS_RT_BUNDLES": str(bundles), "FLOATS_RT_ONNXRUNTIME": str(bundles / "libonnxruntime.so")}
        tests = ran([str(built / "tests" / "fakes" / PROGRAM), "--reporters=junit", f"--out={report}"], variables)
        if tests.returncode == NO_DEVICE:
            raise CannotRunError(words(tests.stdout))
        if tests.returncode not in (0, 1):
            raise RuntimeError(f"the tests died ({tests.returncode}): {words(tests.stdout + tests.stderr)}")
        judge(told, report.read_text(encoding="utf-8"))


def not_configured(said: str) -> Exception:
    """What CMake's failure is: this machine lacks what it could not find, all else is a fault of the kit's."""
    if re.search("could not find|could be found", said, re.IGNORECASE):
        return CannotRunError(f"CMake lacks something: {words(said)}")
    return RuntimeError(f"CMake failed: {words(said)}")


def cuda_of_wheels() -> list[str]:
    """Options for CMake: where PyTorch's wheels hold the CUDA runtime, and Triton's its headers."""
    options = []
    for package, variable, found in (
        ("nvidia", "CMAKE_LIBRARY_PATH", "*/lib/libcudart_static.a"),
        ("triton", "CMAKE_INCLUDE_PATH", "backends/nvidia/include/cuda_runtime_api.h"),
    ):
        spec = find_spec(package)
        places = [] if spec is None else spec.submodule_search_locations or []
        options += [f"-D{variable}={file.parent}" for place in places for file in Path(place).glob(found)][:1]
    return options


def judge(told: Told, report: str) -> None:
    """Tell what became of every test of doctest's report for JUnit."""
    for test in ElementTree.fromstring(report).iter("testcase"):
        name, wrong = test.get("name", ""), [*test.iter("failure"), *test.iter("error")]
        why = f"{float(test.get('time', 'nan')):.1f} s"
        if wrong:
            why = " ".join((wrong[0].text or wrong[0].get("message", "")).split())[:600]
        told.find(name, "failed" if wrong else "passed", why, path="floats-rt")


def ran(command: list[str], variables: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **(variables or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def must(command: list[str]) -> None:
    done = ran(command)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {words(done.stdout + done.stderr)}")


def words(said: str) -> str:
    return " ".join(" ".join(said.splitlines()[-_SAID:]).split())
