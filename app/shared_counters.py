"""Counters in Redis that all workers share, over one connection, and left alone while it does not answer.

No request ever connects: that is done beside them, and while there is no connection they are told so at once.
"""

import hashlib
import logging
import secrets
import threading
import time
from typing import Any, NamedTuple

from app import patience

log = logging.getLogger(__name__)

PATIENCE = 0.1  # seconds, for an answer; whoever waits for longer is counted by this worker alone
LOOK = 5.0  # seconds between two looks at whether it answers, and at how many workers share it
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 32.0  # seconds until it is looked at again after it did not answer

# Of a limit over no more than a minute a tenth is divided among the workers, for each to give without a question: who
# polls as a bell does needs no more. When a worker asks for the first time in a window it says what it gave, and Redis
# leaves room for what those that have not asked may have given.
KEPT_OUT = 10
LONGEST_KEPT_OUT = 60_000  # milliseconds
# What a worker knows of the others is trusted for so long. A new one waits until all others know of it, and what they
# used before of the larger part has run out; who is gone counts for longer than that.
TRUSTED = 2 * LOOK
SETTLED = TRUSTED + LONGEST_KEPT_OUT / 1000
GONE = SETTLED + 20

COUNT = """
    local used = redis.call('HINCRBY', KEYS[1], 'used', ARGV[1])
    redis.call('HSET', KEYS[1], ARGV[3], 1)
    local left = redis.call('PTTL', KEYS[1])
    if left < 0 then
        left = tonumber(ARGV[2])
        redis.call('PEXPIRE', KEYS[1], left)
    end
    return {used, left, redis.call('HLEN', KEYS[1]) - 1}
"""
PEEK = """
    return {tonumber(redis.call('HGET', KEYS[1], 'used') or '0'), math.max(redis.call('PTTL', KEYS[1]), 0), 0}
"""
REGISTER = """
    local now = tonumber(redis.call('TIME')[1])
    redis.call('ZADD', KEYS[1], now, ARGV[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
    redis.call('EXPIRE', KEYS[1], ARGV[2])
    return {redis.call('ZCARD', KEYS[1]), 0, 0}
"""


class Counted(NamedTuple):
    """Where a counter stands, the milliseconds until it begins anew, and how many workers have counted in it."""

    used: int
    left: int
    workers: int


def kept_out(amount: int, window: int) -> int:
    """How much of a limit the workers may give without asking, all together."""
    return amount // KEPT_OUT if window <= LONGEST_KEPT_OUT else 0


