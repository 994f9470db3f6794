"""How often one may try to sign in: per account and per address, counted in PostgreSQL, before any hashing."""

import hashlib
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import counters, db, limits, people, tickets
from tests import rows
from tests.variants import another_app

PASSWORD = "correct horse battery"
PER_ACCOUNT = limits.SIGN_INS_PER_ACCOUNT.amount
PER_ADDRESS = limits.SIGN_INS_PER_ADDRESS.amount


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every password that is hashed from here on."""
    hashed: list[bytes] = []
    real = hashlib.scrypt

    def scrypt(password: bytes, **parameters: Any) -> bytes:
        hashed.append(password)
        return real(password, **parameters)

    monkeypatch.setattr(hashlib, "scrypt", scrypt)
    return hashed


def attempt(
    app: flask.Flask, username: str, address: str = "192.0.2.1", password: str = "wrong", forwarded: str | None = None
) -> TestResponse:
    return app.test_client().post(
        "/login",
        data={"username": username, "password": password},
        environ_base={"REMOTE_ADDR": address},
        headers={"X-Forwarded-For": forwarded} if forwarded else {},
    )


def fill(which: str, count: int) -> None:
    """Lets a counter that exists stand at `count`, as after so many attempts."""
    assert rows.change("UPDATE rate_limits SET count = :count WHERE key LIKE :key", count=count, key=f"%{which}%") == 1


def test_an_account_has_ten_tries_from_wherever_they_come(app: flask.Flask, hashes: list[bytes]) -> None:
    for number in range(PER_ACCOUNT):
        assert attempt(app, "ada", f"192.0.2.{number}").status_code == 401
    hashes.clear()

    refused = attempt(app, "ada", "198.51.100.1")

    assert refused.status_code == 429
    assert hashes == []
    assert attempt(app, "grace", "198.51.100.1").status_code == 401


def test_an_address_has_fifty_tries_whatever_the_accounts(app: flask.Flask, hashes: list[bytes]) -> None:
    attempt(app, "ada")
    fill("address", PER_ADDRESS - 1)
    hashes.clear()

    assert attempt(app, "grace").status_code == 401
    assert len(hashes) == 1
    assert attempt(app, "someone else").status_code == 429
    assert attempt(app, "ada", "192.0.2.2").status_code == 401
    assert len(hashes) == 2


def test_a_refusal_says_when_to_come_back_in_the_pages_own_words(app: flask.Flask) -> None:
    attempt(app, "ada")
    fill("account", PER_ACCOUNT)

    refused = attempt(app, "ada")

    assert refused.status_code == 429
    assert 800 <= int(refused.headers["Retry-After"]) <= 900
    assert refused.mimetype == "text/html"
    assert "Too many requests. Try again later." in refused.text
    assert 'name="password"' in refused.text


def test_the_right_password_waits_like_any_other(app: flask.Flask, hashes: list[bytes]) -> None:
    db.write(people.save_user, "ada", None, PASSWORD)
    attempt(app, "ada")
    fill("account", PER_ACCOUNT)
    hashes.clear()

    refused = attempt(app, "ada", password=PASSWORD)

    assert refused.status_code == 429
    assert "Set-Cookie" not in refused.headers
    assert hashes == []


def test_a_success_counts_too(app: flask.Flask) -> None:
    db.write(people.save_user, "ada", None, PASSWORD)

    assert attempt(app, "ada", password=PASSWORD).status_code == 303

    assert sorted(rows.column("SELECT count FROM rate_limits")) == [1, 1]


def test_the_window_ends_by_the_databases_clock(app: flask.Flask) -> None:
    attempt(app, "ada")
    fill("account", PER_ACCOUNT)
    assert attempt(app, "ada").status_code == 429

    rows.change("UPDATE rate_limits SET expires_at = now() - interval '1 second'")

    assert attempt(app, "ada").status_code == 401
    assert sorted(rows.column("SELECT count FROM rate_limits")) == [1, 1]


def test_tries_do_not_move_the_windows_end(app: flask.Flask) -> None:
    attempt(app, "ada")
    rows.change("UPDATE rate_limits SET expires_at = now() + interval '5 minutes', count = 10")

    refused = attempt(app, "ada")

    assert refused.status_code == 429
    assert 200 <= int(refused.headers["Retry-After"]) <= 300


def test_two_workers_count_together(app: flask.Flask) -> None:
    with another_app() as other:
        for _ in range(PER_ACCOUNT // 2):
            assert attempt(app, "ada").status_code == 401
            assert attempt(other, "ada").status_code == 401

        assert attempt(app, "ada").status_code == 429
        assert attempt(other, "ada").status_code == 429


def test_what_was_counted_outlives_a_restart(app: flask.Flask) -> None:
    attempt(app, "ada")
    fill("account", PER_ACCOUNT)

    with another_app() as restarted:
        assert attempt(restarted, "ada").status_code == 429


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("not an address", "not an address", True),
    ],
)
def test_an_ipv6_address_counts_as_its_64(app: flask.Flask, one: str, other: str, same: bool) -> None:
    attempt(app, "ada", one)
    fill("address", PER_ADDRESS)

    assert attempt(app, "grace", other).status_code == (429 if same else 401)


@pytest.mark.parametrize(
    ("written", "counted"),
    [
        ("192.0.2.1:5678", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]:5678", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("_hidden", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_address_is_one_however_a_proxy_writes_it(written: str, counted: str) -> None:
    assert limits.network(written) == counted


def test_a_crowd_at_the_door_is_told_to_come_back_before_it_costs_anything(
    app: flask.Flask, anonymous: FlaskClient, hashes: list[bytes]
) -> None:
    with limits.one_hash():
        answer = anonymous.post("/login", data={"username": "alice", "password": "x"})

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert hashes == []
    assert rows.column("SELECT key FROM rate_limits") == []


def test_without_trusted_proxies_a_forged_header_changes_nothing(app: flask.Flask) -> None:
    attempt(app, "ada")
    fill("address", PER_ADDRESS)

    for forged in ("203.0.113.7", "203.0.113.8, 203.0.113.9", "", "127.0.0.1"):
        assert attempt(app, "grace", forwarded=forged).status_code == 429
    assert attempt(app, "grace", "192.0.2.2", forwarded="192.0.2.1").status_code == 401


def test_behind_one_proxy_only_the_last_entry_counts(app: flask.Flask) -> None:
    with another_app(trusted_proxies=1) as behind:
        attempt(behind, "ada", "10.0.0.1", forwarded="192.0.2.1")
        fill("address/192.0.2.1", PER_ADDRESS)

        for forged in ("203.0.113.7, 192.0.2.1", "203.0.113.7, 203.0.113.8,192.0.2.1", "192.0.2.1"):
            assert attempt(behind, "grace", "10.0.0.1", forwarded=forged).status_code == 429
        assert attempt(behind, "grace", "10.0.0.1", forwarded="192.0.2.1, 203.0.113.7").status_code == 401


def test_behind_two_proxies_the_entry_before_the_last_counts(app: flask.Flask) -> None:
    with another_app(trusted_proxies=2) as behind:
        attempt(behind, "ada", "10.0.0.1", forwarded="203.0.113.7, 192.0.2.1, 10.0.0.2")

        assert rows.one("SELECT count(*) FROM rate_limits WHERE key LIKE '%address/192.0.2.1/%'") == 1


def test_links_are_not_counted(app: flask.Flask, anonymous: FlaskClient) -> None:
    db.write(people.save_user, "ada", None, None)
    for _ in range(3):
        path = f"/tickets/{db.write(tickets.make_ticket, 'ada', 60)}"
        assert anonymous.get(path).status_code == 200
        assert anonymous.post(path).status_code == 303
    anonymous.get("/login")

    assert rows.count("rate_limits") == 0


def test_an_account_is_kept_as_a_digest_whatever_was_typed(app: flask.Flask) -> None:
    for typed in ("x" * 50_000, "\x00", "a/b", "a b\n"):
        assert attempt(app, typed).status_code == 401

    kept = rows.column("SELECT key FROM rate_limits WHERE key LIKE '%account%'")
    assert len(kept) == 4
    assert max(map(len, kept)) < 200


def test_the_storage_does_what_the_library_asks_of_one(app: flask.Flask) -> None:
    storage = counters.PostgresStorage()

    assert storage.check()
    assert [storage.incr("a", 60), storage.incr("a", 60, amount=5), storage.incr("b", 60)] == [1, 6, 1]
    assert [storage.get("a"), storage.get("b"), storage.get("c")] == [6, 1, 0]
    storage.clear("a")
    assert storage.get("a") == 0
    assert storage.reset() == 1
    assert rows.count("rate_limits") == 0
