"""The real service for tests: gunicorn with its workers on a database of its own, and what its people do with it."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from tests import postgres


class Service:
    """A running service. `url` is where it listens; `flask` runs an operator's command on its database."""

    def __init__(self, database_url: str, **settings: str) -> None:
        self.database_url = database_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = postgres.environment(database_url, PORT=str(self.port), **settings)
        self.sent = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "--log-level", "warning", "wsgi:app"]
        self.process = subprocess.Popen(command, cwd=postgres.ROOT, env=self.environment)
        wait_until(lambda: answers(f"{self.url}/login"), "gunicorn answers")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
            self.process = None

    def flask(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """What `flask …` answers in a terminal on this service's database."""
        return subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=postgres.ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def send(self, *recipients: str, title: str, type: str = "comment", **fields: Any) -> None:
        """Publishes an event as a line of a file, the way that takes every field."""
        line = json.dumps({"recipients": recipients, "title": title, "type": type, **fields})
        # Equal lines in two files are one event: a blank at the end makes another line of it.
        self.sent += 1
        done = self.flask("send", "--file", "-", stdin=line + " " * self.sent + "\n")
        assert done.returncode == 0, done.stderr

    def add_user(self, subject: str, password: str | None = None) -> None:
        more = ["--password", password] if password else []
        done = self.flask("user", "add", subject, *more)
        assert done.returncode == 0, done.stderr

    def link(self, subject: str) -> str:
        """A one-use sign-in link."""
        done = self.flask("user", "link", subject)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextlib.contextmanager
def running_service(**settings: str) -> Iterator[Service]:
    """A service with a database of its own, for as long as it is needed."""
    with postgres.database() as url:
        service = Service(url, **settings)
        try:
            service.start()
            yield service
        finally:
            service.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """What the condition gives once it gives something; fails with `what` if that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)
