"""`POST /notifications/read`, `/unread`, `/archive` and `/seen`: by ids, or through a version."""

from collections.abc import Callable
from typing import Any

import pytest

from tests import inboxes
from tests.cast import Person

Publish = Callable[..., Any]

VERBS = ["read", "unread", "archive", "seen"]
COLUMNS = {"read": "read_at", "unread": "read_at", "archive": "archived_at", "seen": "seen_at"}


def mark(person: Person, verb: str, **which: Any) -> dict[str, Any]:
    answer = person.post(f"/notifications/{verb}", which)
    assert answer.status_code == 200, answer.get_json()
    content: dict[str, Any] = answer.get_json()
    assert set(content) == {"unread_count", "unseen_count", "changed", "undo"}
    return content


def applied(person: Person, verb: str) -> list[int]:
    """The ids on which the verb has been done, or for which it need not be."""
    column = COLUMNS[verb]
    return [row["id"] for row in inboxes.rows(person) if (row[column] is None) == (verb == "unread")]


def prepare(person: Person, publish: Publish, verb: str, count: int = 5) -> None:
    """Notifications 1 to `count`, to all of which `verb` applies."""
    for _ in range(count):
        publish(person.subject)
    if verb == "unread":
        for id_ in range(1, count + 1):
            person.post(f"/notifications/{id_}/read")


# By ids


@pytest.mark.parametrize(
    ("verb", "counts"), [("read", (3, 3)), ("unread", (2, 2)), ("archive", (3, 3)), ("seen", (5, 3))]
)
def test_exactly_the_named_ones_are_marked(alice: Person, publish: Publish, verb: str, counts: tuple[int, int]) -> None:
    prepare(alice, publish, verb)
    version = inboxes.version(alice)

    content = mark(alice, verb, ids=[4, 2])

    assert content == {
        "unread_count": counts[0],
        "unseen_count": counts[1],
        "changed": 2,
        "undo": version + 1,
    }
    assert inboxes.version(alice) == version + 1
    assert applied(alice, verb) == [4, 2]


