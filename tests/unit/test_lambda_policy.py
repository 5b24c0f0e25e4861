"""The controller that turns a signal into a lambda; C++ meets the same table in test_lambda_policy.cpp."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floats_edge.errors import LambdaError
from floats_edge.lambda_policy import Decision, LambdaPolicy, PolicySettings, Reason

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "lambda_policy.json").read_text())
LAMBDAS = st.floats(0, 1)


@st.composite
def settings(draw: st.DrawFn) -> PolicySettings:
    leave, enter = sorted((draw(LAMBDAS), draw(LAMBDAS)))
    per_second = draw(st.floats(0.01, 100) | st.just(math.inf))
    return PolicySettings(draw(LAMBDAS), draw(LAMBDAS), enter, leave, per_second, hold=draw(st.floats(0, 5)))


SIGNALS = st.lists(st.tuples(st.floats(-1, 2) | st.just(math.nan), st.floats(allow_nan=True)), min_size=1)
WAITS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), min_size=1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_table(case: dict[str, Any]) -> None:
    policy = LambdaPolicy(PolicySettings(**case["settings"]))
    for signal, seconds, lam, reason, limited in case["steps"]:
        decision = policy.update(*(math.nan if value is None else value for value in (signal, seconds)))
        assert decision == Decision(lam, Reason(reason), limited), (signal, seconds)


@given(settings(), SIGNALS)
def test_lambda_stays_between_the_two(settings: PolicySettings, signals: list[tuple[float, float]]) -> None:
    policy = LambdaPolicy(settings)
    low, high = sorted((settings.quiet, settings.alert))
    for signal, seconds in signals:
        assert low <= policy.update(signal, seconds).lam <= high


@given(settings(), WAITS)
def test_lambda_is_never_faster_than_the_limit(settings: PolicySettings, waits: list[tuple[float, float]]) -> None:
    policy = LambdaPolicy(settings)
    now, before = 100.0, settings.quiet
    policy.update(math.nan, now)
    for signal, wait in waits:
        elapsed = now + wait - now
        now += wait
        decision = policy.update(signal, now)
        limit = settings.per_second * elapsed if math.isfinite(settings.per_second) else math.inf
        assert abs(decision.lam - before) <= limit + 1e-12
        before = decision.lam


@given(settings(), st.booleans(), st.lists(LAMBDAS, min_size=2))
def test_nothing_flaps_inside_of_the_band(settings: PolicySettings, alert: bool, shares: list[float]) -> None:
    policy = LambdaPolicy(settings)
    policy.update(settings.enter if alert else settings.leave - 1, 0)
    target = settings.alert if alert else settings.quiet
    lambdas = [policy.update(math.nan, 0).lam]
    for second, share in enumerate(shares, start=1):
        signal = settings.leave + share * (settings.enter - settings.leave)
        if not settings.leave < signal < settings.enter:
            continue
        decision = policy.update(signal, second)
        assert decision.reason is Reason.BETWEEN
        lambdas.append(decision.lam)
    away = [abs(lam - target) for lam in lambdas]
    assert away == sorted(away, reverse=True), "it goes nowhere but where it was going"


@given(settings(), st.lists(st.floats(0, 1), min_size=1))
def test_alert_lasts_as_long_as_it_is_held(settings: PolicySettings, times: list[float]) -> None:
    policy = LambdaPolicy(settings)
    policy.update(settings.enter, 0)
    for share in sorted(times):
        reason = policy.update(settings.leave - 1, share * settings.hold).reason
        if share * settings.hold < settings.hold:
            assert reason is Reason.HELD


@pytest.mark.parametrize(
    "wrong",
    [
        {"quiet": -0.1},
        {"alert": 1.1},
        {"alert": math.nan},
        {"enter": 0.4},
        {"leave": math.nan},
        {"enter": math.inf},
        {"per_second": 0},
        {"per_second": math.nan},
        {"hold": -1},
        {"hold": math.inf},
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LambdaError):
        PolicySettings(**wrong)
