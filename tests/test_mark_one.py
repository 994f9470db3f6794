"""`POST /notifications/ID/read`, `…/unread`, `…/archive` and `…/unarchive`."""

from collections.abc import Callable
from typing import Any

import pytest

from tests import inboxes
from tests.cast import Person
from tests.test_find import body_without_request_id

Publish = Callable[..., Any]

VERBS = ["read", "unread", "archive", "unarchive"]


def prepare(person: Person, publish: Publish, verb: str) -> None:
    """A notification 1 to which `verb` applies, beside two others that stay as they are."""
    for _ in range(3):
        publish(person.subject)
    if verb in ("unread", "unarchive"):
        person.post(f"/notifications/1/{verb.removeprefix('un')}")


@pytest.mark.parametrize(
    ("verb", "column", "counts"),
    [
        ("read", "read_at", (2, 2)),
        ("unread", "read_at", (3, 3)),
        ("archive", "archived_at", (2, 2)),
        ("unarchive", "archived_at", (3, 3)),
    ],
)
def test_a_mark_changes_its_one_row_once(
    alice: Person, publish: Publish, verb: str, column: str, counts: tuple[int, int]
) -> None:
    prepare(alice, publish, verb)
    before, version = inboxes.rows(alice), inboxes.version(alice)

    answer = alice.post(f"/notifications/1/{verb}")

    assert answer.status_code == 200
    assert answer.get_json() == {"unread_count": counts[0], "unseen_count": counts[1], "changed": 1}
    assert inboxes.version(alice) == version + 1
    row = inboxes.row(alice, 1)
    assert (row[column] is None) == verb.startswith("un")
    assert inboxes.rows(alice)[:2] == before[:2]
    assert {**row, column: None} == {**before[2], column: None}


