"""`flask key …`, and who may call the sender's API: a good key with the scope, and nobody else."""

import hashlib
import json
import threading

import flask
import pytest
from flask.testing import FlaskClient

from app import db, keys, limits
from tests import rows
from tests.cast import Person
from tests.commands import run, run_json
from tests.hosts import Host, event
from tests.routes import SENDERS
from tests.variants import another_app


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def authorized(browser: FlaskClient, authorization: str) -> int:
    answer = browser.get("/api/v1/events/1", headers={"Authorization": authorization})
    return answer.status_code


def test_a_key_is_shown_once_and_only_its_digest_is_kept(app: flask.Flask) -> None:
    made = run_json(app, "key", "create", "the shop")

    assert keys.FORM.fullmatch(made["key"])
    assert made["scopes"] == ["publish", "people", "tickets"]
    _, prefix, secret = made["key"].split("_")
    assert len(bytes.fromhex(secret)) == 32
    assert rows.column("SELECT digest FROM api_keys") == [hashlib.sha256(secret.encode()).digest()]
    everything = rows.one("SELECT CAST(api_keys AS text) FROM api_keys")
    assert prefix in everything
    assert secret not in everything
    assert secret not in run(app, "key", "list", "--json").stdout


def test_two_keys_have_nothing_in_common(app: flask.Flask) -> None:
    first, second = (run(app, "key", "create", "the shop").stdout.strip() for _ in range(2))

    assert first.split("_")[1] != second.split("_")[1]
    assert first.split("_")[2] != second.split("_")[2]


def test_a_key_has_the_scopes_and_the_days_that_were_asked_for(app: flask.Flask) -> None:
    run_json(app, "key", "create", "the shop", "--scope", "publish", "--scope", "tickets", "--expires-in", "2")

    assert rows.one("SELECT scopes FROM api_keys") == ["publish", "tickets"]
    assert rows.one("SELECT expires_at - now() BETWEEN interval '47 hours' AND interval '48 hours' FROM api_keys")


@pytest.mark.parametrize("arguments", [["--scope", "everything"], ["--expires-in", "0"], ["--expires-in", "3651"]])
def test_a_key_that_makes_no_sense_is_not_made(app: flask.Flask, arguments: list[str]) -> None:
    assert run(app, "key", "create", "the shop", *arguments).exit_code != 0
    assert rows.count("api_keys") == 0


def test_a_keys_name_is_one_line_of_plain_text(app: flask.Flask) -> None:
    made = run_json(app, "key", "create", "the\nshop \x1b[31m\u202e")

    assert made["name"] == "the shop [31m"
    [line] = run(app, "key", "list").stdout.splitlines()
    assert line.split("  ")[1] == "the shop [31m"
    for name in ("", " ", "\x1b", "x" * 201):
        refused = run(app, "key", "create", name)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
        assert "name must be 1 to 200 characters" in refused.stderr
    assert rows.count("api_keys") == 1


def test_the_list_says_which_keys_are_good(app: flask.Flask) -> None:
    hosts = {name: Host(app) for name in ("good", "revoked", "expired")}
    for name, host in hosts.items():
        rows.change("UPDATE api_keys SET name = :name WHERE prefix = :prefix", name=name, prefix=host.prefix)
    rows.change("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE name = 'expired'")
    assert run(app, "key", "revoke", hosts["revoked"].prefix).exit_code == 0

    lines = run(app, "key", "list").stdout.splitlines()

    assert [line.split()[1] for line in lines] == ["good", "revoked", "expired"]
    assert [line.split()[-1] for line in lines] == ["good", "revoked", "expired"]
    assert [key["state"] for key in run_json(app, "key", "list")] == ["good", "revoked", "expired"]


def test_the_list_of_no_keys_says_so(app: flask.Flask) -> None:
    assert run(app, "key", "list").stdout == "There are no keys.\n"
    assert run_json(app, "key", "list") == []


def test_revoking_ends_a_key_at_once_and_again_changes_nothing(app: flask.Flask, host: Host) -> None:
    assert host.call("GET", "/events/1").status_code == 404

    assert run(app, "key", "revoke", host.prefix).exit_code == 0
    when = rows.one("SELECT revoked_at FROM api_keys")
    assert host.call("GET", "/events/1").status_code == 401
    assert run(app, "key", "revoke", host.prefix).exit_code == 0
    assert rows.one("SELECT revoked_at FROM api_keys") == when


