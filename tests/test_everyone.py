"""`"recipients": "everyone"`: all who are users now, in chunks, continued by repeating the call, never doubled."""

import threading
from datetime import timedelta
from typing import Any

import flask
import pytest

from app import db, idempotency, publishing
from app.events import Event
from app.idempotency import Call
from app.validation import check
from tests import inboxes, rows
from tests.cast import Person
from tests.crashes import Crashes, add_users
from tests.hosts import Host, WireHost, errors_of, event, make_key, query
from tests.service import Service

TTL = timedelta(days=30)
EVENT = check(Event, {"type": "news", "title": "For all"})


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def url() -> str:
    return db.engine().url.render_as_string(hide_password=False)


def call_named(key: str) -> Call:
    return Call(idempotency.COMMAND_LINE, key, b"digest")


def begin(call: Call, **fields: Any) -> int:
    """Begins a fan-out as a call that is killed before its first chunk does; the event's id."""
    chosen = check(Event, {**EVENT.model_dump(exclude_unset=True), **fields})
    answer, is_done = db.write(publishing.begin_everyone, call, chosen, TTL)
    assert not is_done
    return answer["event_id"]


def received() -> set[int]:
    """How many notifications each user has."""
    return set(rows.column("SELECT (SELECT count(*) FROM notifications WHERE user_id = users.id) FROM users"))


def test_everyone_who_is_a_user_receives_it(host: Host, alice: Person, mallory: Person) -> None:
    answer = host.publish_to_everyone("k", title="For all")

    assert answer.status_code == 201
    assert answer.get_json() == {
        "event_id": rows.one("SELECT id FROM events"),
        "recipients": 2,
        "created": 2,
        "muted": 0,
    }
    for person in (alice, mallory):
        assert [shown["title"] for shown in person.poll().get_json()["notifications"]] == ["For all"]
    assert host.call("GET", f"/events/{answer.get_json()['event_id']}").get_json()["received"] == 2


def test_everyone_demands_a_key(host: Host, alice: Person) -> None:
    refused = host.publish_to_everyone(None)

    assert refused.status_code == 422
    assert list(errors_of(refused)) == ["Idempotency-Key"]
    assert rows.count("events") == 0


@pytest.mark.parametrize("word", ["Everyone", "all", ["everyone", "a/b"]])
def test_no_other_word_stands_for_everyone(host: Host, word: Any) -> None:
    assert host.publish_to_everyone("k", recipients=word).status_code == 422


def test_somebody_can_be_called_everyone(host: Host, alice: Person) -> None:
    assert host.publish("everyone").get_json()["recipients"] == 1
    assert inboxes.version(alice) == 0


def test_the_same_call_again_gives_the_same_bytes(host: Host, alice: Person) -> None:
    first = host.publish_to_everyone("k")
    again = host.publish_to_everyone("k")

    assert again.status_code == 201
    assert again.data == first.data
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert inboxes.version(alice) == 1


def test_nobody_at_all_is_an_audience_too(host: Host) -> None:
    first = host.publish_to_everyone("k")
    assert first.status_code == 201
    assert first.get_json()["recipients"] == 0
    assert host.publish_to_everyone("k").data == first.data


def test_who_muted_the_type_is_counted_and_gets_nothing(host: Host, alice: Person, mallory: Person) -> None:
    host.publish("alice", type="news")
    alice.browser.put("/preferences/news", json={"muted": True})

    answer = host.publish_to_everyone("k", type="news").get_json()

    assert (answer["recipients"], answer["created"], answer["muted"]) == (2, 1, 1)
    assert inboxes.version(alice) == 1
    assert inboxes.version(mallory) == 1


def test_a_group_is_joined_in_every_inbox_that_has_it(host: Host, alice: Person, mallory: Person) -> None:
    host.publish("alice", group_key="k")
    host.publish_to_everyone("k", group_key="k")

    assert [shown["count"] for shown in alice.poll().get_json()["notifications"]] == [2]
    assert [shown["count"] for shown in mallory.poll().get_json()["notifications"]] == [1]


