"""The log: one event is one line, whatever went into it; who may read it learns no secret and nobody's messages."""

import contextlib
import io
import json
import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import psycopg
import pytest
from flask.testing import FlaskClient

from app import logs, watch
from tests import postgres
from tests.cast import Person
from tests.commands import run_json
from tests.hosts import Host, WireHost, event, make_key
from tests.service import Service, running_service, wait_until
from tests.web import Browser

MakeApp = Callable[..., flask.Flask]

HOSTILE = {
    "line ends": "one\r\ntwo\u2028three\u0085four",
    "a terminal's commands": "\x1b[2J\x1b]0;owned\x07\x9b31m\x7f",
    "turned around": "\u202egnp.exe\u2066\u200f",
    "half a character": "\ud83d \udc00",
    "nothing": "\x00\ufeff\u200b",
    "JSON": '", "level": "debug',
    "another writing": "Ωμέγα",
    "long": "x" * 100_000,
}
AN_ID = re.compile(r"[0-9a-f]{32}")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Written(io.StringIO):
    """What is logged from here on."""

    def lines(self) -> list[dict[str, Any]]:
        """Line by line; each must be JSON."""
        return [json.loads(line) for line in self.getvalue().split("\n")[:-1]]


@pytest.fixture
def written() -> Iterator[Written]:
    logs.start("warning")
    stream = Written()
    handler = logs.Lines(stream)
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


@contextlib.contextmanager
def alone(written: Written) -> Iterator[None]:
    """Without pytest's handlers, which would keep hostile text for a report, and want every line to be well-formed."""
    root = logging.getLogger()
    others, root.handlers = root.handlers, [logs.Lines(written)]
    try:
        yield
    finally:
        root.handlers = others


@pytest.fixture
def talkative(another_app: MakeApp) -> Iterator[Callable[..., FlaskClient]]:
    """A client of a service that logs as it does by default; afterwards tests are quiet again."""
    yield lambda **settings: another_app(**{"log_level": "info", **settings}).test_client()
    logs.start("warning")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["the event", "a field", "an argument", "another library's", "a name"])
def test_one_event_is_one_line_whatever_went_into_it(written: Written, text: str, where: str) -> None:
    with alone(written):
        if where == "the event":
            watch.log.warning(text)
        elif where == "a field":
            watch.log.warning("an event", field=text)
        elif where == "an argument":
            logging.getLogger("app.test").warning("an event with %s", text)
        elif where == "another library's":
            logging.getLogger("elsewhere").warning(text)
        else:
            logging.getLogger(text[:200]).warning("an event")

    raw = written.getvalue()
    [line] = written.lines()

    assert raw.count("\n") == 1
    assert raw[:-1].isascii()
    assert raw[:-1].isprintable()
    assert len(raw) < 20_000
    assert all(value.isprintable() for value in line.values() if isinstance(value, str))
    assert line["level"] == "warning"


def test_a_line_that_was_put_together_wrongly_is_logged_nevertheless(written: Written) -> None:
    with alone(written):
        logging.getLogger("app.test").warning("%d of %s", "three")
        logging.getLogger("app.test").warning("an object", extra={"odd": object()})
        watch.log.warning("an object", odd=object())
    assert [line["event"] for line in written.lines()] == ["%d of %s", "an object", "an object"]
    assert written.lines()[2]["odd"] == "<object>"


def test_that_nobody_reads_the_log_is_no_trouble(written: Written) -> None:
    written.close()
    watch.log.warning("an event")


