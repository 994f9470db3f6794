"""Whether this worker can do its work: the database answers within a second, with tables that this release works with.

Not whether counters are at hand elsewhere: without them limits are looser, and nobody is sent away.
"""

import re
import threading
import time
from pathlib import Path

import flask
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from app import db, patience

SECONDS = 1.0  # that the database has
FRESH = 0.5  # seconds for which an answer is good, so that whoever asks without a pause is no load

NO_ANSWER = "The database does not answer within a second."
NO_TABLES = "The database has no tables of this service."
OLD_TABLES = "The database's tables are those of an older release."

# Read from the files' text: to let the migrations' own library find the head takes 11 MB of every worker.
LINE = re.compile(r"""^(revision|down_revision)(?:\s*:[^=]*)?\s*=\s*["'](\w+)["']""", re.MULTILINE)


def init_app(app: flask.Flask) -> None:
    app.extensions["readiness"] = Readiness(older_revisions(Path(app.root_path).parent / "migrations" / "versions"))


def current() -> "Readiness":
    """The readiness of the app that is at work."""
    found: Readiness = flask.current_app.extensions["readiness"]
    return found


def older_revisions(folder: Path) -> set[str]:
    """The revisions that another one of this release follows: all but its own."""
    found = [LINE.findall(path.read_text(encoding="utf-8")) for path in folder.glob("*.py")]
    return {revision for lines in found for name, revision in lines if name == "down_revision"}


REVISION = text("SELECT version_num FROM alembic_version")


def find_revision(connection: Connection) -> str | None:
    """The revision that the tables are at. The table has one row."""
    revision: str | None = connection.execute(REVISION).scalar_one_or_none()
    return revision


class Readiness:
    """The answer of one worker, which all who ask within half a second share."""

    def __init__(self, older: set[str]) -> None:
        self._older = older
        self._turn = threading.Lock()
        self._missing: str | None = None
        self._told = float("-inf")

    def missing(self) -> str | None:
        """What is missing, in words for whoever asks; None where nothing is."""
        came = time.monotonic()
        with self._turn:
            if self._told < came - FRESH:
                self._missing = self._look()
                self._told = time.monotonic()
            return self._missing

    def _look(self) -> str | None:
        try:
            with patience.within(SECONDS):
                revision = db.read(find_revision)
        except ProgrammingError:
            return NO_TABLES
        except (SQLAlchemyError, TimeoutError):
            return NO_ANSWER
        if revision is None:
            return NO_TABLES
        # One that is unknown here is of a newer release: while an upgrade goes round, this one goes on with its tables.
        return OLD_TABLES if revision in self._older else None
