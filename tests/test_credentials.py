"""Every route × every kind of credential × own, foreign and unknown ids, held against the route table."""

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import flask
import jwt
import pytest
from flask.testing import FlaskClient

from app import db, keys, publishing
from app.events import Event
from app.publishing import Order
from app.validation import check
from tests import inboxes, rows
from tests.cast import Person
from tests.hosts import Host, event
from tests.variants import another_app

SECRET = "a secret that the host and the service share"


class Route(NamedTuple):
    """Who may call a route (`reader`, `page`, `everybody`, or a scope), what it answers then, and what it takes."""

    who: str
    status: int
    body: Any = None


ROUTES = {
    "GET /notifications": Route("reader", 200),
    "GET /notifications/unread": Route("reader", 200),
    "GET /notifications/<int:id>": Route("reader", 200),
    "POST /notifications/<int:id>/read": Route("reader", 200),
    "POST /notifications/<int:id>/unread": Route("reader", 200),
    "POST /notifications/<int:id>/archive": Route("reader", 200),
    "POST /notifications/<int:id>/unarchive": Route("reader", 200),
    "POST /notifications/read": Route("reader", 200, {"through": 0}),
    "POST /notifications/unread": Route("reader", 200, {"ids": [1]}),
    "POST /notifications/archive": Route("reader", 200, {"ids": [1]}),
    "POST /notifications/seen": Route("reader", 200, {"through": 0}),
    "POST /notifications/undo": Route("reader", 404, {"undo": 2**62}),
    "GET /preferences": Route("reader", 200),
    "PUT /preferences/<type>": Route("reader", 200, {"muted": True}),
    "POST /api/v1/events": Route("publish", 201, event("somebody")),
    "POST /api/v1/events/batch": Route("publish", 201, {"events": [event("somebody")]}),
    "GET /api/v1/events/<int:id>": Route("publish", 200),
    "DELETE /api/v1/events/<int:id>": Route("publish", 200),
    "PUT /api/v1/users/<subject>": Route("people", 200, {"display_name": "Carol"}),
    "DELETE /api/v1/users/<subject>": Route("people", 204),
    "GET /api/v1/users/<subject>/export": Route("people", 200),
    "POST /api/v1/users/<subject>/sign-out": Route("people", 204),
    "POST /api/v1/tickets": Route("tickets", 201, {"user": "alice"}),
    "GET /": Route("page", 200),
    "POST /<any(read, unread, archive, unarchive, seen):verb>": Route("page", 303, {"through": "0"}),
    "POST /undo": Route("page", 303, {"undo": "1"}),
    "GET /types": Route("page", 200),
    "POST /types": Route("page", 303, {"type": "comment", "muted": "1"}),
    "GET /login": Route("everybody", 200),
    "POST /login": Route("everybody", 401, {"username": "alice", "password": "wrong"}),
    "POST /logout": Route("everybody", 303, {}),
    "GET /tickets/<ticket>": Route("everybody", 404),
    "POST /tickets/<ticket>": Route("everybody", 404, {}),
    "GET /openapi.json": Route("everybody", 200),
    "GET /livez": Route("everybody", 200),
    "GET /metrics": Route("everybody", 200),
    "GET /readyz": Route("everybody", 200),
    "GET /doctor": Route("everybody", 404),
    "GET /static/<path:filename>": Route("everybody", 200),
}
FORMS = {
    "POST /<any(read, unread, archive, unarchive, seen):verb>",
    "POST /undo",
    "POST /types",
    "POST /login",
    "POST /logout",
    "POST /tickets/<ticket>",
}


