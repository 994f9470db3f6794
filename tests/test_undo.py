"""`POST /notifications/undo`: what was done to many at once is put back."""

from collections.abc import Callable
from typing import Any

import pytest

from tests import inboxes
from tests.cast import Person
from tests.test_find import body_without_request_id
from tests.test_mark_many import COLUMNS, VERBS, mark, prepare

Publish = Callable[..., Any]

OVER = "UPDATE undos SET at = at - interval '10 minutes'"


def undo(person: Person, token: int) -> dict[str, Any]:
    answer = person.post("/notifications/undo", {"undo": token})
    assert answer.status_code == 200, answer.get_json()
    content: dict[str, Any] = answer.get_json()
    assert set(content) == {"unread_count", "unseen_count", "changed"}
    return content


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("which", [{"ids": [2, 4]}, {"through": 4}])
def test_exactly_what_the_call_changed_is_put_back(
    alice: Person, publish: Publish, verb: str, which: dict[str, Any]
) -> None:
    prepare(alice, publish, verb)
    mark(alice, verb, ids=[4])  # done before: not the call's doing
    before, snapshot = inboxes.rows(alice), alice.poll().get_json()
    marked = mark(alice, verb, **which)
    assert marked["changed"] == (1 if "ids" in which else 3)

    content = undo(alice, marked["undo"])

    assert content == {
        "unread_count": snapshot["unread_count"],
        "unseen_count": snapshot["unseen_count"],
        "changed": marked["changed"],
    }
    assert inboxes.rows(alice) == before
    assert inboxes.version(alice) == marked["undo"] + 1


def test_undoing_unread_brings_the_first_read_times_back(alice: Person, publish: Publish) -> None:
    prepare(alice, publish, "unread")
    times = [row["read_at"] for row in inboxes.rows(alice)]
    assert len(set(times)) == 5
    token = mark(alice, "unread", through=5)["undo"]
    assert [row["read_at"] for row in inboxes.rows(alice)] == [None] * 5

    undo(alice, token)

    assert [row["read_at"] for row in inboxes.rows(alice)] == times


