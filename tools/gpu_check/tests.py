"""The tests that are marked ``gpu``, one file at a time."""

from typing import Any

from gpu_check.told import Told, tensorrt_row


class _Reports:
    """A plugin of pytest that hands on what became of every test."""

    def __init__(self, told: Told, path: str) -> None:
        self._told, self._path = told, path

    def _row(self, nodeid: str) -> str:
        """The row of README's table; the providers of ONNX Runtime share a file and its tests."""
        return "ort-rtx" if "ort-rtx" in nodeid else self._path

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._told.doing(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid.rpartition("/")[2]
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = str(report.longrepr)[-600:] if crash is None else crash.message
            self._told.find(
                f"{name}, {report.when}", "failed", " ".join(why.split())[:600], path=self._row(report.nodeid)
            )
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._told.find(name, "skipped", reason.removeprefix("Skipped: "))
        elif report.when == "call":
            self._told.find(name, "passed", f"{report.duration:.1f} s", path=self._row(report.nodeid))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._told.find(report.nodeid, "failed", " ".join(str(report.longrepr).split())[-600:], path=self._path)


def tests(told: Told, file: str) -> None:
    import pytest

    paths = {"test_training.py": "training", "test_providers.py": "ort-cuda", "test_stand_in.py": "stand-in"}
    words = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"tests/gpu/{file}"]
    code = pytest.main(words, plugins=[_Reports(told, paths.get(file, tensorrt_row()))])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code!r}")
