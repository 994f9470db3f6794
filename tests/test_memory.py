"""Memory stays flat while requests of the largest size arrive."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.crashes import DEEP, workers
from tests.hosts import WireHost, event, make_key, query
from tests.service import Service, running_service

REQUESTS = 1000 if DEEP else 14
WARM_UP = 140 if DEEP else 49
EVENT_BYTES = 512 * 1024
BATCH_BYTES = 4 * 1024 * 1024


def resident(service: Service) -> int:
    """The kilobytes that gunicorn's workers hold."""
    pids = ",".join(str(pid) for pid in workers(service))
    listed = subprocess.run(["ps", "-o", "rss=", "-p", pids], capture_output=True, text=True, check=True).stdout
    return sum(int(line) for line in listed.split())


def requests() -> list[tuple[str, bytes, int]]:
    """As large as a body may be: of blanks, of mistakes, of text, and a byte too large."""

    def padded(given: Any, size: int) -> bytes:
        return json.dumps(given).encode().ljust(size)

    mistakes = {"events": [{"type": "Bad", "title": "", "recipients": ["a/b"] * 60_000, "x" * 90: 1}] * 8}
    text = {"events": [event("alice", body="x" * 3_900) for _ in range(100)]}
    return [
        ("/events", padded(event("alice", data={"k": "x" * 10_000}), EVENT_BYTES), 201),
        ("/events/batch", padded({"events": [event("alice")]}, BATCH_BYTES), 201),
        ("/events/batch", padded(mistakes, BATCH_BYTES), 422),
        ("/events/batch", padded(text, BATCH_BYTES), 201),
        ("/events/batch", b"[" * BATCH_BYTES, 400),
        ("/events", b" " * (EVENT_BYTES + 1), 413),
        ("/events/batch", b" " * (BATCH_BYTES + 1), 413),
    ]


@pytest.fixture
def service() -> Iterator[Service]:
    """With one thread: each has a heap of its own, which grows to what its largest request took."""
    with running_service(WEB_CONCURRENCY="1", THREADS="1") as service:
        yield service


def test_memory_stays_flat_while_the_largest_requests_arrive(service: Service) -> None:
    key = make_key(service.database_url)
    given = requests()

    def send(times: int) -> int:
        """The most that was held after any of these requests: the allocator gives back now and then, when it likes."""
        most = 0
        for number in range(times):
            path, body, status = given[number % len(given)]
            host = WireHost(service.url, key)
            # Of a body that is too large the service reads nothing, so the sender may find nobody listening any more.
            with contextlib.suppress(*(ConnectionError,) if status == 413 else ()):
                assert host.call("POST", path, body).status == status
            if number % 100 == 0:  # the key's limit is not what this is about
                query(service.database_url, "DELETE FROM rate_limits RETURNING key")
            most = max(most, resident(service))
        return most

    before = send(WARM_UP)
    after = send(REQUESTS)

    assert after < before * 1.15, f"{before} kB became {after} kB"
