"""What expires and when. Deletes in small batches, so that nobody waits for it; safe at any time, and when killed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, TextClause, text

from app import db

PAUSE = 0.05  # seconds between two batches, for others to get their turn
ADVISORY_LOCK = 20_110_905  # any number, as long as it is the same in every clean-up

# Rows that somebody is changing just now are passed over: the next run finds them. No user is locked, for an expired
# row is out of every list and count already, and its disappearance is no change that needs a number.
DELETE_NOTIFICATIONS = text("""
    WITH expired AS MATERIALIZED (
        SELECT user_id, id FROM notifications WHERE expires_at <= now()
        ORDER BY expires_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    DELETE FROM notifications USING expired
    WHERE notifications.user_id = expired.user_id AND notifications.id = expired.id
""")
DELETE_EVENTS = text("""
    WITH expired AS MATERIALIZED (
        SELECT id FROM events
        WHERE expires_at <= now() AND NOT EXISTS (SELECT FROM notifications WHERE event_id = events.id)
        ORDER BY expires_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    DELETE FROM events USING expired WHERE events.id = expired.id
""")
DELETE_TICKETS = text("""
    DELETE FROM tickets WHERE digest IN (
        SELECT digest FROM tickets WHERE expires_at <= now() LIMIT :batch FOR UPDATE SKIP LOCKED)
""")
DELETE_UNDOS = text("""
    DELETE FROM undos WHERE (user_id, version) IN (
        SELECT user_id, version FROM undos WHERE at <= now() - interval '10 minutes'
        LIMIT :batch FOR UPDATE SKIP LOCKED)
""")
DELETE_ENDED_SESSIONS = text("""
    DELETE FROM ended_sessions WHERE session_id IN (
        SELECT session_id FROM ended_sessions WHERE until <= now() LIMIT :batch FOR UPDATE SKIP LOCKED)
""")
DELETE_IDEMPOTENCY_KEYS = text("""
    DELETE FROM idempotency_keys WHERE (api_key_id, key) IN (
        SELECT api_key_id, key FROM idempotency_keys WHERE created_at <= now() - interval '24 hours'
        LIMIT :batch FOR UPDATE SKIP LOCKED)
""")
DELETE_COUNTERS = text("""
    DELETE FROM rate_limits WHERE key IN (
        SELECT key FROM rate_limits WHERE expires_at <= now() LIMIT :batch FOR UPDATE SKIP LOCKED)
""")

# In this order, each batch a transaction of its own: an event goes only when its last notification has gone.
CHORES = {
    "notifications": DELETE_NOTIFICATIONS,
    "events": DELETE_EVENTS,
    "tickets": DELETE_TICKETS,
    "undos": DELETE_UNDOS,
    "ended_sessions": DELETE_ENDED_SESSIONS,
    "idempotency_keys": DELETE_IDEMPOTENCY_KEYS,
    "counters": DELETE_COUNTERS,
}

# What a batch of each chore would find, for a dry run.
COUNT = text("""
    SELECT
        (SELECT count(*) FROM notifications WHERE expires_at <= now()) AS notifications,
        (SELECT count(*) FROM events WHERE expires_at <= now() AND NOT EXISTS (
            SELECT FROM notifications WHERE event_id = events.id AND now() < notifications.expires_at)) AS events,
        (SELECT count(*) FROM tickets WHERE expires_at <= now()) AS tickets,
        (SELECT count(*) FROM undos WHERE at <= now() - interval '10 minutes') AS undos,
        (SELECT count(*) FROM ended_sessions WHERE until <= now()) AS ended_sessions,
        (SELECT count(*) FROM idempotency_keys WHERE created_at <= now() - interval '24 hours') AS idempotency_keys,
        (SELECT count(*) FROM rate_limits WHERE expires_at <= now()) AS counters
""")


def count_expired(connection: Connection) -> dict[str, int]:
    """How many rows a clean-up would delete now, by chore."""
    return dict(connection.execute(COUNT).one()._mapping)


def clean_up(batch: int, tell: Callable[[str, int], None]) -> dict[str, int]:
    """Deletes what has expired, `batch` rows a transaction, and tells after each how many of which chore.

    Gives back the number of deleted rows by chore. Hold `only_one` around it.
    """
    deleted = dict.fromkeys(CHORES, 0)
    for chore, statement in CHORES.items():
        while rows := db.write(delete_batch, statement, batch):
            deleted[chore] += rows
            tell(chore, rows)
            time.sleep(PAUSE)
    return deleted


def delete_batch(connection: Connection, statement: TextClause, batch: int) -> int:
    """How many rows went, `batch` at most. Indexes: those on the column that says when a row is over."""
    return connection.execute(statement, {"batch": batch}).rowcount


@contextmanager
def only_one() -> Iterator[bool]:
    """True for one clean-up at a time, False beside it. The server forgets the lock however its holder dies."""
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        got = connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": ADVISORY_LOCK}).scalar_one()
        try:
            yield bool(got)
        finally:
            if got:
                connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": ADVISORY_LOCK})
