"""What a sender does: an event, and one notification of it in each recipient's inbox.

Everything that waits waits in one order, here and everywhere: idempotency key, new people by subject, event, users by
id, rows. So nothing deadlocks.
"""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, text

from app import changes, db, events, idempotency, metrics, people
from app.db import LostRace
from app.errors import FieldError, Problem
from app.events import CUT_OFF, Event
from app.idempotency import Call
from app.unread import IN_SIGHT
from app.validation import MAX_ERRORS

CHUNK = 1_000  # inboxes that one statement delivers to


class Published(NamedTuple):
    """What became of an event."""

    event_id: int
    recipients: int
    created: int

    def as_json(self) -> dict[str, int]:
        """The answer to its sender: recipients who muted the type got no notification."""
        return {**self._asdict(), "muted": self.recipients - self.created}


class Order(NamedTuple):
    """An event on its way to its recipients."""

    event: Event
    recipients: Sequence[str]
    at: str = ""  # where in the request it stands: what its errors' fields begin with


def publish(
    connection: Connection, orders: Sequence[Order], ttl: timedelta, key_id: int | None = None
) -> list[Published]:
    """Creates the events and delivers each to each of its recipients once, in the transaction of `connection`.

    All locks are taken before the first change; then the events are delivered in their order, so that several for one
    person get their own numbers in that order. Unknown subjects become users. `ttl` is the life of an event that names
    none; `key_id` is the sender's.
    """
    ids = find_or_make_users(connection, [subject for order in orders for subject in order.recipients])
    to = [sorted({ids[subject] for subject in order.recipients}) for order in orders]
    inserted = _insert(connection, list(zip(orders, to, strict=True)), ttl, key_id)
    people.lock_users(connection, sorted(ids.values()))
    published = []
    for order, users, event in zip(orders, to, inserted, strict=True):
        created = sum(deliver(connection, event, order.event, chunk) for chunk in _chunks(users))
        if created != len(users):
            events.correct_received(connection, event.id, created)
        published.append(Published(event.id, len(users), created))
    db.after_commit(connection, lambda: metrics.EVENTS.add(len(published)))
    return published


def _insert(
    connection: Connection, orders: Sequence[tuple[Order, Sequence[int]]], ttl: timedelta, key_id: int | None
) -> list[events.Kept]:
    inserted: list[events.Kept] = []
    errors: list[FieldError] = []
    for order, users in orders:
        only = users[0] if len(users) == 1 else None
        try:
            inserted.append(events.insert(connection, order.event, ttl, key_id, received=len(users), only=only))
        except Problem as problem:
            errors += [FieldError(order.at + error.field, error.message) for error in problem.errors]
    if errors:
        raise Problem(422, f"{errors[0].field} {errors[0].message}.", errors[:MAX_ERRORS])
    return inserted


def publish_once(
    connection: Connection, call: Call, orders: Sequence[Order], ttl: timedelta, key_id: int | None = None
) -> tuple[list[dict[str, int]], bool]:
    """Publishes under an idempotency key. Gives back the answers, and whether they are those of an earlier time."""
    earlier = idempotency.claim(connection, call)
    if earlier is not None:
        return earlier.body["events"], True
    answers = [published.as_json() for published in publish(connection, orders, ttl, key_id)]
    idempotency.keep(connection, call, {"events": answers})
    return answers, False


def line_call(line: bytes, ordinal: int) -> Call:
    """The idempotency key of the `ordinal`-th of equal lines of a file: equal lines are separate events."""
    digest = hashlib.sha256(line)
    return Call(idempotency.COMMAND_LINE, f"{digest.hexdigest()}-{ordinal}", digest.digest())


def everyone_call(arguments: dict[str, Any]) -> Call:
    """The idempotency key of `flask send --everyone`: the same arguments again within 24 hours are the same event."""
    digest = hashlib.sha256(orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS))
    return Call(idempotency.COMMAND_LINE, f"everyone-{digest.hexdigest()}", digest.digest())


