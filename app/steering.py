"""The interval steers the load: a worker under pressure asks bells to come less often, and lets go slowly.

Bells hear of an interval with their next answer, so a change shows as late as the interval itself is long. A worker
therefore begins while there is still room, goes up fast and comes down so slowly that it sees what it did.
"""

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import flask

from app import metrics
from app.settings import Settings

MOST = 4  # times POLL_INTERVAL: 30 to 120 seconds
SLOW, QUICK = 0.5, 0.2  # seconds to answer, above and below which there is pressure, or none
BUSY, IDLE = 0.75, 0.6  # the part of a core that this worker uses, likewise
UP, DOWN = 1.05, 0.998  # a second
MEMORY = 0.8  # of what was seen a second ago: a single slow answer is no pressure


P = ParamSpec("P")
T = TypeVar("T")


def next_interval(present: float, base: float, seconds_to_answer: float, busy: float) -> float:
    """The interval a second later, in seconds, from how long answers take and how busy the worker is."""
    if seconds_to_answer > SLOW or busy > BUSY:
        return min(base * MOST, present * UP)
    if seconds_to_answer < QUICK and busy < IDLE:
        return max(base, present * DOWN)
    return present


def init_app(app: flask.Flask, settings: Settings) -> None:
    made = app.extensions["steering"] = Steering(settings.poll_interval)
    metrics.POLL_INTERVAL.ask = made.interval


def interval() -> int:
    """The present interval of this worker, in whole seconds."""
    return _steering().interval()


def note(seconds: float) -> None:
    """Takes note of how long a poll took to answer, its waiting for a connection included."""
    _steering().note(seconds)


def noted(answer: Callable[P, T]) -> Callable[P, T]:
    """The view, its time to answer noted, also where it fails."""

    @functools.wraps(answer)
    def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        started = time.monotonic()
        try:
            return answer(*args, **kwargs)
        finally:
            note(time.monotonic() - started)

    return timed


def _steering() -> "Steering":
    found: Steering = flask.current_app.extensions["steering"]
    return found


class Steering:
    """One worker's interval. Its clocks are parameters: the time, and the seconds of a core that this process used."""

    def __init__(
        self,
        base: float,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self.base = base
        self._clock, self._used = clock, used
        self._present = float(base)
        self._stepped, self._used_then = clock(), used()
        self._answers, self._seconds = 0, 0.0
        self._usual_seconds = self._usual_busy = 0.0

    def note(self, seconds: float) -> None:
        self._answers += 1
        self._seconds += seconds
        metrics.POLL_SECONDS.note(seconds)

    def interval(self) -> int:
        now = self._clock()
        if now - self._stepped >= 1:
            self._step(now)
        return round(self._present)

    def _step(self, now: float) -> None:
        passed, used = now - self._stepped, self._used()
        seconds = self._seconds / self._answers if self._answers else 0.0
        # Without polls there are no steps: the next one makes up for the seconds between, as for quiet ones.
        quiet = MEMORY ** min(passed - 1, 60)
        self._usual_seconds = self._usual_seconds * MEMORY * quiet + seconds * (1 - MEMORY)
        self._usual_busy = self._usual_busy * MEMORY * quiet + (used - self._used_then) / passed * (1 - MEMORY)
        self._present = max(self.base, self._present * DOWN ** (min(passed, 3600) - 1))
        self._present = next_interval(self._present, self.base, self._usual_seconds, self._usual_busy)
        self._stepped, self._used_then = now, used
        self._answers, self._seconds = 0, 0.0
