"""What a scrape asks the database: cheap questions with a short deadline, and an answer in time in any case."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import flask
import sqlalchemy.exc
from sqlalchemy import Connection, text

from app import db, metrics

PATIENCE = 1.0  # seconds that a scrape waits for the database
DEADLINE = text("SET LOCAL statement_timeout = '250ms'")

Values = dict[metrics.Found, Any]
Question = Callable[[Connection], Values]

IS_THERE = text("SELECT 1")

# From the oldest event on, each looked up by the index on its id; most old events are read or gone.
OLDEST_UNREAD = text("""
    SELECT extract(epoch FROM now() - created_at)::float FROM (SELECT id, created_at FROM events ORDER BY id LIMIT 1000)
    AS e WHERE EXISTS (
        SELECT FROM notifications AS n
        WHERE n.event_id = e.id AND n.read_at IS NULL AND n.archived_at IS NULL AND now() < n.expires_at)
    ORDER BY id LIMIT 1
""")


def oldest_unread(connection: Connection) -> Values:
    """Indexes: events_pkey, notifications_event_id."""
    age = connection.execute(OLDEST_UNREAD).scalar()
    return {} if age is None else {metrics.OLDEST_UNREAD: age}


# The clean-up's conditions (app/retention.py), of the one row of each table that is over for the longest time.
OVERDUE = text("""
    SELECT greatest(0, extract(epoch FROM now() - least(
        (SELECT min(expires_at) FROM notifications),
        (SELECT min(expires_at) FROM events),
        (SELECT min(expires_at) FROM tickets),
        (SELECT min(at) + interval '10 minutes' FROM undos),
        (SELECT min(until) FROM ended_sessions),
        (SELECT min(created_at) + interval '24 hours' FROM idempotency_keys),
        (SELECT min(expires_at) FROM rate_limits))))::float
""")


def overdue(connection: Connection) -> Values:
    """Indexes: those on the column that says when a row is over."""
    return {metrics.OVERDUE: connection.execute(OVERDUE).scalar() or 0}


class Vitals:
    """Asks for one scrape at a time, aside: whatever becomes of the database, the scrape is answered in a second.

    A question that hangs is waited for by nobody, and while it does no second one is asked.
    """

    def __init__(self, app: flask.Flask, questions: Sequence[Question]) -> None:
        self._app = app
        self._questions = questions
        self._turns = threading.Lock()
        self._asking: _Asking | None = None

    def ask(self) -> Values:
        with self._turns:
            asking = self._asking
            if asking is None or asking.is_over.is_set():
                asking = _Asking()
                threading.Thread(target=self._run, args=[asking], name="vitals", daemon=True).start()
                self._asking = asking  # not before: without its thread it would never be over
        asking.is_over.wait(PATIENCE)
        # What hangs half-way has found something nevertheless.
        return {metrics.DATABASE_UP: 0, **asking.found}

    def _run(self, asking: "_Asking") -> None:
        try:
            with self._app.app_context():
                db.read(lambda connection: connection.execute(IS_THERE).scalar())
                asking.found = {metrics.DATABASE_UP: 1}
                for question in self._questions:
                    asking.found = {**asking.found, **_answer(question)}
        except Exception:  # noqa: S110 - said by belfry_database_up, and by everything else that needs the database
            pass
        finally:
            asking.is_over.set()


def _answer(question: Question) -> Values:
    def in_time(connection: Connection) -> Values:
        connection.execute(DEADLINE)
        return question(connection)

    try:
        return db.write(in_time)
    except sqlalchemy.exc.SQLAlchemyError:  # too slow, or no such table before the migrations: then it is absent
        return {}


class _Asking:
    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.found: Values = {}
