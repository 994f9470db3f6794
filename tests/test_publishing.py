"""Publishing: one event, and one notification of it on top of each recipient's inbox, in one transaction."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy.exc

from app import db, publishing
from app.errors import Problem
from app.events import Event
from app.idempotency import Call
from app.publishing import CHUNK, Order, Published
from app.validation import check
from tests import postgres, rows
from tests.cast import Person

Publish = Callable[..., Published]

MONTH = timedelta(days=30)


def only(person: Person) -> dict[str, Any]:
    """The person's one unread notification."""
    (notification,) = person.poll().get_json()["notifications"]
    found: dict[str, Any] = notification
    return found


def expire(event_id: int) -> None:
    """Lets the event and its notifications be over."""
    for table, key in (("notifications", "event_id"), ("events", "id")):
        rows.change(f"UPDATE {table} SET expires_at = now() - interval '1 second' WHERE {key} = :id", id=event_id)


def test_an_event_reaches_every_inbox_as_it_was_sent(alice: Person, mallory: Person, publish: Publish) -> None:
    publish(
        "alice",
        "mallory",
        type="release.v2",
        title="Version 2",
        body="It <b>works</b>",
        url="https://example.com/v2",
        actor={"name": "Grace", "url": "/people/grace", "image": "https://example.com/g.png"},
        data={"build": 7, "tags": ["a", None], "deep": {"x": 1.5}},
        priority="high",
    )

    received = only(alice)
    times = {name: received.pop(name) for name in ("created_at", "expires_at")}
    assert received == {
        "id": 1,
        "type": "release.v2",
        "title": "Version 2",
        "body": "It works",
        "body_html": "It <b>works</b>",
        "url": "https://example.com/v2",
        "actor": {"name": "Grace", "url": "/people/grace", "image": "https://example.com/g.png"},
        "data": {"build": 7, "tags": ["a", None], "deep": {"x": 1.5}},
        "priority": "high",
        "count": 1,
        "seen_at": None,
        "read_at": None,
        "archived_at": None,
    }
    assert only(mallory) == {**received, **times}


def test_an_unknown_subject_becomes_a_user_and_one_named_twice_counts_once(alice: Person, publish: Publish) -> None:
    done = publish("newcomer", "alice", "newcomer", "alice", "alice")

    assert (done.recipients, done.created) == (2, 2)
    assert rows.column("SELECT subject FROM users ORDER BY subject") == ["alice", "newcomer"]
    assert rows.one("SELECT inbox_version FROM users WHERE subject = 'newcomer'") == 1
    assert rows.count("notifications") == 2
    assert len(alice.unread_ids()) == 1


def test_subjects_are_compared_byte_for_byte(publish: Publish) -> None:
    composed, decomposed = "\u00e9", "e\u0301"

    assert publish("a", "A", "a ", composed, decomposed).recipients == 5
    assert publish("a", "A", "a ", composed, decomposed).recipients == 5
    assert rows.count("users") == 5


def test_somebody_who_is_disabled_still_receives(alice: Person, publish: Publish) -> None:
    rows.change("UPDATE users SET is_active = false")

    assert publish("alice").created == 1


def test_each_event_gets_the_inboxes_next_number(alice: Person, mallory: Person, publish: Publish) -> None:
    publish("mallory")
    for _ in range(3):
        publish("alice", "mallory")

    assert alice.unread_ids() == [3, 2, 1]
    assert mallory.unread_ids() == [4, 3, 2, 1]
    assert alice.poll().get_json()["version"] == 3


def test_more_recipients_than_a_chunk_all_receive_it_once(publish: Publish, queries: list[str]) -> None:
    everybody = [f"person-{number}" for number in range(2500)]
    publish(*everybody[:100])
    queries.clear()

    done = publish(*everybody)

    assert (done.recipients, done.created) == (2500, 2500)
    assert rows.one("SELECT count(*) FROM users WHERE inbox_version = 2") == 100
    assert rows.one("SELECT count(*) FROM users WHERE inbox_version = 1") == 2400
    delivered = rows.one("SELECT count(*) FROM notifications WHERE event_id = :id", id=done.event_id)
    assert delivered == 2500
    assert CHUNK == 1000
    assert len([sent for sent in queries if "INSERT INTO notifications" in sent]) == 3


def test_what_waits_waits_in_one_order(alice: Person, publish: Publish, queries: list[str]) -> None:
    """New people, event, locks in the order of ids, rows: never back, so that nothing deadlocks."""
    publish("zoe", "alice", "bob")

    steps = ["INSERT INTO users", "INSERT INTO events", "ORDER BY id FOR NO KEY UPDATE", "INSERT INTO notifications"]
    places = [next(i for i, sent in enumerate(queries) if step in sent) for step in steps]
    assert places == sorted(places)
    assert len([sent for sent in queries if "INSERT INTO notifications" in sent]) == 1


