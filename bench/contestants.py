"""Who takes part, and with which request: a row of the table for each, and the goals that compare two rows."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench import ours, servers
from bench.rivals import ordinary, tuned_data
from bench.servers import Server

THREADS = 4

Start = Callable[[str, str], AbstractContextManager[Server]]


def _gunicorn(config: str = servers.OURS, workers: int = 1) -> Start:
    return functools.partial(servers.gunicorn, threads=THREADS, workers=workers, config=config)


@dataclass(frozen=True)
class Contestant:
    """A program that answers polls. `prepare` fills its empty database and gives back each user's session cookie."""

    application: str
    prepare: Callable[[str], list[str]]
    start: Start
    has_inboxes: bool = True  # or it is a floor, which knows nobody


@dataclass(frozen=True)
class Row:
    """One line of the result: `tags` says what the polls know already, `good` tags being answered 304."""

    name: str
    contestant: Contestant
    tags: str = ""  # none, `good` or `stale`

    @property
    def status(self) -> int:
        return 304 if self.tags == "good" else 200


ORDINARY = Contestant("bench.rivals.ordinary:create_app()", ordinary.prepare, _gunicorn())
TUNED = Contestant("bench.rivals.tuned:app", tuned_data.prepare, servers.uvicorn)
BELFRY = Contestant("wsgi:app", ours.prepare, _gunicorn())
BELFRY_TWICE = Contestant("wsgi:app", ours.prepare, _gunicorn(workers=2))
BELFRY_GTHREAD = Contestant("wsgi:app", ours.prepare, _gunicorn(servers.GTHREAD))
BARE = Contestant("bench.rivals.bare:wsgi", ours.prepare, _gunicorn(), has_inboxes=False)
BARE_FLASK = Contestant("bench.rivals.bare:create_app()", ours.prepare, _gunicorn(), has_inboxes=False)

# The first row is the one that all others are compared with.
POLL_ORDINARY = Row("the ordinary stack, any poll", ORDINARY)
POLL_TUNED_200 = Row("tuned FastAPI + asyncpg, 200", TUNED)
POLL_TUNED_304 = Row("tuned FastAPI + asyncpg, 304", TUNED, "good")
FLOOR_WSGI = Row("floor: bare WSGI, empty 304", BARE, "good")
FLOOR_FLASK = Row("floor: bare Flask, empty 304", BARE_FLASK, "good")
CHANGED = Row("Belfry, changed poll", BELFRY)
STALE = Row("Belfry, changed poll with an old tag", BELFRY, "stale")
UNCHANGED = Row("Belfry, unchanged poll", BELFRY, "good")
UNCHANGED_TWICE = Row("Belfry, unchanged poll, two workers", BELFRY_TWICE, "good")
UNCHANGED_GTHREAD = Row("Belfry on gthread, unchanged poll", BELFRY_GTHREAD, "good")

ROWS = [
    POLL_ORDINARY,
    POLL_TUNED_200,
    POLL_TUNED_304,
    FLOOR_WSGI,
    FLOOR_FLASK,
    CHANGED,
    STALE,
    UNCHANGED,
    UNCHANGED_TWICE,
    UNCHANGED_GTHREAD,
]
# At half of its own greatest rate, each: whether answers are quick while there is room.
PACED = [UNCHANGED, UNCHANGED_GTHREAD]


@dataclass(frozen=True)
class Goal:
    """One row's rate divided by another's, and what it must at least be."""

    name: str
    above: Row
    below: Row
    at_least: float


GOALS = [
    Goal("unchanged poll ÷ ordinary stack's poll", UNCHANGED, POLL_ORDINARY, 16),
    Goal("unchanged poll ÷ bare WSGI 304, same gunicorn and worker class", UNCHANGED, FLOOR_WSGI, 0.7),
    Goal("unchanged poll ÷ tuned FastAPI + asyncpg 304", UNCHANGED, POLL_TUNED_304, 2),
    Goal("changed poll ÷ ordinary stack's poll", CHANGED, POLL_ORDINARY, 4),
    Goal("changed poll ÷ tuned FastAPI + asyncpg 200", CHANGED, POLL_TUNED_200, 1),
    Goal("two workers ÷ one, unchanged poll", UNCHANGED_TWICE, UNCHANGED, 1.3),
]
