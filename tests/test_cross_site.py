"""The wall around the routes: the cross-site rule, CORS for the hosts' pages, static files, names of the host."""

from collections.abc import Callable
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from tests import inboxes, routes
from tests.cast import Person

Publish = Callable[..., Any]
MakeApp = Callable[..., flask.Flask]

OWN = "https://app.example"
HOST_PAGE = "https://host.example"  # in CORS_ORIGINS
OTHER_HOST_PAGE = "https://other.example:8443"  # in it too


@pytest.fixture
def walled(another_app: MakeApp) -> flask.Flask:
    """The app as a host runs it: an address of its own, and two allowed origins."""
    return another_app(public_url=OWN, cors_origins=f"{HOST_PAGE}, {OTHER_HOST_PAGE}")


@pytest.fixture
def browser(walled: flask.Flask, publish: Publish) -> FlaskClient:
    """Alice's browser at that address; she has notification 1."""
    person = Person(walled, "alice")
    publish("alice")
    cookie = person.browser.get_cookie("__Host-belfry")
    assert cookie is not None
    browser = walled.test_client()
    browser.set_cookie("__Host-belfry", cookie.value, domain="app.example")
    browser.environ_base["HTTP_HOST"] = "app.example"
    assert browser.get("/notifications/unread", base_url=OWN).status_code == 200
    return browser


def headers_of(origin: str | None, site: str | None) -> dict[str, str]:
    named = {"Origin": origin, "Sec-Fetch-Site": site}
    return {name: value for name, value in named.items() if value is not None}


# The cross-site rule

PASSES: list[tuple[str | None, str | None]] = [
    (None, None),  # no browser
    (None, "same-origin"),
    (None, "none"),
    (OWN, None),
    (OWN, "same-origin"),
    (HOST_PAGE, None),
    (HOST_PAGE, "cross-site"),
    (HOST_PAGE, "same-site"),
    (OTHER_HOST_PAGE, "cross-site"),
]
REFUSED: list[tuple[str | None, str | None]] = [
    (None, "cross-site"),
    (None, "same-site"),
    (None, ""),
    (None, "SAME-ORIGIN"),
    (None, "same-origin, none"),
    ("https://evil.com", None),
    ("https://evil.com", "cross-site"),
    ("https://evil.com", "same-site"),
    ("null", None),
    ("null", "cross-site"),
    ("null", "same-site"),
    ("", None),
    ("https://app.example.evil.com", None),
    ("https://evilapp.example", None),
    ("https://evil.app.example", None),
    ("https://sub.app.example", "same-site"),
    ("https://app.example:444", None),
    ("https://app.example@evil.com", None),
    ("https://evil.com\\@app.example", None),
    ("https://evil.com/app.example", None),
    ("https://evil.com#app.example", None),
    ("https://evil.com https://app.example", None),
    ("https://app.example https://evil.com", None),
    ("https://app.example, https://evil.com", None),
    ("app.example", None),
    ("file://", None),
    ("about:blank", None),
    ("https://[", None),
    ("https://host.example.evil.com", "cross-site"),
    ("https://host.example.evil.com", None),
    ("https://host.example:8443", "cross-site"),
    ("https://other.example", "cross-site"),
    ("http://host.example", "cross-site"),
    ("http://host.example", None),
    ("https://HOST.example", "cross-site"),
    ("https://host.example/", "cross-site"),
    ("https://host.example https://evil.com", "cross-site"),
    ("http://localhost", None),  # another name of this machine, but not the one that was asked for
]


@pytest.mark.parametrize(("origin", "site"), PASSES)
def test_changes_from_here_and_from_allowed_pages_pass(
    browser: FlaskClient, origin: str | None, site: str | None
) -> None:
    headers = headers_of(origin, site)

    api = browser.post("/notifications/read", base_url=OWN, headers=headers, json={"ids": [1]})
    assert (api.status_code, api.get_json()["changed"]) == (200, 1)
    form = browser.post("/read", base_url=OWN, headers=headers, data={"through": "1"})
    assert (form.status_code, form.headers["Location"]) == (303, "/")


