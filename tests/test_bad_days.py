"""What callers meet with while PostgreSQL is restarted, killed, hung, full or used up: 503, soon, and nothing worse.

The real service, two workers, on a server of its own that all of this is really done to.
"""

import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.crashes import DEEP
from tests.hosts import WireHost, make_key, query
from tests.servers import Server, running_server
from tests.service import Service, wait_until
from tests.test_workers import Bell, sign_in
from tests.web import Answer, Browser

SOON = 3.0  # seconds within which every answer comes
BACK = 5.0  # seconds after the server's return in which all is well again
SESSIONS, KEYS = (12, 4) if DEEP else (6, 1)  # the calls of each are limited
CROWD = 40 if DEEP else 16  # callers at once: more than the workers have connections

Crowd = list["Outcome"]


class Outcome(NamedTuple):
    """How a call went."""

    call: str
    answer: Answer
    seconds: float

    def __repr__(self) -> str:
        return f"{self.call}: {self.answer.status} after {self.seconds:.2f} s, {self.answer.body[:200]!r}"

    @property
    def is_good(self) -> bool:
        return self.answer.status in (200, 201, 304)


class Callers:
    """A sender with an Idempotency-Key for each event, and a reader in several browsers, who all call at once."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.hosts = [WireHost(service.url, make_key(service.database_url)) for _ in range(KEYS)]
        self.subject = f"ada-{secrets.token_hex(4)}"
        service.add_user(self.subject)
        browsers = [Browser(service.url) for _ in range(SESSIONS)]
        for browser in browsers:
            assert browser.submit(service.link(self.subject).removeprefix(service.url)).status == 200
        self.browsers = itertools.cycle(browsers)
        self.keys: list[str] = []
        self.acknowledged: dict[str, int] = {}
        self.lock = threading.Lock()
        assert self.publish().is_good

    def publish(self) -> Outcome:
        with self.lock:
            key = str(len(self.keys))
            self.keys.append(key)
        return self.repeat(key)

    def repeat(self, key: str) -> Outcome:
        event = {"type": "comment", "title": key, "recipients": [self.subject]}
        host = self.hosts[int(key) % KEYS]
        outcome = self.timed("publish", lambda: host.call("POST", "/events", event, Idempotency_Key=key))
        if outcome.is_good:
            self.acknowledged[key] = outcome.answer.json()["event_id"]
        return outcome

    def poll(self) -> Outcome:
        return self.timed("poll", lambda: next(self.browsers).open("/notifications/unread"))

    def mark(self) -> Outcome:
        return self.timed("mark", lambda: next(self.browsers).post("/notifications/1/read"))

    def page(self) -> Outcome:
        return self.timed("page", lambda: next(self.browsers).open("/", Accept="text/html"))

    def ready(self) -> Outcome:
        return self.timed("ready", lambda: next(self.browsers).open("/readyz"))

    def timed(self, call: str, act: Callable[[], Answer]) -> Outcome:
        began = time.monotonic()
        answer = act()
        return Outcome(call, answer, time.monotonic() - began)

    def all_at_once(self, *calls: Callable[[], Outcome]) -> Crowd:
        chosen = calls or (self.publish, self.poll, self.mark, self.page)
        with ThreadPoolExecutor(CROWD) as pool:
            begun = [pool.submit(chosen[number % len(chosen)]) for number in range(CROWD)]
            return [outcome.result() for outcome in begun]

    def require_full_service(self) -> None:
        """Soon all calls are answered as ever, and from then on without exception; every refused event goes through."""
        wait_until(lambda: not refused(self.all_at_once()), "full service", BACK)
        for _round in range(4 if DEEP else 2):
            assert refused(self.all_at_once()) == []
        wait_until(lambda: all(self.ready().is_good for _time in range(6)), "both workers say so", 1)
        for key in self.keys:
            assert key in self.acknowledged or self.repeat(key).is_good

    def require_nothing_lost(self) -> None:
        """What was acknowledged is there, under the id that was given out, and nothing is there twice."""
        there = query(self.service.database_url, "SELECT title, id FROM events ORDER BY id")
        assert sorted(there) == sorted(self.acknowledged.items())


def refused(outcomes: Crowd) -> Crowd:
    return [outcome for outcome in outcomes if not outcome.is_good]


def require_refused(outcomes: Crowd) -> None:
    """Every call was refused as something that is worth trying again, before anybody loses patience."""
    for outcome in outcomes:
        assert outcome.answer.status == 503, outcome
        assert int(outcome.answer.headers["Retry-After"]) > 0
        expected = "text/html" if outcome.call == "page" else "application/problem+json"
        assert outcome.answer.headers.get_content_type() == expected
    assert max(outcome.seconds for outcome in outcomes) < SOON


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def service(server: Server) -> Iterator[Service]:
    many = "1000000 per minute"
    service = Service(server.url, WEB_CONCURRENCY="2", THREADS="3", POLL_LIMIT=many, FAST_PATH="1")
    try:
        service.start()
        yield service
    finally:
        service.stop()


@pytest.fixture
def callers(server: Server, service: Service) -> Iterator[Callers]:
    """All is well before and after, and nothing acknowledged is lost meanwhile."""
    with server.connect() as connection:
        connection.execute("TRUNCATE events, idempotency_keys, rate_limits CASCADE")
    callers = Callers(service)
    wait_until(lambda: not refused(callers.all_at_once()), "all is well")
    yield callers
    callers.require_full_service()
    callers.require_nothing_lost()


def test_a_server_that_hangs(server: Server, callers: Callers) -> None:
    with server.hung():
        require_refused(callers.all_at_once())
        require_refused(callers.all_at_once())
        assert callers.ready().answer.status == 503
        for path in ("/livez", "/openapi.json", "/static/js/poller.js"):
            asks_nobody = callers.timed(path, lambda path=path: next(callers.browsers).open(path))
            assert asks_nobody.is_good
            assert asks_nobody.seconds < 1


def test_while_it_hangs_who_has_nothing_new_notices_nothing(server: Server, service: Service, callers: Callers) -> None:
    """What a worker knows stays true: nothing can change in a server that stands still."""
    with contextlib.closing(Bell(service, sign_in(service, callers.subject))) as bell:
        tag = bell.poll().headers["ETag"]

        def is_answered_from_memory() -> bool:
            assert bell.poll(tag).status == 304  # it learns what it does not know yet
            before = time.monotonic()
            with server.hung():
                return bell.poll(tag).status == 304 and time.monotonic() - before < 0.5

        wait_until(is_answered_from_memory, "the worker knows the inbox")


def test_a_server_that_hangs_in_the_midst_of_calls(server: Server, callers: Callers) -> None:
    for _round in range(5 if DEEP else 1):
        with ThreadPoolExecutor(1) as pool:
            crowd = pool.submit(lambda: [outcome for _ in range(3) for outcome in callers.all_at_once()])
            time.sleep(0.02)
            with server.hung():
                outcomes = crowd.result()
        require_refused(refused(outcomes))
        callers.require_full_service()


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
def test_a_server_that_is_stopped_and_comes_back(server: Server, callers: Callers, how: str) -> None:
    """Calls go on all the time."""
    outcomes: Crowd = []
    over = threading.Event()

    def call() -> None:
        while not over.wait(0.1):  # or their limits would be what stops them
            outcomes.extend(callers.all_at_once())

    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call)
        for _round in range(5 if DEEP else 1):
            server.stop(how)
            before = len(outcomes)
            wait_until(lambda: len(outcomes) > before + 2 * CROWD, "calls while it is away")  # noqa: B023
            server.start()
            good = callers.publish
            wait_until(lambda: good().is_good, "an event goes through", BACK)  # noqa: B023
        over.set()
        calling.result()

    assert refused(outcomes)
    require_refused(refused(outcomes))


def test_a_server_whose_connections_others_hold(server: Server, callers: Callers) -> None:
    with server.used_up():
        require_refused(callers.all_at_once())
        assert callers.ready().answer.status == 503


def test_a_server_whose_disk_is_full(server: Server, callers: Callers) -> None:
    with server.full_disk():
        # What is half empty is filled up first.
        require_refused(wait_until(lambda: refused(callers.all_at_once(callers.publish)), "a full disk"))
        assert refused(callers.all_at_once(callers.poll, callers.page)) == []
        assert callers.ready().is_good


def test_a_server_that_can_only_be_read(server: Server, callers: Callers) -> None:
    """As a stand-by is, to which the name of the server leads since a fail-over."""
    with server.connect() as connection:
        connection.execute("ALTER DATABASE belfry SET default_transaction_read_only = on")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'others'")
        try:
            require_refused(callers.all_at_once(callers.publish, callers.mark))
            assert callers.poll().is_good
        finally:
            connection.execute("ALTER DATABASE belfry RESET default_transaction_read_only")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'others'"
            )
