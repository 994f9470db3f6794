"""What an operator asks at night: how much there is, how old, who sends, and who there is."""

from typing import Any

from sqlalchemy import Connection, text

from app import keys, retention
from app.db import LONG_DEADLINE

MANY_ROWS = 1_000_000  # more than these take seconds to count

ABOUT = text("""
    SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class
    WHERE oid IN ('notifications'::regclass, 'events'::regclass)
""")


def about(connection: Connection) -> int:
    """How many rows `stats` will read, as far as the server knows, at once."""
    found: int = connection.execute(ABOUT).scalar_one()
    return found


# One pass over each table. Events are numbered as they come, so the oldest of many is the one with the smallest number.
STATS = text("""
    WITH counted AS (
        SELECT count(*) FILTER (WHERE now() < expires_at) AS notifications,
            count(*) FILTER (WHERE read_at IS NULL AND archived_at IS NULL AND now() < expires_at) AS unread,
            count(*) FILTER (WHERE expires_at <= now()) AS expired,
            min(event_id) FILTER (WHERE read_at IS NULL AND archived_at IS NULL AND now() < expires_at) AS oldest
        FROM notifications
    )
    SELECT
        (SELECT count(*) FROM users) AS users,
        (SELECT count(*) FROM users WHERE NOT is_active) AS disabled,
        (SELECT count(*) FROM events) AS events,
        notifications, unread, expired,
        (SELECT count(*) FROM events WHERE created_at > now() - interval '24 hours') AS events_in_24_hours,
        (SELECT created_at FROM events WHERE id = oldest) AS oldest_unread,
        pg_total_relation_size('notifications') AS bytes_of_notifications,
        pg_total_relation_size('events') AS bytes_of_events,
        pg_database_size(current_database()) AS bytes
    FROM counted
""")


def stats(connection: Connection) -> dict[str, Any]:
    """How much of everything there is. Reads every row: seconds on millions of them, so not for monitoring."""
    connection.execute(LONG_DEADLINE)
    found = dict(connection.execute(STATS).one()._mapping)
    senders = [
        {name: key[name] for name in ("name", "prefix", "state", "last_used_at")} for key in keys.list_all(connection)
    ]
    return {**found, "last_clean_up": retention.progress(connection).done_at, "senders": senders}


LIST_USERS = text("""
    SELECT id, subject, display_name, is_active, password_hash IS NOT NULL AS has_password, inbox_version, created_at
    FROM users ORDER BY subject LIMIT :limit OFFSET :offset
""")


def list_users(connection: Connection, limit: int, offset: int) -> list[dict[str, Any]]:
    """The users by name, for the operator."""
    found = connection.execute(LIST_USERS, {"limit": limit, "offset": offset})
    return [dict(row._mapping) for row in found]


FIND_SOMEBODY = text("SELECT subject FROM users WHERE is_active ORDER BY subject LIMIT 1")


def find_somebody(connection: Connection) -> str | None:
    """Somebody who can sign in, for whoever tries the service out. Index: users_subject_key."""
    subject: str | None = connection.execute(FIND_SOMEBODY).scalar_one_or_none()
    return subject
