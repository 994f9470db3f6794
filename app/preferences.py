"""What a reader wants to hear of: the types they have met, each muted or not."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

from typing import Any

from sqlalchemy import Connection, text

from app import people
from app.errors import not_found, signed_out
from app.people import MAY_READ, Reader

LIST = text(f"""
    SELECT met.type, coalesce(preferences.muted, false) AS muted
    FROM users LEFT JOIN (
        SELECT DISTINCT e.type FROM notifications AS n JOIN events AS e ON e.id = n.event_id
        WHERE n.user_id = :user_id AND now() < n.expires_at
        UNION SELECT type FROM preferences WHERE user_id = :user_id
    ) AS met ON true
    LEFT JOIN preferences ON preferences.user_id = users.id AND preferences.type = met.type
    WHERE {MAY_READ} ORDER BY met.type
""")


def list_types(connection: Connection, reader: Reader) -> list[dict[str, Any]]:
    """The types of event that this reader has met, by name. Indexes: notifications_pkey, preferences_pkey."""
    rows = connection.execute(LIST, reader.claims).all()
    if not rows:
        raise signed_out()
    return [dict(row._mapping) for row in rows if row.type is not None]


SET = text("""
    INSERT INTO preferences (user_id, type, muted) VALUES (:user_id, :type, :muted)
    ON CONFLICT (user_id, type) DO UPDATE SET muted = excluded.muted
""")


def mute(connection: Connection, reader: Reader, type: str, *, muted: bool) -> None:
    """Mutes a type that the reader has met, or lets it be heard again; 404 for one they never met.

    Under the user's lock, as publishing is: after the answer nothing of a muted type arrives any more.
    """
    people.lock_reader(connection, reader)
    if type not in {known["type"] for known in list_types(connection, reader)}:
        raise not_found()
    connection.execute(SET, {"user_id": reader.user_id, "type": type, "muted": muted})
