"""The programs around a measurement: PostgreSQL with a database for each contestant, and gunicorn for one at a time."""

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import sqlalchemy

from app import embedded
from bench import data

START_SECONDS = 30


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The server in BENCH_DATABASE_URL, where databases may be made, or a private one with all its crash safety on."""
    given = os.environ.get("BENCH_DATABASE_URL")
    if given:
        yield given.replace("postgresql://", "postgresql+psycopg://")
        return
    with (
        tempfile.TemporaryDirectory(prefix="belfry-bench-", ignore_cleanup_errors=True) as folder,
        embedded.running(Path(folder) / "postgres") as url,
    ):
        yield url


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """The address of a new, empty database that goes at the end."""
    name = f"belfry_bench_{secrets.token_hex(6)}"
    ask(server, f'CREATE DATABASE "{name}" TEMPLATE template0 ENCODING "UTF8"')
    try:
        yield sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        ask(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def ask(url: str, statement: str) -> str:
    """What PostgreSQL answers: the first value, or the status of a statement without one."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        row = cursor.fetchone() if cursor.description else None
        return str(row[0]) if row else str(cursor.statusmessage)


@dataclass(frozen=True)
class Server:
    """A running gunicorn."""

    port: int
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """What its worker has used so far, in user and system time."""
        times = [worker.cpu_times() for worker in psutil.Process(self.process.pid).children()]
        return sum(time.user + time.system for time in times)


@contextlib.contextmanager
def gunicorn(application: str, database_url: str, threads: int) -> Iterator[Server]:
    """One worker that answers; everybody runs under Belfry's own gunicorn.conf.py."""
    port = _free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "SECRET_KEY": data.SECRET_KEY,
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "THREADS": str(threads),
        # The limit is counted as ever, but is never reached: 1,000 users would soon be through with 100 a minute each.
        "POLL_LIMIT": "1000000 per minute",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "--log-level", "warning", application]
    process = subprocess.Popen(command, cwd=data.ROOT, env=environment)
    try:
        _wait_for(port, process)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
            client.request("GET", "/")
            client.getresponse()
            return
        time.sleep(0.05)
    sys.exit("bench: gunicorn did not start; its reason is above")
