"""`POST /api/v1/events/batch`: all or nothing, in order, each error by the event's index and the field."""

import time
from typing import Any

import flask
import pytest
import sqlalchemy

from tests import inboxes, rows
from tests.cast import Person
from tests.crashes import Crashes
from tests.hosts import Host, WireHost, errors_of, event, make_key, query
from tests.service import Service


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def nothing_happened() -> bool:
    return rows.count("events") == rows.count("users") == rows.count("notifications") == 0


def test_each_event_arrives_and_is_answered_in_its_place(host: Host) -> None:
    answer = host.publish_batch(
        event("alice", title="First"), event("alice", "bob", title="Second"), event("bob", "bob", title="Third")
    )

    assert answer.status_code == 201
    answers = answer.get_json()["events"]
    assert rows.column("SELECT title FROM events ORDER BY id") == ["First", "Second", "Third"]
    assert [one["event_id"] for one in answers] == rows.column("SELECT id FROM events ORDER BY id")
    assert [one["recipients"] for one in answers] == [1, 2, 1]
    assert [one["created"] for one in answers] == [1, 2, 1]
    assert rows.column("SELECT received FROM events ORDER BY id") == [1, 2, 1]


def test_several_events_for_one_person_get_their_own_numbers_in_order(host: Host, alice: Person) -> None:
    host.publish_batch(*(event("alice", title=str(number)) for number in range(1, 6)))

    shown = alice.poll().get_json()
    assert [(one["id"], one["title"]) for one in shown["notifications"]] == [(n, str(n)) for n in (5, 4, 3, 2, 1)]
    assert shown["version"] == inboxes.version(alice) == 5


def test_two_of_one_group_in_one_batch_count_up_once_each(host: Host, alice: Person, mallory: Person) -> None:
    host.publish("alice", group_key="k")
    host.publish_batch(
        event("alice", "mallory", group_key="k", title="Second"),
        event("alice", title="Alone"),
        event("alice", "mallory", group_key="k", title="Third"),
    )

    grouped, alone = alice.poll().get_json()["notifications"]
    assert (grouped["title"], grouped["count"], grouped["id"]) == ("Third", 3, 4)
    assert (alone["title"], alone["count"], alone["id"]) == ("Alone", 1, 3)
    [grouped] = mallory.poll().get_json()["notifications"]
    assert (grouped["title"], grouped["count"], grouped["id"]) == ("Third", 2, 2)


def test_one_wrong_event_keeps_all_of_them_out(host: Host) -> None:
    batch = [event(f"user {number}") for number in range(12)]
    batch[10] = event("user 10", title="")
    batch[11] = event("user 11", "a/b", url="//evil.example", actor={})

    refused = host.publish_batch(*batch, key="k")

    assert refused.status_code == 422
    assert set(errors_of(refused)) == {
        "events[10].title",
        "events[11].recipients[1]",
        "events[11].url",
        "events[11].actor.name",
    }
    assert nothing_happened()
    assert rows.count("idempotency_keys") == 0


def test_an_expiry_that_is_over_is_named_by_index_and_field_too(host: Host) -> None:
    past = "2020-01-01T00:00:00Z"
    refused = host.publish_batch(
        event("alice"), event("bob", expires_at=past), event("carol"), event("dan", expires_at="2999-01-01T00:00:00Z")
    )

    assert refused.status_code == 422
    assert list(errors_of(refused)) == ["events[1].expires_at", "events[3].expires_at"]
    assert nothing_happened()


def test_everyone_is_no_audience_in_a_batch(host: Host) -> None:
    refused = host.publish_batch(event("alice"), event(recipients="everyone"), key="k")

    assert refused.status_code == 422
    assert list(errors_of(refused)) == ["events[1].recipients"]
    assert nothing_happened()


def test_a_thousand_events_are_a_batch_and_one_more_is_none(host: Host) -> None:
    thousand = [event("alice", title=str(number)) for number in range(1000)]
    refused = host.publish_batch(*thousand, event("alice"))
    assert refused.status_code == 422
    assert list(errors_of(refused)) == ["events"]
    assert nothing_happened()

    answer = host.publish_batch(*thousand)
    assert answer.status_code == 201
    assert len(answer.get_json()["events"]) == rows.count("notifications") == 1000
    assert rows.column("SELECT inbox_version FROM users") == [1000]


