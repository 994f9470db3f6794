"""A real Redis for tests, to be killed, stopped in its tracks, emptied and started anew."""

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import redis

from tests.programs import find
from tests.service import free_port, wait_until

PASSWORD = "a-password-of-Redis"


class RedisServer:
    """A Redis that keeps nothing on disk."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", ""]
        self.process = subprocess.Popen(
            [find("redis-server"), *options, "--dir", self.folder], stdout=subprocess.DEVNULL
        )
        wait_until(self.answers, "Redis answers")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def hang(self) -> None:
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def ask(self, *words: str) -> object:
        """What a command of Redis answers."""
        with redis.Redis.from_url(self.uri) as client:
            return client.execute_command(*words)


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="belfry-redis-") as folder:
        server = RedisServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()
