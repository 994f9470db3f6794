"""The moments in which PostgreSQL is started anew: requests wait them out instead of being refused.

A server that is restarted, or was killed, says no at once and takes connections again in half a second. One that hangs
says nothing, which is `patience`'s business.
"""

import math
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import OperationalError, SQLAlchemyError

# It is going, has crashed, or is coming; and None from a connection that says nothing any more, or that nobody takes.
AWAY = {"57P01", "57P02", "57P03", None}
# Seconds from when the server went, and not for each request: in a long outage everybody is refused at once, or those
# who wait would soon be all the connections that a worker keeps.
RIDE_OVER = 2.0
MOST = 400  # requests of a worker that wait, out of the 1,000 connections that gunicorn.conf.py lets in
LOOK_AGAIN = 0.05  # seconds between two attempts to reach it


def is_away(error: Exception) -> bool:
    """Whether this is what somebody is told whose server goes, comes, or is not there."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in AWAY


class Comeback:
    """One server, as one process sees it go and come."""

    def __init__(self, look: Callable[[], None], is_away: Callable[[Exception], bool]) -> None:
        self._look = look  # takes a connection and gives it back
        self._is_away = is_away
        self._one_at_a_time = threading.Lock()
        self.waiting = 0  # requests, just now
        self.since: float | None = None  # when it went; None while it is there
        self._last_missed = float("-inf")

    def wait(self, until: float = math.inf) -> bool:
        """True once it is worth asking the server again, False where that does not come in time. One asks for all.

        `until` is when the caller's own patience ends, by the monotonic clock.
        """
        now = time.monotonic()
        # After so long without anybody who asked it may have been back.
        if self.since is None or now > self._last_missed + RIDE_OVER:
            self.since = now
        self._last_missed, went = now, self.since
        until = min(until, went + RIDE_OVER)
        left = until - now
        if left <= 0 or self.waiting >= MOST:
            return False
        self.waiting += 1
        try:
            if not self._one_at_a_time.acquire(timeout=left):
                return False
            try:
                return self._has_come(went, until)
            finally:
                self._one_at_a_time.release()
        finally:
            self.waiting -= 1
            self._last_missed = time.monotonic()

    def _has_come(self, went: float, until: float) -> bool:
        while self.since == went and time.monotonic() < until:
            try:
                self._look()
            except SQLAlchemyError as error:
                if self._is_away(error):
                    time.sleep(LOOK_AGAIN)
                    continue
            self.since = None  # it answers, or has another trouble, which whoever asks again is told at once
        return self.since != went and time.monotonic() < until  # else somebody else has seen it
