"""The reader's API under /notifications: parses, calls `inbox` or `marking`, answers."""

from typing import Annotated, Any, Literal, TypeVar

import flask
from pydantic import Field

from app import auth, db, guard, headers, inbox, limits, marking, polling, settings, steering, validation
from app.errors import FieldError, Problem, not_found
from app.openapi import described
from app.people import Reader
from app.validation import BIGINT_MAX, Id, Model, Moment

M = TypeVar("M", bound=Model)

api = flask.Blueprint(guard.API, __name__, url_prefix="/notifications")


class PollQuery(Model):
    """The query of a poll."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20


class ListQuery(PollQuery):
    """The query of a list."""

    state: Literal["all", "unread", "read", "archived"] = "all"
    type: Annotated[str, Field(min_length=1, max_length=50)] | None = None
    before: Id = BIGINT_MAX


class Nothing(Model):
    """The body of a call whose address says it all: empty, or `{}`."""


class Which(Model):
    """What a bulk action is for: these ids, or all that is listed through a snapshot's version."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=200)] | None = None
    through: Annotated[int, Field(ge=0, le=BIGINT_MAX)] | None = None


class UndoBody(Model):
    """Which bulk action to undo: the number it answered with."""

    undo: Annotated[int, Field(ge=0, le=BIGINT_MAX)]


class Actor(Model):
    """Who did it."""

    name: str
    url: str | None
    image: str | None


class Notification(Model):
    """One event in the reader's inbox; a group shows its newest event, and `count` how many there were."""

    id: int
    type: str
    title: str
    body: str
    body_html: str
    url: str | None
    actor: Actor | None
    data: dict[str, Any]
    priority: Literal["low", "normal", "high"]
    count: int
    created_at: Moment
    expires_at: Moment
    seen_at: Moment | None
    read_at: Moment | None
    archived_at: Moment | None


class SnapshotAnswer(Model):
    """The unread part of an inbox at one moment. Counts of 100 mean 100 or more."""

    user: str
    notifications: list[Notification]
    unread_count: int
    unseen_count: int
    version: int
    more: bool


class PageAnswer(Model):
    """One page of an inbox, and the path of the next one."""

    notifications: list[Notification]
    next: str | None


class ChangedAnswer(Model):
    """The counts after a change, and how many notifications it changed."""

    unread_count: int
    unseen_count: int
    changed: int


class UndoableAnswer(ChangedAnswer):
    """The same, with the number that undoes it for 10 minutes; 0 where nothing changed."""

    undo: int


@api.get("/unread")
@described(
    query=PollQuery,
    answers={200: SnapshotAnswer, 304: None},
    headers=("ETag", "X-Poll-Interval", "X-Image-Origins"),
    conditional=True,
)
@steering.noted
def unread() -> flask.Response:
    """The poll: the unread snapshot, or 304 where the caller's tag still is the whole truth."""
    reader = auth.reader()
    with limits.one_poll(reader.user_id, reader.counted_as):
        return _answer_poll(reader)


def _answer_poll(reader: Reader) -> flask.Response:
    if polling.TROUBLE in flask.request.environ:
        raise flask.request.environ[polling.TROUBLE]
    given = flask.request.headers.get("If-None-Match")
    answer = polling.answer(reader, _query(PollQuery).limit, given, auth.session_cookie())
    response = flask.Response(answer.body, 304 if answer.body is None else 200, mimetype="application/json")
    response.headers["X-Poll-Interval"] = str(steering.interval())
    response.headers["ETag"] = answer.tag
    if answer.body is not None:
        response.headers.update(headers.of_pictures(settings.current()))
    return response