def test_ten_thousand_recipients_are_a_batch_and_one_more_is_none(host: Host) -> None:
    thousand = [f"user {number}" for number in range(1000)]
    refused = host.publish_batch(*(event(*thousand) for _ in range(10)), event("alice"))
    assert refused.status_code == 422
    assert list(errors_of(refused)) == ["events"]
    assert "10,000" in errors_of(refused)["events"]
    assert nothing_happened()

    assert host.publish_batch(*(event(*thousand) for _ in range(10))).status_code == 201
    assert rows.count("notifications") == 10_000
    assert rows.column("SELECT DISTINCT inbox_version FROM users") == [10]


@pytest.mark.parametrize("batch", [{}, {"events": []}, {"events": {}}, {"events": None}, {"events": [], "more": 1}])
def test_a_batch_of_nothing_is_refused_by_name(host: Host, batch: Any) -> None:
    refused = host.call("POST", "/events/batch", batch)
    assert refused.status_code == 422
    assert "events" in errors_of(refused)


def test_what_is_no_event_is_refused_by_its_index(host: Host) -> None:
    refused = host.call("POST", "/events/batch", {"events": [event("alice"), None, [], "x", 1]})
    assert refused.status_code == 422
    assert set(errors_of(refused)) == {"events[1]", "events[2]", "events[3]", "events[4]"}


def test_a_batch_full_of_mistakes_is_refused_with_the_first_of_them(host: Host) -> None:
    bad = {"type": "Bad", "title": "", "recipients": ["a/b"] * 1000, **{f"unknown {n}": 1 for n in range(30)}}
    refused = host.publish_batch(*[bad] * 100)
    assert refused.status_code == 422
    assert len(refused.get_json()["errors"]) == 50


def test_muted_types_are_counted_event_by_event(host: Host, alice: Person) -> None:
    host.publish("alice")
    alice.browser.put("/preferences/comment", json={"muted": True})

    answers = host.publish_batch(event("alice", "bob"), event("alice", type="mention")).get_json()["events"]

    assert [(one["recipients"], one["created"], one["muted"]) for one in answers] == [(2, 1, 1), (1, 1, 0)]
    assert inboxes.version(alice) == 2


def test_all_people_are_locked_before_the_first_notification(host: Host, alice: Person, queries: list[str]) -> None:
    host.publish_batch(event("bob"), event("alice"), event("carol", "alice"))

    kinds = [query.split()[0] for query in queries if "FOR NO KEY UPDATE" in query or "WITH raised" in query]
    assert kinds == ["SELECT", "WITH", "WITH", "WITH"]


def test_long_bodies_are_cleaned_before_anybody_is_locked(app: flask.Flask, host: Host) -> None:
    moments: dict[str, float] = {}

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        moments[" ".join(statement.split()[:3])] = time.process_time()

    batch = [event(f"user {number}", body="<br>" * 1000) for number in range(20)]
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    before = time.process_time()
    assert host.publish_batch(*batch).status_code == 201
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)

    users_are_made, delivered = moments["INSERT INTO users"], moments["WITH raised AS"]
    assert delivered - users_are_made < users_are_made - before


def test_killed_at_any_moment_a_batch_is_whole_or_not_there(service: Service) -> None:
    key = make_key(service.database_url)
    crashes = Crashes(service)
    size = 300
    for number in crashes.rounds():
        host = WireHost(service.url, key)
        batch = [event("alice", f"user {n % 7}", title=f"{number}.{n}", group_key=f"{n % 10}") for n in range(size)]
        answer = crashes.call(host, "POST", "/events/batch", {"events": batch}, **{"Idempotency-Key": f"key-{number}"})

        assert answer.status == 201, answer.body
        ids = [one["event_id"] for one in answer.json()["events"]]
        assert query(service.database_url, "SELECT id FROM events WHERE id = ANY(%s) ORDER BY id", ids) == [
            (one,) for one in ids
        ]
        total = size * (number + 1)
        assert query(service.database_url, "SELECT count(*) FROM events") == [(total,)]
        assert query(service.database_url, "SELECT inbox_version FROM users WHERE subject = 'alice'") == [(total,)]
        assert query(service.database_url, "SELECT count(*) FROM idempotency_keys") == [(number + 1,)]
        counts = (
            "SELECT DISTINCT group_count FROM notifications JOIN users ON users.id = user_id WHERE subject = 'alice'"
        )
        assert query(service.database_url, counts) == [(total // 10,)]
