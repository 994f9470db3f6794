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
OURS, GTHREAD = "gunicorn.conf.py", "bench/gthread_conf.py"
RIVALS_PYTHON = data.ROOT / ".venv-bench/bin/python"


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
    """A running service: gunicorn with its workers, or uvicorn, which is its own."""

    port: int
    process: subprocess.Popen[bytes]

    def workers(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return process.children() or [process]

    def cpu_seconds(self) -> float:
        """What its workers have used so far, in user and system time."""
        times = [worker.cpu_times() for worker in self.workers()]
        return sum(time.user + time.system for time in times)

    def memory(self) -> list[int]:
        """Each worker's own part of the memory in bytes: what several share is divided among them (PSS)."""
        files = [Path(f"/proc/{worker.pid}/smaps_rollup").read_text() for worker in self.workers()]
        return [int(line.split()[1]) * 1024 for text in files for line in text.splitlines() if line.startswith("Pss:")]


@contextlib.contextmanager
def gunicorn(
    application: str, database_url: str, threads: int, workers: int = 1, config: str = OURS, **settings: str
) -> Iterator[Server]:
    """Workers that answer; everybody runs under Belfry's own gunicorn.conf.py unless told."""
    command = [sys.executable, "-m", "gunicorn", "--config", config, "--log-level", "warning", application]
    with _running(command, database_url, WEB_CONCURRENCY=str(workers), THREADS=str(threads), **settings) as server:
        yield server


@contextlib.contextmanager
def uvicorn(application: str, database_url: str) -> Iterator[Server]:
    """One worker as uvicorn's documentation has it for speed, out of an environment of its own."""
    tuned = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    port = _free_port()
    command = [str(RIVALS_PYTHON), "-m", "uvicorn", application, "--port", str(port), *tuned]
    with _running(command, database_url, port=port) as server:
        yield server


@contextlib.contextmanager
def _running(command: list[str], database_url: str, port: int | None = None, **settings: str) -> Iterator[Server]:
    port = port or _free_port()
    # The limit is counted as ever, but is never reached: 1,000 users would soon be through with 100 a minute each.
    usual = {"SECRET_KEY": data.SECRET_KEY, "PORT": str(port), "POLL_LIMIT": "1000000 per minute"}
    environment = {**os.environ, "DATABASE_URL": database_url, **usual, **settings}
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
    sys.exit("bench: the server did not start; its reason is above")