def test_a_lock_is_taken_on_the_users_and_on_nothing_of_others(
    alice: Person, mallory: Person, publish: Publish
) -> None:
    with postgres.connect(db.engine().url.render_as_string(hide_password=False)) as other, other.transaction():
        other.execute("SELECT FROM users WHERE subject = 'mallory' FOR UPDATE")
        assert publish("alice").created == 1


def test_how_many_received_it_is_recorded_and_a_single_recipient_by_id(alice: Person, publish: Publish) -> None:
    publish("alice", "alice")
    publish("alice", "bob", "carol")

    assert rows.column("SELECT received FROM events ORDER BY id") == [1, 3]
    assert rows.column("SELECT only_user_id FROM events ORDER BY id") == [alice.id, None]


# Groups


def test_a_group_counts_up_and_comes_to_the_top_unseen_with_a_new_id(alice: Person, publish: Publish) -> None:
    publish("alice", title="First", group_key="thread")
    publish("alice", title="Other")
    alice.post("/notifications/seen", {"through": 2})
    assert alice.poll().get_json()["unseen_count"] == 0
    before = alice.get("/notifications/1").get_json()["expires_at"]

    done = publish("alice", title="Second", group_key="thread", expires_in=31_000_000)

    assert (done.recipients, done.created) == (1, 1)
    snapshot = alice.poll().get_json()
    grouped, other = snapshot["notifications"]
    assert (grouped["id"], grouped["title"], grouped["count"], grouped["seen_at"]) == (4, "Second", 2, None)
    assert grouped["expires_at"] > before
    assert (other["title"], other["count"]) == ("Other", 1)
    assert (snapshot["unread_count"], snapshot["unseen_count"], snapshot["version"]) == (2, 1, 4)
    assert alice.get("/notifications/1").status_code == 404
    assert alice.post("/notifications/1/read").status_code == 404


def test_a_group_takes_the_new_events_life_even_a_shorter_one(alice: Person, publish: Publish) -> None:
    publish("alice", group_key="thread", expires_in=1000)
    publish("alice", group_key="thread", expires_in=10)

    assert rows.one("SELECT expires_at < now() + interval '11 seconds' FROM notifications")


def test_an_expired_group_begins_anew(alice: Person, publish: Publish) -> None:
    publish("alice", group_key="thread")
    expire(publish("alice", group_key="thread").event_id)
    assert alice.unread_ids() == []

    publish("alice", title="Anew", group_key="thread")

    assert (only(alice)["count"], only(alice)["title"], only(alice)["id"]) == (1, "Anew", 3)


@pytest.mark.parametrize("verb", ["read", "archive"])
def test_a_group_that_was_dealt_with_is_not_joined(alice: Person, publish: Publish, verb: str) -> None:
    publish("alice", title="Old", group_key="thread")
    alice.post(f"/notifications/1/{verb}")

    publish("alice", title="New", group_key="thread")

    assert (only(alice)["title"], only(alice)["count"]) == ("New", 1)
    assert alice.get("/notifications/1").get_json()["title"] == "Old"


def test_a_group_is_each_persons_own(alice: Person, mallory: Person, publish: Publish) -> None:
    publish("alice", group_key="thread")
    publish("alice", "mallory", group_key="thread")

    assert only(alice)["count"] == 2
    assert only(mallory)["count"] == 1


def test_other_keys_and_no_key_join_nothing(alice: Person, publish: Publish) -> None:
    for key in ("thread", "Thread", "thread ", None, None):
        publish("alice", **({"group_key": key} if key else {}))

    assert [n["count"] for n in alice.poll().get_json()["notifications"]] == [1] * 5


# Expiry


def test_an_event_lives_as_long_as_it_says_else_as_long_as_the_setting(alice: Person, publish: Publish) -> None:
    publish("alice", expires_in=90)
    publish("alice", expires_at=ahead("90 days"), ttl=MONTH)
    publish("alice", ttl=timedelta(hours=36))

    lives = rows.column("SELECT extract(epoch FROM expires_at - created_at) FROM events ORDER BY id")
    assert (lives[0], lives[2]) == (90, 36 * 3600)
    assert 89 < lives[1] / 86400 <= 90
    assert rows.column("SELECT expires_at FROM notifications ORDER BY id") == rows.column(
        "SELECT expires_at FROM events ORDER BY id"
    )


def ahead(text: str) -> str:
    """That long after now, as a sender writes it."""
    moment: str = rows.one(
        'SELECT to_char(now() + CAST(:text AS interval), \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')', text=text
    )
    return moment


