"""`Idempotency-Key`: the same call again is answered as the first time and does nothing."""

import threading
from collections import Counter
from typing import Any

import flask
import pytest

from app import db
from tests import inboxes, postgres, rows
from tests.cast import Person
from tests.commands import run_json
from tests.hosts import Host, WireHost, errors_of, event, idempotent, make_key, query
from tests.service import Service


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def test_the_same_call_again_gives_the_same_bytes_and_says_so(host: Host, alice: Person) -> None:
    first = host.publish("alice", "bob", key="k")
    version = inboxes.version(alice)

    again = host.publish("alice", "bob", key="k")

    assert first.status_code == again.status_code == 201
    assert again.data == first.data
    assert again.mimetype == first.mimetype
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert rows.count("events") == 1
    assert inboxes.version(alice) == version


def test_a_batch_again_gives_the_same_bytes(host: Host) -> None:
    batch = [event("alice", title=str(number)) for number in range(3)]
    first = host.publish_batch(*batch, key="k")
    again = host.publish_batch(*batch, key="k")

    assert first.status_code == 201
    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"
    assert rows.count("events") == 3


def test_the_first_answer_stands_though_the_world_has_changed(app: flask.Flask, host: Host, alice: Person) -> None:
    first = host.publish("alice", key="k", expires_in=1)
    inboxes.expire(alice, 1)
    run_json(app, "cleanup")
    assert rows.count("events") == 0
    host.call("DELETE", "/users/alice")

    assert host.publish("alice", key="k", expires_in=1).data == first.data
    assert rows.count("events") == rows.count("users") == 0


def test_without_a_key_each_call_is_another_event(host: Host) -> None:
    answers = [host.publish("alice") for _ in range(2)]
    assert answers[0].get_json()["event_id"] != answers[1].get_json()["event_id"]
    assert rows.count("events") == 2
    assert rows.count("idempotency_keys") == 0


def test_the_key_with_another_body_is_422(host: Host) -> None:
    first = host.publish("alice", key="k")

    for refused in (
        host.publish("bob", key="k"),
        host.publish("alice", key="k", data={}),
        host.call("POST", "/events", str(event("alice")).replace("'", '"').encode() + b" ", **idempotent("k")),
        host.publish_to_everyone("k"),
    ):
        assert refused.status_code == 422
        assert "Idempotency-Key" in refused.get_json()["detail"]
    assert rows.count("events") == 1
    assert host.publish("alice", key="k").data == first.data  # which spoiled nothing


def test_the_key_with_another_path_is_422(host: Host) -> None:
    assert host.publish_batch(event("alice"), key="k").status_code == 201
    assert host.publish("alice", key="k").status_code == 422

    assert host.publish("alice", key="other").status_code == 201
    assert host.publish_batch(event("alice"), key="other").status_code == 422
    assert rows.count("events") == 2


@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_a_call_that_is_still_running_is_409(host: Host, path: str) -> None:
    body = event("alice") if path == "/events" else {"events": [event("alice")]}
    key_id = rows.one("SELECT id FROM api_keys")
    with postgres.connect(url_of_the_app()) as other:
        other.autocommit = False
        other.execute(
            "INSERT INTO idempotency_keys (api_key_id, key, request_digest, status, body)"
            " VALUES (%s, 'k', '', 0, '{}')",
            (key_id,),
        )
        refused = host.call("POST", path, body, **idempotent("k"))
        assert refused.status_code == 409
        assert refused.mimetype == "application/problem+json"
        assert rows.count("events") == rows.count("users") == 0
        other.rollback()

    assert host.call("POST", path, body, **idempotent("k")).status_code == 201  # the other one came to nothing


def url_of_the_app() -> str:
    return db.engine().url.render_as_string(hide_password=False)


def test_only_what_was_done_is_remembered(host: Host) -> None:
    past = "2020-01-01T00:00:00Z"
    assert host.publish("alice", key="k", title="").status_code == 422
    assert host.publish("alice", key="k", expires_at=past).status_code == 422  # found out after the key was taken
    assert host.publish_batch(event("alice", expires_at=past), key="k").status_code == 422
    assert host.publish_to_everyone("k", expires_at=past).status_code == 422
    assert rows.count("idempotency_keys") == 0

    assert host.publish("alice", key="k").status_code == 201


