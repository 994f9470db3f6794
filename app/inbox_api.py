"""The reader's API under /notifications: parses, calls `inbox` or `marking`, answers."""

import re
from typing import Annotated, Any, Literal, TypeVar

import flask
import orjson
from pydantic import Field

from app import auth, db, guard, inbox, limits, marking, settings, validation
from app.errors import FieldError, Problem, not_found
from app.people import Reader
from app.validation import BIGINT_MAX, Id, Model

M = TypeVar("M", bound=Model)

api = flask.Blueprint(guard.API, __name__, url_prefix="/notifications")

# EPOCH.USER.VERSION.UNTIL.LIMIT, as docs/api.md has it; the epoch holds no dots and no quotes.
ETAG = re.compile(r'"([^".]+)\.(\d{1,19})\.(\d{1,19})\.(\d{1,19})\.(\d{1,3})"')


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


@api.get("/unread")
def unread() -> flask.Response:
    """The poll: the unread snapshot, or 304 where the caller's tag still is the whole truth."""
    reader = auth.reader()
    # By session first, so that whoever replays an ended one is stopped, and does not use up its owner's polls.
    limits.count_poll(f"session/{reader.session_id}")
    limit = _query(PollQuery).limit
    response = flask.Response(mimetype="application/json")
    response.headers["X-Poll-Interval"] = str(settings.current().poll_interval)
    tag = _unchanged_tag(reader, limit)
    if tag is not None:
        response.status_code = 304
        response.headers["ETag"] = tag
    else:
        snapshot = db.read(inbox.unread_snapshot, reader, limit)
        response.headers["ETag"] = snapshot.tag(settings.current().epoch, limit)
        response.data = _dump(snapshot.as_json())
    limits.count_poll(f"user/{reader.user_id}")
    return response


@api.get("")
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
def find_notification(id: int) -> flask.Response:
    return _answer(db.read(inbox.find_notification, auth.reader(), _known(id)))


@api.post("/<int:id>/read")
def mark_read(id: int) -> flask.Response:
    return _mark_one("read", id)


@api.post("/<int:id>/unread")
def mark_unread(id: int) -> flask.Response:
    return _mark_one("unread", id)


@api.post("/<int:id>/archive")
def archive(id: int) -> flask.Response:
    return _mark_one("archive", id)


@api.post("/<int:id>/unarchive")
def unarchive(id: int) -> flask.Response:
    return _mark_one("unarchive", id)


@api.post("/read")
def mark_many_read() -> flask.Response:
    return _mark_many("read")


@api.post("/unread")
def mark_many_unread() -> flask.Response:
    return _mark_many("unread")


@api.post("/archive")
def archive_many() -> flask.Response:
    return _mark_many("archive")


@api.post("/seen")
def mark_many_seen() -> flask.Response:
    return _mark_many("seen")


@api.post("/undo")
def undo() -> flask.Response:
    """Puts back what a bulk action changed, for 10 minutes."""
    reader = auth.reader()
    body = _body(UndoBody)
    return _answer(db.write(marking.undo, reader, body.undo))


def _unchanged_tag(reader: Reader, limit: int) -> str | None:
    """The tag of the caller's that is still true; tags are compared weakly (RFC 9110 13.1.2), for proxies weaken them.

    `*` asks for any present state, and a signed-in reader always has one.
    """
    given = flask.request.headers.get("If-None-Match")
    if given is None:
        return None
    if given.strip() == "*":
        return db.read(inbox.unread_snapshot, reader, limit).tag(settings.current().epoch, limit)
    # However many tags are given, they cost one look-up: only the present version can match.
    known = {match.group(): match.groups() for match in ETAG.finditer(given)}
    mine = (settings.current().epoch, str(reader.user_id), str(limit))
    candidates = [tag for tag, (epoch, user_id, _, _, of) in known.items() if (epoch, user_id, of) == mine]
    if not candidates:
        return None
    at = db.read(inbox.position, reader)
    for tag in candidates:
        version, until = int(known[tag][2]), int(known[tag][3])
        if version == at.version and (until == 0 or at.now < until):
            return tag
    return None


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
    return flask.Response(_dump(content), mimetype="application/json")


def _dump(content: dict[str, Any]) -> bytes:
    # Times come as UTC from the connection; the wire has them as RFC 3339 with a Z.
    return orjson.dumps(content, option=orjson.OPT_UTC_Z)