@pytest.mark.parametrize("text", ["1 minute", "364 days 23:59:59"])
def test_a_moment_within_a_year_is_accepted(alice: Person, publish: Publish, text: str) -> None:
    assert publish("alice", expires_at=ahead(text)).created == 1


@pytest.mark.parametrize("text", ["-1 second", "0 seconds", "0.5 seconds", "366 days", "-100 years", "7900 years"])
def test_a_moment_out_of_a_year_is_refused_and_leaves_nothing(alice: Person, publish: Publish, text: str) -> None:
    with pytest.raises(Problem) as refused:
        publish("alice", "newcomer", expires_at=ahead(text))

    assert refused.value.status == 422
    assert [error.field for error in refused.value.errors] == ["expires_at"]
    assert_nothing_happened()


# All or nothing


def assert_nothing_happened() -> None:
    """Alice is the only user, with an untouched inbox, and there is no event."""
    assert rows.column("SELECT subject FROM users") == ["alice"]
    assert rows.column("SELECT inbox_version FROM users") == [0]
    assert (rows.count("events"), rows.count("notifications"), rows.count("idempotency_keys")) == (0, 0, 0)


def test_a_failure_in_the_last_chunk_leaves_nothing_of_the_first(alice: Person, publish: Publish) -> None:
    publish(*[f"person-{number}" for number in range(1500)])
    rows.change("UPDATE users SET inbox_version = 9223372036854775807 WHERE id = (SELECT max(id) FROM users)")

    with pytest.raises(sqlalchemy.exc.DataError):
        publish("alice", "newcomer", *[f"person-{number}" for number in range(1500)], title="Fails")

    assert rows.one("SELECT count(*) FROM events WHERE title = 'Fails'") == 0
    assert rows.one("SELECT count(*) FROM users WHERE subject = 'newcomer'") == 0
    assert rows.column("SELECT DISTINCT inbox_version FROM users ORDER BY 1") == [0, 1, 9223372036854775807]
    assert alice.unread_ids() == []


def test_a_failure_after_publishing_takes_all_of_it_back(alice: Person) -> None:
    event = check(Event, {"type": "comment", "title": "x"})

    def publish_and_fail(connection: sqlalchemy.Connection) -> None:
        publishing.publish_once(connection, Call(0, "key", b"digest"), [Order(event, ["alice", "newcomer"])], MONTH)
        raise ValueError("afterwards")

    with pytest.raises(ValueError, match="afterwards"):
        db.write(publish_and_fail)

    assert_nothing_happened()


# The limits of an event (docs/api.md)


def year() -> int:
    return 365 * 24 * 3600


def accepted() -> list[tuple[str, Any]]:
    return [
        ("type", "a"),
        ("type", "0"),
        ("type", "a" * 50),
        ("type", "a.b_c-d9"),
        ("title", "x"),
        ("title", "x" * 200),
        ("title", "<b>" + "x" * 200 + "</b>"),
        ("title", "\u200b" * 100 + "x" * 200),
        ("title", "e\u0301" * 200),
        ("body", ""),
        ("body", "x" * 4000),
        ("url", None),
        ("url", "/"),
        ("url", "/" + "x" * 1999),
        ("url", "http://example.com"),
        ("url", "https://example.com/" + "x" * 1980),
        ("actor", None),
        ("actor", {"name": "x" * 100}),
        ("actor", {"name": "x", "url": "/" + "x" * 1999, "image": "/" + "x" * 1999}),
        ("data", {}),
        ("data", {"x": "y" * (10 * 1024 - 8)}),
        ("data", {"x": [1.7976931348623157e308, 5e-324, 0.0, 1e22, 12345.678]}),
        ("data", {"x": [12345.678] * 1000}),
        ("priority", "low"),
        ("priority", "normal"),
        ("priority", "high"),
        ("group_key", None),
        ("group_key", "x"),
        ("group_key", "x" * 255),
        ("expires_in", 1),
        ("expires_in", year()),
    ]


@pytest.mark.parametrize(("field", "value"), accepted())
def test_a_field_at_its_limit_is_accepted(alice: Person, publish: Publish, field: str, value: Any) -> None:
    assert publish("alice", **{field: value}).created == 1


