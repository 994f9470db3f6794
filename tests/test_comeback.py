"""A server that is started anew is waited for, by all together, and not for long."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import flask
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from app import comeback, db
from app.comeback import Comeback
from tests.crashes import DEEP
from tests.servers import Server, running_server
from tests.service import Service, wait_until
from tests.web import Browser

CROWD = 60
ROUNDS = 20


def trouble(error: psycopg.Error) -> DBAPIError:
    return DBAPIError.instance("SELECT 1", None, error, psycopg.Error)  # type: ignore[return-value]


REFUSED = trouble(psycopg.OperationalError("connection refused"))
FULL = trouble(psycopg.errors.TooManyConnections("too many clients already"))


class Looks:
    """A server that refuses connections for so many looks; two never look at the same time."""

    def __init__(self, refusals: int, error: Exception = REFUSED) -> None:
        self.refusals, self.error = refusals, error
        self.made = 0
        self._now = threading.Semaphore(1)

    def __call__(self) -> None:
        assert self._now.acquire(blocking=False), "two looked at the same time"
        try:
            self.made += 1
            if self.made <= self.refusals:
                raise self.error
        finally:
            self._now.release()


def test_one_looks_for_all_who_wait() -> None:
    looks = Looks(3)
    server = Comeback(looks, comeback.is_away)
    with ThreadPoolExecutor(CROWD) as pool:
        came = list(pool.map(lambda _number: server.wait(), range(CROWD)))

    assert came == [True] * CROWD
    assert looks.made < 3 + CROWD / 2  # whoever comes when it is back looks once more
    assert server.since is None


def test_who_comes_after_two_seconds_does_not_wait() -> None:
    looks = Looks(10**6)
    server = Comeback(looks, comeback.is_away)
    assert not server.wait()
    made = looks.made

    for _number in range(5):
        assert not server.wait()
    assert looks.made == made


def test_an_outage_that_nobody_saw_the_end_of_does_not_shorten_the_next_one() -> None:
    server = Comeback(Looks(1), comeback.is_away)
    server.since = time.monotonic() - 100

    assert server.wait()


def test_in_two_seconds_everybody_has_gone() -> None:
    server = Comeback(Looks(10**6), comeback.is_away)
    began = time.monotonic()
    with ThreadPoolExecutor(CROWD) as pool:
        came = list(pool.map(lambda _number: server.wait(), range(CROWD)))

    assert came == [False] * CROWD
    assert time.monotonic() - began < comeback.RIDE_OVER + 1


def test_no_more_wait_than_a_worker_has_room_for() -> None:
    server = Comeback(Looks(10**6), comeback.is_away)
    server.waiting = comeback.MOST

    assert not server.wait()


def test_another_trouble_is_not_waited_out() -> None:
    looks = Looks(10**6, FULL)

    assert Comeback(looks, comeback.is_away).wait()  # whoever asks again is told of it
    assert looks.made == 1


def test_what_ends_its_own_connection_is_not_tried_for_ever(app: flask.Flask) -> None:
    tries = 0

    def fatal(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(10)"))

    with pytest.raises(db.LostRace):
        db.read(fatal)
    assert tries == db.TRIES


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (REFUSED, True),
        (trouble(psycopg.errors.AdminShutdown("terminating connection")), True),
        (trouble(psycopg.errors.CannotConnectNow("starting up")), True),
        (FULL, False),
        (trouble(psycopg.errors.QueryCanceled("statement timeout")), False),
        (trouble(psycopg.errors.UniqueViolation("twice")), False),
        (ValueError("no trouble of the server's"), False),
    ],
)
def test_what_says_that_a_server_is_away(error: Exception, is_away: bool) -> None:
    assert comeback.is_away(error) == is_away
    assert isinstance(REFUSED, OperationalError)


def test_who_has_waited_for_something_else_waits_the_less() -> None:
    began = time.monotonic()

    assert not Comeback(Looks(10**6), comeback.is_away).wait(began + 0.2)
    assert time.monotonic() - began < comeback.RIDE_OVER / 2


def test_a_server_and_a_connection_are_not_both_waited_for_at_length(app: flask.Flask) -> None:
    """The server goes, and when it is back others have taken the connections that there are."""
    over = threading.Event()

    def hold(lender: Engine) -> None:
        while not over.is_set():
            with contextlib.suppress(sqlalchemy.exc.TimeoutError), db.lent(lender):
                over.wait(30)

    with app.app_context(), ThreadPoolExecutor() as pool:
        lender = db.engine()

        def ask(connection: Connection) -> None:
            connection.detach()  # it is lost to the pool, and others come first
            everyone = [pool.submit(hold, lender) for _ in range(lender.pool.size() + 1)]  # type: ignore[attr-defined]
            wait_until(lambda: lender.pool.checkedout() == len(everyone), "all are lent")  # type: ignore[attr-defined]
            began.append(time.monotonic())
            raise trouble(psycopg.OperationalError("connection refused"))

        began: list[float] = []
        try:
            with pytest.raises(SQLAlchemyError):  # which of both it was about is all the same
                db.read(ask)
        finally:
            over.set()
    assert time.monotonic() - began[0] < 3


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def service(server: Server) -> Iterator[Service]:
    service = Service(server.url, WEB_CONCURRENCY="1", POLL_LIMIT="1000000 per minute")
    try:
        service.start()
        yield service
    finally:
        service.stop()


@pytest.mark.parametrize("how", ["fast", "kill"] if DEEP else ["kill"])
def test_readers_and_their_changes_wait_out_a_restart(server: Server, service: Service, how: str) -> None:
    service.add_user("ada")
    browser = Browser(service.url)
    assert browser.submit(service.link("ada").removeprefix(service.url)).status == 200
    service.send("ada", title="Before")

    for _round in range(ROUNDS):
        wait_until(lambda: browser.open("/notifications/unread").status == 200, "all is well")
        server.stop(how)
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            poll = pool.submit(browser.open, "/notifications/unread")
            change = pool.submit(browser.post, "/notifications/seen", {"through": 1})
            server.start()
        took = time.monotonic() - began
        if took < comeback.RIDE_OVER:  # a machine that is busy with tests may take longer
            break
    assert took < comeback.RIDE_OVER, "no restart was short enough: the test shows nothing"
    assert (poll.result().status, change.result().status) == (200, 200)
