"""What every request on the ordinary way leaves behind: its number, its time, and its line in the log if it failed."""

import re
import time
import uuid

import flask
import structlog
from flask_login import current_user

from app import limits, logs, metrics
from app.settings import Settings

log = structlog.get_logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# https://www.w3.org/TR/trace-context: the version ff is none, and of later ones this beginning is what we know.
TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
# What polls are mostly answered with, and what the short way says nothing of either.
QUIET = (200, 304)


def init_app(app: flask.Flask, settings: Settings) -> None:
    """To be called before anything else that looks at requests: it is the first to see them, and their answers last."""

    def begin() -> None:
        flask.g.began = time.perf_counter()
        given = flask.request.headers.get("X-Request-ID", "") if settings.trusted_proxies else ""
        flask.g.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=flask.g.request_id, **_trace())

    app.before_request(begin)
    app.after_request(_finish)
    # What comes next on the connection is another request, and may be none that comes this way.
    app.teardown_request(lambda _error: structlog.contextvars.clear_contextvars())


def _trace() -> dict[str, str]:
    """The trace that the caller says this request to be part of."""
    found = TRACE_PARENT.fullmatch(flask.request.headers.get("traceparent", ""))
    if found is None or (found[0].startswith("00") and found[3] is not None):
        return {}
    return {"trace_id": found[1], "span_id": found[2]}


def _finish(response: flask.Response) -> flask.Response:
    seconds = time.perf_counter() - flask.g.get("began", time.perf_counter())
    endpoint, status = flask.request.endpoint, response.status_code
    if endpoint == limits.POLLS and flask.request.method == "GET":
        metrics.POLLS.of(str(status)).add()
        if status in QUIET:  # as bare as on the short way
            _write_down(response, seconds)
            return response
    else:
        metrics.REQUESTS.of(endpoint or "unmatched", f"{status // 100}xx").add()
        metrics.REQUEST_SECONDS.of(endpoint or "unmatched").note(seconds)
    if "request_id" in flask.g:
        response.headers["X-Request-ID"] = flask.g.request_id
    _write_down(response, seconds)
    return response


def _write_down(response: flask.Response, seconds: float) -> None:
    """The route's rule and never the path, which may hold a sign-in link; whom the signed cookie or key names."""
    status = response.status_code
    if status < 400 and not logs.is_debugging():
        return
    say = log.error if status >= 500 else log.info if status >= 400 else log.debug
    rule = flask.request.url_rule
    about = {
        "method": flask.request.method[:16],
        "route": rule.rule if rule else None,
        "status": status,
        "milliseconds": round(seconds * 1000, 1),
        "user": _user(),
        "key": flask.g.get("key_id"),
    }
    say("request", **{name: value for name, value in about.items() if value is not None})


def _user() -> int | None:
    reader = flask.g.get("reader")
    if reader is None and "_login_user" in flask.g and current_user.is_authenticated:
        reader = current_user.reader
    return reader.user_id if reader else None
