"""What strangers may try that no other test is about: forged proxies, secrets that everybody knows, columns by name."""

import json
import os
import secrets
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from app import db, keys, people, settings, tickets
from app.models import metadata
from app.settings import Settings, SettingsError
from tests import inboxes, routes, rows
from tests.cast import Person
from tests.hosts import Host, errors_of, event
from tests.service import running_service
from tests.variants import another_app

DEEP = "BELFRY_TEST_DEEP" in os.environ
PASSWORD = "correct horse battery"

# Proxies


@pytest.mark.parametrize(
    "scheme", ["javascript", "", "http://evil.example/", "//", "https,javascript", "HTTPS", "\xe9"]
)
def test_a_forwarded_scheme_that_is_none_leads_nowhere_else(app: flask.Flask, scheme: str) -> None:
    """A redirect to the path without its double slash is the one answer that names the scheme."""
    with another_app(trusted_proxies=1) as behind:
        answer = behind.test_client().get("/notifications//unread", headers={"X-Forwarded-Proto": scheme})
    assert (answer.status_code, answer.location) == (308, "http://localhost/notifications/unread")


# What a header of fewer entries than there are proxies, or of none, is counted as: the connection's own address.
FORWARDED = {
    "too few": ("203.0.113.7", "10.0.0.1"),
    "none": ("", "10.0.0.1"),
    "as many": ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
    "one more, forged": ("192.0.2.66, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
    "many more, forged": ("192.0.2.66, " * 500 + "203.0.113.7, 10.0.0.2", "203.0.113.7"),
    "this machine, forged": ("127.0.0.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
    "no address": ("nonsense, 10.0.0.2", "unknown"),
    "a long one": ("x" * 7000 + ", 10.0.0.2", "unknown"),
    "markup": ("<script>, 10.0.0.2", "unknown"),
    "an address with a port": ("203.0.113.7:4711, 10.0.0.2", "203.0.113.7"),
    "an IPv6 address": ("2001:db8::1, 10.0.0.2", "2001:db8::/64"),
}


@pytest.mark.parametrize("given", FORWARDED)
def test_behind_two_proxies_exactly_the_second_entry_from_the_end_is_believed(app: flask.Flask, given: str) -> None:
    forwarded, counted = FORWARDED[given]
    with another_app(trusted_proxies=2) as behind:
        answer = behind.test_client().post(
            "/login",
            data={"username": "nobody", "password": "x"},
            headers={"X-Forwarded-For": forwarded},
            environ_base={"REMOTE_ADDR": "10.0.0.1"},
        )
    assert answer.status_code == 401
    [key] = rows.column("SELECT key FROM rate_limits WHERE key LIKE '%address%'")
    assert f"address/{counted}/" in key


# Secrets


KNOWN_TO_EVERYBODY = [
    "changeme" * 5,
    "change-me-to-something-random-please",
    "CHANGE_THIS_TO_A_LONG_RANDOM_STRING_1234",
    "put your secret key here, 32 characters",
    "replace me with openssl rand -base64 32",
    "x" * 64,
    "12345" * 10,
    "-" * 32,
]


@pytest.mark.parametrize("name", ["secret_key", "secret_key_fallbacks", "jwt_key"])
@pytest.mark.parametrize("value", KNOWN_TO_EVERYBODY)
def test_a_secret_out_of_an_example_is_refused_and_not_shown(name: str, value: str) -> None:
    value = value.replace(",", " ")
    with pytest.raises(SettingsError) as refusal:
        settings.load(**{name: value})
    assert refusal.value.message.startswith(f"{name.upper()}: must be random")
    assert value not in refusal.value.message


def test_every_random_secret_is_accepted() -> None:
    for made in (secrets.token_hex(16), secrets.token_hex(32), secrets.token_urlsafe(24), secrets.token_urlsafe(64)):
        assert settings.load(secret_key=made, secret_key_fallbacks=[made], jwt_key=made).secret_key == made


# A value of each that differs from its default, as it stands in a file.
IN_FILES = {
    "database_url": "postgresql://h/n",
    "secret_key": "a secret key of forty characters or more",
    "secret_key_fallbacks": "a former secret key of forty characters, the one before that of forty characters",
    "bind": "127.0.0.2",
    "public_url": "https://app.example/belfry",
    "trusted_hosts": "bell.internal, .wide.example",
    "cors_origins": "https://app.example",
    "image_origins": "https://pictures.example",
    "jwt_key": "a secret that the host and the service share",
    "changes_database_url": "postgresql://h/n",
    "poll_limit": "99 per minute",
    "epoch": "after-restore",
    "jwt_audience": "belfry",
    "jwt_issuer": "app.example",
    "fast_path": "0",
    "log_level": "error",
    "metrics_allow": "10.0.0.0/8",
    "ratelimit_storage_uri": "redis://127.0.0.1/0",
}


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in ("jwt_algorithms",)])
def test_each_setting_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    usual = getattr(settings.load(), name)
    content = IN_FILES.get(name) or (str(int(usual + 1)) if isinstance(usual, int | float) else "")
    monkeypatch.setenv("SECRET_KEY", IN_FILES["secret_key"] + "!")
    by_variable = {}
    (tmp_path / name).write_text(f"{content}\n")
    for variable, value in ((name.upper(), content), (f"{name.upper()}_FILE", str(tmp_path / name))):
        with monkeypatch.context() as one:
            if name == "secret_key":
                one.delenv("SECRET_KEY")
            one.setenv(variable, value)
            by_variable[variable] = getattr(settings.load(), name)
    assert by_variable[name.upper()] == by_variable[f"{name.upper()}_FILE"]
    assert by_variable[name.upper()] != usual


