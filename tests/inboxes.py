"""What tests do to inboxes by hand: time that passes, long lists, people who go, and a look at what is really there."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text

from app import changes, db
from tests.cast import Person


def run(statement: str, **parameters: Any) -> Sequence[Row[Any]]:
    """Runs one statement in a transaction of its own; the rows that it gives back.

    Whoever changes rows by hand says so, or workers go on for a minute with what they know.
    """
    with db.transaction() as connection:
        result = connection.execute(text(statement), parameters)
        if not statement.lstrip().startswith("SELECT"):
            changes.forget(connection, changes.EVERYBODY)
        return result.all() if result.returns_rows else []


def fill(person: Person, count: int) -> None:
    """Puts `count` unread notifications of one event into the inbox."""
    run(
        """
        WITH event AS (
            INSERT INTO events (type, title, body_text, body_html, data, priority, received, expires_at)
            VALUES ('bulk', 'One of many', '', '', '{}', 'normal', :count, now() + interval '30 days')
            RETURNING id, expires_at
        ), raised AS (
            UPDATE users SET inbox_version = inbox_version + :count WHERE id = :user_id
            RETURNING inbox_version - :count AS version
        )
        INSERT INTO notifications (user_id, id, event_id, expires_at)
        SELECT :user_id, raised.version + number, event.id, event.expires_at
        FROM event, raised, generate_series(1, :count) AS number
        """,
        user_id=person.id,
        count=count,
    )


def expire(person: Person, *ids: int) -> None:
    """Lets the time of these notifications, and of their events, be over."""
    run(
        """
        WITH expired AS (
            UPDATE notifications SET expires_at = now() - interval '1 second'
            WHERE user_id = :user_id AND id = ANY(:ids) RETURNING event_id
        )
        UPDATE events SET expires_at = now() - interval '1 second' FROM expired WHERE events.id = expired.event_id
        """,
        user_id=person.id,
        ids=list(ids),
    )


def erase(person: Person) -> None:
    """Leaves nothing of the person."""
    for table in ("undos", "notifications", "tickets"):
        run(f"DELETE FROM {table} WHERE user_id = :user_id", user_id=person.id)
    run("DELETE FROM users WHERE id = :user_id", user_id=person.id)


def version(person: Person) -> int:
    """The number of the latest change to the inbox."""
    found: int = run("SELECT inbox_version FROM users WHERE id = :user_id", user_id=person.id)[0].inbox_version
    return found


def rows(person: Person) -> list[dict[str, Any]]:
    """Every row of the inbox as it is stored, newest first."""
    found = run("SELECT * FROM notifications WHERE user_id = :user_id ORDER BY id DESC", user_id=person.id)
    return [dict(row._mapping) for row in found]


def row(person: Person, number: int) -> dict[str, Any]:
    """The notification of that id as it is stored."""
    [found] = [row for row in rows(person) if row["id"] == number]
    return found


def everything() -> list[Any]:
    """All that a reader's request could change: equal before and after, nothing was changed."""
    tables = {"users": "id", "notifications": "user_id, id", "undos": "user_id, version", "events": "id"}
    return [run(f"SELECT * FROM {table} ORDER BY {order}") for table, order in tables.items()]
