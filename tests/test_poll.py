"""`GET /notifications/unread`: the snapshot, its tag and its limit."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient

from app import changes, db, people, tickets
from tests import inboxes
from tests.cast import Person
from tests.service import wait_until

Publish = Callable[..., Any]
MakeApp = Callable[..., flask.Flask]

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
SNAPSHOT = {"user", "notifications", "unread_count", "unseen_count", "version", "more"}


def tag_of(person: Person, limit: int = 20) -> str:
    """The tag of the person's present snapshot."""
    return person.poll(limit=limit).headers["ETag"]


def parts_of(tag: str) -> list[str]:
    assert tag.startswith('"')
    assert tag.endswith('"')
    return tag.strip('"').split(".")


def microseconds(moment: str) -> int:
    since = datetime.fromisoformat(moment) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


# The snapshot


def test_what_was_published_is_polled_with_exactly_the_fields_of_the_contract(alice: Person, publish: Publish) -> None:
    actor = {"name": "Bob", "url": "https://app.example/bob", "image": "https://app.example/bob.png"}
    publish(
        "alice",
        type="mention",
        title="Hello",
        body="<b>World</b> & <i>more</i>",
        url="/threads/7",
        actor=actor,
        data={"thread": 7, "tags": ["a", None], "deep": {"é": 1.5}},
        priority="high",
    )

    answer = alice.poll()

    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    content = answer.get_json()
    [notification] = content.pop("notifications")
    assert content == {"user": "alice", "unread_count": 1, "unseen_count": 1, "version": 1, "more": False}
    assert content["more"] is False
    assert MOMENT.fullmatch(notification.pop("created_at"))
    assert MOMENT.fullmatch(notification.pop("expires_at"))
    assert notification == {
        "id": 1,
        "type": "mention",
        "title": "Hello",
        "body": "World & more",
        "body_html": "<b>World</b> &amp; <i>more</i>",
        "url": "/threads/7",
        "actor": actor,
        "data": {"thread": 7, "tags": ["a", None], "deep": {"é": 1.5}},
        "priority": "high",
        "count": 1,
        "seen_at": None,
        "read_at": None,
        "archived_at": None,
    }


def test_what_an_event_leaves_out_is_null_or_empty(alice: Person, publish: Publish) -> None:
    publish("alice", actor={"name": "Bob"})
    publish("alice")

    plain, with_actor = alice.poll().get_json()["notifications"]

    assert with_actor["actor"] == {"name": "Bob", "url": None, "image": None}
    assert (plain["url"], plain["actor"], plain["data"], plain["body"], plain["body_html"]) == (None, None, {}, "", "")
    assert plain["priority"] == "normal"


def test_an_empty_inbox_is_a_snapshot_too(alice: Person) -> None:
    answer = alice.poll()

    assert answer.get_json() == {
        "user": "alice",
        "notifications": [],
        "unread_count": 0,
        "unseen_count": 0,
        "version": 0,
        "more": False,
    }
    assert answer.headers["ETag"] == f'"0.{alice.id}.0.0.20"'


def test_times_are_the_databases_in_utc(alice: Person, publish: Publish) -> None:
    publish("alice", ttl=timedelta(hours=3))
    alice.post("/notifications/seen", {"through": 1})

    [notification] = alice.poll().get_json()["notifications"]

    stored = inboxes.run("SELECT n.*, e.created_at FROM notifications AS n JOIN events AS e ON e.id = n.event_id")[0]
    for field in ("created_at", "expires_at", "seen_at"):
        assert MOMENT.fullmatch(notification[field])
        assert datetime.fromisoformat(notification[field]) == getattr(stored, field)
    assert stored.expires_at - stored.created_at == timedelta(hours=3)


def test_the_newest_come_first_whatever_their_priority(alice: Person, publish: Publish) -> None:
    for priority in ("high", "low", "normal"):
        publish("alice", priority=priority)

    found = alice.poll().get_json()["notifications"]

    assert [notification["priority"] for notification in found] == ["normal", "low", "high"]
    assert [notification["id"] for notification in found] == [3, 2, 1]


