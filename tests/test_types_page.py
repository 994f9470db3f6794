"""/types: which types of event the reader hears of, without JavaScript."""

from collections.abc import Callable
from typing import Any

from tests.cast import Person


def mute(person: Person, type: str, muted: int, reader: int | None = None) -> int:
    fields = {"reader": reader if reader is not None else person.id, "type": type, "muted": muted}
    return person.browser.post("/types", data=fields).status_code


def test_the_types_that_the_reader_has_met_are_listed(alice: Person, publish: Callable[..., Any]) -> None:
    publish("alice", type="comment")
    publish("alice", type="status_change")
    publish("bob", type="secret")

    page = alice.get("/types").get_data(as_text=True)

    assert "comment" in page
    assert "status change" in page
    assert "secret" not in page


def test_a_muted_type_does_not_arrive_until_it_is_heard_again(alice: Person, publish: Callable[..., Any]) -> None:
    publish("alice", type="comment")

    assert mute(alice, "comment", 1) == 303
    publish("alice", type="comment", title="Unheard")
    assert "Hear again" in alice.get("/types").get_data(as_text=True)
    assert mute(alice, "comment", 0) == 303
    publish("alice", type="comment", title="Heard")

    titles = [notification["title"] for notification in alice.poll().get_json()["notifications"]]
    assert titles == ["Heard", "A comment"]


def test_a_page_drawn_for_somebody_else_changes_nothing(
    alice: Person, mallory: Person, publish: Callable[..., Any]
) -> None:
    publish("alice", "mallory", type="comment")

    assert mute(mallory, "comment", 1, reader=alice.id) == 303

    assert "Hear again" not in mallory.get("/types").get_data(as_text=True)
    assert "Hear again" not in alice.get("/types").get_data(as_text=True)


def test_a_type_that_the_reader_never_met_cannot_be_muted(alice: Person, publish: Callable[..., Any]) -> None:
    publish("bob", type="secret")

    assert mute(alice, "secret", 1) == 404
    assert mute(alice, "no such type!", 1) == 422


def test_the_inbox_leads_to_it(alice: Person) -> None:
    assert 'href="/types"' in alice.get("/").get_data(as_text=True)
