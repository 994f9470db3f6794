"""How workers wait for PostgreSQL: what hangs is given up, what is slow is not, and nobody gets another's answer.

Workers run under gevent, and so do these: each is a program of its own, beside the real service.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import flask
import pytest
import sqlalchemy
import sqlalchemy.exc

from app import comeback, db, errors
from tests import postgres
from tests.hosts import WireHost, make_key, query
from tests.servers import Relay, Server, running_server
from tests.service import Service, wait_until
from tests.test_workers import Bell, sign_in

LISTENERS = "SELECT pid FROM pg_stat_activity WHERE starts_with(query, 'LISTEN')"
LATE = 6  # seconds, on a machine that is busy with tests: five are promised; without any measure it would be a minute

READY = b"Z\0\0\0\5I"  # how a server ends what it says to whoever may ask now

BEGINNING = """
from gevent import monkey
monkey.patch_all()
import os, signal, sys, time
import gevent, sqlalchemy
from app import db, patience
engine = db.make_engine(sys.argv[1], 2)
def ask(statement):
    with engine.connect() as connection:
        return connection.exec_driver_sql(statement).scalar_one()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def run(url: str, program: str) -> str:
    """What the program prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + program, url],
        cwd=postgres.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_slow_statement_is_waited_for(server: Server) -> None:
    """It is slower than the time after which the server is asked whether it is there, twice over."""
    assert run(server.url, "print(ask('SELECT 7 FROM pg_sleep(2.5)'))") == "7"


def test_a_process_of_the_server_that_stands_still_is_given_up(server: Server) -> None:
    """The others answer, so the server does not hang; but the deadline of this statement is its to keep."""
    program = """
patience.Patient.longest = 0.5  # instead of 6 s
pid = ask("SELECT pg_backend_pid()")
os.kill(pid, signal.SIGSTOP)
started = time.monotonic()
try:
    ask("SELECT 1")
except sqlalchemy.exc.OperationalError as error:
    print(patience.SILENT in str(error), time.monotonic() - started < 4, ask("SELECT 7"), engine.pool.checkedout())
finally:
    os.kill(pid, signal.SIGCONT)
"""
    assert run(server.url, program) == "True True 7 0"


def test_whoever_is_ended_in_the_midst_leaves_no_answer_to_the_next(server: Server) -> None:
    """A killed greenlet's connection must not be lent again: the next would read what the former asked."""
    program = """
import random
random.seed(7)
wrong = []
def ask_again_and_again(name):
    for number in range(10**9):
        asked = f"{name}/{number}"
        with engine.connect() as connection:
            [(answer,)] = db.rows(connection, f"SELECT '{asked}' FROM pg_sleep(0.002)", {})
        if answer != asked:
            wrong.append((asked, answer))
def watched(name):
    while True:
        try:
            ask_again_and_again(name)
        except (sqlalchemy.exc.SQLAlchemyError, TimeoutError) as error:
            wrong.append(repr(error))
crowd = [gevent.spawn(watched, name) for name in range(4)]
for name in range(4, 204):
    gevent.sleep(random.random() / 100)
    victim = random.randrange(len(crowd))
    crowd[victim].kill()
    crowd[victim] = gevent.spawn(watched, name)
gevent.killall(crowd)
print(wrong, engine.pool.checkedout(), [ask(f"SELECT {number}") for number in range(4)])
"""
    assert run(server.url, program) == "[] 0 [0, 1, 2, 3]"


def test_a_limit_ends_the_waiting_and_the_connection(server: Server) -> None:
    program = """
before = ask("SELECT pg_backend_pid()")
try:
    with patience.within(0.2):
        ask("SELECT pg_sleep(3)")
except TimeoutError:
    print(ask("SELECT pg_backend_pid()") != before, engine.pool.checkedout())
"""
    assert run(server.url, program) == "True 0"


def test_a_connection_that_the_server_has_closed_is_not_lent(app: flask.Flask) -> None:
    """Not even for what is never tried twice."""
    with db.engine().connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with postgres.connect(db.engine().url.render_as_string(hide_password=False)) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    def find_pid(connection: sqlalchemy.Connection) -> int:
        found: int = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        return found

    assert db.at_once(find_pid) != pid


class Goodbye(Relay):
    """A way to a server that closes each connection once somebody has signed in."""

    said = False

    def _pass_on(self, number: int, source: socket.socket, target: socket.socket) -> None:
        while received := source.recv(65536):
            target.sendall(received)
            if self.said and received.endswith(READY):
                break
        target.shutdown(socket.SHUT_RDWR)


