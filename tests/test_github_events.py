"""The whole of it on real input: 169 events of GitHub's go in, a poll brings out octocat's, reading ends them."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import postgres
from tests.service import Service, wait_until
from tests.web import Answer, Browser

EVENTS = Path(__file__).parent / "data" / "github-events.jsonl"


class Reader(Browser):
    """A browser that asks for a hundred at once, and whose changes must succeed."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.url)

    def post(self, path: str, content: Any = None) -> Any:
        answer = super().post(path, content)
        assert answer.status == 200, answer.body
        return answer.json()

    def poll(self, tag: str | None = None) -> Answer:
        return self.open("/notifications/unread?limit=100", **({"If_None_Match": tag} if tag else {}))

    def unread_ids(self) -> list[int]:
        return [notification["id"] for notification in self.poll().json()["notifications"]]


@pytest.fixture
def database(service: Service) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with postgres.connect(service.database_url) as connection:
        yield connection


def test_real_events_go_in_are_polled_read_brought_back_and_cleaned_up(
    service: Service, database: "psycopg.Connection[tuple[object, ...]]"
) -> None:
    sent = [json.loads(line) for line in EVENTS.read_text().splitlines()]
    of_octocat = [event for event in sent if event["recipient"] == "octocat"]
    assert (len(sent), len(of_octocat)) == (169, 26)

    done = service.flask("send", "--file", str(EVENTS))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Published 169 of 169 lines; 0 had been published before.\n"
    again = service.flask("send", "--file", str(EVENTS), "--json")
    assert json.loads(again.stdout) == {"lines": 169, "published": 0, "already_published": 169}
    assert database.execute("SELECT count(*) FROM notifications").fetchone() == (169,)

    browser, mallory = Reader(service), Reader(service)
    assert browser.poll().status == 401
    service.add_user("mallory")
    for person, subject in ((browser, "octocat"), (mallory, "mallory")):
        link = service.link(subject)
        assert person.open(link).status == 200
        assert person.open(link, b"", Content_Type="application/x-www-form-urlencoded").status == 200
    assert [(cookie.name, cookie.path, cookie.secure) for cookie in browser.cookies] == [("belfry", "/", False)]

    # All 26, newest first, each what its line says.
    polled = browser.poll()
    snapshot = polled.json()
    assert (snapshot["user"], snapshot["unread_count"], snapshot["unseen_count"]) == ("octocat", 26, 26)
    assert (snapshot["version"], snapshot["more"]) == (26, False)
    found = snapshot["notifications"]
    assert [notification["id"] for notification in found] == list(range(26, 0, -1))
    for notification, event in zip(reversed(found), of_octocat, strict=True):
        assert notification["url"] == event["url"]
        assert notification["type"] == event["type"]
        assert notification["data"] == event["data"]
        assert notification["actor"]["name"] == event["actor"]["name"]
        assert notification["title"] == " ".join(event["title"].split())

    # The same tag again: nothing changed, whichever worker answers.
    tag = polled.headers["ETag"]
    for _ in range(6):
        unchanged = browser.poll(tag)
        assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", tag)
        assert mallory.poll(tag).status == 200

    # One is read, then all through the version that was shown.
    assert browser.post("/notifications/7/read") == {"unread_count": 25, "unseen_count": 25, "changed": 1}
    wait_until(lambda: browser.poll(tag).status == 200, "both workers have heard of it")
    version = browser.poll().json()["version"]
    marked = browser.post("/notifications/read", {"through": version})
    assert (marked["unread_count"], marked["changed"]) == (0, 25)
    assert browser.unread_ids() == []

    # Undone: exactly those 25 come back, and the one that was read by itself stays read.
    undone = browser.post("/notifications/undo", {"undo": marked["undo"]})
    assert (undone["unread_count"], undone["changed"]) == (25, 25)
    assert browser.unread_ids() == [number for number in range(26, 0, -1) if number != 7]
    assert browser.post("/notifications/undo", {"undo": marked["undo"]})["changed"] == 0
    assert mallory.open("/notifications/26").status == 404

    # What is over goes, of one person only, and nobody else loses anything.
    database.execute(
        "UPDATE notifications SET expires_at = now() FROM users WHERE users.id = user_id AND subject = 'octocat'"
    )
    database.execute(
        "UPDATE events SET expires_at = now() FROM users WHERE users.id = only_user_id AND subject = 'octocat'"
    )
    assert browser.unread_ids() == []
    cleaned = service.flask("cleanup", "--json")
    deleted = json.loads(cleaned.stdout)["deleted"]
    assert (deleted["notifications"], deleted["events"]) == (26, 26)
    left = database.execute(
        "SELECT subject, count(*) FROM notifications JOIN users ON users.id = user_id GROUP BY subject"
    ).fetchall()
    wanted = Counter(event["recipient"] for event in sent if event["recipient"] != "octocat")
    assert dict(left) == wanted
    assert database.execute("SELECT count(*) FROM events").fetchone() == (143,)


def test_every_event_that_was_sent_is_safe_and_whole_when_it_comes_out(service: Service) -> None:
    """GitHub's people write markdown, code and addresses: none of it may vanish or come out as markup of its own."""
    assert service.flask("send", "--file", str(EVENTS)).returncode == 0
    browser = Reader(service)
    browser.open(service.link("Codertocat"), b"", Content_Type="application/x-www-form-urlencoded")

    received, path = [], "/notifications?limit=100"
    while path:
        page = browser.open(path).json()
        received += page["notifications"]
        path = page["next"]

    sent = [json.loads(line) for line in EVENTS.read_text().splitlines()]
    of_codertocat = [event for event in sent if event["recipient"] == "Codertocat"]
    assert len(received) == len(of_codertocat) == 138
    for notification, event in zip(reversed(received), of_codertocat, strict=True):
        assert notification["url"] == event["url"]
        assert notification["title"]
        assert bool(notification["body"]) == bool(event["body"])
        words = [word for word in event["body"].split() if word.isalnum()]
        assert all(word in notification["body"] for word in words)
        assert "<script" not in notification["body_html"].lower()
