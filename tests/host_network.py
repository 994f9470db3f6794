"""A host beside the real service: its API key, its people's inboxes, and a network between the two that fails."""

import contextlib
import http.client
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import sqlalchemy

from app import keys, tickets
from tests.service import Service
from tests.web import Browser

T = TypeVar("T")


def on(service: Service, function: Callable[..., T], *arguments: Any) -> T:
    """What a function of ours does in a transaction on the service's database, without the start of a command."""
    engine = sqlalchemy.create_engine(service.database_url)
    try:
        with engine.begin() as connection:
            return function(connection, *arguments)
    finally:
        engine.dispose()


def new_key(service: Service, *scopes: str) -> str:
    return on(service, keys.make, "host", list(scopes or keys.SCOPES))


def signed_in(service: Service, subject: str) -> Browser:
    """The browser of somebody who followed a sign-in link."""
    browser = Browser(service.url)
    browser.submit(f"/tickets/{on(service, tickets.make_ticket, subject, 60)}")
    return browser


def titles(service: Service, subject: str) -> list[str]:
    """What is unread in somebody's inbox, newest first; nothing for who is unknown."""
    query = sqlalchemy.text("""
        SELECT title FROM notifications JOIN events ON events.id = event_id JOIN users ON users.id = user_id
        WHERE subject = :subject AND read_at IS NULL AND archived_at IS NULL ORDER BY notifications.id DESC
    """)
    return on(service, lambda connection: list(connection.execute(query, {"subject": subject}).scalars()))


class Received(NamedTuple):
    """A request that came through the network."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Trouble(NamedTuple):
    """What the network does with one request."""

    status: int = 0  # answered with this status, unless it is 0
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    body: bytes = b""
    delivered: bool = False  # whether the service got it before the connection was cut
    missing: int = 0  # bytes that the answer announces and does not have


CUT = Trouble()
CUT_AFTER_DELIVERY = Trouble(delivered=True)


class Network:
    """A real server on loopback that does what `troubles` say, one for each request, and then only forwards."""

    def __init__(self, service_url: str) -> None:
        self.service = urllib.parse.urlsplit(service_url)
        self.troubles: list[Trouble] = []
        self.received: list[Received] = []
        network = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                network.handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the library's own names

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.received.append(Received(handler.command, handler.path, dict(handler.headers), body))
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is None or trouble.delivered:
            status, headers, content = self.forward(self.received[-1])
            if trouble is None:
                _answer(handler, status, headers, content)
        elif trouble.status:
            _answer(handler, trouble.status, trouble.headers, trouble.body, trouble.missing)
        handler.close_connection = True

    def forward(self, request: Received) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.service.netloc, timeout=30)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            answer = connection.getresponse()
            names = ("Content-Type", "Retry-After", "Idempotent-Replayed")
            return (
                answer.status,
                {name: answer.headers[name] for name in names if name in answer.headers},
                answer.read(),
            )
        finally:
            connection.close()


def _answer(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, missing: int = 0
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) + missing))
    handler.end_headers()
    handler.wfile.write(body)


@contextlib.contextmanager
def network(service_url: str) -> Iterator[Network]:
    between = Network(service_url)
    thread = Thread(target=between.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield between
    finally:
        between.server.shutdown()
        thread.join()
        between.server.server_close()
