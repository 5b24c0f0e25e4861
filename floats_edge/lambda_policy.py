"""From a signal of the application to a lambda: a detector's score, a battery's level, a switch.

No clock is read: whoever calls passes the time. ``export/cpp/include/floats_rt/lambda_policy.hpp`` is the same in C++.
"""

import math
from dataclasses import dataclass
from enum import Enum

from floats_edge.errors import LambdaError


@dataclass(frozen=True)
class PolicySettings:
    """How a signal moves lambda.

    Args:
        quiet: lambda while the signal is low, in [0, 1].
        alert: lambda after the signal was high, in [0, 1].
        enter: from this signal on, alert begins.
        leave: alert ends when the signal is this or lower; at most ``enter``. Between the two nothing changes, so a
            noisy signal near one threshold does not switch lambda back and forth.
        per_second: lambda changes by no more than this in one second; infinite: at once.
        hold: alert lasts at least so many seconds after the signal last reached ``enter``.

    Raises:
        LambdaError: if these do not go together.
    """

    quiet: float = 0.0
    alert: float = 1.0
    enter: float = 0.8
    leave: float = 0.5
    per_second: float = math.inf
    hold: float = 0.0

    def __post_init__(self) -> None:
        """Check what was asked for."""
        for name in ("quiet", "alert"):
            if not 0 <= getattr(self, name) <= 1:
                raise LambdaError(f"{name} is {getattr(self, name)}, no lambda.", fix=f"choose {name} from 0 to 1")
        if not -math.inf < self.leave <= self.enter < math.inf:
            raise LambdaError(
                f"alert begins at {self.enter} and ends at {self.leave}: the second must not be higher.",
                fix="choose leave <= enter; if low is bad, as of a battery, pass the signal's negative",
            )
        if not self.per_second > 0:
            raise LambdaError(f"per_second is {self.per_second}.", fix="choose a number above 0, or infinity")
        if not 0 <= self.hold < math.inf:
            raise LambdaError(f"hold is {self.hold} seconds.", fix="choose 0 or more")


class Reason(Enum):
    """Why a policy aims where it does."""

    QUIET = "quiet"
    """The signal is low."""
    ENTERED = "entered"
    """The signal has just reached ``enter``."""
    ALERT = "alert"
    """The signal is still there."""
    BETWEEN = "between"
    """The signal is between ``leave`` and ``enter``: what was goes on."""
    HELD = "held"
    """The signal is low, but ``hold`` is not over."""
    LEFT = "left"
    """The signal is low, and alert has just ended."""
    NO_SIGNAL = "no signal"
    """The signal is not a number: what was goes on."""


@dataclass(frozen=True)
class Decision:
    """A lambda, and why.

    Args:
        lam: in [0, 1].
        reason: why it goes where it goes.
        limited: whether it is not there yet, because of ``per_second``.
    """

    lam: float
    reason: Reason
    limited: bool


class LambdaPolicy:
    """Two lambdas, a threshold to enter and one to leave, a hold time and a largest speed.

    It begins quiet, at lambda ``quiet``.
    """

    def __init__(self, settings: PolicySettings = PolicySettings()) -> None:
        self.settings = settings
        self._lam = settings.quiet
        self._alert = False
        self._now: float | None = None
        self._alerted_at = 0.0

    def update(self, signal: float, seconds: float) -> Decision:
        """Take the signal at a time and say which lambda to use from then on.

        Args:
            signal: the higher, the more there is to guard against. Not a number: nothing is known.
            seconds: of any clock that does not stop, for example ``time.monotonic()``. A time that is no number or
                earlier than the last one counts as the last one.

        Returns:
            Decision: what to give to ``set_lambda``.
        """
        elapsed = self._passed(seconds)
        reason = self._judge(signal)
        target = self.settings.alert if self._alert else self.settings.quiet
        step = math.inf if math.isinf(self.settings.per_second) else self.settings.per_second * elapsed
        self._lam = min(max(target, self._lam - step), self._lam + step)
        return Decision(self._lam, reason, limited=self._lam != target)

    def _passed(self, seconds: float) -> float:
        if not math.isfinite(seconds) or (self._now is not None and seconds <= self._now):
            return 0.0
        elapsed = 0.0 if self._now is None else seconds - self._now
        self._now = seconds
        return elapsed

    def _judge(self, signal: float) -> Reason:
        now = 0.0 if self._now is None else self._now
        if math.isnan(signal):
            return Reason.NO_SIGNAL
        if signal >= self.settings.enter:
            entered, self._alert, self._alerted_at = not self._alert, True, now
            return Reason.ENTERED if entered else Reason.ALERT
        if signal > self.settings.leave:
            return Reason.BETWEEN
        if not self._alert:
            return Reason.QUIET
        if now - self._alerted_at < self.settings.hold:
            return Reason.HELD
        self._alert = False
        return Reason.LEFT
