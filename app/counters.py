"""Where the `limits` library counts: in this worker's memory, in Redis, or in PostgreSQL."""

import threading
import time
from typing import Any

from limits.storage import MemoryStorage, Storage
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from app import db
from app.shared_counters import SharedCounters


class Counters(MemoryStorage):
    """Counts for all workers together where Redis is there and answers; otherwise in this worker's memory.

    There each call counts as often as there are workers, so that the sum over all of them never exceeds a limit. And
    the library's counters in memory are for one thread at a time: two at once may start its timer twice, a 500 for one.
    Fixed upstream (alisaifee/limits#352), but in no release up to 5.8.0.
    """

    STORAGE_SCHEME = ["counters"]  # noqa: RUF012 - the library's own declaration

    def __init__(self, uri: str | None = None, *, workers: int, shared: SharedCounters | None, **options: Any) -> None:
        self._one_at_a_time = threading.Lock()
        self._workers = workers
        self._shared = shared
        super().__init__(uri, **options)

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        counted = self._shared and self._shared.count(key, int(expiry * 1000), amount)
        if counted:
            return counted.used
        with self._one_at_a_time:
            return super().incr(key, expiry, amount * self._parts(key))

    def get(self, key: str) -> int:
        counted = self._shared and self._shared.peek(key)
        # One more call has room where what it counts as has.
        return counted.used if counted else super().get(key) + self._parts(key) - 1

    def get_expiry(self, key: str) -> float:
        counted = self._shared and self._shared.peek(key)
        return time.time() + counted.left / 1000 if counted else super().get_expiry(key)

    def _parts(self, key: str) -> int:
        # A key ends with its limit, as in `/300/1/minute`. With more workers than that each allows one call.
        most = int(key.rsplit("/", 3)[1])
        return min(self._workers, most)


COUNT = text("""
    INSERT INTO rate_limits AS counter (key, count, expires_at)
    VALUES (:key, :amount, now() + make_interval(secs => :expiry))
    ON CONFLICT (key) DO UPDATE SET
        count = CASE WHEN counter.expires_at <= now() THEN excluded.count ELSE counter.count + excluded.count END,
        expires_at = CASE WHEN counter.expires_at <= now() THEN excluded.expires_at ELSE counter.expires_at END
    RETURNING count
""")
FAST_COUNT = db.for_driver(COUNT)
GET = text("SELECT count FROM rate_limits WHERE key = :key AND now() < expires_at")
SECONDS_LEFT = text("SELECT extract(epoch FROM expires_at - now()) FROM rate_limits WHERE key = :key")
CLEAR = text("DELETE FROM rate_limits WHERE key = :key")
RESET = text("DELETE FROM rate_limits")


class PostgresStorage(Storage):
    """Counters of the `limits` library in the table `rate_limits`.

    Every call is a short transaction of its own, so a counter is never locked while other work goes on, and what
    was counted stays counted when the request fails. Windows run by the database's clock.
    """

    @property
    def base_exceptions(self) -> type[Exception]:
        return SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        def count(connection: Connection) -> int:
            [(present,)] = db.rows(connection, FAST_COUNT, {"key": key, "expiry": expiry, "amount": amount})
            return int(present)

        return db.at_once(count)

    def get(self, key: str) -> int:
        return int(db.read(lambda connection: connection.execute(GET, {"key": key}).scalar()) or 0)

    def get_expiry(self, key: str) -> float:
        left = db.read(lambda connection: connection.execute(SECONDS_LEFT, {"key": key}).scalar())
        return time.time() + float(left or 0)

    def check(self) -> bool:
        return bool(db.read(lambda connection: connection.execute(text("SELECT true")).scalar()))

    def reset(self) -> int:
        return db.at_once(lambda connection: connection.execute(RESET).rowcount)

    def clear(self, key: str) -> None:
        db.at_once(lambda connection: connection.execute(CLEAR, {"key": key}).rowcount)
