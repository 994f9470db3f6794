"""Through nginx, with the file that operators get: whom the service sees, what never reaches it, what is logged."""

import contextlib
import http.client
import json
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest

from app import guard, publish_api
from tests.hosts import make_key, query
from tests.proxy import SITE, Proxy, behind_nginx, changed, nginx
from tests.readers import sign_in
from tests.service import Service, free_port, running_service, wait_until
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


def logged(proxy: Proxy, answer: Answer) -> dict[str, str]:
    """What nginx has written down of the request that was answered with this problem."""
    lines = wait_until(
        lambda: [line for line in proxy.log.splitlines() if answer.json()["request_id"] in line], "a line"
    )
    found: dict[str, str] = json.loads(lines[0])
    return found


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
    assert logged(proxy, answer)["belfry_status"] == ""  # the service was not even asked


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


HOST = b"Host: localhost\r\nConnection: close\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
JSON = b"Content-Type: application/json\r\n"
POST = b"POST /notifications/read HTTP/1.1\r\n" + HOST + JSON
SMUGGLED = {
    "a length and chunks": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n" + HIDDEN,
    "a coding nobody knows": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks after another coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a length with a sign": POST + b"Content-Length: +4\r\n\r\n" + HIDDEN,
    "a length before a blank and a colon": POST + b"Content-Length : 60\r\n\r\n" + HIDDEN,
    "a name with an underscore": POST + b"Content_Length: 60\r\nTransfer_Encoding: chunked\r\n\r\n" + HIDDEN,
    "two hosts": b"GET / HTTP/1.1\r\nHost: evil.example\r\n" + HOST + b"\r\n" + HIDDEN,
    "a folded field": POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n" + HIDDEN,
    "bare ends of lines": POST.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + HIDDEN,
    "a chunk's size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n" + HIDDEN,
    "a foreign host in the target": b"GET http://evil.example/login HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_no_request_hides_in_another(proxy: Proxy, name: str) -> None:
    received = raw(proxy, SMUGGLED[name])

    statuses = re.findall(rb"^HTTP/1.1 ([0-9]{3}) ", received, re.MULTILINE)
    assert len(statuses) == 1, received
    assert statuses[0].startswith(b"4") or statuses[0] == b"501", received
    assert "/hidden" not in proxy.log


FORGED = [
    {},
    {"X_Forwarded_For": "203.0.113.7"},
    {"X_Forwarded_For": "203.0.113.8, 198.51.100.1", "X_Real_IP": "203.0.113.9"},
    {"Forwarded": "for=203.0.113.10"},
]


def test_who_claims_to_come_from_elsewhere_is_counted_where_they_are(service: Service, proxy: Proxy) -> None:
    buckets = "SELECT key, count FROM rate_limits WHERE starts_with(key, 'LIMITER/sign-in/')"
    before = dict(query(service.database_url, buckets))
    for forged in FORGED:
        fields = b"username=nobody-at-all&password=wrong"
        headers = {**forged, "Content_Type": "application/x-www-form-urlencoded"}
        assert call(proxy, "POST", "/login", fields, **headers).status in (401, 422, 429)
    changed = {key: value for key, value in query(service.database_url, buckets) if before.get(key) != value}
    assert len(changed) == 2, changed  # the account's, and the one address's


def test_the_log_holds_no_link_query_or_cookie(service: Service, proxy: Proxy) -> None:
    ticket = "Abc-secret-ticket"
    for path in (
        f"/tickets/{ticket}",
        f"//tickets/./{ticket}",
        f"/%74ickets/{ticket}?next={ticket}",
        f"/login?q={ticket}",
    ):
        last = call(proxy, "GET", path, Cookie=f"x={ticket}", Referer=f"https://x/{ticket}", User_Agent=ticket)
    refused = call(proxy, "POST", f"/tickets/{ticket}", b"x" * 70_000)
    assert refused.status == 413
    assert last.status == 200
    assert logged(proxy, refused)["path"] == "/tickets/-"
    assert ticket not in proxy.log
    assert ticket not in proxy.errors


def test_request_ids_are_handed_on_where_they_are_some(proxy: Proxy) -> None:
    assert call(proxy, "GET", "/metrics", X_Request_ID="from-a-host-1").json()["request_id"] == "from-a-host-1"
    for bad in ("short", "x" * 65, 'with"quotes"', "blank in it"):
        assert call(proxy, "GET", "/metrics", X_Request_ID=bad).json()["request_id"] not in ("", bad)


def test_without_the_service_bells_are_told_when_to_come_back() -> None:
    with nginx(free_port()) as proxy:
        for method, path in (("GET", "/notifications/unread"), ("POST", "/api/v1/events")):
            answer = call(proxy, method, path)
            assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
            assert (answer.headers["Retry-After"], answer.headers["Cache-Control"]) == ("5", "private, no-store")
            assert (answer.json()["status"], answer.json()["title"]) == (503, "Service Unavailable")
        page = call(proxy, "GET", "/", Accept="text/html,*/*")
        assert (page.status, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert b"does not answer" in page.body


def test_under_a_path_of_a_products_site_it_is_the_same() -> None:
    [expression] = re.findall(r"^#   sed -E '(.*)' nginx.conf$", SITE.read_text(), re.MULTILINE)
    made = subprocess.run(["sed", "-E", expression, str(SITE)], capture_output=True, text=True, check=True).stdout
    port = free_port()
    url = f"https://localhost:{port}/belfry"
    with (
        running_service(PUBLIC_URL=url, TRUSTED_PROXIES="1") as service,
        nginx(service.port, port, site=made) as proxy,
    ):
        cookie = sign_in(service, "ada")
        assert call(proxy, "GET", "/belfry/notifications/unread", Cookie=cookie).status == 200
        assert call(proxy, "POST", "/belfry/api/v1/events", b" " * 100_000).status == 401
        for path in (
            "/belfry/metrics",
            "//belfry/%6detrics",
            "/belfry/./metrics/",
            "/metrics",
            "/notifications/unread",
        ):
            assert call(proxy, "GET", path).status == 404, path
        refused = call(proxy, "POST", "/belfry/tickets/secret-ticket", b"x" * 70_000)
        assert logged(proxy, refused)["path"] == "/belfry/tickets/-"


def test_a_cache_in_front_keeps_nobodys_inbox_for_another() -> None:
    port = free_port()
    caching = changed(
        SITE.read_text(),
        ("    proxy_buffering on;", "    proxy_buffering on;\n    proxy_cache everything; proxy_cache_key $uri;"),
    )
    zone = "proxy_cache_path {folder}/cache keys_zone=everything:1m;"
    url = f"https://localhost:{port}"
    with (
        running_service(PUBLIC_URL=url, TRUSTED_PROXIES="1") as service,
        nginx(service.port, port, site=caching, more=zone) as proxy,
    ):
        service.add_user("mallory")
        ada = sign_in(service, "ada")
        service.send("ada", title="For ada alone")
        for path in ("/notifications/unread", "/notifications", "/"):
            for _ in range(2):
                assert b"For ada alone" in call(proxy, "GET", path, Cookie=ada).body
            for stranger in ({}, {"Cookie": sign_in(service, "mallory")}):
                assert b"For ada alone" not in call(proxy, "GET", path, **stranger).body
        assert not list((proxy.folder / "cache").rglob("?" * 32))


def test_a_network_of_ipv6_counts_as_one_address(service: Service) -> None:
    strict = changed(SITE.read_text(), ("rate=100r/s", "rate=1r/m"), ("burst=300", "burst=1"))
    with nginx(service.port, site=strict, more="set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;") as proxy:

        def statuses(*addresses: str) -> list[int]:
            return [call(proxy, "GET", "/livez", Host="localhost", X_Real_IP=address).status for address in addresses]

        assert statuses("2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:ffff::7") == [200, 200, 429]
        assert statuses("2001:db8:1:3::1", "2001:db8:1::1", "2001:db8:2::1") == [200, 200, 200]
        assert statuses("2001:db8::1", "2001:db8::5:6:7:8", "2001:db8::9") == [200, 200, 429]
        assert statuses("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1", "192.0.2.1") == [200, 200, 200, 200, 429]


PROTECTION = {
    "Strict-Transport-Security": "max-age=31536000",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_what_nginx_refuses_is_protected_as_what_the_service_refuses(proxy: Proxy, accept: str) -> None:
    hidden = call(proxy, "GET", "/metrics", Accept=accept)
    assert {name: hidden.headers[name] for name in PROTECTION} == PROTECTION
    assert hidden.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "line", ["TRACE / HTTP/1.1", "GET /%00 HTTP/1.1", "nothing that is HTTP", "GET / HTTP/1.1\r\nHost: a b"]
)
def test_what_nginx_cannot_read_is_protected_too(proxy: Proxy, line: str) -> None:
    head = raw(proxy, line.encode() + b"\r\n" + HOST + b"\r\n").decode().split("\r\n\r\n")[0]
    assert re.match(r"HTTP/1.1 40[05] ", head), head
    for name, value in PROTECTION.items():
        assert f"{name}: {value}" in head, head


def test_nginx_says_nothing_twice(proxy: Proxy) -> None:
    for path in ("/login", "/notifications/unread", "/api/v1/events", "/static/favicon.svg"):
        given = call(proxy, "GET", path).headers
        assert [len(given.get_all(name, [])) for name in PROTECTION] == [1, 1, 1], path