@pytest.mark.parametrize("verb", VERBS)
def test_undoing_again_changes_nothing(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    token = mark(alice, verb, through=5)["undo"]
    first = undo(alice, token)
    before = inboxes.everything()

    for _ in range(3):
        assert undo(alice, token) == {**first, "changed": 0}

    assert inboxes.everything() == before


@pytest.mark.parametrize("verb", VERBS)
def test_undoing_again_leaves_what_was_done_since(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb)
    token = mark(alice, verb, through=5)["undo"]
    undo(alice, token)
    mark(alice, verb, through=5)
    before = inboxes.rows(alice)

    assert undo(alice, token)["changed"] == 0

    assert inboxes.rows(alice) == before


def test_rows_touched_moved_or_expired_since_stay_as_they_are(alice: Person, publish: Publish) -> None:
    for number in range(5):
        publish("alice", group_key=f"thread {number}")
    token = mark(alice, "read", through=5)["undo"]
    alice.post("/notifications/1/unread")
    alice.post("/notifications/1/read")  # read again, by hand and later
    alice.post("/notifications/2/unread")  # back already
    inboxes.expire(alice, 3)
    before = {row["id"]: row for row in inboxes.rows(alice)}

    content = undo(alice, token)

    assert content == {"unread_count": 3, "unseen_count": 3, "changed": 2}
    after = {row["id"]: row for row in inboxes.rows(alice)}
    assert [id_ for id_ in after if after[id_] != before[id_]] == [5, 4]


def test_one_that_moved_on_with_its_group_stays_unseen(alice: Person, publish: Publish) -> None:
    publish("alice", group_key="thread")
    publish("alice")
    token = mark(alice, "seen", through=2)["undo"]
    publish("alice", group_key="thread")
    mark(alice, "seen", ids=[4])
    seen_at = inboxes.row(alice, 4)["seen_at"]

    assert undo(alice, token)["changed"] == 1

    assert inboxes.row(alice, 4)["seen_at"] == seen_at
    assert inboxes.row(alice, 2)["seen_at"] is None


def test_other_changes_to_the_same_rows_stay(alice: Person, publish: Publish) -> None:
    prepare(alice, publish, "read")
    token = mark(alice, "read", through=5)["undo"]
    mark(alice, "archive", ids=[1, 2])

    content = undo(alice, token)

    assert content == {"unread_count": 3, "unseen_count": 3, "changed": 5}
    assert [row["archived_at"] is None for row in inboxes.rows(alice)] == [True, True, True, False, False]


def test_actions_can_be_undone_in_any_order(alice: Person, publish: Publish) -> None:
    prepare(alice, publish, "read")
    before = inboxes.rows(alice)
    seen, read = mark(alice, "seen", through=5)["undo"], mark(alice, "read", ids=[1, 2])["undo"]
    archived = mark(alice, "archive", ids=[2, 3])["undo"]

    assert undo(alice, seen)["changed"] == 5
    assert undo(alice, archived)["changed"] == 2
    assert undo(alice, read)["changed"] == 2

    assert inboxes.rows(alice) == before


def test_an_undo_that_finds_nothing_left_is_no_change(alice: Person, publish: Publish) -> None:
    prepare(alice, publish, "read", 2)
    token = mark(alice, "read", through=2)["undo"]
    alice.post("/notifications/1/unread")
    alice.post("/notifications/2/unread")
    version = inboxes.version(alice)

    assert undo(alice, token) == {"unread_count": 2, "unseen_count": 2, "changed": 0}

    assert inboxes.version(alice) == version


def test_what_came_meanwhile_stays(alice: Person, publish: Publish) -> None:
    prepare(alice, publish, "read", 2)
    token = mark(alice, "read", through=2)["undo"]
    publish("alice")

    assert undo(alice, token) == {"unread_count": 3, "unseen_count": 3, "changed": 2}


def test_10000_rows_come_back_at_once(alice: Person) -> None:
    inboxes.fill(alice, 10_001)
    token = mark(alice, "archive", through=10_001)["undo"]

    assert undo(alice, token) == {"unread_count": 100, "unseen_count": 100, "changed": 10_000}

    left = inboxes.run("SELECT count(*) AS archived FROM notifications WHERE archived_at IS NOT NULL")
    assert left[0].archived == 0


# Which can be undone


def test_unknown_foreign_and_old_actions_are_404_alike(alice: Person, mallory: Person, publish: Publish) -> None:
    for _ in range(5):
        publish("alice")
    publish("mallory")
    foreign = mark(alice, "read", through=5)["undo"]
    own = mark(mallory, "read", through=1)["undo"]
    inboxes.run(f"{OVER} WHERE user_id = :user_id", user_id=mallory.id)
    before = inboxes.everything()

    # 999 never was; 1 is a number of mallory's that stands for no bulk action; 0 names none at all.
    answers = [mallory.post("/notifications/undo", {"undo": token}) for token in (999, foreign, own, 1, 0, 2**63 - 1)]

    assert foreign != own
    assert [answer.status_code for answer in answers] == [404] * 6
    assert answers[0].mimetype == "application/problem+json"
    bodies = [body_without_request_id(answer) for answer in answers]
    assert bodies == [bodies[0]] * 6
    assert inboxes.everything() == before


@pytest.mark.parametrize(("age", "status"), [("9 minutes 50 seconds", 200), ("10 minutes", 404), ("1 day", 404)])
def test_an_action_can_be_undone_for_ten_minutes(alice: Person, publish: Publish, age: str, status: int) -> None:
    prepare(alice, publish, "read")
    token = mark(alice, "read", through=5)["undo"]
    # The rows were marked in the same moment.
    inboxes.run("UPDATE undos SET at = at - CAST(:age AS interval)", age=age)
    inboxes.run("UPDATE notifications SET read_at = read_at - CAST(:age AS interval)", age=age)

    answer = alice.post("/notifications/undo", {"undo": token})

    assert answer.status_code == status
    assert len(alice.unread_ids()) == (5 if status == 200 else 0)


def test_the_number_of_one_persons_action_undoes_only_that_persons(
    alice: Person, mallory: Person, publish: Publish
) -> None:
    publish("alice", "mallory")
    token = mark(alice, "read", through=1)["undo"]
    assert mark(mallory, "read", through=1)["undo"] == token

    assert undo(mallory, token)["changed"] == 1

    assert (alice.unread_ids(), mallory.unread_ids()) == ([], [1])


def test_two_whose_actions_have_one_number_undo_only_their_own(
    alice: Person, mallory: Person, publish: Publish
) -> None:
    for person in (alice, mallory):
        publish(person.subject, group_key=person.subject)
        mark(person, "read", through=1)
    before = {person.subject: inboxes.rows(person) for person in (alice, mallory)}
    tokens = {mark(person, "unread", ids=[1])["undo"] for person in (alice, mallory)}
    assert len(tokens) == 1

    for person in (mallory, alice):
        assert undo(person, *tokens)["changed"] == 1

    assert {person.subject: inboxes.rows(person) for person in (alice, mallory)} == before


def test_marking_one_gives_nothing_to_undo(alice: Person, publish: Publish) -> None:
    publish("alice")

    assert "undo" not in alice.post("/notifications/1/read").get_json()
    assert alice.post("/notifications/undo", {"undo": 2}).status_code == 404


# Groups that come back


@pytest.mark.parametrize("verb", ["read", "archive"])
def test_one_that_comes_back_beside_a_newer_one_of_its_group_stands_alone(
    alice: Person, publish: Publish, verb: str
) -> None:
    publish("alice", group_key="thread")
    publish("alice", group_key="other")
    token = mark(alice, verb, through=2)["undo"]
    publish("alice", group_key="thread")

    assert undo(alice, token) == {"unread_count": 3, "unseen_count": 3, "changed": 2}

    assert [row["group_key"] for row in inboxes.rows(alice)] == ["thread", "other", None]
    publish("alice", group_key="thread")
    assert [one["count"] for one in alice.poll().get_json()["notifications"]] == [2, 1, 1]


@pytest.mark.parametrize("verb", ["read", "archive"])
def test_one_that_comes_back_beside_an_expired_one_of_its_group_stands_alone(
    alice: Person, publish: Publish, verb: str
) -> None:
    publish("alice", group_key="thread")
    token = mark(alice, verb, through=1)["undo"]
    publish("alice", group_key="thread")
    inboxes.expire(alice, 3)

    assert undo(alice, token) == {"unread_count": 1, "unseen_count": 1, "changed": 1}

    assert alice.unread_ids() == [1]
    assert inboxes.row(alice, 1)["group_key"] is None


def test_of_several_of_a_group_that_come_back_together_the_newest_keeps_the_group(
    alice: Person, publish: Publish
) -> None:
    for _ in range(3):
        publish("alice", group_key="thread")
        alice.post(f"/notifications/{inboxes.version(alice)}/read")
    assert [row["id"] for row in inboxes.rows(alice)] == [5, 3, 1]
    archived = mark(alice, "archive", ids=[1, 3, 5])["undo"]
    assert mark(alice, "unread", ids=[1, 3, 5])["changed"] == 3
    assert alice.unread_ids() == []  # unread, but archived still

    assert undo(alice, archived) == {"unread_count": 3, "unseen_count": 3, "changed": 3}

    assert [row["group_key"] for row in inboxes.rows(alice)] == ["thread", None, None]


def test_undoing_archive_of_read_and_unread_ones_of_a_group_keeps_each_where_it_may(
    alice: Person, publish: Publish
) -> None:
    publish("alice", group_key="thread")
    alice.post("/notifications/1/read")
    publish("alice", group_key="thread")
    before = inboxes.rows(alice)
    token = mark(alice, "archive", ids=[1, 3])["undo"]

    assert undo(alice, token) == {"unread_count": 1, "unseen_count": 1, "changed": 2}

    assert inboxes.rows(alice) == before


def test_undoing_seen_and_unread_leaves_groups_alone(alice: Person, publish: Publish) -> None:
    publish("alice", group_key="thread")
    token = mark(alice, "seen", through=1)["undo"]
    assert undo(alice, token)["changed"] == 1
    alice.post("/notifications/1/read")
    token = mark(alice, "unread", ids=[1])["undo"]
    assert undo(alice, token)["changed"] == 1

    assert inboxes.row(alice, 1)["group_key"] == "thread"
    assert inboxes.row(alice, 1)["seen_at"] is None


# Bodies


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["undo"]),
        ({"undo": None}, ["undo"]),
        ({"undo": "6"}, ["undo"]),
        ({"undo": 6.0}, ["undo"]),
        ({"undo": True}, ["undo"]),
        ({"undo": [6]}, ["undo"]),
        ({"undo": -1}, ["undo"]),
        ({"undo": -1, "ids": [1]}, ["ids", "undo"]),
    ],
)
def test_every_mistake_in_the_body_is_named_at_once(
    alice: Person, publish: Publish, body: dict[str, Any], fields: list[str]
) -> None:
    prepare(alice, publish, "read")
    assert mark(alice, "read", through=5)["undo"] == 6

    answer = alice.post("/notifications/undo", body)

    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert sorted(error["field"] for error in answer.get_json()["errors"]) == fields
    assert alice.unread_ids() == []


# What it costs


def test_an_undo_is_lock_look_up_change_and_counts(alice: Person, publish: Publish, queries: list[str]) -> None:
    prepare(alice, publish, "read")
    token = mark(alice, "read", through=5)["undo"]
    queries.clear()

    undo(alice, token)

    lock, look_up, change, counts = queries
    assert "FOR NO KEY UPDATE" in lock
    assert "undos" in look_up
    assert "UPDATE notifications" in change
    assert "UPDATE" not in counts


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_with_a_column_can_be_undone(alice: Person, publish: Publish, verb: str) -> None:
    prepare(alice, publish, verb, 1)
    held = inboxes.row(alice, 1)[COLUMNS[verb]]

    undo(alice, mark(alice, verb, ids=[1])["undo"])

    assert inboxes.row(alice, 1)[COLUMNS[verb]] == held