def test_of_an_exception_there_is_its_kind_and_place_and_not_what_it_quotes(written: Written) -> None:
    def fall_over() -> None:
        try:
            raise psycopg.errors.UniqueViolation("Key (subject)=(a secret) already exists")
        except psycopg.Error as error:
            raise ValueError("a secret") from error

    try:
        fall_over()
    except ValueError as error:
        watch.log.error("unhandled error", exc_info=error)
    try:
        import nothing_of_that_name  # noqa: F401
    except ImportError:
        logging.getLogger("gunicorn.error").exception("Exception in worker process")

    assert "a secret" not in written.getvalue()
    first, second = written.lines()
    assert [(part["type"], part.get("sqlstate")) for part in first["exception"]] == [
        ("builtins.ValueError", None),
        ("psycopg.errors.UniqueViolation", "23505"),
    ]
    assert any(re.fullmatch(r".*tests/test_logs\.py:\d+ fall_over", place) for place in first["exception"][0]["at"])
    # Whoever runs the service must learn what it lacks.
    assert second["exception"][0]["message"] == "No module named 'nothing_of_that_name'"


def test_in_a_terminal_the_lines_are_for_people() -> None:
    record = logging.LogRecord("app.test", logging.ERROR, "", 1, {"event": "an\x1b[2Jevent", "status": 500}, (), None)
    try:
        raise ValueError("of a developer's own")
    except ValueError:
        record.exc_info = sys.exc_info()

    said = logs.for_people(record)

    assert "\x1b[2J" not in said
    assert "ValueError: of a developer's own" in said
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(said)


def test_each_refused_request_leaves_one_line_and_others_none(
    alice: Person, talkative: Callable[..., FlaskClient], written: Written
) -> None:
    client = talkative()
    alices = alice.browser.get_cookie("belfry")
    assert alices is not None
    client.set_cookie("belfry", alices.value)

    tag = client.get("/notifications/unread").headers["ETag"]
    client.get("/notifications/unread", headers={"If-None-Match": tag})
    client.get("/login")
    assert written.lines() == []

    refused = [
        client.get("/notifications/99"),
        client.get("/tickets/a-secret-ticket?with=more"),
        client.get("/nowhere/a-secret"),
        client.open("/login", method="BREWACOFFEEWITHMILK"),
    ]

    lines = written.lines()
    assert [(line["event"], line["level"], line["method"], line.get("route"), line["status"]) for line in lines] == [
        ("request", "info", "GET", "/notifications/<int:id>", 404),
        ("request", "info", "GET", "/tickets/<ticket>", 404),
        ("request", "info", "GET", None, 404),
        ("request", "info", "BREWACOFFEEWITHM", None, 405),
    ]
    assert lines[0]["user"] == alice.id == run_json(alice.app, "user", "list")[0]["id"]
    assert [line["request_id"] for line in lines] == [answer.headers["X-Request-ID"] for answer in refused]
    assert lines[0]["request_id"] == refused[0].get_json()["request_id"]
    assert all(line["milliseconds"] >= 0 for line in lines)
    assert "secret" not in written.getvalue()


def test_debugging_shows_every_request(
    app: flask.Flask, talkative: Callable[..., FlaskClient], written: Written
) -> None:
    talkative(log_level="debug").get("/login")
    assert [(line["level"], line["route"], line["status"]) for line in written.lines()] == [("debug", "/login", 200)]


def test_an_error_is_found_again_by_its_number(
    app: flask.Flask, talkative: Callable[..., FlaskClient], written: Written
) -> None:
    client = talkative(database_url="postgresql://belfry@127.0.0.1:1/belfry")

    answer = client.post("/login", data={"username": "ada", "password": "a password of hers"})

    assert answer.status_code == 503
    number = answer.get_json()["request_id"]
    assert {line["request_id"] for line in written.lines()} == {number}
    assert [(line["event"], line["level"]) for line in written.lines()] == [
        ("database unavailable", "warning"),
        ("request", "error"),
    ]


@pytest.mark.parametrize(
    ("proxies", "given", "is_taken"),
    [
        (1, "edge-7.f_3", True),
        (1, "x" * 64, True),
        (1, "x" * 65, False),
        (1, "", False),
        (1, "two words", False),
        (1, "ünicode", False),
        (1, 'a"b', False),
        (0, "edge-7.f_3", False),  # nobody stands in front whose word would count
    ],
)
def test_a_trusted_proxys_plain_number_is_taken(another_app: MakeApp, proxies: int, given: str, is_taken: bool) -> None:
    client = another_app(trusted_proxies=proxies).test_client()

    answer = client.get("/nowhere", headers={"X-Request-ID": given.encode().decode("latin-1")})

    number = answer.headers["X-Request-ID"]
    assert (number == given) == is_taken
    assert is_taken or AN_ID.fullmatch(number)
    assert answer.get_json()["request_id"] == number


