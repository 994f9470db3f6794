"""What protects an answer stands on every answer: of each route, whatever comes of it, and of the worker itself."""

import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import flask
import orjson
import pytest
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers
from werkzeug.test import TestResponse

from app import create_app, db, people, tickets
from tests import inboxes, postgres, routes
from tests.cast import Browser, Person
from tests.hosts import Host
from tests.service import Service, free_port, running_service
from tests.web import Browser as WireBrowser

MakeApp = Callable[..., flask.Flask]

SECURE = "https://localhost"
CHANGES = {"POST", "PUT", "DELETE", "PATCH"}
PAGES_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
EXAMPLES = {**routes.EXAMPLES, "<subject>": "alice"}


def wrong(answer: Any, *, https: bool, static: bool = False) -> list[str]:
    """What of an answer's protection is missing or weaker than promised."""
    headers = Headers(list(answer.headers.items()))
    status = getattr(answer, "status_code", None) or answer.status
    is_bare = status == 304 and not static
    wanted: dict[str, str | None] = {
        "Strict-Transport-Security": "max-age=31536000" if https else None,
        "Cross-Origin-Resource-Policy": "cross-origin" if static else "same-origin",
        "Cache-Control": "no-cache" if static else "private, no-store",
        "X-Content-Type-Options": None if is_bare else "nosniff",
        "Referrer-Policy": None if is_bare else "same-origin",
        "Content-Security-Policy": None if is_bare else PAGES_POLICY,
        "Cross-Origin-Opener-Policy": "same-origin"
        if headers.get("Content-Type", "").startswith("text/html")
        else None,
        # What runs here, and in which version, is nobody's business.
        "Server": None,
        "X-Powered-By": None,
    }
    found = [
        f"{name}: {headers.getlist(name)}"
        for name, value in wanted.items()
        if headers.getlist(name) != ([] if value is None else [value])
    ]
    if not static and not {"Cookie", "Authorization"} <= set(headers.get("Vary", "").split(", ")):
        found.append(f"Vary: {headers.get('Vary')}")
    for cookie in headers.getlist("Set-Cookie"):
        name, *attributes = re.split("; |=[^;]*(?:; |$)", cookie)
        wanted_name = "__Host-belfry" if https else "belfry"
        if name != wanted_name or {"HttpOnly", "SameSite"} - set(attributes) or ("Secure" in attributes) != https:
            found.append(f"Set-Cookie: {cookie}")
        if "; SameSite=Lax" not in cookie or "; Path=/" not in cookie or "Domain" in cookie:
            found.append(f"Set-Cookie: {cookie}")
    return found


def is_file(answer: TestResponse) -> bool:
    """Whether an answer is the static files' own, which pages of every site may load."""
    return answer.request.path.startswith("/static/") and answer.status_code in {200, 204, 206, 304, 404}


@pytest.fixture(params=[SECURE, None], ids=["https", "http"])
def there(app: flask.Flask, another_app: MakeApp, request: pytest.FixtureRequest) -> flask.Flask:
    """The service at its address, with a person who has a password and a notification."""
    url = {"public_url": request.param} if request.param else {}
    return another_app(poll_limit="1000 per minute", **url)


def all_routes(app: flask.Flask) -> Iterator[tuple[str, set[str]]]:
    """For every route a path that leads to it, and the methods that it takes."""
    for rule in app.url_map.iter_rules():
        path = rule.rule
        for variable, value in EXAMPLES.items():
            path = path.replace(variable, value)
        assert "<" not in path, f"{rule.rule} needs an example"
        yield path, (rule.methods or set()) - {"OPTIONS"}


def outcomes(client: FlaskClient, path: str, methods: set[str], base: str, **known: str) -> Iterator[TestResponse]:
    """What a route answers to what it was made for, and to everything that it refuses."""

    def call(method: str, **options: Any) -> TestResponse:
        headers = {**known, **options.pop("headers", {})}
        return client.open(path, method=method, base_url=base, headers=headers, **options)

    yield call("PATCH")
    yield call("OPTIONS")
    yield call("OPTIONS", headers={"Access-Control-Request-Method": "GET", "Origin": "https://evil.example"})
    yield client.get(path, base_url=base, headers={"Host": "evil.example"})
    for method in sorted(methods):
        yield call(method)
        yield call(method, headers={"Accept": "text/html"})
        yield client.open(path, method=method, base_url=base)  # without the key, if there was one
        if method in CHANGES:
            yield call(method, headers={"Sec-Fetch-Site": "cross-site", "Authorization": ""})
            yield call(method, data=b"x", content_type="text/plain")
            yield call(method, data=b"{", content_type="application/json")
            yield call(method, data=b'{"colour": "red"}', content_type="application/json")
            yield call(method, data=b" " * (4 * 1024 * 1024 + 1), content_type="application/json")
            yield call(method, data={"ids": "x", "username": "alice", "password": "wrong"})