def test_it_goes_in_chunks_that_each_commit_with_how_far_they_came(app: flask.Flask) -> None:
    add_users(url(), 2500)
    call = call_named("chunks")
    event_id = begin(call)
    ids = rows.column("SELECT id FROM users ORDER BY id")
    assert rows.one("SELECT fan_out_until FROM events") == ids[-1]

    for done in (1000, 2000, 2500):
        assert db.write(publishing.continue_everyone, event_id)
        assert rows.count("notifications") == rows.one("SELECT received FROM events") == done
        assert rows.one("SELECT fanned_out_to FROM events") == ids[done - 1]
        assert rows.one("SELECT status FROM idempotency_keys") == 0

    assert not db.write(publishing.continue_everyone, event_id)
    assert rows.one("SELECT status FROM idempotency_keys") == 201
    assert received() == {1}


def test_a_call_that_was_cut_off_is_continued_by_repeating_it(host: Host) -> None:
    add_users(url(), 2500)
    said = event(recipients="everyone", title="For all")
    half = rows.one("SELECT id FROM users ORDER BY id OFFSET 999 LIMIT 1")
    first = host.call("POST", "/events", said, Idempotency_Key="k")
    # As a killed worker leaves it after its first chunk.
    rows.change("DELETE FROM notifications WHERE user_id > :half", half=half)
    rows.change("UPDATE users SET inbox_version = 0 WHERE id > :half", half=half)
    rows.change("UPDATE events SET fanned_out_to = :half, received = 1000", half=half)
    body = '{"events": [{"event_id": %d, "recipients": 1000, "created": 1000, "muted": 0}]}'
    rows.change(
        "UPDATE idempotency_keys SET status = 0, body = CAST(:body AS jsonb)",
        body=body % first.get_json()["event_id"],
    )

    again = host.call("POST", "/events", said, Idempotency_Key="k")

    assert again.status_code == 201
    assert again.data == first.data
    assert "Idempotent-Replayed" not in again.headers  # it was this call that completed it
    assert received() == {1}
    assert rows.column("SELECT DISTINCT inbox_version FROM users") == [1]
    assert rows.count("events") == 1


def test_who_becomes_a_user_meanwhile_is_not_included(host: Host, alice: Person) -> None:
    call = call_named("meanwhile")
    event_id = begin(call)
    host.publish("newcomer", type="welcome")

    while db.write(publishing.continue_everyone, event_id):
        pass

    assert inboxes.version(alice) == 1
    newcomer = Person(host.client.application, "newcomer")
    assert [shown["type"] for shown in newcomer.poll().get_json()["notifications"]] == ["welcome"]


def test_who_is_erased_meanwhile_is_passed_over(host: Host, alice: Person, mallory: Person) -> None:
    call = call_named("erased")
    event_id = begin(call)
    assert host.call("DELETE", "/users/mallory").status_code == 204

    while db.write(publishing.continue_everyone, event_id):
        pass

    assert db.read(idempotency.find, call).body["events"][0]["recipients"] == 1
    assert inboxes.version(alice) == 1


def test_retracted_midway_it_stops_and_is_complete_where_it_stands(app: flask.Flask) -> None:
    add_users(url(), 1500)
    host = Host(app)
    key_id = rows.one("SELECT id FROM api_keys")
    call = Call(key_id, "k", b"digest")
    answer, _ = db.write(publishing.begin_everyone, call, EVENT, TTL, key_id)
    event_id = answer["event_id"]
    assert db.write(publishing.continue_everyone, event_id)

    assert host.call("DELETE", f"/events/{event_id}").get_json() == {"removed": 1000}

    assert not db.write(publishing.continue_everyone, event_id)
    assert rows.count("notifications") == 0
    finished = db.read(idempotency.find, call)
    assert finished.is_done
    assert finished.body["events"][0]["created"] == 1000
    assert publishing.to_everyone(call, EVENT, TTL, key_id)[1]