def test_nothing_in_the_database_opens_a_door(app: flask.Flask, alice: Person) -> None:
    """Whoever reads a stolen dump has no key, no sign-in link, no password and no session."""
    db.write(people.save_user, "alice", None, PASSWORD)
    host, person = Host(app), Person(app, "alice")
    ticket = db.write(tickets.make_ticket, "alice", 600)
    host.publish("alice", key="a key of idempotency")
    person.browser.post("/logout")
    app.test_client().post("/login", data={"username": "alice", "password": PASSWORD})
    cookie = person.browser.get_cookie("belfry") or alice.browser.get_cookie("belfry")
    assert cookie is not None

    dump = json.dumps([[str(value) for value in row] for table in metadata.sorted_tables for row in all_of(table.name)])

    assert len(dump) > 1_000
    for secret in (host.key, host.key.split("_")[2], ticket, PASSWORD, cookie.value, app.config["SECRET_KEY"]):
        assert secret not in dump
    digest = str(rows.one("SELECT digest FROM api_keys"))
    as_key = app.test_client().get("/api/v1/events/1", headers={"Authorization": f"Bearer blf_{host.prefix}_{digest}"})
    assert as_key.status_code == 401
    assert app.test_client().get(f"/tickets/{rows.one('SELECT digest FROM tickets')}").status_code == 404


def all_of(table: str) -> Any:
    return inboxes.run(f"SELECT * FROM {table}")


