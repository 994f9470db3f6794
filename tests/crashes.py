"""kill -9 for tests: the real service's workers die at a random moment of a call, and the sender repeats the call."""

import contextlib
import http.client
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.hosts import WireHost, query
from tests.service import Service, wait_until
from tests.web import Answer

DEEP = bool(os.environ.get("BELFRY_TEST_DEEP"))
KILLS = 40 if DEEP else 3


def workers(service: Service) -> list[int]:
    """gunicorn's worker processes."""
    assert service.process is not None
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, parent in pairs if int(parent) == service.process.pid]


def kill_workers(service: Service) -> None:
    """Ends them as the kernel does when memory runs out: nothing of theirs gets a last word."""
    for pid in workers(service):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Crashes:
    """Calls that are killed at a random moment and repeated, round after round."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.cut_off = 0
        self._longest = 0.4

    def rounds(self) -> Iterator[int]:
        """The numbers of the rounds: as many as asked for, and more until a call was cut off.

        A call that was quicker than its killer is no crash, and a test without one would show nothing.
        """
        for number in range(KILLS + 100):
            if number >= KILLS and self.cut_off:
                return
            yield number
        raise AssertionError("no call was cut off: the test shows nothing")

    def call(self, host: WireHost, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The answer to a call during which the workers die, twice at most, and which is repeated until it is done."""
        for attempt in range(100):
            killer = threading.Timer(random.uniform(0, self._longest), kill_workers, [self.service])
            if attempt < 2:
                killer.start()
            begun = time.monotonic()
            try:
                answer = host.call(method, path, body, **headers)
            except (OSError, http.client.HTTPException):
                self.cut_off += 1
                continue
            finally:
                took = time.monotonic() - begun
                if attempt < 2:
                    killer.join()
            # 409, 503: the connection of a killed worker still holds its locks, until the server notices.
            if answer.status not in (409, 503):
                self._longest = took
                settle(self.service)
                return answer
            time.sleep(0.05)
        raise AssertionError("a hundred repeats did not complete the call")


def settle(service: Service) -> None:
    """Waits until nothing of a killed worker goes on in the server any more."""
    at_work = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND (state <> 'idle' OR xact_start IS NOT NULL) AND backend_type = 'client backend'"
    )
    wait_until(lambda: query(service.database_url, at_work) == [(0,)], "the server has nothing to do")


def add_users(database_url: str, count: int) -> None:
    """Makes as many users, quickly."""
    query(
        database_url,
        "INSERT INTO users (subject) SELECT 'user ' || number FROM generate_series(1, %s) AS number RETURNING id",
        count,
    )
