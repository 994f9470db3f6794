"""`DELETE /api/v1/events/ID`: the event leaves every inbox, and every bell hears of it at its next poll."""

from typing import Any

import flask
import pytest

from app import db, retracting
from tests import inboxes, postgres, rows
from tests.cast import Person
from tests.commands import run_json
from tests.crashes import Crashes, add_users
from tests.hosts import Host, WireHost, event, make_key, query
from tests.service import Service


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def published(answer: Any) -> int:
    assert answer.status_code == 201
    found: int = answer.get_json()["event_id"]
    return found


def retract(host: Host, event_id: int) -> int:
    answer = host.call("DELETE", f"/events/{event_id}")
    assert answer.status_code == 200
    assert list(answer.get_json()) == ["removed"]
    removed: int = answer.get_json()["removed"]
    return removed


def test_a_retracted_event_leaves_every_inbox_and_the_versions_move(host: Host, alice: Person, mallory: Person) -> None:
    host.publish("alice", title="Stays")
    event_id = published(host.publish("alice", "mallory", title="Goes"))
    tag = alice.poll().headers["ETag"]

    assert retract(host, event_id) == 2

    assert (inboxes.version(alice), inboxes.version(mallory)) == (3, 2)
    answer = alice.poll(tag)
    assert answer.status_code == 200
    assert [shown["title"] for shown in answer.get_json()["notifications"]] == ["Stays"]
    assert mallory.poll().get_json()["unread_count"] == 0
    assert alice.get("/notifications/2").status_code == 404
    assert alice.post("/notifications/2/read").status_code == 404
    state = host.call("GET", f"/events/{event_id}").get_json()
    assert state["retracted_at"] is not None
    assert (state["received"], state["held"]) == (2, 0)


def test_retracting_again_removes_nothing_and_moves_nothing(host: Host, alice: Person) -> None:
    event_id = published(host.publish("alice"))
    retract(host, event_id)
    when, version = rows.one("SELECT retracted_at FROM events"), inboxes.version(alice)

    assert retract(host, event_id) == 0

    assert rows.one("SELECT retracted_at FROM events") == when
    assert inboxes.version(alice) == version
    assert not rows.one("SELECT is_retracting FROM events")


@pytest.mark.parametrize("verb", ["read", "archive", "seen"])
def test_what_was_acted_on_goes_as_well(host: Host, alice: Person, verb: str) -> None:
    event_id = published(host.publish("alice"))
    alice.post(f"/notifications/{verb}", {"ids": [1]})

    assert retract(host, event_id) == 1
    for state in ("all", "unread", "read", "archived"):
        assert alice.get(f"/notifications?state={state}").get_json()["notifications"] == []


def test_an_undo_brings_nothing_back_that_was_retracted(host: Host, alice: Person) -> None:
    event_id = published(host.publish("alice"))
    undo = alice.post("/notifications/read", {"ids": [1]}).get_json()["undo"]
    retract(host, event_id)
    assert alice.post("/notifications/undo", {"undo": undo}).get_json()["changed"] == 0


def test_retracting_the_newest_of_a_group_takes_the_whole_line(host: Host, alice: Person) -> None:
    host.publish("alice", group_key="k")
    newest = published(host.publish("alice", group_key="k"))

    assert retract(host, newest) == 1
    assert alice.poll().get_json()["notifications"] == []


def test_retracting_an_older_one_of_a_group_removes_nothing(host: Host, alice: Person) -> None:
    oldest = published(host.publish("alice", group_key="k"))
    host.publish("alice", group_key="k", title="Newest")
    version = inboxes.version(alice)

    assert retract(host, oldest) == 0

    assert [(one["title"], one["count"]) for one in alice.poll().get_json()["notifications"]] == [("Newest", 2)]
    assert inboxes.version(alice) == version


def test_what_moved_on_between_finding_and_removing_stays(host: Host, alice: Person, mallory: Person) -> None:
    event_id = published(host.publish("alice", "mallory", group_key="k"))
    places = db.read(retracting.find_all, event_id)
    host.publish("alice", group_key="k", title="Newer")

    assert db.write(retracting.remove, event_id, places) == 1

    assert [one["title"] for one in alice.poll().get_json()["notifications"]] == ["Newer"]
    assert mallory.poll().get_json()["notifications"] == []


def test_whoever_is_erased_meanwhile_is_passed_over(host: Host, alice: Person, mallory: Person) -> None:
    event_id = published(host.publish("alice", "mallory"))
    places = db.read(retracting.find_all, event_id)
    host.call("DELETE", "/users/mallory")

    assert db.write(retracting.remove, event_id, places) == 1


def marked(host: Host, event_id: int) -> None:
    """The retraction as it stands before its first chunk, or after a kill."""
    db.write(retracting.mark, event_id, rows.one("SELECT id FROM api_keys"))
    assert rows.one("SELECT is_retracting FROM events WHERE id = :id", id=event_id)


