"""The sender's API under /api/v1/users and /api/v1/tickets: parses, calls `people` or `personal_data`, answers."""

from typing import Annotated, Any, TypeVar

import flask
import orjson
from pydantic import AfterValidator, Field

from app import auth, db, guard, limits, people, personal_data, sanitize, settings, tickets, validation
from app.errors import FieldError, Problem, not_found
from app.openapi import described
from app.validation import Model, Subject

M = TypeVar("M", bound=Model)

TICKET_SECONDS = 60

api = flask.Blueprint(limits.PEOPLE, __name__, url_prefix="/api/v1")


def _name(value: str) -> str:
    return sanitize.line(value, people.LONGEST_NAME)


class UserBody(Model):
    """What to change of a person."""

    display_name: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_name)] | None = None
    is_active: bool = True


class TicketBody(Model):
    """Whom a sign-in link is for, and where it leads."""

    user: Subject
    return_to: Annotated[str, Field(max_length=2000)] | None = None


class UserAnswer(Model):
    """The person as they are now."""

    subject: str
    display_name: str | None
    is_active: bool


class TicketAnswer(Model):
    """A link that signs the person in, once, within 60 seconds."""

    url: str


@api.put("/users/<subject>")
@described(body=UserBody, answers={200: UserAnswer, 201: UserAnswer}, refusals=(404,))
def change_user(subject: str) -> flask.Response:
    """Create a person, or change what is given."""
    auth.sender("people")
    body = _parse(UserBody)
    row = db.write(people.change_user, _known_subject(subject), body.model_dump(exclude_unset=True))
    answer = {"subject": row.subject, "display_name": row.display_name, "is_active": row.is_active}
    return _answer(answer, 201 if row.is_new else 200)


@api.delete("/users/<subject>")
@described(answers={204: None}, refusals=(404,))
def erase_user(subject: str) -> flask.Response:
    """Delete a person with everything that is theirs."""
    auth.sender("people")
    db.write(personal_data.erase, _known_subject(subject))
    limits.forget_sign_ins(subject)
    return flask.Response(status=204)


@api.get("/users/<subject>/export")
@described(answers={200: dict[str, Any]}, refusals=(404,))
def export_user(subject: str) -> flask.Response:
    """Everything that is held about a person."""
    auth.sender("people")
    return _answer(db.write(personal_data.export, _known_subject(subject)))


@api.post("/users/<subject>/sign-out")
@described(answers={204: None}, refusals=(404,))
def sign_out_user(subject: str) -> flask.Response:
    """End all of a person's sessions."""
    auth.sender("people")
    db.write(people.end_all_sessions, _known_subject(subject))
    return flask.Response(status=204)


@api.post("/tickets")
@described(body=TicketBody, answers={201: TicketAnswer}, refusals=(404,))
def make_ticket() -> flask.Response:
    """Make a link that signs a person in, once."""
    auth.sender("tickets")
    body = _parse(TicketBody)
    chosen = settings.current()
    if body.return_to is not None:
        try:
            tickets.checked_return_to(body.return_to, {chosen.own_origin, *chosen.cors_origins})
        except ValueError as error:
            raise Problem(422, f"return_to {error}.", [FieldError("return_to", str(error))]) from None
    ticket = db.write(tickets.make_ticket, body.user, TICKET_SECONDS, body.return_to)
    return _answer({"url": f"{chosen.own_url}/tickets/{ticket}"}, 201)


def _parse(model: type[M]) -> M:
    return validation.check(model, validation.parse_object(guard.json_body()))


def _known_subject(subject: str) -> str:
    try:
        # An address that is not UTF-8 is no name: routing puts U+FFFD into it, where two names would become one.
        flask.request.environ["PATH_INFO"].encode("latin-1").decode()
        return validation.subject(subject)
    except ValueError:
        raise not_found() from None


def _answer(content: dict[str, Any], status: int = 200) -> flask.Response:
    return flask.Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, mimetype="application/json")
