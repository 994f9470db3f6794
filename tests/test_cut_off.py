"""`flask cleanup` completes what was cut off and never repeated: retractions, and publications to everyone."""

import threading
from datetime import timedelta

import flask
import pytest

from app import db, publishing, retracting
from app.events import Event
from app.idempotency import Call
from app.validation import check
from tests import inboxes, rows
from tests.cast import Person
from tests.commands import run, run_json
from tests.crashes import add_users
from tests.hosts import Host

EVENT = check(Event, {"type": "news", "title": "For all"})
NOTHING = {"retractions": 0, "publications_to_everyone": 0}


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def later(minutes: int) -> None:
    """Lets so much time pass for every event, its retraction and its key."""
    for column in ("events.created_at", "events.retracted_at", "idempotency_keys.created_at"):
        table, name = column.split(".")
        rows.change(f"UPDATE {table} SET {name} = {name} - make_interval(mins => :minutes)", minutes=minutes)


def completed(app: flask.Flask) -> dict[str, int]:
    found: dict[str, int] = run_json(app, "cleanup")["completed"]
    return found


def cut_off_retraction(host: Host, *subjects: str) -> int:
    """Retracts an event of these people as far as a worker comes that is killed after the first."""
    event_id: int = host.publish(*subjects, title="Goes").get_json()["event_id"]
    db.write(retracting.mark, event_id, rows.one("SELECT id FROM api_keys"))
    db.write(retracting.remove, event_id, db.read(retracting.find_all, event_id)[:1])
    return event_id


def cut_off_publication(users: int, key: str = "k") -> int:
    """Publishes to as many users as far as a worker comes that is killed after the first thousand."""
    if users:
        add_users(db.engine().url.render_as_string(hide_password=False), users)
    key_id = rows.one("SELECT id FROM api_keys")
    answer, _ = db.write(publishing.begin_everyone, Call(key_id, key, b"digest"), EVENT, timedelta(days=30), key_id)
    assert db.write(publishing.continue_everyone, answer["event_id"])
    return answer["event_id"]


def received() -> set[int]:
    """How many notifications each user has."""
    return set(rows.column("SELECT (SELECT count(*) FROM notifications WHERE user_id = users.id) FROM users"))


def test_a_retraction_that_nobody_repeats_is_completed(
    app: flask.Flask, host: Host, alice: Person, mallory: Person
) -> None:
    event_id = cut_off_retraction(host, "alice", "mallory")
    tag = mallory.poll().headers["ETag"]
    later(minutes=11)

    assert completed(app) == {**NOTHING, "retractions": 1}

    assert rows.count("notifications") == 0
    assert (inboxes.version(alice), inboxes.version(mallory)) == (2, 2)
    assert mallory.poll(tag).status_code == 200
    assert not rows.one("SELECT is_retracting FROM events")
    assert host.call("DELETE", f"/events/{event_id}").get_json() == {"removed": 0}
    assert completed(app) == NOTHING


def test_a_publication_to_everyone_that_nobody_repeats_is_completed(app: flask.Flask, host: Host) -> None:
    event_id = cut_off_publication(2500)
    later(minutes=11)

    assert completed(app) == {**NOTHING, "publications_to_everyone": 1}

    assert received() == {1}
    assert rows.column("SELECT DISTINCT inbox_version FROM users") == [1]
    assert rows.one("SELECT received FROM events") == 2500
    assert completed(app) == NOTHING
    # Whoever repeats it after all is answered as if nothing had happened.
    call = Call(rows.one("SELECT id FROM api_keys"), "k", b"digest")
    answer, replayed = publishing.to_everyone(call, EVENT, timedelta(days=30))
    assert (answer, replayed) == ({"event_id": event_id, "recipients": 2500, "created": 2500, "muted": 0}, True)


def test_it_is_completed_without_its_key_too(app: flask.Flask, host: Host) -> None:
    cut_off_publication(1500)
    later(minutes=25 * 60)

    assert completed(app) == {**NOTHING, "publications_to_everyone": 1}
    assert received() == {1}


def test_what_may_still_be_running_is_left_alone(app: flask.Flask, host: Host, alice: Person, mallory: Person) -> None:
    cut_off_retraction(host, "alice", "mallory")
    cut_off_publication(1500)
    later(minutes=9)

    assert completed(app) == NOTHING
    assert rows.one("SELECT count(*) FROM events WHERE is_retracting") == 1
    assert rows.one("SELECT max(received) FROM events") == 1000


def test_what_nobody_can_see_any_more_is_not_continued(app: flask.Flask, host: Host) -> None:
    expired = cut_off_publication(1500)
    retracted = cut_off_publication(0, key="another")
    later(minutes=11)
    rows.change("UPDATE events SET expires_at = now() WHERE id = :id", id=expired)
    assert host.call("DELETE", f"/events/{retracted}").status_code == 200

    assert completed(app)["publications_to_everyone"] == 0
    assert rows.column("SELECT received FROM events ORDER BY id") == [1000, 1000]


def test_a_complete_one_whose_last_recipient_was_erased_is_not_continued(app: flask.Flask, host: Host) -> None:
    for subject in ("alice", "bob"):
        host.publish(subject)
    host.publish_to_everyone("k")
    host.call("DELETE", "/users/bob")
    later(minutes=11)

    assert completed(app) == NOTHING


def test_a_dry_run_says_what_would_be_completed(app: flask.Flask, host: Host, alice: Person, mallory: Person) -> None:
    cut_off_retraction(host, "alice", "mallory")
    cut_off_publication(1500)
    later(minutes=11)

    assert run_json(app, "cleanup", "--dry-run")["would_complete"] == {"retractions": 1, "publications_to_everyone": 1}
    assert run(app, "cleanup", "--dry-run").stdout == (
        "Would delete nothing. Would complete 1 retractions, 1 publications to everyone.\n"
    )
    assert run(app, "cleanup").stdout == "Deleted nothing. Completed 1 retractions, 1 publications to everyone.\n"
    assert run(app, "cleanup").stdout == "Deleted nothing.\n"


def test_beside_a_host_that_repeats_its_calls_nothing_is_doubled(app: flask.Flask, host: Host) -> None:
    add_users(db.engine().url.render_as_string(hide_password=False), 5000)
    retracted = host.publish_to_everyone("before").get_json()["event_id"]
    published = cut_off_publication(0)
    db.write(retracting.mark, retracted, rows.one("SELECT id FROM api_keys"))
    later(minutes=11)
    call = Call(rows.one("SELECT id FROM api_keys"), "k", b"digest")
    start, answers = threading.Barrier(3), []

    def clean_up() -> None:
        start.wait()
        assert run(app, "cleanup").exit_code == 0

    def repeat() -> None:
        start.wait()
        with app.app_context():
            answers.append(publishing.to_everyone(call, EVENT, timedelta(days=30))[0])
        answers.append(host.call("DELETE", f"/events/{retracted}").status_code)

    threads = [threading.Thread(target=work) for work in (clean_up, repeat)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()

    assert answers == [{"event_id": published, "recipients": 5000, "created": 5000, "muted": 0}, 200]
    assert rows.column("SELECT DISTINCT inbox_version FROM users") == [3]
    assert received() == {1}