def test_from_its_mark_on_it_is_out_of_sight_before_any_row_is_gone(host: Host, alice: Person) -> None:
    host.publish("alice", title="Stays")
    event_id = published(host.publish("alice", title="Goes"))
    archived = published(host.publish("alice", title="Archived"))
    alice.post("/notifications/3/archive")

    marked(host, event_id)
    marked(host, archived)

    assert rows.count("notifications") == 3
    shown = alice.poll().get_json()
    assert [one["title"] for one in shown["notifications"]] == ["Stays"]
    assert (shown["unread_count"], shown["unseen_count"]) == (1, 1)
    for state in ("all", "unread"):
        assert [one["title"] for one in alice.get(f"/notifications?state={state}").get_json()["notifications"]] == [
            "Stays"
        ]
    assert alice.get("/notifications?state=archived").get_json()["notifications"] == []
    assert alice.get("/notifications/2").status_code == 404
    assert alice.post("/notifications/1/read").get_json() == {"unread_count": 0, "unseen_count": 0, "changed": 1}
    assert "Goes" not in alice.get("/").get_data(as_text=True)


def test_out_of_sight_it_cannot_be_marked(host: Host, alice: Person) -> None:
    event_id = published(host.publish("alice"))
    marked(host, event_id)
    version = inboxes.version(alice)

    assert alice.post("/notifications/1/read").status_code == 404
    for which in ({"ids": [1]}, {"through": 1}):
        assert alice.post("/notifications/read", which).get_json()["changed"] == 0
    assert inboxes.version(alice) == version


def test_out_of_sight_it_is_not_counted_by_what_joins_its_group(host: Host, alice: Person) -> None:
    event_id = published(host.publish("alice", group_key="k", title="Goes"))
    marked(host, event_id)
    host.publish("alice", group_key="k", title="Newer")

    assert [(one["title"], one["count"]) for one in alice.poll().get_json()["notifications"]] == [("Newer", 1)]
    assert retract(host, event_id) == 0
    assert [(one["title"], one["count"]) for one in alice.poll().get_json()["notifications"]] == [("Newer", 1)]


def test_a_retraction_that_was_cut_off_is_completed_by_repeating_it(host: Host, alice: Person, mallory: Person) -> None:
    event_id = published(host.publish("alice", "mallory"))
    marked(host, event_id)
    db.write(retracting.remove, event_id, db.read(retracting.find_all, event_id)[:1])

    assert retract(host, event_id) == 1
    assert rows.count("notifications") == 0
    assert (inboxes.version(alice), inboxes.version(mallory)) == (2, 2)
    assert not rows.one("SELECT is_retracting FROM events")


def test_a_large_one_goes_in_chunks_that_each_commit(host: Host, queries: list[str]) -> None:
    add_users(db.engine().url.render_as_string(hide_password=False), 2500)
    event_id = published(host.publish_to_everyone("k"))
    del queries[:]

    assert retract(host, event_id) == 2500

    assert rows.count("notifications") == 0
    assert rows.column("SELECT DISTINCT inbox_version FROM users") == [2]
    locks = [statement for statement in queries if "FOR NO KEY UPDATE" in statement]
    assert len(locks) == 3


def test_a_mark_that_waited_for_a_lock_is_tried_again(host: Host, alice: Person) -> None:
    event_id = published(host.publish("alice"))
    with postgres.connect(db.engine().url.render_as_string(hide_password=False)) as other:
        other.autocommit = False
        other.execute("SELECT id FROM users FOR NO KEY UPDATE")
        answer = host.call("DELETE", f"/events/{event_id}")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert alice.poll().get_json()["notifications"] == []  # out of sight already
        other.rollback()

    assert retract(host, event_id) == 1


def test_the_clean_up_takes_a_retracted_event_when_its_time_is_over(app: flask.Flask, host: Host) -> None:
    event_id = published(host.publish("alice"))
    retract(host, event_id)
    rows.change("UPDATE events SET expires_at = now() - interval '1 second'")
    assert run_json(app, "cleanup")["deleted"]["events"] == 1
    assert host.call("DELETE", f"/events/{event_id}").status_code == 404


def test_killed_at_any_moment_a_repeat_completes_it(service: Service) -> None:
    key = make_key(service.database_url)
    people = 5000
    add_users(service.database_url, people)
    crashes = Crashes(service)
    for number in crashes.rounds():
        host = WireHost(service.url, key)
        keep = {"recipients": "everyone", "title": "Stays"} if number == 0 else None
        if keep:
            assert host.call("POST", "/events", event(**keep), **{"Idempotency-Key": "stays"}).status == 201
        sent = host.call("POST", "/events", event(recipients="everyone"), **{"Idempotency-Key": f"key-{number}"})
        event_id = sent.json()["event_id"]

        answer = crashes.call(host, "DELETE", f"/events/{event_id}")

        assert answer.status == 200, answer.body
        left = query(service.database_url, "SELECT count(*) FROM notifications WHERE event_id = %s", event_id)
        assert left == [(0,)]
        assert query(service.database_url, "SELECT count(*) FROM notifications") == [(people,)]
        assert query(service.database_url, "SELECT DISTINCT inbox_version FROM users") == [(2 * number + 3,)]
        assert query(service.database_url, "SELECT count(*) FROM events WHERE is_retracting") == [(0,)]