def test_twenty_come_at_a_time_unless_told_otherwise(alice: Person) -> None:
    inboxes.fill(alice, 101)

    assert len(alice.unread_ids()) == 20
    for limit in (1, 2, 99, 100):
        assert len(alice.poll(limit=limit).get_json()["notifications"]) == limit


@pytest.mark.parametrize(("unread", "more"), [(4, False), (5, False), (6, True)])
def test_more_says_whether_the_list_is_longer_than_what_came(alice: Person, unread: int, more: bool) -> None:
    inboxes.fill(alice, unread)

    assert alice.poll(limit=5).get_json()["more"] is more


@pytest.mark.parametrize(("unread", "count"), [(99, 99), (100, 100), (101, 100), (250, 100)])
def test_counts_stop_at_100(alice: Person, unread: int, count: int) -> None:
    inboxes.fill(alice, unread)

    content = alice.poll().get_json()

    assert (content["unread_count"], content["unseen_count"]) == (count, count)


def test_read_archived_and_expired_ones_are_neither_listed_nor_counted(alice: Person, publish: Publish) -> None:
    for _ in range(4):
        publish("alice")
    alice.post("/notifications/1/read")
    alice.post("/notifications/2/archive")
    inboxes.expire(alice, 3)

    content = alice.poll().get_json()

    assert [notification["id"] for notification in content["notifications"]] == [4]
    assert (content["unread_count"], content["unseen_count"], content["version"]) == (1, 1, 6)


def test_seen_ones_are_listed_but_not_counted_as_unseen(alice: Person, publish: Publish) -> None:
    publish("alice")
    publish("alice")
    alice.post("/notifications/seen", {"ids": [1]})

    content = alice.poll().get_json()

    assert (content["unread_count"], content["unseen_count"]) == (2, 1)
    assert [notification["seen_at"] is None for notification in content["notifications"]] == [True, False]


def test_counts_list_and_until_come_from_the_newest_1000_unread(alice: Person) -> None:
    inboxes.fill(alice, 1_002)
    inboxes.run("UPDATE notifications SET seen_at = now() WHERE id > 2")
    inboxes.run("UPDATE notifications SET expires_at = now() + interval '1 hour' WHERE id = 2")
    inboxes.run("UPDATE notifications SET expires_at = now() + interval '2 hours' WHERE id = 3")

    answer = alice.poll()

    # The 1,001st and 1,002nd are unseen and the former expires first: neither is in the window.
    assert (answer.get_json()["unread_count"], answer.get_json()["unseen_count"]) == (100, 0)
    oldest_in_window = inboxes.run("SELECT expires_at FROM notifications WHERE id = 3")[0].expires_at
    assert parts_of(answer.headers["ETag"])[3] == str(microseconds(oldest_in_window.isoformat()))


def test_an_unseen_one_at_the_windows_end_is_counted(alice: Person) -> None:
    inboxes.fill(alice, 1_001)
    inboxes.run("UPDATE notifications SET seen_at = now() WHERE id > 2")

    assert alice.poll().get_json()["unseen_count"] == 1


def test_nobody_polls_what_is_somebody_elses(alice: Person, mallory: Person, publish: Publish) -> None:
    publish("alice", title="For alice only")

    content = mallory.poll().get_json()

    assert (content["user"], content["notifications"], content["unread_count"]) == ("mallory", [], 0)


# The query


@pytest.mark.parametrize(
    "limit", ["0", "-1", "101", "1.5", "", "ten", "1e1", "٣", " 5", "0x10", "true", "null", "9" * 30, "9" * 2000]
)
def test_a_limit_outside_1_to_100_is_refused_by_name(alice: Person, limit: str) -> None:
    answer = alice.get("/notifications/unread", query_string={"limit": limit})

    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert [error["field"] for error in answer.get_json()["errors"]] == ["limit"]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("state=all", ["state"]),
        ("limit=5&limit=5", ["limit"]),
        ("limit=0&colour=red&size=2", ["colour", "limit", "size"]),
        ("limit=5%00", ["limit"]),
    ],
)
def test_every_mistake_in_the_query_is_named_at_once(alice: Person, query: str, fields: list[str]) -> None:
    answer = alice.get(f"/notifications/unread?{query}")

    assert answer.status_code == 422
    assert sorted(error["field"] for error in answer.get_json()["errors"]) == fields


