"""Who takes part, and with which request: a row of the table for each. A new rival is one more line in ROWS."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import ours
from bench.rivals import ordinary


@dataclass(frozen=True)
class Contestant:
    """A program that answers polls. `prepare` fills its empty database and gives back each user's session cookie."""

    application: str  # as gunicorn takes it
    prepare: Callable[[str], list[str]]


@dataclass(frozen=True)
class Row:
    """One line of the result. A row with `status` 304 sends each user's tag along."""

    name: str
    contestant: Contestant
    status: int = 200


ORDINARY = Contestant("bench.rivals.ordinary:create_app()", ordinary.prepare)
OURS = Contestant("wsgi:app", ours.prepare)

# The first row is the one that all others are compared with.
ROWS = [
    Row("the ordinary stack, any poll", ORDINARY),
    Row("Belfry, changed poll", OURS),
    Row("Belfry, unchanged poll", OURS, status=304),
]
