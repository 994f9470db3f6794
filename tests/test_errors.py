"""The one shape of everything that goes wrong."""

import logging
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import flask
import pytest
import sqlalchemy
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app, db
from tests import inboxes, postgres
from tests.cast import Browser, Person
from tests.service import free_port

Publish = Callable[..., Any]
MakeApp = Callable[..., flask.Flask]

FIELDS = {"type", "title", "status", "detail", "request_id", "errors"}
INTERNALS = re.compile(r"Traceback|psycopg|sqlalchemy|SELECT|UPDATE|relation|users|\.py|line \d+, in", re.IGNORECASE)
AS_A_BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


@pytest.fixture
def broken(app: flask.Flask) -> Iterator[Person]:
    """Alice in a service whose table of events has gone, as after a migration that nobody ran."""
    with postgres.database() as url:
        private = create_app(database_url=url, secret_key=postgres.SECRET_KEY, web_concurrency=1)
        private.test_client_class = Browser
        with private.app_context():
            person = Person(private, "alice")
            inboxes.run("DROP TABLE events CASCADE")
            yield person
            db.engine().dispose()


@pytest.fixture
def cut_off(alice: Person, another_app: MakeApp) -> FlaskClient:
    """Alice's browser at a service whose database does not answer."""
    nowhere = another_app(database_url=f"postgresql://belfry@127.0.0.1:{free_port()}/belfry")
    cookie = alice.browser.get_cookie("belfry")
    assert cookie is not None
    browser = nowhere.test_client()
    browser.set_cookie("belfry", cookie.value)
    return browser


def test_everything_that_goes_wrong_has_one_shape(
    alice: Person, anonymous: FlaskClient, broken: Person, cut_off: FlaskClient, another_app: MakeApp
) -> None:
    limited = Person(another_app(poll_limit="1 per minute"), "alice")
    limited.poll()
    read = "/notifications/read"
    as_json = {"content_type": "application/json"}
    went_wrong: list[tuple[int, TestResponse]] = [
        (400, alice.browser.post(read, data=b"{", **as_json)),
        (400, alice.browser.post(read, data=b"[]", **as_json)),
        (400, alice.browser.post(read, data=b'{"ids":[1],"ids":[1]}', **as_json)),
        (400, alice.get("/notifications/unread", headers={"Host": "evil.com"})),
        (401, anonymous.get("/notifications/unread")),
        (401, anonymous.post(read, json={"ids": [1]})),
        (403, alice.browser.post(read, json={"ids": [1]}, headers={"Sec-Fetch-Site": "cross-site"})),
        (404, alice.get("/nothing/here")),
        (404, alice.get("/notifications/99")),
        (404, alice.get("/notifications/one")),
        (404, alice.post("/notifications/undo", {"undo": 99})),
        (404, alice.get("/static/js/nothing.js")),
        (404, alice.get("/tickets/nothing")),
        (405, alice.browser.delete("/notifications/unread")),
        (405, alice.get(read)),
        (405, alice.browser.patch("/")),
        (413, alice.browser.post(read, data=b" " * 70_000, **as_json)),
        (415, alice.browser.post(read, data=b"{}", content_type="text/plain")),
        (415, alice.browser.post("/read", json={"id": 1})),
        (422, alice.post(read, {"ids": ["one"], "colour": "red"})),
        (422, alice.post(read, {"through": 1})),
        (422, alice.get("/notifications/unread?limit=0&colour=red")),
        (422, alice.browser.post("/read", data={"through": "all"})),
        (429, limited.poll()),
        (500, broken.poll()),
        (503, cut_off.get("/notifications/unread")),
        (503, cut_off.post(read, json={"ids": [1]})),
    ]

    for status, answer in went_wrong:
        assert answer.status_code == status, answer.get_data(as_text=True)
        assert answer.mimetype == "application/problem+json"
        problem = answer.get_json()
        assert set(problem) == FIELDS
        assert (problem["type"], problem["status"]) == ("about:blank", status)
        assert problem["title"] == HTTPStatus(status).phrase
        assert problem["detail"]
        assert not INTERNALS.search(problem["detail"])
        assert re.fullmatch(r"[0-9a-f]{32}", problem["request_id"])
        assert bool(problem["errors"]) == (status == 422)
        for error in problem["errors"]:
            assert set(error) == {"field", "message"}
        assert ("Retry-After" in answer.headers) == (status in (429, 503))
        assert ("Allow" in answer.headers) == (status == 405)
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    request_ids = {answer.get_json()["request_id"] for _status, answer in went_wrong}
    assert len(request_ids) == len(went_wrong)


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/notifications", "POST", {"GET", "HEAD", "OPTIONS"}),
        ("/notifications/unread", "DELETE", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/notifications/read", "GET", {"POST", "OPTIONS"}),
        ("/notifications/1/read", "GET", {"POST", "OPTIONS"}),
        ("/notifications/1", "POST", {"GET", "HEAD", "OPTIONS"}),
        ("/logout", "GET", {"POST", "OPTIONS"}),
        ("/notifications/unread", "BREW", {"GET", "HEAD", "OPTIONS", "POST"}),
    ],
)
def test_405_says_which_methods_there_are(alice: Person, path: str, method: str, allowed: set[str]) -> None:
    answer = alice.browser.open(path, method=method)

    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_all_field_errors_come_at_once(alice: Person) -> None:
    answer = alice.post("/notifications/read", {"ids": [0, 1, "two"], "through": -1, "colour": "red"})

    errors = {error["field"]: error["message"] for error in answer.get_json()["errors"]}
    assert errors == {
        "ids[0]": "must be at least 1",
        "ids[2]": "must be a whole number",
        "through": "must be at least 0",
        "colour": "is not a known field",
    }