def refused() -> list[tuple[str, Any, str]]:
    return [
        ("type", "", "type"),
        ("type", "a" * 51, "type"),
        ("type", "A", "type"),
        ("type", ".a", "type"),
        ("type", "a b", "type"),
        ("type", "a\n", "type"),
        ("type", "\u0661", "type"),
        ("type", None, "type"),
        ("type", 1, "type"),
        ("title", "", "title"),
        ("title", "x" * 201, "title"),
        ("title", " \t\n\u200b\u202e", "title"),
        ("title", "<script>x</script>", "title"),
        ("title", "x" * 2001, "title"),
        ("title", None, "title"),
        ("body", "x" * 4001, "body"),
        ("body", "<b>" * 1333 + "xx", "body"),
        ("body", None, "body"),
        ("url", "/" + "x" * 2000, "url"),
        ("url", "", "url"),
        ("url", "//example.com", "url"),
        ("url", "javascript:alert(1)", "url"),
        ("url", "ftp://example.com", "url"),
        ("url", "example.com", "url"),
        ("url", "https://user@example.com", "url"),
        ("url", "/\\example.com", "url"),
        ("actor", {}, "actor.name"),
        ("actor", {"name": ""}, "actor.name"),
        ("actor", {"name": "x" * 101}, "actor.name"),
        ("actor", {"name": "x", "url": "/" + "x" * 2000}, "actor.url"),
        ("actor", {"name": "x", "url": "data:x"}, "actor.url"),
        ("actor", {"name": "x", "image": "/" + "x" * 2000}, "actor.image"),
        ("actor", {"name": "x", "image": "data:image/png;base64,x"}, "actor.image"),
        ("actor", {"name": "x", "mail": "y"}, "actor.mail"),
        ("actor", "x", "actor"),
        ("data", {"x": "y" * (10 * 1024 - 7)}, "data"),
        ("data", {"x": [1e308] * 35}, "data"),  # PostgreSQL keeps numbers without exponents: 308 digits each
        ("data", {"x": {"y": [{"z": -5e-324}] * 35}}, "data"),
        ("data", [], "data"),
        ("data", None, "data"),
        ("priority", "urgent", "priority"),
        ("priority", None, "priority"),
        ("group_key", "", "group_key"),
        ("group_key", "x" * 256, "group_key"),
        ("expires_in", 0, "expires_in"),
        ("expires_in", -1, "expires_in"),
        ("expires_in", year() + 1, "expires_in"),
        ("expires_in", 1.5, "expires_in"),
        ("expires_in", "60", "expires_in"),
        ("expires_in", True, "expires_in"),
        ("expires_at", "tomorrow", "expires_at"),
        ("expires_at", "2030-01-01T00:00:00", "expires_at"),
        ("expires_at", 1893456000, "expires_at"),
        ("expires_at", "20300101T000000Z", "expires_at"),
        ("expires_at", "0001-01-01T00:00:00+23:59", "expires_at"),
        ("expires_at", "9999-12-31T23:59:59-23:59", "expires_at"),
        ("colour", "red", "colour"),
        ("recipients", ["alice"], "recipients"),
    ]


@pytest.mark.parametrize(("field", "value", "named"), refused())
def test_a_field_past_its_limit_is_refused_by_its_name(field: str, value: Any, named: str) -> None:
    with pytest.raises(Problem) as problem:
        check(Event, {"type": "comment", "title": "x", field: value})

    assert problem.value.status == 422
    assert [error.field for error in problem.value.errors] == [named]


def test_a_life_cannot_be_given_in_two_ways() -> None:
    with pytest.raises(Problem) as problem:
        check(Event, {"type": "comment", "title": "x", "expires_in": 60, "expires_at": "2030-01-01T00:00:00Z"})

    assert [error.field for error in problem.value.errors] == ["expires_at"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Problem) as problem:
        check(Event, {"type": "A", "title": "", "body": 1, "url": "x", "actor": {"name": ""}, "data": 1, "wrong": 1})

    fields = {error.field for error in problem.value.errors}
    assert fields == {"type", "title", "body", "url", "actor.name", "data", "wrong"}


# Text from strangers


def test_what_a_stranger_wrote_is_safe_when_it_comes_out(alice: Person, publish: Publish) -> None:
    publish(
        "alice",
        title="<img src=x onerror=alert(1)>\u202eTitle &amp; <b>more</b>\n\x07",
        body='<script>alert(1)</script><a href="javascript:alert(1)" onclick="x">no</a> '
        '<a href="https://example.com/?a=1&amp;b=2" style="x">yes</a> <b>bold</b><iframe src="/"></iframe>\u202e',
        actor={"name": "<i>Ada</i>\u0000".replace("\u0000", "\x07")},
    )

    notification = only(alice)
    assert notification["title"] == "Title & more"
    assert notification["body"] == "no yes bold"
    assert notification["body_html"] == 'no <a href="https://example.com/?a=1&amp;b=2">yes</a> <b>bold</b>'
    assert notification["actor"]["name"] == "Ada"


def test_the_page_shows_it_just_as_safe(alice: Person, publish: Publish) -> None:
    publish("alice", title="&lt;script&gt;alert(1)&lt;/script&gt;", body="&lt;img src=x&gt; <b>b</b>")

    page = alice.get("/").text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;img src=x&gt; <b>b</b>" in page
