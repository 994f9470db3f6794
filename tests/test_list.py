"""`GET /notifications`: the states, the types and the pages of an inbox."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import flask
import pytest

from tests import inboxes
from tests.cast import Person

Publish = Callable[..., Any]


def listed(person: Person, query: str = "") -> list[int]:
    answer = person.get(f"/notifications?{query}")
    assert answer.status_code == 200
    return [notification["id"] for notification in answer.get_json()["notifications"]]


def walk(person: Person, path: str, between: Callable[[], Any] = lambda: None) -> list[list[int]]:
    """The ids on each page, from `path` to the last one."""
    pages = []
    next_path: str | None = path
    while next_path is not None:
        content = person.get(next_path).get_json()
        pages.append([notification["id"] for notification in content["notifications"]])
        next_path = content["next"]
        between()
    return pages


@pytest.fixture
def mixed(alice: Person, publish: Publish) -> Person:
    """Alice with one of each: 1 read, 2 archived, 3 read and archived, 4 expired, 5 and 6 unread."""
    for kind in ("comment", "comment", "mention", "comment", "mention", "comment"):
        publish("alice", type=kind)
    alice.post("/notifications/read", {"ids": [1, 3]})
    alice.post("/notifications/archive", {"ids": [2, 3]})
    inboxes.expire(alice, 4)
    return alice


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [6, 5, 1]),
        ("state=all", [6, 5, 1]),
        ("state=unread", [6, 5]),
        ("state=read", [1]),
        ("state=archived", [3, 2]),
        ("type=comment", [6, 1]),
        ("type=mention", [5]),
        ("type=alert", []),
        ("type=Comment", []),
        ("state=unread&type=comment", [6]),
        ("state=read&type=comment", [1]),
        ("state=read&type=mention", []),
        ("state=archived&type=mention", [3]),
        ("before=6", [5, 1]),
        ("before=1", []),
        ("before=9223372036854775807", [6, 5, 1]),
        ("limit=2", [6, 5]),
        ("limit=1&before=6&type=comment", [1]),
    ],
)
def test_a_list_holds_its_state_and_type_newest_first(mixed: Person, query: str, ids: list[int]) -> None:
    assert listed(mixed, query) == ids


def test_a_list_shows_what_a_poll_shows(alice: Person, publish: Publish) -> None:
    publish("alice", title="One", data={"a": [1]}, actor={"name": "Bob"})
    publish("alice", group_key="thread")
    publish("alice", group_key="thread")

    content = alice.get("/notifications").get_json()

    assert set(content) == {"notifications", "next"}
    assert content["notifications"] == alice.poll().get_json()["notifications"]
    assert [notification["count"] for notification in content["notifications"]] == [2, 1]


def test_read_and_archived_ones_carry_their_times(mixed: Person) -> None:
    [read] = mixed.get("/notifications?state=read").get_json()["notifications"]
    both, archived = mixed.get("/notifications?state=archived").get_json()["notifications"]

    assert (read["read_at"] is None, read["archived_at"] is None) == (False, True)
    assert (both["read_at"] is None, both["archived_at"] is None) == (False, False)
    assert (archived["read_at"] is None, archived["archived_at"] is None) == (True, False)


def test_an_empty_inbox_is_an_empty_page(alice: Person) -> None:
    assert alice.get("/notifications").get_json() == {"notifications": [], "next": None}


def test_nobody_lists_what_is_somebody_elses(mixed: Person, mallory: Person) -> None:
    for state in ("all", "unread", "read", "archived"):
        assert mallory.get(f"/notifications?state={state}").get_json() == {"notifications": [], "next": None}


# Pages


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (2, [2]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
def test_next_is_null_on_the_last_page(alice: Person, count: int, sizes: list[int]) -> None:
    inboxes.fill(alice, count)

    assert [len(page) for page in walk(alice, "/notifications?limit=3")] == sizes


def test_twenty_come_on_a_page_unless_told_otherwise(alice: Person) -> None:
    inboxes.fill(alice, 101)

    assert [len(page) for page in walk(alice, "/notifications")] == [20, 20, 20, 20, 20, 1]
    assert [len(page) for page in walk(alice, "/notifications?limit=100")] == [100, 1]


def test_walking_by_next_meets_everything_once_while_new_ones_arrive(alice: Person, publish: Publish) -> None:
    inboxes.fill(alice, 17)

    pages = walk(alice, "/notifications?limit=5", between=lambda: publish("alice"))

    assert list(chain.from_iterable(pages)) == list(range(17, 0, -1))
    assert inboxes.version(alice) == 17 + len(pages)


def test_walking_meets_everything_once_while_what_was_met_expires(alice: Person) -> None:
    inboxes.fill(alice, 9)
    going = iter([9, 7, 6])

    pages = walk(alice, "/notifications?limit=3", between=lambda: inboxes.expire(alice, next(going, 0)))

    assert list(chain.from_iterable(pages)) == list(range(9, 0, -1))


def test_next_keeps_state_type_and_limit(alice: Person, publish: Publish) -> None:
    for number in range(12):
        publish("alice", type="a.b_c-d" if number % 2 else "comment")
    alice.post("/notifications/read", {"through": 12})

    pages = walk(alice, "/notifications?state=read&type=a.b_c-d&limit=2")

    assert pages == [[12, 10], [8, 6], [4, 2]]


def test_next_is_a_path_under_the_prefix_of_public_url(alice: Person, another_app: Callable[..., flask.Flask]) -> None:
    inboxes.fill(alice, 3)
    under_prefix = Person(another_app(public_url="http://localhost/belfry"), "alice")

    content = under_prefix.get("/belfry/notifications?limit=2").get_json()

    assert content["next"].startswith("/belfry/notifications?")
    assert walk(under_prefix, "/belfry/notifications?limit=2") == [[3, 2], [1]]


def test_without_a_prefix_next_begins_at_the_root(alice: Person) -> None:
    inboxes.fill(alice, 2)

    next_path = alice.get("/notifications?limit=1").get_json()["next"]

    assert next_path.startswith("/notifications?")
    assert "before=2" in next_path


# The query


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("state=seen", ["state"]),
        ("state=", ["state"]),
        ("state=ALL", ["state"]),
        ("limit=0", ["limit"]),
        ("limit=101", ["limit"]),
        ("limit=ten", ["limit"]),
        ("before=0", ["before"]),
        ("before=-1", ["before"]),
        ("before=1.0", ["before"]),
        ("before=9223372036854775808", ["before"]),
        ("before=1000000000000000000000000000000", ["before"]),
        ("type=", ["type"]),
        ("type=" + "x" * 51, ["type"]),
        ("type=a%00b", ["type"]),
        ("state=all&state=all", ["state"]),
        ("before=5&before=6", ["before"]),
        ("page=2", ["page"]),
        ("state=x&limit=0&before=0&type=&colour=red", ["before", "colour", "limit", "state", "type"]),
    ],
)
def test_every_mistake_in_the_query_is_named_at_once(alice: Person, query: str, fields: list[str]) -> None:
    answer = alice.get(f"/notifications?{query}")

    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert sorted(error["field"] for error in answer.get_json()["errors"]) == fields


# What it costs


@pytest.mark.parametrize("query", ["", "state=read", "state=archived&type=comment", "limit=1"])
def test_a_page_is_one_statement(mixed: Person, queries: list[str], query: str) -> None:
    queries.clear()

    assert mixed.get(f"/notifications?{query}").status_code == 200

    assert len(queries) == 1
