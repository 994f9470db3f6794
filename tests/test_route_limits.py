"""Every route has a limit, but for those that are listed here with their reasons; each limit is tripped."""

import re
from collections.abc import Iterator

import flask
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import limits, settings, shared_counters
from tests import postgres, routes, rows
from tests.cast import Person
from tests.hosts import Host
from tests.variants import another_app

# A worker of so many has only a small part of each limit, which is soon used up.
WORKERS = 64

EXEMPT = {
    "GET /static/<path:filename>": "no database is asked and nothing computed; the proxy limits requests by address",
    "GET /livez": "whoever watches the service must not be told to come back later",
    "GET /readyz": "the same; it asks the database at most twice a second",
    "GET /metrics": "the same; to everybody but METRICS_ALLOW it says 404 and asks nothing",
}
LIMITED = sorted({**routes.API, **routes.PAGES, **routes.OPEN}.keys() - EXEMPT.keys())
BULK = {f"POST /notifications/{verb}" for verb in ("read", "unread", "archive", "seen")}
SENDERS = [(method, path) for method, path, _ in routes.SENDERS]


@pytest.fixture
def small(app: flask.Flask) -> Iterator[flask.Flask]:
    """One worker of many."""
    with another_app(web_concurrency=WORKERS) as small:
        yield small


def at(app: flask.Flask, address: str) -> FlaskClient:
    """A stranger at an address."""
    browser = app.test_client()
    browser.environ_base["REMOTE_ADDR"] = address
    return browser


def require_refusal(answer: TestResponse, longest: int = 61) -> None:
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= longest
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["status"] == 429
    assert answer.get_json()["detail"] == "Too many requests. Try again later."


