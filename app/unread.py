"""What counts as unread and unseen: one rule, used by the snapshot and by the answer to every change."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

from sqlalchemy import Connection, text

from app.errors import signed_out
from app.people import MAY_READ, Reader

COUNT_TO = 100  # a count of 100 means "100 or more"
# Counts, list and UNTIL of a snapshot come from this many rows at most, so that 10,000 unread cost no more than these.
WINDOW = 1_000

OPEN = "n.read_at IS NULL AND n.archived_at IS NULL"

# An event that is being retracted is out of sight before its last notification is gone. Asked for once a statement, and
# nearly always an empty list. Index: events_retracting.
IN_SIGHT = "n.event_id <> ALL (ARRAY(SELECT id FROM events WHERE is_retracting))"

# The list names the user itself instead of joining `users`: joined, PostgreSQL sorts all that is unread.
NEWEST = f"""
    SELECT * FROM notifications AS n
    WHERE n.user_id = :user_id AND {OPEN} AND now() < n.expires_at AND {IN_SIGHT}
    ORDER BY n.id DESC LIMIT {WINDOW}"""

COUNTS = f"""
    least(count(*), {COUNT_TO}) AS unread_count,
    least(count(*) FILTER (WHERE seen_at IS NULL), {COUNT_TO}) AS unseen_count"""

COUNT = text(f"""
    WITH newest AS ({NEWEST}
    ), totals AS (
        SELECT {COUNTS} FROM newest
    )
    SELECT totals.* FROM users CROSS JOIN totals WHERE {MAY_READ}
""")


def count(connection: Connection, reader: Reader) -> dict[str, int]:
    """`unread_count` and `unseen_count` of the reader's inbox, at the end of a change. Index: notifications_unread.

    401, which undoes the change, for a session that ended while the change waited for its lock: the statement that
    locks looks again at the row that it waited for, but at sessions only as they were when it began.
    """
    row = connection.execute(COUNT, reader.claims).one_or_none()
    if row is None:
        raise signed_out()
    return dict(row._mapping)
