"""The log: one event is one line of JSON on standard error, whatever went into it; in a terminal, a line for people.

What strangers wrote is never logged on purpose. Where it gets into a field nevertheless, what could break a line,
turn it around or be obeyed by a terminal is escaped, and stays so once the JSON is read. Of an exception there is its
kind and where it came from, and not its message, which quotes what it fell over: a title, a parameter, a token.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import structlog

LONGEST = 2_000  # characters of one field
DEEPEST = 40  # frames of one exception, the innermost
# What these say is about this program, its files and names, and whoever runs it needs it.
ABOUT_THE_PROGRAM = (ImportError, NameError, AttributeError, SyntaxError)

Event = MutableMapping[str, Any]


def start(level: str) -> None:
    """Lets everything that is logged in this process go out as lines; `level` is for what the service itself says."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _to_standard_library,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, Lines) for handler in root.handlers):
        root.addHandler(Lines())
    logging.getLogger("app").setLevel(level.upper())


def is_debugging() -> bool:
    return logging.getLogger("app").isEnabledFor(logging.DEBUG)


def _to_standard_library(_logger: Any, _name: str, event: Event) -> tuple[tuple[Event], dict[str, Any]]:
    return (event,), {"exc_info": event.pop("exc_info", None)}


class Lines(logging.Handler):
    """Writes each record in one go, to standard error unless told otherwise."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self.setFormatter(Formatter())
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        stream = self.stream or sys.stderr  # looked up each time, for it may be replaced
        try:
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more; that must not be the request's trouble
            pass


class Formatter(logging.Formatter):
    """A record as one line of JSON, or as a terminal's reader likes it."""

    def format(self, record: logging.LogRecord) -> str:
        return for_people(record) if sys.stderr.isatty() else _escaped(_event(record))


def for_people(record: logging.LogRecord) -> str:
    event = _event(record)
    event.pop("process")
    if record.exc_info and record.exc_info[1]:
        event["exception"] = _visible("".join(traceback.format_exception(record.exc_info[1])), keep="\n")
    return str(structlog.dev.ConsoleRenderer(timestamp_key="time")(None, record.levelname, event))


def _event(record: logging.LogRecord) -> Event:
    event: Event = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": _message(record),
        "logger": record.name,
        "process": os.getpid(),
        **(record.msg if isinstance(record.msg, dict) else structlog.contextvars.get_contextvars()),
    }
    if record.exc_info and record.exc_info[1]:
        event["exception"] = [_described(error) for error in _chain(record.exc_info[1])]
    return {name: _visible(value[:LONGEST]) if isinstance(value, str) else value for name, value in event.items()}


def _message(record: logging.LogRecord) -> str:
    if isinstance(record.msg, dict):
        return str(record.msg["event"])
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # whoever logged it gave it other values than it takes
        return str(record.msg)


def _visible(text: str, keep: str = "") -> str:
    """The same with everything that a terminal obeys, or shows as nothing, written as in JSON."""
    return "".join(one if one.isprintable() or one in keep else json.dumps(one)[1:-1] for one in text)


def _escaped(event: Event) -> str:
    # Of an object that is no JSON its kind will do.
    return json.dumps(event, default=lambda value: f"<{type(value).__name__}>")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it was raised from or while handling what, and so on."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _described(error: BaseException) -> dict[str, Any]:
    described: dict[str, Any] = {"type": f"{type(error).__module__}.{type(error).__name__}"}
    if isinstance(error, ABOUT_THE_PROGRAM):
        described["message"] = _visible(str(error)[:LONGEST])
    if isinstance(error, OSError) and error.strerror:
        described["message"] = error.strerror
    state = getattr(error, "sqlstate", None)
    if state:
        described["sqlstate"] = state
    return {**described, "at": _places(error.__traceback__)}


def _places(trace: TracebackType | None) -> list[str]:
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(trace)]
    return [f"{_short(code.co_filename)}:{line} {code.co_name}" for code, line in frames[-DEEPEST:]]


def _short(path: str) -> str:
    """A path from its package on: where the service is installed says nothing."""
    return "/".join(path.split("/")[-3:])