def part(rate: str) -> int:
    """What one worker allows of a limit."""
    return max(1, int(rate.split()[0]) // WORKERS)


def test_every_route_is_limited_or_exempt_for_a_reason(app: flask.Flask) -> None:
    exempt = routes.of(app) & EXEMPT.keys()

    assert routes.of(app) == {*LIMITED, *exempt}
    assert {(method, f"/api/v1{path}") for method, path in SENDERS} == {
        (method, rule.rule.replace("<subject>", "alice").replace("<int:id>", "1"))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/v1/")
    }


@pytest.mark.parametrize("route", LIMITED)
def test_each_route_stops_who_calls_too_often_and_nobody_else(small: flask.Flask, route: str) -> None:
    if route in routes.OPEN:
        caller, other = at(small, "192.0.2.1"), at(small, "192.0.2.2")
    else:
        caller, other = Person(small, "alice").browser, Person(small, "mallory").browser
    allowed = part(limits.BULK if route in BULK else limits.CALLS)
    if route == "GET /notifications/unread":
        allowed = part(settings.current().poll_limit)
    headers = {"Accept": "application/problem+json"}

    answers = [routes.call(caller, route, headers=headers) for _ in range(allowed + 1)]

    assert 429 not in [answer.status_code for answer in answers[:-1]]
    require_refusal(answers[-1])
    assert routes.call(other, route, headers=headers).status_code != 429


@pytest.mark.parametrize(("method", "path"), SENDERS)
def test_each_route_of_senders_stops_a_key_that_calls_too_often_and_no_other(
    app: flask.Flask, method: str, path: str
) -> None:
    host = Host(app)
    host.call(method, path, {})
    assert rows.change("UPDATE rate_limits SET count = :most", most=limits.CALLS_PER_KEY.amount) == 1

    require_refusal(host.call(method, path, {}))
    assert Host(app).call(method, path, {}).status_code != 429


@pytest.mark.parametrize(("method", "path"), SENDERS)
def test_each_route_of_senders_stops_an_address_without_a_good_key(small: flask.Flask, method: str, path: str) -> None:
    stranger = at(small, "192.0.2.1")
    answers = [stranger.open(f"/api/v1{path}", method=method) for _ in range(part(limits.REFUSED_CALLS) + 1)]

    assert {answer.status_code for answer in answers[:-1]} == {401}
    require_refusal(answers[-1])
    assert at(small, "192.0.2.2").open(f"/api/v1{path}", method=method).status_code == 401


def test_the_verbs_that_change_many_share_one_limit(small: flask.Flask) -> None:
    alice = Person(small, "alice").browser
    statuses = [routes.call(alice, route).status_code for route in sorted(BULK)]

    assert statuses.count(429) == len(BULK) - part(limits.BULK)


def test_the_page_on_limits_has_the_codes_numbers() -> None:
    page = (postgres.ROOT / "docs/limits.md").read_text()
    account, address = limits.SIGN_INS_PER_ACCOUNT, limits.SIGN_INS_PER_ADDRESS

    for said in (
        f"{limits.CALLS} per session",
        f"{limits.BULK} per session",
        f"{account.amount} per {account.multiples} minutes per account and {address.amount} per address",
        f"{limits.CALLS_PER_KEY.amount} per minute per key",
        f"{limits.REFUSED_CALLS} per address",
        f"longer than {shared_counters.PATIENCE} s",
        f"{shared_counters.FIRST_PAUSE:.0f} to {shared_counters.LONGEST_PAUSE:.0f} s",
    ):
        assert said in page, said
    commands = set(
        re.findall(r"redis\.call\('(\w+)'", shared_counters.COUNT + shared_counters.PEEK + shared_counters.REGISTER)
    )
    assert commands <= set(re.findall(r"`([A-Z]+)`", page))
    assert shared_counters.KEPT_OUT == 10  # "a tenth"


def test_what_is_exempt_answers_however_often_it_is_asked(small: flask.Flask) -> None:
    for route in routes.of(small) & EXEMPT.keys():
        stranger = at(small, "192.0.2.1")
        usual = 404 if route == "GET /metrics" else 200
        assert {routes.call(stranger, route).status_code for _ in range(part(limits.CALLS) + 10)} == {usual}, route


def test_preflights_are_not_counted(app: flask.Flask) -> None:
    with another_app(web_concurrency=WORKERS, cors_origins=["https://app.example"]) as small:
        asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        stranger = at(small, "192.0.2.1")

        statuses = {
            stranger.options("/notifications", headers=asks).status_code for _ in range(part(limits.CALLS) + 10)
        }

    assert statuses == {204}


def test_an_address_of_many_readers_is_never_their_limit(small: flask.Flask) -> None:
    for number in range(part(limits.CALLS) + 3):
        assert Person(small, f"colleague {number}").get("/preferences").status_code == 200


def test_many_addresses_do_not_give_one_session_more(small: flask.Flask) -> None:
    alice = Person(small, "alice").browser
    answers = [
        alice.get("/preferences", environ_base={"REMOTE_ADDR": f"192.0.2.{number}"})
        for number in range(part(limits.CALLS) + 1)
    ]

    require_refusal(answers[-1])


def test_many_addresses_of_one_ipv6_network_do_not_give_a_stranger_more(small: flask.Flask) -> None:
    answers = [
        at(small, f"2001:db8:1:2::{number:x}").get("/login", headers={"Accept": "application/json"})
        for number in range(part(limits.CALLS) + 1)
    ]

    assert answers[-1].status_code == 429
    assert at(small, "2001:db8:1:3::1").get("/login").status_code == 200


def test_guesses_from_many_addresses_reach_no_password_beyond_the_accounts_limit(app: flask.Flask) -> None:
    """And the account is not locked: its window ends."""
    guessed = [
        at(app, f"192.0.2.{number % 50}").post("/login", data={"username": "ada", "password": str(number)}).status_code
        for number in range(60)
    ]

    assert guessed == [401] * limits.SIGN_INS_PER_ACCOUNT.amount + [429] * (60 - limits.SIGN_INS_PER_ACCOUNT.amount)
    rows.change("UPDATE rate_limits SET expires_at = now()")
    assert at(app, "192.0.2.99").post("/login", data={"username": "ada", "password": "x"}).status_code == 401
