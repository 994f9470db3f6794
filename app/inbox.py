"""What a reader sees. Each function is one statement, which checks in the same breath that the reader may see it."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import orjson
from sqlalchemy import Connection, TextClause, text

from app import db
from app.errors import not_found, signed_out
from app.events import MOST_TYPES
from app.people import MAY_READ, Reader
from app.unread import COUNTS, IN_SIGHT, NEWEST, OPEN, WINDOW

R = TypeVar("R")

NOTIFICATION = """n.id, n.group_count, n.seen_at, n.read_at, n.archived_at, n.expires_at,
    e.type, e.title, e.body_text, e.body_html, e.url, e.actor_name, e.actor_url, e.actor_image,
    e.data, e.priority, e.created_at"""


@dataclass(frozen=True)
class Snapshot:
    """The unread part of an inbox at one moment, with the number of the latest change that it contains."""

    user_id: int
    user: str
    version: int
    now: int  # that moment, in microseconds since 1970
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


class Position(NamedTuple):
    """Where an inbox stands: the number of its latest change, and now, in microseconds since 1970."""

    version: int
    now: int


def dump(content: dict[str, Any]) -> bytes:
    """What a reader is answered, as JSON: times come as UTC from the connection, and go as RFC 3339 with a Z."""
    return orjson.dumps(content, option=orjson.OPT_UTC_Z)


NOW = "CAST(extract(epoch FROM now()) * 1000000 AS bigint)"

POSITION = text(f"""
    SELECT inbox_version, {NOW} FROM users WHERE {MAY_READ}
""")
FAST_POSITION = db.for_driver(POSITION)


def position(connection: Connection, reader: Reader) -> Position:
    """Where the reader's inbox stands. Index: users_pkey."""
    rows = db.rows(connection, FAST_POSITION, reader.claims)
    return Position(*_require_reader(rows[0] if rows else None))


POSITIONS = text(f"""
    SELECT claimed.place - 1 AS place, inbox_version AS version, {NOW} AS now
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
    SELECT users.subject, users.inbox_version, {NOW}, totals.*, page.*
    FROM users CROSS JOIN totals LEFT JOIN page ON true
    WHERE {MAY_READ} ORDER BY page.id DESC
""")
FAST_UNREAD = db.for_driver(UNREAD)


def unread_snapshot(connection: Connection, reader: Reader, limit: int) -> Snapshot:
    """The newest unread notifications with both counts and the version, all of one moment.

    401 where the session is not good any more. Index: notifications_unread.
    """
    rows = db.rows(connection, FAST_UNREAD, {**reader.claims, "limit": limit})
    subject, version, now, unread_count, unseen_count, more, until, *_ = _require_reader(rows[0] if rows else None)
    return Snapshot(
        user_id=reader.user_id,
        user=subject,
        version=version,
        now=now,
        until=until,
        unread_count=unread_count,
        unseen_count=unseen_count,
        more=more,
        notifications=_notifications([row[7:] for row in rows]),
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


def list_types_held(connection: Connection, reader: Reader) -> list[str]:
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


def _require_reader(row: R | None) -> R:
    # Every statement starts from the user's row under MAY_READ: without that row the caller is nobody.
    if row is None:
        raise signed_out()
    return row


def _notifications(rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    return [_notification(row) for row in rows if row[0] is not None]


def _notification(row: Sequence[Any]) -> dict[str, Any]:
    # In the order of NOTIFICATION: a poll that looked for fifteen names in each row would be a tenth slower.
    number, count, seen_at, read_at, archived_at, expires_at, kind, title, body, body_html, url, *rest = row
    actor_name, actor_url, actor_image, data, priority, created_at = rest
    return {
        "id": number,
        "type": kind,
        "title": title,
        "body": body,
        "body_html": body_html,
        "url": url,
        "actor": {"name": actor_name, "url": actor_url, "image": actor_image} if actor_name is not None else None,
        "data": data,
        "priority": priority,
        "count": count,
        "created_at": created_at,
        "expires_at": expires_at,
        "seen_at": seen_at,
        "read_at": read_at,
        "archived_at": archived_at,
    }