def test_revoking_a_key_that_never_was_says_so(app: flask.Flask) -> None:
    refused = run(app, "key", "revoke", "0123456789ab")

    assert refused.exit_code == 1
    assert "0123456789ab" in refused.stderr


def test_an_expired_key_is_401(host: Host) -> None:
    rows.change("UPDATE api_keys SET expires_at = now() + interval '1 minute'")
    assert host.call("GET", "/events/1").status_code == 404

    rows.change("UPDATE api_keys SET expires_at = now()")
    assert host.call("GET", "/events/1").status_code == 401


MALFORMED = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer blf",
    "Bearer blf_0123456789ab",
    "Bearer blf_0123456789ab_",
    "Bearer blf_0123456789AB_" + "0" * 64,
    "Bearer blf_0123456789ab_" + "0" * 63,
    "Bearer blf_0123456789ab_" + "0" * 65,
    "Bearer blf_0123456789ab_" + "g" * 64,
    "Bearer blf_0123456789ab_" + "\u0660".encode().decode("latin-1") * 32,
    "Bearer xblf_0123456789ab_" + "0" * 64,
    "Bearer " + "a" * 8000,
    "Basic YWxpY2U6c2VjcmV0",
    "blf_0123456789ab_" + "0" * 64,
]


@pytest.mark.parametrize("authorization", MALFORMED)
def test_a_malformed_key_is_401_and_costs_no_query(
    anonymous: FlaskClient, queries: list[str], authorization: str
) -> None:
    assert authorized(anonymous, authorization) == 401
    assert queries == []


def test_a_malformed_key_is_401_even_when_the_database_is_away(app: flask.Flask) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with another_app(database_url=nowhere) as cut_off:
        answers = [
            cut_off.test_client().get("/api/v1/events/1", headers={"Authorization": f"Bearer {key}"}).status_code
            for key in ("blf_x", "blf_0123456789ab_" + "0" * 64)
        ]
    assert answers == [401, 503]


def test_without_a_key_there_is_nothing(anonymous: FlaskClient) -> None:
    for method, path, _ in SENDERS:
        answer = anonymous.open(f"/api/v1{path}", method=method)
        assert answer.status_code == 401
        assert answer.mimetype == "application/problem+json"


def test_an_unknown_prefix_and_a_wrong_secret_are_told_alike(
    anonymous: FlaskClient, host: Host, queries: list[str]
) -> None:
    unknown = f"Bearer blf_{'0' * 12}_{'1' * 64}"
    wrong = f"Bearer blf_{host.prefix}_{'1' * 64}"

    bodies = []
    for authorization in (unknown, wrong):
        answer = anonymous.get("/api/v1/events/1", headers={"Authorization": authorization})
        assert answer.status_code == 401
        bodies.append({**answer.get_json(), "request_id": ""})

    assert bodies[0] == bodies[1]
    assert len(queries) == 2  # one each: neither is counted for, and neither notes when it was used
    assert rows.one("SELECT last_used_at FROM api_keys") is None


def test_the_word_bearer_is_known_in_any_case(anonymous: FlaskClient, host: Host) -> None:
    for word in ("Bearer", "bearer", "BEARER"):
        assert authorized(anonymous, f"{word} {host.key}") == 404


@pytest.mark.parametrize(("method", "path", "scope"), SENDERS)
def test_each_call_needs_its_scope_and_no_other(app: flask.Flask, method: str, path: str, scope: str) -> None:
    without = Host(app, *(other for other in keys.SCOPES if other != scope))
    refused = without.call(method, path, {})
    assert refused.status_code == 403
    assert scope in refused.get_json()["detail"]

    assert Host(app, scope).call(method, path, {}).status_code not in (401, 403)


def test_when_a_key_was_used_is_written_once_a_minute(host: Host) -> None:
    host.call("GET", "/events/1")
    first = rows.one("SELECT last_used_at FROM api_keys")
    assert rows.one("SELECT now() - last_used_at < interval '10 seconds' FROM api_keys")

    host.call("GET", "/events/1")
    assert rows.one("SELECT last_used_at FROM api_keys") == first

    rows.change("UPDATE api_keys SET last_used_at = now() - interval '61 seconds'")
    host.call("GET", "/events/1")
    assert rows.one("SELECT now() - last_used_at < interval '10 seconds' FROM api_keys")


