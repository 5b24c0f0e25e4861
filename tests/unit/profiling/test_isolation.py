import multiprocessing.util
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Any

import pytest
from fixtures.predictors import crashing, refusing

from floats_edge.errors import BackendError, LambdaError
from floats_edge.method.fold import check_lambda
from floats_edge.profiling.isolation import _interruptions_held_back, run_isolated
from floats_edge.runtime.base import Predictor


def test_result_comes_from_another_process() -> None:
    assert run_isolated(os.getpid) != os.getpid()
    assert run_isolated(check_lambda, 0.25) == 0.25


def modules() -> list[str]:
    return list(sys.modules)


def test_process_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "large_library", sys)
    assert "large_library" not in run_isolated(modules)


def test_error_keeps_its_kind_and_remedy() -> None:
    with pytest.raises(BackendError, match="no such device") as error:
        run_isolated(refusing)
    assert error.value.fix == "plug one in"


def wrong_lambda() -> float:
    from fixtures.predictors import Sleeping

    predictor: Predictor = Sleeping(lambdas=(0.3,), lam=0.3)
    return predictor.set_lambda(0.5)


def test_error_of_the_user_is_not_blamed_on_the_backend() -> None:
    with pytest.raises(LambdaError, match=r"serves lambda 0\.3"):
        run_isolated(wrong_lambda)


def test_any_other_error_is_told_with_its_type() -> None:
    with pytest.raises(BackendError, match=r"FileNotFoundError.*/nowhere"):
        run_isolated(os.stat, "/nowhere")


def test_crash_does_not_take_us_along() -> None:
    with pytest.raises(BackendError, match="SIGSEGV"):
        run_isolated(crashing)


def test_exit_is_told() -> None:
    with pytest.raises(BackendError, match="exit code 3"):
        run_isolated(os._exit, 3)


def test_interrupt_is_blocked_in_the_process_and_not_here() -> None:
    assert signal.SIGINT in run_isolated(signal.pthread_sigmask, signal.SIG_BLOCK, set())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


@pytest.mark.usefixtures("interruptible")
def test_interrupt_while_a_process_starts_comes_after_the_start() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)  # does not block the signal, as a progress display does not
    thread.start()
    steps = []

    def start() -> None:
        with _interruptions_held_back():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            steps.append("started")

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        done.set()
        thread.join()
    assert steps == ["started"]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_a_process_has_what_it_needs_waits_and_then_ends_it(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Otherwise it would print that it ran out of input."""
    pids = []
    spawn = multiprocessing.util.spawnv_passfds

    def spawn_and_signal(*args: Any) -> int:
        pids.append(spawn(*args))
        os.kill(os.getpid(), number)
        return pids[-1]

    before = signal.signal(number, signal.default_int_handler)
    resource_tracker.ensure_running()
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", spawn_and_signal)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_isolated(os.getpid)
    finally:
        signal.signal(number, before)
    with pytest.raises(ChildProcessError):  # it was waited for
        os.waitpid(pids[0], os.WNOHANG)


def test_a_signal_that_is_ignored_stays_so_in_the_process() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert run_isolated(signal.getsignal, signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_works_away_from_the_main_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run_isolated, os.getpid).result() != os.getpid()
