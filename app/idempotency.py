"""Idempotency keys: the same call again is answered as the first time, and does nothing.

The key, what it did and its answer commit in one transaction, so a call that was killed has left nothing behind.
"""

from datetime import datetime
from typing import Any, NamedTuple

import orjson
import sqlalchemy.exc
from sqlalchemy import Connection, text

from app.db import LostRace
from app.errors import Problem

COMMAND_LINE = 0  # stands where a sender's API key stands
LOCK_NOT_AVAILABLE = "55P03"


class Call(NamedTuple):
    """What makes two calls the same: whose key, which key, and what was asked."""

    api_key_id: int
    key: str
    digest: bytes


class Answer(NamedTuple):
    """What was answered under a key; `is_done` is false while a fan-out to everyone is under way."""

    is_done: bool
    body: dict[str, Any]


# A key that is past its day is taken over as if it were not there: the clean-up only saves the space.
CLAIM = text("""
    INSERT INTO idempotency_keys AS held (api_key_id, key, request_digest, status, body)
    VALUES (:api_key_id, :key, :digest, 0, '{}')
    ON CONFLICT (api_key_id, key) DO UPDATE
        SET request_digest = excluded.request_digest, status = 0, body = '{}', created_at = now()
        WHERE held.created_at <= now() - interval '24 hours'
    RETURNING key
""")


def claim(connection: Connection, call: Call) -> Answer | None:
    """Takes the key for 24 hours, or gives back what was answered under it. Index: idempotency_keys_pkey.

    422 where the key came with another request, 409 where that request is still at work.
    """
    try:
        taken = connection.execute(CLAIM, call._asdict()).one_or_none() is not None
    except sqlalchemy.exc.OperationalError as error:
        # Whoever holds the key has not committed yet; the wait for it is a wait for a lock.
        if getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise Problem(409, "A call with this Idempotency-Key is still at work.") from None
        raise
    return None if taken else find(connection, call)


FIND = text("""
    SELECT request_digest, status, body FROM idempotency_keys WHERE api_key_id = :api_key_id AND key = :key
""")


def find(connection: Connection, call: Call) -> Answer:
    """What is kept under a key that somebody has. Index: idempotency_keys_pkey.

    Raises `LostRace` where the clean-up took it meanwhile.
    """
    row = connection.execute(FIND, call._asdict()).one_or_none()
    if row is None:
        raise LostRace("the day of this Idempotency-Key ended meanwhile")
    if bytes(row.request_digest) != call.digest:
        raise Problem(422, "This Idempotency-Key came with another request before.")
    return Answer(row.status != 0, row.body)


# A key and its event are of one transaction, so of one moment, and that has an index. One that was claimed anew since
# is of a later moment and names another event.
LOCK_OF_EVENT = text("""
    SELECT api_key_id, key, request_digest, body FROM idempotency_keys
    WHERE created_at = :created_at AND CAST(body #>> '{events,0,event_id}' AS bigint) = :event_id AND status = 0
    FOR NO KEY UPDATE
""")


def lock_of_event(connection: Connection, event_id: int, created_at: datetime) -> tuple[Call, dict[str, int]] | None:
    """The call that began an event for everyone, and its answer so far; None where its day is over, or it is answered.

    Index: idempotency_keys_created_at.
    """
    row = connection.execute(LOCK_OF_EVENT, {"event_id": event_id, "created_at": created_at}).one_or_none()
    if row is None:
        return None
    return Call(row.api_key_id, row.key, bytes(row.request_digest)), row.body["events"][0]


FIND_OF_EVENT = text("""
    SELECT body -> 'events' -> 0 FROM idempotency_keys
    WHERE api_key_id = :api_key_id AND key = :key AND CAST(body #>> '{events,0,event_id}' AS bigint) = :event_id
""")


def find_of_event(connection: Connection, call: Call, event_id: int) -> dict[str, int] | None:
    """What is kept under the key, if it is about this event still. Index: idempotency_keys_pkey."""
    found: dict[str, int] | None = connection.execute(
        FIND_OF_EVENT, {**call._asdict(), "event_id": event_id}
    ).scalar_one_or_none()
    return found


KEEP = text("""
    UPDATE idempotency_keys SET status = :status, body = CAST(:body AS jsonb)
    WHERE api_key_id = :api_key_id AND key = :key
""")


def keep(connection: Connection, call: Call, body: dict[str, Any], *, is_done: bool = True) -> None:
    """Stores what a repeated call is answered with, in the transaction that did it."""
    status = 201 if is_done else 0
    connection.execute(KEEP, {**call._asdict(), "status": status, "body": orjson.dumps(body).decode()})


KNOWN_KEYS = text("""
    SELECT key FROM idempotency_keys
    WHERE api_key_id = :api_key_id AND key = ANY(:keys) AND created_at > now() - interval '24 hours'
""")


def known_keys(connection: Connection, api_key_id: int, keys: list[str]) -> set[str]:
    """Those of the keys under which something was done already. Index: idempotency_keys_pkey."""
    return set(connection.execute(KNOWN_KEYS, {"api_key_id": api_key_id, "keys": keys}).scalars())
