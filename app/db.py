"""The one way to the database: `read` asks a question, `write` makes a change in one transaction.

Both take a function whose first parameter is the connection, and give back what it gives back.
"""

import atexit
import contextlib
import random
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import flask
import orjson
import psycopg
import sqlalchemy
import sqlalchemy.exc
from sqlalchemy import Connection, Engine, TextClause
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from app import comeback, embedded, metrics, patience
from app.settings import Settings

# Serialization failure, deadlock, lock not to be had in time, and a row gone or come between two statements:
# somebody else was first, and trying again sees what they did.
LOST_RACES = {"40001", "40P01", "55P03", "23503", "23505"}
TRIES = 3

# Every statement has a deadline of its own, so that trouble with the database never holds a connection for long.
# By itself the planner takes reading pages out of order to be as slow as on a disk that turns, and so sorts 10,000
# unread rows rather than read the newest from their index.
SESSION_OPTIONS = (
    "-c timezone=UTC -c statement_timeout=5s -c lock_timeout=1s -c idle_in_transaction_session_timeout=10s -c jit=off"
    " -c random_page_cost=1.1 -c default_transaction_isolation=read\\ committed"
)


# What nobody acknowledges for so long is lost, and the connection with it: a firewall forgot it, or a machine is gone.
# In a database without an encoding every text would come as bytes; doctor tells of it.
CONNECT_ARGUMENTS: dict[str, Any] = {"connect_timeout": 3, "tcp_user_timeout": 2500, "client_encoding": "utf8"}
# Seconds until a request gives up that finds all connections lent. It may have waited for the server to come back
# before, and within three seconds everybody is promised an answer.
POOL_SECONDS = 0.75

# For commands that read whole tables, on a connection of `write`: for that transaction only. In a worker every
# statement is cut off after a few seconds (app/patience.py).
LONG_DEADLINE = sqlalchemy.text("SET LOCAL statement_timeout = '10min'")


DIALECT = PGDialect_psycopg(paramstyle="pyformat")  # type: ignore[no-untyped-call]


# Each poll that is not answered from memory passes by here.
note_statement, note_wait = metrics.STATEMENT_SECONDS.of().note, metrics.WAIT_SECONDS.of().note


class Cursor(psycopg.Cursor[Any]):
    """The driver's, which takes the time of each statement: beneath both ways to the database, and cheap enough."""

    def execute(self, *arguments: Any, **options: Any) -> "Cursor":
        started = time.perf_counter()
        try:
            return super().execute(*arguments, **options)
        finally:
            note_statement(time.perf_counter() - started)


class LostRace(sqlalchemy.exc.TimeoutError):
    """Somebody else's change came between two statements: the whole transaction is to be tried again."""


class UncertainCommit(sqlalchemy.exc.TimeoutError):
    """The connection went while committing. Nobody knows whether the change took place, so it is not done twice."""


# Where a connection keeps what `after_commit` was given.
LATER = "after the commit"

P = ParamSpec("P")
T = TypeVar("T")


def init_app(app: flask.Flask, settings: Settings) -> None:
    database = app.extensions["database"] = Database(settings, Path(app.instance_path) / "postgres")
    metrics.IN_USE.ask = database.connections_in_use


