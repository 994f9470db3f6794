"""Taking an event back from every inbox that has it; the versions move, so every bell drops it at its next poll."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

from collections.abc import Sequence

from sqlalchemy import Connection, text

from app import changes, db, people
from app.errors import not_found
from app.events import CUT_OFF

CHUNK = 1_000

MARK = text("""
    UPDATE events SET retracted_at = coalesce(retracted_at, now()), is_retracting = true
    WHERE id = :id AND api_key_id = :key_id RETURNING id
""")


def mark(connection: Connection, id: int, key_id: int) -> None:
    """Puts the sender's event out of everybody's sight at once; 404 for another sender's. Index: events_pkey.

    A fan-out that is under way stops here.
    """
    if connection.execute(MARK, {"id": id, "key_id": key_id}).one_or_none() is None:
        raise not_found()


FIND_ALL = text("SELECT user_id, id FROM notifications WHERE event_id = :event_id ORDER BY user_id")


def find_all(connection: Connection, event_id: int) -> list[tuple[int, int]]:
    """Where the event is, read once: finding the next thousand afresh each time takes five times as long.

    Index: notifications_event_id.
    """
    return [(row.user_id, row.id) for row in connection.execute(FIND_ALL, {"event_id": event_id})]


# By the event too: a notification that has moved on with its group meanwhile shows another event.
REMOVE = text("""
    WITH removed AS (
        DELETE FROM notifications AS n
        USING unnest(CAST(:user_ids AS bigint[]), CAST(:ids AS bigint[])) AS at (user_id, id)
        WHERE n.user_id = at.user_id AND n.id = at.id AND n.event_id = :event_id
        RETURNING n.user_id
    ), raised AS (
        UPDATE users SET inbox_version = inbox_version + 1 WHERE id IN (SELECT user_id FROM removed)
        RETURNING id, inbox_version
    )
    SELECT id, inbox_version FROM raised
""")


def remove(connection: Connection, event_id: int, places: Sequence[tuple[int, int]]) -> int:
    """Takes the event out of these places and raises the numbers of the inboxes it left. Index: notifications_pkey."""
    user_ids = [place[0] for place in places]
    people.lock_users(connection, user_ids, missing_ok=True)
    parameters = {"event_id": event_id, "user_ids": user_ids, "ids": [place[1] for place in places]}
    raised = connection.execute(REMOVE, parameters).all()
    changes.tell(connection, {row.id: row.inbox_version for row in raised})
    return len(raised)  # an event is in an inbox once


FINISH = text("UPDATE events SET is_retracting = false WHERE id = :event_id")


def finish(connection: Connection, event_id: int) -> None:
    """Notes that the event is nowhere any more."""
    connection.execute(FINISH, {"event_id": event_id})


def retract(id: int, key_id: int) -> int:
    """Takes the sender's event back, a thousand inboxes a transaction; in how many it was.

    What was replaced by a newer event of its group is in none. A call that was killed is completed by repeating it.
    """
    db.write(mark, id, key_id)
    return complete(id)


def complete(id: int) -> int:
    """Takes away what is left of a marked event; from how many inboxes. Two who do so at once take nothing twice."""
    places = db.read(find_all, id)
    removed = sum(db.write(remove, id, places[start : start + CHUNK]) for start in range(0, len(places), CHUNK))
    db.write(finish, id)
    return removed


FIND_CUT_OFF = text(f"SELECT id FROM events WHERE is_retracting AND retracted_at < {CUT_OFF} ORDER BY id")


def find_cut_off(connection: Connection) -> list[int]:
    """The events whose retraction was cut off, and not repeated by their sender. Index: events_retracting."""
    return list(connection.execute(FIND_CUT_OFF).scalars())
