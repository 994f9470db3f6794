"""The sender's API under /api/v1/events: parses, calls `publishing`, `retracting` or `events`, answers."""

import hashlib
import re
import threading
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

import flask
import orjson
from pydantic import Field

from app import auth, db, events, guard, limits, publishing, retracting, settings, validation
from app.aside import aside
from app.errors import FieldError, Problem, not_found
from app.events import AddressedEvent, Event, Recipients
from app.idempotency import Call
from app.keys import Sender
from app.openapi import described
from app.publishing import Order
from app.validation import BIGINT_MAX, Model, Moment

M = TypeVar("M", bound=Model)

EVENT_BYTES = 512 * 1024
BATCH_BYTES = 4 * 1024 * 1024
BATCH_RECIPIENTS = 10_000
# At a time in this worker: a thousand bodies take up to a minute to clean, and each that is at it slows all polls.
ONE_BATCH = threading.Lock()
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

api = flask.Blueprint(limits.PUBLISH, __name__, url_prefix="/api/v1")


class EventBody(Event):
    """An event with its audience: named recipients, or everyone who is a user now."""

    recipients: Recipients | Literal["everyone"]


class BatchBody(Model):
    """Several events: all are published, or none."""

    events: Annotated[list[AddressedEvent], Field(min_length=1, max_length=1000)]


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
    with ONE_BATCH:
        batch = aside(_parse, BatchBody, raw).events
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


def _ttl() -> timedelta:
    return timedelta(days=settings.current().notification_ttl_days)


def _answer(content: dict[str, Any], status: int = 200, replayed: bool = False) -> flask.Response:
    response = flask.Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, mimetype="application/json")
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