def test_no_statement_holds_what_a_caller_sent(app: flask.Flask, alice: Person, queries: list[str]) -> None:
    """Values are bound: none of them is ever a part of the SQL."""
    mark = "zqx7"
    host = Host(app)
    browser = alice.browser
    host.publish("alice", f"{mark}-b", type=mark, title=mark, body=mark, group_key=mark, data={mark: mark}, key=mark)
    host.call("PUT", f"/users/{mark}", {"display_name": mark})
    host.call("GET", f"/users/{mark}/export")
    host.call("POST", "/tickets", {"user": mark})
    host.call("DELETE", f"/users/{mark}")
    answers = [
        browser.get(f"/notifications?type={mark}"),
        browser.get(f"/?type={mark}"),
        browser.put(f"/preferences/{mark}", json={"muted": True}),
        browser.post("/types", data={"type": mark, "muted": "1"}),
        browser.get("/notifications/unread", headers={"Belfry-User": mark}),
        browser.get("/notifications/unread", headers={"If-None-Match": f'"{mark}"'}),
        browser.get(f"/tickets/{mark}"),
        app.test_client().post("/login", data={"username": mark, "password": mark, "next": f"/{mark}"}),
        app.test_client().get("/api/v1/events/1", headers={"Authorization": f"Bearer blf_{'0' * 12}_{mark}"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 303, 412, 200, 404, 401, 401]
    assert len(queries) > 30
    assert [statement for statement in queries if mark in statement] == []


# Columns by name (mass assignment)


COLUMNS = sorted({column.name for table in metadata.sorted_tables for column in table.columns} | {"is_read", "user"})


def by_fives(columns: set[str]) -> list[list[str]]:
    ordered = sorted(columns)
    return [ordered[start : start + 5] for start in range(0, len(ordered), 5)]


def test_a_reader_sets_no_column_by_its_name(alice: Person, mallory: Person, publish: Callable[..., Any]) -> None:
    publish("alice", "mallory")
    before = inboxes.everything()
    accepted = []
    for route, body in routes.API.items():
        if route.startswith("GET"):
            continue
        for columns in by_fives(set(COLUMNS) - set(body or ()) - {"ids", "through"}):
            given = {**(body or {}), **dict.fromkeys(columns, 1)}
            answer = alice.browser.open(routes.path_of(route), method=route.split(" ")[0], json=given)
            if answer.status_code != 422 or set(errors_of(answer)) != set(columns):
                accepted.append(f"{route} {columns}: {answer.status_code} {answer.text}")
    assert accepted == []
    assert inboxes.everything() == before


def test_a_sender_sets_no_column_by_its_name(app: flask.Flask, alice: Person) -> None:
    host = Host(app)
    optional = {"body", "url", "actor", "data", "priority", "group_key", "expires_at", "expires_in"}
    calls: list[tuple[str, str, dict[str, Any], set[str]]] = [
        ("POST", "/events", event("alice"), optional),
        ("PUT", "/users/alice", {"display_name": "Alice"}, {"is_active"}),
        ("POST", "/tickets", {"user": "alice"}, {"return_to"}),
    ]
    before = inboxes.everything()
    accepted = []
    for method, path, body, allowed in calls:
        for columns in by_fives(set(COLUMNS) - set(body) - allowed):
            answer = host.call(method, path, {**body, **dict.fromkeys(columns, 1)})
            if answer.status_code != 422 or set(errors_of(answer)) != set(columns):
                accepted.append(f"{method} {path} {columns}: {answer.status_code} {answer.text}")
    assert accepted == []
    assert inboxes.everything() == before


# Time


def how_often_slower(one: list[float], other: list[float]) -> float:
    """Mann and Whitney's U as a part of all pairs: 0.5 where nobody can tell one from the other."""
    return statistics.mean((a > b) + (a == b) / 2 for a in one for b in other)


def test_nobody_can_tell_a_known_key_from_an_unknown_one_by_time(
    app: flask.Flask, anonymous: FlaskClient, host: Host
) -> None:
    rounds = 600 if DEEP else 120
    unknown, wrong = f"blf_{'0' * 12}_{'1' * 64}", f"blf_{host.prefix}_{'1' * 64}"
    times: dict[str, list[float]] = {unknown: [], wrong: []}
    for _ in range(rounds):
        for key, taken in times.items():
            began = time.process_time()
            assert db.read(keys.find, key) is None
            taken.append(time.process_time() - began)
    # By chance alone 120 of each give 0.5 ± 0.04, and 600 ± 0.017.
    assert abs(how_often_slower(times[unknown], times[wrong]) - 0.5) < (0.1 if DEEP else 0.2)


def test_nobody_can_tell_a_known_name_from_an_unknown_one_by_time(app: flask.Flask) -> None:
    db.write(people.save_user, "ada", None, PASSWORD)
    times: dict[str, list[float]] = {"ada": [], "nobody": []}
    for number in range(150 if DEEP else 8):
        for name, taken in times.items():
            inboxes.run("DELETE FROM rate_limits")
            began = time.process_time()
            answer = app.test_client().post("/login", data={"username": name, "password": f"wrong {number}"})
            taken.append(time.process_time() - began)
            assert answer.status_code == 401
    # Of 8 each, one is always the slower once in 13,000 times by chance; without a hash it always is.
    assert abs(how_often_slower(times["ada"], times["nobody"]) - 0.5) < (0.2 if DEEP else 0.5)


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


# The process


def test_gunicorn_opens_no_socket_for_control(tmp_path: Path) -> None:
    """Whoever can write to it stops the service; it would be in a folder of its own in one of these."""
    with running_service(WEB_CONCURRENCY="1", HOME=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path)):
        assert list(tmp_path.iterdir()) == []