def read(question: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `question` finds, each of its statements on its own: no BEGIN and COMMIT for a poll to pay."""

    return _with_tries(lambda: at_once(question, *args, **kwargs))


def write(change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `change` gives back once its one transaction is committed; whatever it raises undoes all of it.

    It is run again where a race was lost or a pooled connection turned out to be dead, so everything that it
    does must be done through its connection.
    """

    def change_and_commit() -> T:
        with transaction() as connection:
            return change(connection, *args, **kwargs)

    return _with_tries(change_and_commit)


@contextlib.contextmanager
def transaction() -> Iterator[Connection]:
    """One transaction, committed when its block ends; what was left to `after_commit` is done then."""
    with lent(engine()) as connection, connection.begin() as begun:
        later: list[Callable[[], None]] = []
        about = connection.info  # kept, for a connection that was lost says nothing of itself
        about[LATER] = later
        try:
            yield connection
        finally:
            about.pop(LATER, None)
        try:
            _commit(begun)
        finally:  # of an uncertain commit too: it may have taken place
            for act in later:
                act()


def after_commit(connection: Connection, act: Callable[[], None]) -> None:
    """Leaves something to be done once the transaction of `connection` is committed; never if it is undone.

    For connections of `write` and `transaction` only: elsewhere nobody would do it.
    """
    connection.info[LATER].append(act)


def at_once(question: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `read`, for a single statement that changes something: committed by itself, and never done twice."""
    with lent(_database().engine) as connection:
        return question(connection, *args, **kwargs)


def lent(lender: Engine) -> Connection:
    """A connection of the pool's, after waiting for one that is free if need be; who closes it gives it back."""
    started = time.perf_counter()
    try:
        return lender.connect()
    finally:
        note_wait(time.perf_counter() - started)


def for_driver(statement: TextClause) -> str:
    """The statement as `rows` takes it."""
    return str(statement.compile(dialect=DIALECT))


def rows(connection: Connection, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What a question finds, straight from the driver: for what every request asks, at a third of the price.

    Raises what SQLAlchemy raises, which takes over where the connection is dead: it knows what else that means.
    """
    driver = cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)
    try:
        return driver.execute(statement.encode(), parameters).fetchall()
    except psycopg.Error as error:
        if driver.closed:
            connection.exec_driver_sql(statement, parameters)
        raise sqlalchemy.exc.DBAPIError.instance(
            statement, None, error, psycopg.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


def engine() -> Engine:
    """The engine of this process for transactions: for migrations and checks, all else goes through `read`, `write`."""
    return _database().transactions


def _database() -> "Database":
    database: Database = flask.current_app.extensions["database"]
    return database


class Database:
    """The engine, made when first needed: after gunicorn's fork, and not at all for a command that asks nothing."""

    def __init__(self, settings: Settings, private_folder: Path) -> None:
        self.settings = settings
        self.private_folder = private_folder
        self.comeback = comeback.Comeback(lambda: lent(self.engine).close(), _has_just_gone)

    @cached_property
    def engine(self) -> Engine:
        return make_engine(self.settings.database_url or self._private_url(), self.settings.threads)

    def connections_in_use(self) -> int:
        made = self.__dict__.get("engine")  # asking for it would make it
        return made.pool.checkedout() if made else 0

    @cached_property
    def transactions(self) -> Engine:
        """The same engine and the same connections, in transactions while they are lent."""
        return self.engine.execution_options(isolation_level="READ COMMITTED")

    def _private_url(self) -> str:
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        return stack.enter_context(embedded.running(self.private_folder))


def make_engine(url: str, threads: int) -> Engine:
    """An engine with so many connections and one more, in read committed whatever the server's default is.

    Each statement commits by itself unless told otherwise: a poll is one question, and to make its connection another
    kind and back would ask PostgreSQL three more.
    """
    engine = sqlalchemy.create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_size=threads,
        max_overflow=1,
        pool_timeout=POOL_SECONDS,
        pool_recycle=1800,
        pool_use_lifo=True,
        json_deserializer=orjson.loads,
        hide_parameters=True,  # a logged statement says nothing of whom it was for
        connect_args={**CONNECT_ARGUMENTS, "options": SESSION_OPTIONS, "cursor_factory": Cursor},
    )
    patience.watch(engine, patience.Watch())
    return engine


def _commit(transaction: sqlalchemy.Transaction) -> None:
    try:
        transaction.commit()
    except sqlalchemy.exc.OperationalError as error:
        raise UncertainCommit("the connection was lost while committing") from error


def _with_tries(work: Callable[[], T]) -> T:
    server, over = _database().comeback, time.monotonic() + comeback.RIDE_OVER
    attempt = 1
    while True:
        try:
            result = work()
        except (LostRace, sqlalchemy.exc.DBAPIError) as error:
            is_back = _has_just_gone(error) and server.wait(over)
            if is_back and not _was_under_way(error):
                continue
            if not _is_worth_another_try(error):
                raise
            if attempt == TRIES:
                raise LostRace(f"tried {TRIES} times in vain") from error
        else:
            if server.since is not None:
                server.since = None
            return result
        time.sleep(random.uniform(0, 0.02 * attempt))
        attempt += 1


def _has_just_gone(error: Exception) -> bool:
    return comeback.is_away(error) and patience.SILENT not in str(error)  # whoever is silent was waited for already


def _was_under_way(error: Exception) -> bool:
    """Whether the server went while it worked for us. That may be why it went, so such tries are counted."""
    return isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated


def _is_worth_another_try(error: LostRace | sqlalchemy.exc.DBAPIError) -> bool:
    if isinstance(error, LostRace):
        return True
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in LOST_RACES