@pytest.mark.parametrize(
    ("given", "is_valid"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE[1:]}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        ("\x1b[2J", False),
    ],
)
def test_a_valid_trace_is_in_every_line_of_its_request_and_no_other(
    app: flask.Flask,
    talkative: Callable[..., FlaskClient],
    written: Written,
    given: str,
    is_valid: bool,
) -> None:
    client = talkative()
    client.get("/nowhere", headers={"traceparent": given})
    client.get("/nowhere")

    of_it, of_the_next = written.lines()
    assert (of_it.get("trace_id"), of_it.get("span_id")) == ((TRACE, SPAN) if is_valid else (None, None))
    assert "trace_id" not in of_the_next


def test_what_the_worker_says_after_a_request_is_not_of_its_trace(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_service(log=log, WEB_CONCURRENCY="1") as service:
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            trace = f"traceparent: 00-{TRACE}-{SPAN}-01"
            connection.sendall(f"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n{trace}\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
            connection.sendall(b"no request\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        lines = [json.loads(line) for line in log.read_text().split("\n")[:-1]]

    [request] = [line for line in lines if line["event"] == "request"]
    [refusal] = [line for line in lines if line["event"] == "refused by the worker"]
    assert (request["trace_id"], "trace_id" in refusal) == (TRACE, False)


def test_the_number_is_on_every_answer_but_a_plain_polls(alice: Person) -> None:
    numbered = [alice.get("/"), alice.get("/notifications"), alice.get("/livez"), alice.get("/notifications/99")]
    assert all(AN_ID.fullmatch(answer.headers["X-Request-ID"]) for answer in numbered)
    poll = alice.poll()
    assert "X-Request-ID" not in poll.headers
    assert "X-Request-ID" not in alice.poll(poll.headers["ETag"]).headers


def test_a_senders_lines_name_its_key(
    app: flask.Flask, talkative: Callable[..., FlaskClient], written: Written
) -> None:
    host = Host(talkative().application)
    host.call("GET", "/events/99")
    [line] = written.lines()
    assert line["key"] == run_json(app, "key", "list")[0]["id"]


SECRETS = {
    "password": "correct horse battery",
    "title": "Umsatzzahlen vertraulich",
    "body": "Niemand soll dies lesen",
    "link": "/somewhere/private",
    "idempotency key": "order-4711-private",
    "wrong key": f"blf_abcdefgh_{'S' * 43}",
    "token": "eyJhbGciOiJIUzI1NiJ9.secret.claims",
    "ticket": "no-such-ticket-0815",
    "query": "private-query-value",
    "agent": "Mozilla/private-agent",
    "name": "Ada Privatperson",
}


def send_raw(service: Service, *heads: bytes) -> None:
    for head in heads:
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
            connection.sendall(head + b"\r\nConnection: close\r\n\r\n")
            while connection.recv(65536):
                pass


def use_everything(service: Service) -> list[str]:
    """Signs in, publishes, polls, fails in every way that comes to mind; gives back what else is secret by now."""
    service.add_user("ada", SECRETS["password"])
    ada = Browser(service.url)
    link = service.link("ada")
    key = make_key(service.database_url)
    host = WireHost(service.url, key)
    agent = {"User_Agent": SECRETS["agent"]}
    for password in (SECRETS["password"] + "?", SECRETS["password"]):
        ada.submit("/login", username="ada", password=password)
    ada.submit(link)
    ada.submit(link)
    event_of_hers = event("ada", title=SECRETS["title"], body=SECRETS["body"], url=SECRETS["link"])
    assert host.call("POST", "/events", event_of_hers, Idempotency_Key=SECRETS["idempotency key"]).status == 201
    host.call("POST", "/events", {**event_of_hers, "title": SECRETS["title"] * 50, "colour": SECRETS["body"]}, **agent)
    host.call("POST", "/events", {**event_of_hers, "type": SECRETS["title"]})
    host.call("PUT", "/users/ada", {"display_name": SECRETS["name"] * 30})
    host.call("PUT", f"/users/{'x' * 256}", {"display_name": SECRETS["name"]})
    host.call("POST", "/tickets", {"user": "ada", "return_to": f"https://evil.example{SECRETS['link']}"})
    for credential in (SECRETS["wrong key"], SECRETS["token"], "nonsense"):
        WireHost(service.url, credential).call("GET", "/events/1")
        ada.open("/notifications", Authorization=f"Bearer {credential}")
    ada.open(f"/tickets/{SECRETS['ticket']}?next={SECRETS['query']}")
    ada.open(f"/notifications?before={SECRETS['query']}")
    ada.open(f"/nowhere/{SECRETS['query']}")
    ada.poll()
    cookie = next(iter(ada.cookies)).value or ""
    hostile = b"\x1b[31m\xe2\x80\xae\xff\xed\xa0\x80" + SECRETS["query"].encode()
    send_raw(
        service,
        b"GET /" + hostile + b" HTTP/1.1\r\nHost: localhost",
        b"GET /%0d%0a%1b%5b31m%e2%80%ae%ed%a0%80 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + hostile,
        b"GET /login HTTP/1.1\r\nHost: " + hostile,
        b"GET /login HTTP/1.1\r\nHost: evil.example\r\nX-Request-ID: " + hostile,
        b"G\x1bT /login HTTP/1.1\r\nHost: localhost",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: nonsense",
        b"GET /notifications/unread HTTP/1.1\r\nHost: localhost\r\nCookie: belfry=" + hostile,
    )
    ada.submit("/login", username=hostile.decode("latin-1"), password=SECRETS["password"])
    return [key, key.split("_")[2], link.rsplit("/", 1)[1], cookie, cookie.split(".")[0]]


def test_nothing_that_people_wrote_or_that_opens_doors_is_in_the_log_or_the_metrics(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_service(log=log, LOG_LEVEL="debug", WEB_CONCURRENCY="1") as service:
        secrets = [*SECRETS.values(), *use_everything(service)]
        with postgres.connect(service.database_url) as connection:
            connection.execute("DROP TABLE events CASCADE")  # and what nobody expects
        browser = Browser(service.url)
        browser.submit("/login", username="ada", password=SECRETS["password"])
        assert browser.open(f"/notifications?type={SECRETS['query']}").status in (422, 500)
        assert browser.open("/notifications").status == 500
        shown = wait_until(lambda: browser.open("/metrics").body.decode(), "the metrics are there")
    text = log.read_text()

    assert [secret for secret in secrets if secret in text or secret in shown] == []
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert all(line.isascii() and line.isprintable() for line in text.split("\n"))
    assert {"request", "refused by the worker", "unhandled error"} <= {line["event"] for line in lines}
    assert {"gunicorn.error", "app.watch", "app.server_log", "app.errors"} <= {line["logger"] for line in lines}
    assert {200, 401, 404, 422, 400, 500} <= {line.get("status") for line in lines}
    assert any(line["event"].startswith("Listening at") for line in lines)


def test_what_nobody_caught_is_logged_without_the_request_around_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_service(log=log, application="tests.raising:app", WEB_CONCURRENCY="1") as service:
        answer = Browser(service.url).open("/", Cookie="belfry=a-secret-cookie")
    lines = [json.loads(line) for line in log.read_text().split("\n")[:-1]]
    found = [line for line in lines if line["event"] == "unhandled error"]
    assert found
    assert answer.status == 500
    assert [line["level"] for line in lines if line.get("request_id") == answer.json()["request_id"]] == ["error"]
    assert {line["exception"][0]["type"] for line in found} == {"builtins.RuntimeError"}
    assert "a-secret-cookie" not in log.read_text()