class World:
    """Two readers, two senders, and fresh ids of each for every call."""

    def __init__(self, app: flask.Flask) -> None:
        self.app = app
        self.alice, self.mallory = Person(app, "alice"), Person(app, "mallory")
        self.host, self.other_host = Host(app), Host(app)
        self.numbers = itertools.count(1)
        # Mallory's inbox is ahead: her ids are numbers that alice's does not have yet.
        rows.change("UPDATE users SET inbox_version = 1000000 WHERE subject = 'mallory'")
        self._publish("mallory", "met-by-mallory")
        self.ids: dict[str, dict[str, Callable[[], Any]]] = {
            "/notifications/<int:id>": {
                "own": lambda: self._arrived(self.alice),
                "foreign": lambda: self._arrived(self.mallory),
                "unknown": lambda: 2**62,
            },
            "/events/<int:id>": {
                "own": lambda: self._publish("mallory", sender=self.host),
                "foreign": lambda: self._publish("mallory"),
                "unknown": lambda: 2**62,
            },
            "<type>": {
                "own": self._met,
                "foreign": lambda: "met-by-mallory",
                "unknown": lambda: "never-met",
            },
            "<subject>": {"own": self._carol, "unknown": lambda: f"nobody-{next(self.numbers)}"},
            "<ticket>": {"unknown": lambda: "unknown"},
            "<any(read, unread, archive, unarchive, seen):verb>": {"own": lambda: "read"},
            "<path:filename>": {"own": lambda: "js/poller.js"},
        }

    def _arrived(self, person: Person) -> int:
        self._publish(person.subject)
        return inboxes.version(person)

    def _publish(self, subject: str, type: str = "comment", sender: Host | None = None) -> int:
        order = Order(check(Event, {"type": type, "title": "An event"}), [subject])
        prefix = (sender or self.other_host).prefix
        key_id = rows.one("SELECT id FROM api_keys WHERE prefix = :prefix", prefix=prefix)
        [done] = db.write(publishing.publish, [order], timedelta(days=1), key_id)
        return done.event_id

    def _met(self) -> str:
        name = f"type-{next(self.numbers)}"
        self._publish("alice", name)
        return name

    def _carol(self) -> str:
        subject = f"carol-{next(self.numbers)}"
        Person(self.app, subject)
        return subject

    def addresses(self, rule: str) -> Iterator[tuple[str, str]]:
        """Whose id, and the path with a fresh one; of a route without ids, the path."""
        for variable, whose in self.ids.items():
            if variable in rule:
                name = variable[variable.index("<") :]
                for owner, make in whose.items():
                    yield owner, rule.replace(name, str(make()))
                return
        assert "<" not in rule, rule
        yield "own", rule


@pytest.fixture
def world(app: flask.Flask) -> Iterator[World]:
    with another_app(jwt_key=SECRET) as trusting, trusting.app_context():
        yield World(trusting)


def token(secret: str = SECRET, seconds: int = 300) -> str:
    return jwt.encode({"sub": "alice", "exp": int(time.time()) + seconds}, secret, "HS256")


def bearer(world: World, given: str) -> FlaskClient:
    browser = world.app.test_client()
    browser.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {given}"
    return browser


# Each leaves the world with one kind of credential, and gives the browser that holds it.


def none(world: World) -> FlaskClient:
    return world.app.test_client()


def good_session(world: World) -> FlaskClient:
    return world.alice.browser


def ended_session(world: World) -> FlaskClient:
    cookie = world.alice.browser.get_cookie("belfry")
    assert cookie is not None
    world.alice.browser.post("/logout", data={})
    replaying = world.app.test_client()
    replaying.set_cookie("belfry", cookie.value)
    return replaying


def session_of_an_older_epoch(world: World) -> FlaskClient:
    assert world.host.call("POST", "/users/alice/sign-out").status_code == 204
    return world.alice.browser


def session_of_somebody_disabled(world: World) -> FlaskClient:
    assert world.host.call("PUT", "/users/alice", {"is_active": False}).status_code == 200
    return world.alice.browser


def good_token(world: World) -> FlaskClient:
    return bearer(world, token())


def expired_token(world: World) -> FlaskClient:
    return bearer(world, token(seconds=-61))


def token_signed_by_somebody_else(world: World) -> FlaskClient:
    return bearer(world, token("a secret that nobody shares with us"))


def token_of_somebody_disabled(world: World) -> FlaskClient:
    session_of_somebody_disabled(world)
    return bearer(world, token())


def good_key(world: World) -> FlaskClient:
    return bearer(world, world.host.key)


def expired_key(world: World) -> FlaskClient:
    lost = Host(world.app)
    rows.change("UPDATE api_keys SET expires_at = now() WHERE prefix = :prefix", prefix=lost.prefix)
    return bearer(world, lost.key)


def revoked_key(world: World) -> FlaskClient:
    lost = Host(world.app)
    rows.change("UPDATE api_keys SET revoked_at = now() WHERE prefix = :prefix", prefix=lost.prefix)
    return bearer(world, lost.key)


def malformed_key(world: World) -> FlaskClient:
    return bearer(world, world.host.key[:-1])