def test_every_route_whatever_comes_of_it_is_protected(there: flask.Flask, alice: Person) -> None:
    base = SECURE if there.config["SESSION_COOKIE_SECURE"] else "http://localhost"
    https = base == SECURE
    host = Host(there)
    seen: set[int] = set()
    found = []
    for path, methods in all_routes(there):
        # Somebody else for each: what ends a session, and a limit, is over with it.
        person = Person(there, "alice")
        person.browser.environ_base["REMOTE_ADDR"] = f"10.1.{len(seen)}.{len(path)}"
        known = {"Authorization": f"Bearer {host.key}"} if path.startswith("/api/") else {}
        for answer in outcomes(person.browser, path, methods, base, **known):
            seen.add(answer.status_code)
            for each in wrong(answer, https=https, static=is_file(answer)):
                found.append(f"{answer.request.method} {path} {answer.status_code}: {each}")
    assert found == []
    assert {200, 204, 303, 400, 401, 403, 404, 405, 413, 415, 422} <= seen


def test_what_leads_to_no_route_or_fails_is_protected(there: flask.Flask, alice: Person, another_app: MakeApp) -> None:
    base = SECURE if there.config["SESSION_COOKIE_SECURE"] else "http://localhost"
    https = base == SECURE
    chosen = {"public_url": SECURE} if https else {}
    db.write(people.save_user, "ada", None, "correct horse battery")
    person = Person(there, "alice")
    browser = person.browser
    limited = Person(another_app(poll_limit="1 per minute", **chosen), "alice").browser
    limited.get("/notifications/unread", base_url=base)
    nowhere = another_app(database_url=f"postgresql://belfry@127.0.0.1:{free_port()}/belfry", **chosen).test_client()
    nowhere.set_cookie(there.config["SESSION_COOKIE_NAME"], cookie_of(browser), domain=urlsplit(base).hostname or "")
    tag = browser.get("/notifications/unread", base_url=base).headers["ETag"]
    of_file = browser.get("/static/js/poller.js", base_url=base).headers["ETag"]
    typed = {"username": "ada", "password": "correct horse battery"}
    answers = [
        (304, browser.get("/notifications/unread", base_url=base, headers={"If-None-Match": tag})),
        (304, browser.get("/static/js/poller.js", base_url=base, headers={"If-None-Match": of_file})),
        (206, browser.get("/static/js/poller.js", base_url=base, headers={"Range": "bytes=0-9"})),
        (404, browser.get("/static/js/nothing.js", base_url=base)),
        (404, browser.get("/nothing/here", base_url=base)),
        (404, browser.get("/nothing/here", base_url=base, headers={"Accept": "text/html"})),
        (308, browser.get("/notifications//unread", base_url=base)),
        (429, limited.get("/notifications/unread", base_url=base)),
        (503, nowhere.get("/notifications/unread", base_url=base)),
        (303, there.test_client().post("/login", base_url=base, data=typed)),
        (303, browser.post("/logout", base_url=base)),
        (303, browser.post(f"/tickets/{db.write(tickets.make_ticket, 'ada', 60)}", base_url=base)),
    ]
    for status, answer in answers:
        found = wrong(answer, https=https, static=is_file(answer))
        assert (answer.status_code, found) == (status, []), answer.request.path
    set_by = [answer for _, answer in answers if "Set-Cookie" in answer.headers]
    assert len(set_by) == 3  # signing in, out, and by a link


def cookie_of(browser: FlaskClient) -> str:
    cookie = browser.get_cookie(browser.application.config["SESSION_COOKIE_NAME"])
    assert cookie is not None
    return cookie.value


def test_an_error_of_ours_is_protected(app: flask.Flask) -> None:
    with postgres.database() as url:
        private = create_app(database_url=url, secret_key=postgres.SECRET_KEY, web_concurrency=1, public_url=SECURE)
        private.test_client_class = Browser
        with private.app_context():
            person = Person(private, "alice")
            inboxes.run("DROP TABLE events CASCADE")
            answers = [person.browser.get(path, base_url=SECURE) for path in ("/notifications", "/")]
            db.engine().dispose()
    assert [(answer.status_code, wrong(answer, https=True)) for answer in answers] == [(500, [])] * 2


