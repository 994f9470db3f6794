"""What a reader wants to hear of: the types they have met, each muted or not."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

from typing import Any

from sqlalchemy import Connection, text

from app import people
from app.errors import not_found, signed_out
from app.events import MOST_TYPES
from app.people import MAY_READ, Reader
from app.unread import WINDOW

NEWEST_TYPES = f"""
    SELECT e.type FROM (
        SELECT n.event_id FROM notifications AS n
        WHERE n.user_id = :user_id AND now() < n.expires_at ORDER BY n.id DESC LIMIT {WINDOW}
    ) AS newest JOIN events AS e ON e.id = newest.event_id"""

LIST = text(f"""
    SELECT met.type, coalesce(preferences.muted, false) AS muted
    FROM users LEFT JOIN (
        (SELECT DISTINCT type FROM ({NEWEST_TYPES}) AS of_newest ORDER BY type LIMIT {MOST_TYPES})
        UNION SELECT type FROM preferences WHERE user_id = :user_id
    ) AS met ON true
    LEFT JOIN preferences ON preferences.user_id = users.id AND preferences.type = met.type
    WHERE {MAY_READ} ORDER BY met.type
""")


def list_preferences(connection: Connection, reader: Reader) -> list[dict[str, Any]]:
    """The types that this reader has met, by name, each muted or not.

    Of the newest 1,000 notifications the first 50, and all that the reader has decided about. Indexes:
    notifications_pkey, preferences_pkey.
    """
    rows = connection.execute(LIST, reader.claims).all()
    if not rows:
        raise signed_out()
    return [dict(row._mapping) for row in rows if row.type is not None]


HAS_MET = text(f"""
    SELECT :type IN ({NEWEST_TYPES}) OR EXISTS (SELECT FROM preferences WHERE user_id = :user_id AND type = :type)
""")
SET = text("""
    INSERT INTO preferences (user_id, type, muted) VALUES (:user_id, :type, :muted)
    ON CONFLICT (user_id, type) DO UPDATE SET muted = excluded.muted
""")


def mute(connection: Connection, reader: Reader, type: str, *, muted: bool) -> None:
    """Mutes a type that the reader has met, or lets it be heard again; 404 for one they never met.

    Met is what is among the newest 1,000 notifications. Under the user's lock, as publishing is: after the answer
    nothing of a muted type arrives any more. Indexes: notifications_pkey, preferences_pkey.
    """
    people.lock_reader(connection, reader)
    which = {"user_id": reader.user_id, "type": type}
    if not connection.execute(HAS_MET, which).scalar_one():
        raise not_found()
    connection.execute(SET, {**which, "muted": muted})