def test_two_who_make_the_same_call_at_once_double_nothing(app: flask.Flask, host: Host) -> None:
    add_users(url(), 5000)
    start, answers = threading.Barrier(3), []

    def call() -> None:
        start.wait()
        answers.append(host.publish_to_everyone("k").data)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 3
    assert len(set(answers)) == 1
    assert rows.count("events") == 1
    assert rows.column("SELECT DISTINCT inbox_version FROM users") == [1]
    assert received() == {1}


def test_an_expired_fan_out_key_belongs_to_a_new_event(host: Host, alice: Person) -> None:
    host.publish_to_everyone("k")
    rows.change("UPDATE idempotency_keys SET created_at = now() - interval '24 hours'")
    host.publish_to_everyone("k")
    assert inboxes.version(alice) == 2


def test_it_is_completed_though_its_key_is_cleaned_up_midway(app: flask.Flask) -> None:
    add_users(url(), 2500)

    def clean_up(_users: int) -> None:
        rows.change("DELETE FROM idempotency_keys")

    answer, replayed = publishing.to_everyone(call_named("gone"), EVENT, TTL, tell=clean_up)

    assert (answer["recipients"], answer["created"], replayed) == (2500, 2500, False)
    assert received() == {1}
    assert rows.count("idempotency_keys") == 0


def test_a_key_that_was_claimed_anew_midway_keeps_the_answer_of_its_new_call(app: flask.Flask) -> None:
    add_users(url(), 2500)
    call = call_named("anew")
    begun: list[int] = []

    def claim_anew(_users: int) -> None:
        if not begun:
            rows.change("UPDATE events SET created_at = created_at - interval '24 hours'")
            rows.change("UPDATE idempotency_keys SET created_at = created_at - interval '24 hours'")
            begun.append(begin(call, title="The next day's"))

    answer, _ = publishing.to_everyone(call, EVENT, TTL, tell=claim_anew)

    assert (answer["recipients"], answer["created"]) == (2500, 2500)
    assert answer["event_id"] < begun[0]
    kept = rows.one("SELECT body FROM idempotency_keys")["events"][0]
    assert (kept["event_id"], kept["recipients"]) == (begun[0], 0)
    finished, _ = publishing.to_everyone(call, EVENT, TTL)
    assert (finished["event_id"], finished["recipients"]) == (begun[0], 2500)
    assert received() == {2}


def test_another_request_under_the_key_of_yesterday_disturbs_no_call(app: flask.Flask) -> None:
    add_users(url(), 1500)

    def claim_anew(_users: int) -> None:
        rows.change("UPDATE idempotency_keys SET created_at = now() - interval '24 hours'")
        begin(Call(idempotency.COMMAND_LINE, "other", b"another digest"))

    answer, _ = publishing.to_everyone(call_named("other"), EVENT, TTL, tell=claim_anew)

    assert (answer["recipients"], answer["created"]) == (1500, 1500)


def test_killed_at_any_moment_a_repeat_completes_it_and_doubles_nothing(service: Service) -> None:
    key = make_key(service.database_url)
    people = 5000
    add_users(service.database_url, people)
    crashes = Crashes(service)
    for number in crashes.rounds():
        host = WireHost(service.url, key)
        body = event(recipients="everyone", title=f"Number {number}")
        answer = crashes.call(host, "POST", "/events", body, **{"Idempotency-Key": f"key-{number}"})

        assert answer.status == 201, answer.body
        said = answer.json()
        assert (said["recipients"], said["created"]) == (people, people)
        found = query(
            service.database_url,
            "SELECT count(*), count(DISTINCT user_id) FROM notifications WHERE event_id = %s",
            said["event_id"],
        )
        assert found == [(people, people)]
        assert query(service.database_url, "SELECT count(*) FROM events") == [(number + 1,)]
        assert query(service.database_url, "SELECT DISTINCT inbox_version FROM users") == [(number + 1,)]
        assert query(service.database_url, "SELECT received FROM events ORDER BY id DESC LIMIT 1") == [(people,)]