def test_an_error_of_ours_is_logged_under_its_request_id_and_tells_nothing(
    broken: Person, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = broken.poll()

    assert answer.status_code == 500
    [record] = [record for record in caplog.records if record.name == "app.errors"]
    assert answer.get_json()["request_id"] in record.getMessage()
    assert record.exc_info is not None
    assert not INTERNALS.search(answer.get_data(as_text=True))
    assert "X-Poll-Interval" not in answer.headers
    assert "ETag" not in answer.headers


def test_a_failed_change_changes_nothing(broken: Person) -> None:
    before = inboxes.version(broken)
    inboxes.run("DROP TABLE undos")

    assert broken.post("/notifications/read", {"ids": [1]}).status_code == 500

    assert inboxes.version(broken) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/notifications/unread"), ("GET", "/notifications"), ("POST", "/notifications/1/read"), ("GET", "/")],
)
def test_without_a_database_it_is_503_and_come_back_soon(
    cut_off: FlaskClient, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    answer = cut_off.open(path, method=method)

    assert answer.status_code == 503
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert not INTERNALS.search(answer.get_data(as_text=True))
    assert answer.get_json()["request_id"] in caplog.text


def test_without_a_database_signed_out_callers_and_static_files_are_answered(cut_off: FlaskClient) -> None:
    stranger = cut_off.application.test_client()

    assert stranger.get("/notifications/unread").status_code == 401
    assert stranger.get("/login").status_code == 200
    assert stranger.get("/static/js/poller.js").status_code == 200


def test_an_inbox_that_stays_locked_is_503_for_changes_and_open_for_polls(alice: Person, publish: Publish) -> None:
    publish("alice")
    with db.engine().begin() as other:
        other.execute(sqlalchemy.text("SELECT FROM users WHERE id = :id FOR UPDATE"), {"id": alice.id})

        answer = alice.post("/notifications/1/read")
        snapshot = alice.poll()

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert (snapshot.status_code, snapshot.get_json()["unread_count"]) == (200, 1)
    assert alice.post("/notifications/1/read").get_json()["changed"] == 1


def test_connections_that_the_server_closed_are_replaced_without_a_word(alice: Person, publish: Publish) -> None:
    publish("alice")
    tag = alice.poll().headers["ETag"]

    def close_all() -> None:
        with postgres.connect(db.engine().url.render_as_string(hide_password=False)) as operator:
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid != pg_backend_pid()"
            )

    close_all()
    assert alice.poll(tag).status_code == 304
    close_all()
    assert alice.post("/notifications/1/read").get_json()["changed"] == 1


# Pages


def test_a_browser_gets_a_page(
    alice: Person, broken: Person, cut_off: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    pages = {
        403: alice.browser.post("/read", headers={**AS_A_BROWSER, "Origin": "https://evil.com"}),
        404: alice.get("/nothing/here", headers=AS_A_BROWSER),
        405: alice.get("/logout", headers=AS_A_BROWSER),
        413: alice.browser.post("/read", data={"id": "1" * 70_000}, headers=AS_A_BROWSER),
        415: alice.browser.post("/read", json={}, headers=AS_A_BROWSER),
        422: alice.browser.post("/read", data={"id": "one"}, headers=AS_A_BROWSER),
        500: broken.get("/", headers=AS_A_BROWSER),
        503: cut_off.get("/", headers=AS_A_BROWSER),
    }

    for status, page in pages.items():
        assert page.status_code == status
        assert page.mimetype == "text/html"
        text = page.get_data(as_text=True)
        assert f"Error {status}" in text
        assert HTTPStatus(status).phrase in text
        assert not INTERNALS.search(re.sub(r"<[^>]*>", "", text))
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert ("Retry-After" in page.headers) == (status in (429, 503))
        reference = re.search(r"[0-9a-f]{32}", text)
        assert reference is not None
        if status in (500, 503):
            assert reference.group() in caplog.text


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        (None, "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("application/problem+json", "application/problem+json"),
        ("application/json, text/plain, */*", "application/problem+json"),
        ("image/png", "application/problem+json"),
        ("", "application/problem+json"),
        ("text/html;q=0", "application/problem+json"),
        ("text/html;q=0.5, application/problem+json", "application/problem+json"),
        ("text/html", "text/html"),
        ("text/html, */*;q=0.8", "text/html"),
        (AS_A_BROWSER["Accept"], "text/html"),
    ],
)
def test_the_accept_header_chooses_between_json_and_page(alice: Person, accept: str | None, mimetype: str) -> None:
    answer = alice.get("/nothing/here", headers={} if accept is None else {"Accept": accept})

    assert (answer.status_code, answer.mimetype) == (404, mimetype)


@pytest.mark.parametrize("path", ["/notifications", "/notifications/999", "/notifications/nothing/here"])
def test_the_api_answers_a_browser_as_it_answers_anybody(anonymous: FlaskClient, path: str) -> None:
    answer = anonymous.get(path, headers=AS_A_BROWSER)

    assert answer.status_code in (401, 404)
    assert answer.mimetype == "application/problem+json"


def test_what_a_stranger_wrote_is_text_on_the_page(alice: Person) -> None:
    page = alice.browser.post("/login", data={"username": "<script>alert(1)</script>", "password": "x"})

    assert page.status_code == 401
    assert "&lt;script&gt;" in page.get_data(as_text=True)
    assert "<script>alert" not in page.get_data(as_text=True)
