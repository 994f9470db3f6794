"""Sample people and events, for whoever tries Belfry out."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from app import people, publishing
from app.events import Event
from app.publishing import Order
from app.validation import check

PEOPLE = {"ada": "Ada Lovelace", "grace": "Grace Hopper"}

EVENTS: list[tuple[list[str], dict[str, Any]]] = [
    (
        ["ada", "grace"],
        {
            "type": "announcement",
            "title": "Welcome to Belfry",
            "body": "This is your inbox. What happens in the products you use rings <b>here</b>.",
        },
    ),
    (
        ["ada"],
        {
            "type": "comment",
            "title": "Grace commented on “Note G”",
            "body": "The loop is right, but I would start counting at <code>B1</code>.",
            "url": "https://example.com/notes/g#comment-3",
            "actor": {"name": "Grace Hopper", "url": "https://example.com/people/grace"},
            "group_key": "note-g",
        },
    ),
    (
        ["ada"],
        {
            "type": "mention",
            "title": "Charles mentioned you in “Engine drawings”",
            "body": "@ada could you look at the carry mechanism before <em>Friday</em>?",
            "url": "https://example.com/drawings/12",
            "actor": {"name": "Charles Babbage"},
        },
    ),
    (
        ["grace"],
        {
            "type": "status_change",
            "title": "Build 1947 failed: moth in relay 70",
            "body": 'First actual case of a bug being found. See the <a href="https://example.com/log">log</a>.',
            "url": "https://example.com/builds/1947",
            "priority": "high",
        },
    ),
    (
        ["ada", "grace"],
        {
            "type": "alert",
            "title": "Maintenance on Sunday, 02:00–03:00 UTC",
            "body": "The service stays readable; publishing waits.",
            "priority": "high",
        },
    ),
    (
        ["ada"],
        {
            "type": "comment",
            "title": "Grace commented on “Note G”",
            "body": "Never mind: yours is clearer.",
            "url": "https://example.com/notes/g#comment-4",
            "actor": {"name": "Grace Hopper", "url": "https://example.com/people/grace"},
            "group_key": "note-g",
        },
    ),
]


def fill(connection: Connection) -> dict[str, int]:
    """Makes the people and publishes the events, in one transaction; once a day at most, however often it is called."""
    for subject, name in PEOPLE.items():
        people.save_user(connection, subject, name, None)
    published = 0
    for number, (recipients, content) in enumerate(EVENTS):
        order = Order(check(Event, content), recipients)
        call = publishing.line_call(b"demo", number)
        _, replayed = publishing.publish_once(connection, call, [order], timedelta(days=30))
        published += not replayed
    return {"people": len(PEOPLE), "events": published}
