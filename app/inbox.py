"""What a reader sees. Each function is one statement, which checks in the same breath that the reader may see it."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, TextClause, column, text

from app.errors import not_found, signed_out
from app.people import MAY_READ, Reader
from app.unread import COUNTS, IN_SIGHT, NEWEST, OPEN, WINDOW

MOST_TYPES = 50

NOTIFICATION = """n.id, n.group_count, n.seen_at, n.read_at, n.archived_at, n.expires_at,
    e.type, e.title, e.body_text, e.body_html, e.url, e.actor_name, e.actor_url, e.actor_image,
    e.data, e.priority, e.created_at"""

# The names of UNREAD's columns, in order: told them, SQLAlchemy works out the shape of its rows once, not each time.
COLUMNS = [name.strip().partition(".")[2] for name in NOTIFICATION.split(",")]
TOTALS = ["unread_count", "unseen_count", "more", "until"]


@dataclass(frozen=True)
class Snapshot:
    """The unread part of an inbox at one moment, with the number of the latest change that it contains."""

    user_id: int
    user: str
    version: int
    until: int  # when the first of what was counted expires, in microseconds since 1970; 0: nothing does
    unread_count: int
    unseen_count: int
    more: bool
    notifications: list[dict[str, Any]]

    def tag(self, epoch: str, limit: int) -> str:
        """The snapshot's `ETag`. Equal tags stand for equal answers, for one person and for ever."""
        return f'"{epoch}.{self.user_id}.{self.version}.{self.until}.{limit}"'

    def as_json(self) -> dict[str, Any]:
        """The snapshot as the wire has it."""
        return {
            "user": self.user,
            "notifications": self.notifications,
            "unread_count": self.unread_count,
            "unseen_count": self.unseen_count,
            "version": self.version,
            "more": self.more,
        }


POSITION = text(f"""
    SELECT inbox_version AS version, CAST(extract(epoch FROM now()) * 1000000 AS bigint) AS now
    FROM users WHERE {MAY_READ}
""")


def position(connection: Connection, reader: Reader) -> Row[Any]:
    """The inbox's `version`, and `now` in microseconds since 1970. Index: users_pkey."""
    return _require_reader(connection.execute(POSITION, reader.claims).one_or_none())


POSITIONS = text(f"""
    SELECT claimed.place - 1 AS place, inbox_version AS version,
        CAST(extract(epoch FROM now()) * 1000000 AS bigint) AS now
    FROM unnest(CAST(:user_ids AS bigint[]), CAST(:session_epochs AS integer[]), CAST(:session_ids AS text[]),
        CAST(:session_untils AS bigint[])) WITH ORDINALITY
        AS claimed (user_id, session_epoch, session_id, session_until, place)
    JOIN users ON {MAY_READ.replace(":", "claimed.")}
""")