def test_changes_from_other_sites_are_403(browser: FlaskClient) -> None:
    before = inboxes.everything()

    for origin, site in REFUSED:
        for route in ("POST /notifications/read", "POST /types"):
            answer = routes.call(browser, route, base_url=OWN, headers=headers_of(origin, site))
            assert answer.status_code == 403, (origin, site)
            assert answer.mimetype == "application/problem+json"
            assert answer.get_json()["status"] == 403
            assert cors_headers(answer).get("Access-Control-Allow-Origin") is None

    assert inboxes.everything() == before


@pytest.mark.parametrize(
    ("origin", "site"), [("https://evil.com", None), ("null", "cross-site"), (None, "same-site"), ("https://[", None)]
)
def test_every_route_that_changes_something_has_the_wall(
    browser: FlaskClient, origin: str | None, site: str | None
) -> None:
    before = inboxes.everything()
    changing = [route for route in [*routes.API, *routes.PAGES, *routes.OPEN] if not route.startswith("GET")]
    assert len(changing) == 16

    for route in changing:
        answer = routes.call(browser, route, base_url=OWN, headers=headers_of(origin, site))
        assert answer.status_code == 403, route

    assert inboxes.everything() == before
    assert browser.get("/notifications/unread", base_url=OWN).status_code == 200  # nobody was signed out either


def test_looking_is_no_change_whoever_asks(browser: FlaskClient) -> None:
    for origin, site in REFUSED:
        answer = browser.get("/notifications/unread", base_url=OWN, headers=headers_of(origin, site))
        assert answer.status_code == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_without_fetch_metadata_the_origin_must_be_the_host_that_was_asked(alice: Person, publish: Publish) -> None:
    publish("alice")

    def status(host: str, origin: str) -> int:
        headers = {"Host": host, "Origin": origin}
        # Without a cookie for that name it is nobody: what matters is whether the wall is passed.
        answer = alice.browser.post("/notifications/1/read", headers=headers)
        assert answer.status_code in (200, 401, 403)
        return 403 if answer.status_code == 403 else 200

    assert status("localhost", "http://localhost") == 200
    assert status("localhost:8000", "http://localhost:8000") == 200
    assert status("127.0.0.1:8000", "http://127.0.0.1:8000") == 200
    assert status("localhost", "http://localhost:8000") == 403
    assert status("localhost:8000", "http://localhost") == 403
    assert status("localhost:8000", "http://[::1]:8000") == 403


def test_signing_in_cannot_be_done_from_another_site(browser: FlaskClient) -> None:
    form = {"username": "mallory", "password": "mallory's"}

    answer = browser.post("/login", base_url=OWN, data=form, headers={"Origin": "https://evil.com"})

    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


# CORS

NOT_ALLOWED = [
    "https://evil.com",
    "null",
    "",
    "*",
    OWN,
    "http://host.example",
    "https://host.example/",
    "https://host.example:443",
    "https://HOST.example",
    "https://host.example.evil.com",
    "https://evil.com?https://host.example",
    "https://evilhost.example",
    "https://sub.host.example",
    "https://other.example",
    f"{HOST_PAGE}, {OTHER_HOST_PAGE}",
    "https://[",
]


def cors_headers(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("Access-Control-")}


@pytest.mark.parametrize("origin", [HOST_PAGE, OTHER_HOST_PAGE])
def test_an_allowed_page_may_read_every_answer(browser: FlaskClient, another_app: MakeApp, origin: str) -> None:
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}

    def get(path: str, **more: str) -> Any:
        return browser.get(path, base_url=OWN, headers={**headers, **more})

    snapshot = get("/notifications/unread")
    answers = {
        200: snapshot,
        304: get("/notifications/unread", **{"If-None-Match": snapshot.headers["ETag"]}),
        400: browser.post(
            "/notifications/read", base_url=OWN, headers=headers, data="{", content_type="application/json"
        ),
        401: browser.application.test_client().get("/notifications/unread", base_url=OWN, headers=headers),
        404: get("/notifications/99"),
        415: browser.post("/notifications/read", base_url=OWN, headers=headers, data="x", content_type="text/plain"),
        422: get("/notifications/unread?limit=0"),
    }

    for status, answer in answers.items():
        assert answer.status_code == status
        assert cors_headers(answer) == {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "ETag, X-Poll-Interval, Retry-After",
        }
        assert "Origin" in answer.headers["Vary"]
        assert "Cookie" in answer.headers["Vary"]