FIND_USERS = text("SELECT subject, id FROM users WHERE subject = ANY(:subjects)")
MAKE_USERS = text("""
    INSERT INTO users (subject) SELECT subject FROM unnest(CAST(:subjects AS text[])) AS wanted (subject)
    ORDER BY subject COLLATE "C" ON CONFLICT DO NOTHING
""")


def find_or_make_users(connection: Connection, subjects: Sequence[str]) -> dict[str, int]:
    """The ids of these subjects. Index: users_subject_key.

    Raises `LostRace` where one of them was erased meanwhile.
    """
    wanted = list(set(subjects))
    found = _find_users(connection, wanted)
    if len(found) < len(wanted):
        connection.execute(MAKE_USERS, {"subjects": sorted(set(wanted) - found.keys())})
        found = _find_users(connection, wanted)
    if len(found) < len(wanted):
        raise LostRace("a recipient was erased meanwhile")
    return found


def _find_users(connection: Connection, subjects: Sequence[str]) -> dict[str, int]:
    return {row.subject: row.id for row in connection.execute(FIND_USERS, {"subjects": subjects})}


# Who muted the type gets no number and no row. A row of the group that has expired, or is being retracted, is replaced
# as if it were not there: its count begins anew.
DELIVER = text(f"""
    WITH raised AS (
        UPDATE users SET inbox_version = inbox_version + 1
        WHERE id = ANY(:user_ids) AND NOT EXISTS (
            SELECT FROM preferences WHERE user_id = users.id AND type = :type AND muted)
        RETURNING id, inbox_version
    )
    INSERT INTO notifications AS n (user_id, id, event_id, group_key, expires_at)
    SELECT id, inbox_version, :event_id, :group_key, :expires_at FROM raised
    ON CONFLICT (user_id, group_key) WHERE read_at IS NULL AND archived_at IS NULL AND group_key IS NOT NULL
    DO UPDATE SET id = excluded.id, event_id = excluded.event_id, expires_at = excluded.expires_at, seen_at = NULL,
        group_count = CASE WHEN now() < n.expires_at AND {IN_SIGHT} THEN n.group_count + 1 ELSE 1 END
    RETURNING user_id, id
""")


def deliver(connection: Connection, kept: events.Kept, event: events.Deliverable, user_ids: Sequence[int]) -> int:
    """Puts the event on top of these inboxes, whose users are locked; how many received it.

    Indexes: users_pkey, preferences_pkey, notifications_open_group.
    """
    parameters = {
        "user_ids": list(user_ids),
        "type": event.type,
        "group_key": event.group_key,
        "event_id": kept.id,
        "expires_at": kept.expires_at,
    }
    delivered = connection.execute(DELIVER, parameters).all()
    changes.tell(connection, {row.user_id: row.id for row in delivered})
    if delivered:
        db.after_commit(connection, lambda: metrics.DELIVERED.add(len(delivered)))
    return len(delivered)