def positions(connection: Connection, claims: Sequence[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    """As `position`, for many at once: by their places, those of the claims that are good.

    Indexes: users_pkey, ended_sessions_pkey.
    """
    given = {f"{name}s": [claim[name] for claim in claims] for name in claims[0]}
    return {row.place: (row.version, row.now) for row in connection.execute(POSITIONS, given)}


UNREAD = text(f"""
    WITH newest AS MATERIALIZED ({NEWEST}
    ), totals AS (
        SELECT {COUNTS},
            count(*) > :limit AS more,
            coalesce(CAST(extract(epoch FROM min(expires_at)) * 1000000 AS bigint), 0) AS until
        FROM newest
    ), shown AS (
        SELECT * FROM newest ORDER BY id DESC LIMIT :limit
    ), page AS (
        SELECT {NOTIFICATION} FROM shown AS n CROSS JOIN LATERAL (
            -- OFFSET 0 keeps the look-up one by key: joined, PostgreSQL 15 reads all events for these few.
            SELECT * FROM events WHERE events.id = n.event_id OFFSET 0
        ) AS e
    )
    SELECT users.subject, users.inbox_version, totals.*, page.*
    FROM users CROSS JOIN totals LEFT JOIN page ON true
    WHERE {MAY_READ} ORDER BY page.id DESC
""").columns(*map(column, ["subject", "inbox_version", *TOTALS, *COLUMNS]))


def unread_snapshot(connection: Connection, reader: Reader, limit: int) -> Snapshot:
    """The newest unread notifications with both counts and the version, all of one moment.

    401 where the session is not good any more. Index: notifications_unread.
    """
    rows = connection.execute(UNREAD, {**reader.claims, "limit": limit}).all()
    first = _require_reader(rows[0] if rows else None)
    return Snapshot(
        user_id=reader.user_id,
        user=first.subject,
        version=first.inbox_version,
        until=first.until,
        unread_count=first.unread_count,
        unseen_count=first.unseen_count,
        more=first.more,
        notifications=_notifications(rows),
    )


STATES = {
    "all": "n.archived_at IS NULL",
    "unread": OPEN,
    "read": "n.read_at IS NOT NULL AND n.archived_at IS NULL",
    "archived": "n.archived_at IS NOT NULL",
}


def _list_statement(condition: str) -> TextClause:
    return text(f"""
        SELECT page.* FROM users LEFT JOIN (
            SELECT {NOTIFICATION} FROM notifications AS n JOIN events AS e ON e.id = n.event_id
            WHERE n.user_id = :user_id AND n.id < :before AND now() < n.expires_at AND {IN_SIGHT} AND {condition}
            ORDER BY n.id DESC LIMIT :limit
        ) AS page ON true
        WHERE {MAY_READ} ORDER BY page.id DESC
    """)


LISTS = {state: _list_statement(condition) for state, condition in STATES.items()}
LISTS_OF_TYPE = {state: _list_statement(f"{condition} AND e.type = :type") for state, condition in STATES.items()}


def list_notifications(
    connection: Connection, reader: Reader, state: str, limit: int, before: int, type: str | None = None
) -> list[dict[str, Any]]:
    """At most `limit` notifications with ids below `before`, newest first.

    Indexes: notifications_unread, notifications_archived, else notifications_pkey.
    """
    statement = LISTS_OF_TYPE[state] if type else LISTS[state]
    rows = connection.execute(statement, {**reader.claims, "limit": limit, "before": before, "type": type}).all()
    _require_reader(rows[0] if rows else None)
    return _notifications(rows)


TYPES = text(f"""
    SELECT met.type FROM users LEFT JOIN (
        SELECT DISTINCT e.type FROM (
            SELECT n.event_id FROM notifications AS n
            WHERE n.user_id = :user_id AND now() < n.expires_at ORDER BY n.id DESC LIMIT {WINDOW}
        ) AS newest JOIN events AS e ON e.id = newest.event_id
    ) AS met ON true
    WHERE {MAY_READ} ORDER BY met.type LIMIT {MOST_TYPES}
""")


def list_types(connection: Connection, reader: Reader) -> list[str]:
    """The types among the reader's newest 1,000 notifications, archived ones included, by name.

    An index on types would be one more to write at every publishing, for a list that a page shows now and then.
    Index: notifications_pkey.
    """
    rows = connection.execute(TYPES, reader.claims).all()
    _require_reader(rows[0] if rows else None)
    return [row.type for row in rows if row.type is not None]


FIND = text(f"""
    SELECT found.* FROM users LEFT JOIN (
        SELECT {NOTIFICATION} FROM notifications AS n JOIN events AS e ON e.id = n.event_id
        WHERE n.user_id = :user_id AND n.id = :id AND now() < n.expires_at AND {IN_SIGHT}
    ) AS found ON true
    WHERE {MAY_READ}
""")


def find_notification(connection: Connection, reader: Reader, id: int) -> dict[str, Any]:
    """One notification of the reader's own; 404 for unknown, expired and foreign alike. Index: notifications_pkey."""
    row = _require_reader(connection.execute(FIND, {**reader.claims, "id": id}).one_or_none())
    if row.id is None:
        raise not_found()
    return _notification(row)


def _require_reader(row: Row[Any] | None) -> Row[Any]:
    # Every statement starts from the user's row under MAY_READ: without that row the caller is nobody.
    if row is None:
        raise signed_out()
    return row


def _notifications(rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    return [_notification(row) for row in rows if row.id is not None]


def _notification(row: Row[Any]) -> dict[str, Any]:
    actor = {"name": row.actor_name, "url": row.actor_url, "image": row.actor_image}
    return {
        "id": row.id,
        "type": row.type,
        "title": row.title,
        "body": row.body_text,
        "body_html": row.body_html,
        "url": row.url,
        "actor": actor if row.actor_name is not None else None,
        "data": row.data,
        "priority": row.priority,
        "count": row.group_count,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "seen_at": row.seen_at,
        "read_at": row.read_at,
        "archived_at": row.archived_at,
    }