@api.get("")
@described(query=ListQuery, answers={200: PageAnswer})
def list_notifications() -> flask.Response:
    """One page of the inbox, newest first, with the path of the next one."""
    reader = auth.reader()
    query = _query(ListQuery)
    found = db.read(inbox.list_notifications, reader, query.state, query.limit + 1, query.before, type=query.type)
    page, next_path = found[: query.limit], None
    if len(found) > query.limit:
        following = {"state": query.state, "type": query.type, "limit": query.limit, "before": page[-1]["id"]}
        next_path = flask.url_for(".list_notifications", **{k: v for k, v in following.items() if v is not None})
    return _answer({"notifications": page, "next": next_path})


@api.get("/<int:id>")
@described(answers={200: Notification}, refusals=(404,))
def find_notification(id: int) -> flask.Response:
    """One notification."""
    return _answer(db.read(inbox.find_notification, auth.reader(), _known(id)))


@api.post("/<int:id>/read")
@described(body=Nothing, answers={200: ChangedAnswer}, refusals=(404,))
def mark_read(id: int) -> flask.Response:
    """Mark one notification read."""
    return _mark_one("read", id)


@api.post("/<int:id>/unread")
@described(body=Nothing, answers={200: ChangedAnswer}, refusals=(404,))
def mark_unread(id: int) -> flask.Response:
    """Mark one notification unread."""
    return _mark_one("unread", id)


@api.post("/<int:id>/archive")
@described(body=Nothing, answers={200: ChangedAnswer}, refusals=(404,))
def archive(id: int) -> flask.Response:
    """Archive one notification."""
    return _mark_one("archive", id)


@api.post("/<int:id>/unarchive")
@described(body=Nothing, answers={200: ChangedAnswer}, refusals=(404,))
def unarchive(id: int) -> flask.Response:
    """Bring one notification back from the archive."""
    return _mark_one("unarchive", id)


@api.post("/read")
@described(body=Which, answers={200: UndoableAnswer})
def mark_many_read() -> flask.Response:
    """Mark many notifications read."""
    return _mark_many("read")


@api.post("/unread")
@described(body=Which, answers={200: UndoableAnswer})
def mark_many_unread() -> flask.Response:
    """Mark many notifications unread."""
    return _mark_many("unread")


@api.post("/archive")
@described(body=Which, answers={200: UndoableAnswer})
def archive_many() -> flask.Response:
    """Archive many notifications."""
    return _mark_many("archive")


@api.post("/seen")
@described(body=Which, answers={200: UndoableAnswer})
def mark_many_seen() -> flask.Response:
    """Mark many notifications seen."""
    return _mark_many("seen")


@api.post("/undo")
@described(body=UndoBody, answers={200: ChangedAnswer}, refusals=(404,))
def undo() -> flask.Response:
    """Puts back what a bulk action changed, for 10 minutes."""
    reader = auth.reader()
    body = _body(UndoBody)
    return _answer(db.write(marking.undo, reader, body.undo))


def _mark_one(verb: str, id: int) -> flask.Response:
    reader = auth.reader()
    _body(Nothing)
    return _answer(db.write(marking.mark_one, reader, verb, _known(id)))


def _mark_many(verb: str) -> flask.Response:
    reader = auth.reader()
    which = _body(Which)
    if (which.ids is None) == (which.through is None):
        raise Problem(422, "Give either ids or through.", [FieldError("ids", "must be given, or else through")])
    if which.through is not None:
        return _answer(db.write(marking.mark_through, reader, verb, which.through))
    return _answer(db.write(marking.mark_ids, reader, verb, which.ids or []))


def _known(id: int) -> int:
    """The id, or 404 for one that no notification can have: an answer that costs no query."""
    if not 1 <= id <= BIGINT_MAX:
        raise not_found()
    return id


def _query(model: type[M]) -> M:
    return validation.check_query(model, flask.request.args.items(multi=True))


def _body(model: type[M]) -> M:
    return validation.check(model, validation.parse_object(guard.json_body(), allow_empty=model is Nothing))


def _answer(content: dict[str, Any]) -> flask.Response:
    return flask.Response(inbox.dump(content), mimetype="application/json")
