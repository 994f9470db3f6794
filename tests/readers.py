"""Readers and a sender who go on through whatever is done to the service, and keep account of their answers."""

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.hosts import make_key
from tests.proxy import Proxy
from tests.service import Service, wait_until
from tests.web import Answer


class Caller:
    """One connection to the proxy that is kept, as browsers keep theirs."""

    def __init__(self, proxy: Proxy, source: str = "127.0.0.1", **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection = http.client.HTTPSConnection(
            "localhost", proxy.port, timeout=30, context=proxy.context, source_address=(source, 0)
        )

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        named = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            named["Content-Type"] = "application/json"
        self.connection.request(method, path, None if body is None else json.dumps(body), named)
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def close(self) -> None:
        self.connection.close()


class Crowd:
    """What became of everybody's calls: how many of each kind came back well, all that did not, how long polls took."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self.seconds: list[float] = []
        self._over = threading.Event()

    def poll(self, proxy: Proxy, cookie: str, pause: float) -> None:
        """Polls on a connection of its own: with the tag, and every fifth time as who has just come."""
        tag = ""
        with contextlib.closing(Caller(proxy, Cookie=cookie)) as caller:
            while not self._over.wait(pause):
                asked = {"If_None_Match": tag} if tag and sum(self.done.values()) % 5 else {}
                begun = time.monotonic()
                answer = self._call(caller, (200, 304), "GET", "/notifications/unread", **asked)
                if answer is not None:
                    self.seconds.append(time.monotonic() - begun)
                    tag = answer.headers["ETag"]

    def publish(self, proxy: Proxy, key: str, pause: float) -> None:
        """Publishes one event after the other; what fails is not repeated."""
        with contextlib.closing(Caller(proxy, Authorization=f"Bearer {key}")) as caller:
            while not self._over.wait(pause):
                event = {"type": "comment", "title": "Something", "recipients": ["ada"]}
                self._call(caller, (201,), "POST", "/api/v1/events", event)

    def _call(self, caller: Caller, good: tuple[int, ...], method: str, path: str, *rest: Any, **headers: str) -> Any:
        try:
            answer = caller.call(method, path, *rest, **headers)
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(f"{method} {path}: {error!r}")
            caller.connection.close()
            return None
        if answer.status in good:
            self.done[method] += 1
            return answer
        self.failed.append(f"{method} {path}: {answer.status} {answer.body!r}")
        return None

    def wait_for(self, **more: int) -> None:
        """Until so many more calls have come back well: `wait_for(GET=100)`."""
        targets = {method: self.done[method] + count for method, count in more.items()}
        reached = lambda: all(self.done[method] >= count for method, count in targets.items())  # noqa: E731
        wait_until(reached, f"{targets}, with {self.failed[:3]} failed", seconds=60)

    def slowest(self, share: float = 0.99) -> float:
        """The seconds within which this share of the polls came back."""
        return sorted(self.seconds)[int((len(self.seconds) - 1) * share)]


@contextlib.contextmanager
def crowd(service: Service, proxy: Proxy, readers: int = 6, senders: int = 1, pause: float = 0.01) -> Iterator[Crowd]:
    """Ada's tabs poll and somebody publishes, all through nginx, for as long as it is needed."""
    gathered = Crowd()
    cookie, key = sign_in(service, "ada"), make_key(service.database_url)
    work = [(gathered.poll, cookie, pause)] * readers + [(gathered.publish, key, 10 * pause)] * senders
    with ThreadPoolExecutor(len(work)) as pool:
        lives = [pool.submit(function, proxy, credential, seconds) for function, credential, seconds in work]
        try:
            gathered.wait_for(GET=20)
            yield gathered
        finally:
            gathered._over.set()
        for life in lives:
            life.result()


def sign_in(service: Service, subject: str) -> str:
    """The cookie of somebody who followed a sign-in link."""
    service.add_user(subject)
    path = service.link(subject).split("/tickets/")[1]
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        connection.request("POST", f"/tickets/{path}", b"", {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        assert answer.status == 303, answer.read()
        return answer.headers["Set-Cookie"].split(";")[0]
