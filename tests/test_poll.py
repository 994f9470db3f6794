"""`GET /notifications/unread`."""

from collections.abc import Callable
from typing import Any

from tests.cast import Person


def test_what_was_published_is_polled(alice: Person, publish: Callable[..., Any]) -> None:
    publish("alice", title="Hello", body="<b>World</b>", url="/x", data={"a": 1})

    answer = alice.poll()

    assert answer.status_code == 200
    content = answer.get_json()
    assert content["user"] == "alice"
    assert content["unread_count"] == content["unseen_count"] == content["version"] == 1
    assert content["notifications"][0]["title"] == "Hello"
