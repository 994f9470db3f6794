"""Under which address the service lives: the prefix of `PUBLIC_URL`, the hosts it answers, the proxies it believes."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from werkzeug.test import Client, TestResponse
from werkzeug.wrappers import Response

from app import db, people, tickets
from app.publishing import Published
from tests.cast import Person
from tests.commands import run
from tests.variants import another_app, proxy_that_strips

Publish = Callable[..., Published]

PREFIX = "/belfry"
PASSWORD = "correct horse battery"
LINK = re.compile(r'(?:href|src|action|data-[a-z]+-url)="([^"]*)"')
READER = re.compile(r'name="reader" value="([^"]*)"')


@pytest.fixture
def prefixed(app: flask.Flask) -> Iterator[flask.Flask]:
    with another_app(public_url=f"https://app.example{PREFIX}") as service:
        yield service


class Reader:
    """A browser at `https://app.example` whose requests reach the service through a proxy."""

    def __init__(self, service: flask.Flask, strips: bool) -> None:
        application = proxy_that_strips(PREFIX, service) if strips else service
        self.client = Client(application, Response)

    def open(self, path: str, method: str = "GET", **options: Any) -> TestResponse:
        return self.client.open(path, method=method, base_url="https://app.example", buffered=True, **options)

    def sign_in(self, **more: str) -> TestResponse:
        return self.open(f"{PREFIX}/login", "POST", data={"username": "alice", "password": PASSWORD, **more})


@pytest.fixture(params=[False, True], ids=["the proxy leaves the prefix on", "the proxy takes the prefix off"])
def reader(app: flask.Flask, prefixed: flask.Flask, request: pytest.FixtureRequest) -> Reader:
    db.write(people.save_user, "alice", None, PASSWORD)
    return Reader(prefixed, strips=request.param)


def links(page: str) -> set[str]:
    return {link for link in LINK.findall(page) if link}


def test_every_link_of_every_page_carries_the_prefix(app: flask.Flask, reader: Reader, publish: Publish) -> None:
    publish("alice", url="/elsewhere")
    ticket = f"{PREFIX}/tickets/{db.write(tickets.make_ticket, 'alice', 60)}"
    pages = [reader.open(f"{PREFIX}/login"), reader.open(ticket)]
    assert reader.sign_in().status_code == 303
    pages += [reader.open(f"{PREFIX}/"), reader.open(f"{PREFIX}/none", headers={"Accept": "text/html"})]

    assert [page.status_code for page in pages] == [200, 200, 200, 404]
    found = [links(page.text) for page in pages]
    assert all(len(each) >= 3 for each in found)
    # A notification's own address is the host's: nothing is put before it.
    assert "/elsewhere" in found[2]
    assert all(link.startswith(f"{PREFIX}/") for each in found for link in each - {"/elsewhere"})


def test_the_files_are_there_under_the_prefix(reader: Reader) -> None:
    for link in links(reader.open(f"{PREFIX}/login").text):
        answer = reader.open(link)
        assert answer.status_code == 200, link
        assert f"{PREFIX}/static/js/poller.js" not in answer.text
    module = reader.open(f"{PREFIX}/static/js/inbox-page.js")
    assert module.status_code == 200
    # Modules name each other by relative paths, or the prefix would have to be written into them.
    imported = re.findall(r"^import .* from '([^']+)'", module.text, re.MULTILINE)
    assert imported
    assert all(path.startswith("./") for path in imported)


def test_signing_in_and_out_stays_under_the_prefix(reader: Reader) -> None:
    turned_away = reader.open(f"{PREFIX}/?x=1")
    assert (turned_away.status_code, turned_away.location) == (303, f"{PREFIX}/login?next={PREFIX}/?x%3D1")

    answer = reader.sign_in(next=f"{PREFIX}/?x=1")
    assert (answer.status_code, answer.location) == (303, f"{PREFIX}/?x=1")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert cookie.startswith("__Secure-belfry=")
    assert "Path=/belfry" in cookie.split("; ")
    assert reader.open(f"{PREFIX}/").status_code == 200
    assert reader.open(PREFIX, follow_redirects=True).status_code == 200

    assert reader.open(f"{PREFIX}/logout", "POST").location == f"{PREFIX}/login"
    assert reader.open(f"{PREFIX}/notifications/unread").status_code == 401


def test_next_outside_the_prefix_leads_to_the_inbox(reader: Reader) -> None:
    for wanted in ("/", "/other/", "//evil.example/belfry/", ""):
        assert reader.sign_in(next=wanted).location == f"{PREFIX}/"


def test_marking_on_the_page_leads_back_to_it(reader: Reader, publish: Publish) -> None:
    publish("alice")
    reader.sign_in()
    [reader_id] = set(READER.findall(reader.open(f"{PREFIX}/").text))

    answer = reader.open(f"{PREFIX}/read", "POST", data={"id": "1", "reader": reader_id})

    assert (answer.status_code, answer.location) == (303, f"{PREFIX}/#n1")
    assert reader.open(f"{PREFIX}/notifications/unread").get_json()["unread_count"] == 0


def test_the_next_page_of_a_list_carries_the_prefix(reader: Reader, publish: Publish) -> None:
    for _ in range(3):
        publish("alice")
    reader.sign_in()

    page = reader.open(f"{PREFIX}/notifications?limit=2&state=unread").get_json()

    assert page["next"].startswith(f"{PREFIX}/notifications?")
    assert [n["id"] for n in reader.open(page["next"]).get_json()["notifications"]] == [1]


def test_a_sign_in_link_is_the_public_one_and_leads_to_the_inbox(
    app: flask.Flask, prefixed: flask.Flask, reader: Reader
) -> None:
    link = run(prefixed, "user", "link", "alice").stdout.strip()
    assert link.startswith("https://app.example/belfry/tickets/")
    path = link.removeprefix("https://app.example")

    assert f'action="{path}"' in reader.open(path).text
    answer = reader.open(path, "POST")

    assert (answer.status_code, answer.location) == (303, f"{PREFIX}/")
    assert reader.open(f"{PREFIX}/notifications/unread").get_json()["user"] == "alice"


def test_a_path_that_only_begins_like_the_prefix_is_not_under_it(prefixed: flask.Flask) -> None:
    reader = Reader(prefixed, strips=False)

    assert reader.open("/belfrylogin").status_code == 404
    assert reader.open("/belfry-login").status_code == 404
    assert reader.open(f"{PREFIX}{PREFIX}/login").status_code == 404


def test_without_a_public_url_links_lead_to_this_machine(app: flask.Flask, alice: Person) -> None:
    with another_app(port=8123) as service:
        assert run(service, "user", "link", "alice").stdout.startswith("http://127.0.0.1:8123/tickets/")


# Hosts


def test_only_known_hosts_are_answered(app: flask.Flask) -> None:
    with another_app(public_url="https://app.example/belfry", trusted_hosts="Bell.internal, .wide.example") as service:
        known = [
            "app.example",
            "app.example:443",
            "app.example:8000",
            "localhost:8000",
            "127.0.0.1",
            "bell.internal",
            "wide.example",
            "a.wide.example",
        ]
        unknown = [
            "evil.example",
            "app.example.evil.example",
            "xapp.example",
            "a.bell.internal",
            "",
            "app.example@evil.example",
        ]
        for host in known:
            assert service.test_client().get("/login", headers={"Host": host}).status_code == 200, host
        for host in unknown:
            assert service.test_client().get("/login", headers={"Host": host}).status_code == 400, host


def test_a_public_url_of_numbers_is_a_known_host(app: flask.Flask) -> None:
    with another_app(public_url="http://192.0.2.1:8000") as service:
        assert service.test_client().get("/login", headers={"Host": "192.0.2.1:8000"}).status_code == 200


@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/json"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/login", "/notifications/unread", "/static/favicon.svg", "/none"])
def test_an_unknown_host_is_refused_plainly_wherever_it_asks(
    alice: Person, accept: str, method: str, path: str
) -> None:
    headers = {"Host": "evil.example", "Accept": accept, "Origin": "http://evil.example"}

    answer = alice.browser.open(path, method=method, headers=headers, base_url="http://localhost")

    assert answer.status_code in (400, 403)
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_forwarded_host_is_never_believed(app: flask.Flask) -> None:
    for count in (0, 1):
        with another_app(trusted_proxies=count) as service:
            forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Port": "1"}
            answer = service.test_client().get("/", headers=forged)
            assert answer.location == "/login?next=/"
            assert "evil" not in service.test_client().get("/login", headers=forged).text


# Proxies


def test_the_scheme_that_a_trusted_proxy_names_is_believed_and_nobody_elses(app: flask.Flask, alice: Person) -> None:
    """A redirect to the path without its double slash is the one answer that names the scheme."""
    for count, scheme in [(0, "http"), (1, "https")]:
        with another_app(trusted_proxies=count) as service:
            answer = service.test_client().get("/notifications//unread", headers={"X-Forwarded-Proto": "https"})
            assert answer.status_code == 308
            assert answer.location == f"{scheme}://localhost/notifications/unread"
