"""The sender's API under /api/v1: parses, calls `publishing`, `retracting`, `people` or `personal_data`, answers."""

import hashlib
import re
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

import flask
import orjson
from pydantic import AfterValidator, Field

from app import (
    auth,
    db,
    events,
    guard,
    limits,
    people,
    personal_data,
    publishing,
    retracting,
    sanitize,
    settings,
    validation,
)
from app.errors import FieldError, Problem, not_found
from app.events import AddressedEvent, Event, Recipients
from app.idempotency import Call
from app.keys import Sender
from app.openapi import described
from app.publishing import Order
from app.validation import BIGINT_MAX, Model, Moment, Subject

M = TypeVar("M", bound=Model)

EVENT_BYTES = 512 * 1024
BATCH_BYTES = 4 * 1024 * 1024
BATCH_RECIPIENTS = 10_000
TICKET_SECONDS = 60
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

api = flask.Blueprint(limits.SENDERS, __name__, url_prefix="/api/v1")


class EventBody(Event):
    """An event with its audience: named recipients, or everyone who is a user now."""

    recipients: Recipients | Literal["everyone"]


class BatchBody(Model):
    """Several events: all are published, or none."""

    events: Annotated[list[AddressedEvent], Field(min_length=1, max_length=1000)]


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


class PublishedAnswer(Model):
    """What became of an event. Recipients who muted its type are counted as `muted`, and got no notification."""

    event_id: int
    recipients: int
    created: int
    muted: int


class BatchAnswer(Model):
    """What became of each event, in the order of the request."""

    events: list[PublishedAnswer]


class StateAnswer(Model):
    """`received`: in how many inboxes it arrived; `held`: where it is still; `seen`, `read`: by how many of those."""

    event_id: int
    type: str
    created_at: Moment
    expires_at: Moment
    retracted_at: Moment | None
    received: int
    held: int
    seen: int
    read: int


class RemovedAnswer(Model):
    """From how many inboxes the event was taken."""

    removed: int


class UserAnswer(Model):
    """The person as they are now."""

    subject: str
    display_name: str | None
    is_active: bool


class TicketAnswer(Model):
    """A link that signs the person in, once, within 60 seconds."""

    url: str


@api.post("/events")
@described(body=EventBody, answers={201: PublishedAnswer}, refusals=(409,), idempotent=True)
def publish() -> flask.Response:
    """Publish an event."""
    sender = auth.sender("publish")
    raw = guard.json_body(EVENT_BYTES)
    event = _parse(EventBody, raw)
    call = _call(sender, raw)
    if event.recipients == "everyone":
        return _publish_to_everyone(sender, call, event)
    answers, replayed = _publish(sender, call, [Order(event, event.recipients)])
    return _answer(_in_order(answers[0]), 201, replayed)


@api.post("/events/batch")
@described(body=BatchBody, answers={201: BatchAnswer}, refusals=(409,), idempotent=True)
def publish_batch() -> flask.Response:
    """Publish several events, all or none."""
    sender = auth.sender("publish")
    raw = guard.json_body(BATCH_BYTES)
    batch = _parse(BatchBody, raw).events
    if sum(len(event.recipients) for event in batch) > BATCH_RECIPIENTS:
        message = f"must have at most {BATCH_RECIPIENTS:,} recipients in sum"
        raise Problem(422, f"events {message}.", [FieldError("events", message)])
    orders = [Order(event, event.recipients, f"events[{index}].") for index, event in enumerate(batch)]
    answers, replayed = _publish(sender, _call(sender, raw), orders)
    return _answer({"events": [_in_order(answer) for answer in answers]}, 201, replayed)


@api.get("/events/<int:id>")
@described(answers={200: StateAnswer}, refusals=(404,))
def find_event(id: int) -> flask.Response:
    """How many received an event, saw it and read it."""
    sender = auth.sender("publish")
    return _answer(db.read(events.state, _known(id), sender.key_id))


@api.delete("/events/<int:id>")
@described(answers={200: RemovedAnswer}, refusals=(404,))
def retract(id: int) -> flask.Response:
    """Take an event back from every inbox."""
    sender = auth.sender("publish")
    return _answer({"removed": retracting.retract(_known(id), sender.key_id)})


@api.put("/users/<subject>")
@described(body=UserBody, answers={200: UserAnswer, 201: UserAnswer}, refusals=(404,))
def change_user(subject: str) -> flask.Response:
    """Create a person, or change what is given."""
    auth.sender("people")
    body = _parse(UserBody, guard.json_body())
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
    body = _parse(TicketBody, guard.json_body())
    chosen = settings.current()
    if body.return_to is not None:
        try:
            people.checked_return_to(body.return_to, {chosen.own_origin, *chosen.cors_origins})
        except ValueError as error:
            raise Problem(422, f"return_to {error}.", [FieldError("return_to", str(error))]) from None
    ticket = db.write(people.make_ticket, body.user, TICKET_SECONDS, body.return_to)
    return _answer({"url": f"{chosen.own_url}/tickets/{ticket}"}, 201)


def _publish(sender: Sender, call: Call | None, orders: list[Order]) -> tuple[list[dict[str, int]], bool]:
    if call is None:
        published = db.write(publishing.publish, orders, _ttl(), sender.key_id)
        return [one.as_json() for one in published], False
    return db.write(publishing.publish_once, call, orders, _ttl(), sender.key_id)


def _publish_to_everyone(sender: Sender, call: Call | None, event: Event) -> flask.Response:
    if call is None:
        # Without it a call that was cut off half-way could not be continued, only doubled.
        message = 'is required with "everyone"'
        raise Problem(422, f"Idempotency-Key {message}.", [FieldError("Idempotency-Key", message)])
    answer, replayed = publishing.to_everyone(call, event, _ttl(), sender.key_id)
    return _answer(_in_order(answer), 201, replayed)


def _in_order(answer: dict[str, int]) -> dict[str, int]:
    # PostgreSQL keeps JSON's keys in an order of its own, and a replayed answer is the same to the byte.
    return PublishedAnswer(**answer).model_dump()


def _call(sender: Sender, raw: bytes) -> Call | None:
    """What makes a repeat of this call the same call: the key of its header, its path and its body."""
    key = flask.request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(key):
        message = "must be 1 to 255 visible ASCII characters"
        raise Problem(422, f"Idempotency-Key {message}.", [FieldError("Idempotency-Key", message)])
    return Call(sender.key_id, key, hashlib.sha256(flask.request.path.encode() + b"\n" + raw).digest())


def _parse(model: type[M], raw: bytes) -> M:
    return validation.check(model, validation.parse_object(raw))


def _known(id: int) -> int:
    if not 1 <= id <= BIGINT_MAX:
        raise not_found()
    return id


def _known_subject(subject: str) -> str:
    try:
        # An address that is not UTF-8 is no name: routing puts U+FFFD into it, where two names would become one.
        flask.request.environ["PATH_INFO"].encode("latin-1").decode()
        return validation.subject(subject)
    except ValueError:
        raise not_found() from None


def _ttl() -> timedelta:
    return timedelta(days=settings.current().notification_ttl_days)


def _answer(content: dict[str, Any], status: int = 200, replayed: bool = False) -> flask.Response:
    response = flask.Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, mimetype="application/json")
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
