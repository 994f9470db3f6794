"""How many polls each caller has made in its present window, in this worker's memory."""

import threading
import time

import limits

from app.recent import Recent

MOST_COUNTED = 1_000_000  # callers whose polls are counted at a time; beyond, the oldest are forgotten
COUNT_BITS = 32
COUNT_MASK = 2**COUNT_BITS - 1


class PollCounter:
    """How many polls each caller has made in its present window, which begins with the first one.

    The library's counters would do, but they look at all their keys every now and then: with 50,000 callers a minute
    that takes half a core.
    """

    def __init__(self, rates: list[limits.RateLimitItem]) -> None:
        self._turns = threading.Lock()
        # A window is one number, its end in milliseconds beside the count: a hundred thousand of them are held.
        self._rates = [
            (rate.amount, length := rate.get_expiry() * 1000, Recent[int | str, int](length / 1000, MOST_COUNTED))
            for rate in rates
        ]

    def wait(self, *callers: int | str) -> float:
        """Seconds until all these callers may poll; 0 for at once. Counts nothing."""
        with self._turns:
            return self._wait(callers, int(time.monotonic() * 1000))

    def count(self, caller: int | str, *others: int | str) -> float:
        """Counts one poll and gives back 0; or, where the caller or one of the others has no room, counts nothing and
        gives back the seconds to wait.
        """
        now = int(time.monotonic() * 1000)
        with self._turns:
            seconds = self._wait((caller, *others), now)
            if not seconds:
                for _, length, windows in self._rates:
                    window = windows.get(caller)
                    if window is None or window >> COUNT_BITS <= now:
                        window = now + length << COUNT_BITS
                    windows.put(caller, window + 1, now / 1000)
        return seconds

    def _wait(self, callers: tuple[int | str, ...], now: int) -> float:
        for amount, _, windows in self._rates:
            for caller in callers:
                window = windows.get(caller)
                if window is not None and window & COUNT_MASK >= amount and window >> COUNT_BITS > now:
                    return ((window >> COUNT_BITS) - now) / 1000
        return 0.0