@pytest.mark.parametrize("verb", VERBS)
def test_repeating_a_mark_changes_nothing_and_keeps_the_first_time(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    first = alice.post(f"/notifications/1/{verb}").get_json()
    before = inboxes.everything()

    for _ in range(3):
        answer = alice.post(f"/notifications/1/{verb}")
        assert answer.status_code == 200
        assert answer.get_json() == {**first, "changed": 0}

    assert inboxes.everything() == before


def test_marking_read_leaves_seen_alone(alice: Person, publish: Publish) -> None:
    publish("alice")
    publish("alice")
    alice.post("/notifications/seen", {"ids": [2]})
    seen_at = inboxes.row(alice, 2)["seen_at"]

    assert alice.post("/notifications/1/read").get_json()["unseen_count"] == 0
    alice.post("/notifications/2/read")

    assert inboxes.row(alice, 1)["seen_at"] is None
    assert inboxes.row(alice, 2)["seen_at"] == seen_at
    # So what comes back unread comes back as unseen as it was.
    assert alice.post("/notifications/1/unread").get_json()["unseen_count"] == 1
    assert alice.post("/notifications/2/unread").get_json()["unseen_count"] == 1


def test_archiving_and_reading_leave_each_other_alone(alice: Person, publish: Publish) -> None:
    publish("alice")

    assert alice.post("/notifications/1/archive").get_json()["unread_count"] == 0
    assert alice.post("/notifications/1/read").get_json() == {"unread_count": 0, "unseen_count": 0, "changed": 1}
    assert alice.post("/notifications/1/unarchive").get_json()["unread_count"] == 0
    assert alice.post("/notifications/1/unread").get_json()["unread_count"] == 1


def test_counts_stop_at_100(alice: Person) -> None:
    inboxes.fill(alice, 150)

    answer = alice.post("/notifications/1/read")

    assert answer.get_json() == {"unread_count": 100, "unseen_count": 100, "changed": 1}


@pytest.mark.parametrize("verb", VERBS)
def test_unknown_expired_foreign_and_impossible_ids_are_404_alike(
    alice: Person, mallory: Person, publish: Publish, verb: str
) -> None:
    for _ in range(5):
        publish("alice")
    publish("mallory")
    publish("mallory")
    inboxes.expire(mallory, 2)
    before = inboxes.everything()

    never_was = mallory.post(f"/notifications/999/{verb}")

    assert never_was.status_code == 404
    expected = body_without_request_id(never_was)
    for other in ("5", "2", "0", "9223372036854775807", "9223372036854775808", "1" + "0" * 30):
        answer = mallory.post(f"/notifications/{other}/{verb}")
        assert answer.status_code == 404, other
        assert body_without_request_id(answer) == expected
    assert inboxes.everything() == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_mark_reaches_only_the_callers_own_inbox(alice: Person, mallory: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    prepare(mallory, publish, verb)
    before = (inboxes.rows(alice), inboxes.version(alice))

    assert mallory.post(f"/notifications/1/{verb}").get_json()["changed"] == 1

    assert (inboxes.rows(alice), inboxes.version(alice)) == before


def test_a_groups_old_id_is_404_and_marks_nothing(alice: Person, publish: Publish) -> None:
    publish("alice", group_key="thread")
    publish("alice", group_key="thread")
    before = inboxes.everything()

    assert alice.post("/notifications/1/read").status_code == 404
    assert alice.post("/notifications/1/archive").status_code == 404

    assert inboxes.everything() == before
    assert alice.post("/notifications/2/read").get_json()["changed"] == 1


# A group that goes on while one of it was away


def away_and_back(verb: str) -> str:
    return {"unread": "read", "unarchive": "archive"}[verb]


@pytest.mark.parametrize("verb", ["unread", "unarchive"])
def test_one_that_comes_back_beside_a_newer_one_of_its_group_stands_alone(
    alice: Person, publish: Publish, verb: str
) -> None:
    publish("alice", group_key="thread", title="First")
    alice.post(f"/notifications/1/{away_and_back(verb)}")
    publish("alice", group_key="thread", title="Second")

    answer = alice.post(f"/notifications/1/{verb}")

    assert answer.status_code == 200
    assert answer.get_json() == {"unread_count": 2, "unseen_count": 2, "changed": 1}
    assert (inboxes.row(alice, 1)["group_key"], inboxes.row(alice, 3)["group_key"]) == (None, "thread")
    # The next one of the group joins the newer, and the one that stands alone stays what it was.
    publish("alice", group_key="thread", title="Third")
    found = alice.poll().get_json()["notifications"]
    assert [(one["title"], one["count"]) for one in found] == [("Third", 2), ("First", 1)]


@pytest.mark.parametrize("verb", ["unread", "unarchive"])
def test_one_that_comes_back_alone_keeps_its_group(alice: Person, publish: Publish, verb: str) -> None:
    publish("alice", group_key="thread")
    alice.post(f"/notifications/1/{away_and_back(verb)}")

    alice.post(f"/notifications/1/{verb}")
    publish("alice", group_key="thread")

    [notification] = alice.poll().get_json()["notifications"]
    assert notification["count"] == 2


def test_a_mark_leaves_a_row_in_its_own_group(alice: Person, mallory: Person, publish: Publish) -> None:
    for person in (alice, mallory):
        publish(person.subject, group_key=person.subject)

    assert [alice.post("/notifications/1/seen").status_code in (200, 404)] == [True]
    assert mallory.post("/notifications/1/read").get_json()["changed"] == 1

    assert [inboxes.row(person, 1)["group_key"] for person in (alice, mallory)] == ["alice", "mallory"]
    assert alice.post("/notifications/1/read").get_json()["changed"] == 1
    assert [inboxes.row(person, 1)["group_key"] for person in (alice, mallory)] == ["alice", "mallory"]


@pytest.mark.parametrize("verb", ["unread", "unarchive"])
def test_a_group_of_somebody_else_with_the_same_name_changes_nothing(
    alice: Person, mallory: Person, publish: Publish, verb: str
) -> None:
    publish("alice", "mallory", group_key="thread")
    alice.post(f"/notifications/1/{away_and_back(verb)}")

    alice.post(f"/notifications/1/{verb}")

    assert inboxes.row(alice, 1)["group_key"] == "thread"
    assert inboxes.row(mallory, 1)["group_key"] == "thread"


@pytest.mark.parametrize("verb", ["unread", "unarchive"])
def test_one_that_comes_back_beside_an_expired_one_of_its_group_stands_alone(
    alice: Person, publish: Publish, verb: str
) -> None:
    publish("alice", group_key="thread")
    alice.post(f"/notifications/1/{away_and_back(verb)}")
    publish("alice", group_key="thread")
    inboxes.expire(alice, 3)

    answer = alice.post(f"/notifications/1/{verb}")

    assert answer.status_code == 200
    assert answer.get_json() == {"unread_count": 1, "unseen_count": 1, "changed": 1}
    assert alice.unread_ids() == [1]
    publish("alice", group_key="thread")
    assert [one["count"] for one in alice.poll().get_json()["notifications"]] == [1, 1]


@pytest.mark.parametrize("verb", ["unread", "unarchive"])
def test_one_that_stays_out_of_the_open_list_needs_no_place_in_its_group(
    alice: Person, publish: Publish, verb: str
) -> None:
    publish("alice", group_key="thread")
    alice.post("/notifications/1/read")
    alice.post("/notifications/1/archive")
    publish("alice", group_key="thread")

    assert alice.post(f"/notifications/1/{verb}").get_json()["changed"] == 1

    assert alice.unread_ids() == [4]
    assert inboxes.row(alice, 1)["group_key"] == "thread"


# Bodies and methods


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("body", "type", "status"),
    [
        (b"", None, 200),
        (b"", "application/json", 200),
        (b"{}", "application/json", 200),
        (b" {\n} ", "application/json; charset=utf-8", 200),
        (b'{"id": 1}', "application/json", 422),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
        (b"", "text/plain", 415),
        (b"a=1", "application/x-www-form-urlencoded", 415),
    ],
)
def test_the_body_is_nothing_or_an_empty_object(
    alice: Person, publish: Publish, verb: str, body: bytes, type: str | None, status: int
) -> None:
    prepare(alice, publish, verb)
    before = inboxes.everything()

    answer = alice.browser.post(f"/notifications/1/{verb}", data=body, content_type=type)

    assert answer.status_code == status
    assert (inboxes.everything() == before) == (status != 200)


@pytest.mark.parametrize("path", ["/notifications/1/seen", "/notifications/1/delete", "/notifications/1/READ"])
def test_there_is_no_other_verb(alice: Person, publish: Publish, path: str) -> None:
    publish("alice")

    assert alice.post(path).status_code == 404


@pytest.mark.parametrize("verb", VERBS)
def test_looking_never_marks(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    before = inboxes.everything()

    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        assert alice.browser.open(f"/notifications/1/{verb}", method=method).status_code == 405

    assert inboxes.everything() == before


# What it costs


@pytest.mark.parametrize("verb", VERBS)
def test_a_mark_is_lock_change_and_counts(alice: Person, publish: Publish, queries: list[str], verb: str) -> None:
    prepare(alice, publish, verb)
    queries.clear()

    assert alice.post(f"/notifications/1/{verb}").get_json()["changed"] == 1

    lock, change, counts = queries
    assert "FOR NO KEY UPDATE" in lock
    assert "notifications" not in lock
    assert "UPDATE notifications" in change
    assert "UPDATE" not in counts
