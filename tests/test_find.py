"""`GET /notifications/ID`."""

from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests import inboxes
from tests.cast import Person

Publish = Callable[..., Any]


def body_without_request_id(answer: TestResponse) -> dict[str, Any]:
    content: dict[str, Any] = answer.get_json()
    assert content.pop("request_id")
    return content


def test_one_is_shown_as_a_poll_shows_it(alice: Person, publish: Publish) -> None:
    publish("alice", title="One", actor={"name": "Bob"}, data={"a": 1})
    publish("alice")

    answer = alice.get("/notifications/1")

    assert answer.status_code == 200
    assert answer.get_json() == alice.poll().get_json()["notifications"][1]
    assert answer.get_json()["title"] == "One"


def test_read_and_archived_ones_can_still_be_looked_at(alice: Person, publish: Publish) -> None:
    publish("alice")
    alice.post("/notifications/1/read")
    alice.post("/notifications/1/archive")

    content = alice.get("/notifications/1").get_json()

    assert content["read_at"] is not None
    assert content["archived_at"] is not None


def test_looking_changes_nothing(alice: Person, publish: Publish) -> None:
    publish("alice")
    before = inboxes.everything()

    alice.get("/notifications/1")

    assert inboxes.everything() == before


def test_unknown_expired_foreign_and_moved_ones_are_404_alike(alice: Person, mallory: Person, publish: Publish) -> None:
    publish("alice", title="For alice only")
    publish("mallory", group_key="thread")
    publish("mallory", group_key="thread")
    for _ in range(4):
        publish("alice", "mallory")
    inboxes.expire(mallory, 3)
    assert mallory.get("/notifications/2").status_code == 200
    # 7 is mallory's own number that was never given to anybody; alice has a 5 of hers.
    never_was = mallory.get("/notifications/7")
    expired = mallory.get("/notifications/3")
    moved = mallory.get("/notifications/1")

    assert never_was.status_code == expired.status_code == moved.status_code == 404
    assert never_was.mimetype == "application/problem+json"
    assert body_without_request_id(never_was) == body_without_request_id(expired) == body_without_request_id(moved)


def test_an_id_names_something_in_the_callers_own_inbox_only(alice: Person, mallory: Person, publish: Publish) -> None:
    for _ in range(3):
        publish("alice", title="For alice only")
    publish("mallory", title="For mallory")

    assert mallory.get("/notifications/1").get_json()["title"] == "For mallory"
    never_was, foreign = mallory.get("/notifications/999"), mallory.get("/notifications/3")
    assert foreign.status_code == 404
    assert body_without_request_id(foreign) == body_without_request_id(never_was)


@pytest.mark.parametrize(
    "id", ["0", "-1", "9223372036854775808", "1" + "0" * 30, "9" * 5000, "1.0", "one", "1%00", "%00", "1e0", "+1", " "]
)
def test_what_can_be_no_id_is_404(alice: Person, publish: Publish, id: str) -> None:
    publish("alice")

    answer = alice.get(f"/notifications/{id}")

    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"


def test_a_found_one_is_one_statement_and_an_impossible_one_none(
    alice: Person, publish: Publish, queries: list[str]
) -> None:
    publish("alice")
    queries.clear()

    alice.get("/notifications/1")
    assert len(queries) == 1

    alice.get("/notifications/9223372036854775808")
    assert len(queries) == 1
