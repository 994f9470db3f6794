"""Through nginx, with the file that operators get: whom the service sees, what never reaches it, what is logged."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from app import guard, publish_api
from tests.hosts import make_key
from tests.proxy import Proxy, behind_nginx, changed
from tests.service import Service
from tests.web import Answer


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[Service, Proxy]]:
    with behind_nginx(WEB_CONCURRENCY="2") as behind:
        yield behind


@pytest.fixture
def service(behind: tuple[Service, Proxy]) -> Service:
    return behind[0]


@pytest.fixture
def proxy(behind: tuple[Service, Proxy]) -> Proxy:
    return behind[1]


def call(proxy: Proxy, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Through TLS, with the path as it stands."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPSConnection("localhost", proxy.port, timeout=30, context=proxy.context)
    with contextlib.closing(connection):
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


METRICS = [
    "/metrics",
    "//metrics",
    "/%6detrics",
    "/./metrics",
    "/x/../metrics",
    "/metrics/",
    "/metrics/x",
    "/%2Fmetrics",
]


@pytest.mark.parametrize("path", METRICS)
def test_metrics_are_not_for_strangers(proxy: Proxy, path: str) -> None:
    answer = call(proxy, "GET", path)
    assert answer.status == 404
    assert answer.json()["detail"] == "There is nothing here."
    assert json.loads(proxy.log.splitlines()[-1])["belfry_status"] == ""  # the service was not even asked


SIZES = {
    "/notifications/read": guard.BODY_BYTES,
    "/api/v1/tickets": guard.BODY_BYTES,
    "/api/v1/events": publish_api.EVENT_BYTES,
    "/api/v1/events/batch": publish_api.BATCH_BYTES,
}


@pytest.mark.parametrize("path", SIZES)
def test_a_body_has_the_size_that_the_service_takes(service: Service, proxy: Proxy, path: str) -> None:
    headers = {"Content_Type": "application/json", "Authorization": f"Bearer {make_key(service.database_url)}"}
    reaches = call(proxy, "POST", path, b" " * SIZES[path], **headers)
    assert reaches.status in (400, 401), reaches.body  # the service's own opinion, and not of its size
    too_large = call(proxy, "POST", path, b" " * (SIZES[path] + 1), **headers)
    assert (too_large.status, too_large.headers["Content-Type"]) == (413, "application/problem+json")
    assert set(too_large.json()) == set(reaches.json())
    assert too_large.json() | {"request_id": ""} == {
        "type": "about:blank",
        "title": "Request Entity Too Large",
        "status": 413,
        "detail": "The body is too large.",
        "request_id": "",
        "errors": [],
    }


def test_http_leads_to_https(proxy: Proxy) -> None:
    connection = http.client.HTTPConnection("localhost", proxy.plain_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/login?next=/types")
        answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, "https://localhost/login?next=/types")


def test_a_change_that_the_file_does_not_want_is_noticed() -> None:
    with pytest.raises(AssertionError, match="does not stand"):
        changed("listen 443;", ("listen 80;", "listen 8080;"))


def raw(proxy: Proxy, content: bytes) -> bytes:
    """What comes back for these bytes until the connection is closed."""
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as plain,
        proxy.context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(content)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received
