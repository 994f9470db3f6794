"""One event to 100,000 people: Belfry's "everyone" beside the same written with the ORM, and the polls meanwhile."""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy
from sqlalchemy.orm import Session

from app import create_app, db, inbox, people, publishing
from app.events import Event
from app.idempotency import COMMAND_LINE, Call
from app.people import Reader
from app.validation import check
from bench import data, servers
from bench.rivals import fan_out_orm

PEOPLE = 100_000
ROUNDS = 3
ENOUGH_POLLS = 500


def table(server: str) -> str:
    """The result as Markdown: rows a second of both, and how long a poll takes while Belfry delivers."""
    with servers.database(server) as ours, servers.database(server) as theirs:
        subjects = f"SELECT 'person-' || n FROM generate_series(1, {PEOPLE}) AS n"
        environment = {**os.environ, "DATABASE_URL": ours, "SECRET_KEY": data.SECRET_KEY}
        subprocess.run([sys.executable, "-m", "flask", "db", "upgrade"], cwd=data.ROOT, env=environment, check=True)
        data.fill(ours, f"INSERT INTO users (subject) {subjects}")
        fan_out_orm.make_tables(theirs)
        data.fill(theirs, f"INSERT INTO person (username) {subjects}")
        app = create_app(database_url=ours, secret_key=data.SECRET_KEY)
        engine = sqlalchemy.create_engine(theirs)
        with app.app_context():
            app_context = app.app_context
            reader = db.read(people.start_session, 1, 12)
            assert reader is not None
            idle = [_poll(reader) for _ in range(ENOUGH_POLLS)]
            rates, rival_rates, beside = [], [], []
            for number in range(ROUNDS):
                seconds, polls = _beside_polls(lambda number=number: _publish(number), reader, app_context)  # type: ignore[misc]
                rates.append(PEOPLE / seconds)
                beside += polls
                rival_rates.append(PEOPLE / _timed(lambda: _publish_with_orm(engine)))
            db.engine().dispose()
        engine.dispose()
    return "\n".join(
        [
            f"| one event to {PEOPLE:,} people | rows a second | times the ORM |",
            "|---|---|---|",
            f"| with the ORM, 1,000 objects a commit | {_spread(rival_rates)} | 1 |",
            f"| Belfry, everyone | {_spread(rates)} | {statistics.median(map(_ratio, rates, rival_rates)):.1f} |",
            "",
            "| a poll's statement, from another connection | p50 | p99 | longest |",
            "|---|---|---|---|",
            f"| alone | {_times(idle)} |",
            f"| while Belfry delivers to everyone | {_times(beside)} |",
        ]
    )


def _publish(number: int) -> None:
    event = check(Event, {"type": "announcement", "title": f"Maintenance {number}", "body": "On <b>Sunday</b>."})
    publishing.to_everyone(Call(COMMAND_LINE, f"bench-{number}", b""), event, timedelta(days=30))


def _publish_with_orm(engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session:
        fan_out_orm.notify_everyone(session, "Maintenance", datetime.now(UTC) + timedelta(days=30))


def _beside_polls(
    work: Callable[[], None], reader: Reader, app_context: Callable[[], object]
) -> tuple[float, list[float]]:
    """How long the work took, and each poll that another thread made meanwhile on a connection of its own."""
    polls: list[float] = []
    done = threading.Event()

    def poll() -> None:
        with app_context():  # type: ignore[attr-defined]
            while not done.is_set():
                polls.append(_poll(reader))
                done.wait(0.01)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        return _timed(work), polls
    finally:
        done.set()
        thread.join()


def _poll(reader: Reader) -> float:
    return _timed(lambda: db.read(inbox.unread_snapshot, reader, 20))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs


def _spread(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"


def _times(polls: list[float]) -> str:
    cuts = statistics.quantiles(polls, n=100)
    return " | ".join(f"{seconds * 1000:.1f} ms" for seconds in (cuts[49], cuts[98], max(polls)))
