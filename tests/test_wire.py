"""What bytes do to the service: requests that two programs could read differently, slow clients, and a stop."""

import contextlib
import http.client
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from app.request_head import MOST_FIELDS, parse
from tests import postgres
from tests.hosts import WireHost, make_key
from tests.service import Service, running_service, wait_until
from tests.web import Browser

HOST = b"Host: localhost\r\n"
NEXT = b"GET /static/js/poller.js HTTP/1.1\r\n" + HOST + b"\r\n"


def fields(*lines: bytes, first: bytes = b"POST /notifications/read HTTP/1.1", host: bytes = HOST.strip()) -> bytes:
    return b"\r\n".join([first, host, *lines, b"", b""])


# Each is understood in one way by one program and in another by the next (RFC 9112 section 11.2). Behind each stands
# what a proxy might take for a body, and this service for a request of somebody else.
AMBIGUOUS = {
    "a length and chunks": (400, fields(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "two lengths": (400, fields(b"Content-Length: 0", b"Content-Length: 5")),
    "the same length twice": (400, fields(b"Content-Length: 0", b"Content-Length: 0")),
    "lengths in a list": (400, fields(b"Content-Length: 0, 0")),
    "a length with a sign": (400, fields(b"Content-Length: +4")),
    "a length with an underscore": (400, fields(b"Content-Length: 1_0")),
    "a length in hexadecimal": (400, fields(b"Content-Length: 0x1")),
    "a negative length": (400, fields(b"Content-Length: -1")),
    "an empty length": (400, fields(b"Content-Length:")),
    "a length beyond all numbers": (400, fields(b"Content-Length: " + b"9" * 40)),
    "a coding nobody knows": (501, fields(b"Transfer-Encoding: xchunked")),
    "chunks twice": (400, fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    "chunks after another coding": (501, fields(b"Transfer-Encoding: gzip, chunked")),
    "chunks before another coding": (501, fields(b"Transfer-Encoding: chunked, identity")),
    "chunks with a tab": (400, fields(b"Transfer-Encoding:\x0bchunked")),
    "chunks in HTTP/1.0": (400, fields(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0")),
    "a blank before the colon": (400, fields(b"Content-Length : 0")),
    "a field without a colon": (400, fields(b"Content-Length 0")),
    "a field without a name": (400, fields(b": 0")),
    "a folded field": (400, fields(b"X: a", b" b")),
    "a field first of all folded": (400, fields(host=b" " + HOST.strip())),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "a target of another host": (400, fields(first=b"GET http://other.example/ HTTP/1.1")),
    "two hosts": (400, fields(b"Host: other.example")),
    "two types": (400, fields(b"Content-Type: application/json", b"Content-Type: text/plain")),
    "two authorizations": (400, fields(b"Authorization: Bearer a", b"Authorization: Bearer b")),
    "a bare LF": (400, fields(b"X: a\nContent-Length: 4")),
    "a bare CR": (400, fields(b"X: a\rContent-Length: 4")),
    "a NUL in a value": (400, fields(b"X: a\x00b")),
    "lines that end with LF alone": (400, b"GET / HTTP/1.1\nHost: localhost\n\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "HTTP/2": (400, b"GET / HTTP/2.0\r\n\r\n"),
    "HTTP/1.10": (400, b"GET / HTTP/1.10\r\n\r\n"),
    "two blanks": (400, b"GET  / HTTP/1.1\r\n\r\n"),
    "a tab instead of a blank": (400, b"GET\t/ HTTP/1.1\r\n\r\n"),
    "a method in small letters": (400, fields(first=b"get / HTTP/1.1")),
    "a target without a slash": (400, fields(first=b"GET notifications HTTP/1.1")),
    "a target with a fragment": (400, fields(first=b"GET /#a HTTP/1.1")),
    "a target that is no ASCII": (400, fields(first=b"GET /\xff HTTP/1.1")),
    "a tunnel": (400, fields(first=b"CONNECT localhost:80 HTTP/1.1")),
    "an expectation of something else": (417, fields(b"Expect: a miracle")),
    "more fields than anybody sends": (431, fields(*[b"X: a"] * MOST_FIELDS)),
    "a field that is too long": (431, fields(b"X: " + b"a" * 9_000)),
    "a target that is too long": (414, fields(first=b"GET /" + b"a" * 9_000 + b" HTTP/1.1")),
}


def connected(service: Service) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30)


def everything(wire: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while received := wire.recv(65536):
            answer += received
    return answer


def one_answer(wire: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(wire)
    response.begin()
    return response.status, response.read()


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(service: Service, name: str) -> None:
    status, request = AMBIGUOUS[name]
    with connected(service) as wire:
        wire.sendall(request + NEXT)
        answer = everything(wire)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert answer.count(b"HTTP/1.1") == 1


BAD_CHUNKS = {
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "a blank before a size": b" 2\r\n{}\r\n0\r\n\r\n",
    "a size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "a size as Python writes it": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a size with an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "a size beyond all numbers": b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n",
    "a size that ends with LF": b"2\n{}\r\n0\r\n\r\n",
    "an LF in an extension": b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "more than it says": b"2\r\n{}}\r\n0\r\n\r\n",
    "endless trailers": b"2\r\n{}\r\n0\r\n" + b"X: a\r\n" * 100 + b"\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks_are_refused_and_nothing_after_them_is_read(service: Service, name: str) -> None:
    head = fields(
        b"Transfer-Encoding: chunked",
        b"Content-Type: application/x-www-form-urlencoded",
        first=b"POST /login HTTP/1.1",  # which reads its body before it looks who is there
    )
    with connected(service) as wire:
        wire.sendall(head + BAD_CHUNKS[name] + NEXT)
        answer = everything(wire)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert answer.count(b"HTTP/1.1") == 1


def test_requests_in_one_packet_are_answered_one_after_the_other(service: Service) -> None:
    with connected(service) as wire:
        wire.sendall(
            b"\r\n"
            + NEXT
            + fields(b"Content-Length: 2")
            + b"{}"
            + fields(b"Connection: close", first=b"GET /login HTTP/1.1")
        )
        statuses = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", everything(wire))]
    assert statuses == [200, 401, 200]


def test_a_client_that_waits_for_leave_gets_it_only_where_its_body_is_wanted(service: Service) -> None:
    ask = [b"Expect: 100-continue", b"Content-Length: 2", b"Content-Type: application/x-www-form-urlencoded"]
    with connected(service) as wire:
        wire.sendall(fields(*ask, b"Sec-Fetch-Site: same-origin", first=b"POST /login HTTP/1.1"))
        assert wire.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"a=")
        assert one_answer(wire)[0] == 401
    with connected(service) as wire:
        wire.sendall(fields(*ask, b"Sec-Fetch-Site: cross-site", first=b"POST /login HTTP/1.1"))
        assert everything(wire).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a%20b%2Fc?d=%20&e", "/a b/c", "d=%20&e"),
        ("http://App.example/a?b", "/a", "b"),
        ("//elsewhere/a", "//elsewhere/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/%ff%C3%A9", "/\xff\xc3\xa9", ""),
    ],
)
def test_a_target_is_read_as_wsgi_wants_it(target: str, path: str, query: str) -> None:
    environ = parse(f"GET {target} HTTP/1.1\r\nHost: app.example".encode()).environ
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["RAW_URI"]) == (
        path,
        query,
        target.removeprefix("http://App.example"),
    )


def test_fields_reach_the_application_joined_and_without_impostors() -> None:
    head = parse(
        b"GET / HTTP/1.1\r\nhost: a\r\nCOOKIE: a=1\r\nCookie: b=2\r\nX-A:\t1 \r\nx-a: 2\r\nX_Forwarded_For: 6.6.6.6\r\n"
        b"Content-Type: text/plain\r\nX-Empty:"
    )
    assert {key: value for key, value in head.environ.items() if key.startswith(("HTTP_", "CONTENT"))} == {
        "HTTP_HOST": "a",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_A": "1,2",
        "CONTENT_TYPE": "text/plain",
        "HTTP_X_EMPTY": "",
    }


@pytest.mark.parametrize(
    ("lines", "is_last"),
    [
        (b"GET / HTTP/1.1", False),
        (b"GET / HTTP/1.1\r\nConnection: Close", True),
        (b"GET / HTTP/1.1\r\nConnection: te, close", True),
        (b"GET / HTTP/1.0", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", False),
    ],
)
def test_who_closes_the_connection(lines: bytes, is_last: bool) -> None:
    assert parse(lines + b"\r\nHost: a").is_last is is_last


def test_a_refused_request_is_one_line_of_the_access_log_whether_or_not_its_sender_waits(tmp_path: Path) -> None:
    log, errors = tmp_path / "access", tmp_path / "errors"
    arguments = f"--access-logfile {log} --access-logformat '%(r)s %(s)s' --capture-output --error-logfile {errors}"
    with running_service(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS=arguments) as service:
        with connected(service) as wire:
            wire.sendall(NEXT + b"GET\r\n\r\n")
            everything(wire)
        for _ in range(5):
            with connected(service) as wire:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
                wire.sendall(b"GET\r\n\r\n")
        with connected(service) as wire:
            wire.sendall(b"GET /%41\r\n\r\n")
            everything(wire)
        wait_until(lambda: log.read_text().count("- - HTTP/1.1 400\n") >= 2, "both are logged")
    assert "GET /static/js/poller.js HTTP/1.1 200\n- - HTTP/1.1 400\n" in log.read_text()
    assert "Traceback" not in errors.read_text()


@pytest.fixture(scope="module")
def impatient() -> Iterator[Service]:
    """One worker with short deadlines for slow clients."""
    with running_service("tests/impatient_conf.py", WEB_CONCURRENCY="1") as service:
        yield service


def test_clients_that_send_nothing_more_hold_up_nobody_and_are_let_go(impatient: Service) -> None:
    with contextlib.ExitStack() as stack:

        def opened(first: bytes) -> list[socket.socket]:
            wires = [stack.enter_context(connected(impatient)) for _ in range(50)]
            for wire in wires:
                wire.sendall(first)
            return wires

        heads = opened(b"GET /login HTTP/1.1\r\nHost: loc")
        bodies = opened(
            fields(b"Content-Length: 9", b"Sec-Fetch-Site: same-origin", first=b"POST /login HTTP/1.1") + b"a="
        )
        idle = opened(b"")
        assert Browser(impatient.url).open("/login").status == 200
        assert {everything(wire).split(b"\r\n")[0] for wire in heads} == {b"HTTP/1.1 408 Request Timeout"}
        assert {everything(wire).split(b" ")[1][:1] for wire in bodies} == {b"4"}
        assert {everything(wire) for wire in idle} == {b""}


def test_bytes_that_come_one_by_one_do_not_move_the_deadline(impatient: Service) -> None:
    with connected(impatient) as wire:
        wire.setblocking(False)

        def is_over() -> bool:
            with contextlib.suppress(OSError):
                wire.send(b"G")
            with contextlib.suppress(BlockingIOError):
                return wire.recv(100).startswith(b"HTTP/1.1 408 ")
            return False

        wait_until(is_over, "the slow head is refused", 5)


def test_a_database_that_hangs_takes_nothing_else_with_it() -> None:
    with (
        running_service(WEB_CONCURRENCY="1", THREADS="1") as service,
        psycopg.connect(service.database_url.replace("+psycopg", "")) as locking,
    ):
        service.add_user("alice")
        browser = Browser(service.url)
        browser.submit(service.link("alice"))
        locking.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        statuses: list[int] = []
        callers = [
            threading.Thread(target=lambda: statuses.append(browser.open("/notifications/unread").status))
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        wait_until(lambda: waiting(locking), "a poll hangs")
        assert Browser(service.url).open("/static/js/poller.js").status == 200
        assert not statuses
        for caller in callers:
            caller.join()
        assert set(statuses) == {503}
        locking.rollback()
        assert browser.open("/notifications/unread").status == 200


def waiting(connection: psycopg.Connection) -> bool:
    found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return bool(found and found[0])


BESIDE = """
from gevent import monkey
monkey.patch_all()
import os, gevent
from app.aside import aside
reader, writer = os.pipe()
gevent.spawn(os.write, writer, b"somebody else")
print(aside(os.read, reader, 20))
"""


def test_long_work_aside_lets_others_work() -> None:
    command = [sys.executable, "-c", BESIDE]
    done = subprocess.run(command, cwd=postgres.ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "b'somebody else'\n", done.stderr


# What takes longest to clean of so many characters, as far as we know.
SLOW_BODY = "<a b/c/d/e/f/g/h/i/j/k/l>" * 149


def test_a_batch_that_takes_long_to_clean_lets_others_work() -> None:
    with running_service(WEB_CONCURRENCY="1") as service:
        service.add_user("alice")
        host = WireHost(service.url, make_key(service.database_url))
        event = {"type": "comment", "title": "Slow", "body": SLOW_BODY, "recipients": ["alice"]}
        over: list[float] = []

        def publish() -> None:
            began = time.monotonic()
            assert host.call("POST", "/events/batch", {"events": [event] * 40}).status == 201
            over.append(time.monotonic() - began)

        publisher = threading.Thread(target=publish)
        publisher.start()
        longest = 0.0
        while not over:
            began = time.monotonic()
            assert Browser(service.url).open("/static/js/poller.js").status == 200
            longest = max(longest, time.monotonic() - began)
        publisher.join()
        assert longest < over[0] / 2


CHUNKS = """
from gevent import monkey
monkey.patch_all()
import gevent, socket, time, types
from app.request_body import Body
from app.worker import _Timely
here, there = socket.socketpair()
there.sendall(b"1\\r\\na\\r\\n" * 1000 + b"0\\r\\n\\r\\n")
handler = types.SimpleNamespace(rfile=here.makefile("rb"), body_deadline=time.monotonic() + 20)
body = Body(_Timely(handler), 0, True, lambda: None)
gevent.spawn(print, "somebody else")
print(len(body.readall()))
"""


def test_a_body_of_many_chunks_that_are_there_already_lets_others_work() -> None:
    command = [sys.executable, "-c", CHUNKS]
    done = subprocess.run(command, cwd=postgres.ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "somebody else\n1000\n", done.stderr


def test_a_stop_lets_requests_end_and_waits_for_no_idle_connection() -> None:
    with running_service(WEB_CONCURRENCY="1") as service, connected(service) as busy, connected(service) as idle:
        idle.sendall(NEXT)
        assert one_answer(idle)[0] == 200
        asking = fields(
            b"Content-Length: 2", b"Sec-Fetch-Site: same-origin", b"Expect: 100-continue", first=b"POST /login HTTP/1.1"
        )
        busy.sendall(asking.replace(b"\r\n\r\n", b"\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"))
        assert busy.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert service.process is not None
        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert everything(idle) == b""
        busy.sendall(b"a=")
        answer = everything(busy)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert service.process.wait(timeout=30) == 0
        assert time.monotonic() - started < 10