# The tag


def test_the_tag_is_epoch_user_version_until_limit(alice: Person, publish: Publish) -> None:
    publish("alice", ttl=timedelta(days=2))
    publish("alice", ttl=timedelta(days=1))
    publish("alice", ttl=timedelta(days=3))

    answer = alice.poll(limit=1)

    # The soonest to expire is not on the page, but it is counted.
    soonest = microseconds(alice.get("/notifications/2").get_json()["expires_at"])
    assert answer.headers["ETag"] == f'"0.{alice.id}.3.{soonest}.1"'


def test_the_epoch_of_the_tag_is_the_setting(alice: Person, another_app: MakeApp) -> None:
    restored = Person(another_app(epoch="after-restore_2"), "alice")

    assert parts_of(tag_of(restored)) == ["after-restore_2", str(alice.id), "0", "0", "20"]


def test_nothing_new_is_304_with_tag_and_interval_and_no_body(alice: Person, publish: Publish) -> None:
    publish("alice")
    tag = tag_of(alice)

    answer = alice.poll(tag)

    assert answer.status_code == 304
    assert answer.headers["ETag"] == tag
    assert answer.headers["X-Poll-Interval"] == "30"
    assert answer.data == b""
    assert "Content-Length" not in answer.headers


CHANGES: dict[str, Callable[[Person, Publish], Any]] = {
    "another event": lambda alice, publish: publish("alice"),
    "the next event of the group": lambda alice, publish: publish("alice", group_key="thread"),
    "one read": lambda alice, publish: alice.post("/notifications/2/read"),
    "one archived": lambda alice, publish: alice.post("/notifications/1/archive"),
    "one unread again": lambda alice, publish: alice.post("/notifications/3/unread"),
    "one unarchived": lambda alice, publish: alice.post("/notifications/4/unarchive"),
    "seen": lambda alice, publish: alice.post("/notifications/seen", {"through": 2}),
    "all read": lambda alice, publish: alice.post("/notifications/read", {"through": 2}),
    "undone": lambda alice, publish: alice.post("/notifications/undo", {"undo": 5}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_the_tag_gives_200(alice: Person, publish: Publish, change: str) -> None:
    publish("alice")
    publish("alice", group_key="thread")
    publish("alice")
    publish("alice")
    assert alice.post("/notifications/read", {"ids": [3]}).get_json()["undo"] == 5
    alice.post("/notifications/4/archive")
    tag = tag_of(alice)
    assert alice.poll(tag).status_code == 304

    done = CHANGES[change](alice, publish)

    assert getattr(done, "status_code", 200) == 200
    answer = alice.poll(tag)
    assert answer.status_code == 200
    assert answer.headers["ETag"] != tag
    assert answer.get_json()["version"] == inboxes.version(alice) == int(parts_of(tag)[2]) + 1


def test_what_changes_nothing_leaves_the_tag_good(alice: Person, mallory: Person, publish: Publish) -> None:
    for _ in range(3):
        publish("alice")
    alice.post("/notifications/1/read")
    alice.post("/notifications/2/archive")
    tag = tag_of(alice)

    alice.post("/notifications/1/read")
    alice.post("/notifications/read", {"ids": [1, 99]})
    alice.post("/notifications/2/archive")
    publish("mallory")
    mallory.post("/notifications/read", {"through": 1})
    inboxes.expire(alice, 1, 2)  # neither is listed or counted

    assert alice.poll(tag).status_code == 304


def test_a_tag_is_over_when_the_first_of_what_it_counted_expires(another_app: MakeApp, publish: Publish) -> None:
    patient = Person(another_app(poll_limit="10000 per minute"), "alice")
    publish("alice")
    publish("alice", expires_in=2)
    tag = tag_of(patient)
    assert patient.poll(tag).status_code == 304

    answer = wait_until(lambda: (got := patient.poll(tag)).status_code == 200 and got, "the tag is over")

    assert [notification["id"] for notification in answer.get_json()["notifications"]] == [1]
    assert answer.headers["ETag"] != tag
    assert parts_of(answer.headers["ETag"])[2] == parts_of(tag)[2]  # expiry has no number


@pytest.mark.parametrize(("from_now", "status"), [(timedelta(hours=-1), 200), (timedelta(hours=1), 304)])
def test_304_only_while_until_is_ahead(alice: Person, from_now: timedelta, status: int) -> None:
    inboxes.fill(alice, 1)
    until = microseconds((inboxes.run("SELECT now() AS now")[0].now + from_now).isoformat())

    assert alice.poll(f'"0.{alice.id}.1.{until}.20"').status_code == status


def test_a_tag_without_expiry_is_good_for_ever(alice: Person) -> None:
    assert alice.poll(f'"0.{alice.id}.0.0.20"').status_code == 304


def test_304_needs_every_part_to_match(alice: Person, mallory: Person, publish: Publish) -> None:
    publish("alice", "mallory")
    parts = parts_of(tag_of(alice))
    assert alice.poll(f'"{".".join(parts)}"').status_code == 304

    for place, other in [(0, "1"), (1, str(mallory.id)), (2, "0"), (2, "2"), (3, "1"), (4, "21"), (4, "2")]:
        changed = [*parts[:place], other, *parts[place + 1 :]]
        assert alice.poll(f'"{".".join(changed)}"').status_code == 200, changed


def test_another_limit_is_another_tag(alice: Person, publish: Publish) -> None:
    publish("alice")
    tag = tag_of(alice, limit=5)

    assert alice.poll(tag, limit=5).status_code == 304
    assert alice.poll(tag, limit=6).status_code == 200
    assert alice.poll(tag).status_code == 200


def test_a_tag_of_alices_never_gives_mallory_304(alice: Person, mallory: Person, publish: Publish) -> None:
    publish("alice", "mallory")
    tag = tag_of(alice)
    assert parts_of(tag)[2] == parts_of(tag_of(mallory))[2]

    answer = mallory.poll(tag)

    assert answer.status_code == 200
    assert answer.get_json()["user"] == "mallory"


def test_a_tag_is_no_way_in_for_a_session_that_is_over(alice: Person) -> None:
    tag = tag_of(alice)
    db.write(people.end_all_sessions, "alice")

    assert alice.poll(tag).status_code == 401


def test_another_epoch_makes_every_bell_reload(alice: Person, another_app: MakeApp, publish: Publish) -> None:
    publish("alice")
    tag = tag_of(alice)

    restored = Person(another_app(epoch="1"), "alice")

    assert restored.poll(tag).status_code == 200
    assert alice.poll(tag).status_code == 304


@pytest.mark.parametrize(
    "form",
    [
        "{tag}",
        "W/{tag}",
        '"something-else", {tag}',
        '{tag}, "something-else"',
        'W/"x",W/{tag} , "y"',
        '"", {tag}',
        '"0.{user}.0.0.20", {tag}',
        '{tag}, "0.{user}.0.0.20"',
        '"0.{user}.0.0.20", W/"0.{user}.1.1.20", {tag}, "0.{user}.2.1.20"',
        "*",
        " * ",
    ],
)
def test_tags_are_compared_weakly_in_lists_and_as_a_star(alice: Person, publish: Publish, form: str) -> None:
    publish("alice")
    publish("alice")
    tag = tag_of(alice)

    answer = alice.poll(form.format(tag=tag, user=alice.id))

    assert answer.status_code == 304
    assert answer.headers["ETag"] == tag


@pytest.mark.parametrize(
    "header",
    [
        "",
        '"',
        '""',
        "W/",
        "**",
        '"*"',
        "{bare}",
        "'{bare}'",
        '"{bare}',
        '{bare}"',
        '"{bare}.1"',
        '"{bare} "',
        '" {bare}"',
        '"-{bare}"',
        '"0.{user}.1..20"',
        '"0.{user}.1.-1.20"',
        '"0.{user}.+1.{until}.20"',
        '"0.{user}.1.{until}.1e1"',
        '"0.{user}.one.{until}.20"',
        '"0.{user}.1\x00.{until}.20"',
        '"0.{user}.\xb2.{until}.20"',
        '"0.{user}.9999999999999999999.{until}.20"',
        '"0.{user}.9223372036854775808.{until}.20"',
        '"0.{user}.9223372036854775807.9223372036854775807.20"',
        '"0.{user}.1{zeros}.{until}.20"',
        '"0.{user}.1.1{zeros}.20"',
        '"0.1{zeros}.1.{until}.20"',
        '"0.{user}.1.{until}.1{zeros}"',
        '"0' + ".0" * 2000 + '"',
        '"x",' * 2000,
        "\xff\xfe\x80",
        "; DROP TABLE users; --",
    ],
)
def test_a_tag_that_makes_no_sense_is_no_tag(alice: Person, publish: Publish, header: str) -> None:
    publish("alice")
    bare = tag_of(alice).strip('"')
    until = bare.split(".")[3]

    header = header.format(bare=bare, user=alice.id, until=until, zeros="0" * 5000)
    answer = alice.get("/notifications/unread", headers={"If-None-Match": header})

    assert answer.status_code == 200
    assert answer.get_json()["unread_count"] == 1


# What it costs


def test_a_poll_is_one_statement_unless_a_tag_is_out_of_date(
    alice: Person, publish: Publish, queries: list[str]
) -> None:
    publish("alice")
    tag = tag_of(alice)

    def statements(tag: str | None = None) -> int:
        forget_what_is_known()
        queries.clear()
        alice.poll(tag)
        return len(queries)

    assert statements() == 1
    assert statements(tag) == 1
    assert statements("*") == 1
    assert statements('"of another service"') == 1
    assert statements(f'"0.{alice.id + 1}.1.0.20"') == 1
    assert statements(", ".join([f'"0.{alice.id}.0.0.20"'] * 50 + [tag])) == 1
    publish("alice")
    assert statements(tag) == 2


def forget_what_is_known() -> None:
    """Makes the worker as it was when it began."""
    changes.current().tell({changes.EVERYBODY: changes.FORGET})


def test_304_looks_at_no_notification(alice: Person, publish: Publish, queries: list[str]) -> None:
    publish("alice")
    tag = tag_of(alice)
    forget_what_is_known()
    queries.clear()

    assert alice.poll(tag).status_code == 304

    [statement] = queries
    assert "notifications" not in statement
    assert "events" not in statement


def test_nobody_costs_no_statement(anonymous: FlaskClient, queries: list[str]) -> None:
    queries.clear()

    assert anonymous.get("/notifications/unread").status_code == 401

    assert queries == []


# Headers


def test_no_poll_sets_a_cookie_or_tells_to_wait(alice: Person, publish: Publish) -> None:
    publish("alice")
    tag = tag_of(alice)

    for answer in (alice.poll(), alice.poll(tag), alice.get("/notifications/unread?limit=0")):
        assert "Set-Cookie" not in answer.headers
        assert "Retry-After" not in answer.headers


def test_a_session_from_the_sign_in_page_gets_no_fresher_cookie(alice: Person, app: flask.Flask) -> None:
    browser = app.test_client()
    signed_in = browser.post(f"/tickets/{db.write(tickets.make_ticket, 'alice', 60)}")
    assert "belfry=" in signed_in.headers["Set-Cookie"]

    for _ in range(3):
        answer = browser.get("/notifications/unread")
        assert answer.status_code == 200
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("interval", [1, 7, 3600])
def test_the_interval_is_the_setting_on_200_and_304(alice: Person, another_app: MakeApp, interval: int) -> None:
    person = Person(another_app(poll_interval=interval), "alice")

    first = person.poll()
    second = person.poll(first.headers["ETag"])

    assert (first.status_code, second.status_code) == (200, 304)
    assert first.headers["X-Poll-Interval"] == second.headers["X-Poll-Interval"] == str(interval)


def test_every_answer_is_private_and_guarded(alice: Person, anonymous: FlaskClient, another_app: MakeApp) -> None:
    limited = Person(another_app(poll_limit="1 per minute"), "alice")
    limited.poll()
    answers = {
        200: alice.poll(),
        304: alice.poll(tag_of(alice)),
        303: anonymous.get("/"),
        400: alice.browser.post("/notifications/read", data="{", content_type="application/json"),
        401: anonymous.get("/notifications/unread"),
        403: alice.browser.post("/notifications/1/read", headers={"Origin": "https://evil.com"}),
        404: alice.get("/notifications/99"),
        405: alice.browser.put("/notifications/unread"),
        415: alice.browser.post("/notifications/read", data="x", content_type="text/plain"),
        422: alice.get("/notifications/unread?limit=0"),
        429: limited.poll(),
    }
    answers_of_pages = [alice.get("/"), anonymous.get("/login"), anonymous.get("/nothing/here")]

    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    for answer in [*answers.values(), *answers_of_pages]:
        assert answer.headers["Cache-Control"] == "private, no-store", answer.status
        assert {"Cookie", "Authorization"} <= {part.strip() for part in answer.headers["Vary"].split(",")}
        assert ("Retry-After" in answer.headers) == (answer.status_code == 429)


# The limit


def test_over_the_limit_a_user_gets_429_and_when_to_come_back(alice: Person, another_app: MakeApp) -> None:
    limited = another_app(poll_limit="3 per minute")
    person = Person(limited, "alice")
    tag = tag_of(person)
    assert person.poll(tag).status_code == 304  # which counts like any other
    assert person.poll().status_code == 200

    answer = person.poll()

    assert answer.status_code == 429
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json()["status"] == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 61  # the minute, rounded up to whole seconds
    assert "ETag" not in answer.headers
    assert Person(limited, "alice").poll(tag).status_code == 429  # another browser, the same user
    assert person.get("/notifications").status_code == 200  # each route has a limit of its own


def test_polls_are_limited_per_user_and_never_per_address(mallory: Person, another_app: MakeApp) -> None:
    limited = another_app(poll_limit="2 per minute")
    everybody = [Person(limited, f"colleague {number}") for number in range(5)]

    for person in everybody:
        assert [person.poll().status_code for _ in range(3)] == [200, 200, 429]


def test_polls_of_nobody_are_401_however_many(another_app: MakeApp) -> None:
    stranger = another_app(poll_limit="2 per minute").test_client()

    assert {stranger.get("/notifications/unread").status_code for _ in range(10)} == {401}


@pytest.mark.parametrize(("workers", "each"), [(1, 6), (2, 3), (3, 2), (4, 1), (6, 1)])
def test_each_of_n_workers_allows_its_nth_part(another_app: MakeApp, workers: int, each: int) -> None:
    person = Person(another_app(poll_limit="6 per minute", web_concurrency=workers), "alice")

    statuses = [person.poll().status_code for _ in range(each + 2)]

    assert statuses == [200] * each + [429] * 2
    assert workers * each <= 6


def test_100_polls_a_minute_are_allowed_by_default(alice: Person) -> None:
    statuses = [alice.poll().status_code for _ in range(101)]

    assert statuses == [200] * 100 + [429]


def test_who_replays_an_ended_session_uses_up_nobodys_polls(alice: Person, another_app: MakeApp) -> None:
    limited = another_app(poll_limit="3 per minute")
    thief = Person(limited, "alice")
    db.write(people.end_all_sessions, "alice")
    replayed = [thief.poll().status_code for _ in range(5)]

    assert replayed == [401, 401, 401, 429, 429]
    assert Person(limited, "alice").poll().status_code == 200