def test_429_can_be_read_by_an_allowed_page(another_app: MakeApp) -> None:
    person = Person(another_app(cors_origins=HOST_PAGE, poll_limit="1 per minute"), "alice")
    person.poll()

    answer = person.get("/notifications/unread", headers={"Origin": HOST_PAGE})

    assert answer.status_code == 429
    assert answer.headers["Access-Control-Allow-Origin"] == HOST_PAGE
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


def test_no_other_page_may_read_anything(browser: FlaskClient) -> None:
    for origin in NOT_ALLOWED:
        answer = browser.get("/notifications/unread", base_url=OWN, headers={"Origin": origin})
        assert answer.status_code == 200
        assert cors_headers(answer) == {}, origin
        assert "Origin" in answer.headers["Vary"]  # a cache must not hand this answer to an allowed page


def test_vary_names_origin_where_none_was_sent(browser: FlaskClient) -> None:
    assert "Origin" in browser.get("/notifications/unread", base_url=OWN).headers["Vary"]


def test_without_cors_origins_no_page_elsewhere_may_read_anything(alice: Person) -> None:
    for origin in (HOST_PAGE, "http://localhost", "null"):
        assert cors_headers(alice.get("/notifications/unread", headers={"Origin": origin})) == {}
        assert cors_headers(alice.browser.options("/notifications/unread", headers=preflight(origin))) == {}


def test_pages_are_for_no_other_site(browser: FlaskClient) -> None:
    for path in ("/", "/login"):
        answer = browser.get(path, base_url=OWN, headers={"Origin": HOST_PAGE})
        assert cors_headers(answer) == {}
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def preflight(origin: str, method: str = "POST") -> dict[str, str]:
    return {
        "Origin": origin,
        "Sec-Fetch-Site": "cross-site",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "content-type, if-none-match",
    }


@pytest.mark.parametrize("route", routes.API)
def test_a_preflight_is_answered_for_who_is_not_signed_in(walled: flask.Flask, queries: list[str], route: str) -> None:
    method, path = route.split(" ")[0], routes.path_of(route)
    queries.clear()

    answer = walled.test_client().options(path, base_url=OWN, headers=preflight(HOST_PAGE, method))

    assert (answer.status_code, answer.data) == (204, b"")
    found = cors_headers(answer)
    assert found["Access-Control-Allow-Origin"] == HOST_PAGE
    assert found["Access-Control-Allow-Credentials"] == "true"
    assert {"GET", "POST", "PUT"} <= set(found["Access-Control-Allow-Methods"].split(", "))
    assert found["Access-Control-Allow-Headers"] == "Authorization, Content-Type, If-None-Match, Belfry-User"
    assert found["Access-Control-Max-Age"] == "7200"
    assert "Origin" in answer.headers["Vary"]
    assert queries == []


def test_a_preflight_of_another_page_allows_nothing(walled: flask.Flask) -> None:
    stranger = walled.test_client()

    for origin in NOT_ALLOWED:
        answer = stranger.options("/notifications/read", base_url=OWN, headers=preflight(origin))
        assert cors_headers(answer) == {}, origin
        assert "Origin" in answer.headers["Vary"]


def test_a_preflight_for_a_page_allows_nothing(walled: flask.Flask) -> None:
    stranger = walled.test_client()

    for path in ("/", "/login", "/logout", "/read", "/tickets/x", "/nothing/here"):
        assert cors_headers(stranger.options(path, base_url=OWN, headers=preflight(HOST_PAGE))) == {}


