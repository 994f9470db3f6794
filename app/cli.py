"""`flask send`, `cleanup`, `demo`. Thin: each calls one function and says what came of it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, BinaryIO, NamedTuple

import click
import flask
import orjson
from pydantic import Field
from sqlalchemy import Connection

from app import db, demo, events, idempotency, publishing, retention, retracting, settings
from app.console import Bar, Outcome, says
from app.errors import Problem
from app.events import AddressedEvent, Event
from app.idempotency import Call
from app.publishing import Order, Published
from app.validation import Model, Subject, check, parse_object

MOST_ERRORS_TOLD = 50


def init_app(app: flask.Flask) -> None:
    for command in (send, cleanup, fill_demo):
        app.cli.add_command(command)


@click.command()
@click.argument("recipients", nargs=-1, metavar="RECIPIENT...")
@click.option("--everyone", is_flag=True, help="To all who are users now; the same arguments once in 24 hours only.")
@click.option("--type", "type_", metavar="TYPE", help="What kind of event: comment, mention, …")
@click.option("--title", help="1 to 200 characters.")
@click.option("--body", help="Up to 4,000 characters; simple markup is kept.")
@click.option("--url", help="Where the notification leads.")
@click.option("--group-key", help="Joins an unread notification of the same key instead of standing beside it.")
@click.option("--expires-in", type=int, metavar="SECONDS")
@click.option(
    "--file", "file", type=click.File("rb"), help="Publish each line of a JSON Lines file; - is standard input."
)
@says
def send(
    recipients: tuple[str, ...], everyone: bool, file: BinaryIO | None, type_: str | None, **fields: Any
) -> Outcome:
    """Publish an event to RECIPIENT... or to everyone, or each line of a file."""
    given = {name: value for name, value in {"type": type_, **fields}.items() if value is not None}
    if file is not None:
        if given or recipients or everyone:
            raise click.UsageError("--file stands alone: recipients and fields are in its lines.")
        return _send_file(file.read().splitlines())
    if everyone:
        if recipients:
            raise click.UsageError("--everyone takes no RECIPIENT: they all receive it.")
        return _send_to_everyone(_unicode(given))
    if "everyone" in recipients:  # or a person would be made of that name, and nobody would hear of it
        raise click.UsageError("Everyone is reached by --everyone; a person of that name by a line of a --file.")
    to = check(Recipients, _unicode({"recipients": list(recipients)})).recipients
    [done] = db.write(publishing.publish, [Order(check(Event, _unicode(given)), to)], _ttl())
    return done.as_json(), f"Published event {done.event_id} to {_people(done.recipients)}."


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _send_to_everyone(given: dict[str, Any]) -> Outcome:
    """A run that was killed is completed by repeating it, and nobody gets the event twice."""
    event = check(Event, given)
    # Nobody waits for the count unless somebody looks on.
    bar = Bar(db.write(publishing.count_everyone) if sys.stderr.isatty() else 0, "Publishing")
    call = publishing.everyone_call(given)
    answer, replayed = publishing.to_everyone(call, event, _ttl(), tell=bar.move)
    bar.finish()
    done = Published(*(answer[name] for name in Published._fields))
    people = _people(done.recipients)
    line = f"Event {done.event_id} had been published to {people} before."
    data = {**done.as_json(), "already_published": replayed}
    return data, line if replayed else f"Published event {done.event_id} to {people}."


class Recipients(Model):
    """The recipients on a command line: as many as fit there."""

    recipients: Annotated[list[Subject], Field(min_length=1)]


def _unicode(given: dict[str, Any]) -> dict[str, Any]:
    try:
        return parse_object(orjson.dumps(given))
    except TypeError:
        raise Problem(422, "The arguments must be UTF-8.") from None


class Line(NamedTuple):
    """One event of a file, with the key under which it is published once."""

    number: int
    content: bytes
    call: Call


def _send_file(lines: list[bytes]) -> Outcome:
    """Publishes nothing unless every line is good; each line in a transaction of its own, and once a day only.

    What has been published already is passed over, so a run that was killed is completed by repeating it.
    """
    given = list(_events_of(lines))
    known = db.read(idempotency.known_keys, idempotency.COMMAND_LINE, [line.call.key for line in given])
    new = [line for line in given if line.call.key not in known]
    _check_lines(new, db.read(events.now))
    published = 0
    for line in Bar(len(new), "Publishing").over(new):
        event = _read_line(line.content)
        _, replayed = db.write(publishing.publish_once, line.call, [Order(event, event.recipients)], _ttl())
        published += not replayed  # another run of the same file may have been faster
    data = {"lines": len(given), "published": published, "already_published": len(given) - published}
    return data, f"Published {published} of {len(given)} lines; {len(given) - published} had been published before."


def _events_of(lines: list[bytes]) -> Iterator[Line]:
    seen: Counter[bytes] = Counter()
    for number, content in enumerate(lines, 1):
        if content.strip():
            yield Line(number, content, publishing.line_call(content, seen[content]))
            seen[content] += 1


def _check_lines(lines: list[Line], now: datetime) -> None:
    bad = [f"line {line.number}: {error}" for line in lines for error in _errors_of(line, now)]
    if bad:
        more = [f"… and {len(bad) - MOST_ERRORS_TOLD} more"] if len(bad) > MOST_ERRORS_TOLD else []
        raise click.ClickException("\n".join(["nothing was published.", *bad[:MOST_ERRORS_TOLD], *more]))


def _errors_of(line: Line, now: datetime) -> list[str]:
    try:
        _read_line(line.content).check_expiry(now)
    except Problem as problem:
        return [f"{error.field} {error.message}" for error in problem.errors] or [problem.detail]
    return []


def _read_line(content: bytes) -> AddressedEvent:
    value = parse_object(content)
    if "recipient" in value and "recipients" not in value:
        value["recipients"] = [value.pop("recipient")]
    return check(AddressedEvent, value)


def _ttl() -> timedelta:
    return timedelta(days=settings.current().notification_ttl_days)


@click.command()
@click.option("--batch", default=1000, show_default=True, type=click.IntRange(1, 10_000), help="Rows a transaction.")
@click.option("--dry-run", is_flag=True, help="Say what would go, delete nothing.")
@says
def cleanup(batch: int, dry_run: bool) -> Outcome:
    """Delete what has expired, complete what was cut off. For cron: safe at any time, beside itself, and when killed.

    Nobody else completes a retraction or a publication to everyone whose sender does not repeat the call.
    """
    if dry_run:
        would, left = (
            db.write(retention.count_expired),
            {name: len(db.read(find)) for name, (find, _) in CUT_OFF.items()},
        )
        line = f"Would delete {_amounts(would)}." + (f" Would complete {_amounts(left)}." if any(left.values()) else "")
        return {"dry_run": True, "would_delete": would, "would_complete": left}, line
    with retention.only_one() as alone:
        if not alone:
            data = {"already_running": True, "deleted": {}, "completed": {}}
            return data, "Another clean-up is running; nothing to do."
        # Counting reads everything that is over: nobody waits for that unless somebody looks on.
        total = sum(db.write(retention.count_expired).values()) if sys.stderr.isatty() else 0
        bar = Bar(total, "Deleting")
        deleted = retention.clean_up(batch, bar.move)
        bar.finish()
        completed = {name: _complete(name, *what) for name, what in CUT_OFF.items()}
    line = f"Deleted {_amounts(deleted)}." + (f" Completed {_amounts(completed)}." if any(completed.values()) else "")
    return {"deleted": deleted, "completed": completed}, line


# How to find the events of each, and how to complete one.
CUT_OFF: dict[str, tuple[Callable[[Connection], list[int]], Callable[[int], object]]] = {
    "retractions": (retracting.find_cut_off, retracting.complete),
    "publications_to_everyone": (publishing.find_cut_off, lambda event: list(publishing.complete_everyone(event))),
}


def _complete(name: str, find: Callable[[Connection], list[int]], complete: Callable[[int], object]) -> int:
    ids = db.read(find)
    for event_id in ids:
        complete(event_id)
    db.write(retention.note, name, len(ids), is_done=True)
    return len(ids)


def _amounts(rows: dict[str, int]) -> str:
    found = [f"{count:,} {chore.replace('_', ' ')}" for chore, count in rows.items() if count]
    return ", ".join(found) or "nothing"


@click.command("demo")
@says
def fill_demo() -> Outcome:
    """Make sample people (ada, grace) and events."""
    made = db.write(demo.fill)
    return made, f"{made['people']} people and {made['events']} new events. Sign in with: flask user link ada"
