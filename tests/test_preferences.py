"""`GET /preferences` and `PUT /preferences/TYPE`: the types that a reader has met, and which of them stay silent."""

import threading
from typing import Any

import flask
import pytest

from app import db
from tests import inboxes, postgres, rows
from tests.cast import Person
from tests.hosts import Host, errors_of, event
from tests.service import wait_until


@pytest.fixture
def host(app: flask.Flask) -> Host:
    return Host(app)


def known(person: Person) -> dict[str, bool]:
    answer = person.get("/preferences")
    assert answer.status_code == 200
    assert list(answer.get_json()) == ["preferences"]
    return {one["type"]: one["muted"] for one in answer.get_json()["preferences"]}


def mute(person: Person, type: str, muted: Any = True) -> Any:
    return person.browser.put(f"/preferences/{type}", json={"muted": muted})


def test_a_reader_knows_the_types_they_have_met_by_name(host: Host, alice: Person, mallory: Person) -> None:
    assert known(alice) == {}
    for name in ("mention", "comment", "alert", "comment"):
        host.publish("alice", type=name)
    host.publish("mallory", type="secret")

    assert alice.get("/preferences").get_json() == {
        "preferences": [{"type": name, "muted": False} for name in ("alert", "comment", "mention")]
    }


def test_the_list_is_of_the_newest_thousand_and_of_what_was_decided(host: Host, alice: Person) -> None:
    for name in ("forgotten", "muted", "heard-again"):
        host.publish("alice", type=name)
    mute(alice, "muted")
    mute(alice, "heard-again")
    mute(alice, "heard-again", False)
    inboxes.fill(alice, 1000)

    assert known(alice) == {"bulk": False, "heard-again": False, "muted": True}
    assert mute(alice, "forgotten").status_code == 404
    assert mute(alice, "muted", False).status_code == 200


def test_of_many_types_fifty_are_listed_and_every_muted_one(host: Host, alice: Person) -> None:
    host.publish_batch(*[event("alice", type=f"type-{number:02}") for number in range(60)])
    assert list(known(alice)) == [f"type-{number:02}" for number in range(50)]

    assert mute(alice, "type-57").status_code == 200  # one that a row of the inbox shows, listed or not

    assert list(known(alice)) == [*[f"type-{number:02}" for number in range(50)], "type-57"]
    assert known(alice)["type-57"]


@pytest.mark.parametrize("verb", ["read", "archive"])
def test_what_was_read_or_archived_was_met(host: Host, alice: Person, verb: str) -> None:
    host.publish("alice")
    alice.post(f"/notifications/1/{verb}")
    assert known(alice) == {"comment": False}


def test_a_type_is_forgotten_with_its_last_notification_unless_it_is_muted(host: Host, alice: Person) -> None:
    host.publish("alice", type="mention")
    host.publish("alice", type="comment")
    mute(alice, "mention")

    inboxes.expire(alice, 1, 2)

    assert known(alice) == {"mention": True}


def test_a_muted_type_makes_no_rows_moves_no_version_and_is_counted(host: Host, alice: Person) -> None:
    host.publish("alice")
    answer = mute(alice, "comment")
    assert answer.status_code == 200
    assert answer.get_json() == {"type": "comment", "muted": True}
    assert known(alice) == {"comment": True}
    tag = alice.poll().headers["ETag"]

    sent = host.publish("alice", "bob").get_json()

    assert (sent["recipients"], sent["created"], sent["muted"]) == (2, 1, 1)
    assert alice.poll(tag).status_code == 304
    assert len(alice.unread_ids()) == 1  # what was there stays


def test_muting_keeps_out_of_a_group_too(host: Host, alice: Person) -> None:
    host.publish("alice", group_key="k", type="comment")
    mute(alice, "comment")
    host.publish("alice", group_key="k", type="comment")
    assert [one["count"] for one in alice.poll().get_json()["notifications"]] == [1]


def test_an_unmuted_type_is_heard_again(host: Host, alice: Person) -> None:
    host.publish("alice")
    mute(alice, "comment")
    host.publish("alice")
    assert mute(alice, "comment", False).get_json() == {"type": "comment", "muted": False}

    assert host.publish("alice").get_json()["muted"] == 0
    assert len(alice.unread_ids()) == 2  # what came while it was muted never comes
    assert known(alice) == {"comment": False}


@pytest.mark.parametrize("muted", [True, False])
def test_saying_it_twice_is_saying_it_once(host: Host, alice: Person, muted: bool) -> None:
    host.publish("alice")
    first, again = (mute(alice, "comment", muted) for _ in range(2))
    assert first.get_json() == again.get_json()
    assert rows.count("preferences") == 1


@pytest.mark.parametrize("type", ["mention", "Comment", "comment%00", "comment ", "%FF", "a" * 3000, "..", "%2e%2e"])
def test_a_type_that_was_never_met_is_404(host: Host, alice: Person, type: str) -> None:
    host.publish("alice")
    host.publish("bob", type="mention")

    refused = mute(alice, type)

    assert refused.status_code == 404
    assert rows.count("preferences") == 0


@pytest.mark.parametrize("body", [{}, {"muted": None}, {"muted": 1}, {"muted": "true"}, {"muted": True, "more": 1}])
def test_muted_is_true_or_false_and_nothing_else(host: Host, alice: Person, body: Any) -> None:
    host.publish("alice")
    refused = alice.browser.put("/preferences/comment", json=body)
    assert refused.status_code == 422
    assert set(errors_of(refused)) <= {"muted", "more"}
    assert rows.count("preferences") == 0


def test_everybody_mutes_for_themselves(host: Host, alice: Person, mallory: Person) -> None:
    host.publish("alice", "mallory")
    mute(mallory, "comment")

    assert known(alice) == {"comment": False}
    assert host.publish("alice").get_json()["muted"] == 0


def test_what_somebody_else_has_decided_about_is_not_listed_and_not_met(
    host: Host, alice: Person, mallory: Person
) -> None:
    host.publish("mallory", type="secret")
    mute(mallory, "secret")

    assert known(alice) == {}
    assert alice.browser.put("/preferences/secret", json={"muted": True}).status_code == 404


def test_a_page_of_another_site_cannot_mute(host: Host, alice: Person) -> None:
    host.publish("alice")
    refused = alice.browser.put(
        "/preferences/comment", json={"muted": True}, headers={"Origin": "https://evil.example"}
    )
    assert refused.status_code == 403
    assert rows.count("preferences") == 0


def test_after_the_answer_nothing_of_the_type_arrives(app: flask.Flask, host: Host, alice: Person) -> None:
    """A mute waits for a publisher who has the inbox, and the next publisher waits for the mute."""
    host.publish("alice")
    statuses: list[int] = []

    def in_its_turn() -> None:
        statuses.append(mute(alice, "comment").status_code)

    with postgres.connect(db.engine().url.render_as_string(hide_password=False)) as publisher:
        publisher.autocommit = False
        publisher.execute("SELECT id FROM users WHERE subject = 'alice' FOR NO KEY UPDATE")
        muting = threading.Thread(target=in_its_turn)
        muting.start()
        wait_until(lambda: rows.one("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, "the mute waits")
        assert rows.count("preferences") == 0
        publisher.commit()
    muting.join()

    assert statuses == [200]
    assert host.publish("alice").get_json()["muted"] == 1


def test_listing_is_one_statement_and_muting_three(host: Host, alice: Person, queries: list[str]) -> None:
    host.publish("alice")
    del queries[:]
    known(alice)
    assert len(queries) == 1

    del queries[:]
    mute(alice, "comment")
    assert len(queries) == 3
