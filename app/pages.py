"""The pages: /, /login, /logout, /tickets/… They work without JavaScript; their forms answer 303."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import flask
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from pydantic import Field

from app import auth, db, guard, headers, inbox, marking, people, sanitize, settings, tickets, validation
from app.errors import FieldError, Problem
from app.validation import BIGINT_MAX, Id, Model

PAGE = 20  # notifications on the page; the same as a poll's own default, so that their tags are the same
LONGEST_PATH = 2000
# What takes a notification out of the part of the inbox that is shown; after any other mark its row stays.
LEAVES = {"all": {"archive"}, "unread": {"read", "archive"}, "archived": {"unarchive"}}
MANY = {"read", "archive", "seen"}  # what is done to all up to a version, by a button or, for seen, by the script

Number = Annotated[int, Field(ge=0, le=BIGINT_MAX)]
M = TypeVar("M", bound=Model)

pages = flask.Blueprint("pages", __name__)


class View(Model):
    """The part of the inbox that a page shows; its links and forms carry it along."""

    state: Literal["all", "unread", "archived"] = "all"
    type: Annotated[str, Field(min_length=1, max_length=50)] | None = None
    before: Id | None = None

    def address(self, anchor: str | None = None, **more: Any) -> str:
        """Where this part, or with `more` another one, is to be seen: without what goes without saying."""
        wanted = {**self.model_dump(include=set(View.model_fields)), **more}
        if wanted["state"] == "all":
            del wanted["state"]
        return flask.url_for("pages.inbox", _anchor=anchor, **wanted)


class Shown(View):
    """The query of the page. What a form has just done is in it too: that chooses a sentence and an undo, no more.

    A forged one tells its reader a lie of ours about their own inbox, and its button undoes at most what they did.
    """

    done: Literal["read", "unread", "archive", "unarchive", "undo", "gone", "late"] | None = None
    id: Id | None = None
    changed: Number = 0
    undo: Number = 0


class Form(View):
    """What a button of the page sends: for whom the page was drawn, its version, and what the button is about."""

    reader: Number = 0  # of a page that names nobody: nobody
    through: Number | None = None
    id: Id | None = None
    near: Id | None = None  # the row beside it, where whoever removes it goes on
    undo: Number = 0


@pages.app_template_filter("rfc3339")
def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@pages.app_template_filter("date_and_time")
def date_and_time(moment: datetime) -> str:
    """For who has no script that knows the reader's own clock."""
    return f"{moment.astimezone(UTC):%-d %b %Y, %H:%M} UTC"


@pages.app_template_filter("type_name")
def type_name(type: str) -> str:
    return type.translate(str.maketrans("_-.", "   "))


@pages.app_template_filter("body")
def body(stored: str) -> Markup:
    return Markup(sanitize.written_anew(stored))  # noqa: S704 - written from the allow-list this very moment


@pages.app_template_filter("picture")
def picture(image: str | None) -> str | None:
    """A picture's address where this page may load it from there, else None: its person is shown by initials."""
    if not image or not is_web_address(image):
        return None
    parts = urlsplit(image)
    origin = f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else settings.current().own_origin
    return image if origin in {settings.current().own_origin, *settings.current().image_origins} else None


@pages.app_template_test("web_address")
def is_web_address(url: str | None) -> bool:
    try:
        return bool(url and sanitize.url(url))
    except ValueError:
        return False


pages.register_error_handler(Problem, auth.ask_to_sign_in)


@pages.get("/", endpoint="inbox")
def show_inbox() -> ResponseReturnValue:
    reader = auth.reader()
    shown = _checked(Shown, flask.request.args.items(multi=True))
    # The version comes before the list: what arrives between the two is listed, and a later "mark all" spares it.
    snapshot = db.read(inbox.unread_snapshot, reader, 0)
    found = db.read(
        inbox.list_notifications, reader, shown.state, PAGE + 1, shown.before or BIGINT_MAX, type=shown.type
    )
    types = set(db.read(inbox.list_types_held, reader)) | ({shown.type} if shown.type else set())
    return flask.render_template(
        "inbox.html",
        reader=reader,
        snapshot=snapshot,
        etag=snapshot.tag(settings.current().epoch, PAGE),
        poll_interval=settings.current().poll_interval,
        shown=shown,
        leaves=LEAVES[shown.state],
        notifications=found[:PAGE],
        older=shown.address(before=found[PAGE - 1]["id"]) if len(found) > PAGE else None,
        types=sorted(types),
    )


@pages.post(f"/<any({', '.join(marking.VERBS)}):verb>")
def mark(verb: str) -> ResponseReturnValue:
    """Marks one notification (`id`), or everything up to the version that the page showed (`through`)."""
    reader, form = auth.reader(), _form()
    if form.reader != reader.user_id:
        return _not_for_you(reader)
    if form.id is not None:
        return _mark_one(reader, verb, form, form.id)
    if form.through is None or verb not in MANY:
        raise Problem(422, "The form is not valid.", [FieldError("id", "is required")])
    done = db.write(marking.mark_through, reader, verb, form.through)
    if verb == "seen" or not done["changed"]:
        return flask.redirect(form.address(), 303)
    return flask.redirect(form.address(done=verb, changed=done["changed"], undo=done["undo"]), 303)


@pages.post("/undo")
def undo() -> ResponseReturnValue:
    """Puts back what a button for many has done; for a single one its opposite does that."""
    reader, form = auth.reader(), _form()
    if form.reader != reader.user_id:
        return _not_for_you(reader)
    found = _unless_gone(marking.undo, reader, form.undo)
    return flask.redirect(form.address(done="undo" if found else "late"), 303)


def _mark_one(reader: people.Reader, verb: str, form: Form, id: int) -> ResponseReturnValue:
    if not _unless_gone(marking.mark_one, reader, verb, id):
        return flask.redirect(form.address(done="gone"), 303)
    if verb in LEAVES[form.state]:
        anchor = f"n{form.near}" if form.near else None
        return flask.redirect(form.address(anchor, done=verb, id=id), 303)
    return flask.redirect(form.address(f"n{id}"), 303)


def _unless_gone(change: Any, *arguments: Any) -> bool:
    """Whether there was something to change: a notification may have moved on with its group, or be over."""
    try:
        db.write(change, *arguments)
    except Problem as problem:
        if problem.status != 404:
            raise
        return False
    return True


def _not_for_you(reader: people.Reader) -> ResponseReturnValue:
    """Somebody else has signed in since the page was drawn: nothing is changed, and they see what is theirs."""
    db.read(inbox.position, reader)  # 401 for a session that is not good any more
    return flask.redirect(flask.url_for("pages.inbox"), 303)


def _form() -> Form:
    return _checked(Form, [*flask.request.args.items(multi=True), *guard.form().items()])


def _checked(model: type[M], given: Any) -> M:
    # Names that we do not know are passed over: links to a page get them added by mail programs and the like.
    return validation.check_query(model, [(name, value) for name, value in given if name in model.model_fields])


@pages.route("/login", methods=["GET", "POST"])
def sign_in() -> ResponseReturnValue:
    if flask.request.method != "POST":
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
    found = db.read(tickets.find_ticket, ticket)
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
        response.headers["Content-Security-Policy"] = headers.content_security_policy(found.return_to)
    return response


def _spend(ticket: str) -> ResponseReturnValue:
    spent, reader = db.write(tickets.sign_in_by_ticket, ticket, settings.current().session_hours)
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
