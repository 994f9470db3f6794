"""How many polls each caller has made in its present window: in this worker's memory, or in Redis for all workers."""

import threading
import time

import limits

from app import shared_counters
from app.recent import Recent
from app.shared_counters import SharedCounters

MOST_COUNTED = 1_000_000  # callers whose polls are counted at a time; beyond, the oldest are forgotten
COUNT_BITS = 32
HAS_ASKED = 2 ** (COUNT_BITS - 1)  # beside a count: Redis knows of this window
COUNT_MASK = HAS_ASKED - 1
FULL = HAS_ASKED // 2  # more than any limit allows, and with room above it

Rate = tuple[int, int, Recent[int | str, int]]  # how many, in how many milliseconds, and the windows of the callers


class PollCounter:
    """Counts in this worker's memory.

    The library's counters would do, but they look at all their keys every now and then: with 50,000 callers a minute
    that takes half a core.
    """

    def __init__(self, rates: list[limits.RateLimitItem]) -> None:
        self._turns = threading.Lock()
        # A window is one number, its end in milliseconds beside the count: a hundred thousand of them are held.
        self._rates: list[Rate] = [
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
                self._add(caller, now)
        return seconds

    def _wait(self, callers: tuple[int | str, ...], now: int, parts: int = 1) -> float:
        for amount, _, windows in self._rates:
            for caller in callers:
                window = windows.get(caller)
                if window is not None and window & COUNT_MASK >= (amount // parts or 1) and window >> COUNT_BITS > now:
                    return ((window >> COUNT_BITS) - now) / 1000
        return 0.0

    def _add(self, caller: int | str, now: int) -> None:
        for _, length, windows in self._rates:
            window = windows.get(caller)
            if window is None or window >> COUNT_BITS <= now:
                window = now + length << COUNT_BITS
            windows.put(caller, window + 1, now / 1000)


class SharedPollCounter(PollCounter):
    """Counts for all workers together, in Redis; while it does not answer, each worker allows its part of the limit.

    A few polls of a window cost no question: a bell makes two a minute. With each answer of Redis the count here is set
    so that this worker's part of what is left remains to be given, should that have been the last answer.
    """

    def __init__(self, rates: list[limits.RateLimitItem], shared: SharedCounters) -> None:
        super().__init__(rates)
        self._shared = shared

    def wait(self, *callers: int | str) -> float:
        with self._turns:
            return self._wait(callers, int(time.monotonic() * 1000), self._parts())

    def count(self, caller: int | str, *others: int | str) -> float:
        now = int(time.monotonic() * 1000)
        with self._turns:
            if seconds := self._wait((caller, *others), now, self._parts()):
                return seconds
            used = [(rate, *_used(rate, caller, now)) for rate in self._rates]
            to_ask = [
                (rate, 0 if has_asked else count)
                for rate, count, has_asked in used
                if has_asked or count >= self._shared.part(rate[0], rate[1])
            ]
            if not to_ask:
                self._add(caller, now)
                return 0.0
        # Without the lock: nobody else is to wait for Redis.
        asked = [(rate, self._ask(rate, caller, unknown, now)) for rate, unknown in to_ask]
        with self._turns:
            has_answered = all(window for _, window in asked)
            seconds = self._wait((caller,), now, 1 if has_answered else self._shared.own_workers)
            if not seconds:
                self._add(caller, now)
            for (_, _, windows), window in asked:  # in place of what was added
                if window is not None:
                    windows.put(caller, window, now / 1000)
        return seconds

    def _parts(self) -> int:
        return 1 if self._shared.is_up() else self._shared.own_workers

    def _ask(self, rate: Rate, caller: int | str, unknown: int, now: int) -> int | None:
        """Counts a poll in Redis; how this caller's window then stands here, or None where Redis does not answer.

        `unknown` is how many this worker has given in this window that Redis was not told of.
        """
        amount, length, windows = rate
        # Of two polls at once both may tell of the same ones: no more of them than are given without asking.
        told = min(unknown, shared_counters.kept_out(amount, length))
        counted = self._shared.count(f"polls/{length}/{caller}", length, 1 + told)
        if counted is None:
            return None
        is_over = counted.used > self._shared.most(amount, length, counted)
        count = FULL if is_over else self._without_the_rest(amount, amount - counted.used)
        # It ends with that of Redis, or what is given without asking in the next one would be of the same.
        window: int = now + counted.left << COUNT_BITS | HAS_ASKED | count
        if is_over:
            with self._turns:
                windows.put(caller, window, now / 1000)
        return window

    def _without_the_rest(self, amount: int, left: int) -> int:
        """The count that leaves this worker its part of what is left of a limit."""
        workers = self._shared.own_workers
        rest = left // workers or min(left, 1)  # with more workers than are left each allows one
        return (amount // workers or 1) - rest


def _used(rate: Rate, caller: int | str, now: int) -> tuple[int, bool]:
    """How many were counted here in this window, and whether Redis was asked in it."""
    window = rate[2].get(caller)
    if window is None or window >> COUNT_BITS <= now:
        return 0, False
    return window & COUNT_MASK, bool(window & HAS_ASKED)
