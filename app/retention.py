"""What expires and when. Deletes in small batches, so that nobody waits for it; safe at any time, and when killed."""
# ruff: noqa: S608 - SQL is put together from constants; values are always bound parameters.

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, text

from app import db

PAUSE = 0.05  # seconds between two batches, for others to get their turn
ADVISORY_LOCK = 20_110_905  # any number, as long as it is the same in every clean-up


class Chore(NamedTuple):
    """One kind of row: its table, its key, and when it is over."""

    table: str
    key: str
    over: str
    ordered_by: str

    @property
    def delete(self) -> TextClause:
        """Deletes a batch. Rows that somebody is changing just now are passed over: the next run finds them."""
        matches = " AND ".join(f"{self.table}.{column} = gone.{column}" for column in self.key.split(", "))
        return text(f"""
            WITH gone AS MATERIALIZED (
                SELECT {self.key} FROM {self.table} WHERE {self.over}
                ORDER BY {self.ordered_by} LIMIT :batch FOR UPDATE SKIP LOCKED
            )
            DELETE FROM {self.table} USING gone WHERE {matches}
        """)


# In this order, each batch a transaction of its own: an event goes only when its last notification has gone. No user
# is locked, for an expired notification is out of every list and count already: that it goes needs no number.
CHORES = {
    "notifications": Chore("notifications", "user_id, id", "expires_at <= now()", "expires_at"),
    "events": Chore(
        "events",
        "id",
        "expires_at <= now() AND NOT EXISTS (SELECT FROM notifications WHERE event_id = events.id)",
        "expires_at",
    ),
    "tickets": Chore("tickets", "digest", "expires_at <= now()", "expires_at"),
    "undos": Chore("undos", "user_id, version", "at <= now() - interval '10 minutes'", "at"),
    "ended_sessions": Chore("ended_sessions", "session_id", "until <= now()", "until"),
    "idempotency_keys": Chore(
        "idempotency_keys", "api_key_id, key", "created_at <= now() - interval '24 hours'", "created_at"
    ),
    "counters": Chore("rate_limits", "key", "expires_at <= now()", "expires_at"),
}

# What takes many transactions and may have been cut off; the clean-up completes it.
COMPLETED = ("retractions", "publications_to_everyone")
ALL_CHORES = {*CHORES, *COMPLETED}

DELETE = {name: chore.delete for name, chore in CHORES.items()}

# An event that only expired notifications still have will go too.
OVER = {
    name: chore.over.replace("event_id = events.id", "event_id = events.id AND now() < notifications.expires_at")
    for name, chore in CHORES.items()
}
COUNT = text(
    "SELECT "
    + ", ".join(f"(SELECT count(*) FROM {CHORES[name].table} WHERE {OVER[name]}) AS {name}" for name in CHORES)
)


def count_expired(connection: Connection) -> dict[str, int]:
    """How many rows a clean-up would delete now, by chore. Reads them all, so it has a deadline of its own."""
    connection.execute(db.LONG_DEADLINE)
    return dict(connection.execute(COUNT).one()._mapping)


def clean_up(batch: int, tell: Callable[[int], None]) -> dict[str, int]:
    """Deletes what has expired, `batch` rows a transaction, and tells after each how many.

    Gives back the number of deleted rows by chore. Hold `only_one` around it.
    """
    deleted = dict.fromkeys(CHORES, 0)
    for name in CHORES:
        while rows := db.write(delete_batch, name, batch):
            deleted[name] += rows
            tell(rows)
            time.sleep(PAUSE)
        db.write(note, name, is_done=True)
    return deleted


def delete_batch(connection: Connection, chore: str, batch: int) -> int:
    """How many rows went, `batch` at most. Indexes: those on the column that says when a row is over."""
    rows = connection.execute(DELETE[chore], {"batch": batch}).rowcount
    if rows:
        note(connection, chore, rows)
    return rows


NOTE = text("""
    INSERT INTO chores AS c (name, rows, done_at) VALUES (:name, :rows, CASE WHEN :is_done THEN now() END)
    ON CONFLICT (name) DO UPDATE SET rows = c.rows + excluded.rows, done_at = coalesce(excluded.done_at, c.done_at)
""")


def note(connection: Connection, chore: str, rows: int = 0, *, is_done: bool = False) -> None:
    """Writes down how far the clean-up has come, for whoever watches it. Index: chores_pkey."""
    connection.execute(NOTE, {"name": chore, "rows": rows, "is_done": is_done})


PROGRESS = text("SELECT name, rows, done_at FROM chores")


class Progress(NamedTuple):
    """What all clean-ups together have done: rows by chore, and when every chore was last done, if it ever was."""

    rows: dict[str, int]
    done_at: datetime | None


def progress(connection: Connection) -> Progress:
    """How far the clean-up has come. A run that was killed half-way has not done what was left to do."""
    found = connection.execute(PROGRESS).all()
    done = {row.name: row.done_at for row in found if row.done_at is not None}
    rows = {row.name: row.rows for row in found}
    return Progress(rows, min(done[name] for name in ALL_CHORES) if done.keys() >= ALL_CHORES else None)


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
