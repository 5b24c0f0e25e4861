"""ONNX to a TensorRT plan, with TensorRT 10.3 to 11 or TensorRT-RTX, in a process of its own.

A build may run out of memory, crash, or leave state behind: :func:`build_engine` starts this module as a program, which
reads one request as JSON from stdin, builds, logs to stderr and answers in JSON on stdout.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from floats_edge.artifacts.files import writing
from floats_edge.artifacts.manifest import Flavour
from floats_edge.deploy.engine_request import BuildRequest, BuiltEngine
from floats_edge.deploy.tensorrt_builder import build
from floats_edge.errors import BackendError, FloatsError, OutputError
from floats_edge.runtime.tensorrt_library import preferred_tensorrt


@dataclass(frozen=True)
class _Failure:
    """A :class:`FloatsError` on its way to the parent process."""

    error: str
    what: str
    fix: str


_REQUEST = TypeAdapter(BuildRequest)
_ANSWER: TypeAdapter[BuiltEngine | _Failure] = TypeAdapter(BuiltEngine | _Failure)


def available_tensorrt() -> tuple[Flavour, str] | None:
    """Flavour and version of the TensorRT that engines would be built with here, or None."""
    try:
        flavour, trt = preferred_tensorrt()
    except BackendError:
        return None
    return flavour, trt.__version__


def build_engine(request: BuildRequest) -> BuiltEngine:
    """Build a plan; it is written whole or not at all.

    Raises:
        BackendError: there is no TensorRT (or, for the full one, no GPU), it does not accept the graph, or it crashed.
        OutputError: the plan cannot be written.
    """
    plan = request.plan
    with writing(plan):
        plan.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{plan.name}.", dir=plan.parent) as staging:
            staged = Path(staging) / plan.name
            built = _build_in_child(replace(request, plan=staged))
            staged.replace(plan)
    return built


def _build_in_child(request: BuildRequest) -> BuiltEngine:
    child = subprocess.run(  # kills the child on any exception, Ctrl-C too
        [sys.executable, "-m", "floats_edge.deploy.tensorrt_engine"],
        input=_REQUEST.dump_json(request),
        capture_output=True,
        check=False,
    )
    log = child.stderr.decode(errors="replace")
    if child.returncode:
        raise _died(request.onnx, child.returncode, log)
    answer = _ANSWER.validate_json(child.stdout)
    if isinstance(answer, BuiltEngine):
        return replace(answer, log=log)
    kind = OutputError if answer.error == OutputError.__name__ else BackendError
    raise kind(answer.what + _errors(log), fix=answer.fix)


def _died(onnx: Path, status: int, log: str) -> BackendError:
    if status == -signal.SIGKILL:
        how = "the system killed it, as it does when memory runs out"
        fix = "close other programs or add swap, or build with a smaller largest batch"
    elif status < 0:
        how = f"it crashed with {signal.Signals(-status).name}"
        fix = "try another version of TensorRT; if it crashes there too, report the graph to NVIDIA"
    else:
        how = f"it ended with status {status}: {log.strip().splitlines()[-1] if log.strip() else 'no message'}"
        fix = "check the installation with floats-edge doctor"
    return BackendError(f"building an engine from {onnx} failed: {how}.{_errors(log)}", fix=fix)


def _errors(log: str) -> str:
    """The errors in a log, as a sentence to append."""
    errors = [line.removeprefix("ERROR ") for line in log.splitlines() if line.startswith("ERROR ")]
    return f" TensorRT said: {' '.join(errors)}" if errors else ""


def main() -> None:
    """Answer one request: the program that :func:`build_engine` starts."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not end up in the answer
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    request = _REQUEST.validate_json(sys.stdin.buffer.read())
    try:
        reply = build(request)
    except FloatsError as error:
        reply = _Failure(type(error).__name__, error.what, error.fix)
    with answer:
        answer.write(_ANSWER.dump_json(reply))


if __name__ == "__main__":
    main()
