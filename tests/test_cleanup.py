"""`flask cleanup`: what is over goes, in small batches, and nothing else ever does."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import flask
import pytest

from app import db, people, retention, tickets
from app.publishing import Published
from app.retention import ADVISORY_LOCK, ALL_CHORES
from tests import postgres, rows
from tests.cast import Person
from tests.commands import run, run_json
from tests.service import wait_until

Publish = Callable[..., Published]
NOTHING = dict.fromkeys(
    ["notifications", "events", "tickets", "undos", "ended_sessions", "idempotency_keys", "counters"], 0
)
COMPLETE = {"retractions": 0, "publications_to_everyone": 0}


def expire(*event_ids: int, ago: str = "1 second") -> None:
    """Lets these events and their notifications be over since then."""
    for table, key in (("notifications", "event_id"), ("events", "id")):
        rows.change(
            f"UPDATE {table} SET expires_at = now() - CAST(:ago AS interval) WHERE {key} = ANY(:ids)",
            ago=ago,
            ids=list(event_ids),
        )


def url() -> str:
    return db.engine().url.render_as_string(hide_password=False)


def snapshot(*persons: Person) -> list[Any]:
    """All that these people can see, and how often their inboxes changed."""
    return [[person.poll().get_json(), person.get("/notifications?limit=100").get_json()] for person in persons]


def test_with_nothing_to_do_it_says_so(app: flask.Flask, alice: Person, mallory: Person, publish: Publish) -> None:
    publish("alice", "mallory")

    assert run(app, "cleanup").stdout == "Deleted nothing.\n"
    assert run_json(app, "cleanup") == {"deleted": NOTHING, "completed": COMPLETE}


def test_what_has_expired_goes_and_the_living_stay(
    app: flask.Flask, alice: Person, mallory: Person, publish: Publish
) -> None:
    gone = [publish("alice", "mallory", title=f"Gone {n}").event_id for n in range(3)]
    for n in range(3):
        publish("alice", "mallory", title=f"Stays {n}")
    alice.post("/notifications/4/read")
    mallory.post("/notifications/5/archive")
    expire(*gone)
    before = snapshot(alice, mallory)

    assert run_json(app, "cleanup")["deleted"] == {**NOTHING, "notifications": 6, "events": 3}

    assert snapshot(alice, mallory) == before
    assert rows.count("notifications") == 6
    assert rows.column("SELECT title FROM events ORDER BY id") == ["Stays 0", "Stays 1", "Stays 2"]
    assert run_json(app, "cleanup")["deleted"] == NOTHING


def test_it_leaves_behind_what_it_has_done_and_when(app: flask.Flask, alice: Person, publish: Publish) -> None:
    assert db.read(retention.progress) == ({}, None)
    expire(publish("alice").event_id)
    run_json(app, "cleanup", "--dry-run")
    assert db.read(retention.progress) == ({}, None)

    run_json(app, "cleanup")
    rows_then, first = db.read(retention.progress)
    expire(publish("alice").event_id, publish("alice").event_id)
    run_json(app, "cleanup")
    rows_now, second = db.read(retention.progress)

    assert rows_then == {**dict.fromkeys(ALL_CHORES, 0), "notifications": 1, "events": 1}
    assert rows_now == {**dict.fromkeys(ALL_CHORES, 0), "notifications": 3, "events": 3}
    assert first is not None
    assert second is not None
    assert first < second


def test_one_that_was_cut_off_is_not_taken_for_done(app: flask.Flask, alice: Person, publish: Publish) -> None:
    run_json(app, "cleanup")
    done = db.read(retention.progress).done_at
    expire(publish("alice").event_id)

    assert db.write(retention.delete_batch, "notifications", 1000) == 1

    assert db.read(retention.progress).done_at == done
    rows.change("DELETE FROM chores WHERE name = 'retractions'")  # as a release has left it that knows fewer chores
    assert db.read(retention.progress).done_at is None


def test_a_tag_from_before_the_clean_up_stays_true(app: flask.Flask, alice: Person, publish: Publish) -> None:
    gone = publish("alice").event_id
    publish("alice")
    expire(gone)
    tag = alice.poll().headers["ETag"]

    run_json(app, "cleanup")

    assert alice.poll(tag).status_code == 304


def test_an_event_goes_only_when_nobody_has_it_any_more(
    app: flask.Flask, alice: Person, mallory: Person, publish: Publish
) -> None:
    event = publish("alice", "mallory", title="Mallory keeps it").event_id
    expire(event)
    rows.change("UPDATE notifications SET expires_at = now() + interval '1 hour' WHERE user_id = :id", id=mallory.id)
    young = publish("alice").event_id
    rows.change("DELETE FROM notifications WHERE event_id = :id", id=young)

    assert run_json(app, "cleanup")["deleted"] == {**NOTHING, "notifications": 1}
    assert mallory.poll().get_json()["notifications"][0]["title"] == "Mallory keeps it"

    rows.change("UPDATE notifications SET expires_at = now()")
    assert run_json(app, "cleanup")["deleted"] == {**NOTHING, "notifications": 1, "events": 1}
    assert rows.column("SELECT id FROM events") == [young]


def test_the_replaced_event_of_a_group_goes_at_its_own_time(app: flask.Flask, alice: Person, publish: Publish) -> None:
    older = publish("alice", group_key="thread").event_id
    newer = publish("alice", group_key="thread").event_id
    assert run_json(app, "cleanup")["deleted"] == NOTHING

    rows.change("UPDATE events SET expires_at = now() WHERE id = :id", id=older)

    assert run_json(app, "cleanup")["deleted"] == {**NOTHING, "events": 1}
    assert rows.column("SELECT id FROM events") == [newer]
    assert len(alice.unread_ids()) == 1


@pytest.fixture
def everything(app: flask.Flask, alice: Person, mallory: Person, publish: Publish) -> dict[str, str]:
    """One row of each kind for each of two people, and the condition that tells the moment when it is over."""
    for person, address in ((alice, "192.0.2.1"), (mallory, "192.0.2.2")):
        db.write(tickets.make_ticket, person.subject, 600)
        publish(person.subject)
        assert person.post("/notifications/read", {"through": 1}).status_code == 200
        db.write(people.end_session, person.new_session())
        line = f'{{"recipient": "{person.subject}", "type": "a", "title": "x"}}'
        run_json(app, "send", "--file", "-", stdin=line)
        app.test_client().post("/login", data={"username": person.subject}, environ_base={"REMOTE_ADDR": address})
    return {
        "notifications": "notifications SET expires_at = now()",
        "events": "events SET expires_at = now()",
        "tickets": "tickets SET expires_at = now()",
        "undos": "undos SET at = now() - interval '10 minutes'",
        "ended_sessions": "ended_sessions SET until = now()",
        "idempotency_keys": "idempotency_keys SET created_at = now() - interval '24 hours'",
        "counters": "rate_limits SET expires_at = now()",
    }


@pytest.mark.parametrize("chore", list(NOTHING))
def test_each_kind_goes_at_its_time_and_not_before(app: flask.Flask, everything: dict[str, str], chore: str) -> None:
    assert run_json(app, "cleanup")["deleted"] == NOTHING
    almost = everything[chore].replace("now()", "now() + interval '1 hour'")
    rows.change(f"UPDATE {almost}")
    assert run_json(app, "cleanup")["deleted"] == NOTHING
    if chore == "events":
        rows.change("DELETE FROM notifications")

    over = rows.change(f"UPDATE {everything[chore]}")

    assert over >= 2
    assert run_json(app, "cleanup")["deleted"] == {**NOTHING, chore: over}


def test_a_used_ticket_goes_with_its_time(app: flask.Flask, alice: Person, anonymous: Any) -> None:
    ticket = db.write(tickets.make_ticket, "alice", 600)
    assert anonymous.post(f"/tickets/{ticket}").status_code == 303
    assert run_json(app, "cleanup")["deleted"] == NOTHING

    rows.change("UPDATE tickets SET expires_at = now()")
    assert run_json(app, "cleanup")["deleted"]["tickets"] == 1


def test_a_dry_run_deletes_nothing_and_says_what_would_go(app: flask.Flask, everything: dict[str, str]) -> None:
    would = {chore: rows.change(f"UPDATE {over}") for chore, over in everything.items()}

    assert run_json(app, "cleanup", "--dry-run") == {
        "dry_run": True,
        "would_delete": would,
        "would_complete": COMPLETE,
    }
    said = run(app, "cleanup", "--dry-run")
    assert said.exit_code == 0
    assert said.stdout == (
        "Would delete 4 notifications, 4 events, 2 tickets, 2 undos, 2 ended sessions,"
        " 2 idempotency keys, 4 counters.\n"
    )

    assert run_json(app, "cleanup")["deleted"] == would
    assert run_json(app, "cleanup", "--dry-run")["would_delete"] == NOTHING


def test_it_works_in_batches_each_a_transaction_of_its_own(
    app: flask.Flask, alice: Person, publish: Publish, queries: list[str]
) -> None:
    event = publish(*[f"person-{n}" for n in range(25)]).event_id
    expire(event)
    queries.clear()

    said = run_json(app, "cleanup", "--batch", "10")

    assert said["deleted"] == {**NOTHING, "notifications": 25, "events": 1}
    # 10, 10, 5, and one that finds nothing.
    assert len([sent for sent in queries if "DELETE FROM notifications" in sent]) == 4


@pytest.mark.parametrize("batch", ["0", "-1", "10001", "many"])
def test_a_batch_that_makes_no_sense_is_refused(app: flask.Flask, batch: str) -> None:
    done = run(app, "cleanup", "--batch", batch)

    assert done.exit_code != 0
    assert "--batch" in done.stderr


def test_beside_a_second_one_it_says_so_and_ends_well(app: flask.Flask, alice: Person, publish: Publish) -> None:
    expire(publish("alice").event_id)
    with postgres.connect(url()) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])

        said = run(app, "cleanup")
        assert said.exit_code == 0
        assert said.stdout == "Another clean-up is running; nothing to do.\n"
        assert run_json(app, "cleanup") == {"already_running": True, "deleted": {}, "completed": {}}
        assert rows.count("notifications") == 1

    wait_until(lambda: "deleted" in run_json(app, "cleanup"), "the other one has let go")
    wait_until(lambda: run_json(app, "cleanup")["deleted"] == NOTHING, "everything is done")
    assert rows.count("notifications") == 0


def test_its_lock_is_free_again_afterwards(app: flask.Flask) -> None:
    run_json(app, "cleanup")

    with postgres.connect(url()) as other:
        row = other.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK]).fetchone()
    assert row == (True,)


def test_rows_that_somebody_is_changing_are_passed_over_and_found_the_next_time(
    app: flask.Flask, alice: Person, mallory: Person, publish: Publish
) -> None:
    expire(publish("alice", "mallory").event_id)
    with postgres.connect(url()) as other, other.transaction():
        other.execute("SELECT FROM notifications WHERE user_id = %s FOR UPDATE", [alice.id])

        assert run_json(app, "cleanup")["deleted"] == {**NOTHING, "notifications": 1}

    assert run_json(app, "cleanup")["deleted"] == {**NOTHING, "notifications": 1, "events": 1}


def test_it_waits_for_nobody_who_holds_an_inbox(app: flask.Flask, alice: Person, publish: Publish) -> None:
    expire(publish("alice").event_id)
    with postgres.connect(url()) as other, other.transaction():
        other.execute("SELECT FROM users FOR NO KEY UPDATE")

        assert run_json(app, "cleanup")["deleted"] == {**NOTHING, "notifications": 1, "events": 1}


def test_killed_at_any_moment_it_loses_nothing_and_the_next_one_goes_on(
    app: flask.Flask, alice: Person, mallory: Person, publish: Publish
) -> None:
    living = [publish("alice", "mallory", title=f"Lives {n}").event_id for n in range(5)]
    expired = [publish(*[f"person-{n}" for n in range(100)]).event_id for _ in range(6)]
    expire(*expired)
    before = snapshot(alice, mallory)

    for left in (560, 300):
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "cleanup", "--batch", "10"],
            cwd=postgres.ROOT,
            env=postgres.environment(url()),
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda left=left: rows.count("notifications") <= left + 10, "some of it is deleted", seconds=120)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        assert rows.count("notifications") > 10
        assert snapshot(alice, mallory) == before

    # The server forgets the lock of the killed one as soon as it notices that nobody listens any more.
    wait_until(lambda: "already_running" not in run_json(app, "cleanup"), "the lock is free")

    assert snapshot(alice, mallory) == before
    assert rows.column("SELECT id FROM events ORDER BY id") == living
    assert rows.count("notifications") == 10