def test_the_page_of_a_sign_in_link_tells_nobody_its_address(app: flask.Flask, alice: Person) -> None:
    """The one page with other headers: where its form may lead, and that no path is told, for the path is a secret."""
    ticket = db.write(tickets.make_ticket, "alice", 60)
    answer = alice.get(f"/tickets/{ticket}")
    assert [each.split(":")[0] for each in wrong(answer, https=False)] == ["Referrer-Policy"]
    assert answer.headers["Referrer-Policy"] == "strict-origin"


# Over the wire


@pytest.fixture(scope="module")
def wired() -> Iterator[Service]:
    """One worker with short deadlines, known to readers by https."""
    with running_service("tests/impatient_conf.py", WEB_CONCURRENCY="1", PUBLIC_URL="https://localhost") as service:
        yield service


class Refusal:
    """An answer as it came over the wire."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = Headers([tuple(line.split(": ", 1)) for line in lines])


REFUSED = {
    400: b"GET / HTTP/1.1\r\n\r\n",
    408: b"GET / HTTP/1.1\r\nHost: loc",
    414: b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    417: b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: a miracle\r\n\r\n",
    431: b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
    501: b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n",
}


def sent(port: int, request: bytes) -> Refusal:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
        wire.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while received := wire.recv(65536):
                answer += received
    return Refusal(answer)


@pytest.mark.parametrize("status", REFUSED)
def test_what_the_worker_refuses_is_a_problem_like_any_other(wired: Service, status: int) -> None:
    refusal = sent(wired.port, REFUSED[status])

    assert (refusal.status, wrong(refusal, https=True)) == (status, [])
    assert refusal.headers["Content-Type"] == "application/problem+json"
    assert refusal.headers["Connection"] == "close"
    assert int(refusal.headers["Content-Length"]) == len(refusal.body)
    problem = orjson.loads(refusal.body)
    assert set(problem) == {"type", "title", "status", "detail", "request_id", "errors"}
    assert (problem["type"], problem["status"], problem["errors"]) == ("about:blank", status, [])
    assert problem["title"]
    assert problem["detail"]
    assert re.fullmatch(r"[0-9a-f]{32}", problem["request_id"])


def test_the_short_way_and_static_files_are_protected_over_the_wire(wired: Service) -> None:
    wired.add_user("alice")
    browser = WireBrowser(wired.url)
    ticket = urlsplit(wired.link("alice")).path
    [cookie] = browser.opener.open(f"{wired.url}/login").headers.get_all("Set-Cookie") or [""]
    assert cookie == ""
    spent = sent(wired.port, request(f"POST {ticket}", "Content-Type: application/x-www-form-urlencoded", length=0))
    assert (spent.status, wrong(spent, https=True)) == (303, [])
    given = spent.headers["Set-Cookie"].split(";")[0]
    first = sent(wired.port, request("GET /notifications/unread", f"Cookie: {given}"))
    again = sent(
        wired.port, request("GET /notifications/unread", f"Cookie: {given}", f"If-None-Match: {first.headers['ETag']}")
    )
    file = sent(wired.port, request("GET /static/js/poller.js"))
    kept = sent(wired.port, request("GET /static/js/poller.js", f"If-None-Match: {file.headers['ETag']}"))

    assert [answer.status for answer in (first, again, file, kept)] == [200, 304, 200, 304]
    assert wrong(first, https=True) == wrong(again, https=True) == []
    assert wrong(file, https=True, static=True) == wrong(kept, https=True, static=True) == []


def request(line: str, *fields: str, length: int | None = None) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
    return "\r\n".join([*lines, *([f"Content-Length: {length}"] if length is not None else []), "", ""]).encode()


FAILING = """
from gevent import monkey
monkey.patch_all()
import gevent, logging, socket, types
from app import create_app
from app.worker import Handler, Server

def fail(environ, start_response):
    raise RuntimeError("before anything was answered")

fail.extensions = create_app(public_url="https://app.example").extensions
log = types.SimpleNamespace(access_log_enabled=False)
server = Server(("127.0.0.1", 0), application=fail, log=log, handler_class=Handler, error_log=None)
server.start()
wire = socket.create_connection(server.address)
wire.sendall(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
received = b""
while more := wire.recv(65536):
    received += more
print(received.decode(), end="")
"""


def test_an_application_that_fails_is_answered_for_by_the_worker(app: flask.Flask) -> None:
    environment = postgres.environment(db.engine().url.render_as_string(hide_password=False))
    done = subprocess.run(
        [sys.executable, "-c", FAILING], cwd=postgres.ROOT, env=environment, capture_output=True, timeout=60
    )
    refusal = Refusal(done.stdout)
    assert (refusal.status, wrong(refusal, https=True)) == (500, [])
    assert orjson.loads(refusal.body)["status"] == 500
    assert b"before anything" not in done.stdout
    assert b"before anything" in done.stderr