def _chunks(user_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (user_ids[start : start + CHUNK] for start in range(0, len(user_ids), CHUNK))


COUNT_EVERYONE = text("SELECT count(*) FROM users")


def count_everyone(connection: Connection) -> int:
    """How many users there are. Reads them all, so it has a deadline of its own."""
    connection.execute(db.LONG_DEADLINE)
    found: int = connection.execute(COUNT_EVERYONE).scalar_one()
    return found


BEGIN_EVERYONE = text("""
    UPDATE events SET fanned_out_to = 0, fan_out_until = (SELECT coalesce(max(id), 0) FROM users) WHERE id = :event_id
""")


def begin_everyone(
    connection: Connection, call: Call, event: Event, ttl: timedelta, key_id: int | None = None
) -> tuple[dict[str, int], bool]:
    """Creates an event for all who are users now, under the idempotency key that a repeat continues it by.

    Gives back the answer as it stands, and whether it is complete.
    """
    earlier = idempotency.claim(connection, call)
    if earlier is not None:
        return earlier.body["events"][0], earlier.is_done
    kept = events.insert(connection, event, ttl, key_id, received=0, only=None)
    connection.execute(BEGIN_EVERYONE, {"event_id": kept.id})
    db.after_commit(connection, metrics.EVENTS.add)
    begun = Published(kept.id, 0, 0).as_json()
    idempotency.keep(connection, call, {"events": [begun]}, is_done=False)
    return begun, False


def to_everyone(
    call: Call,
    event: Event,
    ttl: timedelta,
    key_id: int | None = None,
    tell: Callable[[int], None] = lambda users: None,
) -> tuple[dict[str, int], bool]:
    """Publishes to all who are users now: the event first, then a thousand users a transaction; tells how many it were.

    Gives back the answer, and whether it is that of an earlier time. A call that was killed is completed by repeating
    it, and nobody gets the event twice.
    """
    answer, is_done = db.write(begin_everyone, call, event, ttl, key_id)
    if is_done:
        return answer, True
    tell(answer["recipients"])
    users, created = answer["recipients"], answer["created"]
    for chunk in complete_everyone(answer["event_id"]):
        users, created = users + chunk.recipients, created + chunk.created
        tell(chunk.recipients)
    # Others may have continued it too, and the key knows of them. Past its day it does not: what is known here stands.
    kept = db.read(idempotency.find_of_event, call, answer["event_id"])
    return kept or Published(answer["event_id"], users, created).as_json(), False


def complete_everyone(event_id: int) -> Iterator[Published]:
    """Delivers an event to those of everyone who are left, and gives out what became of each thousand."""
    while chunk := db.write(continue_everyone, event_id):
        yield chunk


FIND_CUT_OFF = text(f"""
    SELECT id FROM events
    WHERE fanned_out_to < fan_out_until AND created_at < {CUT_OFF} AND retracted_at IS NULL AND now() < expires_at
    ORDER BY id
""")


def find_cut_off(connection: Connection) -> list[int]:
    """The events whose publication to everyone was cut off, and not repeated. Index: events_fanning_out."""
    return list(connection.execute(FIND_CUT_OFF).scalars())


# The event first and then the users, as everywhere. Two who continue the same event take turns at its row.
LOCK_FAN_OUT = text("""
    SELECT id, type, group_key, created_at, expires_at, retracted_at, fanned_out_to, fan_out_until FROM events
    WHERE id = :event_id FOR NO KEY UPDATE
""")
LOCK_NEXT_USERS = text("""
    SELECT id FROM users WHERE id > :after AND id <= :until ORDER BY id LIMIT :chunk FOR NO KEY UPDATE
""")
MOVE_FAN_OUT = text("UPDATE events SET fanned_out_to = :to, received = received + :created WHERE id = :event_id")


def continue_everyone(connection: Connection, event_id: int) -> Published | None:
    """Delivers to the next 1,000 users and notes how far it came, all in one transaction; None once it is complete.

    A retracted event is complete where it stands. The answer is kept under the key that began it, for as long as that
    is the event's. Indexes: events_pkey, users_pkey.
    """
    event = connection.execute(LOCK_FAN_OUT, {"event_id": event_id}).one_or_none()
    if event is None:
        return None
    begun = idempotency.lock_of_event(connection, event_id, event.created_at)
    user_ids: list[int] = []
    if event.retracted_at is None:
        bounds = {"after": event.fanned_out_to, "until": event.fan_out_until, "chunk": CHUNK}
        user_ids = list(connection.execute(LOCK_NEXT_USERS, bounds).scalars())
    created = deliver(connection, events.Kept(event_id, event.expires_at), event, user_ids) if user_ids else 0
    to = user_ids[-1] if user_ids else event.fan_out_until
    connection.execute(MOVE_FAN_OUT, {"event_id": event_id, "to": to, "created": created})
    if begun is not None:
        call, answer = begun
        so_far = Published(event_id, answer["recipients"] + len(user_ids), answer["created"] + created)
        idempotency.keep(connection, call, {"events": [so_far.as_json()]}, is_done=not user_ids)
    return Published(event_id, len(user_ids), created) if user_ids else None
