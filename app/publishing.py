"""What a sender does: an event, and one notification of it in each recipient's inbox."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from sqlalchemy import Connection, text

from app import idempotency, sanitize
from app.db import LostRace
from app.errors import FieldError, Problem
from app.idempotency import COMMAND_LINE
from app.validation import Model, Moment, Subject

CHUNK = 1_000  # inboxes that one statement delivers to
DATA_BYTES = 10 * 1024
SHORTEST_LIFE = timedelta(seconds=1)
LONGEST_LIFE = timedelta(days=365)


def _title(value: str) -> str:
    return _cleaned(value, 200)


def _actor_name(value: str) -> str:
    return _cleaned(value, 100)


def _cleaned(value: str, longest: int) -> str:
    cleaned = sanitize.plain_text(value)
    if not 1 <= len(cleaned) <= longest:
        raise ValueError(f"must be 1 to {longest} characters once markup and invisible characters are gone")
    return cleaned


def _small(data: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(data)) > DATA_BYTES:
        raise ValueError("must be at most 10 KiB as JSON")
    return data


# A length is checked before anything is cleaned: bleach takes quadratic time on hostile input.
Url = Annotated[str, Field(max_length=2000), AfterValidator(sanitize.url)]


class Actor(Model):
    """Who did it."""

    name: Annotated[str, Field(max_length=1000), AfterValidator(_actor_name)]
    url: Url | None = None
    image: Url | None = None


class Event(Model):
    """What happened, as a sender says it; cleaned by the time it is one of these."""

    type: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]
    title: Annotated[str, Field(max_length=2000), AfterValidator(_title)]
    body: Annotated[str, Field(max_length=4000)] = ""
    url: Url | None = None
    actor: Actor | None = None
    data: Annotated[dict[str, Any], AfterValidator(_small)] = Field({})
    priority: Literal["low", "normal", "high"] = "normal"
    group_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_LIFE.total_seconds())] | None = None
    expires_at: Moment | None = None

    @field_validator("expires_at")
    @classmethod
    def _stand_alone(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is not None and info.data.get("expires_in") is not None:
            raise ValueError("must not stand beside expires_in")
        return value

    def check_expiry(self, now: datetime) -> None:
        """Raises 422 where the event would be over already, or would live for more than a year."""
        if self.expires_at and not SHORTEST_LIFE <= self.expires_at - now <= LONGEST_LIFE:
            raise Problem(
                422, "The event is not valid.", [FieldError("expires_at", "must be 1 second to 1 year ahead")]
            )


class AddressedEvent(Event):
    """An event with those who are to receive it."""

    # Failing fast: a thousand bad names in a thousand events would otherwise be a million errors to describe.
    recipients: Annotated[list[Subject], Field(min_length=1, max_length=1000, fail_fast=True)]


@dataclass(frozen=True)
class Published:
    """What became of an event."""

    event_id: int
    recipients: int
    created: int
    replayed: bool = False


def publish(connection: Connection, event: Event, recipients: Sequence[str], ttl: timedelta) -> Published:
    """Creates the event and delivers it to each recipient once, in the transaction of `connection`.

    Unknown subjects become users. `ttl` is the life of an event that names none. Everything that waits waits in one
    order, here and everywhere: key, new people by subject, event, users by id, rows. So nothing deadlocks.
    """
    user_ids = find_or_make_users(connection, recipients)
    event_id, expires_at = insert_event(connection, event, user_ids, ttl)
    lock_users(connection, user_ids)
    created = sum(deliver(connection, event_id, event.group_key, expires_at, chunk) for chunk in _chunks(user_ids))
    return Published(event_id, recipients=len(user_ids), created=created)


def publish_once(
    connection: Connection, key: str, digest: bytes, event: Event, recipients: Sequence[str], ttl: timedelta
) -> Published:
    """Publishes under an idempotency key of the command line: the second time it gives back what the first time did."""
    earlier = idempotency.claim(connection, COMMAND_LINE, key, digest)
    if earlier is not None:
        return Published(**{**earlier, "replayed": True})
    published = publish(connection, event, recipients, ttl)
    idempotency.keep_answer(connection, COMMAND_LINE, key, asdict(published))
    return published


def line_key(line: bytes, ordinal: int) -> tuple[str, bytes]:
    """The key and digest of the `ordinal`-th of equal lines of a file: equal lines are separate events."""
    digest = hashlib.sha256(line)
    return f"{digest.hexdigest()}-{ordinal}", digest.digest()


NOW = text("SELECT now()")


def now(connection: Connection) -> datetime:
    """The database's time, the only one that counts."""
    moment: datetime = connection.execute(NOW).scalar_one()
    return moment


