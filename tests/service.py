"""The real service for tests: gunicorn with its workers on a database of its own, and what its people do with it."""

import contextlib
import functools
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask

from app import create_app, db, people, publishing, settings, tickets
from app.events import Event
from app.publishing import Order
from app.settings import Settings
from app.validation import check
from tests import postgres


class Service:
    """A running service. `url` is where it listens; `flask` runs an operator's command on its database."""

    config = "gunicorn.conf.py"
    application = "wsgi:app"
    log: Path | None = None  # where all that it logs goes; only what is wrong, and to the terminal, for None

    def __init__(self, database_url: str, **settings: str) -> None:
        self.database_url = database_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = postgres.environment(database_url, PORT=str(self.port), **settings)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # As operators start it: by `-m` it could not replace itself at USR2, for gunicorn's own `http` hides Python's.
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        quiet = [] if self.log else ["--log-level", "warning"]
        self.environment.setdefault("LOG_LEVEL", "info" if self.log else "warning")
        command = [gunicorn, "--config", self.config, *quiet, self.application]
        with self.log.open("a") if self.log else contextlib.nullcontext() as log:
            self.process = subprocess.Popen(command, cwd=postgres.ROOT, env=self.environment, stderr=log)
        wait_until(lambda: answers(f"{self.url}/login"), "gunicorn answers")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)
            self.process = None
        if "operator" in self.__dict__:
            with self.operator.app_context():
                db.engine().dispose()

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
        """Publishes an event, as `flask send` does but without the half second that starting it takes."""
        self.send_all(*recipients, events=[{"title": title, "type": type, **fields}])

    def send_all(self, *recipients: str, events: Iterable[dict[str, Any]]) -> None:
        """Publishes many events, oldest first."""
        with self.operator.app_context():
            for event in events:
                checked = check(Event, {"type": "comment", **event})
                db.write(publishing.publish, [Order(checked, recipients)], timedelta(days=30))

    def add_user(self, subject: str, password: str | None = None) -> None:
        with self.operator.app_context():
            db.write(people.save_user, subject, None, password)

    def link(self, subject: str) -> str:
        """A one-use sign-in link."""
        with self.operator.app_context():
            return f"{settings.current().own_url}/tickets/{db.write(tickets.make_ticket, subject, 600, None)}"

    @functools.cached_property
    def operator(self) -> Flask:
        """The app on the service's database, for what its people do in the middle of a test."""
        known = {name: self.environment.get(name.upper()) for name in Settings.model_fields}
        return create_app(**{name: value for name, value in known.items() if value is not None})


@contextlib.contextmanager
def running_service(
    config: str = Service.config, log: Path | None = None, application: str = Service.application, **settings: str
) -> Iterator[Service]:
    """A service with a database of its own, for as long as it is needed."""
    with postgres.database() as url:
        service = Service(url, **settings)
        service.config, service.log, service.application = config, log, application
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