def test_a_server_that_closes_what_it_has_just_opened_is_away(server: Server) -> None:
    relay = Goodbye(server.port)
    engine = db.make_engine(f"postgresql+psycopg://belfry@127.0.0.1:{relay.port}/belfry", 2)
    with contextlib.closing(relay), contextlib.ExitStack() as stack:
        stack.callback(engine.dispose)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        engine.dispose()
        relay.said = True
        for _ in range(3):
            with pytest.raises(sqlalchemy.exc.OperationalError) as raised, engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
            assert comeback.is_away(raised.value)


def test_a_transaction_that_was_forgotten_is_ended_by_the_server_and_worth_another_try(app: flask.Flask) -> None:
    """It would keep the server from cleaning up behind everybody."""
    with db.engine().connect() as connection:
        setting = "SHOW idle_in_transaction_session_timeout"
        assert connection.exec_driver_sql(setting).scalar_one() == "10s"
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '20ms'")
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()

        def is_gone() -> bool:
            with db.engine().connect() as other:
                count = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
                return bool(other.exec_driver_sql(count, (pid,)).scalar_one())

        wait_until(is_gone, "the server has ended the session")
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            connection.exec_driver_sql("SELECT 1")
        connection.invalidate()

    with app.test_request_context():
        answer = errors.answer_database_trouble(caught.value)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


@pytest.mark.parametrize("state", ["53100", "53300", "57P01", "57P03", "58030", "XX000", "XX001", "25006"])
def test_the_servers_own_trouble_is_worth_another_try(app: flask.Flask, state: str) -> None:
    raise_it = f"DO $$ BEGIN RAISE SQLSTATE '{state}' USING MESSAGE = 'trouble'; END $$"
    with db.engine().connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        connection.exec_driver_sql(raise_it)

    with app.test_request_context():
        assert errors.answer_database_trouble(caught.value).status_code == 503


@pytest.mark.parametrize("error", [db.UncertainCommit("?"), db.LostRace("?"), sqlalchemy.exc.TimeoutError("?")])
def test_so_is_what_nobody_knows_the_outcome_of(app: flask.Flask, error: sqlalchemy.exc.SQLAlchemyError) -> None:
    with app.test_request_context():
        answer = errors.answer_database_trouble(error)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_a_mistake_of_ours_is_not(app: flask.Flask) -> None:
    with db.engine().connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        connection.exec_driver_sql("SELECT nothing FROM nowhere")

    with app.test_request_context():
        assert errors.answer_database_trouble(caught.value).status_code == 500


def test_notices_that_are_lost_on_the_way_without_a_word_are_missed_for_seconds_only(server: Server) -> None:
    """Between the service and the server something forgot their connections, and still acknowledges what is sent."""
    relay = Relay(server.port)
    ways = {"CHANGES_DATABASE_URL": f"postgresql://belfry@127.0.0.1:{relay.port}/belfry", "FAST_PATH": "1"}
    service = Service(server.url, WEB_CONCURRENCY="2", POLL_LIMIT="1000000 per minute", **ways)
    with contextlib.ExitStack() as stack:
        stack.callback(relay.close)
        stack.callback(service.stop)
        service.start()
        service.add_user("ada")
        host = WireHost(service.url, make_key(service.database_url))
        cookie = sign_in(service, "ada")
        bells: list[Bell] = []

        def both_listen() -> bool:  # each does once it is polled, and nobody can choose between them
            bells.append(stack.enter_context(contextlib.closing(Bell(service, cookie))))
            bells[-1].poll()
            return len(query(service.database_url, LISTENERS)) == 2

        wait_until(both_listen, "both workers listen")
        tag = bells[0].poll().headers["ETag"]
        wait_until(lambda: all(bell.poll(tag).status == 304 for bell in bells), "nothing is new")

        relay.lose_all()
        began = time.monotonic()
        assert host.call("POST", "/events", {"type": "x", "title": "y", "recipients": ["ada"]}).status == 201

        wait_until(lambda: all(bell.poll(tag).status == 200 for bell in bells), "every worker has noticed", 10)
        assert time.monotonic() - began < LATE
        wait_until(lambda: len(query(service.database_url, LISTENERS)) == 4, "both workers listen again", LATE)