@pytest.mark.parametrize("verb", VERBS)
def test_a_mark_touches_only_its_own_column(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    before = inboxes.rows(alice)

    mark(alice, verb, ids=[1, 2, 3, 4, 5])

    column = COLUMNS[verb]
    assert [{**row, column: None} for row in inboxes.rows(alice)] == [{**row, column: None} for row in before]


@pytest.mark.parametrize("verb", VERBS)
def test_unknown_expired_and_impossible_ids_are_skipped_and_doubled_ones_count_once(
    alice: Person, mallory: Person, publish: Publish, verb: str
) -> None:
    prepare(alice, publish, verb)
    inboxes.expire(alice, 5)

    content = mark(alice, verb, ids=[99, 1, 5, 1, 9223372036854775807, 1, 3])

    assert content["changed"] == 2
    assert applied(alice, verb) == [3, 1]


@pytest.mark.parametrize("verb", VERBS)
def test_ids_of_others_name_nothing(alice: Person, mallory: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    before = inboxes.everything()

    content = mark(mallory, verb, ids=[1, 2, 3, 4, 5])

    assert content == {"unread_count": 0, "unseen_count": 0, "changed": 0, "undo": 0}
    assert inboxes.everything() == before


@pytest.mark.parametrize("verb", VERBS)
def test_where_nothing_changes_there_is_nothing_to_undo_and_no_new_version(
    alice: Person, publish: Publish, verb: str
) -> None:
    prepare(alice, publish, verb)
    first = mark(alice, verb, ids=[1, 2])
    before = inboxes.everything()

    again = mark(alice, verb, ids=[1, 2])

    assert again == {**first, "changed": 0, "undo": 0}
    assert inboxes.everything() == before


@pytest.mark.parametrize("verb", VERBS)
def test_only_rows_that_change_are_counted(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    mark(alice, verb, ids=[1, 2])
    times = {row["id"]: row[COLUMNS[verb]] for row in inboxes.rows(alice)}

    assert mark(alice, verb, ids=[1, 2, 3])["changed"] == 1

    after = {row["id"]: row[COLUMNS[verb]] for row in inboxes.rows(alice)}
    assert (after[1], after[2]) == (times[1], times[2])


def test_a_groups_old_id_is_skipped(alice: Person, publish: Publish) -> None:
    publish("alice", group_key="thread")
    publish("alice")
    publish("alice", group_key="thread")

    for verb in ("seen", "read", "archive"):
        assert mark(alice, verb, ids=[1])["changed"] == 0

    assert alice.unread_ids() == [3, 2]
    assert mark(alice, "read", ids=[1, 2])["changed"] == 1
    assert alice.unread_ids() == [3]


def test_200_ids_are_taken_and_201_are_not(alice: Person) -> None:
    inboxes.fill(alice, 201)

    refused = alice.post("/notifications/read", {"ids": list(range(1, 202))})
    assert refused.status_code == 422
    assert [error["field"] for error in refused.get_json()["errors"]] == ["ids"]
    assert inboxes.version(alice) == 201

    assert mark(alice, "read", ids=list(range(1, 201)))["changed"] == 200
    assert alice.unread_ids() == [201]


def test_seen_marks_what_is_open_only(alice: Person, publish: Publish) -> None:
    prepare(alice, publish, "seen", 4)
    mark(alice, "read", ids=[1])
    mark(alice, "archive", ids=[2])

    assert mark(alice, "seen", ids=[1, 2, 3])["changed"] == 1
    assert mark(alice, "seen", through=4)["changed"] == 1

    assert applied(alice, "seen") == [4, 3]


# Through a version


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("through", [0, 1, 3, 5])
def test_everything_up_to_the_version_is_marked(alice: Person, publish: Publish, verb: str, through: int) -> None:
    prepare(alice, publish, verb)

    content = mark(alice, verb, through=through)

    assert content["changed"] == through
    assert applied(alice, verb) == list(range(through, 0, -1))


@pytest.mark.parametrize("verb", ["read", "archive", "seen"])
def test_marking_through_a_version_spares_what_came_later(alice: Person, publish: Publish, verb: str) -> None:
    publish("alice")
    publish("alice", group_key="thread")
    shown = alice.poll().get_json()["version"]
    publish("alice")
    publish("alice", group_key="thread")  # moves number 2 to the top: nobody has been shown that

    content = mark(alice, verb, through=shown)

    assert content["changed"] == 1
    assert applied(alice, verb) == [1]


@pytest.mark.parametrize("verb", VERBS)
def test_the_present_version_is_the_highest_that_is_taken(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    present = inboxes.version(alice)
    before = inboxes.everything()

    for above in (present + 1, present + 1000, 2**63 - 1):
        answer = alice.post(f"/notifications/{verb}", {"through": above})
        assert answer.status_code == 422
        assert answer.mimetype == "application/problem+json"
        [error] = answer.get_json()["errors"]
        assert error["field"] == "through"
        assert str(present) in error["message"]
    assert inboxes.everything() == before

    assert mark(alice, verb, through=present)["changed"] == 5


def test_a_version_of_somebody_elses_inbox_means_nothing(alice: Person, mallory: Person, publish: Publish) -> None:
    prepare(alice, publish, "read")

    assert mallory.post("/notifications/read", {"through": 5}).status_code == 422
    assert mark(mallory, "read", through=0)["changed"] == 0
    assert alice.unread_ids() == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("verb", VERBS)
def test_archived_and_expired_ones_are_not_reached_by_a_version(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    alice.post("/notifications/2/archive")
    inboxes.expire(alice, 4)
    before = {row["id"]: row for row in inboxes.rows(alice)}

    assert mark(alice, verb, through=inboxes.version(alice))["changed"] == 3

    after = {row["id"]: row for row in inboxes.rows(alice)}
    assert (after[2], after[4]) == (before[2], before[4])


@pytest.mark.parametrize("verb", VERBS)
def test_a_call_marks_the_newest_10000_and_is_repeated_for_the_rest(alice: Person, verb: str) -> None:
    inboxes.fill(alice, 10_003)
    if verb == "unread":
        inboxes.run("UPDATE notifications SET read_at = now()")

    content = mark(alice, verb, through=10_003)

    assert content["changed"] == 10_000
    column = COLUMNS[verb]
    left = inboxes.run(f"SELECT id FROM notifications WHERE ({column} IS NULL) != {verb == 'unread'} ORDER BY id")
    assert [row.id for row in left] == [1, 2, 3]
    assert mark(alice, verb, through=10_003)["changed"] == 3
    assert mark(alice, verb, through=10_003) == {**mark(alice, verb, through=0), "changed": 0, "undo": 0}


# Groups that come back


def test_of_several_of_a_group_that_come_back_together_the_newest_keeps_the_group(
    alice: Person, publish: Publish
) -> None:
    for _ in range(3):
        publish("alice", group_key="thread")
        alice.post(f"/notifications/{inboxes.version(alice)}/read")
    publish("alice", group_key="other")
    assert [row["id"] for row in inboxes.rows(alice)] == [7, 5, 3, 1]

    content = mark(alice, "unread", ids=[1, 3, 5])

    assert (content["changed"], content["unread_count"]) == (3, 4)
    assert [row["group_key"] for row in inboxes.rows(alice)] == ["other", "thread", None, None]
    publish("alice", group_key="thread")
    found = alice.poll().get_json()["notifications"]
    assert [(one["id"], one["count"]) for one in found] == [(9, 2), (7, 1), (3, 1), (1, 1)]


def test_beside_a_newer_open_one_none_of_them_keeps_the_group(alice: Person, publish: Publish) -> None:
    for _ in range(2):
        publish("alice", group_key="thread")
        alice.post(f"/notifications/{inboxes.version(alice)}/read")
    publish("alice", group_key="thread")

    assert mark(alice, "unread", through=4)["changed"] == 2

    assert [row["group_key"] for row in inboxes.rows(alice)] == ["thread", None, None]


def test_beside_an_expired_open_one_none_of_them_keeps_the_group(alice: Person, publish: Publish) -> None:
    for _ in range(2):
        publish("alice", group_key="thread")
        alice.post(f"/notifications/{inboxes.version(alice)}/read")
    publish("alice", group_key="thread")
    inboxes.expire(alice, 5)

    assert mark(alice, "unread", ids=[1, 3]) == {"unread_count": 2, "unseen_count": 2, "changed": 2, "undo": 6}


def test_archived_ones_that_are_marked_unread_stay_in_their_group_and_out_of_the_list(
    alice: Person, publish: Publish
) -> None:
    for _ in range(2):
        publish("alice", group_key="thread")
        present = inboxes.version(alice)
        alice.post(f"/notifications/{present}/read")
        alice.post(f"/notifications/{present}/archive")

    content = mark(alice, "unread", ids=[1, 4])

    assert (content["changed"], content["unread_count"]) == (2, 0)
    assert [row["group_key"] for row in inboxes.rows(alice)] == ["thread", "thread"]


# Bodies


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["ids"]),
        ({"ids": [1], "through": 1}, ["ids"]),
        ({"ids": None, "through": None}, ["ids"]),
        ({"ids": []}, ["ids"]),
        ({"ids": 1}, ["ids"]),
        ({"ids": {"1": 1}}, ["ids"]),
        ({"ids": "1"}, ["ids"]),
        ({"ids": [1, "2", 3.0, True, None, [4], 0, -1]}, [f"ids[{place}]" for place in range(1, 8)]),
        ({"through": -1}, ["through"]),
        ({"through": "1"}, ["through"]),
        ({"through": 1.0}, ["through"]),
        ({"through": True}, ["through"]),
        ({"through": [1]}, ["through"]),
        ({"ids": [0], "through": -1, "colour": "red"}, ["colour", "ids[0]", "through"]),
    ],
)
def test_every_mistake_in_the_body_is_named_at_once(
    alice: Person, publish: Publish, verb: str, body: dict[str, Any], fields: list[str]
) -> None:
    prepare(alice, publish, verb)
    before = inboxes.everything()

    answer = alice.post(f"/notifications/{verb}", body)

    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert sorted(error["field"] for error in answer.get_json()["errors"]) == fields
    assert inboxes.everything() == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_body_is_needed(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    before = inboxes.everything()

    answer = alice.post(f"/notifications/{verb}")

    assert 400 <= answer.status_code < 500
    assert answer.mimetype == "application/problem+json"
    assert inboxes.everything() == before


def test_null_stands_for_the_one_that_is_not_given(alice: Person, publish: Publish) -> None:
    prepare(alice, publish, "read")

    assert mark(alice, "read", ids=[1], through=None)["changed"] == 1
    assert mark(alice, "read", ids=None, through=2)["changed"] == 1


# What it costs


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("which", [{"ids": [1, 2, 3, 99]}, {"through": 5}])
def test_a_bulk_mark_is_lock_change_and_counts(
    alice: Person, publish: Publish, queries: list[str], verb: str, which: dict[str, Any]
) -> None:
    prepare(alice, publish, verb)
    queries.clear()

    assert mark(alice, verb, **which)["changed"] >= 3

    lock, change, counts = queries
    assert "FOR NO KEY UPDATE" in lock
    assert "notifications" not in lock
    assert "UPDATE notifications" in change
    assert "UPDATE" not in counts


def test_many_bulk_actions_have_one_limit_in_sum(alice: Person) -> None:
    verbs = ["read", "unread", "archive", "seen"]
    answers = [alice.post(f"/notifications/{verbs[n % 4]}", {"through": 0}) for n in range(61)]

    assert [answer.status_code for answer in answers] == [200] * 60 + [429]
    assert "Retry-After" in answers[-1].headers
    assert alice.poll().status_code == 200
