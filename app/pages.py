"""The pages: /, /login, /logout, /tickets/… They work without JavaScript; their forms answer 303."""

from datetime import UTC, datetime

import flask
from flask.typing import ResponseReturnValue

from app import auth, db, guard, inbox, marking, people, settings
from app.errors import FieldError, Problem, answer_problem
from app.validation import BIGINT_MAX

PAGE = 20  # notifications on the page; the same as a poll's own default, so that their tags are the same
LONGEST_PATH = 2000

pages = flask.Blueprint("pages", __name__)


@pages.app_template_filter("rfc3339")
def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@pages.errorhandler(Problem)
def ask_to_sign_in(problem: Problem) -> ResponseReturnValue:
    """A page sends somebody who is not signed in to the sign-in page, and back from there; the API never does."""
    if problem.status != 401:
        return answer_problem(problem)
    request = flask.request
    wanted = request.script_root + request.full_path.rstrip("?") if request.method == "GET" else None
    return flask.redirect(flask.url_for("pages.sign_in", next=wanted), 303)


@pages.get("/", endpoint="inbox")
def show_inbox() -> ResponseReturnValue:
    snapshot = db.read(inbox.unread_snapshot, auth.reader(), PAGE)
    return flask.render_template(
        "inbox.html",
        snapshot=snapshot.as_json(),
        etag=snapshot.tag(settings.current().epoch, PAGE),
        poll_interval=settings.current().poll_interval,
    )


@pages.post("/read")
def mark_read() -> ResponseReturnValue:
    """Marks one as read (`id`), or everything up to the version that the page showed (`through`)."""
    reader = auth.reader()
    fields = guard.form()
    try:
        if "id" in fields:
            db.write(marking.mark_one, reader, "read", _whole_number("id", fields["id"]))
        else:
            db.write(marking.mark_through, reader, "read", _whole_number("through", fields.get("through", "")))
    except Problem as problem:
        # The notification moved on with its group, or is gone: the list that comes next shows what is true.
        if problem.status != 404:
            raise
    return flask.redirect(flask.url_for("pages.inbox"), 303)


@pages.route("/login", methods=["GET", "POST"])
def sign_in() -> ResponseReturnValue:
    if flask.request.method == "GET":
        return _sign_in_page(flask.request.args.get("next", ""))
    fields = guard.form()
    subject, wanted = fields.get("username", ""), fields.get("next", "")
    try:
        auth.sign_in(subject, fields.get("password", ""), settings.current().session_hours)
    except Problem as problem:
        if problem.status not in (401, 429, 503):
            raise
        return _sign_in_page(wanted, subject, problem)
    return flask.redirect(safe_path(wanted), 303)


@pages.post("/logout")
def sign_out() -> ResponseReturnValue:
    """Ends this one session, on the server too."""
    auth.end_session()
    return flask.redirect(flask.url_for("pages.sign_in"), 303)


@pages.route("/tickets/<ticket>", methods=["GET", "POST"])
def continue_as(ticket: str) -> ResponseReturnValue:
    """A sign-in link: looking at it spends nothing, so that no mail scanner uses it up; the form's POST spends it."""
    if flask.request.method == "POST":
        return _spend(ticket)
    found = db.read(people.find_ticket, ticket)
    if found is None:
        raise _no_good()
    present = auth.reader_or_none()
    someone_else = db.read(people.find_name, present) if present and present.user_id != found.user_id else None
    page = flask.render_template(
        "ticket.html",
        name=found.name,
        action=flask.url_for("pages.continue_as", ticket=ticket),
        submit_at_once=someone_else is None,
        someone_else=someone_else,
    )
    response = flask.make_response(page)
    # The address holds the ticket: what this page loads must not carry it into anybody's log.
    response.headers["Referrer-Policy"] = "strict-origin"
    if found.return_to:
        # A browser holds the redirect after a form to the form's own rule, and this one leads back to the host.
        response.headers["Content-Security-Policy"] = guard.content_security_policy(form_action=found.return_to)
    return response


def _spend(ticket: str) -> ResponseReturnValue:
    spent, reader = db.write(people.sign_in_by_ticket, ticket, settings.current().session_hours)
    if spent is None or reader is None:
        raise _no_good()
    auth.begin_session(reader)
    return flask.redirect(spent.return_to or flask.url_for("pages.inbox"), 303)


def _no_good() -> Problem:
    return Problem(404, "This sign-in link has been used, or its time is over. Ask for a new one.")


def _sign_in_page(wanted: str, typed: str = "", problem: Problem | None = None) -> flask.Response:
    error = problem.detail if problem else None
    page = flask.render_template("sign_in.html", next=wanted, username=typed, error=error)
    response = flask.make_response(page, problem.status if problem else 200)
    if problem and problem.retry_after:
        response.headers["Retry-After"] = str(problem.retry_after)
    return response


def safe_path(wanted: str) -> str:
    """`wanted` if it is a path of this service, else the inbox: nobody is ever sent to another site after signing in.

    Browsers take a backslash for a slash and drop tabs and line breaks, so none of them may occur.
    """
    home = flask.url_for("pages.inbox")
    is_path = wanted.startswith(home) and not wanted.startswith("//") and len(wanted) <= LONGEST_PATH
    return wanted if is_path and wanted.isprintable() and "\\" not in wanted else home


def _whole_number(field: str, typed: str) -> int:
    if not (typed.isascii() and typed.isdigit() and len(typed) <= 19 and int(typed) <= BIGINT_MAX):
        raise Problem(422, "The form is not valid.", [FieldError(field, "must be a whole number")])
    return int(typed)