def test_of_many_calls_at_once_one_writes_when_the_key_was_used(app: flask.Flask, host: Host) -> None:
    before = rows.one("SELECT xmin::text FROM api_keys")
    ready, seen = threading.Barrier(4), set()

    def call() -> None:
        with app.app_context():
            ready.wait()
            assert db.read(keys.find, host.key) is not None
            seen.add(rows.one("SELECT xmin::text FROM api_keys"))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 1
    assert before not in seen


def test_a_call_over_the_limit_of_its_key_is_429_and_leaves_other_keys_alone(app: flask.Flask, host: Host) -> None:
    assert host.call("GET", "/events/1").status_code == 404
    most = limits.CALLS_PER_KEY.amount
    assert rows.change("UPDATE rate_limits SET count = :count", count=most - 1) == 1

    assert host.call("GET", "/events/1").status_code == 404  # the last one
    refused = host.publish("alice")

    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert rows.count("events") == 0
    assert Host(app).call("GET", "/events/1").status_code == 404
    with another_app() as another_worker:  # counted in PostgreSQL: it holds in every worker
        other = another_worker.test_client()
        assert authorized(other, f"Bearer {host.key}") == 429

    rows.change("UPDATE rate_limits SET expires_at = now()")
    assert host.call("GET", "/events/1").status_code == 404


def test_a_wrong_key_is_not_counted_in_the_database(anonymous: FlaskClient, host: Host) -> None:
    assert authorized(anonymous, f"Bearer blf_{host.prefix}_{'1' * 64}") == 401
    assert rows.count("rate_limits") == 0


def test_a_good_key_has_its_whole_limit_however_many_workers_there_are(app: flask.Flask, host: Host) -> None:
    with another_app(web_concurrency=64) as one_of_many:  # to which a connection that is kept alive always leads
        browser = one_of_many.test_client()
        assert {authorized(browser, f"Bearer {host.key}") for _ in range(50)} == {404}

        spend = "UPDATE rate_limits SET count = :all WHERE key LIKE '%key%'"
        rows.change(spend, all=limits.CALLS_PER_KEY.amount)
        assert {authorized(browser, f"Bearer {host.key}") for _ in range(37)} == {429}
        rows.change("DELETE FROM rate_limits")
        # What is over a key's limit counts against its address, for each costs the database a look.
        assert authorized(browser, f"Bearer {host.key}") == 429


def test_calls_of_one_address_without_a_good_key_are_limited(app: flask.Flask) -> None:
    with another_app(web_concurrency=64) as one_of_many:  # each has its part of the limit, here 37 calls
        browser = one_of_many.test_client()
        answers = [authorized(browser, "Bearer blf_wrong") for _ in range(38)]
        refused = browser.post("/api/v1/tickets")
    assert answers == [401] * 37 + [429]
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 61


def test_what_a_session_may_do_ends_at_the_senders_api(alice: Person) -> None:
    for method, path, _ in SENDERS:
        assert alice.browser.open(f"/api/v1{path}", method=method, json={}).status_code == 401


def test_a_key_is_never_enough_for_the_readers_api(anonymous: FlaskClient, host: Host, alice: Person) -> None:
    headers = {"Authorization": f"Bearer {host.key}"}
    for path in ("/notifications/unread", "/notifications", "/notifications/1", "/preferences"):
        assert anonymous.get(path, headers=headers).status_code == 401
        assert alice.browser.get(path, headers=headers).status_code == 401  # not even beside a good session
    assert anonymous.post("/notifications/1/read", headers=headers).status_code == 401


def test_a_key_in_a_browser_of_another_site_works_for_it_was_put_there(anonymous: FlaskClient, host: Host) -> None:
    headers = {"Authorization": f"Bearer {host.key}", "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = anonymous.post("/api/v1/events", json=event("alice"), headers=headers)
    assert answer.status_code == 201
    assert "Access-Control-Allow-Origin" not in answer.headers  # though no page could read it


def test_an_answer_to_a_sender_is_kept_by_nobody(host: Host) -> None:
    answer = host.publish("alice")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert json.loads(answer.data)["recipients"] == 1