class SharedCounters:
    """The counters of one installation, as one worker sees them."""

    def __init__(
        self, uri: str, workers: int, installation: str, settled: float = SETTLED, patience: float = PATIENCE
    ) -> None:
        self._uri = uri
        self._patience = patience
        self._settled = settled
        # The braces keep an installation's keys together where Redis is spread over several servers.
        self._prefix = f"{{belfry:{hashlib.sha256(installation.encode()).hexdigest()[:12]}}}"
        self.workers = self.own_workers = workers  # of all machines, as far as is known, and of this one
        self._client: Any = None
        self._turns = threading.Lock()
        self._name = ""
        self._joined = self._trusted_until = 0.0
        self._looks = threading.Lock()
        self._next_look = 0.0
        self._pause = FIRST_PAUSE
        self._has_looked = self._was_up = False

    def is_alone(self) -> bool:
        """Whether this worker has asked Redis, and counts by itself because it did not answer."""
        return self._has_looked and self._client is None

    def is_up(self) -> bool:
        """Whether Redis answers, as far as is known; now and then it is looked at, beside the request."""
        if time.monotonic() >= self._next_look:
            self._start_looking()
        return self._client is not None

    def part(self, amount: int, window: int) -> int:
        """How much of a limit this worker may give before it asks."""
        return kept_out(amount, window) // self.workers if self._is_settled() else 0

    def most(self, amount: int, window: int, counted: Counted) -> int:
        """How much of a limit may be counted in Redis, so that it holds whatever others have given without asking."""
        kept = kept_out(amount, window)
        others = max(0, self.workers - counted.workers)
        return amount - (others * (kept // self.workers) if self._is_settled() or not others else kept)

    def _is_settled(self) -> bool:
        return self._joined + self._settled <= time.monotonic() < self._trusted_until

    def count(self, key: str, window: int, amount: int = 1) -> Counted | None:
        """Counts, for the milliseconds of `window` from its first time on; None while Redis does not answer."""
        return self._ask(COUNT, key, amount, window, self._name)

    def peek(self, key: str) -> Counted | None:
        """Where a counter stands; None while Redis does not answer."""
        return self._ask(PEEK, key)

    def _ask(self, script: str, key: str, *arguments: int | str) -> Counted | None:
        # Whoever stands behind one who waits in vain does not begin to wait anew.
        if not self.is_up() or not self._turns.acquire(timeout=self._patience):
            return None
        try:
            if self._client is None:
                return None
            with patience.within(self._patience):  # of the whole answer: its own time-out begins anew with each piece
                return _run(self._client, script, f"{self._prefix}:{key}", *arguments)
        except Exception as error:  # whatever it is, a request is not to fail by it
            self._lose(error)
            return None
        finally:
            self._turns.release()

    def _lose(self, error: Exception) -> None:
        from redis import exceptions

        # A connection that Redis closed, because it was idle or Redis began anew, may be had again at once.
        self._drop(error, 0 if isinstance(error, exceptions.ConnectionError) else self._pause)

    def _drop(self, error: Exception, pause: float) -> None:
        client, self._client = self._client, None
        self._next_look = time.monotonic() + pause
        if client is not None:
            client.close()
        if self._was_up or not self._has_looked:
            # Only the kind: its text may say where Redis is and who asked.
            log.warning("limits not shared, each worker counts its part: %s", type(error).__name__)
        self._was_up, self._has_looked = False, True

    def _start_looking(self) -> None:
        with self._looks:
            if time.monotonic() < self._next_look:
                return
            self._next_look = time.monotonic() + LOOK
        thread = threading.Thread(target=self._look, name="looks at Redis", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: the next look finds one
            return
        if not self._has_looked:  # the first one waits for a moment, or it would be counted by this worker alone
            thread.join(self._patience)

    def _look(self) -> None:
        """Connects if need be, and says that this worker is there."""
        self._name = self._name or secrets.token_hex(8)  # not before gunicorn's fork
        began = time.monotonic()
        client = known = self._client
        try:
            client = known or connect(self._uri, self._patience)
            with self._turns, patience.within(self._patience):
                workers, _, _ = _run(client, REGISTER, f"{self._prefix}:workers", self._name, int(GONE))
        except Exception as error:  # whatever it is: nobody would look again
            if client is not known:
                client.close()
            with self._turns:
                self._drop(error, self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            return
        if known is not None:  # it has answered for a while
            self._pause = FIRST_PAUSE
        self.workers = max(workers, self.own_workers)
        if began >= self._trusted_until + LONGEST_KEPT_OUT / 1000:  # the others may have forgotten it
            self._joined = began
        self._trusted_until = began + TRUSTED
        self._client = client
        if self._has_looked and not self._was_up:
            log.warning("limits shared again")
        self._was_up = self._has_looked = True


def _run(client: Any, script: str, key: str, *arguments: int | str) -> Counted:
    used, left, workers = client.eval(script, 1, key, *arguments)
    return Counted(int(used), int(left), int(workers))


def connect(uri: str, patience: float = PATIENCE) -> Any:
    """A client that gives up after so many seconds."""
    # Here, for most do without Redis: loading it takes a tenth of a second and 6 MB.
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.maint_notifications import MaintNotificationsConfig
    from redis.retry import Retry

    return Redis.from_url(
        uri,
        single_connection_client=True,
        socket_timeout=patience,
        socket_connect_timeout=patience,
        retry=Retry(NoBackoff(), 0),  # by itself it would try for seconds
        protocol=2,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