def test_what_failed_over_a_limit_is_not_remembered(host: Host) -> None:
    host.call("GET", "/events/1")
    rows.change("UPDATE rate_limits SET count = 1000000")
    assert host.publish("alice", key="k").status_code == 429
    rows.change("DELETE FROM rate_limits")
    assert "Idempotent-Replayed" not in host.publish("alice", key="k").headers


def test_the_keys_of_two_senders_never_meet(app: flask.Flask, host: Host) -> None:
    other = Host(app)
    answers = [one.publish("alice", key="k") for one in (host, other)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert "Idempotent-Replayed" not in answers[1].headers
    assert answers[0].get_json()["event_id"] != answers[1].get_json()["event_id"]
    assert other.publish("bob", key="k").status_code == 422
    assert sorted(rows.column("SELECT body #>> '{events,0,event_id}' FROM idempotency_keys")) == sorted(
        str(answer.get_json()["event_id"]) for answer in answers
    )


def test_a_key_is_good_for_24_hours_clean_ups_or_not(app: flask.Flask, host: Host) -> None:
    first = host.publish("alice", key="k")
    rows.change("UPDATE idempotency_keys SET created_at = now() - interval '23 hours 59 minutes'")
    run_json(app, "cleanup")
    assert host.publish("alice", key="k").data == first.data

    rows.change("UPDATE idempotency_keys SET created_at = now() - interval '24 hours'")
    later = host.publish("bob", key="k")  # not cleaned up yet, and over all the same
    assert later.status_code == 201
    assert later.get_json()["event_id"] != first.get_json()["event_id"]
    assert host.publish("bob", key="k").data == later.data

    rows.change("UPDATE idempotency_keys SET created_at = now() - interval '24 hours'")
    run_json(app, "cleanup")
    assert rows.count("idempotency_keys") == 0


@pytest.mark.parametrize("key", ["k", "!", "~" * 255, '"quoted"', "a,b"])
def test_a_key_is_any_visible_ascii(host: Host, key: str) -> None:
    first = host.publish("alice", key=key)
    assert first.status_code == 201
    assert host.publish("alice", key=key).data == first.data


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "a\tb", "ä", "\x7f"])
@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_any_other_key_is_refused_by_name(host: Host, path: str, key: str) -> None:
    body = event("alice") if path == "/events" else {"events": [event("alice")]}
    refused = host.call("POST", path, body, **idempotent(key))
    assert refused.status_code == 422
    assert list(errors_of(refused)) == ["Idempotency-Key"]
    assert rows.count("events") == 0


def test_a_replay_costs_a_handful_of_statements(host: Host, queries: list[str]) -> None:
    host.publish("alice", key="k")
    del queries[:]

    host.publish("alice", key="k")

    assert len(queries) == 4, queries  # key, limit, claim, find


def test_fifty_calls_at_once_and_fifty_in_turn_are_one_event_and_a_hundred_equal_answers(service: Service) -> None:
    key = make_key(service.database_url)
    body = event("alice", "bob", title="Once")
    answers: list[tuple[int, bytes]] = []
    replayed: Counter[Any] = Counter()
    start = threading.Barrier(50)

    def call(host: WireHost) -> None:
        answer = host.call("POST", "/events", body, **{"Idempotency-Key": "k"})
        answers.append((answer.status, answer.body))
        replayed[answer.headers.get("Idempotent-Replayed")] += 1

    def call_with_all_others() -> None:
        host = WireHost(service.url, key)
        start.wait()
        call(host)

    threads = [threading.Thread(target=call_with_all_others) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    host = WireHost(service.url, key)
    for _ in range(50):
        call(host)

    assert len(answers) == 100
    assert len(set(answers)) == 1, set(answers)
    assert answers[0][0] == 201
    assert replayed == {None: 1, "true": 99}
    assert query(service.database_url, "SELECT count(*) FROM events") == [(1,)]
    assert query(service.database_url, "SELECT count(*) FROM notifications") == [(2,)]
    assert query(service.database_url, "SELECT inbox_version FROM users") == [(1,), (1,)]