def test_preflights_are_not_counted(another_app: MakeApp) -> None:
    person = Person(another_app(cors_origins=HOST_PAGE, poll_limit="2 per minute"), "alice")

    for _ in range(310):  # more than any route's limit
        assert person.browser.options("/notifications/unread", headers=preflight(HOST_PAGE, "GET")).status_code == 204

    assert [person.poll().status_code for _ in range(3)] == [200, 200, 429]
    assert person.browser.options("/notifications/unread", headers=preflight(HOST_PAGE, "GET")).status_code == 204


# Static files


@pytest.mark.parametrize("origin", [None, HOST_PAGE, "https://any.example", "null"])
def test_pages_of_every_site_may_load_the_static_files(browser: FlaskClient, origin: str | None) -> None:
    headers = headers_of(origin, "cross-site")

    answer = browser.get("/static/js/poller.js", base_url=OWN, headers=headers)
    tag = answer.headers["ETag"]
    again = browser.get("/static/js/poller.js", base_url=OWN, headers={**headers, "If-None-Match": tag})

    assert (answer.status_code, again.status_code) == (200, 304)
    assert again.data == b""
    assert answer.mimetype == "text/javascript"
    for each in (answer, again):
        assert cors_headers(each) == {"Access-Control-Allow-Origin": "*"}
        assert each.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert each.headers["Cache-Control"] == "no-cache"
        assert each.headers["ETag"] == tag
        assert each.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in each.headers


# The names of the host

OUR_NAMES = [
    "localhost",
    "localhost:8000",
    "127.0.0.1",
    "127.0.0.1:9",
    "app.example",
    "app.example:8443",
    "bell.internal",
]
NOT_OUR_NAMES = [
    "evil.com",
    "app.example.evil.com",
    "evilapp.example",
    "sub.app.example",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "bell.internal@evil.com",
    "evil.com:8000",
    "evil.com?app.example",
    "app.example/evil",
    "app.example evil.com",
    "app.example, evil.com",
    "127.0.0.2",
    "[::1]:8000",  # nothing listens there
    "[",
    "\xff",
    ".",
    ".app.example",
]


def test_only_our_own_names_are_answered(another_app: MakeApp) -> None:
    app = another_app(public_url=OWN, trusted_hosts="bell.internal, other.internal")
    stranger = app.test_client()

    for name in OUR_NAMES:
        assert stranger.get("/login", headers={"Host": name}).status_code == 200, name
    for name in NOT_OUR_NAMES:
        for method, path in [
            ("GET", "/login"),
            ("GET", "/notifications/unread"),
            ("POST", "/notifications/read"),
            ("GET", "/nothing/here"),
            ("OPTIONS", "/notifications/read"),
        ]:
            answer = stranger.open(path, method=method, headers={"Host": name})
            assert answer.status_code == 400, (name, path)
            assert answer.mimetype == "application/problem+json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_foreign_host_is_400_for_browsers_and_signed_in_readers_too(alice: Person) -> None:
    # A foreign Host would be in every absolute link.
    answer = alice.get("/notifications/unread", headers={"Host": "evil.com"})
    assert answer.status_code == 400
    assert "ETag" not in answer.headers

    assert alice.get("/login", headers={"Host": "evil.com", "Accept": "text/html"}).status_code == 400
    assert alice.get("/static/js/poller.js", headers={"Host": "evil.com"}).status_code == 400


def test_headers_of_proxies_that_are_not_there_are_not_believed(alice: Person, publish: Publish) -> None:
    publish("alice")
    forwarded = {
        "X-Forwarded-Host": "evil.com",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-For": "203.0.113.1",
        "Forwarded": "host=evil.com;proto=https",
        "X-Original-URL": "/login",
        "X-HTTP-Method-Override": "DELETE",
    }

    answer = alice.get("/notifications?limit=1", headers=forwarded)
    assert answer.status_code == 200
    assert b"evil" not in answer.data
    # The Origin of the real host passes, the forwarded one does not.
    for origin, status in [("http://localhost", 200), ("http://evil.com", 403)]:
        headers = {**forwarded, "Origin": origin}
        assert alice.browser.post("/notifications/1/read", headers=headers).status_code == status
