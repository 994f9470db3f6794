"""How a command answers: a line for a person or JSON, one clear line when it is refused, a bar when it takes long."""

import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click
import orjson
import sqlalchemy.exc
from flask.cli import with_appcontext

from app import sanitize
from app.embedded import EmbeddedUnavailable
from app.errors import FieldError, Problem
from app.people import LONGEST_NAME

SECONDS_BEFORE_A_BAR = 1.0

T = TypeVar("T")
# For --json and for a person; and the exit status where it is not 0.
Outcome = tuple[Any, str] | tuple[Any, str, int]


def says(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Prints what a command gives back; turns a refusal into one clear line on standard error and exit status 1."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @with_appcontext
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **kwargs: Any) -> None:
        data, line, *status = explained(function, *args, **kwargs)
        click.echo(printable(orjson.dumps(data, option=orjson.OPT_UTC_Z).decode() if as_json else line))
        if any(status):
            sys.exit(*status)

    return command


def explained(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What `function` gives back; what it raises becomes the one line that click prints."""
    try:
        return function(*args, **kwargs)
    except Problem as problem:
        fields = [f"{error.field} {error.message}" for error in problem.errors]
        raise click.ClickException(printable("\n".join(fields) or problem.detail)) from None
    except UnicodeError:
        raise click.ClickException("The arguments and the input must be UTF-8.") from None
    except EmbeddedUnavailable as error:
        raise click.ClickException(str(error)) from None
    except sqlalchemy.exc.ProgrammingError as error:
        raise click.ClickException(f"{_first_line(error)}. Has `flask db upgrade` been run?") from None
    except sqlalchemy.exc.OperationalError as error:
        raise click.ClickException(f"The database does not answer: {_first_line(error)}") from None
    except sqlalchemy.exc.DBAPIError as error:
        raise click.ClickException(f"The database refuses: {_first_line(error)}") from None
    except sqlalchemy.exc.TimeoutError as error:  # ours too: a race lost too often, an uncertain commit
        raise click.ClickException(f"The database does not answer: {error}") from None


def printable(said: str) -> str:
    """The same with everything that a terminal obeys, or shows as nothing, written as in JSON: JSON stays JSON.

    A subject is the host's own choice, byte for byte, so it may hold what turns the rest of its line around.
    """
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in said)


def checked_name(name: str) -> str:
    """A name that an argument gives, as one line of plain text, which a list in a terminal shows as it is."""
    name.encode()  # bytes that are no UTF-8 are refused, not dropped
    try:
        return sanitize.line(name[: LONGEST_NAME * 10], LONGEST_NAME)
    except ValueError as error:
        raise Problem(422, "The name is not valid.", [FieldError("name", str(error))]) from None


def _first_line(error: sqlalchemy.exc.DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


class Bar:
    """A progress bar on standard error, if a terminal looks on and only after a second."""

    def __init__(self, total: int, label: str) -> None:
        self.total = total
        self.label = label
        self.done = 0
        self.started = time.monotonic()
        self.bar: Any = None

    def move(self, steps: int = 1) -> None:
        self.done += steps
        if self.bar is not None:
            self.bar.update(steps)
        elif sys.stderr.isatty() and time.monotonic() - self.started > SECONDS_BEFORE_A_BAR:
            self.bar = click.progressbar(length=self.total, label=self.label, file=sys.stderr)
            self.bar.update(self.done)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, moving the bar with each."""
        for item in items:
            yield item
            self.move()
        self.finish()

    def finish(self) -> None:
        if self.bar is not None:
            self.bar.render_finish()
