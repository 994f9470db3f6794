"""What happened, once: an event as a sender says it, and as it is kept."""

import math
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import orjson
from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator
from sqlalchemy import Connection, text

from app import sanitize
from app.errors import FieldError, Problem, not_found
from app.validation import Model, Moment, Subject

DATA_BYTES = 10 * 1024
MOST_TYPES = 50  # of a list of types: nobody chooses among more
SHORTEST_LIFE = timedelta(seconds=1)
LONGEST_LIFE = timedelta(days=365)
# What takes many transactions and began so long ago, in SQL: whoever began it is taken to be dead.
CUT_OFF = "now() - interval '10 minutes'"


def _title(value: str) -> str:
    return sanitize.line(value, 200)


def _actor_name(value: str) -> str:
    return sanitize.line(value, 100)


def _small(data: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(data)) + _zeros(data) > DATA_BYTES:
        raise ValueError("must be at most 10 KiB as JSON")
    return data


def _zeros(value: Any) -> int:
    """What PostgreSQL writes besides: it keeps 1e308 in 8 bytes, but hands it out as 309 digits, at every poll."""
    if isinstance(value, dict):
        return sum(map(_zeros, value.values()))
    if isinstance(value, list):
        return sum(map(_zeros, value))
    is_written_out = isinstance(value, float) and value and not 1e-16 < abs(value) < 1e16
    return int(abs(math.log10(abs(value)))) if is_written_out else 0


# A length is checked before anything is cleaned: bleach takes quadratic time on hostile input.
Url = Annotated[str, Field(max_length=2000), AfterValidator(sanitize.url)]


Type = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]


class Actor(Model):
    """Who did it."""

    name: Annotated[str, Field(max_length=1000), AfterValidator(_actor_name)]
    url: Url | None = None
    image: Url | None = None


class Event(Model):
    """What happened, as a sender says it; cleaned by the time it is one of these."""

    type: Type
    title: Annotated[str, Field(max_length=2000), AfterValidator(_title)]
    body: Annotated[str, Field(max_length=4000)] = ""
    url: Url | None = None
    actor: Actor | None = None
    data: Annotated[dict[str, Any], AfterValidator(_small)] = Field({})
    priority: Literal["low", "normal", "high"] = "normal"
    group_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_LIFE.total_seconds())] | None = None
    expires_at: Moment | None = None
    _clean_body: sanitize.Body = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        # Here, where nothing is locked yet: a thousand long bodies take seconds.
        self._clean_body = sanitize.body(self.body)

    @property
    def clean_body(self) -> sanitize.Body:
        """The body as it is kept: plain, and with the little markup that is allowed."""
        return self._clean_body

    @field_validator("expires_at")
    @classmethod
    def _stand_alone(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is not None and info.data.get("expires_in") is not None:
            raise ValueError("must not stand beside expires_in")
        return value

    def check_expiry(self, now: datetime) -> None:
        """Raises 422 where the event would be over already, or would live for more than a year."""
        if self.expires_at and not SHORTEST_LIFE <= self.expires_at - now <= LONGEST_LIFE:
            message = "must be 1 second to 1 year ahead"
            raise Problem(422, f"expires_at {message}.", [FieldError("expires_at", message)])


# Failing fast: a thousand bad names in a thousand events would otherwise be a million errors to describe.
Recipients = Annotated[list[Subject], Field(min_length=1, max_length=1000, fail_fast=True)]


class AddressedEvent(Event):
    """An event with those who are to receive it."""

    recipients: Recipients


class Kept(NamedTuple):
    """An event that has been written down."""

    id: int
    expires_at: datetime


class Deliverable(Protocol):
    """What of an event decides who receives it, and how."""

    type: str
    group_key: str | None


INSERT = text("""
    INSERT INTO events (type, title, body_text, body_html, url, actor_name, actor_url, actor_image, data, priority,
        group_key, received, only_user_id, api_key_id, expires_at)
    VALUES (:type, :title, :body_text, :body_html, :url, :actor_name, :actor_url, :actor_image, CAST(:data AS jsonb),
        :priority, :group_key, :received, :only_user_id, :api_key_id,
        coalesce(CAST(:expires_at AS timestamptz), now() + CAST(:life AS interval)))
    RETURNING id, created_at, expires_at
""")


def insert(
    connection: Connection, event: Event, ttl: timedelta, key_id: int | None, *, received: int, only: int | None
) -> Kept:
    """Writes the event down; 422 where its expiry makes no sense by the database's clock.

    `received` is how many inboxes it goes to, `only` the one user where there is but one.
    """
    body = event.clean_body
    parameters = {
        "type": event.type,
        "title": event.title,
        "body_text": body.text,
        "body_html": body.html,
        "url": event.url,
        "actor_name": event.actor.name if event.actor else None,
        "actor_url": event.actor.url if event.actor else None,
        "actor_image": event.actor.image if event.actor else None,
        "data": orjson.dumps(event.data).decode(),
        "priority": event.priority,
        "group_key": event.group_key,
        "received": received,
        "only_user_id": only,
        "api_key_id": key_id,
        "expires_at": event.expires_at,
        "life": timedelta(seconds=event.expires_in) if event.expires_in else ttl,
    }
    row = connection.execute(INSERT, parameters).one()
    event.check_expiry(row.created_at)
    return Kept(row.id, row.expires_at)


CORRECT_RECEIVED = text("""
    UPDATE events SET received = :received,
        only_user_id = CASE WHEN :received = 1 THEN (SELECT user_id FROM notifications WHERE event_id = :id) END
    WHERE id = :id
""")


def correct_received(connection: Connection, id: int, received: int) -> None:
    """Notes which inboxes it really went to, where some of its recipients had muted its type.

    Index: notifications_event_id.
    """
    connection.execute(CORRECT_RECEIVED, {"id": id, "received": received})


NOW = text("SELECT now()")


def now(connection: Connection) -> datetime:
    """The database's time, the only one that counts."""
    moment: datetime = connection.execute(NOW).scalar_one()
    return moment


STATE = text("""
    SELECT events.id AS event_id, events.type, events.received, events.created_at, events.expires_at,
        events.retracted_at, count(n.id) AS held, count(n.seen_at) AS seen, count(n.read_at) AS read
    FROM events LEFT JOIN notifications AS n ON n.event_id = events.id AND now() < n.expires_at
    WHERE events.id = :id AND events.api_key_id = :key_id
    GROUP BY events.id
""")


def state(connection: Connection, id: int, key_id: int) -> dict[str, Any]:
    """How many received the sender's event; of those who still hold it, how many saw it and read it.

    404 for another sender's. Indexes: events_pkey, notifications_event_id.
    """
    row = connection.execute(STATE, {"id": id, "key_id": key_id}).one_or_none()
    if row is None:
        raise not_found()
    return dict(row._mapping)
