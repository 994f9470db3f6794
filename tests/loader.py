"""Fills the tables with as much as years of use would, by SQL, in seconds."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

# Rows go in as they arrive, everybody's at the same time, so that one inbox lies scattered over the table.
LOAD_EVENTS = text("""
    INSERT INTO events (type, title, body_text, body_html, data, priority, received, created_at, expires_at)
    SELECT 'type-' || number % 50, 'Event ' || number, repeat('some words ', 10), repeat('<b>some</b> words ', 10),
        '{"key": "value"}', 'normal', 10, now() - interval '1 day',
        now() + (number - :count / 100) * interval '1 minute'
    FROM generate_series(1, :count) AS number
""")
LOAD_USERS = text("""
    INSERT INTO users (subject, inbox_version) SELECT subject, size
    FROM unnest(CAST(:subjects AS text[]), CAST(:sizes AS bigint[])) AS given (subject, size)
""")
LOAD_NOTIFICATIONS = text("""
    INSERT INTO notifications (user_id, id, event_id, seen_at, read_at, expires_at)
    SELECT users.id, number, events.first + number % events.count, now(),
        CASE WHEN number % (size / unread) <> 0 OR number / (size / unread) > unread THEN now() END,
        now() + CASE WHEN expired THEN -number ELSE 40000 - number / 100 END * interval '1 minute'
    FROM unnest(
        CAST(:subjects AS text[]), CAST(:sizes AS bigint[]), CAST(:unread AS bigint[]), CAST(:expired AS boolean[])
    ) AS given (subject, size, unread, expired)
    JOIN users USING (subject)
    CROSS JOIN (SELECT min(id) AS first, count(*) AS count FROM events) AS events
    CROSS JOIN LATERAL generate_series(1, size) AS number
    ORDER BY number * 1.0 / size, users.id
""")


@dataclass(frozen=True)
class Load:
    """An inbox to be: its owner, how many rows, and how many of them, evenly spread, are unread."""

    subject: str
    size: int
    unread: int
    expired: bool = False


def load(connection: Connection, inboxes: list[Load], events: int) -> None:
    """Makes these users with their notifications, of which each is of one of so many events."""
    given = {
        "subjects": [inbox.subject for inbox in inboxes],
        "sizes": [inbox.size for inbox in inboxes],
        "unread": [inbox.unread for inbox in inboxes],
        "expired": [inbox.expired for inbox in inboxes],
    }
    connection.execute(LOAD_EVENTS, {"count": events})
    connection.execute(LOAD_USERS, given)
    connection.execute(LOAD_NOTIFICATIONS, given)


def tidy(connection: Connection) -> None:
    """Leaves the tables as autovacuum does; outside of a transaction."""
    connection.execute(text("VACUUM (ANALYZE) users, events, notifications"))
