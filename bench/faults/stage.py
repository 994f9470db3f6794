"""Where it happens: nginx, gunicorn with its workers, PostgreSQL and Redis, each of them ours to hurt."""

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import redis

from app import db, keys
from bench import data, ours
from bench.faults.people import Reader, Sender
from bench.faults.wire import Address
from tests import programs
from tests.crashes import workers
from tests.proxy import Proxy, nginx
from tests.servers import Server, running_server
from tests.service import Service, free_port, wait_until

DISK = 192  # megabytes: the whole run fits, and filling it takes no time
CONNECTIONS = 40  # that PostgreSQL lets in
SETTINGS = {
    "SECRET_KEY": data.SECRET_KEY,
    "WEB_CONCURRENCY": "2",
    # Counted as ever, but never reached: these few readers stand for many.
    "POLL_LIMIT": "1000000 per minute",
    "FAST_PATH": "1",
    "LOG_LEVEL": "warning",
}


class Redis:
    """A Redis of our own, which keeps nothing on disk: after a restart it is empty."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = [programs.find("redis-server"), *options, "--logfile", os.devnull, "--dir", "/"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self.answers, "Redis answers")

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port, socket_timeout=1) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)


class Stage(NamedTuple):
    """Everything that runs. `front` is nginx, where people come in, `own` where gunicorn itself listens."""

    postgres: Server
    redis: Redis
    service: Service
    proxy: Proxy
    front: Address
    own: Address

    def readers(self, count: int) -> list[Reader]:
        """As many new people with an empty inbox, each signed in."""
        app = self.service.operator
        subjects = [f"reader-{secrets.token_hex(6)}" for _ in range(count)]
        with self.postgres.connect() as connection:
            made = connection.execute(
                "INSERT INTO users (subject) SELECT unnest(%s::text[]) RETURNING id, subject", (subjects,)
            ).fetchall()
        cookies = [ours.session_cookie(app, int(str(user_id))) for user_id, _ in made]
        with app.app_context():
            db.engine().dispose()  # its connections would not outlive a fault, and the next call would find them dead
        return [Reader(self.front, str(subject), cookie) for (_, subject), cookie in zip(made, cookies, strict=True)]

    def senders(self, count: int, readers: Sequence[Reader]) -> list[Sender]:
        """As many hosts, each with a key of its own, who write to these readers."""
        with self.service.operator.app_context():
            made = [db.write(keys.make, f"host {number}", ["publish"]) for number in range(count)]
            db.engine().dispose()
        return [Sender(self.front, key, [reader.subject for reader in readers]) for key in made]

    def kill_workers(self, most: int | None = None) -> None:
        """As the kernel does when memory runs out: so many of gunicorn's workers, or all of them."""
        for pid in workers(self.service)[:most]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal_gunicorn(self, number: int) -> None:
        assert self.service.process is not None
        self.service.process.send_signal(number)

    def renew_gunicorn(self) -> None:
        """A new release takes over the socket of the running one, which then goes."""
        former, before = self.service.process, set(workers(self.service))
        assert former is not None
        former.send_signal(signal.SIGUSR2)
        [later] = wait_until(lambda: set(workers(self.service)) - before, "another gunicorn has been started")
        self.service.process = psutil.Process(later)  # type: ignore[assignment]
        former.wait(timeout=30)

    def cut_notices(self) -> None:
        """Ends every connection on which a worker hears of changes."""
        with self.postgres.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")


@contextlib.contextmanager
def set_up(**settings: str) -> Iterator[Stage]:
    """A stage for as long as it is needed; nothing of it is left."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_server(DISK, CONNECTIONS))
        redis_server = Redis()
        stack.callback(redis_server.kill)
        redis_server.start()
        port = free_port()
        here = {
            "PUBLIC_URL": f"https://localhost:{port}",
            "TRUSTED_PROXIES": "1",
            "RATELIMIT_STORAGE_URI": redis_server.url,
        }
        service = Service(server.url, **{**SETTINGS, **here, **settings})
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="belfry-faults-"))
        service.log = Path(folder) / "log"  # thousands of lines, which say what the table says
        stack.callback(service.stop)
        service.start()
        proxy = stack.enter_context(nginx(service.port, port))
        yield Stage(server, redis_server, service, proxy, Address(port, proxy.context), Address(service.port))