def key_with_a_wrong_secret(world: World) -> FlaskClient:
    return bearer(world, world.host.key[:-8] + "00000000")


def expired_key_beside_a_good_session(world: World) -> FlaskClient:
    browser = world.alice.browser
    browser.environ_base["HTTP_AUTHORIZATION"] = expired_key(world).environ_base["HTTP_AUTHORIZATION"]
    return browser


def without_publish(world: World) -> FlaskClient:
    return bearer(world, Host(world.app, "people", "tickets").key)


def without_people(world: World) -> FlaskClient:
    return bearer(world, Host(world.app, "publish", "tickets").key)


def without_tickets(world: World) -> FlaskClient:
    return bearer(world, Host(world.app, "publish", "people").key)


READERS = {good_session, good_token}
SCOPES: dict[Callable[[World], FlaskClient], set[str]] = {
    good_key: set(keys.SCOPES),
    without_publish: {"people", "tickets"},
    without_people: {"publish", "tickets"},
    without_tickets: {"publish", "people"},
}
WORTHLESS = [
    none,
    ended_session,
    session_of_an_older_epoch,
    session_of_somebody_disabled,
    expired_token,
    token_signed_by_somebody_else,
    token_of_somebody_disabled,
    expired_key,
    revoked_key,
    malformed_key,
    key_with_a_wrong_secret,
    expired_key_beside_a_good_session,
]
CREDENTIALS = [*READERS, *SCOPES, *WORTHLESS]


def expected(credential: Callable[[World], FlaskClient], name: str, owner: str) -> int:
    """The status, by rule."""
    route = ROUTES[name]
    if route.who == "everybody":
        return route.status
    if route.who == "page":
        return route.status if credential in READERS else 303
    if route.who == "reader":
        may = credential in READERS
    else:
        may = route.who in SCOPES.get(credential, set())
        if not may:
            return 403 if credential in SCOPES else 401
        # The keys without a scope are not the one that published.
        if "/events/<int:id>" in name and credential is not good_key:
            return 404
    if not may:
        return 401
    if name.startswith("PUT /api/v1/users"):
        return 200 if owner == "own" else 201
    return route.status if owner == "own" else 404


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda credential: credential.__name__)
def test_every_route_answers_each_credential_by_rule(world: World, credential: Callable[[World], FlaskClient]) -> None:
    browser = credential(world)
    wrong = []
    for name, route in ROUTES.items():
        method, rule = name.split(" ", 1)
        for owner, path in world.addresses(rule):
            if name == "POST /logout" and credential in READERS:
                continue  # shown by the tests of signing out; here it would end the credential itself
            options: dict[str, Any] = {} if route.body is None else {"json": route.body}
            if name in FORMS:
                options = {"data": route.body}
            status = expected(credential, name, owner)
            refused = status in (401, 403, 404)
            before = inboxes.everything() if refused else []
            with browser.open(path, method=method, **options) as answer:
                answer.get_data()
            if answer.status_code != status:
                wrong.append(f"{name} {owner}: {answer.status_code} instead of {status}")
            if answer.headers.get("WWW-Authenticate") != ("Bearer" if status == 401 else None):
                wrong.append(f"{name} {owner}: {status} with {answer.headers.get('WWW-Authenticate')}")
            if refused and inboxes.everything() != before:
                wrong.append(f"{name} {owner}: {status}, and something was changed")
            if refused and route.who != "everybody" and answer.mimetype != "application/problem+json":
                wrong.append(f"{name} {owner}: {answer.mimetype}")
            if route.who == "page" and credential not in READERS and "/login" not in answer.headers["Location"]:
                wrong.append(f"{name}: leads to {answer.headers['Location']}")
    assert wrong == []


def test_every_route_has_its_place_in_the_matrix(app: flask.Flask) -> None:
    there = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert there == set(ROUTES)


def test_foreign_and_unknown_ids_are_answered_alike(world: World) -> None:
    browsers = {"reader": good_session(world), "publish": good_key(world)}
    for name, route in ROUTES.items():
        method, rule = name.split(" ", 1)
        if route.who not in browsers or "<" not in rule:
            continue
        bodies = []
        for owner, path in world.addresses(rule):
            options = {} if route.body is None else {"json": route.body}
            if owner != "own":
                answer = browsers[route.who].open(path, method=method, **options)
                bodies.append({**answer.get_json(), "request_id": ""})
        assert len(bodies) == 2
        assert bodies[0] == bodies[1], name
