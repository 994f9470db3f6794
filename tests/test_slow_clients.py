"""Clients that send their requests by the byte wait in nginx, and nobody else notices."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.crashes import DEEP
from tests.proxy import Proxy, behind_nginx
from tests.readers import crowd
from tests.service import Service, wait_until

HEADS = 500 if DEEP else 100
BODIES = 200 if DEEP else 40
HALF_A_HEAD = b"GET /notifications/unread HTTP/1.1\r\nHost: localhost\r\nCookie: x="
HALF_A_BODY = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\nusername="


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[Service, Proxy]]:
    with behind_nginx(WEB_CONCURRENCY="2", POLL_LIMIT="1000000 per minute") as behind:
        yield behind


def open_slow(stack: contextlib.ExitStack, proxy: Proxy, sent: bytes) -> ssl.SSLSocket:
    # From another address than the readers', as it would be.
    plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=30, source_address=("127.0.0.2", 0))
    connection = stack.enter_context(proxy.context.wrap_socket(plain, server_hostname="localhost"))
    connection.sendall(sent)
    return connection


def is_cut_off(connection: ssl.SSLSocket) -> bool:
    connection.settimeout(0.01)
    try:
        return not connection.recv(1000)
    except TimeoutError:
        return False
    except OSError:
        return True


def test_slow_clients_are_nobody_elses_business_and_cut_off(behind: tuple[Service, Proxy]) -> None:
    service, proxy = behind
    with (
        contextlib.ExitStack() as stack,
        crowd(service, proxy, readers=4, senders=0, pause=0.01 if DEEP else 0.03) as readers,
    ):
        heads = [open_slow(stack, proxy, HALF_A_HEAD) for _ in range(HEADS)]
        begun = time.monotonic()
        bodies = [open_slow(stack, proxy, HALF_A_BODY) for _ in range(BODIES)]
        readers.seconds.clear()
        readers.wait_for(GET=2000 if DEEP else 300)
        assert not any(is_cut_off(connection) for connection in (heads[-1], bodies[-1]))
        p99 = readers.slowest(0.99)
        assert "/login" not in proxy.log  # not one slow body has come to the service
        # All of them go, and the trickle too: a byte now and then does not make a head later than it may be.
        trickle = heads[-1]
        while not is_cut_off(trickle):
            with contextlib.suppress(OSError):
                trickle.sendall(b"x")
            time.sleep(0.2)
            assert time.monotonic() - begun < 15
        for connection in (*heads, *bodies):
            wait_until(lambda connection=connection: is_cut_off(connection), "it is cut off", seconds=15)
        assert time.monotonic() - begun > 8
    assert readers.failed == []

    assert p99 < (0.05 if DEEP else 0.5)  # beside other tests the machine is busy