FIND_USERS = text("SELECT id, subject FROM users WHERE subject = ANY(:subjects)")
MAKE_USERS = text("""
    INSERT INTO users (subject) SELECT subject FROM unnest(CAST(:subjects AS text[])) AS wanted (subject)
    ORDER BY subject COLLATE "C" ON CONFLICT DO NOTHING
""")


def find_or_make_users(connection: Connection, subjects: Sequence[str]) -> list[int]:
    """The ids of these subjects, each once, in rising order. Index: users_subject_key.

    Raises `LostRace` where one of them was erased meanwhile.
    """
    wanted = list(set(subjects))
    found = connection.execute(FIND_USERS, {"subjects": wanted}).all()
    if len(found) < len(wanted):
        missing = set(wanted) - {row.subject for row in found}
        connection.execute(MAKE_USERS, {"subjects": sorted(missing)})
        found = connection.execute(FIND_USERS, {"subjects": wanted}).all()
    if len(found) < len(wanted):
        raise LostRace("a recipient was erased meanwhile")
    return sorted(row.id for row in found)


INSERT_EVENT = text("""
    INSERT INTO events (type, title, body_text, body_html, url, actor_name, actor_url, actor_image, data, priority,
        group_key, received, only_user_id, expires_at)
    VALUES (:type, :title, :body_text, :body_html, :url, :actor_name, :actor_url, :actor_image, CAST(:data AS jsonb),
        :priority, :group_key, :received, :only_user_id,
        coalesce(CAST(:expires_at AS timestamptz), now() + CAST(:life AS interval)))
    RETURNING id, created_at, expires_at
""")


def insert_event(connection: Connection, event: Event, user_ids: Sequence[int], ttl: timedelta) -> tuple[int, datetime]:
    """The event's id and when it expires; 422 where its expiry makes no sense by the database's clock."""
    body = sanitize.body(event.body)
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
        "received": len(user_ids),
        "only_user_id": user_ids[0] if len(user_ids) == 1 else None,
        "expires_at": event.expires_at,
        "life": timedelta(seconds=event.expires_in) if event.expires_in else ttl,
    }
    row = connection.execute(INSERT_EVENT, parameters).one()
    event.check_expiry(row.created_at)
    return row.id, row.expires_at


LOCK_USERS = text("SELECT id FROM users WHERE id = ANY(:user_ids) ORDER BY id FOR NO KEY UPDATE")


def lock_users(connection: Connection, user_ids: Sequence[int]) -> None:
    """Locks these users in the order of their ids, all before the first change. Index: users_pkey.

    A statement of its own: an UPDATE would lock in whatever order its plan finds the rows, and two of them deadlock.
    Raises `LostRace` where one of them was erased meanwhile.
    """
    locked = connection.execute(LOCK_USERS, {"user_ids": list(user_ids)}).all()
    if len(locked) < len(user_ids):
        raise LostRace("a recipient was erased meanwhile")


# A row of the group that has expired is replaced as if it were not there: its count begins anew.
DELIVER = text("""
    WITH raised AS (
        UPDATE users SET inbox_version = inbox_version + 1 WHERE id = ANY(:user_ids) RETURNING id, inbox_version
    )
    INSERT INTO notifications AS n (user_id, id, event_id, group_key, expires_at)
    SELECT id, inbox_version, :event_id, :group_key, :expires_at FROM raised
    ON CONFLICT (user_id, group_key) WHERE read_at IS NULL AND archived_at IS NULL AND group_key IS NOT NULL
    DO UPDATE SET id = excluded.id, event_id = excluded.event_id, expires_at = excluded.expires_at, seen_at = NULL,
        group_count = CASE WHEN now() < n.expires_at THEN n.group_count + 1 ELSE 1 END
""")


def deliver(
    connection: Connection, event_id: int, group_key: str | None, expires_at: datetime, user_ids: Sequence[int]
) -> int:
    """Puts the event on top of these inboxes, whose users are locked; how many it reached.

    Indexes: users_pkey, notifications_open_group.
    """
    parameters = {
        "user_ids": list(user_ids),
        "event_id": event_id,
        "group_key": group_key,
        "expires_at": expires_at,
    }
    return connection.execute(DELIVER, parameters).rowcount


def _chunks(user_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (user_ids[start : start + CHUNK] for start in range(0, len(user_ids), CHUNK))
