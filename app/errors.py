"""One error shape for everything that goes wrong: RFC 9457 problem details."""

import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import flask
import orjson
import sqlalchemy.exc
import structlog
from werkzeug.exceptions import HTTPException, SecurityError

log = structlog.get_logger(__name__)

UNAVAILABLE = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)
# What PostgreSQL says of its own trouble, beside what is an OperationalError anyway: it can only be read, since a
# fail-over for instance; a session was ended for its idle transaction; and all that is broken inside or below it.
ITS_TROUBLE = ("25006", "25P03", "58", "XX")

# Below these every refusal is JSON, whatever the caller says that it accepts.
API_PATHS = ("/notifications/", "/preferences/", "/api/", "/openapi.json/", "/readyz/")

# Said instead of Werkzeug's sentences where those speak to somebody at a keyboard rather than to a program.
DETAILS = {
    404: "There is nothing here.",
    405: "This address does not take that method.",
    413: "The body is too large.",
    500: "Something went wrong on this side. It has been written down under the request_id.",
}


class FieldError(NamedTuple):
    """What is wrong with one field, in words its sender can act on; `field` is a path such as `events[10].title`."""

    field: str
    message: str


class Problem(Exception):
    """A refusal with its reason, raised where the fact is known and answered as `application/problem+json`.

    `retry_after` is in seconds, for 429 and 503 only: the two answers that may carry `Retry-After`.
    """

    def __init__(
        self, status: int, detail: str, errors: Sequence[FieldError] = (), retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.retry_after = retry_after


def not_found() -> Problem:
    """The one answer for what is unknown, expired or somebody else's: nobody can tell these apart."""
    return Problem(404, DETAILS[404])


def signed_out() -> Problem:
    return Problem(401, "You are not signed in.")


def init_app(app: flask.Flask) -> None:
    # On the app, not on blueprints: a blueprint's handlers never see the 404 and 405 of an unmatched address.
    app.register_error_handler(Problem, answer_problem)
    app.register_error_handler(HTTPException, answer_http_exception)
    app.register_error_handler(sqlalchemy.exc.SQLAlchemyError, answer_database_trouble)
    app.register_error_handler(Exception, answer_surprise)


def answer_problem(problem: Problem) -> flask.Response:
    """Answers with the problem as JSON, or as a page to a browser that asked for one."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id(),
        "errors": [error._asdict() for error in problem.errors],
    }
    response: flask.Response
    if _asks_for_a_page():
        response = flask.make_response(flask.render_template("problem.html", **content))
    else:
        response = flask.Response(orjson.dumps(content), mimetype="application/problem+json")
    response.status_code = problem.status
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    return response


def answer_http_exception(error: HTTPException) -> flask.typing.ResponseReturnValue:
    status = error.code or 500
    if status < 400:  # a redirect that routing wants
        return error
    response = answer_problem(Problem(status, DETAILS.get(status, error.description or "")))
    # The exception's own response knows headers that belong to the status, such as Allow on a 405.
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers.setdefault(name, value)
    return response


def answer_database_trouble(error: sqlalchemy.exc.SQLAlchemyError) -> flask.Response:
    """503 where asking again can help (no connection, a time-out, a race lost too often), else 500."""
    if not _is_unavailable(error):
        return answer_surprise(error)
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    log.warning("database unavailable", error=type(error).__name__, sqlstate=state)
    return answer_problem(Problem(503, "The database does not answer just now.", retry_after=2))


def _is_unavailable(error: sqlalchemy.exc.SQLAlchemyError) -> bool:
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        return isinstance(error, UNAVAILABLE) or error.connection_invalidated or state.startswith(ITS_TROUBLE)
    return isinstance(error, UNAVAILABLE)


def answer_surprise(error: Exception) -> flask.Response:
    log.error("unhandled error", exc_info=error)
    return answer_problem(Problem(500, DETAILS[500]))


def request_id() -> str:
    """The number under which this request's trouble can be found again in the log."""
    if "request_id" not in flask.g:
        flask.g.request_id = uuid.uuid4().hex
    return str(flask.g.request_id)


def _asks_for_a_page() -> bool:
    # A path and not a blueprint: what no route matches has none.
    if f"{flask.request.path}/".startswith(API_PATHS):
        return False
    # Under a Host that is not ours Flask builds no links, and a page is full of them.
    if isinstance(flask.request.routing_exception, SecurityError):
        return False
    accept = flask.request.accept_mimetypes
    return accept.best_match(["application/problem+json", "text/html"]) == "text/html"
